"""Guidance for flow matching, with an optimal scale of the unconditional flow."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from sciffusion.denoiser import Prediction
from sciffusion.guidance.base import Change, Guidance, Needs, edit_fields
from sciffusion.layout import Layout
from sciffusion.process import Gaussian

__all__ = ["CFGZeroStar"]


@final
class CFGZeroStar(Change):
    r"""CFG-Zero*: the weaker flow is first made as like the stronger one as a factor can make it.

    In the velocities :math:`u = dx_t/dt` of the probability flow,

    .. math:: u = s^* u^{weak} + w\,(u^{strong} - s^* u^{weak}), \qquad
              s^* = \langle u^{strong}, u^{weak}\rangle / |u^{weak}|^2

    per sample and field, over valid entries: an ill-trained scale of the weaker flow does no harm. At the highest
    noise, where the flow learnt is worse than none, it can be set to zero. Jump fields are guided as before.
    Source: Fan et al., CFG-Zero*: Improved Classifier-Free Guidance for Flow Matching Models, 2025 (for rectified flow;
    there the first steps are zero: here the noise below a log-SNR, which outlives a change of the grid).

    Args:
        guidance: the guidance to change.
        zero_below: below this log-SNR of the process's clock Gaussian fields do not move at all.
    """

    def __init__(self, guidance: Guidance, zero_below: float = -math.inf) -> None:
        super().__init__(guidance)
        self.zero_below = zero_below

    def needs(self, scale: float) -> Needs:
        return super().needs(scale) if self.zero_below == -math.inf else "both"

    def mix(self, strong: Prediction, weak: Prediction, scale: float | Tensor) -> Prediction:
        t, x_t = strong.t, strong.x_t

        def scaled(
            field: Gaussian, layout: Layout, weak: Tensor, strong: Tensor, x: Tensor
        ) -> Tensor:
            a, b = (field.convert(v, x, t, layout, src="x0", dst="flow") for v in (strong, weak))
            norm = layout.reduce(b**2)
            s = layout.expand(torch.where(norm > 0, layout.reduce(a * b) / norm, 1.0), x)
            x0 = field.convert(s * b, x, t, layout, src="flow", dst="x0")
            # a flow that vanishes says nothing of x0
            return torch.where(s == 1, weak, x0)

        x0 = edit_fields(self.process, scaled, weak.x0, strong.x0, x_t, like=x_t)
        out = self.guidance.mix(strong, Prediction(x0, weak.x_t, weak.t, self.process), scale)
        still = self.process.clock.log_snr(t) < self.zero_below
        if not bool(still.any()):
            return out

        def rest(field: Gaussian, layout: Layout, x0: Tensor, x: Tensor) -> Tensor:
            # the rates of some schedules vanish at t = 1, where their ratio is a limit
            inner = t.clamp(max=1 - 1e-6)
            none = field.convert(torch.zeros_like(x), x, inner, layout, src="flow", dst="x0")
            return torch.where(layout.expand(still.to(x.device), x), none, x0)

        return Prediction(
            edit_fields(self.process, rest, out.x0, x_t, like=x_t), out.x_t, t, self.process
        )
