r"""What the exponential integrators in log-SNR share.

With :math:`\ell = \log(\alpha/\sigma)`, :math:`h = \ell_s - \ell_t` and an amount of noise :math:`\eta`, the exact
solution of the flow (:math:`\eta = 0`), the reverse SDE (:math:`\eta = 1`), and everything between and beyond is

.. math:: x_s = \frac{\sigma_s}{\sigma_t}e^{-\eta^2 h}x_t
   + (1+\eta^2)\,\alpha_s\int_{\ell_t}^{\ell_s} e^{-(1+\eta^2)(\ell_s-\ell)}\,\hat x_0(\ell)\,d\ell
   + \sigma_s\sqrt{1-e^{-2\eta^2h}}\;\xi.

The predictions are interpolated by a polynomial in :math:`\ell` and the integral is taken exactly, in float64.
Every :math:`\eta` leads through the same marginals, so it may change from step to step: stochastic interpolants with a
chosen diffusion (Albergo et al., 2023) are this equation with a function :math:`\eta` of the log-SNR.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from sciffusion.schedule import Schedule
from sciffusion.solver import Level, Rule

__all__ = [
    "PURE_NOISE",
    "Eta",
    "check_eta",
    "endless",
    "eta_between",
    "exponential_rule",
    "lagrange",
    "starting_nodes",
    "starting_rules",
]

Eta = float | Callable[[float], float]
"""An amount of noise: a number, or a function of the log-SNR, taken in the middle of each step."""

PURE_NOISE = 1e-12
"""An alpha below this counts as zero: its logarithm would only carry rounding errors."""

_SERIES = [[math.factorial(k) / math.factorial(k + m + 1) for m in range(14)] for k in range(5)]


def check_eta(eta: Eta, most: float = math.inf) -> None:
    """Raise ``ValueError`` for a number outside [0, ``most``]; of a function every value that is used is checked."""
    if not callable(eta) and not 0 <= eta <= most:
        if most < math.inf:
            raise ValueError(
                f"eta must lie between 0 (deterministic) and {most:g} (ancestral), got {eta}"
            )
        raise ValueError(f"eta must not be negative, got {eta}")


def eta_between(eta: Eta, t: Level, s: Level, most: float = math.inf) -> float:
    """The amount of noise of the step from ``t`` to ``s``; the step to clean data draws none."""
    if s.sigma == 0:
        return 0.0
    if not callable(eta):
        return eta
    ends = [2 * level.half_log_snr for level in (t, s) if level.alpha >= PURE_NOISE]
    value = float(eta(math.fsum(ends) / max(len(ends), 1)))
    check_eta(value, most)
    return value


def endless(t: Level, s: Level) -> bool:
    """Whether the step is infinitely long in log-SNR: from pure noise, or to clean data."""
    return s.sigma == 0 or t.alpha < PURE_NOISE


def moments(z: float, n: int) -> list[float]:
    r""":math:`\int_0^1 e^{-z(1-u)} u^k du` for k = 0..n-1."""
    if abs(z) < 0.5:
        # e^{-z(1-u)} expanded: sum_m (-z)^m / m! * B(k+1, m+1) = sum_m (-z)^m k! / (k+m+1)!
        return [math.fsum(c * (-z) ** m for m, c in enumerate(_SERIES[k])) for k in range(n)]
    out = [-math.expm1(-z) / z]
    for k in range(1, n):
        out.append((1 - k * out[-1]) / z)  # by parts
    return out


def lagrange(nodes: Sequence[float]) -> list[list[float]]:
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


def exponential_rule(t: Level, known: Sequence[Level], end: Level, eta: float = 0.0) -> Rule:
    """From level ``t`` to ``end`` by the polynomial through the predictions at the ``known`` levels, latest first."""
    h, rate = end.half_log_snr - t.half_log_snr, 1 + eta**2
    # in u = (l - l_t)/h the step runs from 0 to 1
    u = [(k.half_log_snr - t.half_log_snr) / h for k in known]
    weights = moments(rate * h, len(u))
    x0 = tuple(
        rate * h * end.alpha * math.fsum(c * w for c, w in zip(poly, weights, strict=True))
        for poly in lagrange(u)
    )
    noise = end.sigma * math.sqrt(-math.expm1(-2 * eta**2 * h))
    return Rule(end.sigma / t.sigma * math.exp(-(eta**2) * h), x0, noise)


def starting_nodes(clock: Schedule, t: float, s: float | None, order: int) -> tuple[float, ...]:
    """Where a multistep method of an order above 2 evaluates the denoiser in its first step.

    A first-order first step would hold it at order 2. Third order needs the prediction in the middle of the step (in
    log-SNR), fourth order one at two thirds of it, once to get there and once more to get it right.
    """
    if order < 3 or s is None or float(clock.alpha(t)) < PURE_NOISE:
        return (t,)
    begin, end = float(clock.log_snr(t)), float(clock.log_snr(s))
    if order == 3:
        return (t, float(clock.time((begin + end) / 2)))
    return (t, *2 * (float(clock.time(begin / 3 + 2 * end / 3)),))


def starting_rules(nodes: Sequence[Level], end: Level, eta: float = 0.0) -> tuple[Rule, ...]:
    """The rules of the first step with those nodes: of local order 3 with two evaluations, and 4 with three.

    With two, the second goes on from the first one's end, and so keeps the noise that was drawn up to there.
    """
    t, inner = nodes[0], nodes[-1]
    first = exponential_rule(t, [t], inner, eta)
    last = exponential_rule(t, [inner, t], end, eta)
    if len(nodes) == 2:
        rest = exponential_rule(inner, [inner], end, eta)
        now, old = last.x0
        return first, Rule(0.0, (now, old - rest.base * first.x0[0]), rest.noise, (rest.base,))
    again = exponential_rule(t, [inner, t], inner, eta)
    # 0 and 2/3 are the nodes of Radau: a straight line through them errs as a parabola does
    now, old = last.x0
    return first, again, Rule(last.base, (now, 0.0, old), last.noise)
