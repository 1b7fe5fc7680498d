"""The 1,797 handwritten digits of 8 x 8 pixels that lie inside scikit-learn: data without a download."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sciffusion.errors import require

from ..container import Images

__all__ = ["get_digits"]


def get_digits(path: Path | None = None) -> tuple[Images, Path]:
    """The digits, grey levels 0 to 16 as bytes 0 to 255, and the package that they lie in.

    Labels: ``label`` ("0" to "9") and ``part``, "test" for every fifth image and "train" for the others.
    (Alpaydin & Kaynak 1998, UCI; CC BY 4.0.)

    Raises ``ValueError`` if a ``path`` is given, and ``MissingExtra`` without scikit-learn.
    """
    if path is not None:
        raise ValueError("the digits lie inside scikit-learn: leave path out")
    datasets = require("sklearn.datasets", extra="images")
    found = datasets.load_digits()
    pixels = np.round(found.images * (255 / 16)).astype(np.uint8)
    part = np.where(np.arange(len(pixels)) % 5 == 4, "test", "train")
    labels = {"label": found.target.astype(str), "part": part}
    return Images.of(pixels, labels), Path(str(datasets.__file__)).parent
