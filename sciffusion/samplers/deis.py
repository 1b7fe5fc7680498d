r"""DEIS and linear multistep methods: polynomials of the predicted noise.

In :math:`y = x/\alpha`, :math:`\rho=\sigma/\alpha` the flow is :math:`dy/d\rho = \hat e`. The predicted noises
:math:`\hat e_j = (x_j-\alpha_j\hat x_0^{(j)})/\sigma_j` of the last evaluations are interpolated and the integral is
taken exactly, in float64:

.. math:: x_s = x_s^{DDIM} + \sum_{j\ge1} w_j(\hat e_j - \hat e_0),\qquad
          w_j = \alpha_s\int_{\rho_t}^{\rho_s} L_j\,d\rho ,

:math:`L_j` the Lagrange polynomials in a time u: for DEIS :math:`u = \sigma/(\alpha+\sigma)` (the time of rectified
flow), for LMS :math:`u = \rho`. Source: Zhang and Chen, DEIS, 2023 (tAB and :math:`\rho`\ AB); linear multistep methods
with variable steps: Hairer, Norsett and Wanner, Solving ODEs I, III.5.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from sciffusion.samplers.adams import Adams
from sciffusion.samplers.ddim import ddim_rule, ddim_rules
from sciffusion.samplers.exponential import (
    PURE_NOISE,
    endless,
    starting_nodes,
    starting_rules,
)
from sciffusion.samplers.quadrature import gauss
from sciffusion.schedule import Schedule
from sciffusion.solver import Level, Number, Rule

__all__ = ["DEIS", "LMS"]


class _NoiseAdams(Adams):
    """Adams's method on the predicted noise."""

    highest = 4

    @property
    def stochastic(self) -> bool:
        return False

    def nodes(
        self, clock: Schedule, t: float, s: float | None, steps: int, past: Sequence[float]
    ) -> tuple[float, ...]:
        return (t,) if past else starting_nodes(clock, t, s, self.order)

    @abstractmethod
    def time(self, level: Level) -> float:
        """The time u in which the noise is interpolated."""

    @abstractmethod
    def measure(self, t: Level, s: Level) -> list[tuple[float, float]]:
        """Pairs of (u, weight): a rule for integrals over rho from ``t`` to ``s``."""

    def rules(self, nodes: Sequence[Level], past: Sequence[Level], end: Level) -> tuple[Rule, ...]:
        t, plain = nodes[0], ddim_rule(nodes[0], end)
        if endless(t, end):
            return ddim_rules(nodes, end)
        if len(nodes) > 1:
            return starting_rules(nodes, end)
        # of two evaluations at one level the later is the better: the start of order 4
        known = {0: t}
        for j, p in enumerate(past[: self.history], start=1):
            if p.alpha >= PURE_NOISE and p not in known.values():
                known[j] = p
        w = self._weights(known, end)
        base = plain.base - math.fsum(w.values()) / t.sigma
        x0: list[Number] = [0.0] * (max(known) + 1)
        values = [0.0] * len(x0)
        x0[0] = plain.x0[0] + math.fsum(w.values()) * t.alpha / t.sigma
        for j, c in w.items():
            x0[j], values[j] = -c * known[j].alpha / known[j].sigma, c / known[j].sigma
        return (Rule(base, tuple(x0), 0.0, tuple(values) if w else ()),)

    def _weights(self, known: dict[int, Level], end: Level) -> dict[int, float]:
        """The integrals of the Lagrange polynomials of all but the present level, times alpha_s."""
        u = {j: self.time(k) for j, k in known.items()}
        measure = self.measure(known[0], end)
        return {
            j: end.alpha
            * math.fsum(
                w * math.prod((at - u[m]) / (u[j] - u[m]) for m in known if m != j)
                for at, w in measure
            )
            for j in known
            if j > 0
        }


@final
@dataclass(frozen=True)
class DEIS(_NoiseAdams):
    r"""DEIS-tAB of order 1 to 4: one evaluation a step; for a well-trained denoiser in few steps, 5 to 10.

    Unlike methods that interpolate x0 it is sensitive to errors of the prediction at high noise. Orders 3 and 4 begin
    with a step of 2 or 3 evaluations. The steps from pure noise and to clean data are first order, and the former holds
    a run at order 2. Raises ``ValueError`` for another order.
    """

    order: int = 3

    def time(self, level: Level) -> float:
        return level.sigma / (level.alpha + level.sigma)

    def measure(self, t: Level, s: Level) -> list[tuple[float, float]]:
        start, h = -t.half_log_snr, t.half_log_snr - s.half_log_snr
        rhos = [(math.exp(start + h * x), w * h) for x, w in gauss(32)]
        return [(rho / (1 + rho), w * rho) for rho, w in rhos]  # d rho = rho d(log rho)


@final
@dataclass(frozen=True)
class LMS(_NoiseAdams):
    r"""Linear multistep method of order 1 to 4 in :math:`\sigma/\alpha`: one evaluation a step.

    The classic of EDM-like denoisers (Katherine Crowson's k-diffusion), with the coefficients of variable steps; as an
    order test it is the plainest. Like DEIS in everything else.
    """

    order: int = 4

    def time(self, level: Level) -> float:
        return level.sigma / level.alpha

    def measure(self, t: Level, s: Level) -> list[tuple[float, float]]:
        start = t.sigma / t.alpha
        h = s.sigma / s.alpha - start
        return [(start + h * x, w * h) for x, w in gauss(2)]  # exact up to the third degree
