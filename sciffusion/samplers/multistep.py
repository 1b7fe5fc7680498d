r"""Multistep exponential integrators in log-SNR: DPM-Solver++ 1 to 3, with noise if wanted.

With :math:`\ell = \log(\alpha/\sigma)`, :math:`h = \ell_s - \ell_t` and a noise level :math:`\eta`, the exact
solution is

.. math:: x_s = \frac{\sigma_s}{\sigma_t}e^{-\eta^2 h}x_t
   + (1+\eta^2)\,\alpha_s\int_{\ell_t}^{\ell_s} e^{-(1+\eta^2)(\ell_s-\ell)}\,\hat x_0(\ell)\,d\ell
   + \sigma_s\sqrt{1-e^{-2\eta^2h}}\;\xi.

The predictions are interpolated by the polynomial in :math:`\ell` through the last ``order`` of them and the integral
is taken exactly. :math:`\eta = 0`: the ODE; :math:`\eta = 1`: the reverse SDE, whose first-order form is ancestral
sampling. Source: Lu et al., DPM-Solver++, 2022; Xue et al., SA-Solver, 2023.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from sciffusion.samplers.ddim import ddim_rule
from sciffusion.schedule import Schedule
from sciffusion.solver import Level, Rule, Solver

__all__ = ["Multistep"]

_PURE_NOISE = 1e-12
"""An alpha below this counts as zero: its logarithm would only carry rounding errors."""


_SERIES = [[math.factorial(k) / math.factorial(k + m + 1) for m in range(14)] for k in range(3)]


def _moments(z: float, n: int) -> list[float]:
    r""":math:`\int_0^1 e^{-z(1-u)} u^k du` for k = 0..n-1."""
    if abs(z) < 0.5:
        # e^{-z(1-u)} expanded: sum_m (-z)^m / m! * B(k+1, m+1) = sum_m (-z)^m k! / (k+m+1)!
        return [math.fsum(c * (-z) ** m for m, c in enumerate(_SERIES[k])) for k in range(n)]
    out = [-math.expm1(-z) / z]
    for k in range(1, n):
        out.append((1 - k * out[-1]) / z)  # by parts
    return out


def _lagrange(nodes: Sequence[float]) -> list[list[float]]:
    """Coefficients, lowest power first, of the Lagrange polynomials of the nodes."""
    polys = []
    for j, xj in enumerate(nodes):
        poly = [1.0]
        for m, xm in enumerate(nodes):
            if m != j:
                shifted = [0.0, *poly]
                poly = [
                    (a - xm * b) / (xj - xm) for a, b in zip(shifted, [*poly, 0.0], strict=True)
                ]
        polys.append(poly)
    return polys


@final
@dataclass(frozen=True)
class Multistep(Solver):
    """Multistep solver of order 1, 2 or 3: one evaluation a step; the default for a good denoiser in few steps.

    Order 3 begins with a two-evaluation step (DPM-Solver++ 2S), without which its first step would hold it at order 2.
    The step to clean data, infinitely long in log-SNR, is first order, and so is one from pure noise, after which a run
    of any order converges with order 2 at most. With noise the weak order is at most 2 as well.
    Raises ``ValueError`` for another order or a negative ``eta``.
    """

    order: int = 2
    eta: float = 0.0

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3):
            raise ValueError(f"order must be 1, 2 or 3, got {self.order}")
        if self.eta < 0:
            raise ValueError(f"eta must not be negative, got {self.eta}")

    @property
    def history(self) -> int:  # type: ignore[override]
        """How many earlier predictions it uses."""
        return self.order - 1

    @property
    def fewest(self) -> int:  # type: ignore[override]
        """As many steps as predictions in its polynomial."""
        return self.order

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    def nodes(
        self, clock: Schedule, t: float, s: float | None, steps: int, past: Sequence[float]
    ) -> tuple[float, ...]:
        if self.order < 3 or past or s is None or float(clock.alpha(t)) < _PURE_NOISE:
            return (t,)
        return (t, float(clock.time((clock.log_snr(t) + clock.log_snr(s)) / 2)))

    def rules(self, nodes: Sequence[Level], past: Sequence[Level], end: Level) -> tuple[Rule, ...]:
        t = nodes[0]
        if end.sigma == 0 or t.alpha < _PURE_NOISE:  # infinite steps in log-SNR
            return (ddim_rule(t, end, min(self.eta, 1.0)),)
        if len(nodes) == 2:
            return self._rule(t, [t], nodes[1]), self._rule(t, [nodes[1], t], end)
        known = [p for p in past[: self.history] if p.alpha >= _PURE_NOISE]
        return (self._rule(t, [t, *known], end),)

    def _rule(self, t: Level, known: Sequence[Level], end: Level) -> Rule:
        """From level ``t`` to ``end`` by the polynomial through the predictions at the ``known`` levels."""
        h, rate = end.half_log_snr - t.half_log_snr, 1 + self.eta**2
        # in u = (l - l_t)/h the step runs from 0 to 1
        u = [(k.half_log_snr - t.half_log_snr) / h for k in known]
        weights = _moments(rate * h, len(u))
        x0 = tuple(
            rate * h * end.alpha * math.fsum(c * w for c, w in zip(poly, weights, strict=True))
            for poly in _lagrange(u)
        )
        noise = end.sigma * math.sqrt(-math.expm1(-2 * self.eta**2 * h))
        return Rule(end.sigma / t.sigma * math.exp(-(self.eta**2) * h), x0, noise)
