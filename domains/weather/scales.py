"""Physical units and normalised ones: every channel less its mean, by its standard deviation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

__all__ = ["Scales"]


@final
@dataclass(frozen=True, eq=False)
class Scales:
    r"""The affine map :math:`z = (x - \mu)/s` of fields (..., C, H, W), channel by channel, and its inverse.

    ``mean`` is (C, H, W), a climatology of every cell, or (C, 1, 1); ``std`` is (C, 1, 1). Fields keep their dtype and
    device; NaN stays NaN.

    Raises ``ValueError`` for other shapes, a mean that is not finite, or a deviation that is not positive and finite;
    :meth:`normalise` and :meth:`restore` for fields that do not fit.
    """

    mean: Tensor
    std: Tensor
    affine: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.std.ndim != 3 or tuple(self.std.shape[1:]) != (1, 1):
            raise ValueError(f"std must be (C, 1, 1), got {tuple(self.std.shape)}")
        if self.mean.ndim != 3 or len(self.mean) != len(self.std):
            raise ValueError(
                f"mean must be (C, H, W) or (C, 1, 1) with C = {len(self.std)} as in std, got "
                f"{tuple(self.mean.shape)}"
            )
        if not bool(self.mean.isfinite().all()):
            raise ValueError(
                "mean is not finite; leave missing values out of it, and fill cells that have none by any number"
            )
        good = self.std.isfinite() & (self.std > 0)
        if not bool(good.all()):
            wrong = (~good).flatten().nonzero().flatten().tolist()
            raise ValueError(
                f"std must be positive and finite; that of the channels {wrong} is not (constant or all-NaN fields?)"
            )

    @property
    def channels(self) -> int:
        """C."""
        return len(self.std)

    def normalise(self, x: Tensor) -> Tensor:
        """Physical fields (..., C, H, W) as normalised ones."""
        self._check(x)
        return (x - self.mean.to(x)) / self.std.to(x)

    def restore(self, z: Tensor) -> Tensor:
        """Normalised fields (..., C, H, W) as physical ones."""
        self._check(z)
        return z * self.std.to(z) + self.mean.to(z)

    def _check(self, x: Tensor) -> None:
        grid = tuple(self.mean.shape[1:])
        fits = x.ndim >= 3 and x.shape[-3] == self.channels
        if not fits or (grid != (1, 1) and tuple(x.shape[-2:]) != grid):
            want = "H, W" if grid == (1, 1) else f"{grid[0]}, {grid[1]}"
            raise ValueError(
                f"fields must be (..., {self.channels}, {want}) for these scales, got {tuple(x.shape)}"
            )
