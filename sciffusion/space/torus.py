"""Circles side by side: angles, torsions, fractional coordinates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from sciffusion.layout import Layout
from sciffusion.noise import Noise
from sciffusion.space.manifold import Manifold

__all__ = ["Torus"]


@final
@dataclass(frozen=True, eq=False)
class Torus(Manifold):
    r"""Every number is a point on a circle of circumference ``period``: 0 and ``period`` are the same.

    Numbers lie in [0, period). ``period`` is a number (1 for fractional coordinates, :math:`2\pi` for torsions), or a
    tensor (d,), one for each feature of the last dimension. Raises ``ValueError`` unless it is positive and finite.
    """

    period: float | Tensor = 1.0
    point_dims: ClassVar[int] = 0

    def __post_init__(self) -> None:
        period = torch.as_tensor(self.period)
        if not bool(((period > 0) & period.isfinite()).all()):
            raise ValueError(f"period must be positive and finite, got {self.period}")

    def _period(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.period, dtype=x.dtype, device=x.device)

    def _wrap(self, x: Tensor) -> Tensor:
        period = self._period(x)
        wrapped = x.remainder(period)
        # a small negative number is rounded up to the period itself
        return torch.where(wrapped < period, wrapped, wrapped - period)

    def project(self, x: Tensor, layout: Layout) -> Tensor:
        return self._wrap(layout.clean(x))

    def prior(self, like: Tensor, layout: Layout, noise: Noise) -> Tensor:
        return self._wrap(noise.uniform(like, layout) * self._period(like))

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        return self._wrap(x + v)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        period, v = self._period(x), y - x
        return v - period * (v / period).round()

    def to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        return v

    def transport(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        return v

    def length2(self, v: Tensor) -> Tensor:
        return v.square()

    def log_jacobian(self, v: Tensor) -> Tensor:
        inside = v.abs() <= 0.5 * self._period(v)
        return torch.where(inside, 0.0, -math.inf).to(v.dtype)

    def noise_scale(self, x: Tensor, layout: Layout) -> float | Tensor:
        return self.period / math.sqrt(12)

    def _point(self, x: Tensor) -> tuple[Tensor | float, int]:
        return self._period(x).log(), 1
