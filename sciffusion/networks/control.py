r"""ControlNet (Zhang et al. 2023): a picture of edges, a sketch or a coarse field steers a network that stays as it is.

A trainable copy of the network's first half sees the field and the hint. What it finds enters the network through
linear maps that are zero at initialisation: there the controlled network is the base, bit for bit, and training starts
from nothing broken. The base is not part of the control; freeze it and train the control alone::

    base.requires_grad_(False)
    control = UNetControl(base, channels=1)
    y = base(x, embedding, control=control(x, hint, embedding))

What several controls return may be weighted and added, level by level.
"""

from __future__ import annotations

from copy import deepcopy
from typing import final

import torch
from torch import Tensor, nn

from .attention import zeroed
from .convolution import Conv
from .dit import DiT
from .unet import UNet

__all__ = ["DiTControl", "UNetControl"]


@final
class UNetControl(nn.Module):
    """A control of a U-Net: a copy of its way down, in the state that the base has now.

    Args:
        base: the network to control; left as it is.
        channels: those of the hint.
    """

    def __init__(self, base: UNet, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.copy = deepcopy(base).requires_grad_(True)
        for part in ("up", "bridge", "ascent", "norm", "last"):
            delattr(self.copy, part)
        widths = [stage[0].norm1.weight.shape[0] for stage in base.descent]  # type: ignore[index]
        self.hint = nn.ModuleList(
            [
                Conv(channels, widths[0], base.dims),
                zeroed(Conv(widths[0], widths[0], base.dims)),
            ]
        )
        self.out = nn.ModuleList(zeroed(Conv(w, w, base.dims, kernel=1)) for w in widths)

    def forward(
        self,
        x: Tensor,
        hint: Tensor,
        embedding: Tensor | None = None,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
    ) -> list[Tensor]:
        """What is to be added at every level of the base, from the finest to the coarsest.

        Args:
            x, embedding, context, context_mask: as the base is given.
            hint: (B, channels, *spatial) on the grid of x, for a film (B, channels, T, *spatial).

        Raises ``ValueError`` if an argument is missing or has another shape.
        """
        given = self.copy.prepare(x, embedding, context, context_mask)
        _check(hint, self.channels, x)
        if self.copy.film:
            hint = hint.transpose(1, 2).flatten(0, 1)
        first, last = self.hint
        more = last(nn.functional.silu(first(hint, self.copy.padding)), self.copy.padding)
        found, paddings = self.copy.descend(given, more)
        levels = zip(self.out, found, paddings, strict=True)
        return [out(h, padding) for out, h, padding in levels]


@final
class DiTControl(nn.Module):
    """A control of a transformer on patches: a copy of its first blocks, in the state that the base has now.

    Args:
        base: the network to control; left as it is.
        channels: those of the hint.
        depth: number of blocks copied; half of them by default.
    """

    def __init__(self, base: DiT, channels: int, depth: int | None = None) -> None:
        super().__init__()
        self.channels, depth = channels, max(len(base.blocks) // 2, 1) if depth is None else depth
        if not 0 < depth <= len(base.blocks):
            raise ValueError(
                f"depth must be between 1 and the base's {len(base.blocks)} blocks, not {depth}"
            )
        self.copy = deepcopy(base).requires_grad_(True)
        del self.copy.blocks[depth:]
        for part in ("modulation", "last"):
            delattr(self.copy, part)
        width = base.first.out_features
        points = base.first.in_features // base.in_channels
        self.hint = zeroed(nn.Linear(channels * points, width))
        self.out = nn.ModuleList(zeroed(nn.Linear(width, width)) for _ in range(depth))

    def forward(
        self,
        x: Tensor,
        hint: Tensor,
        embedding: Tensor | None = None,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
        mask: Tensor | None = None,
        prefix: Tensor | None = None,
    ) -> list[Tensor]:
        """What is to be added to the tokens after each of the base's first blocks.

        Args:
            x, embedding, context, context_mask, mask, prefix: as the base is given.
            hint: (B, channels, *spatial) on the grid of x.

        Raises ``ValueError`` if an argument is missing or has another shape.
        """
        _check(hint, self.channels, x)
        if mask is not None:
            hint = torch.where(mask.unsqueeze(1), hint, 0.0)
        more = self.hint(self.copy.split(hint))
        found = self.copy.walk(x, embedding, context, context_mask, mask, prefix, more)
        return [out(h) for out, h in zip(self.out, found, strict=True)]


def _check(hint: Tensor, channels: int, x: Tensor) -> None:
    wanted = (x.shape[0], channels, *x.shape[2:])
    if hint.shape != wanted:
        raise ValueError(f"hint must be {wanted}, on the grid of x, got {tuple(hint.shape)}")
