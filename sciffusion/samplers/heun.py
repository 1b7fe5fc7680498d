r"""Heun's second-order step, with optional churn (Karras et al., EDM, 2022, algorithms 1 and 2).

In :math:`y = x/\alpha`, :math:`\rho = \sigma/\alpha` the probability flow is :math:`dy/d\rho = (y-\hat x_0)/\rho`; the
step is the trapezoidal rule on it. From (almost) pure noise the same flow is integrated as
:math:`d(x/\sigma)/d(\alpha/\sigma) = \hat x_0`, which stays finite at :math:`\alpha_t = 0`. The last step, to clean
data, is first order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from sciffusion.samplers.ddim import ddim_rule
from sciffusion.schedule import Schedule
from sciffusion.solver import Level, Rule, Solver

__all__ = ["Heun"]


@final
@dataclass(frozen=True)
class Heun(Solver):
    r"""Heun: second order, two evaluations a step, deterministic at ``churn=0``.

    ``churn`` is EDM's S_churn: before a step, :math:`\sigma/\alpha` is raised by the factor
    :math:`1 + \min(\mathrm{churn}/n, \sqrt2 - 1)` with fresh noise. Raises ``ValueError`` if it is negative.
    """

    churn: float = 0.0
    order = 2
    evaluations = 2

    def __post_init__(self) -> None:
        if self.churn < 0:
            raise ValueError(f"churn must not be negative, got {self.churn}")

    @property
    def stochastic(self) -> bool:
        return self.churn > 0

    def nodes(
        self, clock: Schedule, t: float, s: float | None, steps: int, past: Sequence[float]
    ) -> tuple[float, ...]:
        gamma = min(self.churn / steps, math.sqrt(2) - 1)
        lifted = (
            min(float(clock.time(clock.log_snr(t) - 2 * math.log1p(gamma))), 1.0)
            if gamma and t < 1
            else t
        )
        return (lifted,) if s is None else (lifted, s)

    def rules(self, nodes: Sequence[Level], past: Sequence[Level], end: Level) -> tuple[Rule, ...]:
        t = nodes[0]
        euler = ddim_rule(t, end)
        if len(nodes) == 1:
            return (euler,)
        if t.alpha < 1e-3 * t.sigma:
            ratio = end.sigma / t.sigma
            half = (end.alpha - ratio * t.alpha) / 2
            return euler, Rule(ratio, (half, half))
        # y_s = y + h/2 [(y - D_t)/rho_t + (y_e - D_s)/rho_s], y_e = y + h (y - D_t)/rho_t, times alpha_s
        rho_t, rho_s = t.sigma / t.alpha, end.sigma / end.alpha
        h = rho_s - rho_t
        base = 1 + h / 2 * (1 / rho_t + (1 + h / rho_t) / rho_s)
        now = -h / 2 / rho_s
        first = h / 2 * (-1 / rho_t - h / rho_t / rho_s)
        return euler, Rule(end.alpha * base / t.alpha, (end.alpha * now, end.alpha * first))
