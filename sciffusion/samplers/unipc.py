r"""UniPC: a predictor and a corrector of any order from the same predictions.

UniP-p is the exponential Adams method through p predictions (:class:`~sciffusion.samplers.Multistep`), UniC-p corrects
its result with the prediction that is made there anyway (:class:`~sciffusion.samplers.SASolver` without noise), which
raises the order by one at no cost. All weights are those that integrate the polynomial exactly, the limit that the
paper's choices of B(h) share. Source: Zhao et al., UniPC, 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from sciffusion.samplers.sa import SASolver
from sciffusion.schedule import Schedule
from sciffusion.solver import Level, Rule, Solver

__all__ = ["UniPC"]


@final
@dataclass(frozen=True)
class UniPC(Solver):
    """UniPC-p, p = 1, 2 or 3: one evaluation a step; made for 5 to 10 of them.

    With its corrector the order is p + 1, but at most 3 (UniPC-3 falls as fast as fourth order until the error of its
    first steps shows); without it p. Raises ``ValueError`` for another p.
    """

    p: int = 2
    corrector: bool = True

    def __post_init__(self) -> None:
        if self.p not in (1, 2, 3):
            raise ValueError(f"p must be 1, 2 or 3, got {self.p}")

    @property
    def _adams(self) -> SASolver:
        return SASolver(self.p, self.p if self.corrector else 0, 0.0)

    @property
    def order(self) -> int:  # type: ignore[override]
        """One above the predictor's."""
        return self._adams.order

    @property
    def history(self) -> int:  # type: ignore[override]
        """What the last step's corrector used."""
        return self._adams.history

    @property
    def fewest(self) -> int:  # type: ignore[override]
        """As many steps as predictions in its polynomial."""
        return self.p

    @property
    def stochastic(self) -> bool:
        return False

    def nodes(
        self, clock: Schedule, t: float, s: float | None, steps: int, past: Sequence[float]
    ) -> tuple[float, ...]:
        return self._adams.nodes(clock, t, s, steps, past)

    def rules(self, nodes: Sequence[Level], past: Sequence[Level], end: Level) -> tuple[Rule, ...]:
        return self._adams.rules(nodes, past, end)
