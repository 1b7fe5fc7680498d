"""Laws of the figures of pairs of clips, on sounds whose figures are known."""

import math

import numpy as np
import pytest
import torch

from sciffusion.domains.audio import Clip
from sciffusion.domains.audio.metrics import (
    log_spectral_distance,
    mel_distance,
    pairs,
    si_sdr,
    sounding,
)
from sciffusion.domains.audio.oracles import cents, hertz

RATE = 8000


def tone(frequency: float = 440.0, seconds: float = 0.5, size: float = 0.5) -> Clip:
    t = np.arange(round(seconds * RATE)) / RATE
    return Clip.of((size * np.sin(2 * np.pi * frequency * t)).astype(np.float32), RATE)


def noise(seed: int = 0, seconds: float = 0.5, size: float = 0.1) -> Clip:
    rng = np.random.default_rng(seed)
    return Clip.of((size * rng.standard_normal(round(seconds * RATE))).astype(np.float32), RATE)


def added(a: Clip, b: Clip) -> Clip:
    return Clip(a.samples + b.samples, a.rate)


def test_a_clip_is_at_no_distance_from_itself() -> None:
    clip = added(tone(), noise())
    assert log_spectral_distance(clip, clip) == 0
    assert mel_distance(clip, clip) == 0
    assert si_sdr(clip, clip) == math.inf


@pytest.mark.parametrize("gain", [0.5, 2.0, 10.0])
def test_a_gain_moves_all_log_spectra_by_its_decibels(gain: float) -> None:
    # noise loud enough that no frequency of a frame falls below the floor
    clip = noise(size=1.0)
    louder = Clip(clip.samples * gain, RATE)
    assert log_spectral_distance(louder, clip) == pytest.approx(
        abs(20 * math.log10(gain)), rel=1e-3
    )
    assert mel_distance(louder, clip) == pytest.approx(abs(math.log(gain)), rel=1e-3)


@pytest.mark.parametrize("size", [0.01, 0.1, 1.0])
def test_si_sdr_of_orthogonal_noise_is_the_ratio_of_powers(size: float) -> None:
    truth, other = tone(400, 1.0), tone(600, 1.0, size)  # whole periods of both
    assert si_sdr(added(truth, other), truth) == pytest.approx(
        20 * math.log10(0.5 / size), abs=1e-3
    )


@pytest.mark.parametrize("gain", [0.01, -3.0, 100.0])
def test_si_sdr_knows_no_scale_nor_offset(gain: float) -> None:
    truth, made = tone(), added(tone(), noise())
    scaled = Clip(made.samples * gain + 0.3, RATE)
    assert si_sdr(scaled, truth) == pytest.approx(si_sdr(made, truth), abs=1e-3)


def test_si_sdr_of_what_has_nothing_of_the_truth_is_low_and_of_a_silent_truth_an_error() -> None:
    assert si_sdr(tone(600, 1.0), tone(400, 1.0)) < -80
    with pytest.raises(ValueError, match="silent"):
        si_sdr(tone(), Clip(torch.zeros(1, 4000), RATE))


@pytest.mark.parametrize("seconds", [0.1, 0.25, 0.4])
def test_silence_begins_where_the_tone_ends(seconds: float) -> None:
    clip = Clip(torch.cat([tone(seconds=seconds).samples, torch.zeros(1, 800)], 1), RATE)
    assert sounding(clip) == pytest.approx(seconds, abs=0.011)
    quiet = Clip(clip.samples + 0.002 * noise(seconds=clip.seconds, size=1.0).samples, RATE)
    assert sounding(quiet) == pytest.approx(seconds, abs=0.011)  # 46 dB below
    assert sounding(quiet, below=60) == pytest.approx(clip.seconds, abs=0.011)


def test_silence_sounds_for_no_time_and_a_whole_tone_to_its_end() -> None:
    assert sounding(Clip(torch.zeros(1, 100), RATE)) == 0
    assert sounding(tone(seconds=0.3)) == pytest.approx(0.3)
    assert sounding(tone(seconds=0.3031)) == pytest.approx(0.3031, abs=1e-3)


def test_a_semitone_has_100_cents_and_an_octave_1200() -> None:
    assert hertz(69) == 440
    np.testing.assert_allclose(cents(hertz(np.array([70, 81, 57])), 440.0), [100, 1200, -1200])


def test_pairs_are_of_one_rate_and_the_shorter_one_counts() -> None:
    long, short = tone(seconds=0.5), tone(seconds=0.3)
    assert si_sdr(long, short) == math.inf
    with pytest.raises(ValueError, match="8000 Hz.*16000 Hz.*resample"):
        si_sdr(long, long.resample(16000))


def test_the_report_of_pairs_holds_the_means_with_intervals_around_them() -> None:
    truth = [noise(i, size=1.0) for i in range(12)]
    made = [Clip(c.samples * (1 + i / 6), RATE) for i, c in enumerate(truth)]
    report = pairs([added(c, noise(99)) for c in made], truth)
    wanted = np.mean([si_sdr(added(c, noise(99)), t) for c, t in zip(made, truth, strict=True)])
    metric = report["si_sdr"]
    assert metric.value == pytest.approx(float(wanted))
    assert metric.low < metric.value < metric.high
    assert (metric.n, metric.unit) == (12, "dB")
    assert set(report.metrics) == {"log_spectral_distance", "mel_distance", "si_sdr"}


def test_pairs_must_match() -> None:
    with pytest.raises(ValueError, match="got 1 and 2"):
        pairs([tone()], [tone(), tone()])
    with pytest.raises(ValueError, match="got 0 and 0"):
        pairs([], [])
