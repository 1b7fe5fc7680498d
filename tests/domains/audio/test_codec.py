"""Laws of the codec: lengths, nothing from neighbours or padding, standardised latents; and of models of latents."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sciffusion.domains.audio import (
    AudioModel,
    AudioTask,
    Clip,
    Clips,
    ComplexSTFT,
    train,
)
from sciffusion.domains.audio.codec import AudioCodec, CodecConfig
from sciffusion.domains.audio.codec_task import CodecTask, CodecTraining
from sciffusion.domains.audio.frontend import SpectrumConfig
from sciffusion.domains.audio.given import Heard
from sciffusion.noise import Noise
from sciffusion.training import TrainConfig, export

from .small import settings, tones

CONFIG = CodecConfig(800, n_fft=32, hop=8, channels=6, width=12, depth=2, kernel=3, iterations=4)
SETTINGS = CodecTraining(
    model=CONFIG,
    frames=10,
    train=TrainConfig(steps=60, batch_size=8, lr=5e-3, warmup=2, log_every=5, validate_every=60),
)
CPU = torch.device("cpu")


def waves(clips: Clips) -> list[Tensor]:
    return [clip.samples[0] for clip in clips]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[AudioCodec, Path]:
    """A codec that was trained for a moment, and its file."""
    folder = tmp_path_factory.mktemp("codec")
    codec, _ = train(SETTINGS, folder, tones(), tones(4, 1))
    assert isinstance(codec, AudioCodec)
    return codec, folder / "model.safetensors"


@pytest.fixture(scope="module")
def codec(run: tuple[AudioCodec, Path]) -> AudioCodec:
    return run[0]


@pytest.mark.parametrize("n", [1, 8, 9, 150])
def test_there_is_a_vector_for_every_hop_and_a_hop_for_every_vector(
    codec: AudioCodec, n: int
) -> None:
    z = codec.latents(torch.randn(2, n))
    assert z.shape == (2, 6, -(-n // 8)) == (2, 6, CONFIG.frames(n))
    made = codec.waves(z)
    assert made.shape == (2, 8 * z.shape[2])
    assert bool(made.isfinite().all())


def test_a_clip_in_a_padded_batch_is_what_it_is_alone(codec: AudioCodec) -> None:
    found = waves(tones(4))
    alone = [codec.latents(w[None])[0] for w in found]
    together = codec.latents(nn.utils.rnn.pad_sequence(found, batch_first=True))
    sizes = torch.tensor([z.shape[1] for z in alone])
    mask = torch.arange(int(sizes.max())) < sizes[:, None]
    for row, z in zip(together, alone, strict=True):
        torch.testing.assert_close(row[:, : z.shape[1]], z, rtol=1e-4, atol=1e-5)
    batch = torch.where(mask[:, None], together, 7.0)  # what lies beyond must not matter
    for row, z in zip(codec.waves(batch, mask), alone, strict=True):
        one = codec.waves(z[None])[0]
        torch.testing.assert_close(row[: len(one)], one, rtol=1e-3, atol=1e-4)
        assert not bool(row[len(one) :].any())


def test_a_latent_depends_on_its_reach_and_all_of_it(codec: AudioCodec) -> None:
    wave = torch.zeros(1, 160, requires_grad=True)
    noisy = wave + torch.randn(1, 160, generator=torch.Generator().manual_seed(0))
    mean, _ = codec.posterior(noisy[:, None])
    (slope,) = torch.autograd.grad(mean[0, :, 10].square().sum(), wave)
    seen = torch.where(slope[0] != 0)[0]
    # Hann's window is zero where it begins
    assert (int(seen.min()), int(seen.max())) == (80 - CONFIG.reach + 1, 87 + CONFIG.reach)


def test_training_starts_from_the_best_linear_codec() -> None:
    """The error of its logarithms is what the components that are left out hold."""
    task = CodecTask(SETTINGS, tones())
    codec = task.model().eval()
    logs = torch.cat([codec.logs(w[None])[0].mT for w in task.waves])
    z = torch.cat([codec.posterior(w[None, None])[0][0].mT for w in task.waves])
    with torch.no_grad():
        made = torch.cat([codec.spectrum(x.mT[None])[0].mT for x in z.split(10)])
    left = torch.linalg.svdvals((logs - logs.mean(0)).double())[6:].square().sum()
    torch.testing.assert_close((made - logs).square().sum().double(), left, rtol=1e-3, atol=1e-3)
    # turned, not whitened: channels vary about as much, and what varies little still does
    spread = z.detach().std(0)
    assert float(spread.max() / spread.min()) < 4
    power = torch.linalg.eigvalsh(torch.cov(z.detach().mT))
    assert float(power.max() / power.min()) > 20


def test_latents_of_the_training_clips_have_zero_mean_and_unit_variance(codec: AudioCodec) -> None:
    noise, total = Noise(3), []
    for wave in waves(tones()):
        x = wave[None, None] / wave.abs().max() / 2
        total.append(codec.encode(x, noise).detach()[0])
    z = torch.cat(total, 1)
    assert float(z.mean(1).abs().max()) < 0.1
    assert float((z.std(1) - 1).abs().max()) < 0.1


def test_training_lowers_the_loss_and_its_gradient_is_finite_on_silence(codec: AudioCodec) -> None:
    task = CodecTask(SETTINGS, tones())
    batch = task.batch(np.arange(16), 1, CPU)
    fresh = task.model()
    with torch.no_grad():
        before, after = (task.losses(m, batch, None).mean() for m in (fresh, codec))
    assert after < 0.9 * before
    task.losses(fresh, torch.zeros(2, 80), 0).sum().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in fresh.parameters())


def test_pieces_and_their_noise_depend_on_the_key_alone(codec: AudioCodec) -> None:
    task = CodecTask(SETTINGS, tones())
    one, two, other = (task.batch(np.arange(8), key, CPU) for key in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    with torch.no_grad():
        losses = [task.losses(codec, one, key) for key in (5, 5, 6)]
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])


def test_a_codec_is_the_same_after_saving(run: tuple[AudioCodec, Path], tmp_path: Path) -> None:
    codec, path = run
    again = AudioCodec.from_file(path)
    assert again.fingerprint == codec.fingerprint
    wave = torch.stack(waves(tones(4))[:1])
    torch.testing.assert_close(again.latents(wave), codec.latents(wave), rtol=0.02, atol=0.02)
    with torch.no_grad():
        again.first.weight.add_(0.01)
    assert again.fingerprint != codec.fingerprint
    export({"x": torch.zeros(1)}, tmp_path / "other.safetensors", {"kind": "audio"})
    with pytest.raises(ValueError, match="holds 'audio', not a codec"):
        AudioCodec.from_file(tmp_path / "other.safetensors")


def test_a_model_of_latents_trains_samples_and_keeps_its_codec(
    run: tuple[AudioCodec, Path], tmp_path: Path
) -> None:
    codec, path = run
    config = replace(settings(steps=4), codec=path)
    model, _ = train(config, tmp_path, tones())
    assert isinstance(model, AudioModel)
    clips = model.sample(3, {"pitch": "low"}, seconds=[0.1, 0.2, 0.15], steps=2)
    assert clips.lengths.tolist() == [80, 160, 120]
    state = model.encode(tones(3))
    assert state["mel"].shape[2] == 6
    again = AudioModel.from_file(tmp_path / "model.safetensors")
    assert again.codec is not None
    assert again.codec.fingerprint == codec.fingerprint
    same = again.sample(1, seconds=0.1, seed=2, steps=2)[0].samples
    torch.testing.assert_close(
        same, model.sample(1, seconds=0.1, seed=2, steps=2)[0].samples, rtol=0.05, atol=0.02
    )


@pytest.fixture(scope="module")
def model(codec: AudioCodec) -> AudioModel:
    """A model of latents that was taught nothing."""
    task = AudioTask(settings(), tones(), codec=codec)
    return AudioModel.from_training(task, task.model().state_dict())


@pytest.fixture(scope="module")
def spectral() -> AudioModel:
    """A model of complex spectra that was taught nothing."""
    config = settings()
    spectrum = SpectrumConfig(800, ComplexSTFT(n_fft=32, hop=8))
    task = AudioTask(replace(config, model=replace(config.model, spectrum=spectrum)), tones())
    return AudioModel.from_training(task, task.model().state_dict())


def test_latents_that_see_nothing_of_a_hole_are_those_of_the_clip(model: AudioModel) -> None:
    clip = Clip(torch.randn(1, 203, generator=torch.Generator().manual_seed(0)), 800)
    heard = Heard.of(clip, CONFIG, [(88, 120)])
    whole = heard.whole(CONFIG.reach)
    full, holed = (model.frames(w) for w in (clip.samples[0] * heard.gain, heard.wave))
    assert len(whole) == len(full) == CONFIG.frames(203)
    torch.testing.assert_close(holed[whole], full[whole], rtol=0, atol=1e-5)
    # no frame is given away: those beside the known ones do see something
    assert bool(((holed - full).abs().amax(1) > 1e-5)[~whole].all())


@pytest.mark.parametrize("kind", ["model", "spectral"])
def test_a_repaired_clip_is_bit_by_bit_the_given_one_outside(
    kind: str, request: pytest.FixtureRequest
) -> None:
    model: AudioModel = request.getfixturevalue(kind)
    one = tones(1)[0].resample(2000)
    clip = Clip(torch.cat([one.samples, 0.25 * one.samples]), 2000)
    holed = clip.samples.clone()
    holed[:, 100:160] = 9.0  # what lies in a hole is not looked at
    out, again = (model.inpaint(c, (0.05, 0.08), steps=2)[0] for c in (clip, Clip(holed, 2000)))
    assert out.rate == 2000
    keep = torch.ones(clip.samples.shape[1], dtype=torch.bool)
    keep[100:160] = False
    assert torch.equal(out.samples[:, keep], clip.samples[:, keep])
    assert torch.equal(out.samples, again.samples)
    assert float((out.samples - clip.samples)[:, ~keep].abs().max()) > 1e-3
    longer = model.extend(one, 0.5, steps=2)[0]
    assert longer.samples.shape == (1, 1000)
    assert torch.equal(longer.samples[:, : one.samples.shape[1]], one.samples)
    assert float(longer.samples[:, 700:].abs().max()) > 0


@pytest.mark.parametrize("kind", ["model", "spectral"])
def test_edits_and_interpolations_begin_at_the_clip(
    kind: str, request: pytest.FixtureRequest
) -> None:
    model: AudioModel = request.getfixturevalue(kind)
    a, b = tones(4)[0], tones(4)[3]
    torch.testing.assert_close(model.edit(a, 0.0)[0].samples, a.samples)
    given = model.frames(a.normalised(0.5).samples[0])
    near, far = (
        float((model.frames(c.normalised(0.5).samples[0]) - given).square().mean())
        for c in (model.edit(a, s, steps=3)[0] for s in (0.02, 0.9))
    )
    assert near < 0.5 * far
    ends = model.interpolate(a, b, 3, steps=10)
    assert ends[0].samples.shape == a.samples.shape
    assert ends[2].samples.shape == b.samples.shape
    longest = max(a.samples.shape[1], b.samples.shape[1])
    padded = Clip(nn.functional.pad(a.samples, (0, longest - a.samples.shape[1])), 800)
    same = model.decode(model.encode([padded]))[0].samples[:, : a.samples.shape[1]]
    torch.testing.assert_close(
        ends[0].normalised().samples, Clip(same, 800).normalised().samples, rtol=0, atol=0.1
    )


def test_another_codec_is_refused_and_so_are_verbs_of_spectrograms(
    model: AudioModel, codec: AudioCodec, spectral: AudioModel
) -> None:
    with pytest.raises(ValueError, match="trained on latents of the codec .* noise"):
        replace(model, codec=AudioCodec(CONFIG))
    with pytest.raises(ValueError, match="but codec is none"):
        replace(model, codec=None)
    with pytest.raises(ValueError, match="trained on spectrograms, but codec is"):
        replace(spectral, codec=codec)
    clip = tones(1)[0]
    for other, what in ((model, "latents of a codec"), (spectral, "complex spectra")):
        for verb in (
            partial(other.super_resolve, clip, cutoff=100.0),
            partial(other.denoise, clip, snr=9.0),
            partial(other.separate, clip, [{}, {}]),
        ):
            with pytest.raises(
                ValueError, match=f"needs a model of log-mel spectrograms, .* {what}"
            ):
                verb()


def test_settings_that_make_no_codec_are_refused() -> None:
    with pytest.raises(ValueError, match="kernel odd"):
        CodecConfig(kernel=4)
    with pytest.raises(ValueError, match="channels must be at most 17"):
        CodecConfig(n_fft=32, hop=8, channels=18)
    with pytest.raises(ValueError, match="n_fft must exceed hop"):
        CodecConfig(n_fft=32, hop=9)
    with pytest.raises(ValueError, match="frames must be at least 1"):
        CodecTraining(frames=0)
    with pytest.raises(ValueError, match="x must be .* with at least one sample"):
        AudioCodec(CONFIG).posterior(torch.zeros(1, 1, 0))
    with pytest.raises(ValueError, match="waves must be .* with at least one sample"):
        AudioCodec(CONFIG).latents(torch.zeros(1, 0))
