r"""What guidance has in common: a stronger prediction, a weaker one, and a scale.

.. math:: \hat x_0 = \hat x_0^{weak} + w\,(\hat x_0^{strong} - \hat x_0^{weak})

*Sources* say where the two predictions come from: a condition and its absence (:class:`~sciffusion.guidance.CFG`), a
good and a bad model (:class:`~sciffusion.guidance.Autoguidance`), attention and none of it
(:class:`~sciffusion.guidance.Perturbed`). *Changes* wrap a source and mix its predictions in another way (projected,
rescaled, ...). So every change goes with every source, and with every other change.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.layout import Layout
from sciffusion.process import Gaussian, Process
from sciffusion.schedule import Schedule
from sciffusion.state import Value, layout_of

__all__ = ["Change", "Guidance", "Needs", "Scale", "edit_fields", "ratio", "refuse", "scale_at"]

Scale = float | Tensor | Callable[[Tensor], float | Tensor]
"""A guidance scale: a number, one per sample (B,), or a function of the log-SNR of the process's clock.

The function gets a float64 tensor shaped like the time, (), (B,) or per element, and returns a number or such a tensor.
"""

Needs = Literal["strong", "weak", "both"]


def scale_at(scale: Scale, clock: Schedule, t: Tensor) -> float | Tensor:
    """The scale at a time: a float where one number serves all samples, else a tensor."""
    if not isinstance(scale, Tensor) and callable(scale):
        scale = scale(clock.log_snr(t))
    if isinstance(scale, Tensor) and scale.ndim == 0 and not scale.requires_grad:
        return float(scale)
    return scale


def refuse(cond: Condition) -> None:
    """Raise ``ValueError`` if a condition is given where one is bound already."""
    if cond is not None:
        raise ValueError("cond is bound already; build another guidance for another condition")


def edit_fields(
    process: Process, fn: Callable[..., Tensor], first: Value, *others: Value, like: Value
) -> Value:
    """``first`` with every Gaussian field replaced by ``fn(field's process, its layout, first's, *others')``.

    Fields of other processes stay. ``like`` knows the layouts.
    """
    rest = [process.fields(v) for v in others]
    out = dict(process.fields(first))
    for k, x in out.items():
        field = process.field(k)
        if isinstance(field, Gaussian):
            out[k] = fn(field, layout_of(like, k), x, *(r[k] for r in rest))
    return process.rebuild(first, out)


class Guidance(Denoiser):
    """A denoiser that mixes a stronger and a weaker prediction by a scale."""

    scale: Scale

    @abstractmethod
    def stronger(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        """What is guided towards: the whole outcome at scale 1."""

    @abstractmethod
    def weaker(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        """What is guided away from: the whole outcome at scale 0."""

    def pair(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> tuple[Prediction, Prediction]:
        """The stronger and the weaker prediction."""
        return self.stronger(x_t, t, cond, previous), self.weaker(x_t, t, cond, previous)

    def needs(self, scale: float) -> Needs:
        """Which predictions the mix at this scale takes: one alone is one call less."""
        return "strong" if scale == 1 else "weak" if scale == 0 else "both"

    def mix(self, strong: Prediction, weak: Prediction, scale: float | Tensor) -> Prediction:
        """The outcome; a point that the stronger prediction moved stays moved."""
        x0 = self.process.combine((scale, 1 - scale), (strong.x0, weak.x0))
        return Prediction(x0, strong.x_t, strong.t, self.process)

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        t = torch.as_tensor(t)
        scale = scale_at(self.scale, self.process.clock, t)
        needs = "both" if isinstance(scale, Tensor) else self.needs(scale)
        if needs == "strong":
            return self.stronger(x_t, t, cond, previous)
        if needs == "weak":
            return self.weaker(x_t, t, cond, previous)
        return self.mix(*self.pair(x_t, t, cond, previous), scale)


class Change(Guidance):
    """A guidance that mixes the predictions of another guidance in its own way.

    Raises ``ValueError`` unless it is given a guidance (an :class:`~sciffusion.guidance.Interval` goes around a change,
    not into one).
    """

    def __init__(self, guidance: Guidance) -> None:
        super().__init__()
        if not isinstance(guidance, Guidance):
            raise ValueError(
                f"guidance must mix two predictions (CFG, Autoguidance, Perturbed, or a change of these), "
                f"got {type(guidance).__name__}; put an Interval around this one instead"
            )
        self.guidance, self.scale, self.process = guidance, guidance.scale, guidance.process

    def stronger(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        return self.guidance.stronger(x_t, t, cond, previous)

    def weaker(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        return self.guidance.weaker(x_t, t, cond, previous)

    def pair(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> tuple[Prediction, Prediction]:
        return self.guidance.pair(x_t, t, cond, previous)

    def needs(self, scale: float) -> Needs:
        """At scale 1 what is guided towards, unless the wrapped guidance needs more."""
        return "strong" if scale == 1 and self.guidance.needs(scale) == "strong" else "both"


def ratio(layout: Layout, x: Tensor, above: Tensor, below: Tensor) -> Tensor:
    """``above / below`` per sample, 1 where ``below`` is zero, broadcastable to the field ``x``."""
    quotient = torch.where(below > 0, above / below.clamp(min=torch.finfo(x.dtype).tiny), 1.0)
    return layout.expand(quotient, x)
