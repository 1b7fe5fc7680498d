r"""Ordinary differential equations with a step size of its own for every sample.

:math:`dy/du = f(u, y)` by the embedded Runge-Kutta pair 5(4) of Dormand & Prince (1980). The error of a step is the
root mean square, over a sample's own valid entries, of the difference between both orders divided by
:math:`\mathrm{atol} + \mathrm{rtol}\,|y|`. A sample accepts or repeats its step and chooses the next one by its own
error (Hairer, Nørsett & Wanner, Solving Ordinary Differential Equations I, II.4), so batch mates change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sciffusion.layout import Layout

__all__ = ["integrate"]

_NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_STAGES = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
# fifth-order weights (the last stage's row, so the next step begins with its derivative) less the fourth-order ones
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)

Fields = Sequence[Tensor]
Derivative = Callable[[Tensor, Fields], Fields]


def integrate(
    f: Derivative,
    y: Fields,
    layouts: Sequence[Layout],
    start: Tensor,
    end: Tensor,
    *,
    rtol: float,
    atol: float,
    most: int = 10_000,
) -> tuple[list[Tensor], int]:
    """Carry the fields ``y`` from ``start`` to ``end``, both (B,) float64, and count the calls of ``f``.

    Args:
        f: the derivative, ``f(u, fields) -> fields``; u is (B,) float64. A sample that has arrived is still asked for
            its derivative, at its end.
        y: the fields, in their ``layouts``.
        layouts: one for each field.
        start: where every sample begins.
        end: where it ends, before or after ``start``.
        rtol: relative tolerance of a step.
        atol: absolute tolerance of a step.
        most: steps after which to give up.

    Raises ``ValueError`` for tolerances that are not positive, and ``RuntimeError`` after ``most`` steps, or where a
    step has shrunk to nothing (a derivative that is not finite, or explodes).
    """
    if not (rtol > 0 and atol > 0):
        raise ValueError(f"rtol and atol must be positive, got {rtol} and {atol}")
    span = end - start
    u, h, y = start.clone(), span / 50, list(y)
    slope, calls = list(f(u, y)), 1
    for _ in range(most):
        left = end - u
        if not bool((left != 0).any()):
            return y, calls
        last = h.abs() >= left.abs() * (1 - 1e-12)
        h = torch.where(last, left, h)
        if bool((~last & (h.abs() <= 1e-14 * span.abs())).any()):
            break
        slopes = [slope]
        new = y
        for c, row in zip(_NODES[1:], _STAGES[1:], strict=True):
            new = [
                x + _weighted(row, [s[i] for s in slopes], h, x, layouts[i])
                for i, x in enumerate(y)
            ]
            slopes.append(list(f(u + c * h, new)))
        calls += len(_NODES) - 1
        square, count = torch.zeros_like(h), torch.zeros_like(h)
        for i, (x, z) in enumerate(zip(y, new, strict=True)):
            layout = layouts[i]
            error = _weighted(_ERROR, [s[i] for s in slopes], h, x, layout)
            size = atol + rtol * torch.maximum(x.abs(), z.abs())
            square = square + layout.reduce((error / size).square()).to(h)
            count = count + layout.count(x).to(h)
        ratio = (square / count.clamp(min=1)).sqrt().nan_to_num(nan=10.0, posinf=10.0)
        good = ratio <= 1
        y = [_choose(good, a, b, lay) for a, b, lay in zip(new, y, layouts, strict=True)]
        slope = [
            _choose(good, a, b, lay) for a, b, lay in zip(slopes[-1], slope, layouts, strict=True)
        ]
        u = torch.where(good, torch.where(last, end, u + h), u)
        h = h * (0.9 * ratio.clamp(min=1e-10) ** -0.2).clamp(0.2, 5.0)
    late = (u != end).nonzero().flatten().tolist()
    raise RuntimeError(
        f"{len(late)} of {len(u)} samples did not arrive within {most} steps, or their steps shrank to nothing; "
        f"the first is number {late[0]}; loosen rtol and atol, or find out where its prediction is not finite or smooth"
    )


def _weighted(
    weights: Sequence[float], slopes: Sequence[Tensor], h: Tensor, like: Tensor, layout: Layout
) -> Tensor:
    total = torch.zeros_like(like)
    for w, s in zip(weights, slopes, strict=True):
        if w:
            total = torch.add(total, s, alpha=w)
    return layout.expand(h.to(like), like) * total


def _choose(good: Tensor, a: Tensor, b: Tensor, layout: Layout) -> Tensor:
    # an inner select, not a mixture: a step that overflowed leaves nothing behind
    return torch.where(layout.expand(good.to(a.device), a), a, b)
