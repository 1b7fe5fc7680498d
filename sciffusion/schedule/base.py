r"""What a schedule is: a falling curve of log-SNR, and its shifts."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

__all__ = ["FromLogSNR", "Schedule", "Shifted", "VariancePreserving", "circle", "f64"]


def f64(t: Tensor | float) -> Tensor:
    """Times and log-SNRs as float64, where they are."""
    return torch.as_tensor(t, dtype=torch.float64)


class Schedule(ABC):
    """A noise schedule. Times may have any shape; results are float64 of the same shape."""

    @property
    def frozen(self) -> bool:
        """Whether its numbers never change, so that they may be computed once. Those of a learned schedule do."""
        return True

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
        t = f64(t).clamp(1e-8, 1 - 1e-8)
        rates = torch.func.jvp(lambda s: self(s), (t,), (torch.ones_like(t),))[1]
        return rates[0], rates[1]

    def slope(self, t: Tensor | float) -> Tensor:
        r""":math:`\dot\lambda_t = 2(\dot\alpha/\alpha - \dot\sigma/\sigma)`: negative, maybe infinite at both ends.

        Times drawn evenly have the density :math:`1/|\dot\lambda|` in log-SNR; the continuous-time bound on the
        likelihood weights :math:`\|\hat e - e\|^2` by :math:`-\dot\lambda_t/2` (Kingma et al., VDM, 2021).
        """
        (alpha, sigma), (alpha_dot, sigma_dot) = self(t), self.rates(t)
        return 2 * (alpha_dot / alpha - sigma_dot / sigma)

    def sde(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        r"""Drift and diffusion :math:`(f_t, g_t)` of the forward SDE; defined where :math:`\alpha_t > 0`."""
        t = f64(t).clamp(min=1e-12)  # sigma sigma_dot has a limit at 0, where it may be 0 * inf
        (alpha, sigma), (alpha_dot, sigma_dot) = self(t), self.rates(t)
        f = alpha_dot / alpha
        return f, (2 * sigma * sigma_dot - 2 * f * sigma**2).clamp(min=0).sqrt()

    @property
    def terminal_snr(self) -> float:
        r""":math:`\alpha_1^2/\sigma_1^2`. Above zero, the prior still carries that much of the data's mean."""
        with torch.no_grad():
            alpha, sigma = self(1.0)
        return float((alpha / sigma) ** 2)

    def shift(self, factor: float) -> Schedule:
        r"""The same curve with the noise-to-signal ratio :math:`\sigma/\alpha` multiplied by ``factor`` at every t.

        :math:`\lambda'_t = \lambda_t - 2\log(\mathrm{factor})`, so shifts compose by multiplication and
        ``shift(1)`` changes nothing. For rectified flow this is :math:`t' = st/(1+(s-1)t)` (Esser et al., SD3, 2024).
        The factor for a finer resolution: :func:`~sciffusion.schedule.resolution_shift`.
        """
        return Shifted(self, factor)


class VariancePreserving(Schedule):
    r"""A schedule with :math:`\alpha_t^2 + \sigma_t^2 = 1`: a part of the unit circle."""

    def at(self, log_snr: Tensor | float) -> tuple[Tensor, Tensor]:
        return circle(f64(log_snr))


class FromLogSNR(VariancePreserving):
    """A variance preserving schedule by its log-SNR."""

    @abstractmethod
    def log_snr(self, t: Tensor | float) -> Tensor:
        r""":math:`\lambda_t`, from which alpha and sigma follow."""

    def __call__(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        return self.at(self.log_snr(t))

    def alpha(self, t: Tensor | float) -> Tensor:
        return self(t)[0]

    def sigma(self, t: Tensor | float) -> Tensor:
        return self(t)[1]


def circle(log_snr: Tensor) -> tuple[Tensor, Tensor]:
    """The point of the unit circle that has this log-SNR."""
    return torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()


@final
@dataclass(frozen=True)
class Shifted(Schedule):
    """A schedule with its log-SNR moved by a constant; made by :meth:`Schedule.shift`."""

    base: Schedule
    factor: float

    def __post_init__(self) -> None:
        if not 0 < self.factor < math.inf:
            raise ValueError(
                f"factor must be positive, got {self.factor}; 1 leaves the schedule as it is"
            )

    @property
    def frozen(self) -> bool:
        return self.base.frozen

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

    def slope(self, t: Tensor | float) -> Tensor:
        return self.base.slope(t)

    def time(self, log_snr: Tensor | float) -> Tensor:
        return self.base.time(f64(log_snr) + 2 * math.log(self.factor))

    def shift(self, factor: float) -> Schedule:
        return Shifted(self.base, self.factor * factor)
