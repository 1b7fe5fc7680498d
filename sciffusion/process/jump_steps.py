r"""How a jump field crosses one step from a time t to s: exactly, by frozen rates, or in the order of confidence.

A rule turns the schedule into a few numbers per step, once for a whole run, and applies them to the prediction
:math:`p(x_0\mid x_t)`. All rules treat the elements of a field as independent within a step; so on classes that depend
on each other they are first order in the step (the last one has no order: it biases the samples on purpose).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from sciffusion.layout import Layout
from sciffusion.noise import Noise
from sciffusion.schedule import Schedule
from sciffusion.solver import Number

if TYPE_CHECKING:
    from sciffusion.process.jump import Jump

__all__ = [
    "Confident",
    "ExactStep",
    "IndependentStep",
    "JumpStep",
    "TauLeap",
    "on_elements",
    "owners",
    "pick",
    "ranks",
]


class JumpStep(ABC):
    """A rule for one step of a jump field.

    ``masked_only``: whether it makes sense for fields whose prior is a mask alone.
    """

    masked_only: bool = False

    @abstractmethod
    def numbers(self, schedule: Schedule, t: float, s: float | None) -> tuple[float, ...]:
        """What the step from ``t`` to ``s`` (None: to the data themselves) needs of the schedule."""

    @abstractmethod
    def __call__(
        self,
        process: Jump,
        numbers: Sequence[Number],
        x_t: Tensor,
        p0: Tensor,
        layout: Layout,
        noise: Noise,
    ) -> Tensor:
        """The classes at the end of the step; ``p0`` (..., k) was predicted at ``x_t``."""


class IndependentStep(JumpStep):
    """A rule that draws every element from probabilities of its own."""

    @abstractmethod
    def law(
        self, process: Jump, numbers: Sequence[Number], x_t: Tensor, p0: Tensor, layout: Layout
    ) -> Tensor:
        """The probabilities of the states at the end of the step, (..., states)."""

    def __call__(
        self,
        process: Jump,
        numbers: Sequence[Number],
        x_t: Tensor,
        p0: Tensor,
        layout: Layout,
        noise: Noise,
    ) -> Tensor:
        return pick(self.law(process, numbers, x_t, p0, layout), noise.uniform(x_t, layout))


@final
@dataclass(frozen=True)
class ExactStep(IndependentStep):
    r"""Draw from the exact posterior :math:`\sum_{x_0} q(x_s\mid x_t,x_0)\,p(x_0\mid x_t)` of every element.

    Independent elements are exact in any number of steps. Source: Austin et al., D3PM, 2021.
    """

    def numbers(self, schedule: Schedule, t: float, s: float | None) -> tuple[float, ...]:
        return _keep(schedule, t), _keep(schedule, s)

    def law(
        self, process: Jump, numbers: Sequence[Number], x_t: Tensor, p0: Tensor, layout: Layout
    ) -> Tensor:
        return process.posterior(x_t, p0, numbers[0], numbers[1], layout)


@final
@dataclass(frozen=True)
class TauLeap(IndependentStep):
    r"""Tau-leaping: the reverse rates of the step's beginning hold for the whole step, h = t - s.

    With the rates :math:`R_y` (:meth:`~sciffusion.process.Jump.reverse_rates`; uniform classes may redraw the present
    one too) an element jumps with probability :math:`1-e^{-h\sum_y R_y}`, to the class y in proportion to :math:`R_y`:
    Poisson counts with at most one jump a step. A mask is lifted with probability :math:`1-e^{-h\lambda_t}`,
    :math:`\lambda_t=-\dot\alpha_t/(1-\alpha_t)`. The last step draws from :math:`p(x_0\mid x_t)`, for frozen rates
    would leave noise behind. Source: Gillespie, 2001; Campbell et al., A continuous time framework for discrete
    denoising models, 2022.
    """

    def numbers(self, schedule: Schedule, t: float, s: float | None) -> tuple[float, ...]:
        keep = _keep(schedule, t)
        if s is None:
            return (keep,)
        loss = -(t - s) * float(schedule.rates(t)[0])
        return keep, _ratio(loss, 1 - keep), _ratio(loss, keep)

    def law(
        self, process: Jump, numbers: Sequence[Number], x_t: Tensor, p0: Tensor, layout: Layout
    ) -> Tensor:
        if len(numbers) == 1:
            return process.posterior(x_t, p0, numbers[0], 1.0, layout)
        keep, lifted, redrawn = numbers
        k, x_t = process.space.k, layout.clean(x_t)
        here = torch.nn.functional.one_hot(x_t, process.space.states).to(p0)
        if process.space.absorbing:
            jumps = on_elements(_jumped(lifted), p0, layout)
            to = torch.cat([p0, torch.zeros_like(p0[..., :1])], -1)
            return torch.where((x_t == k)[..., None], jumps * to + (1 - jumps) * here, here)
        to = process.ratios(x_t, p0, keep, layout)
        total = to.sum(-1, keepdim=True)
        # the rate is infinite where nothing has survived: everything jumps then, and only ratios are left
        stay = torch.exp(-on_elements(redrawn, p0, layout) * total / k)
        return (1 - stay) * to / total + stay * here


@final
@dataclass(frozen=True)
class Confident(JumpStep):
    r"""Masked fields: draw a class for every mask, and keep the ones that the denoiser is surest of.

    A step to s leaves :math:`\lfloor N(1-\alpha_s)\rfloor` of a sample's N elements masked. The confidence is
    :math:`\log p(\hat x_0\mid x_t) + \tau s\,g` with Gumbel noise g: temperature 0 is greedy, and a high one reveals in
    random order, as the process itself does. What is revealed stays. Far fewer steps than elements serve, but the
    samples follow another law than the data's, narrower at low temperature. Source: Chang et al., MaskGIT, 2022.
    Raises ``ValueError`` for a negative temperature.
    """

    temperature: float = 1.0
    masked_only = True

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ValueError(
                f"temperature must not be negative, got {self.temperature}; 0 reveals greedily"
            )

    def numbers(self, schedule: Schedule, t: float, s: float | None) -> tuple[float, ...]:
        return 1 - _keep(schedule, s), self.temperature * (s or 0.0)

    def __call__(
        self,
        process: Jump,
        numbers: Sequence[Number],
        x_t: Tensor,
        p0: Tensor,
        layout: Layout,
        noise: Noise,
    ) -> Tensor:
        masked, tau = numbers
        drawn = pick(p0, noise.uniform(x_t, layout))
        sure = p0.gather(-1, drawn[..., None])[..., 0].clamp(min=1e-30).log()
        if self.temperature:
            u = noise.uniform(sure, layout).clamp(min=torch.finfo(sure.dtype).tiny)
            sure = sure - on_elements(tau, sure, layout) * (-u.log()).log()
        hidden = layout.clean(x_t == process.space.k)
        before, size = layout.reduce(hidden.long()), layout.count(x_t).double()
        # a whole number of elements must not be lost to the last bit
        after = (size * torch.as_tensor(masked, device=size.device) + 1e-9).floor().long()
        order = ranks(
            torch.where(hidden, sure, -math.inf).flatten(), owners(x_t, layout), layout.batch
        )
        reveal = order.reshape(x_t.shape) < layout.expand(before - after, x_t)
        return torch.where(hidden & reveal, drawn, x_t)


def _keep(schedule: Schedule, t: float | None) -> float:
    """The survival at a time; at the data themselves everything has survived."""
    return 1.0 if t is None else float(schedule.alpha(t))


def _ratio(a: float, b: float) -> float:
    return a / b if b > 0 else math.inf


def _jumped(amount: Number) -> Number:
    return -torch.expm1(-amount) if isinstance(amount, Tensor) else -math.expm1(-amount)


def on_elements(c: Number, x: Tensor, layout: Layout) -> Number:
    """A number as it is; one per sample (B,), or per element, broadcastable to ``x``, in its dtype."""
    if not isinstance(c, Tensor):
        return c
    return layout.expand(c.to(x) if x.is_floating_point() else c.to(x.device), x)


def pick(p: Tensor, u: Tensor) -> Tensor:
    """The class that a number ``u`` (...) in [0, 1) picks by the weights ``p`` (..., states); never one of weight 0."""
    cdf = p.cumsum(-1)
    total = cdf[..., -1]
    # u * total may round up to the total, and then no class, or one of weight zero, would lie there
    u = torch.minimum(u.to(cdf) * total, total * (1 - torch.finfo(cdf.dtype).eps))
    return (u[..., None] >= cdf).sum(-1).clamp(max=p.shape[-1] - 1)


def owners(x: Tensor, layout: Layout) -> Tensor:
    """The sample of every entry of ``x``, flat; B where an entry belongs to none."""
    rows = layout.expand(torch.arange(layout.batch, device=x.device), x).expand(x.shape)
    valid = layout.clean(torch.ones_like(x, dtype=torch.bool))
    return torch.where(valid, rows, layout.batch).flatten()


def ranks(score: Tensor, owner: Tensor, batch: int) -> Tensor:
    """The place of every entry among those of its owner (0..batch), highest score first; all flat."""
    order = score.argsort(descending=True, stable=True)
    order = order[owner[order].argsort(stable=True)]
    counts = torch.bincount(owner, minlength=batch + 1)
    first = counts.cumsum(0) - counts
    places = torch.empty_like(owner)
    places[order] = torch.arange(len(owner), device=owner.device) - first[owner[order]]
    return places
