"""The blocks of a U-Net: convolutions, and attention among the points of a grid and along time."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from .attention import CrossAttention, SelfAttention, zeroed
from .convolution import Conv
from .lean import lean
from .norm import active_norm, norm_groups
from .padding import Padding
from .temporal import TemporalAttention

__all__ = ["Residual"]


@final
class Residual(nn.Module):
    """``x + conv(silu(film(norm(conv(silu(norm(x)))))))``, then attention; the identity at initialisation.

    Args:
        width, dims: channels and axes.
        embedding: size E of the vector that scales and shifts; 0 for none.
        dropout: rate.
        heads: of the attention among all points; 0 for none.
        context: width D of the tokens that it also looks at; 0 for none.
        time_heads: heads of the attention along time; 0 for none.
    """

    def __init__(
        self,
        width: int,
        dims: int,
        embedding: int,
        dropout: float,
        heads: int,
        context: int,
        time_heads: int = 0,
    ) -> None:
        super().__init__()
        groups = norm_groups(width)
        self.norm1, self.norm2 = nn.GroupNorm(groups, width), nn.GroupNorm(groups, width)
        self.conv1, self.conv2 = Conv(width, width, dims), zeroed(Conv(width, width, dims))
        self.film = nn.Linear(embedding, 2 * width) if embedding else None
        self.dropout = nn.Dropout(dropout) if dropout else None
        self.attention = _Attention(width, heads, context) if heads else None
        self.temporal = TemporalAttention(width, time_heads, embedding) if time_heads else None

    def forward(
        self,
        x: Tensor,
        padding: Padding,
        embedding: Tensor | None,
        context: Tensor | None,
        mask: Tensor | None,
        frames: int = 1,
    ) -> Tensor:
        """(B * frames, width, *spatial) to the same, with an embedding and a context for each frame."""
        h = lean(active_norm, x, self.norm1.weight, self.norm1.bias)
        h = lean(active_norm, self.conv1(h, padding), *self._film(embedding))
        if self.dropout is not None:
            h = self.dropout(h)
        x = x + self.conv2(h, padding)
        if self.attention is not None:
            x = self.attention(x, context, mask)
        return x if self.temporal is None else self._along_time(x, embedding, frames)

    def _along_time(self, x: Tensor, embedding: Tensor | None, frames: int) -> Tensor:
        assert self.temporal is not None
        points = x.flatten(2).transpose(1, 2).unflatten(0, (-1, frames)).flatten(1, 2)
        e = None if embedding is None else embedding.unflatten(0, (-1, frames))
        points = self.temporal(points, frames, e)
        return points.unflatten(1, (frames, -1)).flatten(0, 1).transpose(1, 2).reshape(x.shape)

    def _film(self, embedding: Tensor | None) -> tuple[Tensor, Tensor]:
        """Scale and shift, for every channel or, with an embedding, also for every sample."""
        weight, bias = self.norm2.weight, self.norm2.bias
        if self.film is None:
            return weight, bias
        scale, shift = self.film(embedding).chunk(2, -1)
        return weight + scale, bias + shift


@final
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
