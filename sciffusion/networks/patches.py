"""Patches: a grid as a list of tokens and back, in any number of dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["complete", "join", "split"]


def complete(x: Tensor, patch: Sequence[int], circular: Sequence[bool]) -> Tensor:
    """The grid (B, C, *spatial), continued after its ends to whole patches: by its beginning, or by its edge."""
    for axis, (p, circle) in enumerate(zip(patch, circular, strict=True), start=2):
        size = x.shape[axis]
        missing = -size % p
        if not missing:
            continue
        if circle and missing <= size:
            more = x.narrow(axis, 0, missing)
        else:
            shape = list(x.shape)
            shape[axis] = missing
            more = x.narrow(axis, size - 1, 1).expand(shape)
        x = torch.cat((x, more), axis)
    return x


def split(x: Tensor, patch: Sequence[int]) -> Tensor:
    """(B, C, *spatial) to tokens (B, L, C * points of a patch); the last axis runs fastest."""
    dims = len(patch)
    for axis, p in reversed(list(enumerate(patch, start=2))):
        x = x.unflatten(axis, (-1, p))
    grid, inside = range(2, 2 + 2 * dims, 2), range(3, 3 + 2 * dims, 2)
    return x.permute(0, *grid, 1, *inside).flatten(1, dims).flatten(2)


def join(tokens: Tensor, patch: Sequence[int], grid: Sequence[int]) -> Tensor:
    """Undo :func:`split`: tokens of a grid of patches to (B, C, *spatial)."""
    dims = len(patch)
    x = tokens.unflatten(2, (tokens.shape[2] // math.prod(patch), *patch)).unflatten(1, tuple(grid))
    order = [axis for i in range(dims) for axis in (1 + i, 2 + dims + i)]
    x = x.permute(0, 1 + dims, *order)
    return x.reshape(*x.shape[:2], *(n * p for n, p in zip(grid, patch, strict=True)))
