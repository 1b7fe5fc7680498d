r"""Observations as vectors, sample by sample: sums, dot products and linear systems of tensors and states.

Every sample of a batch is a vector of its own. Nothing here mixes two of them, so a sample's result does not depend on
its batch mates.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sciffusion.state import State, Value, batch_of, layout_of

__all__ = ["check_alike", "conjugate_gradient", "dot", "fieldwise", "times"]


def fieldwise(fn: Callable[..., Tensor], x: Value, *others: Value) -> Value:
    """``fn(field of x, same field of the others, ...)`` for every field."""
    return x.map(fn, *others) if type(x) is State else fn(x, *others)  # type: ignore[arg-type]


def dot(a: Value, b: Value) -> Tensor:
    """The dot product of each sample, over all its fields, (B,)."""
    if type(a) is State and type(b) is State:
        return torch.stack([a.layout(k).reduce(v * b[k]) for k, v in a.items()]).sum(0)
    assert isinstance(a, Tensor) and isinstance(b, Tensor)
    return layout_of(a).reduce(a * b)


def times(c: Tensor, x: Value) -> Value:
    """Every sample of ``x`` times its own number; ``c`` is (B,)."""
    if type(x) is State:
        return x.replace({k: x.layout(k).expand(c.to(v), v) * v for k, v in x.items()})
    assert isinstance(x, Tensor)
    return layout_of(x).expand(c.to(x), x) * x


def conjugate_gradient(apply: Callable[[Value], Value], b: Value, iters: int, tol: float) -> Value:
    r"""Solve :math:`Mv = b` for every sample by conjugate gradients (Hestenes & Stiefel, 1952).

    ``apply`` is a symmetric positive semi-definite M. A sample stops when its residual is ``tol`` times ``b``, or where
    M shows it a direction without curvature; the others go on.
    """
    x, r, p = fieldwise(torch.zeros_like, b), b, b
    start = rr = dot(r, r)
    for _ in range(iters):
        alive = rr > tol**2 * start
        if not bool(alive.any()):
            break
        q = apply(p)
        curvature = dot(p, q)
        alive = alive & (curvature > 0)
        step = torch.where(alive, rr, 0.0) / torch.where(alive, curvature, 1.0)
        x = fieldwise(torch.add, x, times(step, p))
        r = fieldwise(torch.sub, r, times(step, q))
        new = dot(r, r)
        p = fieldwise(
            torch.add, r, times(torch.where(alive, new / torch.where(rr > 0, rr, 1.0), 0.0), p)
        )
        rr = new
    return x


def check_alike(y: Value, want: Value, name: str) -> None:
    """Raise ``ValueError`` unless ``y`` has the fields, shapes and batch of ``want``."""
    have, need = (
        {k: tuple(v.shape) for k, v in x.items()} if type(x) is State else tuple(x.shape)
        for x in (y, want)
    )
    if have != need or batch_of(y) != batch_of(want):
        raise ValueError(
            f"{name} has the shape {have}, the operator gives {need}; observe with operator(x0) plus noise"
        )
