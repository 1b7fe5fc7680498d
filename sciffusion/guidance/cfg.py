"""Classifier-free guidance."""

from __future__ import annotations

from typing import final

from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.state import Value

__all__ = ["CFG"]


@final
class CFG(Denoiser):
    r"""Classifier-free guidance: :math:`\hat x_0 = \hat x_0^u + w(\hat x_0^c - \hat x_0^u)`.

    Scale w = 1 is the conditional prediction and w = 0 the unconditional one; either costs one call, all else two. Jump
    fields mix log-probabilities. Source: Ho & Salimans, 2022 (whose scale is w - 1).

    Args:
        denoiser: trained with dropped conditions.
        cond: the condition.
        null: the condition that means "no condition", for a whole batch or broadcastable.
        scale: w.
    """

    def __init__(self, denoiser: Denoiser, cond: Condition, null: Condition, scale: float) -> None:
        super().__init__()
        self.denoiser, self.cond, self.null, self.scale = denoiser, cond, null, scale
        self.process = denoiser.process

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        if cond is not None:
            raise ValueError("cond is bound already; build another CFG for another condition")
        if self.scale == 1:
            return self.denoiser(x_t, t, self.cond, previous)
        without = self.denoiser(x_t, t, self.null, previous)
        if self.scale == 0:
            return without
        guided = self.denoiser(x_t, t, self.cond, previous)
        x0 = self.process.combine((self.scale, 1 - self.scale), (guided.x0, without.x0))
        return Prediction(x0, x_t, t, self.process)
