r"""A Brownian motion that can be asked at any time and always answers the same.

On the dyadic points of [0, 1] it is built by Lévy's midpoint displacement: between two known neighbours a distance d
apart,

.. math:: W\!\left(\tfrac{a+b}2\right) = \tfrac12(W(a)+W(b)) + \tfrac12\sqrt{d}\;\xi,

and the normal numbers :math:`\xi` of a midpoint come from a seed of its own. So the path is a function of (seed, time)
alone: whatever grid reads it, coarse or fine, reads the same path, and nothing has to be stored.
Source: Lévy, 1948; Li et al., Scalable Gradients for SDEs, 2020 (the virtual Brownian tree).
"""

from __future__ import annotations

import math
from typing import final

import numpy as np
import torch
from torch import Tensor

__all__ = ["BrownianPath"]

DEPTH = 32
"""Times are rounded to multiples of 2^-32; halving that often reaches any of them."""


@final
class BrownianPath:
    """One path for each number of a tensor of ``shape``, started at 0; ``key`` tells apart paths of one ``seed``."""

    def __init__(self, seed: int, key: int, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.seed, self.key, self.shape, self.dtype = seed, key, shape, dtype
        self._known: list[tuple[int, int, Tensor, Tensor]] = []  # the last descent, for the next

    def __call__(self, t: float) -> Tensor:
        """W(t), of ``shape``, for a time in [0, 1]."""
        target, size = round(t * 2**DEPTH), 2**DEPTH
        if target == 0:
            return torch.zeros(self.shape, dtype=self.dtype)
        while self._known and not self._known[-1][0] < target <= self._known[-1][1]:
            self._known.pop()
        if not self._known:
            self._known = [(0, size, torch.zeros(self.shape, dtype=self.dtype), self._normal(size))]
        low, high, left, right = self._known[-1]
        while target != high:
            middle = (low + high) // 2
            spread = 0.5 * math.sqrt((high - low) / size)
            value = torch.lerp(left, right, 0.5) + spread * self._normal(middle)
            if target <= middle:
                high, right = middle, value
            else:
                low, left = middle, value
            self._known.append((low, high, left, right))
        return right

    def increment(self, start: float, end: float) -> Tensor | None:
        """The increment between two times over the root of their distance; None if that is rounded away."""
        a, b = (round(t * 2**DEPTH) / 2**DEPTH for t in (start, end))
        if a == b:
            return None
        return (self(b) - self(a)) / math.sqrt(abs(b - a))

    def _normal(self, place: int) -> Tensor:
        """The normal numbers of one dyadic point, from a seed that no other point has."""
        words = np.random.SeedSequence((self.seed % 2**64, self.key, place)).generate_state(
            1, np.uint64
        )
        generator = torch.Generator().manual_seed(int(words[0] >> np.uint64(1)))
        return torch.randn(self.shape, generator=generator, dtype=self.dtype)
