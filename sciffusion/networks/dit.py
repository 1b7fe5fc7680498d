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
        rotation: Tensor | None,
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

    Positions are rotary, relative on every axis, queries and keys are normalised: see :mod:`.rotary`. On an axis whose
    places differ in kind, the frequencies of a spectrogram, they can be learned instead. All blocks are the identity
    and the output is zero at initialisation. The embedding decides the shift, the scale and the gate of every step.

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
        prefix: width P of tokens that are put before those of the grid and take part in everything but the result: a
            condition that attention reads at no further parameters in the blocks; 0 for none.
        circular: for each axis whether its end meets its beginning; none by default.
        learned: for each axis its number of patches, if their places are learned, or 0 for rotary ones (the default).
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
        prefix: int = 0,
        circular: Sequence[bool] | None = None,
        learned: Sequence[int] | None = None,
        checkpointing: bool = False,
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
        self.in_channels, self.dims, self.prefix = in_channels, dims, prefix
        self.embedding, self.context, self.checkpointing = embedding, context, checkpointing
        points = math.prod(self.patch)
        self.embed = nn.Linear(embedding, embedding) if embedding else None
        turning = [c for c, n in zip(self.circular, self.learned, strict=True) if not n]
        self.rotary = Rotary(width // heads, turning) if turning else None
        self.first = nn.Linear(in_channels * points, width)
        self.blocks = nn.ModuleList(
            _Block(width, heads, int(expansion * width), embedding, context) for _ in range(depth)
        )
        self.modulation = _Modulation(embedding, width, 2)
        self.last = zeroed(nn.Linear(width, out_channels * points))
        self.places = nn.ParameterList(
            nn.Parameter(0.02 * torch.randn(n, width)) for n in self.learned if n
        )
        self.before = nn.Linear(prefix, width) if prefix else None

    def forward(
        self,
        x: Tensor,
        embedding: Tensor | None = None,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
        mask: Tensor | None = None,
        prefix: Tensor | None = None,
    ) -> Tensor:
        """Evaluate the network.

        Args:
            x: (B, in_channels, *spatial).
            embedding: (B, E), exactly if the network has one.
            context: tokens (B, L, D), exactly if the network has them.
            context_mask: True for the tokens that count, (B, L).
            mask: True for the points that count, (B, *spatial). The others are taken for zeros, patches without any
                are seen by none, and the result is zero there.
            prefix: tokens (B, K, P), exactly if the network has them.

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
        h = self._placed(self.first(split(x, self.patch)), grid)
        extra = 0
        if self.before is not None or prefix is not None:
            h, rotation, key_mask, extra = self._prefixed(h, rotation, key_mask, prefix)
        for block in self.blocks:
            inputs = (h, e, rotation, key_mask, context, context_mask)
            h = (
                checkpoint(block, *inputs, use_reentrant=False)
                if self.checkpointing
                else block(*inputs)
            )
        h = h[:, extra:] if extra else h
        shift, scale = self.modulation(e)
        y = join(self.last(_modulated(h, shift, scale)), self.patch, grid)
        for axis, n in enumerate(size, start=2):
            y = y.narrow(axis, 0, n)
        return y if mask is None else torch.where(mask.unsqueeze(1), y, 0.0)

    def _complete(self, x: Tensor) -> Tensor:
        return complete(x, self.patch, self.circular)

    def _rotation(self, x: Tensor, grid: Sequence[int], size: Sequence[int]) -> Tensor | None:
        if self.rotary is None:
            return None
        dtype = torch.promote_types(x.dtype, torch.float32)
        turning = [axis for axis, n in enumerate(self.learned) if not n]
        steps = [torch.arange(grid[axis], dtype=dtype, device=x.device) for axis in turning]
        around = [size[axis] / self.patch[axis] for axis in turning]
        rotation: Tensor = self.rotary(steps, around)
        if len(turning) == self.dims:
            return rotation
        here = [n if axis in turning else 1 for axis, n in enumerate(grid)]
        return rotation.view(*here, -1).expand(*grid, -1).flatten(0, -2)

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

    def _prefixed(
        self, h: Tensor, rotation: Tensor | None, key_mask: Tensor | None, prefix: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None, int]:
        """The tokens with the prefix before them, which stands at the place of the first."""
        if self.before is None:
            raise ValueError("the network was built without prefix: prefix must be None")
        if prefix is None:
            raise ValueError(f"the network was built with prefix={self.prefix}: give it prefix")
        if prefix.ndim != 3 or prefix.shape[0] != len(h) or prefix.shape[2] != self.prefix:
            raise ValueError(
                f"prefix must be ({len(h)}, *, {self.prefix}), got {tuple(prefix.shape)}"
            )
        k = prefix.shape[1]
        h = torch.cat((self.before(prefix), h), 1)
        if rotation is not None:
            rotation = torch.cat((torch.ones_like(rotation[:1]).expand(k, -1), rotation))
        if key_mask is not None:
            key_mask = torch.cat((key_mask.new_ones(len(h), k), key_mask), 1)
        return h, rotation, key_mask, k


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift
