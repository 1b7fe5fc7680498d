"""Arrays in files of numpy's format ``.npz``."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["read_npz"]


def read_npz(path: str | Path, *names: str) -> dict[str, NDArray[Any]]:
    """Arrays of a file by name, all or those that are named; numbers and texts only, so that nothing is executed.

    The checksum of each is tested on the way.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file of something else, one that is damaged or holds objects, or that lacks one of the names.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not a readable .npz file: it is cut off, or something else")
    try:
        with np.load(path, allow_pickle=False) as data:
            held = data.files
            found = {name: data[name] for name in names or held if name in held}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError):
        # what numpy says of it may be to load it unsafely
        raise ValueError(
            f"{path} is not a readable .npz file: an array in it is damaged, or holds objects"
        ) from None
    if missing := [name for name in names if name not in found]:
        raise ValueError(
            f"{path} is another .npz file: it lacks {', '.join(missing)} and holds {', '.join(held) or 'nothing'}"
        )
    return found
