"""Data sets of images, by name. Their cards are ``datasets/NAME/README.md``."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from sciffusion.errors import did_you_mean
from sciffusion.io import atomic_write

from ..container import Images
from .arrays import cached
from .cifar10 import get_cifar10
from .digits import get_digits
from .fashion_mnist import get_fashion_mnist
from .glyphs import get_glyphs
from .scenes import get_scenes

__all__ = [
    "DATASETS",
    "get_cifar10",
    "get_digits",
    "get_fashion_mnist",
    "get_glyphs",
    "get_scenes",
    "load",
    "split",
]

PARTS = ("train", "test")

_READERS: Mapping[str, Callable[[Path | None], tuple[Images, Path]]] = {
    "digits": get_digits,
    "fashion-mnist": get_fashion_mnist,
    "cifar10": get_cifar10,
    "glyphs": get_glyphs,
    "scenes": get_scenes,
}
"""How each data set is fetched, made, or read from a local copy; the functions return it and where it lies."""


def _get(name: str) -> Callable[[Path | None], tuple[Images, Path]]:
    def get(path: Path | None = None) -> tuple[Images, Path]:
        images, place = _READERS[name](path)
        kept = cached(name)
        if path is None or place != path or path.resolve() == kept.resolve():
            return images, place
        with atomic_write(kept) as part:
            shutil.copyfile(path, part)
        return images, kept

    return get


DATASETS: Mapping[str, Callable[[Path | None], tuple[Images, Path]]] = {
    name: _get(name) for name in _READERS
}
"""How to keep each data set, fetched or from a local copy; the functions return it and where it is kept."""


def split(name: str, path: Path | None = None) -> Images:
    """A data set, ``"digits"``, or a part of it, ``"fashion-mnist:train"``; from a local copy, if one is at ``path``.

    Raises ``ValueError`` for another name; for the other errors see the data set's own function.
    """
    source, _, part = name.partition(":")
    if source not in _READERS or part not in ("", *PARTS):
        known = [*DATASETS, *(f"{k}:{p}" for k in DATASETS for p in PARTS)]
        raise ValueError(
            f"no data {name!r}; there are {', '.join(known)}. {did_you_mean(name, known)}".rstrip()
        )
    images, _ = _READERS[source](path)
    return images[np.flatnonzero(images.labels["part"] == part)] if part else images


def load(name: str, path: Path | None = None) -> Images:
    """Images by name: a part of a data set, or a file or folder that :meth:`Images.read` reads.

    Raises ``ValueError`` or ``FileNotFoundError`` for neither.
    """
    source = name.partition(":")[0]
    if source in DATASETS:
        return split(name, path)
    if Path(name).exists():
        return Images.read(name)
    raise FileNotFoundError(
        f"{name!r} is neither a file or folder nor a data set; there are {', '.join(DATASETS)}, and their parts such "
        f"as fashion-mnist:test. {did_you_mean(source, DATASETS)}".rstrip()
    )
