r"""ER-SDE: the extended reverse SDE, whose noise is chosen by a function of the noise level.

In :math:`y = x/\alpha`, :math:`\rho=\sigma/\alpha`, with a function :math:`\phi` for which :math:`\phi(\rho)/\rho` does
not fall, the exact solution is

.. math:: y_s = \frac{\phi_s}{\phi_t}y_t
   + \int_{\rho_s}^{\rho_t}\frac{\phi_s\,\phi'(\rho)}{\phi(\rho)^2}\,\hat x_0(\rho)\,d\rho
   + \sqrt{\rho_s^2-\rho_t^2\,(\phi_s/\phi_t)^2}\;\xi ,

:math:`\phi=\rho` being the flow and :math:`\phi=\rho^{1+\eta^2}` the SDE of :mod:`~sciffusion.samplers.exponential`.
The predictions are interpolated by the polynomial in :math:`\rho` through the last of them (the paper's Taylor form,
with derivatives that are right for steps of any length). Source: Cui et al., Elucidating the solution space of extended
reverse-time SDE for diffusion models, 2023.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import final

from sciffusion.samplers.adams import Adams
from sciffusion.samplers.ddim import ddim_rule
from sciffusion.samplers.exponential import PURE_NOISE, endless, lagrange
from sciffusion.samplers.quadrature import gauss
from sciffusion.solver import Level, Rule

__all__ = ["ERSDE", "er_sde_5"]


def er_sde_5(rho: float) -> float:
    r"""The paper's recommended scale, :math:`\phi = \rho\,(e^{\rho^{0.3}} + 10)`, as :math:`\log(\phi/\rho)`."""
    power = rho**0.3
    return power + math.log1p(10 * math.exp(-power))


@final
@dataclass(frozen=True)
class ERSDE(Adams):
    r"""Extended reverse SDE solver of order 1 to 3: one evaluation a step; noise where it helps, little near the data.

    ``scale`` is :math:`\log(\phi(\rho)/\rho)` as a function of :math:`\rho`, smooth; the noise of a step is
    :math:`\sqrt{1-e^{-2\,(\mathrm{scale}_t-\mathrm{scale}_s)}}` of the noise level. The weak order is 2 at most. Steps
    from pure noise and to clean data are first order. Raises ``ValueError`` for another order, or, when a run begins,
    for a scale that falls with :math:`\rho`.
    """

    order: int = 2
    scale: Callable[[float], float] = field(default=er_sde_5, repr=False)

    @property
    def stochastic(self) -> bool:
        return True

    def rules(self, nodes: Sequence[Level], past: Sequence[Level], end: Level) -> tuple[Rule, ...]:
        t = nodes[0]
        if end.sigma == 0:
            return (ddim_rule(t, end),)
        start, stop = t.sigma / max(t.alpha, PURE_NOISE), end.sigma / end.alpha
        fall = self.scale(start) - self.scale(stop)
        if fall < 0:
            raise ValueError(
                f"scale must not fall with rho, but scale({start:.3g}) < scale({stop:.3g}); "
                "phi(rho)/rho must rise"
            )
        if endless(t, end):
            return (ddim_rule(t, end, math.sqrt(-math.expm1(-2 * fall))),)
        known = [t, *(p for p in past[: self.history] if p.alpha >= PURE_NOISE)]
        # in u = (rho - rho_t)/(rho_s - rho_t) the step runs from 0 to 1
        u = [(k.sigma / k.alpha - start) / (stop - start) for k in known]
        weights = [-math.expm1(-fall) * stop / start + (1 - stop / start)]
        weights += [1 - k * self._moment(k - 1, start, stop) for k in range(1, len(u))]
        x0 = tuple(
            end.alpha * math.fsum(c * w for c, w in zip(poly, weights, strict=True))
            for poly in lagrange(u)
        )
        noise = end.sigma * math.sqrt(-math.expm1(-2 * fall))
        return (Rule(end.sigma / t.sigma * math.exp(-fall), x0, noise),)

    def _moment(self, k: int, start: float, stop: float) -> float:
        r""":math:`\int_0^1 u^k\,\phi_s/\phi(\rho(u))\,du`, in equal parts of log rho, which phi is smooth in."""
        h, at_stop, parts = math.log(stop / start), self.scale(stop), []
        for x, w in gauss(24):
            rho = start * math.exp(h * x)
            u = (rho - start) / (stop - start)
            # phi_s/phi du = rho_s/rho e^{..} d rho/(rho_s - rho_t), and d rho = rho h dx
            parts.append(w * u**k * stop * h / (stop - start) * math.exp(at_stop - self.scale(rho)))
        return math.fsum(parts)
