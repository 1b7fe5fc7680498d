r"""How much data and how much noise there is at a time.

A schedule is a curve :math:`t \mapsto (\alpha_t, \sigma_t)` with :math:`x_t = \alpha_t x_0 + \sigma_t e`. Time runs
from 0 (data) to 1 (prior) and :math:`\lambda_t = \log(\alpha_t^2/\sigma_t^2)`, the log-SNR, falls strictly. All of it
is computed in float64, whatever the dtype of the data.

The forward process :math:`dx = f_t x\,dt + g_t\,dw` with the same marginals has
:math:`f = \dot\alpha/\alpha` and :math:`g^2 = 2\sigma\dot\sigma - 2f\sigma^2` (Kingma et al., VDM, 2021).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

__all__ = [
    "VE",
    "VP",
    "Cosine",
    "Polynomial",
    "RectifiedFlow",
    "Schedule",
    "Shifted",
    "TrigFlow",
    "VariancePreserving",
]


def _f64(t: Tensor | float) -> Tensor:
    return torch.as_tensor(t, dtype=torch.float64)


class Schedule(ABC):
    """A noise schedule. Times may have any shape; results are float64 of the same shape.

    ``frozen`` says that its numbers never change, so that they may be computed once; a learned schedule's do.
    """

    frozen: bool = True

    @abstractmethod
    def alpha(self, t: Tensor | float) -> Tensor:
        r""":math:`\alpha_t`, the factor of the data."""

    @abstractmethod
    def sigma(self, t: Tensor | float) -> Tensor:
        r""":math:`\sigma_t`, the factor of the noise."""

    @abstractmethod
    def time(self, log_snr: Tensor | float) -> Tensor:
        """The time at which the log-SNR has this value: the inverse of :meth:`log_snr`."""

    def __call__(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        r"""The pair :math:`(\alpha_t, \sigma_t)`."""
        return self.alpha(t), self.sigma(t)

    def at(self, log_snr: Tensor | float) -> tuple[Tensor, Tensor]:
        r"""The pair :math:`(\alpha, \sigma)` on this curve, or on its continuation beyond both ends, by log-SNR."""
        return self(self.time(log_snr))

    def log_snr(self, t: Tensor | float) -> Tensor:
        r""":math:`\lambda_t = \log(\alpha_t^2 / \sigma_t^2)`; plus or minus infinity where one of them is zero."""
        alpha, sigma = self(t)
        return 2 * (alpha.log() - sigma.log())

    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        r""":math:`(\dot\alpha_t, \dot\sigma_t)`, the derivatives in t, by forward-mode differentiation."""
        # one-sided derivatives exist at the ends, the formulas may not; nearer to 1, 1 - t loses its digits
        t = _f64(t).clamp(1e-8, 1 - 1e-8)
        rates = torch.func.jvp(lambda s: self(s), (t,), (torch.ones_like(t),))[1]
        return rates[0], rates[1]

    def sde(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        r"""Drift and diffusion :math:`(f_t, g_t)` of the forward SDE; defined where :math:`\alpha_t > 0`."""
        t = _f64(t).clamp(min=1e-12)  # sigma sigma_dot has a limit at 0, where it may be 0 * inf
        (alpha, sigma), (alpha_dot, sigma_dot) = self(t), self.rates(t)
        f = alpha_dot / alpha
        return f, (2 * sigma * sigma_dot - 2 * f * sigma**2).clamp(min=0).sqrt()

    @property
    def terminal_snr(self) -> float:
        r""":math:`\alpha_1^2/\sigma_1^2`. Above zero, the prior still carries that much of the data's mean."""
        alpha, sigma = self(1.0)
        return float((alpha / sigma) ** 2)

    def shift(self, factor: float) -> Schedule:
        r"""The same curve with the noise-to-signal ratio :math:`\sigma/\alpha` multiplied by ``factor`` at every t.

        :math:`\lambda'_t = \lambda_t - 2\log(\mathrm{factor})`, so shifts compose by multiplication and
        ``shift(1)`` changes nothing. For rectified flow this is :math:`t' = st/(1+(s-1)t)` (Esser et al., SD3, 2024).
        """
        return Shifted(self, factor)


class VariancePreserving(Schedule):
    r"""A schedule with :math:`\alpha_t^2 + \sigma_t^2 = 1`: a part of the unit circle."""

    def at(self, log_snr: Tensor | float) -> tuple[Tensor, Tensor]:
        snr = _f64(log_snr)
        return torch.sigmoid(snr).sqrt(), torch.sigmoid(-snr).sqrt()


@final
@dataclass(frozen=True)
class VP(VariancePreserving):
    r"""Variance preserving with a linear rate :math:`\beta(t) = \beta_0 + t(\beta_1-\beta_0)`.

    :math:`\alpha_t = \exp(-\tfrac12\int_0^t\beta)`, :math:`\sigma_t^2 = 1-\alpha_t^2`. Source: Song et al., 2021
    (``beta_min=0.1, beta_max=20`` there).
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.beta_min <= self.beta_max:
            raise ValueError(
                f"need 0 < beta_min <= beta_max, got {self.beta_min} and {self.beta_max}"
            )

    def _integral(self, t: Tensor | float) -> Tensor:
        t = _f64(t)
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2

    def alpha(self, t: Tensor | float) -> Tensor:
        return torch.exp(-0.5 * self._integral(t))

    def sigma(self, t: Tensor | float) -> Tensor:
        return (-torch.expm1(-self._integral(t))).sqrt()

    def log_snr(self, t: Tensor | float) -> Tensor:
        return -torch.log(torch.expm1(self._integral(t)))

    def time(self, log_snr: Tensor | float) -> Tensor:
        integral = torch.nn.functional.softplus(-_f64(log_snr), threshold=700)
        slope = self.beta_max - self.beta_min
        # the root of slope/2 t^2 + beta_min t = integral, in the form that survives slope -> 0
        return 2 * integral / (self.beta_min + (self.beta_min**2 + 2 * slope * integral).sqrt())

    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        t = _f64(t)
        beta = self.beta_min + (self.beta_max - self.beta_min) * t
        alpha, sigma = self(t)
        return -0.5 * beta * alpha, 0.5 * beta * alpha**2 / sigma


@final
@dataclass(frozen=True)
class Cosine(VariancePreserving):
    r"""Variance preserving, :math:`\alpha_t = \cos(\tfrac\pi2\tfrac{t+s}{1+s}) / \cos(\tfrac\pi2\tfrac{s}{1+s})`.

    Source: Nichol & Dhariwal, 2021, in continuous time and without their clipping; ``s`` keeps the first noise small.
    """

    s: float = 0.008

    def __post_init__(self) -> None:
        if not 0 <= self.s < 1:
            raise ValueError(f"s must lie in [0, 1), got {self.s}")

    def _start(self) -> float:
        return 0.5 * math.pi * self.s / (1 + self.s)

    def alpha(self, t: Tensor | float) -> Tensor:
        angle = 0.5 * math.pi * (_f64(t) + self.s) / (1 + self.s)
        return torch.cos(angle).clamp(min=0) / math.cos(self._start())

    def sigma(self, t: Tensor | float) -> Tensor:
        turn, start = 0.5 * math.pi * _f64(t) / (1 + self.s), self._start()
        # 1 - cos^2(a)/cos^2(b) = sin(a+b) sin(a-b) / cos^2(b): no cancellation near t = 0
        square = torch.sin(turn + 2 * start) * torch.sin(turn)
        return square.clamp(min=0).sqrt() / math.cos(start)

    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        speed, start = 0.5 * math.pi / (1 + self.s), self._start()
        turn = speed * _f64(t)
        rate = -speed * torch.sin(turn + start) / math.cos(start)
        alpha, sigma = self(t)
        # sigma_dot = -alpha alpha_dot / sigma; without an offset both vanish at t = 0 and leave cos(turn)
        return rate, -alpha * rate / sigma if self.s else speed * torch.cos(turn)

    def time(self, log_snr: Tensor | float) -> Tensor:
        alpha = torch.sigmoid(_f64(log_snr)).sqrt()
        sigma2 = torch.sigmoid(-_f64(log_snr))
        start = self._start()
        c, s = alpha * math.cos(start), (sigma2 + (alpha * math.sin(start)) ** 2).sqrt()
        return torch.atan2(s, c) * 2 / math.pi * (1 + self.s) - self.s


@final
@dataclass(frozen=True)
class Polynomial(VariancePreserving):
    r"""Variance preserving, :math:`\alpha_t = 1 - t^p` up to a precision :math:`s`.

    :math:`\alpha^2 = (1-2s)(1-t^p)^2 + s`: neither end is reached, :math:`\sigma_0^2 = s` and :math:`\alpha_1^2 = s`.
    ``Polynomial(2)`` is the schedule ``polynomial_2`` of EDM (Hoogeboom et al., ICML 2022), in continuous time.
    """

    power: float = 2.0
    precision: float = 1e-5

    def __post_init__(self) -> None:
        if self.power <= 0 or not 0 <= self.precision < 0.5:
            raise ValueError(
                f"need power > 0 and 0 <= precision < 0.5, got {self.power} and {self.precision}"
            )

    def alpha(self, t: Tensor | float) -> Tensor:
        return ((1 - 2 * self.precision) * (1 - _f64(t) ** self.power) ** 2 + self.precision).sqrt()

    def sigma(self, t: Tensor | float) -> Tensor:
        u = _f64(t) ** self.power
        return (self.precision + (1 - 2 * self.precision) * u * (2 - u)).clamp(min=0).sqrt()

    def time(self, log_snr: Tensor | float) -> Tensor:
        # 1 - (1-u)^2 = u (2-u) is solved for u from the noise's side, where it is exact for small u
        w = ((torch.sigmoid(-_f64(log_snr)) - self.precision) / (1 - 2 * self.precision)).clamp(
            0, 1
        )
        u = w / (1 + (1 - w).sqrt())
        return u ** (1 / self.power)

    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        t = _f64(t)
        u, u_dot = t**self.power, self.power * t ** (self.power - 1)
        alpha, sigma = self(t)
        half = (1 - 2 * self.precision) * (1 - u) * u_dot
        return -half / alpha, half / sigma


@final
@dataclass(frozen=True)
class VE(Schedule):
    r"""Variance exploding, :math:`\alpha = 1`; :math:`\sigma` geometric between two ends (EDM's parameterisation).

    :math:`\sigma_t = \sigma_{min}^{1-t}\sigma_{max}^{t}`. Source: Karras et al., EDM, 2022 (0.002 and 80 there). The
    sampler's last step leads from the last grid point to the clean sample, so no :math:`\sigma_{min}` remains.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(
                f"need 0 < sigma_min < sigma_max, got {self.sigma_min} and {self.sigma_max}"
            )

    def alpha(self, t: Tensor | float) -> Tensor:
        return torch.ones_like(_f64(t))

    def sigma(self, t: Tensor | float) -> Tensor:
        t = _f64(t)
        return torch.exp((1 - t) * math.log(self.sigma_min) + t * math.log(self.sigma_max))

    def time(self, log_snr: Tensor | float) -> Tensor:
        log_sigma = -0.5 * _f64(log_snr)
        return (log_sigma - math.log(self.sigma_min)) / math.log(self.sigma_max / self.sigma_min)

    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        sigma = self.sigma(t)
        return torch.zeros_like(sigma), sigma * math.log(self.sigma_max / self.sigma_min)


@final
@dataclass(frozen=True)
class RectifiedFlow(Schedule):
    r"""The straight line :math:`x_t = (1-t) x_0 + t e` (Liu et al., 2022; Lipman et al., 2022)."""

    def alpha(self, t: Tensor | float) -> Tensor:
        return 1 - _f64(t)

    def sigma(self, t: Tensor | float) -> Tensor:
        return _f64(t).clone()

    def time(self, log_snr: Tensor | float) -> Tensor:
        return torch.sigmoid(-0.5 * _f64(log_snr))

    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        one = torch.ones_like(_f64(t))
        return -one, one


@final
@dataclass(frozen=True)
class TrigFlow(VariancePreserving):
    r"""The quarter circle :math:`\alpha = \cos(\pi t/2)`, :math:`\sigma = \sin(\pi t/2)` (Lu & Song, sCM, 2024)."""

    def alpha(self, t: Tensor | float) -> Tensor:
        return torch.sin(
            0.5 * math.pi * (1 - _f64(t))
        )  # exactly zero at t = 1, which cos(pi/2) is not

    def sigma(self, t: Tensor | float) -> Tensor:
        return torch.sin(0.5 * math.pi * _f64(t))

    def time(self, log_snr: Tensor | float) -> Tensor:
        half = 0.25 * _f64(log_snr)
        return torch.atan2(torch.exp(-half), torch.exp(half)) * 2 / math.pi

    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        return -0.5 * math.pi * self.sigma(t), 0.5 * math.pi * self.alpha(t)


@final
@dataclass(frozen=True)
class Shifted(Schedule):
    """A schedule with its log-SNR moved by a constant; made by :meth:`Schedule.shift`."""

    base: Schedule
    factor: float

    def __post_init__(self) -> None:
        if self.factor <= 0:
            raise ValueError(
                f"factor must be positive, got {self.factor}; 1 leaves the schedule as it is"
            )

    def __call__(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        return self.base.at(self.log_snr(t))

    def at(self, log_snr: Tensor | float) -> tuple[Tensor, Tensor]:
        return self.base.at(log_snr)

    def alpha(self, t: Tensor | float) -> Tensor:
        return self(t)[0]

    def sigma(self, t: Tensor | float) -> Tensor:
        return self(t)[1]

    def log_snr(self, t: Tensor | float) -> Tensor:
        return self.base.log_snr(t) - 2 * math.log(self.factor)

    def time(self, log_snr: Tensor | float) -> Tensor:
        return self.base.time(_f64(log_snr) + 2 * math.log(self.factor))

    def shift(self, factor: float) -> Schedule:
        return Shifted(self.base, self.factor * factor)
