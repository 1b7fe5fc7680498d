"""Properties of known sounds, and samples that are led towards them or towards a judge's favour."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from sciffusion.domains.audio import (
    Clips,
    LogMel,
    MelConfig,
    Sound,
    Towards,
    brightness,
    loudness,
    pitch,
)
from sciffusion.domains.audio.adapter import mel_state
from sciffusion.domains.audio.functionals import Property
from sciffusion.domains.audio.recovery import envelope
from sciffusion.noise import Noise

from .chain import chain

WIDE = MelConfig(rate=16000, n_fft=512, hop=128, mels=80)


def heard(wave: Tensor) -> Sound:
    mel = LogMel(WIDE).encode(wave[None])
    return Sound(envelope(WIDE, mel), torch.ones(1, mel.shape[2]), WIDE)


def harmonic(hertz: float) -> Tensor:
    t = torch.arange(8000) / 16000
    return torch.stack([torch.sin(2 * np.pi * hertz * h * t) / h for h in range(1, 8)]).sum(0) * 0.2


@pytest.mark.parametrize("level", [0.2, 0.002])
def test_loudness_is_the_level_of_the_waveform(level: float) -> None:
    wave = level * torch.randn(8000, generator=torch.Generator().manual_seed(0))
    assert float(loudness(heard(wave))) == pytest.approx(20 * np.log10(level), abs=1.5)


def test_brightness_is_the_centroid() -> None:
    t = torch.arange(8000) / 16000

    def tone(hertz: float) -> Tensor:
        return torch.sin(2 * np.pi * hertz * t)

    for low, high in ((400.0, 1200.0), (1000.0, 3000.0)):
        assert float(brightness(heard(tone(low)))) == pytest.approx(low, rel=0.15)
        both = float(brightness(heard(tone(low) + tone(high))))
        # the wider triangles of high frequencies let more of a tone's skirt in
        assert both == pytest.approx((low + high) / 2, rel=0.25)


@pytest.mark.parametrize("hertz", [220.0, 330.0, 440.0, 659.0])
def test_pitch_is_the_fundamental_within_a_semitone(hertz: float) -> None:
    found = float(pitch(heard(harmonic(hertz))))
    assert abs(12 * np.log2(found / hertz)) < 1


def test_properties_count_only_the_frames_there_are() -> None:
    wave = harmonic(300.0)
    alone, padded = heard(wave), heard(torch.cat([wave, torch.zeros(1280)]))
    frames = alone.mask.shape[1]
    mask = torch.arange(padded.mask.shape[1])[None] < frames
    padded = Sound(padded.magnitude * mask[:, None], mask.float(), WIDE)
    for fn in (loudness, brightness, pitch):
        torch.testing.assert_close(fn(alone), fn(padded), rtol=1e-3, atol=0.02)


@pytest.mark.parametrize(
    ("fn", "target", "scale"), [(loudness, -30.0, 4.0), (brightness, 150.0, 0.04)]
)
def test_samples_are_led_to_a_target(fn: Property, target: float, scale: float) -> None:
    model = chain()

    def values(guidance: float | Towards) -> Tensor:
        # what the model says, before any waveform is made
        cond = model.condition({}, 16)
        start = model.denoiser.process.prior(mel_state([torch.zeros(12, 8)] * 16), Noise(0))
        x = model.sampling.sampler(14)(model.guided(cond, guidance), start).x
        return fn(Sound.of(model, x))

    free, led = values(1.0), values(Towards(fn, target, scale, 1.0))
    assert float((free - target).abs().mean()) > 3 * scale**-0.5
    # loudness is far from linear, so it is not hit exactly
    assert float((led - target).abs().mean()) < 0.25 * float((free - target).abs().mean())


def test_without_a_target_there_is_more_of_it() -> None:
    model = chain()
    plain, more = (
        [c.samples.square().mean() for c in model.sample(8, seconds=0.2, guidance=g)]
        for g in (Towards(loudness, scale=1e-9), Towards(loudness, scale=0.5))
    )
    assert float(torch.stack(more).log().mean()) > float(torch.stack(plain).log().mean()) + 0.3


def rms(clips: Clips) -> list[float]:
    return [float(c.samples.square().mean().sqrt()) for c in clips]


def test_a_judge_gets_more_of_what_it_likes() -> None:
    model = chain()
    free = model.sample(6, seconds=0.2, seed=5, steps=6)
    for keep in ("draw", "best"):
        led = model.sample_by_reward(
            rms, 6, seconds=0.2, particles=6, scale=60.0, keep=keep, steps=6
        )
        assert len(led) == 6
        assert np.mean(rms(led)) > np.mean(rms(free)) + np.std(rms(free))
    assert set(led.labels) == {"pitch", "attack"}


def test_a_clip_by_reward_depends_on_seed_and_place_alone() -> None:
    model = chain()
    two, one = (
        model.sample_by_reward(rms, n, {"pitch": "low"}, seconds=0.2, particles=3, steps=3, seed=2)
        for n in (2, 1)
    )
    torch.testing.assert_close(two[0].samples, one[0].samples, rtol=1e-2, atol=1e-3)


def test_what_cannot_be_led_is_refused_by_name() -> None:
    model = chain()
    with pytest.raises(ValueError, match="scale must be positive, got 0"):
        Towards(loudness, scale=0.0)
    with pytest.raises(ValueError, match="n and particles must be at least 1, got 1 and 0"):
        model.sample_by_reward(rms, particles=0)
    with pytest.raises(ValueError, match="keep must be 'draw' or 'best'"):
        model.sample_by_reward(rms, keep="all")  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match="reward must return one finite number for each of 2 clips"
    ):
        model.sample_by_reward(lambda clips: [float("nan")] * len(clips), particles=2, steps=2)
    with pytest.raises(ValueError, match="reward must return one finite number"):
        model.sample_by_reward(lambda clips: [0.0], particles=2, steps=2)
    assert replace(Towards(pitch), target=440.0).target == 440.0
