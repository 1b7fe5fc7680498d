r"""Predictor and corrector: a first-order step to the next noise level, then Langevin dynamics at that level.

With the score :math:`-(x-\alpha\hat x_0)/\sigma^2`, Langevin dynamics over a time :math:`\tau\sigma^2` with the
prediction held fixed is an Ornstein-Uhlenbeck process about :math:`\alpha\hat x_0`, whose law is known:

.. math:: x \leftarrow \alpha\hat x_0 + e^{-\tau}(x-\alpha\hat x_0) + \sigma\sqrt{1-e^{-2\tau}}\;\xi .

It keeps the noise level exactly for a constant prediction. :math:`\tau` is ``rate`` times the length of the step in
:math:`\log(\alpha/\sigma)`, counted as 1 where it is longer: it comes from the noise levels alone, never from norms
over a batch, and the dynamics converge to the reverse SDE with :math:`\eta^2` raised by ``rate`` times ``corrections``.
Source: Song et al., Score-based generative modeling through SDEs, 2021, algorithms 2 to 5 (where
:math:`\tau = 2r^2`, r their signal-to-noise ratio, for steps of any length).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from sciffusion.samplers.ddim import ddim_rule
from sciffusion.samplers.exponential import Eta, check_eta, eta_between
from sciffusion.schedule import Schedule
from sciffusion.solver import Level, Rule, Solver

__all__ = ["Langevin"]


@final
@dataclass(frozen=True)
class Langevin(Solver):
    """Predictor-corrector sampling: first (weak) order, 1 + ``corrections`` evaluations a step.

    Choose it to remove the errors of a guided or composed score, whose marginals no reverse process follows. The
    predictor is DDIM with ``eta``. The step to clean data has no corrections. Raises ``ValueError`` for fewer than one
    correction, a rate that is not positive, or an ``eta`` outside [0, 1].
    """

    corrections: int = 1
    rate: float = 1.0
    eta: Eta = 0.0
    order = 1

    def __post_init__(self) -> None:
        if self.corrections < 1:
            raise ValueError(
                f"corrections must be at least 1, got {self.corrections}; without any use DDIM"
            )
        if not self.rate > 0:
            raise ValueError(f"rate must be positive, got {self.rate}")
        check_eta(self.eta, 1.0)

    @property
    def evaluations(self) -> int:  # type: ignore[override]
        """The predictor's and the correctors'."""
        return 1 + self.corrections

    @property
    def stochastic(self) -> bool:
        return True

    def nodes(
        self, clock: Schedule, t: float, s: float | None, steps: int, past: Sequence[float]
    ) -> tuple[float, ...]:
        return (t,) if s is None else (t, *(s,) * self.corrections)

    def rules(self, nodes: Sequence[Level], past: Sequence[Level], end: Level) -> tuple[Rule, ...]:
        t = nodes[0]
        predict = ddim_rule(t, end, eta_between(self.eta, t, end, 1.0))
        if end.sigma == 0:
            return (predict,)
        tau = self.rate * min(end.half_log_snr - t.half_log_snr, 1.0)
        kept = math.exp(-tau)
        noise = end.sigma * math.sqrt(-math.expm1(-2 * tau))
        correct = Rule(0.0, ((1 - kept) * end.alpha,), noise, (kept,))
        return (predict, *(correct,) * self.corrections)
