"""The diffusion transformer: attention among the patches of a grid, modulated by an embedding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .attention import CrossAttention, SelfAttention, zeroed
from .checks import check_call
from .lean import remade
from .patches import complete, join, split
from .rotary import Rotary

__all__ = ["DiT"]


class _Modulation(nn.Module):
    """Vectors (B, 1, width) that depend on the embedding, or on nothing; all zero at initialisation."""

    def __init__(self, embedding: int, width: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.linear = zeroed(nn.Linear(embedding, parts * width)) if embedding else None
        self.constant = None if embedding else nn.Parameter(torch.zeros(1, parts * width))

    def forward(self, embedding: Tensor | None) -> tuple[Tensor, ...]:
        values = self.constant if self.linear is None else self.linear(embedding)
        assert values is not None
        return values.unsqueeze(1).chunk(self.parts, -1)


class _Block(nn.Module):
    """Attention among the tokens, to the context, and a two-layer network: each gated, with gates that start at 0."""

    def __init__(self, width: int, heads: int, mlp: int, embedding: int, context: int) -> None:
        super().__init__()
        self.modulation = _Modulation(embedding, width, 6)
        self.own = SelfAttention(width, heads, norm=True)
        self.cross = CrossAttention(width, heads, context) if context else None
        self.cross_norm = nn.LayerNorm(width) if context else None
        if self.cross is not None:
            zeroed(self.cross.out)
        self.wide, self.narrow = nn.Linear(width, mlp), nn.Linear(mlp, width)

    def forward(
        self,
        x: Tensor,
        embedding: Tensor | None,
        rotation: Tensor,
        key_mask: Tensor | None,
        context: Tensor | None,
        mask: Tensor | None,
    ) -> Tensor:
        shift, scale, gate, shift2, scale2, gate2 = self.modulation(embedding)
        x = x + gate * self.own(_modulated(x, shift, scale), rotation, key_mask)
        if self.cross is not None and self.cross_norm is not None and context is not None:
            x = x + self.cross(self.cross_norm(x), context, mask)
        h = self.wide(_modulated(x, shift2, scale2))
        return x + gate2 * remade(self.narrow, F.gelu, h)


@final
class DiT(nn.Module):
    r"""A transformer on patches with adaptive norms whose gates start at zero (adaLN-Zero, Peebles & Xie 2023).

    Positions are rotary, relative on every axis, queries and keys are normalised: see :mod:`.rotary`. All blocks are
    the identity and the output is zero at initialisation. The embedding decides the shift, the scale and the gate of
    every step.

    Any size will do: a grid is completed to whole patches, and the result is cropped. On a circular axis the network
    commutes with rolls by multiples of the patch, if the size of the axis is such a multiple; else the last patch
    repeats the first points, and a roll is a symmetry only up to that seam (distances around the circle stay right).

    Args:
        in_channels, out_channels: channels.
        dims: 1, 2 or 3 spatial axes.
        patch: points of a patch along every axis: one number, or one for each axis.
        width, depth, heads: channels of a token, number of blocks, heads of the attention.
        expansion: width of a block's two-layer network over ``width``.
        embedding: size E of the vector that modulates all blocks; 0 for none.
        context: width D of the tokens that all blocks also attend to; 0 for none.
        circular: for each axis whether its end meets its beginning; none by default.
        checkpointing: forget what is inside the blocks and compute it anew when gradients are taken: about a third
            more time, and a fraction of the memory.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        dims: int = 2,
        patch: int | Sequence[int] = 2,
        width: int = 128,
        depth: int = 6,
        heads: int = 4,
        expansion: float = 4.0,
        embedding: int = 0,
        context: int = 0,
        circular: Sequence[bool] | None = None,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.patch = (patch,) * dims if isinstance(patch, int) else tuple(patch)
        self.circular = (False,) * dims if circular is None else tuple(circular)
        if dims not in (1, 2, 3):
            raise ValueError(f"dims must be 1, 2 or 3, not {dims}")
        if len(self.patch) != dims or len(self.circular) != dims or min(self.patch) < 1:
            raise ValueError(
                f"patch and circular need one value for each of {dims} axes, got {self.patch}, {self.circular}"
            )
        if width % heads:
            raise ValueError(f"width {width} is no multiple of heads {heads}")
        self.in_channels, self.dims = in_channels, dims
        self.embedding, self.context, self.checkpointing = embedding, context, checkpointing
        points = math.prod(self.patch)
        self.embed = nn.Linear(embedding, embedding) if embedding else None
        self.rotary = Rotary(width // heads, self.circular)
        self.first = nn.Linear(in_channels * points, width)
        self.blocks = nn.ModuleList(
            _Block(width, heads, int(expansion * width), embedding, context) for _ in range(depth)
        )
        self.modulation = _Modulation(embedding, width, 2)
        self.last = zeroed(nn.Linear(width, out_channels * points))

    def forward(
        self,
        x: Tensor,
        embedding: Tensor | None = None,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Evaluate the network.

        Args:
            x: (B, in_channels, *spatial).
            embedding: (B, E), exactly if the network has one.
            context: tokens (B, L, D), exactly if the network has them.
            context_mask: True for the tokens that count, (B, L).
            mask: True for the points that count, (B, *spatial). The others are taken for zeros, patches without any
                are seen by none, and the result is zero there.

        Returns:
            (B, out_channels, *spatial). Raises ``ValueError`` if an argument is missing or has another shape.
        """
        check_call(self, x, embedding, context)
        size, key_mask = x.shape[2:], None
        if mask is not None:
            if mask.shape != (x.shape[0], *size):
                raise ValueError(f"mask must be {(x.shape[0], *size)}, got {tuple(mask.shape)}")
            x = torch.where(mask.unsqueeze(1), x, 0.0)
            key_mask = split(self._complete(mask.unsqueeze(1)), self.patch).any(-1)
        e = None if self.embed is None else F.silu(self.embed(embedding))
        x = self._complete(x)
        grid = [n // p for n, p in zip(x.shape[2:], self.patch, strict=True)]
        rotation = self._rotation(x, grid, size)
        h = self.first(split(x, self.patch))
        for block in self.blocks:
            inputs = (h, e, rotation, key_mask, context, context_mask)
            h = (
                checkpoint(block, *inputs, use_reentrant=False)
                if self.checkpointing
                else block(*inputs)
            )
        shift, scale = self.modulation(e)
        y = join(self.last(_modulated(h, shift, scale)), self.patch, grid)
        for axis, n in enumerate(size, start=2):
            y = y.narrow(axis, 0, n)
        return y if mask is None else torch.where(mask.unsqueeze(1), y, 0.0)

    def _complete(self, x: Tensor) -> Tensor:
        return complete(x, self.patch, self.circular)

    def _rotation(self, x: Tensor, grid: Sequence[int], size: Sequence[int]) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        steps = [torch.arange(n, dtype=dtype, device=x.device) for n in grid]
        around = [n / p for n, p in zip(size, self.patch, strict=True)]
        return self.rotary(steps, around)


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift
