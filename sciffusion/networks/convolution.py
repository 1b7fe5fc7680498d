"""Convolutions in one to three dimensions on a grid whose edges follow a rule."""

from __future__ import annotations

import math
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .padding import Padding

__all__ = ["Conv"]

_CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@final
class Conv(nn.Module):
    """A convolution with an odd kernel, on a grid that a padding continues.

    With stride 2 it looks at the points 0, 2, 4, ...: ``ceil(size / 2)`` of them.
    """

    def __init__(self, inner: int, outer: int, dims: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.stride, self.reach = stride, kernel // 2
        bound = 1 / math.sqrt(inner * kernel**dims)
        self.weight = nn.Parameter(torch.empty(outer, inner, *(kernel,) * dims))
        self.bias = nn.Parameter(torch.empty(outer))
        for parameter in (self.weight, self.bias):
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: Tensor, padding: Padding, signs: Tensor | None = None) -> Tensor:
        """(B, inner, *spatial) to (B, outer, *spatial); ``signs`` as in :class:`~.padding.Padding`."""
        dims, n = x.ndim - 2, self.reach
        if n:
            zeros = [n if zero else 0 for zero in padding.zeros(dims)]
            x = padding.fill(x, n, signs)
        else:
            zeros = [0] * dims
        return _CONVOLVE[dims](x, self.weight, self.bias, self.stride, zeros)
