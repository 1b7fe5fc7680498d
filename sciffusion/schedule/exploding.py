r"""Variance exploding: data keep their size, :math:`\alpha = 1`, and noise is piled on them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciffusion.schedule.base import Schedule, f64

__all__ = ["VE"]


@final
@dataclass(frozen=True)
class VE(Schedule):
    r"""Variance exploding, :math:`\alpha = 1`, :math:`\sigma` between two ends along a power of its own.

    .. math:: \sigma_t = \bigl(\sigma_{min}^{1/\rho} + t(\sigma_{max}^{1/\rho} - \sigma_{min}^{1/\rho})\bigr)^\rho

    * ``rho`` infinite, the default: geometric, :math:`\sigma_{min}^{1-t}\sigma_{max}^t` (Song et al., 2021);
    * ``rho`` 1 with ``sigma_min`` 0: EDM's :math:`\sigma \propto t` (Karras et al., 2022; sigma 0.002 to 80 there);
    * ``rho`` 7: equal steps in time are EDM's sampling grid, :class:`~sciffusion.grid.Karras`.

    A run down to t = 0 ends on clean data, so no :math:`\sigma_{min}` remains. Raises ``ValueError`` unless
    0 <= sigma_min < sigma_max and rho > 0; the geometric form needs sigma_min > 0.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = math.inf

    def __post_init__(self) -> None:
        if not 0 <= self.sigma_min < self.sigma_max < math.inf or self.rho <= 0:
            raise ValueError(
                "need 0 <= sigma_min < sigma_max and rho > 0, "
                f"got {self.sigma_min}, {self.sigma_max} and {self.rho}"
            )
        if self.sigma_min == 0 and self.rho == math.inf:
            raise ValueError("sigma_min must be positive for rho=inf; use a finite rho, 1 for EDM")

    def _ends(self) -> tuple[float, float]:
        """What is linear in time, at t = 0 and at t = 1."""
        if self.rho == math.inf:
            return math.log(self.sigma_min), math.log(self.sigma_max)
        return self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)

    def _line(self, t: Tensor | float) -> Tensor:
        first, last = self._ends()
        return (1 - f64(t)) * first + f64(t) * last

    def alpha(self, t: Tensor | float) -> Tensor:
        return torch.ones_like(f64(t))

    def sigma(self, t: Tensor | float) -> Tensor:
        line = self._line(t)
        return torch.exp(line) if self.rho == math.inf else line**self.rho

    def time(self, log_snr: Tensor | float) -> Tensor:
        log_sigma, (first, last) = -0.5 * f64(log_snr), self._ends()
        line = log_sigma if self.rho == math.inf else torch.exp(log_sigma / self.rho)
        return (line - first) / (last - first)

    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        line, (first, last) = self._line(t), self._ends()
        rate = torch.exp(line) if self.rho == math.inf else self.rho * line ** (self.rho - 1)
        return torch.zeros_like(line), rate * (last - first)
