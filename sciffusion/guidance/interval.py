"""Guidance where it helps."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.guidance.base import Guidance
from sciffusion.state import Value

__all__ = ["Interval"]


@final
class Interval(Denoiser):
    r"""A guidance at the noise levels :math:`low \le \log(\alpha^2/\sigma^2) < high`; outside them none of it.

    Outside, the stronger prediction is taken alone, in one call. At high noise guidance narrows the choice of modes, at
    low noise it does nothing. In log-SNR (of the process's clock) an interval outlives a change of the grid.
    Source: Kynkäänniemi et al., Applying Guidance in a Limited Interval, 2024 (there in
    :math:`\sigma\in(\sigma_{lo},\sigma_{hi}]`, that is log-SNR :math:`-2\log\sigma` for unit alpha).

    Args:
        guidance: CFG, Autoguidance, ..., whole, with all its changes.
        low, high: log-SNRs.

    Raises:
        ValueError: low is not below high.
    """

    def __init__(self, guidance: Guidance, low: float = -math.inf, high: float = math.inf) -> None:
        super().__init__()
        if not low < high:
            raise ValueError(f"low must be below high, got the interval [{low}, {high})")
        self.guidance, self.low, self.high = guidance, low, high
        self.process = guidance.process

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        t = torch.as_tensor(t)
        log_snr = self.process.clock.log_snr(t)
        inside = (log_snr >= self.low) & (log_snr < self.high)
        if bool(inside.all()):
            return self.guidance(x_t, t, cond, previous)
        alone = self.guidance.stronger(x_t, t, cond, previous)
        if not bool(inside.any()):
            return alone
        guided = self.guidance(x_t, t, cond, previous)
        # samples on both sides of an end, each on its own clock
        x0 = self.process.choose(inside, guided.x0, alone.x0)
        return Prediction(x0, self.process.choose(inside, guided.x_t, alone.x_t), t, self.process)
