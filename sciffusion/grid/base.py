"""What a grid is."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from sciffusion.schedule import Schedule

__all__ = ["Grid"]


class Grid(ABC):
    """A rule for the sampler's times."""

    def __call__(
        self, schedule: Schedule, steps: int, start: float = 1.0, stop: float = 0.0
    ) -> Tensor:
        """``steps + 1`` strictly falling times, float64, from ``start`` to ``stop``.

        Of shape (steps + 1,), or (B, steps + 1) where every sample has times of its own (:class:`Times`).
        Raises ``ValueError`` for ``steps < 1``, unless 0 <= stop < start <= 1, or when two times coincide.
        """
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        if not 0 <= stop < start <= 1:
            raise ValueError(f"need 0 <= stop < start <= 1, got start={start} and stop={stop}")
        with torch.no_grad():  # times of a learned schedule are numbers too
            times = self._times(schedule, steps, start, stop)
        times[..., 0], times[..., -1] = start, stop
        if not bool((times.diff() < 0).all()):
            raise ValueError(
                f"{self} does not fall strictly in {steps} steps from {start} to {stop}: {times.tolist()}; "
                "use fewer steps, or a window of log-SNR that floats near the schedule's ends can resolve"
            )
        return times

    @abstractmethod
    def _times(self, schedule: Schedule, steps: int, start: float, stop: float) -> Tensor:
        """The times; the two ends are put right by the caller."""
