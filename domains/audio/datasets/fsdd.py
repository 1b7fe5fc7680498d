"""The Free Spoken Digit Dataset: its file, or the recordings of a clone. The card is ``datasets/fsdd/README.md``."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ..clip import Clip, Clips
from .card import Arrays, Card, read_arrays

__all__ = ["clips_of_fsdd", "read_fsdd"]


def read_fsdd(path: Path) -> Arrays:
    """The arrays of ``fsdd.npz``, or of a clone or its folder ``recordings``: ``{digit}_{speaker}_{take}.wav``.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        ValueError: a file that cannot be read, a folder without recordings, or one of another rate or in stereo.
    """
    if not path.is_dir():
        return read_arrays(path)
    folder = path / "recordings" if (path / "recordings").is_dir() else path
    found = [re.fullmatch(r"(\d)_([a-z]+)_(\d+)\.wav", file.name) for file in folder.iterdir()]
    rows = sorted((m[2], int(m[1]), int(m[3]), m[0]) for m in found if m)
    if not rows:
        raise ValueError(f"{folder} holds no recordings that are named like 7_theo_12.wav")
    rate, parts = Card.of("fsdd").recipe["rate"], []
    for *_, name in rows:
        clip = Clip.read(folder / name)
        if clip.rate != rate or len(clip.samples) != 1:
            raise ValueError(f"{folder / name} is {clip}, but all recordings are mono at {rate} Hz")
        parts.append(clip.pcm()[:, 0])
    names, speaker = np.unique([row[0] for row in rows], return_inverse=True)
    take = np.array([row[2] for row in rows], dtype=np.int16)
    return {
        "audio": np.concatenate(parts),
        "offsets": np.cumsum([0, *map(len, parts)], dtype=np.int64),
        "digit": np.array([row[1] for row in rows], dtype=np.uint8),
        "speaker": speaker.astype(np.uint8),
        "take": take,
        "test": take < Card.of("fsdd").recipe["test_takes"],
        "speaker_names": names,
        "sample_rate": np.array(rate, dtype=np.int32),
    }


def clips_of_fsdd(arrays: Arrays) -> Clips:
    """Clips of the arrays, with the labels digit, speaker, take, and test (takes 0 to 4, the official split)."""
    ends, audio, rate = arrays["offsets"].tolist(), arrays["audio"], int(arrays["sample_rate"])
    clips = [Clip.of(audio[a:b], rate) for a, b in zip(ends, ends[1:], strict=False)]
    labels = {k: arrays[k].astype(np.int64) for k in ("digit", "take")}
    speaker = arrays["speaker_names"][arrays["speaker"]]
    return Clips(clips, {**labels, "speaker": speaker, "test": arrays["test"]})
