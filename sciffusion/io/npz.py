"""Arrays in files of numpy's format ``.npz``."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["read_npz"]


def read_npz(path: str | Path) -> dict[str, NDArray[Any]]:
    """All arrays of a file, by name; numbers and texts only, so that nothing in it is executed.

    Raises ``ValueError`` for a file that is absent, another one, damaged, or that holds objects.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not a readable .npz file: it is cut off, or something else")
    try:
        with np.load(path, allow_pickle=False) as data:
            return dict(data.items())
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error):
        # what numpy says of it may be to load it unsafely
        raise ValueError(
            f"{path} is not a readable .npz file: an array in it is damaged, or holds objects"
        ) from None
