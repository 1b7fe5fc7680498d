r"""Euler-Maruyama in log-SNR: the plain discretisation of the reverse SDE.

In :math:`y = x/\alpha` and :math:`\ell=\log(\alpha/\sigma)` the process of :mod:`~sciffusion.samplers.exponential` is
:math:`dy = (1+\eta^2)(\hat x_0 - y)\,d\ell + \sqrt2\,\eta\,e^{-\ell}\,dW`, hence

.. math:: x_s = \alpha_s\bigl[y_t + (1+\eta^2)h(\hat x_0 - y_t) + \eta\,e^{-\ell_t}\sqrt{2h}\,\xi\bigr].

Unlike the exponential solvers it is not exact on data that are one point, and unstable where
:math:`(1+\eta^2)h > 2`. Source: Song et al., Score-based generative modeling through SDEs, 2021.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from sciffusion.samplers.ddim import ddim_rule
from sciffusion.samplers.exponential import Eta, check_eta, endless, eta_between
from sciffusion.solver import Level, Rule, Solver

__all__ = ["EulerMaruyama"]


@final
@dataclass(frozen=True)
class EulerMaruyama(Solver):
    """Euler-Maruyama: first (weak) order, one evaluation a step. A reference: DDIM is stable in any step.

    ``eta`` is a number or a function of the log-SNR: 1 the reverse SDE, 0 Euler's method for the flow. Steps from pure
    noise and to clean data are DDIM's. Raises ``ValueError`` if it is negative.
    """

    eta: Eta = 1.0
    order = 1

    def __post_init__(self) -> None:
        check_eta(self.eta)

    @property
    def stochastic(self) -> bool:
        return callable(self.eta) or self.eta > 0

    def rules(self, nodes: Sequence[Level], past: Sequence[Level], end: Level) -> tuple[Rule, ...]:
        t = nodes[0]
        eta = eta_between(self.eta, t, end)
        if endless(t, end):
            return (ddim_rule(t, end, min(eta, 1.0)),)
        h = end.half_log_snr - t.half_log_snr
        drift = (1 + eta**2) * h
        noise = end.alpha * eta * t.sigma / t.alpha * math.sqrt(2 * h)
        return (Rule(end.alpha / t.alpha * (1 - drift), (end.alpha * drift,), noise),)
