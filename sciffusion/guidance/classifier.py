"""Guidance by a classifier of noised data."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.guidance.base import Scale, edit_fields, scale_at
from sciffusion.guidance.gradient import differentiate, leaves, score_shift
from sciffusion.layout import Layout
from sciffusion.process import Gaussian
from sciffusion.state import Value

__all__ = ["Classifier"]


@final
class Classifier(Denoiser):
    r"""Classifier guidance: the score plus :math:`w\,\nabla_{x_t}\log p(c\mid x_t)`.

    .. math:: \hat x_0 \leftarrow \hat x_0 + w\,\frac{\sigma_t^2}{\alpha_t}\,\Sigma\,\nabla_{x_t}\log p(c\mid x_t)

    With the exact classifier and w = 1 the outcome is the exact conditional prediction. Jump fields stay as they are.
    At pure noise (alpha = 0) nothing is classified. Source: Dhariwal & Nichol, Diffusion Models Beat GANs, 2021.

    Args:
        denoiser: the unconditional model.
        log_prob: ``log_prob(x_t, t)``, differentiable, (B,): a classifier trained on noised data. The time comes as the
            denoiser gets it: (), (B,) or per element.
        scale: w; at 0 the classifier is not called.

    Raises:
        ValueError: when called: ``log_prob`` does not return one differentiable number per sample.
    """

    def __init__(
        self, denoiser: Denoiser, log_prob: Callable[[Value, Tensor], Tensor], scale: Scale = 1.0
    ) -> None:
        super().__init__()
        self.denoiser, self.log_prob, self.scale = denoiser, log_prob, scale
        self.process = denoiser.process

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        t, keep = torch.as_tensor(t), torch.is_grad_enabled()
        scale = scale_at(self.scale, self.process.clock, t)
        out = self.denoiser(x_t, t, cond, previous)
        if not isinstance(scale, Tensor) and scale == 0:
            return out
        with torch.enable_grad():
            at = leaves(self.process, x_t, keep=keep)
            floats = {k: v for k, v in self.process.fields(at).items() if v.requires_grad}
            grads = differentiate(self.log_prob(at, t), floats, x_t, "log_prob", keep=keep)
        known = {k: grads.get(k, torch.zeros_like(v)) for k, v in self.process.fields(at).items()}

        def shifted(field: Gaussian, layout: Layout, x0: Tensor, grad: Tensor) -> Tensor:
            w = torch.as_tensor(scale, dtype=x0.dtype, device=x0.device)
            return x0 + layout.expand(w, x0) * score_shift(field, grad, t, layout)

        x0 = edit_fields(self.process, shifted, out.x0, self.process.rebuild(x_t, known), like=x_t)
        return Prediction(x0, out.x_t, t, self.process)
