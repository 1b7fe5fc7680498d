"""What every forward process can do.

A *field process* noises one tensor with one layout. :class:`~sciffusion.process.Joint` holds one per field of a state.
Both are processes: the objective and the sampler speak to either in the same words, with values that are tensors or
states.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, final

import torch
from torch import Tensor

from sciffusion.errors import of_field
from sciffusion.layout import Layout
from sciffusion.noise import Noise
from sciffusion.schedule import Schedule
from sciffusion.space import Space
from sciffusion.state import State, Value, batch_of, layout_of

if TYPE_CHECKING:
    from sciffusion.objective import Weight
    from sciffusion.process.gaussian import Target
    from sciffusion.solver import Rule, Solver, Window

__all__ = [
    "LOG_SNR_RANGE",
    "AffineProcess",
    "FieldProcess",
    "Noised",
    "Process",
    "check_time",
    "levels_at",
]

LOG_SNR_RANGE = 20.0
"""Networks see the log-SNR clamped to plus or minus this."""


@final
@dataclass(frozen=True)
class Noised:
    """A noised value and all that a loss needs to know of it.

    ``x_t`` the noised value, ``x0`` the clean one (projected onto its space), ``eps`` the noise that was added (for a
    jump field: the draw from its prior), ``t`` the time, () or (B,) or per element.
    """

    x_t: Value
    x0: Value
    eps: Value
    t: Tensor


class Process(ABC):
    """A forward process over tensors or states."""

    @property
    @abstractmethod
    def clock(self) -> Schedule:
        """The schedule in which grids and time samplers measure time."""

    @abstractmethod
    def field(self, name: str | None) -> FieldProcess:
        """The process of one field; ``None`` names the only field of a plain tensor."""

    def fields(self, x: Value) -> Mapping[str | None, Tensor]:
        """The fields of a value by name: a plain tensor is one field named ``None``."""
        return {name: x[name] for name in x} if type(x) is State else {None: x}

    def rebuild(self, like: Value, fields: Mapping[str | None, Tensor]) -> Value:
        """A value like ``like`` from its fields by name."""
        if type(like) is State:
            return like.replace({str(k): v for k, v in fields.items()})
        return fields[None]

    def prior(self, like: Value, noise: Noise) -> Value:
        """Draw a start at t = 1, shaped like ``like``."""
        return self.rebuild(
            like,
            {
                k: self.field(k).prior_field(x, layout_of(like, k), noise)
                for k, x in self.fields(like).items()
            },
        )

    def perturb(self, x0: Value, t: Tensor, noise: Noise, eps: Value | None = None) -> Noised:
        """Noise ``x0`` to the time ``t``; with ``eps`` given, that noise is used instead of a fresh draw.

        Raises ``ValueError`` for a time outside [0, 1].
        """
        check_time(t)
        given = self.fields(eps) if eps is not None else {}
        out = {}
        for k, x in self.fields(x0).items():
            with of_field(k):
                out[k] = self.field(k).perturb_field(x, t, layout_of(x0, k), noise, given.get(k))
        x_t, clean, drawn = ({k: v[i] for k, v in out.items()} for i in range(3))
        return Noised(self.rebuild(x0, x_t), self.rebuild(x0, clean), self.rebuild(x0, drawn), t)

    def draw(self, x0: Value, noise: Noise) -> Value:
        """The raw noise that :meth:`perturb` would draw for ``x0``."""
        return self.rebuild(
            x0,
            {
                k: self.field(k).noise_field(x, layout_of(x0, k), noise)
                for k, x in self.fields(x0).items()
            },
        )

    def combine(self, weights: Sequence[float | Tensor], x0: Sequence[Value]) -> Value:
        """An affine combination of predictions of x0: of values, or of log-probabilities for a jump field.

        A weight is a number, or a tensor with one per sample (or per element) of ``x0``.
        """
        parts = [self.fields(v) for v in x0]
        out = {}
        for k, first in parts[0].items():
            layout = layout_of(x0[0], k)
            each = [
                layout.expand(w.to(first), first) if isinstance(w, Tensor) else w for w in weights
            ]
            out[k] = self.field(k).combine_field(each, [p[k] for p in parts])
        return self.rebuild(x0[0], out)

    def choose(self, first: Tensor, a: Value, b: Value) -> Value:
        """The value ``a`` where ``first`` is true, () or (B,) or per element, and ``b`` elsewhere."""
        if a is b:
            return a
        other = self.fields(b)
        out = {
            k: torch.where(layout_of(a, k).expand(first.to(x.device), x), x, other[k])
            for k, x in self.fields(a).items()
        }
        return self.rebuild(a, out)

    def check(self, x: Value) -> None:
        """Raise ``ValueError`` unless ``x`` is of the kind that this process noises, and finite in its samples."""
        self.check_kind(x)
        if type(x) is not State and x.ndim == 0:
            raise ValueError("x is a single number; its first dimension must be the samples")
        if batch_of(x) == 0:
            raise ValueError("x holds no sample")
        for name, v in self.fields(x).items():
            if not v.is_floating_point():
                continue
            wrong = ~layout_of(x, name).clean(v).isfinite()
            if bool(wrong.any()):
                where = tuple(wrong.nonzero()[0].tolist())
                field = "x" if name is None else f"the field {name!r}"
                raise ValueError(
                    f"{field} is not finite: {int(wrong.sum())} of {v.numel()} numbers, the first at {where}; "
                    "clean the data, or mask what is missing"
                )

    def check_kind(self, x: Value) -> None:
        """Raise ``ValueError`` unless ``x`` has the fields of this process."""
        if type(x) is State:
            raise ValueError(
                f"{type(self).__name__} noises a plain tensor; use Joint for a state {x}"
            )


def check_time(t: Tensor) -> None:
    """Raise ``ValueError`` unless all times lie in [0, 1]."""
    t = torch.as_tensor(t)
    if not bool(((t >= 0) & (t <= 1)).all()):
        raise ValueError(
            f"t must lie in [0, 1], 0 being data and 1 the prior, got {float(t.min())} to {float(t.max())}; "
            "divide integer time steps by their number"
        )


@lru_cache(maxsize=4096)
def levels_at(schedule: Schedule, t: float) -> tuple[float, float, float]:
    """alpha, sigma and clamped log-SNR as numbers: samplers ask for the same few times over and over."""
    check_time(torch.tensor(t))
    alpha, sigma = schedule(t)
    log_snr = schedule.log_snr(t).clamp(-LOG_SNR_RANGE, LOG_SNR_RANGE)
    return float(alpha), float(sigma), float(log_snr)


class FieldProcess(Process):
    """A process of one tensor field with one layout.

    ``scaled`` says whether a network of the field must be told the scale of the data.
    """

    schedule: Schedule
    space: Space
    scaled: ClassVar[bool] = False

    @property
    def clock(self) -> Schedule:
        return self.schedule

    def field(self, name: str | None) -> FieldProcess:
        return self

    @abstractmethod
    def noise_field(self, x0: Tensor, layout: Layout, noise: Noise) -> Tensor:
        """The noise that :meth:`perturb_field` mixes in."""

    @abstractmethod
    def prior_field(self, like: Tensor, layout: Layout, noise: Noise) -> Tensor:
        """A draw of the process at t = 1 for data of mean zero."""

    @abstractmethod
    def perturb_field(
        self, x0: Tensor, t: Tensor, layout: Layout, noise: Noise, eps: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``(x_t, x0, eps)`` at the time ``t``."""

    @abstractmethod
    def show(
        self, x_t: Tensor, t: Tensor, layout: Layout, sigma_data: float | Tensor
    ) -> tuple[Tensor, Any]:
        """What a network sees of a noised field, and what :meth:`read` wants to know of that.

        ``sigma_data`` is the standard deviation of the data, for a ``scaled`` process.
        """

    @abstractmethod
    def read(
        self, raw: Tensor, x_t: Tensor, t: Tensor, layout: Layout, target: Target, shown: Any = None
    ) -> Tensor:
        """The prediction of x0 that a network means by ``raw``, its output in the place of ``target``."""

    @abstractmethod
    def express(
        self, x0_hat: Tensor, x_t: Tensor, t: Tensor, layout: Layout, target: Target
    ) -> Tensor:
        """A prediction of x0 said as another target, where the process knows it."""

    def certain(self, x0: Tensor) -> Tensor:
        """The prediction of one who knows the clean ``x0``."""
        return x0

    @abstractmethod
    def loss_field(
        self,
        x0_hat: Tensor,
        x0: Tensor,
        x_t: Tensor,
        t: Tensor,
        layout: Layout,
        target: Target,
        weight: Weight | None,
    ) -> Tensor:
        """The loss of the prediction ``x0_hat``, made at ``(x_t, t)``, of the clean ``x0``: one per sample, (B,).

        ``weight`` is a weight in x0 space; without one the error of ``target`` counts evenly. A process that has no
        squared error of x0 ignores both.
        """

    @abstractmethod
    def combine_field(self, weights: Sequence[float | Tensor], x0: Sequence[Tensor]) -> Tensor:
        """Affine combination of predictions; a weight is a number, or a tensor that broadcasts to them."""

    @abstractmethod
    def compile(self, solver: Solver, windows: Sequence[Window]) -> list[Any]:
        """What each of a solver's steps means for this field, computed once for a whole run.

        A move is made of numbers, of :class:`~sciffusion.solver.Rule` and of tuples of these, so that the moves of
        samples on different grids can be laid side by side.
        """

    @abstractmethod
    def lift(self, move: Any, x: Tensor, layout: Layout, noise: Noise) -> Tensor:
        """Raise the noise of ``x`` from the start of a step to its first evaluation (churn); often the identity."""

    @abstractmethod
    def advance(
        self,
        move: Any,
        stage: int,
        base: Tensor,
        values: Sequence[Tensor],
        x0: Sequence[Tensor],
        layout: Layout,
        noise: Noise,
    ) -> Tensor:
        """Carry out one stage of a compiled step.

        ``base`` is the value at the step's first evaluation; ``x0`` holds the predictions, ``values`` the values at
        which they were made, both latest first: ``values[0]`` is where the run stands.
        """


class AffineProcess(FieldProcess):
    """A field process whose moves are affine rules: one that raises the noise, or None, and one for each stage."""

    def lift(self, move: Any, x: Tensor, layout: Layout, noise: Noise) -> Tensor:
        rule: Rule | None = move[0]
        return x if rule is None else self._apply(rule, x, (), (), layout, noise)

    def advance(
        self,
        move: Any,
        stage: int,
        base: Tensor,
        values: Sequence[Tensor],
        x0: Sequence[Tensor],
        layout: Layout,
        noise: Noise,
    ) -> Tensor:
        return self._apply(move[1][stage], base, values, x0, layout, noise)

    @abstractmethod
    def _apply(
        self,
        rule: Rule,
        base: Tensor,
        values: Sequence[Tensor],
        x0: Sequence[Tensor],
        layout: Layout,
        noise: Noise,
    ) -> Tensor:
        """Carry out a rule on the value at the step's first evaluation, and the evaluations, latest first."""
