"""Images: pixels with labels, from arrays and files and back, and how they look in a notebook."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, final, overload

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from sciffusion.pixels import Pixels, tile, to_bytes, to_floats

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sciffusion.report import Report

__all__ = ["Images"]

_PIXELS = Pixels("pixels", "image", "images", "N", "Images.of")


@final
@dataclass(frozen=True, eq=False, repr=False)
class Images(Sequence["Images"]):
    """Images of one size, with labels: one value for each image by name.

    ``pixels`` (N, C, H, W) are ``uint8``, 0 to 255, or ``float32``, 0 to 1; which of both never changes silently: see
    :meth:`to_floats` and :meth:`to_bytes`. C is 1 (grey) or 3 (red, green, blue). ``images[3]`` is a set of one image;
    a slice, a boolean array or a list of indices gives others. In a notebook they show themselves.

    Raises ``ValueError`` for another shape, type or range, values that are not finite, no images, and a label with
    another number of values.
    """

    pixels: Tensor
    labels: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _PIXELS.check(self.pixels)
        for name, values in self.labels.items():
            if len(values) != len(self.pixels):
                raise ValueError(
                    f"label {name} has {len(values)} values for {len(self.pixels)} images"
                )

    @classmethod
    def of(cls, array: ArrayLike | Tensor, labels: Mapping[str, ArrayLike] | None = None) -> Images:
        """Images of an array (H, W), (N, H, W), (N, H, W, C) or (N, C, H, W), which is copied.

        ``uint8`` stays, floats from 0 to 1 become ``float32``. Channels may come last, as other libraries have them.
        Raises ``ValueError`` for other integers, whose scale nobody can know, floats outside 0 to 1, and what
        :class:`Images` refuses.
        """
        single = np.ndim(array) == 2
        pixels = _PIXELS.read(np.asarray(array)[None] if single else array)
        return cls(pixels, {k: np.asarray(v) for k, v in (labels or {}).items()})

    @classmethod
    def read(cls, path: str | Path, *, grey: bool | None = None) -> Images:
        """Images of an image file, of a folder with one folder for each class, or of an ``.npz`` that ``save`` wrote.

        For ``grey`` and the errors see :func:`.files.read`.
        """
        from .files import read

        return read(path, grey=grey)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[2], self.pixels.shape[3]

    @property
    def channels(self) -> int:
        """1 (grey) or 3 (red, green, blue)."""
        return self.pixels.shape[1]

    def to_floats(self) -> Images:
        """The same with ``float32`` pixels, 0 to 1; :meth:`to_bytes` brings every byte back."""
        return Images(to_floats(self.pixels), self.labels)

    def to_bytes(self) -> Images:
        """The same with ``uint8`` pixels, rounded to the nearest."""
        return Images(to_bytes(self.pixels), self.labels)

    def __repr__(self) -> str:
        (h, w), kind = self.size, "grey" if self.channels == 1 else "RGB"
        labels = f", labels {', '.join(self.labels)}" if self.labels else ""
        return f"Images({len(self)} of {h} x {w}, {kind}, {str(self.pixels.dtype)[6:]}{labels})"

    def __len__(self) -> int:
        return len(self.pixels)

    def __iter__(self) -> Iterator[Images]:
        return (self[i] for i in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Images: ...
    @overload
    def __getitem__(self, index: slice | NDArray[Any] | Sequence[int]) -> Images: ...
    def __getitem__(self, index: int | slice | NDArray[Any] | Sequence[int]) -> Images:
        rows = np.arange(len(self))[index if isinstance(index, slice) else np.asarray(index)]
        rows = np.atleast_1d(rows)
        labels = {name: np.asarray(values)[rows] for name, values in self.labels.items()}
        return Images(self.pixels[torch.from_numpy(rows.copy())], labels)

    def labelled(self, **labels: ArrayLike) -> Images:
        """The same with further labels."""
        found = {k: np.asarray(v) for k, v in labels.items()}
        return Images(self.pixels, {**self.labels, **found})

    def save(self, path: str | Path) -> Path:
        """Write one file, whole or not at all: a picture (``.png``), many images as a grid in it; or ``.npz``.

        An ``.npz`` keeps pixels and labels as they are, and :meth:`read` brings them back; pictures are rounded to 8
        bits. A path without suffix becomes a folder of numbered pictures, in a folder for each class if there are
        classes. Raises ``ValueError`` for another suffix.
        """
        from .files import write

        return write(self, path)

    def report(self, reference: Images | None = None, *, seed: int = 0, **checks: int) -> Report:
        """Judge the images, beside real ones if there are any; see :func:`.evaluation.evaluate`."""
        from .evaluation import evaluate

        if checks:
            raise ValueError(f"images have no further checks, got {', '.join(checks)}")
        return evaluate(self, reference, seed=seed)

    def grid(self, columns: int | None = None, gap: int = 1) -> Tensor:
        """All images side by side, (C, H', W') uint8, on a grid of about as many rows as columns."""
        return tile(to_bytes(self.pixels), columns, gap)

    def plot(self, *, columns: int | None = None) -> Figure:
        """All images on a grid of so many columns (None: about as many as rows), each under its class if it has one."""
        from .viewer import figure

        return figure(self, columns)

    def _repr_png_(self) -> bytes:
        from .viewer import png

        return png(self)

    def _repr_html_(self) -> str:
        from .viewer import html

        return html(self)
