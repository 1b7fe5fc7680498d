r"""Posterior sampling without training: a denoiser that knows an observation :math:`y = A(x_0) + n`.

With :math:`\hat x_0 = E[x_0\mid x_t]`, the residual :math:`r = y - A(\hat x_0)` and :math:`J` the derivative of A at
:math:`\hat x_0`, all methods follow a gradient

.. math:: g = \Big(\frac{\partial\hat x_0}{\partial x_t}\Big)^TJ^T w \approx \nabla_{x_t}\log p(y\mid x_t),

and differ in how they weigh the residual: :math:`w = V^{-1} r` with a model V of :math:`\mathrm{Cov}[y\mid x_t]`. The
prediction then is :math:`\hat x_0 + (\sigma^2/\alpha)\,\Sigma\,g`, field by field with that field's schedule and noise
covariance (:mod:`sciffusion.inverse.local`). Where everything is linear and Gaussian and
:math:`V = JCJ^T + \Sigma_y` has the true :math:`C = \mathrm{Cov}[x_0\mid x_t]`, this is the exact
:math:`E[x_0\mid x_t, y]`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.inverse.local import Local, detached, evaluate, gaussian_fields
from sciffusion.inverse.operators import Linearised, Operator
from sciffusion.inverse.vectors import check_alike, fieldwise
from sciffusion.layout import Layout
from sciffusion.state import State, Value, batch_of, layout_of, take

__all__ = ["Deviation", "Method", "Posterior", "Problem", "by_field", "variance"]

Deviation = float | Tensor | Mapping[str, float | Tensor]
"""Standard deviation of an observation's noise: a number, a tensor that broadcasts to y, or either by field."""


@final
@dataclass(frozen=True)
class Problem:
    """What a method weighs: denoiser and operator near a point, the residual, the variance of the noise, like it."""

    local: Local
    operator: Linearised
    residual: Value
    variance: Value

    def covariance(self, v: Value, data: Callable[[Value], Value]) -> Value:
        r""":math:`(\Sigma_y + J C J^T)\,v`, where ``data`` applies C."""
        seen = self.operator.forward(data(self.operator.transpose(v)))
        return fieldwise(lambda x, s2, c: s2 * x + c, v, self.variance, seen)


class Method(ABC):
    """A way to weigh the residual. ``moves``: whether w moves the point x_t, rather than the prediction of x0."""

    moves: bool = False

    @abstractmethod
    def weigh(self, problem: Problem) -> Value:
        """w, like the residual."""


@final
class Posterior(Denoiser):
    r"""The denoiser of :math:`p(x_0\mid y)` made of one of :math:`p(x_0)`.

    Jump fields keep the inner prediction; operators may read their probabilities, as constants. Gradients are taken
    inside, whether the caller has them enabled or not, and lead out only if so.

    Args:
        denoiser: of the data, unconditional or with its condition bound.
        operator: A, linear or not.
        y: the observation, of the kind that ``operator`` returns. One sample of it serves a batch of any size.
        noise_std: standard deviation of n: a number, a tensor that broadcasts to y, or either by field of y.
        method: :class:`~sciffusion.inverse.MMPS`, ``PiGDM``, ``SDA`` or ``DPS``.

    Raises:
        ValueError: if the noise is negative, y differs in shape from what the operator gives, or no field is Gaussian.
    """

    def __init__(
        self, denoiser: Denoiser, operator: Operator, y: Value, noise_std: Deviation, method: Method
    ) -> None:
        super().__init__()
        self.denoiser, self.operator, self.method = denoiser, operator, method
        self.y, self.noise_std, self.process = operator.valid(y), noise_std, denoiser.process
        variance(self.y, noise_std)

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        if not gaussian_fields(self.process, x_t):
            raise ValueError(
                "Posterior needs a Gaussian field, through which gradients pass; condition classes by TwistedSMC"
            )
        local = evaluate(self.denoiser, x_t, t, cond, previous)
        operator = Linearised(self.operator, local.x0, differentiable=local.differentiable)
        y, batch = self.y, batch_of(x_t)
        if batch_of(y) == 1 != batch:
            y = take(y, torch.zeros(batch, dtype=torch.long))
        check_alike(y, operator.value, "y")
        residual = fieldwise(lambda a, b: a.to(b) - b, y, operator.value)
        problem = Problem(local, operator, residual, variance(residual, self.noise_std))
        g = local.gradient(operator.transpose(self.method.weigh(problem)))
        at, x0 = local.prediction.x_t, local.prediction.x0
        if self.method.moves:
            at = self._moved(at, g)
        else:
            x0 = self._moved(x0, local.displacement(g))
        keep = local.differentiable
        return Prediction(detached(x0, keep=keep), detached(at, keep=keep), t, self.process)

    def _moved(self, x: Value, by: Value) -> Value:
        fields, steps = self.process.fields(x), self.process.fields(by)
        moving = gaussian_fields(self.process, by)
        return self.process.rebuild(
            x, {k: v + steps[k] if k in moving else v for k, v in fields.items()}
        )


def by_field(fn: Callable[[str | None, Tensor, Layout], Tensor], x: Value) -> Value:
    """``fn(name, field, layout)`` for every field; a plain tensor is one field named None."""
    if type(x) is State:
        return x.replace({k: fn(k, v, x.layout(k)) for k, v in x.items()})
    assert isinstance(x, Tensor)
    return fn(None, x, layout_of(x))


def variance(y: Value, noise_std: Deviation) -> Value:
    """The variance of the noise in every entry of ``y``. Raises ``ValueError`` if one is negative or missing."""

    def field(name: str | None, v: Tensor, layout: Layout) -> Tensor:
        if isinstance(noise_std, Mapping):
            if name is None or name not in noise_std:
                raise ValueError(
                    f"noise_std names no deviation for the observed field {name!r}; it has {list(noise_std)}"
                )
            std = noise_std[name]
        else:
            std = noise_std
        std = torch.as_tensor(std, dtype=v.dtype, device=v.device)
        if bool((std < 0).any()):
            raise ValueError(f"noise_std must not be negative, got {float(std.min())}")
        return (std**2).expand(v.shape)

    return by_field(field, y)
