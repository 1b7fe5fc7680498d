"""The blocks of transformers: attention and a two-layer network, modulated, in one stream of tokens or in two."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from .attention import CrossAttention, SelfAttention, attention, zeroed
from .experts import Experts
from .lean import two_layers
from .modulation import Modulation, gated, modulated
from .temporal import TemporalAttention

__all__ = ["Block", "DoubleBlock"]


@final
class Block(nn.Module):
    """Attention among the tokens, along time, to the context, and a two-layer network; the identity at initialisation.

    Each step is gated, with gates that start at 0.

    Args:
        width, heads: channels of a token, heads of the attention.
        hidden: width of the two-layer network.
        embedding: size E of the vector that modulates; 0 for none.
        context: width D of the tokens that are also attended to; 0 for none.
        temporal: attend within the frames first, then along time; else among all tokens.
        experts: how many networks share the tokens instead of the two-layer one, see :class:`~.experts.Experts`;
            0 for none.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        embedding: int,
        context: int = 0,
        *,
        temporal: bool = False,
        experts: int = 0,
    ) -> None:
        super().__init__()
        self.modulation = Modulation(embedding, width, 6)
        self.own = SelfAttention(width, heads, norm=True)
        self.temporal = TemporalAttention(width, heads, embedding) if temporal else None
        self.cross = CrossAttention(width, heads, context) if context else None
        self.cross_norm = nn.LayerNorm(width) if context else None
        if self.cross is not None:
            zeroed(self.cross.out)
        self.experts = Experts(width, hidden, experts) if experts else None
        self.wide = None if experts else nn.Linear(width, hidden)
        self.narrow = None if experts else nn.Linear(hidden, width)

    def forward(
        self,
        x: Tensor,
        embedding: Tensor | None,
        rotation: Tensor | None,
        key_mask: Tensor | None,
        context: Tensor | None,
        mask: Tensor | None,
        frames: int = 1,
    ) -> Tensor:
        """Tokens (B, L, width) to the same.

        Args:
            embedding: (B, E) or frame by frame (B, frames, E).
            rotation: the places of the tokens (of one frame, if it is temporal), see :mod:`.rotary`.
            key_mask: True for the tokens that count, (B, L).
            context, mask: tokens (B, S, D), and True for those that count, (B, S).
            frames: the number of frames that share the tokens evenly, one after another.
        """
        parts = self.modulation(embedding, x.shape[1])
        if self.temporal is None:
            h = self.own(modulated(x, *parts[:2]), rotation, key_mask)
            x = gated(x, parts[2], h)
        else:
            seen = None if key_mask is None else key_mask.unflatten(1, (frames, -1)).flatten(0, 1)
            h = modulated(x, *parts[:2]).unflatten(1, (frames, -1)).flatten(0, 1)
            h = self.own(h, rotation, seen).unflatten(0, (-1, frames)).flatten(1, 2)
            x = self.temporal(gated(x, parts[2], h), frames, embedding, key_mask)
        del h
        if self.cross is not None and self.cross_norm is not None and context is not None:
            x = x + self.cross(self.cross_norm(x), context, mask)
        return self.feed(x, parts, key_mask)

    def feed(self, x: Tensor, parts: tuple[Tensor, ...], key_mask: Tensor | None) -> Tensor:
        """The last step, by the last three of the six parts of the modulation."""
        shift, scale, gate = parts[3:]
        if self.experts is not None:
            h = self.experts(modulated(x, shift, scale), key_mask)
        else:
            assert self.wide is not None and self.narrow is not None
            h = two_layers(self.wide, self.narrow, modulated(x, shift, scale))
        return gated(x, gate, h)


@final
class DoubleBlock(nn.Module):
    """Two streams of tokens with weights of their own that attend to both (MM-DiT, Esser et al. 2024).

    The identity at initialisation. Arguments as those of :class:`Block`.
    """

    def __init__(
        self, width: int, heads: int, hidden: int, embedding: int, *, experts: int = 0
    ) -> None:
        super().__init__()
        self.grid = Block(width, heads, hidden, embedding, experts=experts)
        self.context = Block(width, heads, hidden, embedding, experts=experts)

    def forward(
        self,
        x: Tensor,
        context: Tensor,
        embedding: Tensor | None,
        rotation: Tensor | None,
        key_mask: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Tokens of the grid (B, L, width) and of the context (B, S, width) to the same.

        ``rotation`` holds the places of the grid's tokens, the context's stand at the first. ``key_mask`` is True for
        the tokens that count, (B, S + L), those of the context first.
        """
        ours, theirs = self.grid.modulation(embedding), self.context.modulation(embedding)
        h = self._attended(
            modulated(x, *ours[:2]), modulated(context, *theirs[:2]), rotation, key_mask
        )
        count = context.shape[1]
        x = gated(x, ours[2], self.grid.own.out(h[:, count:]))
        context = gated(context, theirs[2], self.context.own.out(h[:, :count]))
        del h
        mask, other = (
            (None, None) if key_mask is None else (key_mask[:, count:], key_mask[:, :count])
        )
        return self.grid.feed(x, ours, mask), self.context.feed(context, theirs, other)

    def _attended(
        self, x: Tensor, context: Tensor, rotation: Tensor | None, key_mask: Tensor | None
    ) -> Tensor:
        """What every token sees of all tokens, (B, S + L, width): first those of the context."""
        pairs = zip(
            self.context.own.project(context), self.grid.own.project(x, rotation), strict=True
        )
        q, k, v = (torch.cat(pair, 2) for pair in pairs)
        return attention(q, k, v, key_mask).transpose(1, 2).flatten(2)
