r"""Weights of a squared error, always in x0 space.

The loss of a Gaussian field is :math:`w(t)\,\|\hat x_0 - x_0\|^2`. An error of x0 is one of eps, v, flow or score times
a factor that depends on t alone (:meth:`~sciffusion.process.Gaussian.target_weight`), so one weight in x0 space means
the same loss for a network of any parameterisation. With :math:`\mathrm{SNR} = \alpha^2/\sigma^2 = e^\lambda`:

================  ===========================================  ====================================
weight            in x0 space                                  on the error of eps (times 1/SNR)
================  ===========================================  ====================================
:class:`EDM`      :math:`\mathrm{SNR} + 1/s^2`                 :math:`1 + 1/(s^2\mathrm{SNR})`
:class:`MinSNR`   :math:`\min(\mathrm{SNR}, \gamma)`           :math:`\min(1, \gamma/\mathrm{SNR})`
:class:`Sigmoid`  :math:`\mathrm{SNR}\,s(b - \lambda)`         :math:`s(b - \lambda)`
================  ===========================================  ====================================
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciffusion.schedule import Schedule

__all__ = ["EDM", "MinSNR", "Sigmoid", "Weight"]


class Weight(ABC):
    """The weight of a squared error of x0, as a function of the time on a schedule."""

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

    Raises ``ValueError`` unless ``gamma`` is positive.
    """

    gamma: float = 5.0

    def __post_init__(self) -> None:
        if self.gamma <= 0:
            raise ValueError(f"gamma must be positive, got {self.gamma}")

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
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
