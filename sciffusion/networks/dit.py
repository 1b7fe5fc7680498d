"""The diffusion transformer: attention among the patches of a grid, modulated by an embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, final

import torch
from torch import Tensor, nn

from .blocks import Block
from .checks import check_tokens
from .grids import Patched, Tokens

__all__ = ["DiT"]


@final
class DiT(Patched):
    r"""A transformer on patches with adaptive norms whose gates start at zero (adaLN-Zero, Peebles & Xie 2023).

    Positions are rotary, relative on every axis, queries and keys are normalised: see :mod:`.rotary`. On an axis whose
    places differ in kind, the frequencies of a spectrogram, they can be learned instead. All blocks are the identity
    and the output is zero at initialisation. The embedding decides the shift, the scale and the gate of every step.

    Any size will do: a grid is completed to whole patches, and the result is cropped. On a circular axis the network
    commutes with rolls by multiples of the patch, if the size of the axis is such a multiple; else the last patch
    repeats the first points, and a roll is a symmetry only up to that seam (distances around the circle stay right).

    Films. With ``dims=3`` the first axis may be time, and the attention factorised: within the frames, then along time,
    see :mod:`.temporal`. Such a network has all the parameters of one of single images, ``dims=2``, under the same
    names (for patches of one frame and places in time that are not learned); if it takes them over
    (``load_state_dict(..., strict=False)``) it makes of every frame what that one makes of it, until the layers along
    time are trained. Frames may have noise levels of their own: an embedding for each.

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
        attention: among all patches, or factorised over the first axis.
        experts: number of networks of which two share each token in place of a block's one two-layer network, see
            :mod:`.experts`; 0 for none.
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
        attention: Literal["full", "factorised"] = "full",
        experts: int = 0,
        checkpointing: bool = False,
    ) -> None:
        temporal = attention == "factorised"
        if attention not in ("full", "factorised"):
            raise ValueError(f"attention must be 'full' or 'factorised', not {attention!r}")
        if temporal and (dims < 2 or prefix or (circular is not None and circular[0])):
            raise ValueError(
                f"factorised attention needs a first axis of time, which is no circle, others beside it, and no "
                f"prefix; got dims={dims}, circular={circular}, prefix={prefix}"
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
            still=int(temporal),
        )
        self.prefix = prefix
        self.blocks = nn.ModuleList(
            Block(
                width,
                heads,
                int(expansion * width),
                embedding,
                context,
                temporal=temporal,
                experts=experts,
            )
            for _ in range(depth)
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
        control: Sequence[Tensor] = (),
    ) -> Tensor:
        """Evaluate the network.

        Args:
            x: (B, in_channels, *spatial).
            embedding: (B, E), exactly if the network has one; or one for each patch along the first axis, (B, T, E).
            context: tokens (B, L, D), exactly if the network has them.
            context_mask: True for the tokens that count, (B, L).
            mask: True for the points that count, (B, *spatial). The others are taken for zeros, patches without any
                are seen by none, and the result is zero there.
            prefix: tokens (B, K, P), exactly if the network has them.
            control: what is added to the tokens after the first blocks, see :class:`~.control.DiTControl`.

        Returns:
            (B, out_channels, *spatial). Raises ``ValueError`` if an argument is missing or has another shape.
        """
        (h, rotation, key_mask, grid, size), e, k = self._begin(x, embedding, context, mask, prefix)
        for i, block in enumerate(self.blocks):
            h = self.run(block, h, e, rotation, key_mask, context, context_mask, grid[0])
            if i < len(control):
                h = _added(h, control[i], k)
        return self.write(h[:, k:], e, grid, size, mask)

    def walk(
        self,
        x: Tensor,
        embedding: Tensor | None,
        context: Tensor | None,
        context_mask: Tensor | None,
        mask: Tensor | None,
        prefix: Tensor | None,
        more: Tensor,
    ) -> list[Tensor]:
        """The grid's tokens (B, L, width) after every block, if ``more`` is added to those that enter the first."""
        (h, rotation, key_mask, grid, _), e, k = self._begin(x, embedding, context, mask, prefix)
        h, found = _added(h, more, k), []
        for block in self.blocks:
            h = self.run(block, h, e, rotation, key_mask, context, context_mask, grid[0])
            found.append(h[:, k:])
        return found

    def _begin(
        self,
        x: Tensor,
        embedding: Tensor | None,
        context: Tensor | None,
        mask: Tensor | None,
        prefix: Tensor | None,
    ) -> tuple[Tokens, Tensor | None, int]:
        """All tokens, what modulates the blocks, and how many tokens come before those of the grid."""
        tokens, e = self.read(x, embedding, context, mask)
        check_tokens("prefix", prefix, self.prefix, len(x))
        if self.before is None or prefix is None:
            return tokens, e, 0
        if e is not None and e.ndim == 3:
            raise ValueError("an embedding for each frame tells nothing of a prefix: give one")
        return _after(self.before(prefix), tokens), e, prefix.shape[1]


def _added(h: Tensor, more: Tensor, k: int) -> Tensor:
    """The tokens with something added to all but the first k."""
    return torch.cat((h[:, :k], h[:, k:] + more), 1) if k else h + more


def _after(prefix: Tensor, tokens: Tokens) -> Tokens:
    """The tokens with those of the prefix before them, which stand at the place of the first."""
    h, rotation, key_mask, grid, size = tokens
    k = prefix.shape[1]
    if rotation is not None:
        rotation = torch.cat((torch.ones_like(rotation[:1]).expand(k, -1), rotation))
    if key_mask is not None:
        key_mask = torch.cat((key_mask.new_ones(len(h), k), key_mask), 1)
    return Tokens(torch.cat((prefix, h), 1), rotation, key_mask, grid, size)
