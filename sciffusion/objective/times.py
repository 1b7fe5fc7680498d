"""The laws of training times."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciffusion.noise import Noise
from sciffusion.schedule import Schedule

__all__ = ["LogNormal", "LogitNormal", "TimeSampler", "UniformTimes"]


class TimeSampler(ABC):
    """The law of training times."""

    @abstractmethod
    def __call__(self, noise: Noise, batch: int, clock: Schedule) -> Tensor:
        """Times (B,), float64, inside (0, 1)."""


_EDGE = 1e-5
"""Training times keep this distance from 0 and 1, where some targets have no finite conversion."""


@final
@dataclass(frozen=True)
class UniformTimes(TimeSampler):
    """Times uniform on [low, high]."""

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 1:
            raise ValueError(f"need 0 <= low < high <= 1, got {self.low} and {self.high}")

    def __call__(self, noise: Noise, batch: int, clock: Schedule) -> Tensor:
        return (self.low + (self.high - self.low) * noise.scalars(batch)).clamp(_EDGE, 1 - _EDGE)


@final
@dataclass(frozen=True)
class LogitNormal(TimeSampler):
    """logit(t) ~ N(mean, std^2); a negative mean looks more at little noise (Esser et al., SD3, 2024)."""

    mean: float = 0.0
    std: float = 1.0

    def __call__(self, noise: Noise, batch: int, clock: Schedule) -> Tensor:
        z = self.mean + self.std * noise.scalars(batch, normal=True)
        return torch.sigmoid(z).clamp(_EDGE, 1 - _EDGE)


@final
@dataclass(frozen=True)
class LogNormal(TimeSampler):
    r""":math:`\log(\sigma/\alpha) \sim N(\mathrm{mean}, \mathrm{std}^2)` (Karras et al., 2022: -1.2 and 1.2)."""

    mean: float = -1.2
    std: float = 1.2

    def __call__(self, noise: Noise, batch: int, clock: Schedule) -> Tensor:
        z = self.mean + self.std * noise.scalars(batch, normal=True)
        return clock.time(-2 * z).clamp(_EDGE, 1 - _EDGE)
