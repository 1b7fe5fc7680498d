"""How a broken law is reported."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["claim", "claim_equal"]


def claim(holds: bool | Tensor, law: str) -> None:
    """Raise ``AssertionError`` with the law unless it holds; ``python -O`` leaves it in place."""
    if not bool(holds):
        raise AssertionError(law)


def claim_equal(got: Tensor, want: Tensor, law: str, *, tol: float = 0.0) -> None:
    """Claim equal shapes, and equal values up to ``tol * (1 + |want|)``; equal infinities count as equal."""
    claim(got.shape == want.shape, f"{law}: shape {tuple(got.shape)} for {tuple(want.shape)}")
    got, want = got.detach().double().cpu(), want.detach().double().cpu()
    error = torch.where(got == want, 0.0, (got - want).abs() / (1 + want.abs()))
    claim((error <= tol).all(), f"{law}: off by {float(error.max()) if error.numel() else 0:.3g}")
