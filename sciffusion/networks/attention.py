"""Attention: one function on PyTorch's kernels, and the layers that use it."""

from __future__ import annotations

from typing import TypeVar, final

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["CrossAttention", "SelfAttention", "attention"]

Module = TypeVar("Module", bound=nn.Module)


def attention(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None = None) -> Tensor:
    r"""``softmax(q k^T / sqrt(d)) v`` over the keys that count.

    Args:
        q: queries, (B, heads, L, d).
        k, v: keys and values, (B, heads, S, d).
        key_mask: True for the keys that count, (B, S). A sample without any gets zeros.
    """
    if key_mask is None:
        return F.scaled_dot_product_attention(q, k, v)
    some = key_mask.any(-1, keepdim=True)
    seen = (key_mask | ~some)[:, None, None]  # a row without keys would be 0 / 0
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen) * some[:, :, None, None]


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, L, heads * d) as (B, heads, L, d)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, heads, L, d) as (B, L, heads * d)."""
    return x.transpose(1, 2).flatten(2)


@final
class SelfAttention(nn.Module):
    """Multi-head attention among tokens (B, L, width); the output is zero at initialisation."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = zeroed(nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (split_heads(y, self.heads) for y in self.qkv(x).chunk(3, -1))
        return self.out(merge_heads(attention(q, k, v)))


@final
class CrossAttention(nn.Module):
    """Multi-head attention of tokens (B, L, width) to a context (B, S, context); zero at initialisation."""

    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(context, 2 * width)
        self.out = zeroed(nn.Linear(width, width))

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        q = split_heads(self.q(x), self.heads)
        k, v = (split_heads(y, self.heads) for y in self.kv(context).chunk(2, -1))
        return self.out(merge_heads(attention(q, k, v, mask)))


def zeroed(module: Module) -> Module:
    """The module with all its parameters set to zero."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module
