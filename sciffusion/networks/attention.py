"""Attention: one function on PyTorch's kernels, and the layers that use it."""

from __future__ import annotations

from typing import TypeVar, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .rotary import rotate

__all__ = ["CrossAttention", "SelfAttention", "attention"]

Module = TypeVar("Module", bound=nn.Module)


def attention(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None = None) -> Tensor:
    r"""``softmax(q k^T / sqrt(d)) v`` over the keys that count.

    Args:
        q: queries, (B, heads, L, d).
        k, v: keys and values, (B, heads, S, d).
        key_mask: True for the keys that count, (B, S). A sample without any gets zeros.

    On a CPU it is computed in single precision under autocast, too: bfloat16 is slower there.

    PyTorch's fast kernels know neither forward-mode nor second derivatives; where these are wanted, choose the plain
    one: ``with torch.nn.attention.sdpa_kernel(SDPBackend.MATH)``.
    """
    if torch.is_autocast_enabled("cpu") and q.device.type == "cpu" and v.dtype != torch.float64:
        # PyTorch's kernel for CPUs is slower in bfloat16, its backward pass by far
        with torch.autocast("cpu", enabled=False):
            return attention(q.float(), k.float(), v.float(), key_mask)
    if key_mask is None:
        return F.scaled_dot_product_attention(q, k, v)
    some = key_mask.any(-1, keepdim=True)
    seen = (key_mask | ~some)[:, None, None]  # a row without keys would be 0 / 0
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen) * some[:, :, None, None]


@final
class SelfAttention(nn.Module):
    """Multi-head attention among tokens (B, L, width).

    Args:
        width, heads: channels, and the number of heads that share them.
        norm: normalise queries and keys, so that their products stay bounded (Dehghani et al. 2023; here with one
            scale for both, since only its square acts).
    """

    def __init__(self, width: int, heads: int, *, norm: bool = False) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is no multiple of the {heads} heads")
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm = nn.LayerNorm(width // heads, bias=False) if norm else None

    def forward(
        self,
        x: Tensor,
        rotation: Tensor | None = None,
        key_mask: Tensor | None = None,
    ) -> Tensor:
        """``rotation``: the tokens' places, (L, d / 2), see :mod:`.rotary`; ``key_mask`` as in :func:`attention`."""
        h = attention(*self.project(x, rotation), key_mask)
        return self.out(h.transpose(1, 2).flatten(2))

    def project(self, x: Tensor, rotation: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of the tokens, each (B, heads, L, d)."""
        qk, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).split((2, 1), 2)
        if self.norm is not None:
            qk = self.norm(qk)
        if rotation is not None:
            qk = rotate(qk, rotation[:, None, None])
        q, k = qk.unbind(2)
        return q.transpose(1, 2), k.transpose(1, 2), v.squeeze(2).transpose(1, 2)


@final
class CrossAttention(nn.Module):
    """Multi-head attention of tokens (B, L, width) to a context (B, S, context)."""

    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is no multiple of the {heads} heads")
        self.heads = heads
        self.q, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.kv = nn.Linear(context, 2 * width)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """``mask``: True for the tokens of the context that count, (B, S)."""
        q = self.q(x).unflatten(-1, (self.heads, -1))
        k, v = self.kv(context).unflatten(-1, (2, self.heads, -1)).unbind(2)
        h = attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), mask)
        return self.out(h.transpose(1, 2).flatten(2))


def zeroed(module: Module) -> Module:
    """The module with all its parameters set to zero."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module
