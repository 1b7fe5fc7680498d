"""Pictures as tensors (N, C, H, W): bytes from 0 to 255 or floats from 0 to 1, and nothing that is neither."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

__all__ = ["CHANNELS", "Pixels", "tile", "to_bytes", "to_floats"]

CHANNELS = (1, 3)
"""Grey, and red, green and blue."""


@final
@dataclass(frozen=True)
class Pixels:
    """What pictures of a kind are called in errors: ``pixels`` of an ``image``, ``frames`` of a ``film``.

    ``name`` is the tensor, ``one`` a single picture in it, ``whole`` what it makes, ``batch`` the name of its first
    axis, ``maker`` the function that takes arrays.
    """

    name: str
    one: str
    whole: str
    batch: str
    maker: str

    def check(self, x: Tensor) -> None:
        """Raise ``ValueError`` for another shape, type or range, values that are not finite, and no pictures."""
        if x.dtype not in (torch.uint8, torch.float32):
            raise ValueError(
                f"{self.name} must be uint8 (0 to 255) or float32 (0 to 1), got {x.dtype}; {self.maker} converts arrays"
            )
        if x.ndim != 4 or not x.numel():
            raise ValueError(
                f"{self.name} must be ({self.batch}, C, H, W) with at least one {self.one}, got {tuple(x.shape)}"
            )
        if x.shape[1] not in CHANNELS:
            last = x.shape[-1] in CHANNELS
            hint = "channels come second: permute(0, 3, 1, 2)" if last else "drop the others"
            raise ValueError(
                f"{self.whole} have 1 channel (grey) or 3 (red, green, blue), got {x.shape[1]} in "
                f"{tuple(x.shape)}; {hint}"
            )
        if x.dtype == torch.float32:
            self._check_range(x)

    def read(self, array: ArrayLike | Tensor) -> Tensor:
        """A copy of an array (N, H, W), (N, H, W, C) or (N, C, H, W) as (N, C, H, W); floats become ``float32``.

        Raises ``ValueError`` for integers that are no bytes, whose scale nobody can know.
        """
        x = array.detach().cpu() if isinstance(array, Tensor) else torch.as_tensor(np.array(array))
        if x.dtype != torch.uint8 and not x.is_floating_point():
            raise ValueError(
                f"{self.name} must be uint8 (0 to 255) or floats (0 to 1), got {x.dtype}; cast them to uint8 if they "
                "run from 0 to 255"
            )
        if x.ndim == 3:
            x = x[:, None]
        elif x.ndim == 4 and x.shape[1] not in CHANNELS and x.shape[-1] in CHANNELS:
            x = x.permute(0, 3, 1, 2)
        return (x if x.dtype == torch.uint8 else x.float()).contiguous().clone()

    def _check_range(self, x: Tensor) -> None:
        low, high = float(x.min()), float(x.max())
        if not bool(x.isfinite().all()):
            raise ValueError(f"{self.name} hold NaN or infinity; repair or drop the {self.one}")
        if low >= 0 and high <= 1:
            return
        if high > 1.5 and low >= 0:
            hint = "these look like bytes: cast them to uint8, or divide by 255"
        elif low >= -1 and high <= 1:
            hint = "these run from -1 to 1: take (x + 1) / 2"
        else:
            hint = "clamp or scale them"
        raise ValueError(f"float {self.name} run from 0 to 1, got {low:.4g} to {high:.4g}; {hint}")


def to_floats(x: Tensor) -> Tensor:
    """Bytes as ``float32`` from 0 to 1; floats as they are. :func:`to_bytes` brings every byte back."""
    return x.float() / 255 if x.dtype == torch.uint8 else x


def to_bytes(x: Tensor) -> Tensor:
    """Floats from 0 to 1 as bytes, rounded to the nearest; bytes as they are."""
    return x if x.dtype == torch.uint8 else (x * 255).round().to(torch.uint8)


def tile(x: Tensor, columns: int | None = None, gap: int = 1, fill: int = 255) -> Tensor:
    """Pictures (N, ..., H, W) side by side on a grid (..., H', W') of so many columns (None: about as many as rows)."""
    n, h, w = len(x), x.shape[-2], x.shape[-1]
    columns = columns or int(np.ceil(np.sqrt(n)))
    rows = -(-n // columns)
    shape = (*x.shape[1:-2], rows * (h + gap) - gap, columns * (w + gap) - gap)
    out = torch.full(shape, fill, dtype=x.dtype)
    for i, one in enumerate(x):
        top, left = i // columns * (h + gap), i % columns * (w + gap)
        out[..., top : top + h, left : left + w] = one
    return out
