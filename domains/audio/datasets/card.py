"""What a data set of sounds must be, as its card in ``datasets/NAME/recipe.yaml`` says, and its file in the cache.

A data set is kept as the arrays of an ``.npz`` file. Among them are ``audio``, 16-bit samples, and ``sample_rate``;
clips of several lengths stand one behind the other, and ``offsets`` says where they begin and end.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeAlias, final

import numpy as np
import yaml
from numpy.typing import NDArray

from sciffusion.io import atomic_write, cache_dir, read_npz

__all__ = ["Arrays", "Card", "digest", "read_arrays"]

Arrays: TypeAlias = Mapping[str, NDArray[Any]]


@final
@dataclass(frozen=True)
class Card:
    """The card of one data set. Make one by :meth:`of`."""

    name: str
    recipe: Mapping[str, Any]

    @staticmethod
    @cache
    def of(name: str) -> Card:
        """The card ``datasets/NAME/recipe.yaml``."""
        text = (files("sciffusion") / "datasets" / name / "recipe.yaml").read_text("utf-8")
        return Card(name, yaml.safe_load(text))

    @property
    def place(self) -> Path:
        """The file in the cache, whether it is there or not."""
        return cache_dir(self.name) / f"{self.name}.npz"

    def check(self, arrays: Arrays, source: object) -> Arrays:
        """Return the arrays if they are this data set.

        Other samples are refused. Where they are rendered, and programs round differently, they bring a warning.

        Raises ``ValueError`` for another rate, another number of clips, or other samples.
        """
        rate, lengths = int(arrays["sample_rate"]), _lengths(arrays)
        wrong = [
            f"{what} {got} instead of {wanted}"
            for what, got, wanted in (
                ("the rate", rate, self.recipe["rate"]),
                ("the number of clips", len(lengths), self.recipe["clips"]),
            )
            if got != wanted
        ]
        same = digest(arrays["audio"], lengths) == self.recipe["sha256"]
        if not wrong and not same and not self.recipe["rendered"]:
            wrong = ["samples with another checksum"]
        if wrong:
            raise ValueError(
                f"{source} is not the data set {self.name!r}: it has {', '.join(wrong)}"
            )
        if not same:
            warnings.warn(
                f"the samples of {source} are not those that the figures of the documentation were measured with; "
                "another version of the program that renders them rounds otherwise",
                stacklevel=2,
            )
        return arrays

    def keep(self, arrays: Arrays, source: Path) -> None:
        """Check the arrays that were read from ``source`` and write them to the cache, whole or not at all."""
        self.check(arrays, source)
        with atomic_write(self.place) as part, open(part, "wb") as file:
            if source.suffix == ".npz":
                file.write(source.read_bytes())
            else:
                np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    def kept(self) -> Arrays:
        """The arrays in the cache. Raises ``FileNotFoundError`` that says how to come by them."""
        if not self.place.is_file():
            raise FileNotFoundError(
                f"there is no {self.place}, and the data set {self.name!r} is not fetched by a program: "
                f"{self.recipe['how']}. Or name a copy itself, in a recipe by data.path"
            )
        return read_arrays(self.place)


def digest(audio: NDArray[np.int16], lengths: NDArray[np.int64]) -> str:
    """The SHA-256 of the samples as 16-bit integers, low byte first, then of the lengths as 64-bit ones."""
    found = hashlib.sha256(audio.astype("<i2").tobytes())
    found.update(lengths.astype("<i8").tobytes())
    return found.hexdigest()


def read_arrays(path: Path) -> Arrays:
    """The arrays of an ``.npz`` file.

    Raises ``FileNotFoundError``, and ``ValueError`` for a file that is damaged or holds no 16-bit samples.
    """
    arrays = read_npz(path)
    if "audio" not in arrays or arrays["audio"].dtype != np.int16 or "sample_rate" not in arrays:
        raise ValueError(
            f"{path} must hold sample_rate and audio, 16-bit samples; it holds "
            f"{', '.join(f'{k} ({v.dtype})' for k, v in arrays.items())}"
        )
    return arrays


def _lengths(arrays: Arrays) -> NDArray[np.int64]:
    audio = arrays["audio"]
    if "offsets" in arrays:
        return np.diff(arrays["offsets"])
    return np.full(len(audio), audio.shape[-1], dtype=np.int64)
