r"""Restart: going back up through the forward process, to remove errors that a run has gathered.

When a run arrives at a time ``low``, it is noised to ``high`` again by the forward process and led down once more, for
a number of rounds. The noise contracts the difference between the run's distribution and the true one; the flow between
keeps the discretisation error small. Source: Xu et al., Restart sampling for improving generative processes, 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

from sciffusion.grid import Grid, LogSNR
from sciffusion.schedule import Schedule

__all__ = ["Restart", "legs"]


@final
@dataclass(frozen=True)
class Restart:
    """From ``low`` back to ``high``, and down again in ``steps`` steps of ``grid``, ``rounds`` times.

    ``low`` and ``high`` are times; a run restarts from the time of its grid that is nearest to ``low``. Raises
    ``ValueError`` unless 0 < low < high <= 1 and there are steps and rounds.
    """

    low: float
    high: float
    steps: int = 4
    rounds: int = 1
    grid: Grid = field(default_factory=LogSNR)

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high <= 1:
            raise ValueError(f"need 0 < low < high <= 1, got low = {self.low}, high = {self.high}")
        if self.steps < 1 or self.rounds < 1:
            raise ValueError(
                f"steps and rounds must be at least 1, got {self.steps} and {self.rounds}"
            )

    def place(self, times: Sequence[float]) -> int:
        """The index of the time after which it happens. Raises ``ValueError`` if that is not below ``high``."""
        inner = [i for i, t in enumerate(times) if i > 0 and t > 0]
        if not inner:
            raise ValueError(f"a restart needs a run of at least 2 steps, got the times {times}")
        nearest = min(inner, key=lambda i: abs(times[i] - self.low))
        if times[nearest] >= self.high:
            raise ValueError(
                f"the run's time nearest to low = {self.low} is {times[nearest]:.4g}, not below high = {self.high}; "
                "take more steps, or a higher high"
            )
        return nearest


def legs(
    restarts: Sequence[Restart], clock: Schedule, times: Sequence[float]
) -> list[tuple[float, list[float]]]:
    """A run's descents: the time of the value with which each begins (below its first time: restarted), its times."""
    places = [(r.place(times), r) for r in restarts]
    out: list[tuple[float, list[float]]] = []
    begin = 0
    for at in sorted({i for i, _ in places}):
        out.append((times[begin], list(times[begin : at + 1])))
        for r in (r for i, r in places if i == at):
            again = r.grid(clock, r.steps, r.high, times[at]).tolist()
            out += [(times[at], again)] * r.rounds
        begin = at
    if begin < len(times) - 1:
        out.append((times[begin], list(times[begin:])))
    return out
