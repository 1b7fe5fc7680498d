r"""Multistep exponential integrators in log-SNR: DPM-Solver++ 1 to 3, with noise if wanted.

The integral of :mod:`~sciffusion.samplers.exponential` is taken of the polynomial through the last ``order``
predictions. :math:`\eta = 0`: the flow; :math:`\eta = 1`: the reverse SDE, whose first-order form is ancestral
sampling. Source: Lu et al., DPM-Solver++, 2022; Xue et al., SA-Solver, 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from sciffusion.samplers.adams import Adams
from sciffusion.samplers.ddim import ddim_rules
from sciffusion.samplers.exponential import (
    PURE_NOISE,
    Eta,
    check_eta,
    endless,
    eta_between,
    exponential_rule,
    starting_nodes,
    starting_rules,
)
from sciffusion.schedule import Schedule
from sciffusion.solver import Level, Rule

__all__ = ["Multistep"]


@final
@dataclass(frozen=True)
class Multistep(Adams):
    """Multistep solver of order 1, 2 or 3: one evaluation a step; the default for a good denoiser in few steps.

    Order 3 begins with a two-evaluation step (DPM-Solver++ 2S), without which its first step would hold it at order 2.
    The step to clean data, infinitely long in log-SNR, is first order, and so is one from pure noise, after which a run
    of any order converges with order 2 at most. With noise the weak order is at most 2 as well. ``eta`` is a number or
    a function of the log-SNR. Raises ``ValueError`` for another order or a negative ``eta``.
    """

    order: int = 2
    eta: Eta = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_eta(self.eta)

    @property
    def stochastic(self) -> bool:
        return callable(self.eta) or self.eta > 0

    def nodes(
        self, clock: Schedule, t: float, s: float | None, steps: int, past: Sequence[float]
    ) -> tuple[float, ...]:
        return (t,) if past else starting_nodes(clock, t, s, self.order)

    def rules(self, nodes: Sequence[Level], past: Sequence[Level], end: Level) -> tuple[Rule, ...]:
        t = nodes[0]
        eta = eta_between(self.eta, t, end)
        if endless(t, end):
            return ddim_rules(nodes, end, min(eta, 1.0))
        if len(nodes) == 2:
            return starting_rules(nodes, end, eta)
        known = [p for p in past[: self.history] if p.alpha >= PURE_NOISE]
        return (exponential_rule(t, [t, *known], end, eta),)
