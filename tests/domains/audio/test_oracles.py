"""Laws of the judges whose weights lie in packages, on tones of known pitch, and what is said where one is missing."""

import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from sciffusion.domains.audio import Clip
from sciffusion.domains.audio.oracles import PitchTracker, Voices, cents, pesq
from sciffusion.errors import MissingExtra

RATE = 16000


def note(frequency: float, rate: int = RATE, seconds: float = 0.6) -> Clip:
    """A tone with overtones."""
    t = np.arange(round(seconds * rate)) / rate
    overtones = np.arange(1, 6)[:, None]
    wave = (np.sin(2 * np.pi * frequency * overtones * t) / overtones**2).sum(0)
    return Clip.of((0.3 * wave).astype(np.float32), rate)


@pytest.fixture(scope="module")
def tracker() -> PitchTracker:
    return PitchTracker()


@pytest.mark.parametrize("frequency", [130.8, 261.6, 440.0, 987.8])
def test_the_tracker_hears_a_tone_within_ten_cents(tracker: PitchTracker, frequency: float) -> None:
    assert abs(cents(tracker([note(frequency)]), frequency)[0]) < 10


@pytest.mark.parametrize("shift", [-100.0, 30.0, 100.0, 700.0])
def test_a_shifted_tone_is_heard_as_much_higher(tracker: PitchTracker, shift: float) -> None:
    low, high = tracker([note(300.0), note(300.0 * 2 ** (shift / 1200))])
    assert cents(high, low) == pytest.approx(shift, abs=10)


def test_pitch_depends_neither_on_the_rate_nor_on_how_loud_it_is(tracker: PitchTracker) -> None:
    clip = note(300.0)
    found = tracker([clip, note(300.0, 8000), Clip(clip.samples / 500, RATE)])
    assert np.abs(cents(found, found[0])).max() < 5


def test_silence_has_no_pitch(tracker: PitchTracker) -> None:
    assert np.isnan(tracker([Clip(torch.zeros(1, RATE), RATE)])).all()


@pytest.mark.parametrize(
    ("package", "use", "command"),
    [
        ("swift_f0", PitchTracker, r'pip install "sciffusion\[judges\]"'),
        ("pesq", lambda: pesq(note(300.0), note(300.0)), r'pip install "sciffusion\[judges\]"'),
        ("resemblyzer", Voices, "pip install --no-deps resemblyzer"),
    ],
)
def test_a_missing_package_is_an_error_that_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, package: str, use: object, command: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=command):
        use()  # type: ignore[operator]


@pytest.mark.skipif(find_spec("resemblyzer") is None, reason="Resemblyzer is not installed")
def test_a_voice_has_unit_length_and_depends_on_itself_alone() -> None:
    clips = [note(150.0), note(150.0, seconds=1.7), note(400.0)]
    found = Voices()(clips)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(Voices()(clips[2:])[0], found[2], atol=1e-6)
    assert found[0] @ found[1] > 0.95 > found[0] @ found[2]


@pytest.mark.skipif(find_spec("pesq") is None, reason="pesq is not installed")
def test_pesq_is_best_for_a_clip_itself() -> None:
    clip = note(200.0, 8000)
    noisy = Clip(clip.samples + 0.05 * torch.randn(clip.samples.shape), 8000)
    assert pesq(clip, clip) > 4.4 > pesq(noisy, clip)
    with pytest.raises(ValueError, match="quarter of a second"):
        pesq(clip.cut(0, 0.2), clip)
