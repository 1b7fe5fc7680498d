"""Times by log-SNR, where no formula gives them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["invert"]


def invert(
    fall: Callable[[Tensor], Tensor], slope: Callable[[Tensor], Tensor], at: Tensor
) -> Tensor:
    """The times in [0, 1] at which a falling function has the values ``at``; the nearer end beyond its range.

    Bisection down to neighbouring floats gives the value; one step of Newton's method from there gives its
    derivatives, in ``at`` and in whatever ``fall`` depends on.
    """
    with torch.no_grad():
        goal = at.detach()
        low, high = torch.zeros_like(goal), torch.ones_like(goal)
        for _ in range(64):
            middle = 0.5 * (low + high)
            above = fall(middle) > goal
            low, high = torch.where(above, middle, low), torch.where(above, high, middle)
        t = torch.where(low > 0, high, 0.0)
        rate = slope(t)
        inside = (t > 0) & (t < 1) & rate.isfinite() & (rate < 0)
        point, rate = torch.where(inside, t, 0.5), torch.where(inside, rate, -1.0)
    step = torch.where(inside, (at - fall(point)) / rate, 0.0)
    return t + (step - step.detach())
