"""Sounds of a folder: in order, with labels of a table or of their names, and no mistake unsaid."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from sciffusion.domains.audio import Clip, Clips, DataConfig


def fill(folder: Path, names: tuple[str, ...] = ("7_theo_12.wav", "10_ann_b_3.flac")) -> Path:
    """A folder of noise."""
    folder.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        wave = np.random.default_rng(i).uniform(-0.5, 0.5, 500).astype(np.float32)
        Clip.of(wave, 8000).save(folder / name)
    return folder


def test_labels_come_from_names(tmp_path: Path) -> None:
    clips = Clips.from_folder(fill(tmp_path), "{digit}_{speaker}_{take}")
    assert clips.labels["digit"].tolist() == [10, 7]  # sorted by name
    assert clips.labels["speaker"].tolist() == ["ann", "theo"]
    assert clips.labels["take"].tolist() == ["b_3", "12"]
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 500).astype(np.float32)
    np.testing.assert_allclose(clips[1].samples[0], wave, atol=2e-5)


def test_labels_come_from_a_table_and_a_recipe_can_name_the_folder(tmp_path: Path) -> None:
    fill(tmp_path, ("b.wav", "a.wav"))
    (tmp_path / "any.csv").write_text("file,digit,mood\nb.wav,3,glad\na.wav,12,sad\n")
    clips = DataConfig(source=str(tmp_path)).load()
    assert clips.labels["digit"].tolist() == [12, 3]
    assert clips.labels["mood"].tolist() == ["sad", "glad"]
    named = DataConfig(source=str(tmp_path), names="{letter}").load()
    assert named.labels["letter"].tolist() == ["a", "b"]


def test_what_is_no_training_data_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        Clips.from_folder(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match="holds no sound"):
        Clips.from_folder(tmp_path)
    folder = fill(tmp_path / "sounds")
    with pytest.raises(
        ValueError, match=r"10_ann_b_3\.flac is not named after the pattern '{digit}-"
    ):
        Clips.from_folder(folder, "{digit}-{speaker}")
    for pattern in ("digit", "{digit}_{digit}", "{a b}"):
        with pytest.raises(ValueError, match="a different word in each pair of braces"):
            Clips.from_folder(folder, pattern)
    soundfile.write(folder / "zero.wav", np.zeros(400, np.int16), 8000)
    with pytest.raises(ValueError, match=r"zero\.wav is silent"):
        Clips.from_folder(folder)
    (folder / "zero.wav").write_bytes(b"RIFF, but no sound")
    with pytest.raises(ValueError, match=r"zero\.wav is not a readable sound file"):
        Clips.from_folder(folder)
    soundfile.write(folder / "zero.wav", np.full(400, 900, np.int16), 16000)
    with pytest.raises(ValueError, match=r"zero\.wav has 16000 Hz, 10_ann_b_3\.flac 8000 Hz; give"):
        Clips.from_folder(folder)
    assert {clip.rate for clip in Clips.from_folder(folder, rate=4000)} == {4000}
