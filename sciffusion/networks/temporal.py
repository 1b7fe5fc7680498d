r"""Attention along time alone.

Attention among all HW points of T frames costs :math:`(THW)^2` products; first within the frames and then along time,
at every place by itself, it costs :math:`T(HW)^2 + HW\,T^2` (Ho et al. 2022, arXiv 2204.03458).
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from .attention import SelfAttention
from .modulation import Modulation, gated, modulated
from .rotary import Rotary

__all__ = ["TemporalAttention"]


@final
class TemporalAttention(nn.Module):
    """``x + gate * attention(norm(x))`` among the frames, at every place by itself; the identity at initialisation.

    A network of single images that gets such layers starts as itself, frame by frame. Times are rotary, so that only
    their differences count and films may have any number of frames.

    Args:
        width, heads: channels, and the number of heads that share them.
        embedding: size E of the vector that decides norm and gate; 0 for none.
    """

    def __init__(self, width: int, heads: int, embedding: int = 0) -> None:
        super().__init__()
        self.modulation = Modulation(embedding, width, 3)
        self.own = SelfAttention(width, heads, norm=True)
        self.rotary = Rotary(width // heads, (False,))

    def forward(
        self,
        x: Tensor,
        frames: int,
        embedding: Tensor | None = None,
        key_mask: Tensor | None = None,
    ) -> Tensor:
        """Tokens (B, frames * places, width), frame after frame, to the same.

        ``embedding`` is (B, E) or (B, frames, E), ``key_mask`` True for the tokens that count, (B, frames * places).
        """
        shift, scale, gate = self.modulation(embedding, x.shape[1])
        time = torch.arange(
            frames, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device
        )
        seen = None if key_mask is None else _by_place(key_mask, frames)
        h = self.own(
            _by_place(modulated(x, shift, scale), frames), self.rotary([time], [1.0]), seen
        )
        return gated(x, gate, h.unflatten(0, (x.shape[0], -1)).transpose(1, 2).flatten(1, 2))


def _by_place(x: Tensor, frames: int) -> Tensor:
    """(B, frames * places, ...) to (B * places, frames, ...)."""
    return x.unflatten(1, (frames, -1)).transpose(1, 2).flatten(0, 1)
