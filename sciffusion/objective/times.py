r"""The laws of training times.

A law is given by its quantile function :math:`Q`, the inverse of its cumulative distribution: :math:`t = Q(u)` for u
uniform on (0, 1), and its density is :math:`p(t) = 1/Q'(u)`. Most laws are named after :math:`y = \log(\sigma/\alpha) =
-\lambda/2` on the clock, whose rate is :math:`\dot y = \dot\sigma/\sigma - \dot\alpha/\alpha`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from sciffusion.noise import Noise
from sciffusion.schedule import Schedule

__all__ = [
    "Between",
    "CosMap",
    "LogNormal",
    "LogUniform",
    "LogitNormal",
    "ModeTimes",
    "Stratified",
    "TimeSampler",
    "UniformTimes",
]

EDGE = 1e-5
"""Training times keep this distance from 0 and 1, where some targets have no finite conversion."""


class TimeSampler(ABC):
    """The law of training times."""

    @abstractmethod
    def quantile(self, u: Tensor, clock: Schedule) -> Tensor:
        """The time below which a share ``u`` of the times lie: rises in ``u``; float64 of its shape."""

    @abstractmethod
    def density(self, t: Tensor, clock: Schedule) -> Tensor:
        """The density of the law at the times ``t``, float64 of their shape."""

    def __call__(self, noise: Noise, batch: int, clock: Schedule) -> Tensor:
        """Times (B,), float64, inside (0, 1): what lies nearer than 1e-5 to either end is moved to that distance."""
        return self.quantile(self.numbers(noise, batch), clock).clamp(EDGE, 1 - EDGE)

    def numbers(self, noise: Noise, batch: int) -> Tensor:
        """What :meth:`quantile` makes times of, (B,): each by itself uniform on [0, 1)."""
        return noise.scalars(batch)


def _rate(clock: Schedule, t: Tensor) -> Tensor:
    """The derivative of log(sigma/alpha) in time."""
    (alpha, sigma), (alpha_dot, sigma_dot) = clock(t), clock.rates(t)
    return sigma_dot / sigma - alpha_dot / alpha


def _check_spread(std: float) -> None:
    if not std > 0:
        raise ValueError(f"std must be positive, got {std}")


def _normal(y: Tensor, mean: float, std: float) -> Tensor:
    return torch.exp(-0.5 * ((y - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))


@final
@dataclass(frozen=True)
class UniformTimes(TimeSampler):
    """Times uniform on [low, high]. Raises ``ValueError`` unless 0 <= low < high <= 1."""

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 1:
            raise ValueError(f"need 0 <= low < high <= 1, got {self.low} and {self.high}")

    def quantile(self, u: Tensor, clock: Schedule) -> Tensor:
        return self.low + (self.high - self.low) * u

    def density(self, t: Tensor, clock: Schedule) -> Tensor:
        return ((t >= self.low) & (t <= self.high)).double() / (self.high - self.low)


@final
@dataclass(frozen=True)
class LogitNormal(TimeSampler):
    """logit(t) ~ N(mean, std^2); a negative mean looks more at little noise (Esser et al., SD3, 2024).

    Raises ``ValueError`` unless ``std`` is positive.
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        _check_spread(self.std)

    def quantile(self, u: Tensor, clock: Schedule) -> Tensor:
        return torch.sigmoid(self.mean + self.std * torch.special.ndtri(u))

    def density(self, t: Tensor, clock: Schedule) -> Tensor:
        return _normal(t.logit(), self.mean, self.std) / (t * (1 - t))


@final
@dataclass(frozen=True)
class LogNormal(TimeSampler):
    r""":math:`\log(\sigma/\alpha) \sim N(\mathrm{mean}, \mathrm{std}^2)` (Karras et al., 2022: -1.2 and 1.2).

    Raises ``ValueError`` unless ``std`` is positive.
    """

    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self) -> None:
        _check_spread(self.std)

    def quantile(self, u: Tensor, clock: Schedule) -> Tensor:
        return clock.time(-2 * (self.mean + self.std * torch.special.ndtri(u)))

    def density(self, t: Tensor, clock: Schedule) -> Tensor:
        return _normal(-0.5 * clock.log_snr(t), self.mean, self.std) * _rate(clock, t)


@final
@dataclass(frozen=True)
class LogUniform(TimeSampler):
    r""":math:`\log(\sigma/\alpha)` uniform between the logarithms of ``low`` and ``high``.

    The interval is cut to what the clock has. The law under which the likelihood's integrand varies least (Song et al.,
    Maximum likelihood training, 2021). Raises ``ValueError`` unless 0 < low < high, or if the clock has no noise level
    between the two.
    """

    low: float = 0.002
    high: float = 80.0

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high:
            raise ValueError(f"need 0 < low < high, got {self.low} and {self.high}")

    def range(self, clock: Schedule) -> tuple[float, float]:
        r"""The least and the largest :math:`\log(\sigma/\alpha)` that is drawn on this clock."""
        first, last = (-0.5 * clock.log_snr(torch.tensor([EDGE, 1 - EDGE]).double())).tolist()
        low, high = max(math.log(self.low), first), min(math.log(self.high), last)
        if low >= high:
            raise ValueError(
                f"the clock's sigma/alpha runs from {math.exp(first):.3g} to {math.exp(last):.3g}: none of it lies "
                f"between low={self.low} and high={self.high}"
            )
        return low, high

    def quantile(self, u: Tensor, clock: Schedule) -> Tensor:
        low, high = self.range(clock)
        return clock.time(-2 * (low + (high - low) * u))

    def density(self, t: Tensor, clock: Schedule) -> Tensor:
        low, high = self.range(clock)
        y, slack = -0.5 * clock.log_snr(t), 1e-9  # the ends belong to it, after rounding too
        inside = (y >= low - slack) & (y <= high + slack)
        return inside.double() * _rate(clock, t) / (high - low)


@final
@dataclass(frozen=True)
class ModeTimes(TimeSampler):
    r""":math:`Q(u) = u - s(\sin^2(\pi u/2) - u)`: more in the middle for s > 0, at the ends for s < 0.

    Source: Esser et al., SD3, 2024 (there :math:`f(1-u)`, the same law). Raises ``ValueError`` unless ``scale`` lies
    between -1 and :math:`2/(\pi-2)`, beyond which the law has no density.
    """

    scale: float = 1.29

    def __post_init__(self) -> None:
        if not -1 < self.scale < 2 / (math.pi - 2):
            raise ValueError(f"scale must lie in (-1, 1.751), got {self.scale}")

    def quantile(self, u: Tensor, clock: Schedule) -> Tensor:
        return u - self.scale * (torch.sin(0.5 * math.pi * u) ** 2 - u)

    def density(self, t: Tensor, clock: Schedule) -> Tensor:
        low, high = torch.zeros_like(t), torch.ones_like(t)
        for _ in range(54):  # halving the unit interval down to the last digit
            middle = 0.5 * (low + high)
            below = self.quantile(middle, clock) < t
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return 1 / (1 + self.scale - 0.5 * math.pi * self.scale * torch.sin(math.pi * low))


@final
@dataclass(frozen=True)
class CosMap(TimeSampler):
    r""":math:`p(t) = 2/(\pi(1 - 2t + 2t^2))`: gives a straight line the noise levels of the cosine schedule.

    Source: Esser et al., SD3, 2024.
    """

    def quantile(self, u: Tensor, clock: Schedule) -> Tensor:
        sin, cos = torch.sin(0.5 * math.pi * u), torch.cos(0.5 * math.pi * u)
        return sin / (sin + cos)

    def density(self, t: Tensor, clock: Schedule) -> Tensor:
        return 2 / (math.pi * (1 - 2 * t + 2 * t**2))


@final
@dataclass(frozen=True)
class Stratified(TimeSampler):
    r"""The times of a batch spread evenly over the quantiles of another law.

    :math:`u_i = (u_0 + i/B) \bmod 1` with one uniform :math:`u_0` for the whole batch: every time by itself has the
    law of ``base``, but together they vary less, and so does the mean loss (Kingma et al., VDM, 2021).

    The number belongs to the batch, so this is the one sampler under which a sample's time depends on its batch: with
    one noise stream per sample it comes from the first sample's stream, and the other streams advance alike.
    """

    base: TimeSampler = field(default_factory=UniformTimes)

    def quantile(self, u: Tensor, clock: Schedule) -> Tensor:
        return self.base.quantile(u, clock)

    def density(self, t: Tensor, clock: Schedule) -> Tensor:
        return self.base.density(t, clock)

    def numbers(self, noise: Noise, batch: int) -> Tensor:
        strata = torch.arange(batch, dtype=torch.float64) / batch
        return (noise.scalars(batch)[0] + strata) % 1


@final
@dataclass(frozen=True)
class Between(TimeSampler):
    """Another law's times of the log-SNRs from ``low`` to ``high`` on the clock, and no others; stratified if that is.

    For one of several experts (:class:`~sciffusion.experts.TimeExperts`). Raises ``ValueError`` unless low < high, and
    if the other law has no times between them.
    """

    base: TimeSampler = field(default_factory=UniformTimes)
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"need low < high, got {self.low} and {self.high}")

    def numbers(self, noise: Noise, batch: int) -> Tensor:
        return self.base.numbers(noise, batch)

    def shares(self, clock: Schedule) -> tuple[float, float]:
        """The shares of the other law's times below those of ``high``, and below those of ``low``."""
        found = []
        for level, end in ((self.high, 0.0), (self.low, 1.0)):
            if math.isinf(level):
                found.append(end)
                continue
            least, most = torch.zeros(1).double(), torch.ones(1).double()
            for _ in range(54):  # halving the unit interval down to the last digit
                middle = 0.5 * (least + most)
                below = clock.log_snr(self.base.quantile(middle, clock).clamp(0, 1)) > level
                least, most = torch.where(below, middle, least), torch.where(below, most, middle)
            found.append(float(least))
        if not found[0] < found[1]:
            raise ValueError(
                f"{self.base} has no times of log-SNRs between {self.low} and {self.high} on {clock}"
            )
        return found[0], found[1]

    def quantile(self, u: Tensor, clock: Schedule) -> Tensor:
        first, last = self.shares(clock)
        return self.base.quantile(first + (last - first) * u, clock)

    def density(self, t: Tensor, clock: Schedule) -> Tensor:
        first, last = self.shares(clock)
        level, slack = clock.log_snr(t), 1e-9  # the ends belong to it, after rounding too
        inside = (level >= self.low - slack) & (level <= self.high + slack)
        return inside.double() * self.base.density(t, clock) / (last - first)
