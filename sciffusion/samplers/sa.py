r"""SA-Solver: a stochastic Adams predictor and corrector with one evaluation a step.

The prediction :math:`\hat x_0(\tilde x_t, t)` that the next step begins with also corrects the last one: with
:math:`B_j` the weights of the predictor's polynomial and :math:`B'_j` those of the corrector's, which passes through
the new prediction as well (:mod:`~sciffusion.samplers.exponential`), the corrected value is

.. math:: x_t = \tilde x_t + \sum_j (B'_j - B_j)\,\hat x_0^{(j)},

the same noise included. The step onwards starts there: still an affine rule of the values and predictions at hand.
Source: Xue et al., SA-Solver, 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from sciffusion.samplers.exponential import (
    PURE_NOISE,
    Eta,
    check_eta,
    eta_between,
    exponential_rule,
)
from sciffusion.samplers.multistep import Multistep
from sciffusion.schedule import Schedule
from sciffusion.solver import Level, Number, Rule, Solver

__all__ = ["SASolver"]


@final
@dataclass(frozen=True)
class SASolver(Solver):
    """Stochastic Adams solver: one evaluation a step; noise and a corrector for 20 steps or more.

    The predictor uses the last ``predictor`` predictions (1 to 3), the corrector the new one and the last ``corrector``
    before it (0 to 3; 0: none, which is :class:`~sciffusion.samplers.Multistep`). ``eta`` is the paper's tau, a number
    or a function of the log-SNR. The order is one more than the lesser of both numbers, but at most 3: the first step
    has one earlier prediction only. With noise the weak order is 2. Raises ``ValueError`` for other numbers or a
    negative ``eta``.
    """

    predictor: int = 2
    corrector: int = 2
    eta: Eta = 1.0

    def __post_init__(self) -> None:
        if self.predictor not in (1, 2, 3) or self.corrector not in (0, 1, 2, 3):
            raise ValueError(
                "predictor must be 1, 2 or 3 and corrector 0 (none), 1, 2 or 3, "
                f"got {self.predictor} and {self.corrector}"
            )
        check_eta(self.eta)

    @property
    def order(self) -> int:  # type: ignore[override]
        """Of the flow; with noise the weak order is at most 2."""
        if self.corrector == 0:
            return self.predictor
        return min(self.predictor + 1, self.corrector + 1, 3)

    @property
    def history(self) -> int:  # type: ignore[override]
        """What the last step's corrector used."""
        return max(self.predictor, self.corrector) if self.corrector else self.predictor - 1

    @property
    def fewest(self) -> int:  # type: ignore[override]
        """As many steps as predictions in its longer polynomial."""
        return max(self.predictor, self.corrector)

    @property
    def stochastic(self) -> bool:
        return callable(self.eta) or self.eta > 0

    def nodes(
        self, clock: Schedule, t: float, s: float | None, steps: int, past: Sequence[float]
    ) -> tuple[float, ...]:
        if self.corrector:
            return (t,)
        return Multistep(self.predictor, self.eta).nodes(clock, t, s, steps, past)

    def rules(self, nodes: Sequence[Level], past: Sequence[Level], end: Level) -> tuple[Rule, ...]:
        rules = Multistep(self.predictor, self.eta).rules(nodes, past, end)
        known = [p for p in past if p.alpha >= PURE_NOISE]
        if not (self.corrector and known):
            return rules
        (onwards,), t, start = rules, nodes[0], known[0]
        eta = eta_between(self.eta, start, t)
        before = exponential_rule(start, known[: self.predictor], t, eta).x0
        after = exponential_rule(start, [t, *known[: self.corrector]], t, eta).x0
        n = 1 + max(self.predictor, self.corrector)
        parts = zip(_pad(onwards.x0, n), _pad(after, n), _pad((0.0, *before), n), strict=True)
        x0 = tuple(b + onwards.base * (new - old) for b, new, old in parts)
        return (Rule(onwards.base, x0, onwards.noise),)


def _pad(x0: Sequence[Number], n: int) -> tuple[Number, ...]:
    return (*x0, *(0.0,) * (n - len(x0)))
