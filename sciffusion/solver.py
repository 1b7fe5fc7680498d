r"""What a solver is: a rule that turns noise levels into numbers.

A step of every solver for Gaussian processes is an affine rule

.. math:: x_s = A\,x + \sum_j B_j\,\hat x_0^{(j)} + \sum_j E_j\,x^{(j)} + C\,\xi

in the value at the step's beginning, the denoiser's evaluations (latest first: the prediction :math:`\hat x_0^{(j)}`
and the value :math:`x^{(j)}` at which it was made) and fresh noise. The coefficients depend on a few pairs
:math:`(\alpha,\sigma)` and on nothing else: a solver never sees data, so it cannot tell a molecule from an image. They
are computed once for a whole run, in float64, as Python floats.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from torch import Tensor

from sciffusion.layout import Layout
from sciffusion.schedule import Schedule

__all__ = ["Level", "Number", "Rule", "Solver", "Window", "times"]

Number = float | Tensor
"""A coefficient: one for all samples, or one for each, (B,)."""


def times(c: Number, x: Tensor, layout: Layout) -> Tensor:
    """The field ``x`` times a coefficient."""
    return layout.expand(c.to(x), x) * x if isinstance(c, Tensor) else c * x


@final
@dataclass(frozen=True)
class Rule:
    """The coefficients of one affine update.

    ``base``: of the value at the step's first evaluation. ``x0`` and ``values``: of the predictions, and of the values
    at which they were made, latest first; the first of ``values`` is what this stage was evaluated at, and differs from
    the base in the later stages of a step only. ``noise``: of a fresh draw, which stands for the noise between this
    evaluation and the next, or the end of the step; what the stages before drew is in their values. Where every sample
    follows a grid of its own, the numbers are tensors (B,).
    """

    base: Number
    x0: tuple[Number, ...]
    noise: Number = 0.0
    values: tuple[Number, ...] = ()


@final
@dataclass(frozen=True)
class Level:
    """One noise level."""

    alpha: float
    sigma: float

    @property
    def half_log_snr(self) -> float:
        r""":math:`\log(\alpha/\sigma)`, infinite at clean data and at pure noise."""
        if self.sigma == 0:
            return math.inf
        return math.log(self.alpha / self.sigma) if self.alpha > 0 else -math.inf

    def raised_to(self, other: Level) -> Rule:
        """The forward step from this level to a noisier one."""
        a = other.alpha / self.alpha if self.alpha > 0 else 0.0
        return Rule(a, (), math.sqrt(max(other.sigma**2 - (a * self.sigma) ** 2, 0.0)))


@final
@dataclass(frozen=True)
class Window:
    """The times of one step.

    ``start`` where it begins, ``nodes`` where the denoiser is evaluated (the first may lie above ``start``: churn),
    ``past`` where earlier steps evaluated it (latest first), ``end`` where it leads; None is the clean data themselves.
    """

    start: float
    nodes: tuple[float, ...]
    past: tuple[float, ...]
    end: float | None


class Solver(ABC):
    """A rule for one step. Stateless; the sampler carries the history.

    ``order``: of global convergence. With noise the weak order is ``min(order, 2)``: no rule can know how the noise of
    a step changes the predictions within it. ``history``: how many earlier evaluations it uses. ``evaluations``:
    denoiser calls per step. ``fewest``: the least number of steps in which it is what it says; a sampler refuses fewer.
    """

    order: int
    history: int = 0
    evaluations: int = 1
    fewest: int = 1

    @property
    @abstractmethod
    def stochastic(self) -> bool:
        """Whether it draws noise on the way."""

    def nodes(
        self, clock: Schedule, t: float, s: float | None, steps: int, past: Sequence[float]
    ) -> tuple[float, ...]:
        """The times at which a step from ``t`` to ``s`` (None: to clean data) evaluates the denoiser."""
        return (t,)

    @abstractmethod
    def rules(self, nodes: Sequence[Level], past: Sequence[Level], end: Level) -> tuple[Rule, ...]:
        """One rule per evaluation; all act on the value at the first evaluation."""
