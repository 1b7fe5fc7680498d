r"""The times at which a sampler stops on its way from the prior to the data.

A grid is a pure function ``(schedule, steps, start, stop) -> times``: ``steps + 1`` numbers in float64 that fall
strictly from ``start`` to ``stop``. Any such function will do, and so will a tensor of times (:class:`Times`). Grids in
log-SNR or in :math:`\sigma/\alpha` cut infinite ends off at finite ones and put the first and last time back.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciffusion.schedule import Schedule

__all__ = ["Grid", "Karras", "LogSNR", "Power", "Times", "Uniform"]


class Grid(ABC):
    """A rule for the sampler's times."""

    def __call__(
        self, schedule: Schedule, steps: int, start: float = 1.0, stop: float = 0.0
    ) -> Tensor:
        """``steps + 1`` strictly falling times, float64, from ``start`` to ``stop``.

        Raises ``ValueError`` for ``steps < 1``, unless 0 <= stop < start <= 1, or when two times coincide.
        """
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        if not 0 <= stop < start <= 1:
            raise ValueError(f"need 0 <= stop < start <= 1, got start={start} and stop={stop}")
        times = self._times(schedule, steps, start, stop)
        times[0], times[-1] = start, stop
        if not bool((times.diff() < 0).all()):
            raise ValueError(
                f"{self} does not fall strictly in {steps} steps: {times.tolist()}; use fewer steps"
            )
        return times

    @abstractmethod
    def _times(self, schedule: Schedule, steps: int, start: float, stop: float) -> Tensor:
        """The times; the two ends are put right by the caller."""


@final
@dataclass(frozen=True)
class Uniform(Grid):
    """Equal steps in time."""

    def _times(self, schedule: Schedule, steps: int, start: float, stop: float) -> Tensor:
        return torch.linspace(start, stop, steps + 1, dtype=torch.float64)


@final
@dataclass(frozen=True)
class Power(Grid):
    """Equal steps in :math:`t^{1/p}`: for p > 1 the steps shrink towards the data."""

    power: float = 2.0

    def __post_init__(self) -> None:
        if self.power <= 0:
            raise ValueError(f"power must be positive, got {self.power}; 1 gives equal steps")

    def _times(self, schedule: Schedule, steps: int, start: float, stop: float) -> Tensor:
        q = 1 / self.power
        return torch.linspace(start**q, stop**q, steps + 1, dtype=torch.float64) ** self.power


def _check_window(low: float, high: float) -> None:
    if not low < high:
        raise ValueError(f"need low < high, the log-SNR of most and least noise, got {low}, {high}")


def _window(
    schedule: Schedule, start: float, stop: float, low: float, high: float
) -> tuple[float, float]:
    """The log-SNR at both ends, kept inside [low, high]; a span outside that window keeps one unit of it."""
    a, b = float(schedule.log_snr(start)), float(schedule.log_snr(stop))
    return max(a, min(low, b - 1)), min(b, max(high, a + 1))


@final
@dataclass(frozen=True)
class LogSNR(Grid):
    r"""Equal steps in log-SNR between ``low`` and ``high`` (or the schedule's own ends, where those are nearer)."""

    low: float = -8.0
    high: float = 12.0

    def __post_init__(self) -> None:
        _check_window(self.low, self.high)

    def _times(self, schedule: Schedule, steps: int, start: float, stop: float) -> Tensor:
        a, b = _window(schedule, start, stop, self.low, self.high)
        return schedule.time(torch.linspace(a, b, steps + 1, dtype=torch.float64))


@final
@dataclass(frozen=True)
class Karras(Grid):
    r"""Equal steps in :math:`(\sigma/\alpha)^{1/\rho}` (Karras et al., EDM, 2022), with infinite ends cut off."""

    rho: float = 7.0
    low: float = -8.0
    high: float = 12.0

    def __post_init__(self) -> None:
        _check_window(self.low, self.high)
        if self.rho <= 0:
            raise ValueError(f"rho must be positive, got {self.rho}")

    def _times(self, schedule: Schedule, steps: int, start: float, stop: float) -> Tensor:
        a, b = _window(schedule, start, stop, self.low, self.high)
        first, last = math.exp(-a / (2 * self.rho)), math.exp(-b / (2 * self.rho))
        return schedule.time(
            -2 * self.rho * torch.linspace(first, last, steps + 1, dtype=torch.float64).log()
        )


@final
@dataclass(frozen=True, eq=False)
class Times(Grid):
    """Your own times, first to last; their number must be the sampler's steps plus one."""

    times: Tensor

    def _times(self, schedule: Schedule, steps: int, start: float, stop: float) -> Tensor:
        times = self.times.to(torch.float64).clone()
        if times.shape != (steps + 1,) or float(times[0]) != start or float(times[-1]) != stop:
            raise ValueError(
                f"times must be {steps + 1} numbers from {start} to {stop}, got {times.tolist()}"
            )
        return times
