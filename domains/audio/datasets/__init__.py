"""Data sets of sounds, by name; kept in the cache once they were given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import final

import numpy as np

from sciffusion.errors import did_you_mean

from ..clip import Clips
from .card import Arrays, Card
from .fsdd import clips_of_fsdd, read_fsdd
from .notes import clips_of_notes, read_notes

__all__ = ["DATASETS", "SETS", "fetch", "parts", "split"]


@final
@dataclass(frozen=True)
class _Set:
    """How a copy of a data set is read, and made clips of."""

    read: Callable[[Path], Arrays]
    clips: Callable[[Arrays], Clips]


SETS: Mapping[str, _Set] = {
    "fsdd": _Set(read_fsdd, clips_of_fsdd),
    "notes": _Set(read_notes, clips_of_notes),
}
"""The data sets."""


def parts() -> list[str]:
    """The names that :func:`split` takes."""
    return [f"{name}:{part}" for name in SETS for part in ("train", "test")]


def split(name: str, path: Path | None = None) -> Clips:
    """A part of a data set, ``"fsdd:train"`` or ``"notes:test"``, from a copy at ``path`` (None: the cache).

    Raises ``ValueError`` for another name, and ``FileNotFoundError`` for a data set that is not there.
    """
    known = parts()
    if name not in known:
        raise ValueError(
            f"no data {name!r}; there are {', '.join(known)}. {did_you_mean(name, known)}".rstrip()
        )
    source, part = name.split(":")
    arrays = Card.of(source).kept() if path is None else SETS[source].read(path)
    clips = SETS[source].clips(arrays)
    return clips[np.flatnonzero(clips.labels["test"] == (part == "test"))]


def fetch(name: str, path: Path | None = None) -> tuple[Clips, Path]:
    """A data set and its place in the cache; ``path`` is a copy to take it from, which is checked first.

    Raises ``FileNotFoundError`` if it is neither in the cache nor given, and ``ValueError`` for a copy that is not it.
    """
    card, known = Card.of(name), SETS[name]
    if path is not None:
        card.keep(known.read(path), path)
    return known.clips(card.kept()), card.place


DATASETS: Mapping[str, Callable[[Path | None], tuple[object, Path]]] = {
    name: partial(fetch, name) for name in SETS
}
"""How the command ``data`` fetches each data set."""
