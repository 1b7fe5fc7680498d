"""What transformers on the patches of a grid share: how a grid becomes tokens at places, and tokens a grid."""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .attention import zeroed
from .checks import check_call
from .modulation import Modulation, modulated
from .patches import complete, join, split
from .rotary import Rotary

__all__ = ["Patched", "Tokens"]


class Tokens(NamedTuple):
    """A grid as tokens: ``h`` (B, L, width), their ``rotation`` (L, d / 2), and ``key_mask`` (B, L).

    ``grid`` counts the patches on every axis, ``size`` the points.
    """

    h: Tensor
    rotation: Tensor | None
    key_mask: Tensor | None
    grid: tuple[int, ...]
    size: tuple[int, ...]


class Patched(nn.Module, ABC):
    """A network on patches without its blocks; arguments as those of :class:`~.dit.DiT`.

    ``still`` is the number of first axes whose places are left to others: frames in time, for instance.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        dims: int,
        patch: int | Sequence[int],
        width: int,
        heads: int,
        embedding: int,
        context: int,
        circular: Sequence[bool] | None,
        learned: Sequence[int] | None,
        checkpointing: bool,
        still: int = 0,
    ) -> None:
        super().__init__()
        self.patch = (patch,) * dims if isinstance(patch, int) else tuple(patch)
        self.circular = (False,) * dims if circular is None else tuple(circular)
        self.learned = (0,) * dims if learned is None else tuple(learned)
        if dims not in (1, 2, 3):
            raise ValueError(f"dims must be 1, 2 or 3, not {dims}")
        if len(self.patch) != dims or len(self.circular) != dims or min(self.patch) < 1:
            raise ValueError(
                f"patch and circular need one value for each of {dims} axes, got {self.patch}, {self.circular}"
            )
        if len(self.learned) != dims or min(self.learned) < 0:
            raise ValueError(
                f"learned needs a number of patches, or 0, for each of {dims} axes, got {self.learned}"
            )
        if width % heads:
            raise ValueError(f"width {width} is no multiple of heads {heads}")
        self.in_channels, self.dims = in_channels, dims
        self.embedding, self.context, self.checkpointing = embedding, context, checkpointing
        points = math.prod(self.patch)
        self.embed = nn.Linear(embedding, embedding) if embedding else None
        self.turning = [axis for axis in range(still, dims) if not self.learned[axis]]
        turning = [self.circular[axis] for axis in self.turning]
        self.still = still
        self.rotary = Rotary(width // heads, turning) if turning else None
        self.first = nn.Linear(in_channels * points, width)
        self.modulation = Modulation(embedding, width, 2)
        self.last = zeroed(nn.Linear(width, out_channels * points))
        self.places = nn.ParameterList(
            nn.Parameter(0.02 * torch.randn(n, width)) for n in self.learned if n
        )

    def read(
        self,
        x: Tensor,
        embedding: Tensor | None,
        context: Tensor | None,
        mask: Tensor | None,
    ) -> tuple[Tokens, Tensor | None]:
        """The grid (B, in_channels, *spatial) as tokens, and what modulates the blocks.

        Raises ``ValueError`` if an argument is missing or has another shape.
        """
        frames = -(-x.shape[2] // self.patch[0]) if x.ndim > 2 else None
        check_call(self, x, embedding, context, axes=self.dims, frames=frames)
        size, key_mask = tuple(x.shape[2:]), None
        if mask is not None:
            if mask.shape != (x.shape[0], *size):
                raise ValueError(f"mask must be {(x.shape[0], *size)}, got {tuple(mask.shape)}")
            x = torch.where(mask.unsqueeze(1), x, 0.0)
            key_mask = self.split(mask.unsqueeze(1)).any(-1)
        e = None if self.embed is None else F.silu(self.embed(embedding))
        grid = tuple(-(-n // p) for n, p in zip(size, self.patch, strict=True))
        h = self._placed(self.first(self.split(x)), grid)
        return Tokens(h, self._rotation(x, grid, size), key_mask, grid, size), e

    def write(
        self,
        h: Tensor,
        embedding: Tensor | None,
        grid: Sequence[int],
        size: Sequence[int],
        mask: Tensor | None,
    ) -> Tensor:
        """Tokens (B, L, width) as a grid (B, out_channels, *spatial), zero where the mask says so."""
        shift, scale = self.modulation(embedding, h.shape[1])
        y = join(self.last(modulated(h, shift, scale)), self.patch, grid)
        for axis, n in enumerate(size, start=2):
            y = y.narrow(axis, 0, n)
        return y if mask is None else torch.where(mask.unsqueeze(1), y, 0.0)

    def split(self, x: Tensor) -> Tensor:
        """The patches of a grid (B, C, *spatial), completed to whole ones: (B, L, C * points of a patch)."""
        return split(complete(x, self.patch, self.circular), self.patch)

    def run(self, block: nn.Module, *inputs: Any) -> Any:
        """The block's result; what is inside it is forgotten, if the network was built so."""
        return (
            checkpoint(block, *inputs, use_reentrant=False)
            if self.checkpointing
            else block(*inputs)
        )

    def _rotation(self, x: Tensor, grid: Sequence[int], size: Sequence[int]) -> Tensor | None:
        if self.rotary is None:
            return None
        dtype = torch.promote_types(x.dtype, torch.float32)
        steps = [torch.arange(grid[axis], dtype=dtype, device=x.device) for axis in self.turning]
        around = [size[axis] / self.patch[axis] for axis in self.turning]
        rotation: Tensor = self.rotary(steps, around)
        moving = range(self.still, self.dims)
        if len(self.turning) == len(moving):
            return rotation
        here = [grid[axis] if axis in self.turning else 1 for axis in moving]
        every = [grid[axis] for axis in moving]
        return rotation.view(*here, -1).expand(*every, -1).flatten(0, -2)

    def _placed(self, h: Tensor, grid: Sequence[int]) -> Tensor:
        """The tokens with the learned places of their axes added."""
        axes = [axis for axis, n in enumerate(self.learned) if n]
        for axis, place in zip(axes, self.places, strict=True):
            if grid[axis] != self.learned[axis]:
                raise ValueError(
                    f"the network learned {self.learned[axis]} places on axis {axis}, but x has {grid[axis]} patches "
                    "there"
                )
            here = [n if i == axis else 1 for i, n in enumerate(grid)]
            h = h + place.view(*here, -1).expand(*grid, -1).flatten(0, -2)
        return h
