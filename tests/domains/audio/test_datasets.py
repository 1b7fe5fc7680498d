"""Data sets: the same arrays of whatever copy, others refused, notes played when and as asked."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sciffusion.domains.audio import Clip
from sciffusion.domains.audio.datasets import fetch, split
from sciffusion.domains.audio.datasets import notes as notes_module
from sciffusion.domains.audio.datasets.card import Arrays, Card, digest
from sciffusion.domains.audio.datasets.fsdd import clips_of_fsdd, read_fsdd
from sciffusion.domains.audio.datasets.notes import LEAD, RENDERED, read_notes, render, score

KEYS = [(60, 60), (72, 110)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCIFFUSION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def record(folder: Path, rate: int = 8000) -> dict[str, np.ndarray]:
    """Recordings of made-up sounds, two takes of two digits by two speakers."""
    folder.mkdir(parents=True)
    rng, found = np.random.default_rng(0), {}
    for speaker in ("theo", "george"):
        for digit in (7, 0):
            for take in (5, 4, 11):
                wave = rng.integers(-9000, 9000, 300 + 10 * take, dtype=np.int16)
                name = f"{digit}_{speaker}_{take}.wav"
                soundfile.write(folder / name, wave, rate)
                found[name] = wave
    return found


def test_recordings_of_a_clone_become_arrays_sorted_and_sample_by_sample(tmp_path: Path) -> None:
    waves = record(tmp_path / "clone" / "recordings")
    (tmp_path / "clone" / "recordings" / "about.txt").write_text("no recording")
    arrays = read_fsdd(tmp_path / "clone")
    again = read_fsdd(tmp_path / "clone" / "recordings")
    assert all(np.array_equal(arrays[k], again[k]) for k in arrays)
    names = arrays["speaker_names"][arrays["speaker"]].tolist()
    order = list(zip(names, arrays["digit"].tolist(), arrays["take"].tolist(), strict=True))
    assert order == sorted(order)
    assert order[2] == ("george", 0, 11)  # by number, not by name
    for (speaker, digit, take), clip in zip(order, clips_of_fsdd(arrays), strict=True):
        assert np.array_equal(clip.pcm()[:, 0], waves[f"{digit}_{speaker}_{take}.wav"])
    assert arrays["test"].tolist() == [take == 4 for *_, take in order]


def test_recordings_that_are_none_are_told_apart(tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    record(folder)
    (folder / "3_theo_0.wav").write_bytes(b"no sound")
    with pytest.raises(ValueError, match=r"3_theo_0\.wav is not a readable sound file"):
        read_fsdd(folder)
    soundfile.write(folder / "3_theo_0.wav", np.zeros((400, 2), np.int16), 8000)
    with pytest.raises(ValueError, match=r"3_theo_0\.wav is .*stereo.*, but all .* mono at 8000"):
        read_fsdd(folder)
    record(tmp_path / "other", rate=16000)
    with pytest.raises(ValueError, match="16000 Hz, mono.*, but all recordings are mono at 8000"):
        read_fsdd(tmp_path / "other")
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match=r"holds no recordings that are named like 7_theo_12\.wav"):
        read_fsdd(tmp_path / "none")


def test_another_data_set_is_refused_and_nothing_of_it_kept(tmp_path: Path, cache: Path) -> None:
    record(tmp_path / "recordings")
    with pytest.raises(ValueError, match="'fsdd': it has the number of clips 12 instead of 3000"):
        fetch("fsdd", tmp_path)
    (tmp_path / "bad.npz").write_bytes(b"half of a file")
    with pytest.raises(ValueError, match=r"bad\.npz is not a readable \.npz"):
        fetch("fsdd", tmp_path / "bad.npz")
    np.savez(tmp_path / "floats.npz", audio=np.zeros(3), sample_rate=8000)
    with pytest.raises(ValueError, match=r"audio, 16-bit samples; it holds audio \(float64\)"):
        fetch("notes", tmp_path / "floats.npz")
    with pytest.raises(FileNotFoundError, match=r"there is no file .*gone\.npz"):
        fetch("fsdd", tmp_path / "gone.npz")
    with pytest.raises(FileNotFoundError, match="sciffusion data get fsdd --path CLONE"):
        split("fsdd:test")
    with pytest.raises(ValueError, match="there are fsdd:train, .* Did you mean 'fsdd:test'"):
        split("fsdd:tests")
    assert not cache.exists()


def test_other_samples_are_refused_where_they_are_recorded_and_told_where_rendered() -> None:
    audio = np.arange(12, dtype=np.int16).reshape(3, 4)
    arrays: Arrays = {"audio": audio, "sample_rate": np.array(16)}
    recipe = {"rate": 16, "clips": 3, "sha256": digest(audio, np.array([4, 4, 4]))}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Card("one", recipe | {"rendered": False}).check(arrays, "it") is arrays
    other = {**arrays, "audio": audio + 1}
    with pytest.raises(ValueError, match="it is not the data set 'one': .* another checksum"):
        Card("one", recipe | {"rendered": False}).check(other, "it")
    with pytest.warns(UserWarning, match="not those that the figures"):
        Card("one", recipe | {"rendered": True}).check(other, "it")
    assert digest(audio.ravel(), np.array([6, 6])) != recipe["sha256"]


def test_the_kept_file_is_the_recordings_and_the_parts_share_no_take(
    shared_data: Callable[[str], Path], tmp_path: Path
) -> None:
    source = shared_data("audio/fsdd/fsdd.npz")
    clips, place = fetch("fsdd", source)
    assert (len(clips), place.name) == (3000, "fsdd.npz")
    train, test = split("fsdd:train"), split("fsdd:test", source)
    assert (len(train), len(test)) == (2700, 300)
    assert set(test.labels["take"].tolist()) == set(range(5))
    # of WAVs of the same names and samples come the same arrays
    for i in range(0, 3000, 200):
        label = {k: v[i] for k, v in clips.labels.items()}
        name = f"{label['digit']}_{label['speaker']}_{label['take']}.wav"
        clips[i].save(tmp_path / "recordings" / name)
    arrays = read_fsdd(tmp_path)
    for clip, again in zip(clips[::200], clips_of_fsdd(arrays), strict=True):
        assert bool((clip.samples == again.samples).all())


def test_a_score_plays_every_key_for_its_time() -> None:
    events = played(score(5, KEYS))
    assert events[0] == (0, 0xC0, 5)
    on = [(0.1, 0x90, 60), (0.85, 0x80, 60), (2.1, 0x90, 72), (2.85, 0x80, 72)]
    found = [(tick / 1000, *rest) for tick, *rest in events[1:]]
    np.testing.assert_allclose(found, on, atol=1.1e-3)


def played(file: bytes) -> list[tuple[int, int, int]]:
    """The events of a MIDI file: tick, kind, first number."""
    assert file[:14] == b"MThd\x00\x00\x00\x06\x00\x00\x00\x01\x01\xf4"
    track, place, now = file[22:], 0, 0
    assert int.from_bytes(file[18:22]) == len(track)
    found = []
    while place < len(track):
        wait = 0
        while track[place] & 0x80:
            wait, place = (wait << 7) + (track[place] & 0x7F), place + 1
        wait, place = (wait << 7) + track[place], place + 1
        now, kind = now + wait, track[place]
        if kind == 0xFF:
            place += 3 + track[place + 2]
            continue
        found.append((now, kind, track[place + 1]))
        place += 2 if kind == 0xC0 else 3
    return found


def test_a_note_is_cut_resampled_and_faded_where_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def synthesise(command: list[str | Path], **options: object) -> object:
        t = np.arange(5 * RENDERED) / RENDERED
        wave = np.where(t >= LEAD + 2, 0.5, 0.1) * np.sin(2 * np.pi * 440 * (t - LEAD))
        Clip.of(np.stack([2 * wave, 0 * wave]), RENDERED).save(command[-3])
        return type("Done", (), {"returncode": 0, "stderr": ""})()

    monkeypatch.setattr(notes_module.shutil, "which", lambda name: name)
    monkeypatch.setattr(notes_module.subprocess, "run", synthesise)
    made = render(tmp_path / "any.sf2", 0, KEYS) / 2**15
    assert made.shape == (2, 16000)
    t = np.arange(16000) / 16000
    truth = np.array([[0.1], [0.5]]) * np.sin(2 * np.pi * 440 * t)
    inside = slice(200, 15600)
    np.testing.assert_allclose(made[:, inside], truth[:, inside], atol=2e-3)
    assert np.abs(made[:, -10:]).max() < 0.02
    assert not made[:, -1].any()


def test_rendering_needs_the_program_and_that_soundfont(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notes_module.shutil, "which", lambda name: None)
    with pytest.raises(FileNotFoundError, match="apt-get install fluidsynth"):
        render(tmp_path / "any.sf2", 0, KEYS)
    with pytest.raises(FileNotFoundError, match=r"there is no file .*gone\.sf2"):
        read_notes(tmp_path / "gone.sf2")
    (tmp_path / "other.sf2").write_bytes(b"another")
    with pytest.raises(ValueError, match=r"It must be FluidR3_GM\.sf2"):
        read_notes(tmp_path / "other.sf2")
