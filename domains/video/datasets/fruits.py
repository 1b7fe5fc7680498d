"""Fruits that turn on a motor, filmed: the rotation films of Fruits-360."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch

from sciffusion.errors import require
from sciffusion.io import read_npz

from ..film import Film, Films

__all__ = ["get_fruits"]

_ARRAYS = ("jpeg", "offset", "seq_ptr", "seq_class", "seq_variety", "seq_axis", "seq_split")
_NAMES = ("class_names", "variety_names")


def get_fruits(path: Path, part: str = "", limit: int | None = None) -> Films:
    """The 162 films of ``fruits360_rotation_64.npz``, 21 to 41 frames of 64 x 64, about 9 degrees apart.

    ``part`` is "train", "test" (other varieties) or "" (all); ``limit`` the number of films. Labels: ``label`` (the
    class), ``variety`` and ``axis``. (Oltean 2017; CC BY-SA 4.0.)

    Raises ``FileNotFoundError``, and ``ValueError`` for a file of something else.
    """
    pillow = require("PIL.Image", extra="video")
    found = read_npz(path, *_ARRAYS, *_NAMES)
    wanted = {"train": (0,), "test": (1,), "": (0, 1)}[part]
    rows = np.flatnonzero(np.isin(found["seq_split"], wanted))[:limit]
    films = []
    for row in rows.tolist():
        a, b = found["seq_ptr"][row : row + 2].tolist()
        frames = []
        for i in range(a, b):
            begin, end = found["offset"][i : i + 2].tolist()
            with pillow.open(io.BytesIO(found["jpeg"][begin:end].tobytes())) as picture:
                frames.append(np.array(picture.convert("RGB")))
        films.append(Film(torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()))
    labels = {
        "label": found["class_names"][found["seq_class"][rows]],
        "variety": found["variety_names"][found["seq_variety"][rows]],
        "axis": found["seq_axis"][rows],
    }
    return Films(films, labels)
