"""Several processes at once, one per field of a state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from sciffusion.errors import did_you_mean
from sciffusion.process.base import FieldProcess, Process
from sciffusion.schedule import Schedule
from sciffusion.state import State, Value

__all__ = ["Joint"]


@final
class Joint(Process):
    """One process per named field; the network sees and predicts all fields in one call.

    Every field follows its own schedule in the common time t. ``clock`` names the field whose schedule places grids
    and time samplers (default: the first). The order of the joint solver is the lowest of its fields': jump fields are
    first order. Raises ``ValueError`` when no field is given or ``clock`` names none.
    """

    def __init__(self, processes: Mapping[str, FieldProcess], *, clock: str | None = None) -> None:
        if not processes:
            raise ValueError("processes is empty; give one process per field")
        self.processes = dict(processes)
        self._clock = next(iter(self.processes)) if clock is None else clock
        if self._clock not in self.processes:
            raise ValueError(
                f"clock {self._clock!r} names no field of {list(self.processes)}. "
                f"{did_you_mean(self._clock, self.processes)}"
            )

    @property
    def clock(self) -> Schedule:
        return self.processes[self._clock].schedule

    def field(self, name: str | None) -> FieldProcess:
        if name is None or name not in self.processes:
            raise ValueError(f"no process for the field {name!r}; there are {list(self.processes)}")
        return self.processes[name]

    def check_kind(self, x: Value) -> None:
        if not isinstance(x, State) or set(x) != set(self.processes):
            have = list(x) if isinstance(x, State) else "a plain tensor"
            raise ValueError(
                f"x must be a state with the fields {list(self.processes)}, got {have}"
            )
