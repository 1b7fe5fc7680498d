"""Classifier-free guidance."""

from __future__ import annotations

from typing import final

from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.guidance.base import Guidance, Scale, refuse
from sciffusion.guidance.together import together
from sciffusion.state import Value

__all__ = ["CFG"]


@final
class CFG(Guidance):
    r"""Classifier-free guidance: :math:`\hat x_0 = \hat x_0^u + w(\hat x_0^c - \hat x_0^u)`.

    Scale w = 1 is the conditional prediction and w = 0 the unconditional one; either costs one call, all else two. Jump
    fields mix log-probabilities. Source: Ho & Salimans, 2022 (whose scale is w - 1).

    Args:
        denoiser: trained with dropped conditions.
        cond: the condition.
        null: the condition that means "no condition", for a whole batch or broadcastable.
        scale: w: a number, one per sample (B,), or a function of the log-SNR.
        batched: make the two calls as one of twice the batch, which is faster where a batch does not fill the
            processor. Conditions must then be tensors, or the same nest of tensors.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        cond: Condition,
        null: Condition,
        scale: Scale,
        *,
        batched: bool = False,
    ) -> None:
        super().__init__()
        self.denoiser, self.cond, self.null, self.scale = denoiser, cond, null, scale
        self.process, self.batched = denoiser.process, batched

    def stronger(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        refuse(cond)
        return self.denoiser(x_t, t, self.cond, previous)

    def weaker(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        refuse(cond)
        return self.denoiser(x_t, t, self.null, previous)

    def pair(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> tuple[Prediction, Prediction]:
        if not self.batched:
            return super().pair(x_t, t, cond, previous)
        refuse(cond)
        strong, weak = together(self.denoiser, x_t, t, (self.cond, self.null), previous)
        return strong, weak
