r"""A schedule rescaled to end on pure noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciffusion.schedule.base import Schedule, VariancePreserving, f64

__all__ = ["ZeroTerminalSNR"]


@final
@dataclass(frozen=True)
class ZeroTerminalSNR(VariancePreserving):
    r"""A variance preserving schedule stretched until its terminal SNR is zero.

    .. math:: \alpha'_t = \alpha_0\frac{\alpha_t - \alpha_1}{\alpha_0 - \alpha_1},\qquad \sigma'^2 = 1 - \alpha'^2

    so the end at t = 0 stays and the prior keeps nothing of the data's mean. Source: Lin et al., 2023. Train with it
    and predict v or x0: at t = 1 the noise says nothing of the data. Rescaling twice is rescaling once.

    Raises ``ValueError`` if ``base`` does not lie on the unit circle (variance exploding schedules cannot be rescaled;
    rectified flow needs no rescaling).
    """

    base: Schedule

    def __post_init__(self) -> None:
        with torch.no_grad():
            alpha, sigma = self.base(torch.linspace(0, 1, 17, dtype=torch.float64))
        if not bool(((alpha**2 + sigma**2 - 1).abs() < 1e-9).all()):
            raise ValueError(
                f"base must be variance preserving, alpha^2 + sigma^2 = 1; {self.base} is not"
            )

    @property
    def frozen(self) -> bool:
        return self.base.frozen

    def _ends(self) -> tuple[Tensor, Tensor]:
        alpha = self.base.alpha(torch.tensor([0.0, 1.0], dtype=torch.float64))
        return alpha[0], alpha[1]

    def alpha(self, t: Tensor | float) -> Tensor:
        first, last = self._ends()
        return first * (self.base.alpha(t) - last) / (first - last)

    def sigma(self, t: Tensor | float) -> Tensor:
        first, last = self._ends()
        alpha, sigma = self.base(t)
        # 1 - alpha without its cancellation; the same for the rescaled one, in terms of that
        missing, missing_0 = sigma**2 / (1 + alpha), self.base.sigma(0.0) ** 2 / (1 + first)
        missing = (first * missing - last * missing_0) / (first - last)
        return (missing * (1 + self.alpha(t))).clamp(min=0).sqrt()

    def time(self, log_snr: Tensor | float) -> Tensor:
        first, last = self._ends()
        alpha, sigma = self.at(log_snr)
        missing, missing_0 = sigma**2 / (1 + alpha), self.base.sigma(0.0) ** 2 / (1 + first)
        missing = (missing * (first - last) + last * missing_0) / first
        alpha = alpha * (first - last) / first + last
        return self.base.time(2 * alpha.log() - torch.log(missing * (1 + alpha)))

    def rates(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        first, last = self._ends()
        rate = self.base.rates(t)[0] * first / (first - last)
        alpha, sigma = self(f64(t).clamp(min=1e-12))
        return rate, -alpha * rate / sigma
