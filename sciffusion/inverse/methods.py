r"""How to weigh the residual of an observation: MMPS, PiGDM, SDA and DPS, from the exact to the cheap.

All are approximations unless the data are Gaussian: each takes :math:`p(x_0\mid x_t)` for a Gaussian with the mean
:math:`\hat x_0` and some covariance C, so that :math:`V = JCJ^T + \Sigma_y`.

=======  ==========================================  ==================================  =======================
method   C                                           cost beside one evaluation          exact for Gaussian data
=======  ==========================================  ==================================  =======================
MMPS     the true one, :math:`\mathrm{Cov}[x_0|x_t]`  a vector-Jacobian product per        always
                                                     iteration, and one
PiGDM    of independent entries of a known variance  one vector-Jacobian product         for such data
SDA      :math:`V = \Sigma_y + \gamma\sigma^2/\alpha^2`  one vector-Jacobian product      no
DPS      none: a step of constant length             one vector-Jacobian product         no
=======  ==========================================  ==================================  =======================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciffusion.inverse.local import Local, gaussian_fields
from sciffusion.inverse.posterior import Method, Problem, by_field
from sciffusion.inverse.vectors import conjugate_gradient, dot, fieldwise, times
from sciffusion.layout import Layout
from sciffusion.state import Value, layout_of

__all__ = ["DPS", "MMPS", "SDA", "PiGDM"]


@final
@dataclass(frozen=True)
class MMPS(Method):
    r"""Moment matching: :math:`V = J\,\mathrm{Cov}[x_0\mid x_t]\,J^T + \Sigma_y`, solved by conjugate gradients.

    The covariance is never formed: the derivative of the denoiser applies it (:mod:`sciffusion.inverse.local`). Each of
    at most ``iters`` iterations costs one vector-Jacobian product; a sample whose residual has fallen by ``tol`` stops.
    With as many iterations as observations it is exact for Gaussian data and a linear operator; few serve a network,
    whose Jacobian is only nearly a covariance. Source: Rozet et al., Learning Diffusion Priors from Observations by
    Expectation Maximization, 2024 (one or a few iterations there).
    """

    iters: int = 8
    tol: float = 1e-6

    def weigh(self, problem: Problem) -> Value:
        def covariance(v: Value) -> Value:
            return problem.covariance(v, problem.local.covariance)

        return conjugate_gradient(covariance, problem.residual, self.iters, self.tol)


@final
@dataclass(frozen=True)
class PiGDM(Method):
    r"""Pseudo-inverse guidance: :math:`V = r_t^2 JJ^T + \Sigma_y`.

    :math:`r_t^2 = (s^{-2} + \alpha^2/\sigma^2n^2)^{-1}` is the variance of :math:`x_0` given :math:`x_t` if the entries
    of the data are independent with standard deviation s, ``sigma_data``, a number or one per field, under noise of
    scale n: exact for such data. The system is solved by conjugate gradients in y, which calls no network and gives the
    pseudo-inverse's result without one (and for ``noise_std=0`` as well). Source: Song et al., Pseudoinverse-Guided
    Diffusion Models, ICLR 2023, whose :math:`r_t^2` has s = 1.
    """

    sigma_data: float | Mapping[str, float] = 1.0
    iters: int = 100
    tol: float = 1e-8

    def weigh(self, problem: Problem) -> Value:
        def covariance(v: Value) -> Value:
            return problem.covariance(v, lambda u: self._data(problem.local, u))

        return conjugate_gradient(covariance, problem.residual, self.iters, self.tol)

    def _data(self, local: Local, u: Value) -> Value:
        out: dict[str | None, Tensor] = dict(local.process.fields(u))
        for name, process in gaussian_fields(local.process, local.x_t).items():
            v, layout = out[name], layout_of(local.x_t, name)
            scale = self.sigma_data
            s = torch.as_tensor(scale[str(name)] if isinstance(scale, Mapping) else scale)
            alpha, sigma = (layout.expand(c.to(v), v) for c in process.schedule(local.t))
            n = torch.as_tensor(process.space.noise_scale(v, layout)).to(v)
            r2 = (s * sigma * n) ** 2 / ((sigma * n) ** 2 + (alpha * s) ** 2)
            out[name] = process.space.project(r2 * v, layout)
        return local.process.rebuild(u, out)


@final
@dataclass(frozen=True)
class SDA(Method):
    r"""Score-based data assimilation: :math:`V = \Sigma_y + \gamma\,\sigma^2/\alpha^2`, a diagonal.

    A field of y goes by the schedule of the field of the same name, any other by the process's clock. ``gamma`` stands
    for :math:`J\,\mathrm{Cov}\,J^T` in units of :math:`\sigma^2/\alpha^2`: near 1 where data tell little about each
    other, smaller where they do (0.01 to 1 is common). ``gamma=0`` is the plain Gaussian likelihood of
    :math:`A(\hat x_0)`, which ignores that :math:`x_0` is uncertain: DPS before its step size was made constant, biased
    and over-confident. Source: Rozet & Louppe, Score-based Data Assimilation, 2023.
    """

    gamma: float = 0.01

    def __post_init__(self) -> None:
        if self.gamma < 0:
            raise ValueError(f"gamma must not be negative, got {self.gamma}")

    def weigh(self, problem: Problem) -> Value:
        local = problem.local
        fields = gaussian_fields(local.process, local.x_t)

        def added(name: str | None, v: Tensor, layout: Layout) -> Tensor:
            schedule = fields[name].schedule if name in fields else local.process.clock
            alpha, sigma = schedule(local.t)
            return layout.expand((self.gamma * sigma**2 / alpha**2).to(v), v)

        extra = by_field(added, problem.residual)
        return fieldwise(lambda r, s2, e: r / (s2 + e), problem.residual, problem.variance, extra)


@final
@dataclass(frozen=True)
class DPS(Method):
    r"""Diffusion posterior sampling: every evaluation moves the point by :math:`-\zeta\nabla_{x_t}\|y - A(\hat x_0)\|`.

    The norm, not its square, and each sample's own. The step is taken from the moved point with the prediction made
    before, as in the paper's algorithm 1, but for the factor of :math:`x_t` in the step (near 1 in a long run, where
    the paper's shift comes after the step). Its length does not know the noise of the observation, nor the step: the
    result depends on the number of steps (1000 in the paper), and is no sample of a posterior. On Gaussian data its
    spread comes out too small; use :class:`MMPS` where calibration counts. Source: Chung et al., Diffusion Posterior
    Sampling for General Noisy Inverse Problems, ICLR 2023.
    """

    zeta: float = 1.0
    moves = True

    def weigh(self, problem: Problem) -> Value:
        norm2 = dot(problem.residual, problem.residual)
        safe = torch.where(norm2 > 0, norm2, 1.0).sqrt()
        return times(self.zeta / safe, problem.residual)
