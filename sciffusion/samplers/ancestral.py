r"""DDPM's ancestral step, with the variance that is right for one point, or for Gaussian data.

.. math:: x_s = A x_t + B\hat x_0 + \sqrt{C^2 + B^2\,\mathrm{Var}[x_0\mid x_t]}\;\xi,

A, B and C being those of DDIM with :math:`\eta = 1`. By the law of total variance this is how :math:`x_s` given
:math:`x_t` is spread, with :math:`\mathrm{Var}[x_0\mid x_t] = s^2\sigma_t^2/(\alpha_t^2s^2+\sigma_t^2)` for data of the
standard deviation s. On a variance preserving schedule s = 0 and s = 1 give the two variances of DDPM, the lower bound
:math:`\tilde\beta_t` and the upper one :math:`\beta_t`. Source: Ho et al., DDPM, 2020; Bao et al., Analytic-DPM, 2022.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from sciffusion.samplers.ddim import ddim_rule
from sciffusion.solver import Level, Rule, Solver

__all__ = ["Ancestral"]


@final
@dataclass(frozen=True)
class Ancestral(Solver):
    """DDPM's ancestral step: first (weak) order; many steps of it forgive an imperfect denoiser.

    ``sigma_data`` is 0 for DDPM's smaller variance, which keeps the noise level that the denoiser is told. A positive
    one is exact for Gaussian data of that standard deviation, in any number of steps (but for the last, which draws
    nothing); 1 is DDPM's larger variance. Raises ``ValueError`` if it is negative.
    """

    sigma_data: float = 0.0
    order = 1

    def __post_init__(self) -> None:
        if self.sigma_data < 0:
            raise ValueError(f"sigma_data must not be negative, got {self.sigma_data}")

    @property
    def stochastic(self) -> bool:
        return True

    def rules(self, nodes: Sequence[Level], past: Sequence[Level], end: Level) -> tuple[Rule, ...]:
        t, rule = nodes[0], ddim_rule(nodes[0], end, 1.0)
        if end.sigma == 0 or self.sigma_data == 0:
            return (rule,)
        (b,) = rule.x0
        deviation = self.sigma_data * t.sigma / math.hypot(t.alpha * self.sigma_data, t.sigma)
        return (Rule(rule.base, rule.x0, math.hypot(rule.noise, b * deviation)),)
