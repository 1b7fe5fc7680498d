"""Laws of a trained model: seeds, batches, what is asked for, files, and what it refuses."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser
from sciffusion.domains.audio import AudioModel, Clip, Clips, GriffinLim, Guide, load
from sciffusion.domains.audio.recovery import Recovery
from sciffusion.guidance import CFG, Interval, Rescaled
from sciffusion.state import State
from sciffusion.training import export

from .small import MEL, shaken, tones


@pytest.fixture(scope="module")
def model() -> AudioModel:
    return shaken()


def close(a: Clips, b: Clips) -> None:
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert x.samples.shape == y.samples.shape
        scale = float(x.samples.abs().max())
        assert float((x.samples - y.samples).abs().max()) < 0.02 * scale


def test_a_clip_depends_on_seed_and_place_alone(model: AudioModel) -> None:
    many = model.sample(7, seed=3, steps=3, batch_size=4)
    close(many[:3], model.sample(3, seed=3, steps=3, batch_size=1))
    assert all(
        np.array_equal(many.labels[k][:3], v)
        for k, v in model.sample(3, seed=3, steps=2).labels.items()
    )
    other = model.sample(7, seed=4, steps=3)
    assert any(x.samples.shape != y.samples.shape for x, y in zip(many, other, strict=True))


def test_what_is_asked_for_is_what_the_labels_say(model: AudioModel) -> None:
    clips = model.sample(4, {"pitch": "high", "attack": [0, 1, None, 1]}, seconds=0.2, steps=2)
    assert clips.labels["pitch"].tolist() == ["high"] * 4
    assert clips.labels["attack"].tolist() == ["0", "1", "", "1"]
    assert [c.samples.shape for c in clips] == [(1, 160)] * 4
    assert clips[0].rate == 800


def test_what_is_not_asked_for_is_drawn_as_in_the_training_data(model: AudioModel) -> None:
    clips = model.sample(300, {"pitch": "low"}, steps=2, batch_size=300)
    assert abs(np.mean(clips.labels["attack"] == "1") - 0.5) < 0.1
    data = tones()
    known = {
        c.samples.shape[1] for c, p in zip(data, data.labels["pitch"], strict=True) if p == "low"
    }
    assert {c.samples.shape[1] for c in clips} == known


def test_guidance_is_a_scale_a_guide_or_anything_of_the_core(model: AudioModel) -> None:
    def core(denoiser: Denoiser, cond: Condition, null: Condition) -> Denoiser:
        return Interval(Rescaled(CFG(denoiser, cond, null, 3.0), 0.0), high=0.0)

    def clips(guidance: object) -> Clips:
        return model.sample(2, {"pitch": "low"}, steps=3, guidance=guidance)  # type: ignore[arg-type]

    close(clips(3.0), clips(Guide(3.0, high=0.0)))
    close(clips(3.0), clips(core))
    close(clips(None), clips(model.sampling.guide()))
    close(clips(1.0), clips(Guide(3.0, low=50.0)))
    close(clips(1.0), clips(Guide(3.0, weak=model.denoiser)))
    one, three = clips(1.0), clips(3.0)
    assert float((one[0].samples - three[0].samples).abs().max()) > 1e-3


def test_decoding_gives_back_the_tones_that_were_encoded(model: AudioModel) -> None:
    data = tones(6)
    state = model.encode(data)
    assert state["mel"].shape[2] == 8
    assert state.layout("mel").points(state["mel"]).tolist() == [
        MEL.frames(c.samples.shape[1]) for c in data
    ]
    back = model.decode(state, [c.samples.shape[1] for c in data])
    again = model.encode(back)["mel"]
    loudest = [
        m.mean(1).argmax(1).tolist() for m in map(model.standard.decode, (state["mel"], again))
    ]
    assert loudest[0] == loudest[1]


def test_any_rate_and_stereo_are_encoded_as_the_clip_itself(model: AudioModel) -> None:
    clip = tones(1)[0]
    stereo = Clip(torch.cat([clip.samples, clip.samples]) * 0.3, clip.rate)
    torch.testing.assert_close(
        model.encode([stereo])["mel"], model.encode([clip])["mel"], rtol=1e-3, atol=1e-3
    )
    state = model.encode([clip.resample(1600)])
    assert state["mel"].shape == model.encode([clip])["mel"].shape


def test_a_file_brings_everything_back_up_to_half_precision(
    model: AudioModel, tmp_path: Path
) -> None:
    same = load(model.save(tmp_path / "m.safetensors"))
    assert same.config == model.config
    assert torch.equal(same.standard.mean, model.standard.mean)
    assert torch.equal(same.catalogue.samples, model.catalogue.samples)
    a, b = (m.sample(4, steps=2, seed=1) for m in (model, same))
    assert a.labels["pitch"].tolist() == b.labels["pitch"].tolist()
    assert [x.samples.shape for x in a] == [x.samples.shape for x in b]
    again = load(same.save(tmp_path / "n.safetensors"))
    close(b, again.sample(4, steps=2, seed=1))


@pytest.mark.parametrize("network", ["patches", "unet"])
def test_every_network_samples(network: str) -> None:
    clips = shaken(network).sample(2, seconds=0.2, steps=2)
    assert all(bool(c.samples.isfinite().all()) for c in clips)


def test_what_it_cannot_do_is_refused_by_name(model: AudioModel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        model.sample(0)
    with pytest.raises(ValueError, match="Did you mean 'pitch'"):
        model.sample(1, {"picth": "low"})
    with pytest.raises(
        ValueError, match="pitch must be one of high, low, or a number below 2, got 'lwo'"
    ):
        model.sample(1, {"pitch": "lwo"})
    with pytest.raises(ValueError, match="attack has 3 values for 2 samples"):
        model.sample(2, {"attack": [0, 1, 0]})
    with pytest.raises(ValueError, match="seconds must lie above 0 and up to 0"):
        model.sample(1, seconds=9.0)
    with pytest.raises(ValueError, match="seconds has 1 values for 2 clips"):
        model.sample(2, seconds=[0.1])
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        model.sample(1, steps=0)
    with pytest.raises(ValueError, match="given holds text, but this model was trained without"):
        model.sample(1, {"text": torch.zeros(1, 1, 4)})
    with pytest.raises(ValueError, match="recovery is made for other spectrograms"):
        replace(model, recovery=GriffinLim(replace(MEL, hop=32)))
    with pytest.raises(FileNotFoundError, match="no model 'fsd'"):
        load("fsd")
    export({"x": torch.zeros(1)}, tmp_path / "other.safetensors", {"kind": "weather"})
    with pytest.raises(ValueError, match="holds 'weather', not a model of clips"):
        load(tmp_path / "other.safetensors")


def test_as_it_stands_a_clip_takes_two_dozen_calls(model: AudioModel) -> None:
    calls = []
    handle = model.denoiser.register_forward_pre_hook(lambda *_: calls.append(1))
    model.sample(1, seconds=0.2)
    handle.remove()
    assert 20 <= len(calls) <= 25


def test_a_recovery_of_one_s_own_makes_the_waveforms(model: AudioModel) -> None:
    class Silence(Recovery):
        def __call__(self, mel: Tensor, mask: Tensor | None = None) -> Tensor:
            return torch.zeros(len(mel), mel.shape[2] * MEL.hop)

    clips = replace(model, recovery=Silence(MEL)).sample(2, steps=2)
    assert all(not bool(c.samples.any()) for c in clips)


def test_the_denoiser_is_one_of_the_core(model: AudioModel) -> None:
    state = model.encode(tones(3))
    cond = model.condition({"pitch": ["low", "high", None]}, 3)
    prediction = model.guided(cond, 2.0)(state, torch.tensor(0.5))
    assert isinstance(prediction.x0, State)
    assert prediction.x0["mel"].shape == state["mel"].shape
