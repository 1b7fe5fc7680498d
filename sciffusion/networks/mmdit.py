"""The multimodal diffusion transformer: a context and a grid as two streams of tokens, which then become one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from .blocks import Block, DoubleBlock
from .grids import Patched

__all__ = ["MMDiT"]


@final
class MMDiT(Patched):
    """A transformer on the tokens of a context (a text) and on patches (MM-DiT, Esser et al. 2024).

    In the first blocks either stream has weights of its own and attends to both; in the others all tokens are one
    sequence under one set of weights, as in FLUX and HiDream. Both kinds are the identity at initialisation, the output
    is zero. Queries and keys are normalised and the grid's places are rotary on 1 to 3 axes; all tokens of the context
    stand at the place of the first patch, for their order is what an encoder of texts has told them. What a prompt says
    as a whole, and the scale of an embedded guidance (:class:`~.embedding.GuidanceScale`), belong into the embedding.

    Args:
        in_channels, out_channels: channels of the grid.
        context: width D of the context's tokens.
        double, single: number of blocks with two streams, and with one, of which there is one at least.

    The others are as in :class:`~.dit.DiT`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        context: int,
        dims: int = 2,
        patch: int | Sequence[int] = 2,
        width: int = 128,
        double: int = 2,
        single: int = 4,
        heads: int = 4,
        expansion: float = 4.0,
        embedding: int = 0,
        circular: Sequence[bool] | None = None,
        learned: Sequence[int] | None = None,
        experts: int = 0,
        checkpointing: bool = False,
    ) -> None:
        if context < 1 or single < 1 or double < 0:
            raise ValueError(
                f"context and single must be at least 1 and double at least 0, got {context}, {single}, {double}"
            )
        super().__init__(
            in_channels,
            out_channels,
            dims=dims,
            patch=patch,
            width=width,
            heads=heads,
            embedding=embedding,
            context=context,
            circular=circular,
            learned=learned,
            checkpointing=checkpointing,
        )
        hidden = int(expansion * width)
        self.read_context = nn.Linear(context, width)
        self.paired = nn.ModuleList(
            DoubleBlock(width, heads, hidden, embedding, experts=experts) for _ in range(double)
        )
        self.blocks = nn.ModuleList(
            Block(width, heads, hidden, embedding, experts=experts) for _ in range(single)
        )

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
            context: tokens (B, S, D).
            context_mask: True for the tokens that count, (B, S).
            mask: True for the points that count, (B, *spatial). The others are taken for zeros, patches without any
                are seen by none, and the result is zero there.

        Returns:
            (B, out_channels, *spatial). Raises ``ValueError`` if an argument is missing or has another shape.
        """
        (h, rotation, key_mask, grid, size), e = self.read(x, embedding, context, mask)
        if e is not None and e.ndim == 3:
            raise ValueError("an embedding for each frame tells nothing of the context: give one")
        assert context is not None  # or it would have been refused
        c, count = self.read_context(context), context.shape[1]
        if key_mask is not None or context_mask is not None:
            pair = ((context_mask, c), (key_mask, h))
            key_mask = torch.cat(
                [t.new_ones(t.shape[:2], dtype=torch.bool) if m is None else m for m, t in pair], 1
            )
        for block in self.paired:
            h, c = self.run(block, h, c, e, rotation, key_mask)
        if rotation is not None:
            rotation = torch.cat((torch.ones_like(rotation[:1]).expand(count, -1), rotation))
        h = torch.cat((c, h), 1)
        for block in self.blocks:
            h = self.run(block, h, e, rotation, key_mask, None, None)
        return self.write(h[:, count:], e, grid, size, mask)
