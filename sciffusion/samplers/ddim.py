r"""First-order steps: DDIM with any amount of noise.

.. math:: x_s = \alpha_s\hat x_0 + \sqrt{\sigma_s^2 - c^2}\;\hat e + c\,\xi,\qquad
          c = \eta\,\frac{\sigma_s}{\sigma_t}\sqrt{\sigma_t^2 - (\alpha_t/\alpha_s)^2\sigma_s^2}.

:math:`\eta = 0` is the probability flow (Song et al., DDIM, 2021): exact where :math:`\hat x_0` is constant, and equal
to Euler's method in rectified-flow time and in EDM's sigma. :math:`\eta = 1` is ancestral sampling
(Ho et al., DDPM, 2020).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import final

from sciffusion.samplers.exponential import Eta, check_eta, eta_between
from sciffusion.solver import Level, Rule, Solver

__all__ = ["DDIM", "ddim_rule", "ddim_rules"]


def ddim_rule(t: Level, s: Level, eta: float = 0.0) -> Rule:
    """The affine rule of a first-order step from level ``t`` to level ``s``."""
    if s.sigma == 0:
        return Rule(0.0, (s.alpha,))
    # the variance that the forward process adds between s and t, as seen from s
    added = max(t.sigma**2 - (t.alpha / s.alpha) ** 2 * s.sigma**2, 0.0) if s.alpha > 0 else 0.0
    c = eta * s.sigma / t.sigma * math.sqrt(added)
    kept = math.sqrt(max(s.sigma**2 - c**2, 0.0)) / t.sigma
    return Rule(kept, (s.alpha - kept * t.alpha,), c)


def ddim_rules(nodes: Sequence[Level], end: Level, eta: float = 0.0) -> tuple[Rule, ...]:
    """First-order steps from node to node and on to ``end``, each from where the one before has led.

    The evaluations of a step are those of the clock: a field that starts from pure noise may meet several.
    """
    first, *rest = (ddim_rule(t, s, eta) for t, s in pairwise((*nodes, end)))
    return (first, *(Rule(0.0, rule.x0, rule.noise, (rule.base,)) for rule in rest))


@final
@dataclass(frozen=True)
class DDIM(Solver):
    """DDIM: first order, one evaluation a step, deterministic at ``eta=0``. Use it as the plain reference.

    ``eta`` is a number or a function of the log-SNR. Raises ``ValueError`` unless 0 <= eta <= 1.
    """

    eta: Eta = 0.0
    order = 1

    def __post_init__(self) -> None:
        check_eta(self.eta, 1.0)

    @property
    def stochastic(self) -> bool:
        return callable(self.eta) or self.eta > 0

    def rules(self, nodes: Sequence[Level], past: Sequence[Level], end: Level) -> tuple[Rule, ...]:
        return (ddim_rule(nodes[0], end, eta_between(self.eta, nodes[0], end, 1.0)),)
