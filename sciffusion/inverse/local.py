r"""A denoiser near one point: its prediction there, and the covariance of the data given :math:`x_t`.

The derivative of the posterior mean is the posterior covariance. With a schedule, and noise of covariance
:math:`\Sigma_j = L_jL_j^T`, of its own in every field j,

.. math:: \mathrm{Cov}[x_0^j, x_0^i\mid x_t]
   = \frac{\sigma_j^2}{\alpha_j}\,\Sigma_j\Big(\frac{\partial\hat x_0^i}{\partial x_t^j}\Big)^T,

and a gradient with respect to :math:`x_t` moves the prediction by the same factor:
:math:`E[x_0^j\mid x_t, y] = \hat x_0^j + (\sigma_j^2/\alpha_j)\,\Sigma_j\nabla_{x_t^j}\log p(y\mid x_t)` (Tweedie's
formula, of first and second order). One transposed product with the derivative of the denoiser applies either.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.inverse.operators import pull, tensors
from sciffusion.inverse.vectors import fieldwise
from sciffusion.process import Gaussian, Process
from sciffusion.space import GaussianSpace
from sciffusion.state import Value, layout_of

__all__ = ["Local", "evaluate"]


@final
@dataclass(frozen=True)
class Local:
    """A prediction with its graph: ``x0`` and the point ``x_t`` that it depends on, at the time ``t``."""

    prediction: Prediction
    x0: Value
    x_t: Value
    t: Tensor
    process: Process
    differentiable: bool

    def gradient(self, u: Value) -> Value:
        r""":math:`(\partial\hat x_0/\partial x_t)^T u`, like x_t; zero for jump fields."""
        return pull(self.x0, self.x_t, u, differentiable=self.differentiable)

    def displacement(self, gradient: Value) -> Value:
        r""":math:`(\sigma^2/\alpha)\,\Sigma\,g` of every Gaussian field: what a gradient in x_t does to x0."""
        out: dict[str | None, Tensor] = dict(self.process.fields(gradient))
        for name, process in gaussian_fields(self.process, self.x_t).items():
            layout, g = layout_of(self.x_t, name), out[name]
            alpha, sigma = process.schedule(self.t)
            factor = layout.expand((sigma**2 / alpha).to(g), g)
            assert isinstance(process.space, GaussianSpace)
            out[name] = process.space.covariance(layout.clean(factor * g), layout)
        return self.process.rebuild(gradient, out)

    def covariance(self, u: Value) -> Value:
        r""":math:`\mathrm{Cov}[x_0\mid x_t]\,u`."""
        return self.displacement(self.gradient(u))


def gaussian_fields(process: Process, x: Value) -> dict[str | None, Gaussian]:
    """The Gaussian processes of a value's fields. Raises ``ValueError`` for one whose noise is not Gaussian."""
    out: dict[str | None, Gaussian] = {}
    for name in process.fields(x):
        field = process.field(name)
        if not isinstance(field, Gaussian):
            continue
        if not isinstance(field.space, GaussianSpace):
            raise ValueError(
                f"Tweedie's formula needs Gaussian noise, and {field.space} of field {name!r} has none"
            )
        out[name] = field
    return out


def evaluate(
    denoiser: Denoiser, x_t: Value, t: Tensor, cond: Condition, previous: Value | None
) -> Local:
    r"""Call a denoiser so that its prediction can be differentiated in the Gaussian fields of ``x_t``.

    At :math:`\alpha = 0` the derivative vanishes and its factor is infinite. Times so near that
    :math:`\alpha/\sigma` falls below the root of the precision are moved back to where it does not, which changes the
    prediction by no more than that root. Graphs lead out of here only where the caller has gradients enabled.
    """
    process = denoiser.process
    tracked = [v for v in process.fields(x_t).values() if v.requires_grad]
    outer = torch.is_grad_enabled() and (
        bool(tracked) or any(p.requires_grad for p in denoiser.parameters())
    )
    moving = gaussian_fields(process, x_t)
    t = torch.as_tensor(t)
    leaves: dict[str | None, Tensor] = {}
    for name, x in process.fields(x_t).items():
        leaves[name] = x
        if name not in moving:
            continue
        linked = outer and x.requires_grad
        leaves[name] = x if linked else x.detach().clone().requires_grad_()
        limit = moving[name].schedule.time(math.log(torch.finfo(x.dtype).eps))
        t = torch.minimum(t, limit.to(t))
    with torch.enable_grad():
        leaf = process.rebuild(x_t, leaves)
        prediction = denoiser(leaf, t, cond, previous)
        x0 = {k: v if k in moving else v.detach() for k, v in process.fields(prediction.x0).items()}
    at = x_t if prediction.x_t is leaf else detached(prediction.x_t, keep=outer)
    return Local(
        Prediction(prediction.x0, at, prediction.t, process),
        process.rebuild(prediction.x0, x0),
        leaf,
        t,
        process,
        outer,
    )


def detached(x: Value, *, keep: bool = False) -> Value:
    """``x`` without its graph, unless it is to keep it; ``x`` itself where it has none."""
    if keep or not any(v.requires_grad for v in tensors(x)):
        return x
    return fieldwise(Tensor.detach, x)
