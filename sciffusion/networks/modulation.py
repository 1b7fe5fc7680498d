"""Norms that a vector adapts: shift, scale and gate for every channel (adaLN-Zero, Peebles & Xie 2023)."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import zeroed
from .lean import transformed

__all__ = ["Modulation", "gated", "modulated"]


@final
class Modulation(nn.Module):
    """Vectors for every token that depend on the embedding, or on nothing; all zero at initialisation.

    Args:
        embedding: size E of the embedding; 0 for none.
        width: size of a vector.
        parts: how many.
    """

    def __init__(self, embedding: int, width: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.linear = zeroed(nn.Linear(embedding, parts * width)) if embedding else None
        self.constant = None if embedding else nn.Parameter(torch.zeros(1, parts * width))

    def forward(self, embedding: Tensor | None, tokens: int = 1) -> tuple[Tensor, ...]:
        """(B, E) to ``parts`` vectors (B, 1, width), or frame by frame, (B, T, E) to (B, tokens, width).

        Frames share the tokens evenly, one after another.
        """
        values = self.constant if self.linear is None else self.linear(embedding)
        assert values is not None
        if values.ndim == 2:
            values = values.unsqueeze(1)
        else:
            values = values.repeat_interleave(tokens // values.shape[1], 1)
        return values.chunk(self.parts, -1)


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """The tokens (B, L, width) normalised over their channels, scaled by ``1 + scale`` and shifted."""
    return _fused(shift, F.layer_norm(x, x.shape[-1:], eps=1e-6), 1 + scale)


def gated(x: Tensor, gate: Tensor, h: Tensor) -> Tensor:
    """``x + gate h`` of tokens (B, L, width)."""
    return _fused(x, h, gate)


def _fused(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """``x + a b``."""
    if not torch.is_grad_enabled() or transformed():
        return torch.addcmul(x, a, b)
    # the gradient of addcmul copies both factors first, to multiply them by its third one, which is 1
    y = a * b
    return y.add_(x) if y.dtype == torch.promote_types(y.dtype, x.dtype) else y + x
