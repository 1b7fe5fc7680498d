"""Data sets of sounds, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from sciffusion.errors import did_you_mean

from ..clip import Clip, Clips

__all__ = ["get_fsdd", "get_notes", "split"]


def get_fsdd(path: Path) -> Clips:
    """The Free Spoken Digit Dataset, 3,000 clips at 8 kHz, from its ``fsdd.npz``.

    Labels: digit, speaker, take, and test (takes 0 to 4, the official split).
    """
    with np.load(path) as data:
        ends, audio, rate = data["offsets"].tolist(), data["audio"], int(data["sample_rate"])
        clips = [Clip.of(audio[a:b], rate) for a, b in zip(ends, ends[1:], strict=False)]
        labels = {k: data[k].astype(np.int64) for k in ("digit", "take")}
        labels |= {"speaker": data["speaker_names"][data["speaker"]], "test": data["test"]}
    return Clips(clips, labels)


def get_notes(path: Path) -> Clips:
    """1,480 notes of 20 instruments, one second each at 16 kHz, from ``gm_notes.npz``.

    Labels: instrument, pitch (MIDI), velocity, family, and test.
    """
    with np.load(path) as data:
        rate = int(data["sample_rate"])
        clips = [Clip.of(x, rate) for x in data["audio"]]
        labels = {k: data[k].astype(np.int64) for k in ("pitch", "velocity")}
        labels |= {k: data[f"{k}_names"][data[k]] for k in ("instrument", "family")}
        labels["test"] = data["test"]
    return Clips(clips, labels)


_SETS: Mapping[str, Callable[[Path], Clips]] = {"fsdd": get_fsdd, "notes": get_notes}


def split(name: str, path: Path | None = None) -> Clips:
    """A part of a data set, ``"fsdd:train"`` or ``"notes:test"``, from the file ``path``.

    Raises ``ValueError`` for another name, and without a path.
    """
    known = [f"{k}:{part}" for k in _SETS for part in ("train", "test")]
    if name not in known:
        raise ValueError(
            f"no data {name!r}; there are {', '.join(known)}. {did_you_mean(name, known)}".rstrip()
        )
    if path is None:
        raise ValueError(f"data {name!r} needs path, its npz file")
    source, part = name.split(":")
    clips = _SETS[source](path)
    return clips[np.flatnonzero(clips.labels["test"] == (part == "test"))]
