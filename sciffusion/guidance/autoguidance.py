"""Guidance by a bad version of the model itself."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.guidance.base import Guidance, Scale
from sciffusion.state import Value

__all__ = ["Autoguidance"]


@final
class Autoguidance(Guidance):
    r"""Away from a worse model: :math:`\hat x_0 = \hat x_0^{weak} + w(\hat x_0^{strong} - \hat x_0^{weak})`.

    The weaker model makes the same errors, only larger: a smaller network, or the same one earlier in training. It sees
    the same condition, so guidance works without any condition, and does not cost variety as guidance by a condition
    does. Source: Karras et al., Guiding a Diffusion Model with a Bad Version of Itself, 2024.

    Args:
        strong: the model.
        weak: the worse one, under the same process.
        scale: w; 1 is the model alone, in one call.

    Raises:
        ValueError: the two are not under the same noise levels.
    """

    def __init__(self, strong: Denoiser, weak: Denoiser, scale: Scale) -> None:
        super().__init__()
        times = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
        ours, theirs = (d.process.clock.log_snr(times) for d in (strong, weak))
        if not torch.allclose(ours, theirs):
            raise ValueError(
                "weak is under another schedule than strong, so the same time means another noise level; "
                "give both the same process (Preconditioned.under)"
            )
        self.strong, self.weak, self.scale, self.process = strong, weak, scale, strong.process

    def stronger(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        return self.strong(x_t, t, cond, previous)

    def weaker(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        return self.weak(x_t, t, cond, previous)
