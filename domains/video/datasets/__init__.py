"""Data sets of films, by name. Their cards are ``datasets/NAME/README.md``."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

from sciffusion.errors import did_you_mean
from sciffusion.io import atomic_write, cache_dir, verify

from ..film import Films
from .digits import PARTS, Digits, digits
from .fruits import get_fruits
from .moving import MovingDigits
from .sprites import get_sprites

__all__ = ["DATASETS", "Digits", "MovingDigits", "digits", "get_fruits", "get_sprites", "load"]

TEST_SEED = 1
"""Seed of the test films of moving digits; those of training have the seed 0."""

_FILES: Mapping[str, tuple[str, Callable[..., Films]]] = {
    "sprites": (
        "3035a7777634fc308c118f7dd0d9d8d59e9b0c2101941486965a6d77092a484b",
        get_sprites,
    ),
    "fruits360-films": (
        "baad327ba1793c5ee7ceb3bb039af2e1538c4c520b868811ca3474eddef429e3",
        get_fruits,
    ),
}
"""SHA-256 of the file, and its reader."""


def load(name: str, path: Path | None = None, *, limit: int | None = None) -> Films:
    """Films by name: a part of a data set, ``"moving-digits:test"``, or a file or folder that ``Films.read`` reads.

    ``path`` is the local file of a data set; moving digits come from scikit-learn without one, and from MNIST with one.
    ``limit`` is how many there are (films of moving digits: 1,000 unless told; characters of the sprites).

    Raises:
        ValueError: another name, no path where one is needed, or a file that is not the known one.
        FileNotFoundError: neither a data set nor a file.
    """
    source, _, part = name.partition(":")
    known = ["moving-digits", *_FILES]
    if source not in known:
        if Path(name).exists():
            return Films.read(name)[:limit]
        raise FileNotFoundError(
            f"{name!r} is neither a file or folder nor a data set; there are {', '.join(known)}, and their parts such "
            f"as moving-digits:test. {did_you_mean(source, known)}".rstrip()
        )
    if part not in ("", *PARTS):
        raise ValueError(f"{source} has the parts {', '.join(PARTS)}, got {part!r}")
    if source == "moving-digits":
        part = part or "train"
        seed = TEST_SEED if part == "test" else 0
        return MovingDigits(digits(part, path)).films(1000 if limit is None else limit, seed=seed)
    digest, reader = _FILES[source]
    return reader(_checked(source, digest, path), part, limit)


def _checked(source: str, digest: str, path: Path | None) -> Path:
    """The local file of a data set, or the one that was kept; ``ValueError`` if it is missing or another one."""
    kept = cache_dir(source) / f"{source}.npz"
    if path is None and not kept.is_file():
        raise ValueError(
            f"{source} is not fetched: name its local file with path, or keep it once with `sciffusion data get "
            f"{source} --path FILE` (datasets/{source}/README.md says which file)"
        )
    file = kept if path is None else Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    return verify(file, digest)


@final
@dataclass(frozen=True)
class _Some:
    """The first films of a data set, which say that they are not all."""

    films: Films

    def __str__(self) -> str:
        return f"the first of its films: {self.films!r}"


def _get(name: str) -> Callable[[Path | None], tuple[_Some, Path]]:
    def get(path: Path | None = None) -> tuple[_Some, Path]:
        if name not in _FILES:
            if path is not None:
                raise ValueError(
                    f"{name} are drawn anew and not kept: leave path out here, and name a file of digits where they "
                    "are loaded or trained on"
                )
            return _Some(load(name)), Path("scikit-learn")
        found, kept = load(name, path, limit=8), cache_dir(name) / f"{name}.npz"
        if path is not None and path.resolve() != kept.resolve():
            with atomic_write(kept) as part:
                shutil.copyfile(path, part)
        return _Some(found), kept

    return get


DATASETS: Mapping[str, Callable[[Path | None], tuple[object, Path]]] = {
    name: _get(name) for name in ("moving-digits", *_FILES)
}
"""How to keep each data set, from a local copy; the functions return what tells of its first films and where it is
kept."""
