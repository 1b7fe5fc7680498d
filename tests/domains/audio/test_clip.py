"""Clips: what goes in comes out, files, rates, segments, players, and every bad input."""

import base64
import io
import math
import re
import sys
import warnings
import wave
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sciffusion.domains.audio import Clip, Clips


def tone(hertz: float, rate: int = 8000, seconds: float = 0.5, size: float = 0.5) -> Clip:
    t = np.arange(int(rate * seconds)) / rate
    return Clip.of(size * np.sin(2 * np.pi * hertz * t), rate)


def integers(n: int, kind: type = np.int16) -> np.ndarray:
    info = np.iinfo(kind)
    ends = [info.min, info.max, 0, -1]
    return np.r_[ends, np.random.default_rng(0).integers(info.min, info.max, n)].astype(kind)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
@pytest.mark.parametrize("channels", [1, 2])
def test_16_bit_samples_survive_a_file_bit_by_bit(
    tmp_path: Path, suffix: str, channels: int
) -> None:
    x: np.ndarray = integers(996).reshape(channels, -1)
    path = Clip.of(x, 8000).save(tmp_path / "folder" / f"a.{suffix}")
    back = Clip.read(path)
    assert back.rate == 8000
    assert np.array_equal(back.pcm().T, x)
    assert [p.name for p in path.parent.iterdir()] == [f"a.{suffix}"]


def test_integers_are_scaled_by_the_largest_magnitude_that_they_can_hold() -> None:
    assert Clip.of(np.array([-(2**15), 2**14], np.int16), 1).samples.tolist() == [[-1.0, 0.5]]
    assert Clip.of(np.array([-(2**31), 2**30], np.int32), 1).samples.tolist() == [[-1.0, 0.5]]


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int64, np.bool_, np.complex64])
def test_numbers_of_unknown_scale_are_refused(kind: type) -> None:
    with pytest.raises(ValueError, match="int16 or int32"):
        Clip.of(np.ones(5, kind), 8000)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_floats_of_any_width_are_taken_as_they_are_and_copied(kind: type) -> None:
    x: np.ndarray = np.array([0.5, -0.25], kind)
    clip = Clip.of(x, 8000)
    x[:] = 0
    assert clip.samples.dtype == torch.float32
    assert clip.samples.tolist() == [[0.5, -0.25]]


def test_a_tensor_is_copied_and_read_only_arrays_raise_no_warning() -> None:
    x = torch.ones(3)
    clip = Clip.of(x, 8000)
    x.zero_()
    assert clip.samples.tolist() == [[1.0] * 3]
    fixed = np.ones(3, np.float32)
    fixed.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Clip.of(fixed, 8000)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(0), "at least one sample"),
        (np.zeros((1, 0)), "at least one sample"),
        (np.zeros((1, 2, 3)), r"\(channels, N\)"),
        (np.float64(1.0), r"\(channels, N\)"),
        (np.zeros((100, 2)), "transpose"),
        (np.array([0.0, np.nan]), "NaN"),
        (np.array([0.0, -np.inf]), "NaN or infinity"),
    ],
)
def test_what_is_no_sound_is_refused(array: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Clip.of(array, 8000)


def test_an_array_is_refused_where_a_tensor_belongs() -> None:
    with pytest.raises(ValueError, match="got ndarray: Clip.of takes arrays"):
        Clip(np.zeros((1, 8)), 8000)  # type: ignore[arg-type]


@pytest.mark.parametrize("rate", [0, -8000, 8000.5, True, math.inf, "8000", None])
def test_a_rate_must_be_a_positive_integer(rate: int) -> None:
    with pytest.raises(ValueError, match="rate must be a positive integer"):
        Clip.of(np.ones(5), rate)
    with pytest.raises(ValueError, match="rate must be a positive integer"):
        tone(100).resample(rate)


@pytest.mark.parametrize(("rate", "new"), [(16000, 8000), (8000, 16000), (44100, 8000)])
def test_a_tone_that_both_rates_hold_is_the_same_tone(rate: int, new: int) -> None:
    made, wanted = tone(3000, rate).resample(new), tone(3000, new)
    assert made.samples.shape == wanted.samples.shape
    middle = slice(new // 10, -new // 10)
    assert float((made.samples - wanted.samples)[:, middle].abs().max()) < 1e-3


def test_a_tone_that_the_new_rate_cannot_hold_is_gone() -> None:
    made = tone(4200, 16000).resample(8000)
    assert float(made.samples[:, 800:-800].abs().max()) < 1e-3


def test_resampling_keeps_each_channel_apart() -> None:
    left, right = tone(300, 16000), tone(700, 16000)
    both = Clip(torch.cat([left.samples, right.samples]), 16000).resample(8000)
    assert torch.allclose(both.samples[0], left.resample(8000).samples[0], atol=1e-6)
    assert torch.allclose(both.samples[1], right.resample(8000).samples[0], atol=1e-6)


def test_mono_is_the_mean_of_the_channels() -> None:
    assert Clip.of(np.array([[1.0, 0.0], [0.0, 0.5]]), 2).mono().samples.tolist() == [[0.5, 0.25]]


def test_segments_of_a_clip_put_together_are_the_clip() -> None:
    clip = tone(440)
    parts = [clip.cut(0, 0.1234).samples, clip.cut(0.1234).samples]
    assert torch.equal(torch.cat(parts, 1), clip.samples)
    assert clip.cut(0.1, 0.2).seconds == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("a", "b"), [(-0.1, 0.2), (0.2, 0.1), (0.1, 0.1), (0.1, 0.6), (0.5, None), (math.nan, 0.2)]
)
def test_a_segment_outside_the_clip_is_refused(a: float, b: float | None) -> None:
    with pytest.raises(ValueError, match=r"within the 0\.500 s"):
        tone(440).cut(a, b)


def test_a_segment_without_a_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="holds no sample"):
        tone(440).cut(0.1, 0.10001)


def test_normalising_sets_the_peak_and_leaves_silence_silent() -> None:
    assert tone(440, size=3.0).normalised(0.7).peak == pytest.approx(0.7)
    assert Clip.of(np.full(4, 1e-40, np.float64), 8000).normalised().peak <= 0.5
    assert not Clip.of(np.zeros(4), 8000).normalised().samples.any()
    with pytest.raises(ValueError, match="peak"):
        tone(440).normalised(1.5)


def test_what_exceeds_one_is_clipped_in_a_file_with_a_warning(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"peak of 2.00 is cut to 1; save clip.normalised\(\)"):
        path = Clip.of(np.array([2.0, -2.0, 0.25]), 8000).save(tmp_path / "a.wav")
    assert Clip.read(path).samples.tolist() == [[1 - 2**-15, -1.0, 0.25]]


def test_a_file_that_is_no_sound_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.wav"):
        Clip.read(tmp_path / "absent.wav")
    with pytest.raises(ValueError, match=r"is a folder: Clips.from_folder reads the sounds in it"):
        Clip.read(tmp_path)
    (tmp_path / "text.wav").write_text("not a sound")
    with pytest.raises(ValueError, match=r"text\.wav is not a readable sound file"):
        Clip.read(tmp_path / "text.wav")
    with wave.open(str(tmp_path / "empty.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
    with pytest.raises(ValueError, match=r"empty\.wav holds no samples"):
        Clip.read(tmp_path / "empty.wav")


@pytest.mark.parametrize("name", ["a.txt", "a"])
def test_a_file_of_unknown_format_is_refused_and_not_begun(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"end it with \.wav or \.flac"):
        tone(440).save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def heard(text: str) -> np.ndarray:
    """The samples of the player in a page."""
    found = re.search(r'src="data:audio/wav;base64,([^"]+)"', text)
    assert found
    with wave.open(io.BytesIO(base64.b64decode(found[1]))) as file:
        assert file.getframerate() == 8000
        frames = file.readframes(file.getnframes())
        return np.frombuffer(frames, "<i2").reshape(-1, file.getnchannels())


@pytest.mark.parametrize("channels", [1, 2])
def test_the_player_plays_the_clip_and_the_picture_is_there(channels: int) -> None:
    clip = Clip.of(integers(996).reshape(channels, -1), 8000)
    page = clip._repr_html_()
    assert np.array_equal(heard(page), clip.pcm())
    assert "data:image/png;base64," in page


def test_the_player_scales_what_it_cannot_play() -> None:
    assert abs(int(heard(tone(440, size=4.0)._repr_html_()).max()) - 2**15) < 300


def test_without_matplotlib_there_is_still_a_player(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = tone(440)._repr_html_()
    assert len(heard(page)) == 4000 and "<img" not in page


@pytest.mark.parametrize("clip", [tone(440), Clip.of(np.zeros((2, 3)), 7)])
def test_the_picture_has_a_waveform_and_a_spectrogram_up_to_half_the_rate(clip: Clip) -> None:
    figure = clip.plot()
    above, below = figure.axes
    assert len(above.lines) == len(clip.samples)
    assert list(below.get_ylim()) == pytest.approx([0, clip.rate / 2000])
    figure.savefig(io.BytesIO())


def test_the_spectrogram_is_brightest_at_the_tone() -> None:
    (picture,) = tone(1000).plot().axes[1].images
    row = np.asarray(picture.get_array()).mean(1).argmax()
    assert abs(row / 128 * 4000 - 1000) < 40


def test_play_shows_a_player_in_a_notebook_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", None)
    with pytest.raises(RuntimeError, match="save"):
        tone(440).play()
    shown: list[str] = []
    display = SimpleNamespace(HTML=str, display=shown.append)
    notebook = SimpleNamespace(get_ipython=object, display=display)
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    tone(440).play()
    assert len(heard(shown[0])) == 4000


def test_a_part_of_clips_keeps_its_labels() -> None:
    clips = Clips([tone(100 * i, seconds=i / 10) for i in (1, 2, 3)], {"pitch": np.arange(3)})
    assert clips.lengths.tolist() == [800, 1600, 2400]
    assert clips[1].seconds == 0.2 and clips[-1].seconds == pytest.approx(0.3)
    for part in (
        clips[1:],
        clips[np.array([1, 2])],
        clips[clips.labels["pitch"] > 0],
        clips[[1, 2]],
    ):
        assert part.lengths.tolist() == [1600, 2400]
        assert part.labels["pitch"].tolist() == [1, 2]
    with pytest.raises(ValueError, match="label pitch has 2 values for 3 clips"):
        Clips(clips.clips, {"pitch": np.arange(2)})


def test_clips_show_players_under_their_labels() -> None:
    clips = Clips([tone(100)] * 14, {"who": np.array(["<b>theo"] * 14)})
    page = clips._repr_html_()
    assert page.count("<audio") == 12 and "and 2 more" in page
    assert "who &lt;b&gt;theo" in page


def test_many_clips_are_numbered_files(tmp_path: Path) -> None:
    clips = Clips([tone(100)] * 11)
    clips.save(tmp_path / "a.wav")
    assert sorted(p.name for p in tmp_path.iterdir())[::10] == ["a-00.wav", "a-10.wav"]


def test_a_clip_says_what_it_is() -> None:
    assert repr(tone(440)) == "Clip(0.500 s, 8000 Hz, mono, peak 0.50)"
    assert repr(Clips([tone(440)], {"a": np.ones(1)})) == "Clips(1 clip, 0.5 s, labels a)"
