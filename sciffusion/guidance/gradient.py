r"""How the gradient of a number per sample becomes a change of the prediction.

The score of a field is :math:`\nabla\log p_t = \Sigma^{-1}(\alpha\hat x_0 - x_t)/\sigma^2` with the covariance
:math:`\Sigma` of its noise, so a score changed by g is a prediction changed by :math:`(\sigma^2/\alpha)\,\Sigma g`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from sciffusion.denoiser import Prediction
from sciffusion.layout import Layout
from sciffusion.process import Gaussian, Process
from sciffusion.process.base import LOG_SNR_RANGE
from sciffusion.space import GaussianSpace
from sciffusion.state import Value, batch_of, layout_of

__all__ = [
    "SigmaData",
    "detached",
    "differentiate",
    "leaves",
    "reweighted",
    "score_shift",
    "white_variance",
]

SigmaData = float | Tensor | Mapping[str, float | Tensor]
"""The standard deviation of data, measured on them: a number, a tensor that broadcasts to the field, or by field."""


def leaves(process: Process, x: Value, *, keep: bool) -> Value:
    """``x`` with floating-point fields that a gradient can be taken of: themselves, if they have one to ``keep``.

    The others become copies, with zeros where no sample lies: garbage there would spoil the gradients of products.
    """
    out = dict(process.fields(x))
    for k, v in out.items():
        if v.is_floating_point() and not (keep and v.requires_grad):
            out[k] = layout_of(x, k).clean(v.detach()).requires_grad_()
    return process.rebuild(x, out)


def differentiate(
    numbers: Tensor, at: Mapping[str | None, Tensor], like: Value, what: str, *, keep: bool
) -> dict[str | None, Tensor]:
    """The gradient of each sample's number with respect to each field that it depends on.

    Raises:
        ValueError: not one number per sample, or numbers without a gradient.
    """
    if numbers.shape != (batch_of(like),):
        raise ValueError(
            f"{what} must return one number per sample, ({batch_of(like)},), got {tuple(numbers.shape)}"
        )
    if not numbers.requires_grad:
        raise ValueError(
            f"{what} returned numbers without a gradient; compute them from its argument by differentiable operations, "
            "and under torch.no_grad, not torch.inference_mode"
        )
    found = torch.autograd.grad(
        numbers.sum(), list(at.values()), create_graph=keep, allow_unused=True
    )
    return {k: g for k, g in zip(at, found, strict=True) if g is not None}


def score_shift(field: Gaussian, grad: Tensor, t: Tensor, layout: Layout) -> Tensor:
    r""":math:`(\sigma^2/\alpha)\,\Sigma g`; zero below the log-SNRs that networks see: gradients tell nothing there.

    Raises:
        ValueError: the noise is not Gaussian, so its score is not linear in the prediction.
    """
    if not isinstance(field.space, GaussianSpace):
        raise ValueError(
            f"the score under the noise of {type(field.space).__name__} does not tell the prediction; "
            "guide the prediction itself (MeanEnergy)"
        )
    alpha, sigma = field.schedule(t)
    seen = alpha > sigma * math.exp(-LOG_SNR_RANGE / 2)
    factor = torch.where(seen, sigma**2 / alpha, 0.0).to(grad)
    return layout.expand(factor, grad) * field.space.covariance(grad, layout)


def white_variance(
    field: Gaussian, name: str | None, sigma_data: SigmaData, x: Tensor, t: Tensor, layout: Layout
) -> Tensor:
    r""":math:`(s^{-2} + \alpha^2/(n\sigma)^2)^{-1}`: of white data given their noised value, broadcastable to ``x``."""
    if isinstance(sigma_data, Mapping):
        if name is None or name not in sigma_data:
            raise ValueError(
                f"sigma_data names no scale for the field {name!r}; measure it on the data"
            )
        sigma_data = sigma_data[name]
    alpha, sigma = (layout.expand(c.to(x), x) for c in field.schedule(t))
    scales = sigma_data, field.space.noise_scale(x, layout)
    s, n = (torch.as_tensor(c, dtype=x.dtype, device=x.device) for c in scales)
    return (s * n * sigma) ** 2 / ((alpha * s) ** 2 + (n * sigma) ** 2)


def reweighted(p: Tensor, grad: Tensor) -> Tensor:
    r"""Probabilities :math:`\propto p\,e^{-g}`."""
    return (p.clamp(min=1e-12).log() - grad).softmax(-1)


def detached(out: Prediction) -> Prediction:
    """The same prediction without a history."""

    def detach(x: Value) -> Value:
        fields = out.process.fields(x)
        return out.process.rebuild(x, {k: v.detach() for k, v in fields.items()})

    return Prediction(detach(out.x0), detach(out.x_t), out.t, out.process)
