"""The U-Net: one class in one, two and three dimensions, on any grid."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import final

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .attention import CrossAttention, SelfAttention, zeroed
from .checks import check_call
from .convolution import Conv
from .lean import lean
from .norm import active_norm, norm_groups
from .padding import Padding, Zeros

__all__ = ["UNet"]


class _Block(nn.Module):
    """``x + conv(silu(film(norm(conv(silu(norm(x)))))))``, then attention; the identity at initialisation."""

    def __init__(
        self,
        width: int,
        dims: int,
        embedding: int,
        dropout: float,
        heads: int,
        context: int,
    ) -> None:
        super().__init__()
        groups = norm_groups(width)
        self.norm1, self.norm2 = nn.GroupNorm(groups, width), nn.GroupNorm(groups, width)
        self.conv1, self.conv2 = Conv(width, width, dims), zeroed(Conv(width, width, dims))
        self.film = nn.Linear(embedding, 2 * width) if embedding else None
        self.dropout = nn.Dropout(dropout) if dropout else None
        self.attention = _Attention(width, heads, context) if heads else None

    def forward(
        self,
        x: Tensor,
        padding: Padding,
        embedding: Tensor | None,
        context: Tensor | None,
        mask: Tensor | None,
    ) -> Tensor:
        h = lean(active_norm, x, self.norm1.weight, self.norm1.bias)
        h = lean(active_norm, self.conv1(h, padding), *self._film(embedding))
        if self.dropout is not None:
            h = self.dropout(h)
        x = x + self.conv2(h, padding)
        return x if self.attention is None else self.attention(x, context, mask)

    def _film(self, embedding: Tensor | None) -> tuple[Tensor, Tensor]:
        """Scale and shift, for every channel or, with an embedding, also for every sample."""
        weight, bias = self.norm2.weight, self.norm2.bias
        if self.film is None:
            return weight, bias
        scale, shift = self.film(embedding).chunk(2, -1)
        return weight + scale, bias + shift


class _Attention(nn.Module):
    """Attention among all points, then from the points to the context; positions are not told."""

    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(norm_groups(width), width)
        self.own = SelfAttention(width, heads)
        self.cross_norm = nn.LayerNorm(width) if context else None
        self.cross = CrossAttention(width, heads, context) if context else None
        zeroed(self.own.out)
        if self.cross is not None:
            zeroed(self.cross.out)

    def forward(self, x: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        points = x.flatten(2).transpose(1, 2)
        points = points + self.own(self.norm(x).flatten(2).transpose(1, 2))
        if self.cross is not None and self.cross_norm is not None and context is not None:
            points = points + self.cross(self.cross_norm(points), context, mask)
        return points.transpose(1, 2).reshape(x.shape)


@final
class UNet(nn.Module):
    r"""Residual blocks at several resolutions, each half the one above, with a bridge at each.

    Blocks (He et al. 2016; group norm, Wu & He 2018; scale and shift by the embedding, Dhariwal & Nichol 2021) keep
    the width of their level. Descending, a convolution with stride 2 leads down; ascending, points are repeated
    (nearest neighbour), and what was kept from the descent is added through a linear map. All blocks are the identity
    and the output is zero at initialisation.

    Any size will do: a level has ``ceil(n / 2)`` points where the one above has n, at its points 0, 2, 4, ....

    Symmetry. On an axis that the padding makes circular the network commutes with rolls by multiples of
    ``2 ** (levels - 1)`` points, if the size of the axis is such a multiple. (Every convolution and every attention
    commutes with all rolls that its grid has; other rolls move the points of the coarser grids, and no blurring would
    make that exact.) On a circle of another size the coarser grids still close into circles, but have one narrower
    cell where the last column meets the first: a roll is then a symmetry only up to that seam.

    Args:
        in_channels, out_channels: channels.
        dims: 1, 2 or 3 spatial axes.
        widths: channels of each level, from the finest to the coarsest.
        blocks: blocks on the way down, and as many on the way up: one number, or one for each level.
        attention: for each level whether its blocks end in attention. It knows no positions but what channels tell.
        head_width: channels of an attention head.
        embedding: size E of the vector that modulates all blocks; 0 for none.
        context: width D of the tokens that all attention also looks at; 0 for none.
        padding: what lies beyond the edges.
        dropout: rate, within blocks.
        signs: for every input channel +1, or -1 if it is a vector's component, which turns around beyond a pole;
            only the first convolution needs to know.
        checkpointing: forget what is inside the blocks and compute it anew when gradients are taken: about a third
            more time, and a fraction of the memory.
    """

    signs: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        dims: int = 2,
        widths: Sequence[int] = (64, 128, 128),
        blocks: int | Sequence[int] = 2,
        attention: Sequence[bool] = (False, False, True),
        head_width: int = 32,
        embedding: int = 0,
        context: int = 0,
        padding: Padding = Zeros(),  # noqa: B008  a frozen value
        dropout: float = 0.0,
        signs: Tensor | None = None,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        counts = [blocks] * len(widths) if isinstance(blocks, int) else list(blocks)
        _check(in_channels, dims, widths, counts, attention, head_width, context, signs)
        padding.zeros(dims)  # does it fit?
        self.in_channels, self.dims, self.padding = in_channels, dims, padding
        self.embedding, self.context, self.checkpointing = embedding, context, checkpointing
        self.register_buffer("signs", signs, persistent=False)
        self.embed = nn.Linear(embedding, embedding) if embedding else None

        def stage(level: int) -> nn.ModuleList:
            heads = widths[level] // head_width if attention[level] else 0
            made = (
                _Block(widths[level], dims, embedding, dropout, heads, context)
                for _ in range(counts[level])
            )
            return nn.ModuleList(made)

        levels = range(len(widths))
        self.first = Conv(in_channels, widths[0], dims)
        self.down = nn.ModuleList(Conv(a, b, dims, stride=2) for a, b in pairwise(widths))
        self.up = nn.ModuleList(Conv(b, a, dims, kernel=1) for a, b in pairwise(widths))
        self.bridge = nn.ModuleList(Conv(a, a, dims, kernel=1) for a in widths[:-1])
        self.descent = nn.ModuleList(stage(level) for level in levels)
        self.ascent = nn.ModuleList(stage(level) for level in levels)
        self.norm = nn.GroupNorm(norm_groups(widths[0]), widths[0])
        self.last = zeroed(Conv(widths[0], out_channels, dims))

    def forward(
        self,
        x: Tensor,
        embedding: Tensor | None = None,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
    ) -> Tensor:
        """Evaluate the network.

        Args:
            x: (B, in_channels, *spatial).
            embedding: (B, E), exactly if the network has one.
            context: tokens (B, L, D), exactly if the network has them.
            context_mask: True for the tokens that count, (B, L).

        Returns:
            (B, out_channels, *spatial). Raises ``ValueError`` if an argument is missing or has another shape.
        """
        check_call(self, x, embedding, context)
        e = None if self.embed is None else F.silu(self.embed(embedding))
        paddings = [self.padding]
        kept: list[Tensor] = []
        x = self.first(x, self.padding, self.signs)
        for level in range(len(self.descent)):
            for block in self.descent[level].children():
                x = self._run(block, x, paddings[-1], e, context, context_mask)
            if level < len(self.down):
                kept.append(x)
                paddings.append(paddings[-1].halved(x.shape[2:]))
                x = self.down[level](x, paddings[-2])
        for level in reversed(range(len(self.ascent))):
            for block in self.ascent[level].children():
                x = self._run(block, x, paddings[level], e, context, context_mask)
            if level:
                x = self.up[level - 1](x, paddings[level])
                skip = kept.pop()
                x = self.bridge[level - 1](skip, paddings[level - 1]) + _doubled(x, skip.shape[2:])
        return self.last(lean(active_norm, x, self.norm.weight, self.norm.bias), self.padding)

    def _run(
        self,
        block: nn.Module,
        x: Tensor,
        padding: Padding,
        embedding: Tensor | None,
        context: Tensor | None,
        mask: Tensor | None,
    ) -> Tensor:
        if self.checkpointing:
            return checkpoint(block, x, padding, embedding, context, mask, use_reentrant=False)
        return block(x, padding, embedding, context, mask)


def _doubled(x: Tensor, size: Sequence[int]) -> Tensor:
    """Every point twice along every axis, up to a size."""
    x = F.interpolate(x, scale_factor=2.0, mode="nearest")
    for axis, n in enumerate(size, start=2):
        x = x.narrow(axis, 0, n)
    return x


def _check(
    in_channels: int,
    dims: int,
    widths: Sequence[int],
    blocks: Sequence[int],
    attention: Sequence[bool],
    head_width: int,
    context: int,
    signs: Tensor | None,
) -> None:
    if dims not in (1, 2, 3):
        raise ValueError(f"dims must be 1, 2 or 3, not {dims}")
    if not len(widths) == len(blocks) == len(attention) > 0:
        raise ValueError(
            f"widths, blocks and attention must be of one length, not {len(widths)}, {len(blocks)}, {len(attention)}"
        )
    uneven = [w for w, attends in zip(widths, attention, strict=True) if attends and w % head_width]
    if uneven:
        raise ValueError(
            f"widths {uneven} of levels with attention are no multiples of head_width {head_width}"
        )
    if context and not any(attention):
        raise ValueError("context needs attention at one level at least")
    if signs is not None and signs.shape != (in_channels,):
        raise ValueError(f"signs must be ({in_channels},), got {tuple(signs.shape)}")
