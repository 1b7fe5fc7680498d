"""The U-Net: one class in one, two and three dimensions, on any grid."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, final

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .attention import zeroed
from .checks import check_call
from .convolution import Conv
from .lean import lean
from .norm import active_norm, norm_groups
from .padding import Padding, Zeros
from .residual import Residual

__all__ = ["UNet"]


class Inputs(NamedTuple):
    """What a call gives to the blocks: the field, and what modulates them, for every frame of a film."""

    x: Tensor
    embedding: Tensor | None
    context: Tensor | None
    mask: Tensor | None
    frames: int


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

    Films. With ``temporal`` the network takes (B, C, T, *spatial): it treats every frame as an image, and at the levels
    named its blocks end in attention along time, see :mod:`.temporal`. It has all the parameters of a network of single
    images under the same names; if it takes them over (``load_state_dict(..., strict=False)``) it makes of every frame
    what that one makes of it, until the layers along time are trained. Frames may have noise levels of their own: an
    embedding for each.

    Args:
        in_channels, out_channels: channels.
        dims: 1, 2 or 3 spatial axes.
        widths: channels of each level, from the finest to the coarsest.
        blocks: blocks on the way down, and as many on the way up: one number, or one for each level.
        attention: for each level whether its blocks end in attention. It knows no positions but what channels tell.
        head_width: channels of an attention head.
        temporal: for each level whether its blocks end in attention along time; none by default, for images.
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
        temporal: Sequence[bool] = (),
        embedding: int = 0,
        context: int = 0,
        padding: Padding = Zeros(),  # noqa: B008  a frozen value
        dropout: float = 0.0,
        signs: Tensor | None = None,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        counts = [blocks] * len(widths) if isinstance(blocks, int) else list(blocks)
        temporal = tuple(temporal) or (False,) * len(widths)
        _check(in_channels, dims, widths, counts, attention, temporal, head_width, context, signs)
        padding.zeros(dims)  # does it fit?
        self.in_channels, self.dims, self.padding = in_channels, dims, padding
        self.embedding, self.context, self.checkpointing = embedding, context, checkpointing
        self.film = any(temporal)
        self.register_buffer("signs", signs, persistent=False)
        self.embed = nn.Linear(embedding, embedding) if embedding else None

        def stage(level: int) -> nn.ModuleList:
            heads = widths[level] // head_width if attention[level] else 0
            time_heads = widths[level] // head_width if temporal[level] else 0
            made = (
                Residual(widths[level], dims, embedding, dropout, heads, context, time_heads)
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
        control: Sequence[Tensor] = (),
    ) -> Tensor:
        """Evaluate the network.

        Args:
            x: (B, in_channels, *spatial), or a film (B, in_channels, T, *spatial).
            embedding: (B, E), exactly if the network has one; or one for each frame of a film, (B, T, E).
            context: tokens (B, L, D), exactly if the network has them.
            context_mask: True for the tokens that count, (B, L).
            control: what is added to the result of every level's descent, see :class:`~.control.UNetControl`.

        Returns:
            (B, out_channels, *spatial), or a film of it. Raises ``ValueError`` if an argument is missing or has another
            shape.
        """
        given = self.prepare(x, embedding, context, context_mask)
        found, paddings = self.descend(given)
        if control:
            found = [h + more for h, more in zip(found, control, strict=True)]
        y = self._ascend(found, paddings, given)
        return y if not self.film else y.unflatten(0, (-1, given.frames)).transpose(1, 2)

    def prepare(
        self,
        x: Tensor,
        embedding: Tensor | None,
        context: Tensor | None,
        mask: Tensor | None,
    ) -> Inputs:
        """What the blocks are given: all frames of a film as images, each with its embedding and context."""
        axes, frames = self.dims + self.film, x.shape[2] if self.film and x.ndim > 2 else 1
        check_call(self, x, embedding, context, axes=axes, frames=frames if self.film else None)
        if self.film:
            x = x.transpose(1, 2).flatten(0, 1)
            if embedding is not None and embedding.ndim == 3:
                embedding = embedding.flatten(0, 1)
            elif embedding is not None:
                embedding = embedding.repeat_interleave(frames, 0)
            context, mask = (
                None if v is None else v.repeat_interleave(frames, 0) for v in (context, mask)
            )
        e = None if self.embed is None else F.silu(self.embed(embedding))
        return Inputs(x, e, context, mask, frames)

    def descend(
        self, given: Inputs, more: Tensor | None = None
    ) -> tuple[list[Tensor], list[Padding]]:
        """What the way down found at every level, from the finest to the coarsest, and the levels' edges.

        ``more`` is added to what enters the first block.
        """
        x, paddings, found = self.first(given.x, self.padding, self.signs), [self.padding], []
        x = x if more is None else x + more
        for level, stage in enumerate(self.descent):
            if level:
                paddings.append(paddings[-1].halved(x.shape[2:]))
                x = self.down[level - 1](x, paddings[-2])
            x = self._run(stage, x, paddings[-1], given)
            found.append(x)
        return found, paddings

    def _ascend(self, found: list[Tensor], paddings: list[Padding], given: Inputs) -> Tensor:
        x = found.pop()
        for level in reversed(range(len(self.ascent))):
            x = self._run(self.ascent[level], x, paddings[level], given)
            if level:
                x = self.up[level - 1](x, paddings[level])
                x = _doubled(x, found[-1].shape[2:])
                # popped without a name: it would live on beside all that follows
                x = self.bridge[level - 1](found.pop(), paddings[level - 1]) + x
        return self.last(lean(active_norm, x, self.norm.weight, self.norm.bias), self.padding)

    def _run(self, stage: nn.Module, x: Tensor, padding: Padding, given: Inputs) -> Tensor:
        for block in stage.children():
            inputs = (x, padding, *given[1:])
            x = (
                checkpoint(block, *inputs, use_reentrant=False)
                if self.checkpointing
                else block(*inputs)
            )
        return x


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
    temporal: Sequence[bool],
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
    if len(temporal) != len(widths):
        raise ValueError(f"temporal must name {len(widths)} levels, not {len(temporal)}")
    attends = [a or t for a, t in zip(attention, temporal, strict=True)]
    uneven = [w for w, a in zip(widths, attends, strict=True) if a and w % head_width]
    if uneven:
        raise ValueError(
            f"widths {uneven} of levels with attention are no multiples of head_width {head_width}"
        )
    if context and not any(attention):
        raise ValueError("context needs attention at one level at least")
    if signs is not None and signs.shape != (in_channels,):
        raise ValueError(f"signs must be ({in_channels},), got {tuple(signs.shape)}")
