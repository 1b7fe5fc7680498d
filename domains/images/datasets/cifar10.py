"""Small colour photographs of ten classes, from a local copy: their licence is unknown, so nothing is fetched."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..container import Images
from .arrays import arrays, cached

__all__ = ["get_cifar10"]


def get_cifar10(path: Path | None = None) -> tuple[Images, Path]:
    """CIFAR-10 or a subset of it from an ``.npz`` with ``x_train``, ``y_train``, ``x_test``, ``y_test``, class_names.

    Labels: ``label`` (the name of the class) and ``part``. See ``datasets/cifar10``.

    Raises ``ValueError`` without a path if none was kept, or for a file of something else.
    """
    file = cached("cifar10") if path is None else Path(path)
    if path is None and not file.is_file():
        raise ValueError(
            "cifar10 has no stated licence and is not fetched: name a local .npz with path, or keep it once with "
            "`sciffusion data get cifar10 --path FILE` (see datasets/cifar10)"
        )
    return arrays(file, (32, 32), channels=3, names=_NAMES), file


_NAMES = np.array("airplane automobile bird cat deer dog frog horse ship truck".split())
