r"""Weights of a squared error, always in x0 space.

The loss of a Gaussian field is :math:`w(t)\,\|\hat x_0 - x_0\|^2`. An error of x0 is one of eps, v, flow or score times
a factor that depends on t alone (:meth:`~sciffusion.process.Gaussian.target_weight`), so one weight in x0 space means
the same loss for a network of any parameterisation. With :math:`\mathrm{SNR} = \alpha^2/\sigma^2 = e^\lambda`:

===================  =====================================================  ====================================
weight               in x0 space                                            on the error of eps (times 1/SNR)
===================  =====================================================  ====================================
:class:`EDM`         :math:`\mathrm{SNR} + 1/s^2`                           :math:`1 + 1/(s^2\mathrm{SNR})`
:class:`MinSNR`      :math:`\min(\mathrm{SNR}, \gamma)`                     :math:`\min(1, \gamma/\mathrm{SNR})`
the same, soft       :math:`\mathrm{SNR}\,\gamma/(\mathrm{SNR} + \gamma)`   :math:`\gamma/(\mathrm{SNR} + \gamma)`
:class:`Sigmoid`     :math:`\mathrm{SNR}\,\mathrm{sigmoid}(b - \lambda)`    :math:`\mathrm{sigmoid}(b - \lambda)`
:class:`Likelihood`  :math:`-\tfrac12\,d\mathrm{SNR}/dt`                    :math:`-\tfrac12\,d\lambda/dt`
===================  =====================================================  ====================================
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from sciffusion.schedule import Schedule

__all__ = ["EDM", "Likelihood", "MinSNR", "Sigmoid", "Weight"]


class Weight(ABC):
    """The weight of a squared error of x0, as a function of the time on a schedule."""

    integrand: ClassVar[bool] = False
    """Whether the loss is a density in time, whose integral over t is wanted: an objective then divides each sample's
    loss by the density of its time, so that its mean is that integral whatever the law of the times."""

    @abstractmethod
    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        """Weights, float64, of the shape of ``t``."""


@final
@dataclass(frozen=True)
class EDM(Weight):
    r""":math:`w = \mathrm{SNR} + 1/s^2`: unit weight on the preconditioned network's output (Karras et al., 2022).

    Infinite at infinite SNR. Raises ``ValueError`` unless ``sigma_data`` is positive.
    """

    sigma_data: float = 1.0

    def __post_init__(self) -> None:
        if self.sigma_data <= 0:
            raise ValueError(f"sigma_data must be positive, got {self.sigma_data}")

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        return schedule.log_snr(t).exp() + 1 / self.sigma_data**2


@final
@dataclass(frozen=True)
class MinSNR(Weight):
    r""":math:`w = \min(\mathrm{SNR}, \gamma)` (Hang et al., 2023). Finite at zero and infinite SNR.

    With ``soft``, the corner is rounded: :math:`w = \mathrm{SNR}\,\gamma/(\mathrm{SNR} + \gamma)`, which is
    :class:`Sigmoid` with the bias :math:`\log\gamma` (Crowson et al., HDiT, 2024). Raises ``ValueError`` unless
    ``gamma`` is positive.
    """

    gamma: float = 5.0
    soft: bool = False

    def __post_init__(self) -> None:
        if self.gamma <= 0:
            raise ValueError(f"gamma must be positive, got {self.gamma}")

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        if self.soft:
            return Sigmoid(math.log(self.gamma))(schedule, t)
        return schedule.log_snr(t).clamp(max=math.log(self.gamma)).exp()


@final
@dataclass(frozen=True)
class Sigmoid(Weight):
    r""":math:`w = \mathrm{SNR}\cdot\mathrm{sigmoid}(b - \lambda)`, a sigmoid weight on the error of eps.

    Source: Kingma & Gao, 2023; Hoogeboom et al., 2024. Tends to :math:`e^b` at infinite SNR and to the SNR at zero.
    """

    bias: float = 0.0

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        log_snr = schedule.log_snr(t)
        return torch.exp(-torch.nn.functional.softplus(-log_snr + self.bias) + self.bias)


@final
@dataclass(frozen=True)
class Likelihood(Weight):
    r"""The integrand of the evidence lower bound, :math:`w = -\tfrac12\,d\mathrm{SNR}/dt`, nats.

    Equal to the score matching loss with the weight :math:`g^2/2` (Song et al., Maximum likelihood training, 2021;
    Kingma et al., VDM, 2021):

    .. math:: \int_{t_0}^{t_1} w\,E\|\hat x_0 - x_0\|^2\,dt = \tfrac12\int_{t_0}^{t_1} g^2\,E\|\hat s - s\|^2\,dt,

    the part of the bound that lies between two times, over the degrees of freedom. It is an integral over time, so the
    objective divides by the density of the times that it draws. The integrand grows without bound as t goes to 0:
    draw times by :class:`~sciffusion.objective.LogUniform`, under which the weight of the error of eps is constant.
    """

    integrand: ClassVar[bool] = True

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        (alpha, sigma), (alpha_dot, sigma_dot) = schedule(t), schedule.rates(t)
        return alpha * (alpha * sigma_dot - alpha_dot * sigma) / sigma**3
