"""Group norm with the activation that follows it, and with a scale and a shift for each sample."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["active_norm", "norm_groups"]


def norm_groups(width: int) -> int:
    """The largest number of groups up to 32 that divides the width and leaves at least four channels to each."""
    groups = min(32, max(width // 4, 1))
    while width % groups:
        groups -= 1
    return groups


def active_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``silu(scale norm(x) + shift)`` with a scale and a shift for each channel, (C,), or also each sample, (B, C)."""
    return F.silu(_norm(x, scale.to(x.dtype), shift.to(x.dtype)))


def _norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    groups = norm_groups(x.shape[1])
    if scale.ndim == 1:
        return F.group_norm(x, groups, scale, shift)
    if x.is_contiguous():
        # One kernel and no intermediate tensor: the channels of all samples as those of a single one.
        batch = x.shape[0]
        flat = x.reshape(1, -1, *x.shape[2:])
        weight, bias = scale.reshape(-1), shift.reshape(-1)
        return F.group_norm(flat, batch * groups, weight, bias).view(x.shape)
    ones = (1,) * (x.ndim - 2)
    scale, shift = scale.view(*scale.shape, *ones), shift.view(*shift.shape, *ones)
    return torch.addcmul(shift, F.group_norm(x, groups), scale)
