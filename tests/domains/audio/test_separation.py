"""Laws of what is taken apart: sources sum to their mixture, noise goes, and the right error for everything else."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from sciffusion.domains.audio import AudioModel, Clip
from sciffusion.domains.audio.separation import Sources
from sciffusion.inverse import SDA
from sciffusion.layout import Dense
from sciffusion.state import State

from .chain import chain
from .small import tones


@pytest.fixture(scope="module")
def model() -> AudioModel:
    return chain()


def standing(hertz: float, seconds: float = 0.25) -> Tensor:
    t = torch.arange(round(800 * seconds)) / 800
    return 0.3 * torch.sin(2 * np.pi * hertz * t)


def knowing(model: AudioModel, sound: Tensor) -> AudioModel:
    """A model that is nearly sure of a sound: what it makes is this spectrogram and a tenth of the chain's spread."""
    frames = model.encode([Clip(sound[None], 800)])["mel"][0]
    mean = model.standard.mean + model.standard.std * frames.mean(0)
    return replace(model, standard=replace(model.standard, mean=mean, std=model.standard.std / 10))


@pytest.mark.parametrize("rate", [800, 1600])
def test_sources_sum_to_their_mixture(model: AudioModel, rate: int) -> None:
    mixture = Clip((standing(90) + 0.5 * standing(250))[None], 800).resample(rate)
    parts = model.separate(mixture, [{}, {}, {}], draws=2, steps=3)
    assert len(parts) == 3
    total = torch.stack([p.samples for p in parts]).sum(0)
    torch.testing.assert_close(total, mixture.resample(800).samples, rtol=0, atol=1e-6)


def test_two_tones_are_told_apart_by_models_that_know_them(model: AudioModel) -> None:
    low, high = standing(90), standing(250)
    mixture = Clip((low + 0.4 * high)[None], 800)
    models = [knowing(model, s) for s in (low, high)]
    found = model.separate(mixture, [{}, {}], models=models, steps=6)
    for clip, sound in zip(found, (low, 0.4 * high), strict=True):
        error = float((clip.samples[0] - sound)[20:-20].square().mean() / sound.square().mean())
        # in the mixture it is 0.16 and 6.25
        assert error < 0.05


def test_levels_have_the_posterior_mean_of_independent_gaussians(model: AudioModel) -> None:
    sources = Sources([model.denoiser.given(None)], spread=0.5)
    state = model.encode(tones(3))
    level = torch.tensor([[1.0], [-2.0], [0.5]])
    x = State(
        {"mel0": state["mel"], "level": level}, {"mel0": state.layout("mel"), "level": Dense(3)}
    )
    out = sources(x, torch.tensor(0.25)).x0
    assert isinstance(out, State)
    # rectified flow at 1/4: x = 3/4 x0 + 1/4 e
    torch.testing.assert_close(out["level"], level * (0.75 * 0.25) / (0.5625 * 0.25 + 0.0625))


def test_noise_goes_and_the_sound_stays(model: AudioModel) -> None:
    sound = standing(90)
    noise = 0.2 * torch.randn(200, generator=torch.Generator().manual_seed(0))
    expert = knowing(model, sound)
    noisy, ratio = Clip((sound + noise)[None], 800), 10 * float(np.log10(0.045 / 0.04))
    for std, snr in ((0.2, None), (None, ratio)):
        out = expert.denoise(noisy, noise_std=std, snr=snr, steps=6)[0]
        assert out.samples.shape == (1, 200)
        left = float((out.samples[0] - sound).square().mean())
        assert left < 0.3 * float(noise.square().mean())


def test_a_recording_of_coloured_noise_tells_what_to_take_away(model: AudioModel) -> None:
    sound = standing(90)
    hiss = 0.2 * torch.randn(2, 201, generator=torch.Generator().manual_seed(0)).diff(dim=1)
    expert = knowing(model, sound)
    noisy, alone = Clip((sound + hiss[0])[None], 800), Clip(hiss[1:].repeat(1, 2), 800)
    out = expert.denoise(noisy, noise=alone.resample(1600), steps=6)[0]
    left = float((out.samples[0] - sound).square().mean())
    assert left < 0.2 * float(hiss[0].square().mean())
    # taken for white, the noise is underrated where it is strong
    white = expert.denoise(noisy, noise_std=float(hiss[1].std()), steps=6)[0]
    assert left < float((white.samples[0] - sound).square().mean())


def test_a_whisper_of_noise_changes_next_to_nothing(model: AudioModel) -> None:
    clip = tones(1)[0]
    out = model.denoise(clip, snr=80.0, steps=3)[0]
    assert float((out.samples - clip.samples).square().mean()) < 1e-4 * float(
        clip.samples.square().mean()
    )


def test_what_cannot_be_taken_apart_is_refused_by_name(model: AudioModel) -> None:
    clip, silent = tones(1)[0], Clip(torch.zeros(1, 200), 800)
    with pytest.raises(
        ValueError, match="givens must say what is known of two or more sources, got 1"
    ):
        model.separate(clip, [{}])
    with pytest.raises(ValueError, match="models has 1 entries for 2 sources"):
        model.separate(clip, [{}, {}], models=[model])
    with pytest.raises(ValueError, match="noise_std must be positive, got 0"):
        model.separate(clip, [{}, {}], noise_std=0.0)
    with pytest.raises(ValueError, match="the clip is silent"):
        model.separate(silent, [{}, {}])
    with pytest.raises(ValueError, match=r"the clip has 2.00 s, but the model knows up to 0.30 s"):
        model.separate(Clip(torch.ones(1, 1600), 800), [{}, {}])
    with pytest.raises(ValueError, match="given names 'digit'"):
        model.separate(clip, [{}, {"digit": 3}])
    other = replace(model, config=replace(model.config, mel=replace(model.config.mel, hop=32)))
    with pytest.raises(ValueError, match="model 1 is made for other spectrograms: hop 32 instead"):
        model.separate(clip, [{}, {}], models=[model, other])
    with pytest.raises(ValueError, match="noise, noise_std or snr, one of the three"):
        model.denoise(clip)
    with pytest.raises(ValueError, match="noise, noise_std or snr, one of the three"):
        model.denoise(clip, noise=clip, snr=3.0)
    with pytest.raises(ValueError, match=r"noise must have .* s or more"):
        model.denoise(clip, noise=Clip(torch.ones(1, 80), 800))
    with pytest.raises(ValueError, match="noise is silent"):
        model.denoise(clip, noise=Clip(torch.zeros(1, 800), 800))
    with pytest.raises(ValueError, match="noise_std must be positive, got -1"):
        model.denoise(clip, noise_std=-1.0)
    with pytest.raises(ValueError, match="the clip is silent"):
        model.denoise(silent, snr=3.0)
    with pytest.raises(ValueError, match=r"the clip has 2.00 s, but the model knows up to 0.30 s"):
        model.denoise(Clip(torch.ones(1, 1600), 800), snr=3.0)
    with pytest.raises(RuntimeError, match="sampling diverged"):
        model.separate(clip, [{}, {}], method=SDA(0.0), noise_std=1e-30, steps=2)
