"""Grids that are given by a formula."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciffusion.errors import require
from sciffusion.grid.base import Grid
from sciffusion.schedule import RectifiedFlow, Schedule

__all__ = ["Beta", "FlowTime", "Karras", "LogSNR", "Power", "Uniform"]


@final
@dataclass(frozen=True)
class Uniform(Grid):
    """Equal steps in time."""

    def _times(self, schedule: Schedule, steps: int, start: float, stop: float) -> Tensor:
        return torch.linspace(start, stop, steps + 1, dtype=torch.float64)


@final
@dataclass(frozen=True)
class Power(Grid):
    """Equal steps in :math:`t^{1/p}`: for p > 1 the steps shrink towards the data.

    ``Power(2)``, from 1 to 0, is the quadratic spacing :math:`t_i = (1 - i/n)^2` of DDIM (Song et al., 2021).
    """

    power: float = 2.0

    def __post_init__(self) -> None:
        if self.power <= 0:
            raise ValueError(f"power must be positive, got {self.power}; 1 gives equal steps")

    def _times(self, schedule: Schedule, steps: int, start: float, stop: float) -> Tensor:
        q = 1 / self.power
        return torch.linspace(start**q, stop**q, steps + 1, dtype=torch.float64) ** self.power


@final
@dataclass(frozen=True)
class FlowTime(Grid):
    r"""Equal steps in :math:`\sigma/(\alpha+\sigma)`, the time of rectified flow, whatever the schedule.

    For a model that was trained on another schedule: on rectified flow itself this is :class:`Uniform`. DDIM on it is
    Euler's method for the straight path (Liu et al., 2022).

    A ``shift`` s multiplies :math:`\sigma/\alpha` of all steps: beyond 1 they crowd at high noise, where data whose
    neighbouring elements say the same are decided (Esser et al., SD3, 2024). Raises ``ValueError`` unless it is
    positive.
    """

    shift: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.shift < math.inf:
            raise ValueError(f"shift must be positive, got {self.shift}; 1 gives equal steps")

    def _times(self, schedule: Schedule, steps: int, start: float, stop: float) -> Tensor:
        flow = RectifiedFlow()
        ends = flow.time(schedule.log_snr(torch.tensor([start, stop], dtype=torch.float64)))
        s = self.shift
        first, last = (ends / (s - (s - 1) * ends)).tolist()
        even = torch.linspace(first, last, steps + 1, dtype=torch.float64)
        return schedule.time(flow.log_snr(s * even / (1 + (s - 1) * even)))


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
    r"""Equal steps in log-SNR between ``low`` and ``high`` (or the schedule's own ends, where those are nearer).

    Steps of equal ratio in :math:`\sigma/\alpha`: on a variance exploding schedule, the grid known as exponential.
    Source: Lu et al., DPM-Solver, 2022.
    """

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
@dataclass(frozen=True)
class Beta(Grid):
    r"""Times at equal steps in the distribution function of a Beta(a, b) law: close to each other where it is dense.

    With a, b < 1 that is at both ends, where images change most. Source: Lee et al., Beta sampling, 2024 (0.6 and 0.6
    there, in the time of a variance preserving schedule). Needs SciPy. Raises ``ValueError`` unless a, b > 0.
    """

    a: float = 0.6
    b: float = 0.6

    def __post_init__(self) -> None:
        if not (self.a > 0 and self.b > 0):
            raise ValueError(f"a and b must be positive, got {self.a} and {self.b}")

    def _times(self, schedule: Schedule, steps: int, start: float, stop: float) -> Tensor:
        special = require("scipy.special", extra="weather")
        shares = torch.linspace(1, 0, steps + 1, dtype=torch.float64).numpy()
        part = torch.as_tensor(special.betaincinv(self.a, self.b, shares), dtype=torch.float64)
        return stop + (start - stop) * part
