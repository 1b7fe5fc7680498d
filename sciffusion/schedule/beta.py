r"""Schedules that are told by the rate :math:`\beta(t)` at which data are forgotten.

.. math:: B(t) = \int_0^t \beta, \qquad \alpha_t = e^{-B/2},

with :math:`\sigma_t^2 = 1 - e^{-B}` (variance preserving) or :math:`\sigma_t = 1 - e^{-B}` (sub-VP). Both forward SDEs
have the drift :math:`f = -\beta/2`.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from sciffusion.schedule.base import Schedule, VariancePreserving, f64

__all__ = ["VP", "FromRate", "ScaledLinear", "SubVP"]


class FromRate(VariancePreserving):
    """A variance preserving schedule by its rate, the rate's integral, and the inverse of that."""

    @abstractmethod
    def rate(self, t: Tensor | float) -> Tensor:
        r""":math:`\beta(t)`."""

    @abstractmethod
    def integral(self, t: Tensor | float) -> Tensor:
        r""":math:`B(t) = \int_0^t \beta`."""

    @abstractmethod
    def time_of(self, integral: Tensor) -> Tensor:
        """The time at which the integral has this value."""

    def alpha(self, t: Tensor | float) -> Tensor:
        return torch.exp(-0.5 * self.integral(t))

    def sigma(self, t: Tensor | float) -> Tensor:
        return (-torch.expm1(-self.integral(t))).sqrt()

    def log_snr(self, t: Tensor | float) -> Tensor:
        return -torch.log(torch.expm1(self.integral(t)))

    def time(self, log_snr: Tensor | float) -> Tensor:
        return self.time_of(torch.nn.functional.softplus(-f64(log_snr), threshold=700))

    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        (alpha, sigma), beta = self(t), self.rate(t)
        return -0.5 * beta * alpha, 0.5 * beta * alpha**2 / sigma


def _check(beta_min: float, beta_max: float) -> None:
    if not 0 < beta_min <= beta_max:
        raise ValueError(f"need 0 < beta_min <= beta_max, got {beta_min} and {beta_max}")


@final
@dataclass(frozen=True)
class VP(FromRate):
    r"""Variance preserving with a linear rate :math:`\beta(t) = \beta_0 + t(\beta_1-\beta_0)`.

    :math:`\alpha_t = \exp(-\tfrac12\int_0^t\beta)`, :math:`\sigma_t^2 = 1-\alpha_t^2`. Source: Song et al., 2021
    (``beta_min=0.1, beta_max=20`` there).
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        _check(self.beta_min, self.beta_max)

    def rate(self, t: Tensor | float) -> Tensor:
        return self.beta_min + (self.beta_max - self.beta_min) * f64(t)

    def integral(self, t: Tensor | float) -> Tensor:
        t = f64(t)
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2

    def time_of(self, integral: Tensor) -> Tensor:
        slope = self.beta_max - self.beta_min
        # the root of slope/2 t^2 + beta_min t = integral, in the form that survives slope -> 0
        return 2 * integral / (self.beta_min + (self.beta_min**2 + 2 * slope * integral).sqrt())


@final
@dataclass(frozen=True)
class ScaledLinear(FromRate):
    r"""Variance preserving, the root of the rate being linear in time.

    :math:`\beta(t) = (\sqrt{\beta_0} + t(\sqrt{\beta_1} - \sqrt{\beta_0}))^2`, latent diffusion's schedule (Rombach et
    al., 2022) in continuous time: their 1000 discrete rates from 0.00085 to 0.012, times 1000, are the defaults. Its
    terminal SNR is far from zero: see :class:`~sciffusion.schedule.ZeroTerminalSNR`.
    """

    beta_min: float = 0.85
    beta_max: float = 12.0

    def __post_init__(self) -> None:
        _check(self.beta_min, self.beta_max)

    def _line(self) -> tuple[float, float]:
        low = self.beta_min**0.5
        return low, self.beta_max**0.5 - low

    def rate(self, t: Tensor | float) -> Tensor:
        low, rise = self._line()
        return (low + rise * f64(t)) ** 2

    def integral(self, t: Tensor | float) -> Tensor:
        low, rise = self._line()
        t = f64(t)
        return t * (low**2 + t * rise * (low + t * rise / 3))

    def time_of(self, integral: Tensor) -> Tensor:
        low, rise = self._line()
        # (low + rise t)^3 = low^3 + 3 rise B, and a^3 - b^3 = (a - b)(a^2 + ab + b^2) survives rise -> 0
        root = (low**3 + 3 * rise * integral) ** (1 / 3)
        return 3 * integral / (root**2 + root * low + low**2)


@final
@dataclass(frozen=True)
class SubVP(Schedule):
    r"""Less noise than variance preserving: :math:`\alpha = e^{-B/2}`, :math:`\sigma = 1 - e^{-B}`.

    :math:`\sigma` is the square of the variance preserving one, and :math:`g^2 = \beta(1 - e^{-2B})`. Source: Song et
    al., 2021, with the rate of ``base`` (theirs is the linear one of :class:`VP`).
    """

    base: FromRate = field(default_factory=VP)

    def alpha(self, t: Tensor | float) -> Tensor:
        return self.base.alpha(t)

    def sigma(self, t: Tensor | float) -> Tensor:
        return -torch.expm1(-self.base.integral(t))

    def time(self, log_snr: Tensor | float) -> Tensor:
        # alpha/sigma = 1 / (2 sinh(B/2))
        return self.base.time_of(2 * torch.asinh(0.5 * torch.exp(-0.5 * f64(log_snr))))

    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        beta, alpha = self.base.rate(t), self.alpha(t)
        return -0.5 * beta * alpha, beta * alpha**2
