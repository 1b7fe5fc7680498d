"""Arrays of two parts in one ``.npz``, as several data sets come, and where such files are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciffusion.io import cache_dir, read_npz

from ..container import Images

__all__ = ["arrays", "cached", "parts"]


def cached(name: str) -> Path:
    """Where a data set is kept once it was given or fetched."""
    return cache_dir(name) / f"{name.replace('-', '_')}.npz"


def arrays(path: Path, size: tuple[int, int], channels: int, names: NDArray[np.str_]) -> Images:
    """Images of an ``.npz`` with ``x_train``, ``y_train``, ``x_test`` and ``y_test``.

    Raises ``FileNotFoundError``, and ``ValueError`` for a file of something else.
    """
    found = read_npz(path, "x_train", "y_train", "x_test", "y_test")
    return parts(found, size, channels, names, str(path))


def parts(
    found: dict[str, NDArray[Any]],
    size: tuple[int, int],
    channels: int,
    names: NDArray[np.str_],
    source: str,
) -> Images:
    """Training and test images as one set; ``ValueError`` if they are not bytes of this size and these classes."""
    for part in ("train", "test"):
        x, y = found[f"x_{part}"], found[f"y_{part}"]
        shape = (len(x), *size, channels) if channels > 1 else (len(x), *size)
        if x.dtype != np.uint8 or x.shape != shape or y.shape != (len(x),):
            raise ValueError(
                f"{source}: x_{part} must be uint8 {shape} and y_{part} ({len(x)},), got {x.dtype} {x.shape}, {y.shape}"
            )
        if len(y) and int(y.max()) >= len(names):
            raise ValueError(f"{source}: y_{part} must lie below {len(names)}, got {y.max()}")
    pixels = np.concatenate([found["x_train"], found["x_test"]])
    classes = names[np.concatenate([found["y_train"], found["y_test"]]).astype(np.int64)]
    which = np.repeat(["train", "test"], [len(found["x_train"]), len(found["x_test"])])
    return Images.of(pixels, {"label": classes, "part": which})
