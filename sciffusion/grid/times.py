"""Times that were chosen beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciffusion.grid.base import Grid
from sciffusion.schedule import Schedule

__all__ = ["Times"]


@final
@dataclass(frozen=True, eq=False)
class Times(Grid):
    """Your own times, first to last; their number must be the sampler's steps plus one.

    ``times`` is (steps + 1,), or (B, steps + 1) with one row for each sample of a batch. Raises ``ValueError`` if a
    time is not finite or not in [0, 1] or does not lie below the one before; when called, unless the number of times
    and both ends are those that the sampler asks for.
    """

    times: Tensor

    def __post_init__(self) -> None:
        times = self.times
        if times.ndim not in (1, 2) or times.shape[-1] < 2 or not times.numel():
            raise ValueError(
                "times must be of shape (steps + 1,) or (B, steps + 1) with at least one step, "
                f"got {tuple(times.shape)}"
            )
        if not bool(times.isfinite().all()):
            raise ValueError(f"times must be finite, got {times.tolist()}")
        if not bool(((times >= 0) & (times <= 1)).all()):
            raise ValueError(
                f"times must lie in [0, 1], 0 being data and 1 the prior, got {times.tolist()}; "
                "divide integer time steps by their number"
            )
        if not bool((times.diff() < 0).all()):
            raise ValueError(
                f"times must fall strictly, from noise to data, got {times.tolist()}; "
                "flip rising times, and drop those that repeat"
            )

    def _times(self, schedule: Schedule, steps: int, start: float, stop: float) -> Tensor:
        times = self.times.detach().to("cpu", torch.float64, copy=True)
        ends = torch.tensor([start, stop], dtype=torch.float64)
        # the ends may have been rounded to the dtype of the times
        digits = torch.finfo(self.times.dtype).eps if self.times.is_floating_point() else 0.0
        off = (times[..., [0, -1]] - ends).abs() > digits
        if times.shape[-1] != steps + 1 or bool(off.any()):
            raise ValueError(
                f"times must be {steps + 1} numbers from {start} to {stop}, got {times.tolist()}"
            )
        return times
