"""Classes: the space of jump processes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciffusion.layout import Layout
from sciffusion.noise import Noise
from sciffusion.space.base import Space

__all__ = ["Categorical"]


@final
@dataclass(frozen=True)
class Categorical(Space):
    """One of ``k`` classes at every point, stored as integers 0..k-1.

    The prior is uniform over the classes, or, with ``absorbing``, a mask: the extra state ``k`` that no data has.
    """

    k: int
    absorbing: bool = False

    def __post_init__(self) -> None:
        if self.k < 2:
            raise ValueError(f"k must be at least 2 classes, got {self.k}")

    @property
    def states(self) -> int:
        """Number of states that a noised field can take: ``k``, and one more for the mask."""
        return self.k + self.absorbing

    def prior(self, like: Tensor, layout: Layout, noise: Noise) -> Tensor:
        if self.absorbing:
            return layout.clean(
                torch.full(like.shape, self.k, dtype=torch.long, device=like.device)
            )
        return layout.clean(noise.integers(self.k, like, layout))

    def log_prior(self, x: Tensor, layout: Layout) -> Tensor:
        if self.absorbing:
            hit = layout.reduce((x == self.k).long(), "sum") == layout.count(x)
            return torch.where(hit, 0.0, -math.inf)
        return -layout.count(x) * math.log(self.k)

    def project(self, x: Tensor, layout: Layout) -> Tensor:
        return layout.clean(x)

    def dof(self, x: Tensor, layout: Layout) -> Tensor:
        return layout.count(x) * (self.k - 1)

    def check(self, x0: Tensor) -> Tensor:
        """``x0`` itself. Raises ``ValueError`` if it is not integer or leaves 0..k-1."""
        if x0.is_floating_point():
            raise ValueError(
                f"a categorical field holds integers 0..{self.k - 1}, got {x0.dtype}; pass class indices"
            )
        if x0.numel() and (int(x0.min()) < 0 or int(x0.max()) >= self.k):
            raise ValueError(
                f"a categorical field holds 0..{self.k - 1}, got values {int(x0.min())}..{int(x0.max())}"
            )
        return x0
