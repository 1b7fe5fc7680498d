"""What a coupling is.

A coupling rearranges the noise that was drawn for a batch: among the samples, among the points of a sample, or by a
rotation. It never touches the data, so labels and conditions stay with their record, and it uses every draw exactly
once. The noise of a whole batch, taken without the data, keeps the law of the prior; what a coupling may break is its
independence of the data and their conditions, and every coupling says under which assumption sampling from the plain
prior is still right.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

from torch import Tensor

from sciffusion.denoiser import Condition
from sciffusion.layout import Layout
from sciffusion.process import Gaussian, Process
from sciffusion.state import State, Value, layout_of

__all__ = ["Coupling", "Deciding", "Independent", "deciding"]


class Coupling(ABC):
    """A rule that pairs data with noise."""

    @abstractmethod
    def __call__(self, x0: Value, eps: Value, cond: Condition, process: Process) -> Value:
        """The noise to use, like ``eps``: that of sample i is for the data of sample i.

        Args:
            x0: the data.
            eps: the noise that was drawn, independent of the data.
            cond: the conditions of the data, or None.
            process: the process whose noise it is.
        """


@final
@dataclass(frozen=True)
class Independent(Coupling):
    """Every sample keeps the noise that was drawn for it."""

    def __call__(self, x0: Value, eps: Value, cond: Condition, process: Process) -> Value:
        return eps


@final
@dataclass(frozen=True)
class Deciding:
    """The field whose distances decide: its data, projected onto their space, and its noise, in float64 and clean."""

    x0: Tensor
    eps: Tensor
    layout: Layout
    process: Gaussian


def deciding(x0: Value, eps: Value, name: str | None, process: Process) -> Deciding:
    """Look the field ``name`` up. Raises ``ValueError`` if it is no field of the data, or not a Gaussian one."""
    found = process.fields(x0)
    if name not in found:
        what = f"one of {list(x0)} for a state" if isinstance(x0, State) else "None for a tensor"
        raise ValueError(f"field must name {what}, got {name!r}")
    kind, layout = process.field(name), layout_of(x0, name)
    if not isinstance(kind, Gaussian):
        raise ValueError(
            f"field {name!r} has no Gaussian noise, whose squared distances could decide; name another field"
        )
    a, b = (process.fields(v)[name].detach().double() for v in (x0, eps))
    return Deciding(kind.space.project(a, layout), layout.clean(b), layout, kind)
