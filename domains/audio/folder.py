"""Sound files of a folder as clips with labels, from a table or from the files' names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .clip import Clip, Clips
from .labels import read_labels

__all__ = ["SUFFIXES", "read_folder"]

SUFFIXES = (".wav", ".flac", ".ogg")
"""The endings of files that are taken for sounds."""


def read_folder(folder: str | Path, names: str | None = None, rate: int | None = None) -> Clips:
    """The sounds of a folder, by name; for the arguments and errors see :meth:`Clips.from_folder`."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
    if not files:
        raise FileNotFoundError(f"the folder {folder} holds no sound: {', '.join(SUFFIXES)}")
    labels = read_labels(files) if names is None else _named(files, names)
    clips = [_read(file, rate) for file in files]
    for file, clip in zip(files, clips, strict=True):
        if clip.rate != clips[0].rate:
            raise ValueError(
                f"{file} has {clip.rate} Hz, {files[0].name} {clips[0].rate} Hz; give rate to bring all to one"
            )
    return Clips(clips, {name: _numbers(values) for name, values in labels.items()})


def _read(file: Path, rate: int | None) -> Clip:
    clip = Clip.read(file)
    if not clip.peak:
        raise ValueError(f"{file} is silent, of which nothing can be learnt; move it away")
    return clip if rate is None else clip.resample(rate)


def _named(files: Sequence[Path], names: str) -> dict[str, NDArray[np.str_]]:
    """Labels out of the files' names, after a pattern such as ``{digit}_{speaker}_{take}``."""
    parts = re.split(r"\{([^{}]*)\}", names)
    fields = parts[1::2]
    if not fields or len(set(fields)) < len(fields) or not all(f.isidentifier() for f in fields):
        raise ValueError(
            f"names must be a pattern with a different word in each pair of braces, such as "
            f"'{{digit}}_{{speaker}}_{{take}}', got {names!r}"
        )
    pattern = "".join(
        f"(?P<{part}>.+?)" if i % 2 else re.escape(part) for i, part in enumerate(parts)
    )
    rows: list[Mapping[str, str]] = []
    for file in files:
        match = re.fullmatch(pattern, file.stem)
        if match is None:
            raise ValueError(f"{file.name} is not named after the pattern {names!r}")
        rows.append(match.groupdict())
    return {field: np.array([row[field] for row in rows]) for field in fields}


def _numbers(values: NDArray[np.str_]) -> NDArray[np.str_] | NDArray[np.int64]:
    """Integers where all of them are."""
    whole = all(re.fullmatch(r"-?\d+", value) for value in values.tolist())
    return values.astype(np.int64) if whole else values
