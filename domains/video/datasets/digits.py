"""Handwritten digits to set in motion: those inside scikit-learn, or MNIST from a local file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sciffusion.errors import require
from sciffusion.io import read_npz

__all__ = ["SIDE", "Digits", "digits"]

SIDE = 16
"""Pixels of a digit's side, whatever it comes from."""

PARTS = ("train", "test")


@final
@dataclass(frozen=True, eq=False)
class Digits:
    """Pictures of digits: ``ink`` (N, 16, 16), 0 to 1 in float32, and their ``classes`` (N,), 0 to 9."""

    ink: Tensor
    classes: Tensor

    def __len__(self) -> int:
        return len(self.classes)


def digits(part: str = "train", path: Path | None = None) -> Digits:
    """The training or the test pictures.

    Without a path they are the 1,797 of scikit-learn (Alpaydin & Kaynak 1998; 8 x 8 pixels, enlarged), every fifth one
    for tests. ``path`` is an ``.npz`` of MNIST, or a part of it, with ``x_train`` (N, 28, 28), ``y_train``, ``x_test``
    and ``y_test``, whose pictures are made smaller.

    Raises ``ValueError`` for another part, or a file of something else, and ``FileNotFoundError``.
    """
    if part not in PARTS:
        raise ValueError(f"digits have the parts {' and '.join(PARTS)}, got {part!r}")
    return _sklearn(part) if path is None else _mnist(part, Path(path))


@lru_cache(maxsize=2)
def _sklearn(part: str) -> Digits:
    found = require("sklearn.datasets", extra="video").load_digits()
    rows = (np.arange(len(found.target)) % 5 == 4) == (part == "test")
    small = torch.from_numpy(found.images[rows]).float()[:, None] / 16
    ink = F.interpolate(small, (SIDE, SIDE), mode="bilinear", align_corners=False)[:, 0]
    return Digits(ink, torch.from_numpy(found.target[rows].astype(np.int64)))


def _mnist(part: str, path: Path) -> Digits:
    x, y = read_npz(path, f"x_{part}", f"y_{part}").values()
    if x.dtype != np.uint8 or x.shape[1:] != (28, 28) or y.shape != (len(x),) or not len(x):
        raise ValueError(
            f"{path}: x_{part} must be uint8 (N, 28, 28) and y_{part} (N,), got {x.dtype} {x.shape}, {y.shape}"
        )
    if int(y.max()) > 9:
        raise ValueError(f"{path}: y_{part} must lie below 10, got {y.max()}")
    large = torch.from_numpy(x).float()[:, None] / 255
    ink = F.interpolate(large, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
    return Digits(ink[:, 0].clamp(0, 1), torch.from_numpy(y.astype(np.int64)))
