"""Guidance towards any differentiable property, through the denoiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.guidance.base import Scale, scale_at
from sciffusion.guidance.gradient import detached, differentiate, leaves, reweighted, score_shift
from sciffusion.guidance.smoothing import Smoothing, potential
from sciffusion.process import Gaussian, Jump
from sciffusion.state import Value, layout_of

__all__ = ["Energy"]


@final
class Energy(Denoiser):
    r"""Towards :math:`p(x_0)\,e^{-wE(x_0)}`: the score less the gradient of the prediction's energy.

    .. math:: \hat x_0 \leftarrow \hat x_0 - w\,\frac{\sigma_t^2}{\alpha_t}\,\Sigma\,\nabla_{x_t}E(\hat x_0(x_t))
              = \hat x_0 - w\,\mathrm{Cov}[x_0\mid x_t]\,\nabla E(\hat x_0)

    The second form is the first one's value for an exact denoiser, by Tweedie's formula. Exact for Gaussian data and a
    linear energy; else the energy of the mean stands for the mean of the energy, which ``smoothing`` mends. Jump fields
    are reweighted, :math:`p \leftarrow p\,e^{-w\,\partial E/\partial p}`: exact where the energy is linear in
    independent classes. At pure noise (alpha = 0) Gaussian fields are not guided. One call, and its backward pass.
    Source: Chung et al., DPS, 2023; Yu et al., FreeDoM, 2023; Song et al., Loss-Guided Diffusion Models, 2023.

    Samplers run it without gradients of their own, and none is kept; with ``grad=True`` they flow through the guidance.

    Args:
        denoiser: the model.
        fn: the energy of clean values, ``fn(x0)``, (B,), differentiable; classes come as probabilities. A sample's
            energy must depend on that sample alone, and on nothing outside the samples.
        scale: w: a number, one per sample (B,), or a function of the log-SNR; at 0 the model is called alone.
        smoothing: average the energy over the width of the posterior.

    Raises:
        ValueError: when called: ``fn`` does not return one differentiable number per sample, or depends on a field
            whose process is neither Gaussian nor a jump.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        fn: Callable[[Value], Tensor],
        scale: Scale = 1.0,
        *,
        smoothing: Smoothing | None = None,
    ) -> None:
        super().__init__()
        self.denoiser, self.fn, self.scale = denoiser, fn, scale
        self.smoothing, self.process = smoothing, denoiser.process

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        t, keep, process = torch.as_tensor(t), torch.is_grad_enabled(), self.process
        scale = scale_at(self.scale, process.clock, t)
        if not isinstance(scale, Tensor) and scale == 0:
            return self.denoiser(x_t, t, cond, previous)
        with torch.enable_grad():
            at = leaves(process, x_t, keep=keep)
            plain = self.denoiser(at, t, cond, previous)
            # a prediction that depends on no gradient yet (of classes, say) is given one
            x0 = leaves(process, plain.x0, keep=True)
            energy = potential(self.fn, scale, self.smoothing, process, x0, t)
            points, fields = process.fields(at), dict(process.fields(x0))
            targets = {
                k: points[k] if isinstance(process.field(k), Gaussian) else v
                for k, v in fields.items()
            }
            grads = differentiate(energy, targets, x_t, "fn", keep=keep)
            for k, g in grads.items():
                field, layout = process.field(k), layout_of(x_t, k)
                if isinstance(field, Gaussian):
                    fields[k] = fields[k] - score_shift(field, g, t, layout)
                elif isinstance(field, Jump):
                    fields[k] = reweighted(fields[k], g)
                else:
                    raise ValueError(
                        f"fn depends on the field {k!r}: energies guide Gaussian and jump fields"
                    )
        where = x_t if plain.x_t is at else plain.x_t
        out = Prediction(process.rebuild(x0, fields), where, t, process)
        return out if keep else detached(out)
