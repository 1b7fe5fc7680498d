r"""Jump processes: classes that are replaced by a draw from their prior.

A class survives to the time t with probability :math:`\alpha_t` (the schedule's own alpha):
:math:`q(x_t\mid x_0) = \alpha_t\,\delta_{x_0} + (1-\alpha_t)\,\pi`, where :math:`\pi` is uniform over the k classes, or
the mask. In continuous time every class is redrawn from :math:`\pi` at the rate
:math:`\beta_t = -\dot\alpha_t/\alpha_t`: the rate matrix is :math:`Q_t = \beta_t(\mathbf 1\pi^T - I)`. Reversed in
time, x jumps to y at the rate :math:`Q_t(y, x)\,r_t(y)`, where

.. math:: r_t(y) = \frac{p_t(y)}{p_t(x)} = \sum_{x_0}\frac{q(y\mid x_0)}{q(x\mid x_0)}\,p(x_0\mid x)

is what a network tells of its data (the concrete score). The network predicts :math:`p(x_0\mid x_t)`; a step from t to
s draws from the posterior

.. math:: p(x_s\mid x_t) = \sum_{x_0} q(x_s\mid x_t, x_0)\,p(x_0\mid x_t),\qquad
          q(x_s\mid x_t,x_0) \propto q(x_t\mid x_s)\,q(x_s\mid x_0),

or by another rule (:mod:`~sciffusion.process.jump_steps`). With the ratios :math:`\hat r` of the prediction and
:math:`r^*` of the data, the negative evidence lower bound is the integral over t of

.. math:: \sum_{y\ne x_t} Q_t(y,x_t)\,\Big(\hat r(y) - r^*(y) + r^*(y)\log\frac{r^*(y)}{\hat r(y)}\Big),

for a mask :math:`-\dot\alpha_t/(1-\alpha_t)\,(-\log p(x_0\mid x_t))` at every masked element.

Source: Austin et al., D3PM, 2021; Campbell et al., 2022 and 2024; Lou et al., SEDD, 2024 (ratios, bound); Shi et al.,
MD4, 2024 and Sahoo et al., MDLM, 2024 (masks); Schiff et al., UDLM, 2024 (uniform).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from sciffusion.layout import Dense, Layout
from sciffusion.noise import Noise
from sciffusion.process.base import FieldProcess
from sciffusion.process.jump_steps import ExactStep, JumpStep, on_elements
from sciffusion.schedule import Schedule
from sciffusion.schedule.invert import invert
from sciffusion.solver import Number, Solver, Window
from sciffusion.space import Categorical

if TYPE_CHECKING:
    from sciffusion.objective import Weight
    from sciffusion.process.gaussian import Target

__all__ = ["Jump"]


@final
@dataclass(frozen=True)
class Jump(FieldProcess):
    """A jump process over classes; the schedule's alpha is the probability of survival.

    Fields hold integers. Predictions of x0 are probabilities, (..., k). A solver of any order takes first-order steps
    here, by the rule ``step``. Raises ``ValueError`` if the schedule's alpha does not fall from 1 towards 0 (variance
    exploding ones do not), and for a rule that needs a mask in a space without one.
    """

    schedule: Schedule
    space: Categorical
    step: JumpStep = field(default_factory=ExactStep)

    def __post_init__(self) -> None:
        start, end = (float(self.schedule.alpha(t).detach()) for t in (0.0, 1.0))
        if not (start > 0.99 and end < 0.1):
            raise ValueError(
                f"a jump process needs a schedule whose alpha falls from 1 to 0, got {start} to {end}"
            )
        if self.step.masked_only and not self.space.absorbing:
            raise ValueError(
                f"step {self.step} reveals masks, but {self.space} has none; set absorbing=True or use ExactStep()"
            )

    def noise_field(self, x0: Tensor, layout: Layout, noise: Noise) -> Tensor:
        return self.space.prior(x0, layout, noise)

    def prior_field(self, like: Tensor, layout: Layout, noise: Noise) -> Tensor:
        return self.space.prior(like, layout, noise)

    def perturb_field(
        self, x0: Tensor, t: Tensor, layout: Layout, noise: Noise, eps: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        x0 = self.space.check(self.space.project(x0, layout))
        eps = self.noise_field(x0, layout, noise) if eps is None else eps
        keep = noise.uniform(x0, layout) < layout.expand(self.schedule.alpha(t).to(x0.device), x0)
        return layout.clean(torch.where(keep, x0, eps)), x0, eps

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
        r"""The cross-entropy :math:`-\log p(x_0\mid x_t)`, nats per element, averaged over each sample.

        With a weight that is an integrand (:class:`~sciffusion.objective.Likelihood`) the integrand of the negative
        evidence lower bound instead, nats per element and unit of time. Other weights change nothing.
        """
        if weight is not None and weight.integrand:
            keep, rate = self.schedule.alpha(t), -self.schedule.rates(t)[0]
            bound = self.bound_rate(x0_hat, x0, x_t, keep, layout)
            rate = layout.expand(rate.to(bound), bound)
            return layout.reduce(layout.clean(rate * bound), "mean")
        log_p = x0_hat.gather(-1, x0[..., None])[..., 0].clamp(min=1e-12).log()
        return -layout.reduce(layout.clean(log_p), "mean")

    def bound_rate(
        self, p0: Tensor, x0: Tensor, x_t: Tensor, keep: Tensor, layout: Layout
    ) -> Tensor:
        r"""The integrand of the negative evidence lower bound per unit of survival lost, nats, like ``x0``.

        ``keep`` is the survival at ``x_t``, (), (B,) or per element; times :math:`-\dot\alpha_t` this is the integrand
        over time. The integral of its mean over the survival from 0 to 1 bounds :math:`-\log p(x_0)`, and equals it for
        the exact denoiser.
        """
        k = self.space.k
        if self.space.absorbing:
            log_p = p0.gather(-1, x0[..., None])[..., 0].clamp(min=1e-30).log()
            lost = layout.expand((1 - keep).clamp(min=1e-30).to(p0), x0)
            return torch.where(x_t == k, -log_p / lost, torch.zeros_like(log_p))
        known = torch.nn.functional.one_hot(layout.clean(x0), k).to(p0)
        # the rate is infinite at 0, where nothing is left to tell; a ratio is at 1
        eps = torch.finfo(p0.dtype).eps
        keep = keep.clamp(eps, 1 - eps)
        got, want = (self.ratios(x_t, p, keep, layout) for p in (p0, known))
        off = (got - want) / want
        # at low survival all ratios are nearly one and the rate is large: log1p keeps the digits; elsewhere log does
        near = off.abs() < 0.5
        log = torch.where(near, off.clamp(-0.5, 0.5).log1p(), (got / want).clamp(min=1e-30).log())
        terms = want * (off - log)
        return terms.sum(-1) / (k * layout.expand(keep.to(p0), x0))

    def rate(self, t: Tensor | float) -> Tensor:
        r""":math:`\beta_t = -\dot\alpha_t/\alpha_t`, the rate of redrawing a class; infinite at alpha = 0."""
        return -self.schedule.rates(t)[0] / self.schedule.alpha(t)

    def rates(self, t: Tensor | float) -> Tensor:
        r"""The forward rate matrix :math:`Q_t`, (*t, states, states): from the row's state to the column's.

        Rows sum to zero, and :math:`\dot P_t = P_tQ_t` for the kernel :math:`P_t(x_0, x) = q(x\mid x_0)`.
        """
        k, states = self.space.k, self.space.states
        prior = torch.zeros(states, dtype=torch.float64)
        prior[k:] = 1.0
        if not self.space.absorbing:
            prior[:] = 1 / k
        return self.rate(t)[..., None, None] * (prior - torch.eye(states, dtype=torch.float64))

    def reverse_rates(
        self, x_t: Tensor, p0: Tensor, t: Tensor | float, layout: Layout | None = None
    ) -> Tensor:
        r"""The rates of the process that runs from noise to data, out of ``x_t`` given ``p0`` (..., k): (..., states).

        The entry of the present state is minus the sum of the others, so that a step h of time has the probabilities
        :math:`\delta_{x_t} + h R + O(h^2)`. ``t``: (), (B,) or per element; ``layout``: dense unless given. Infinite
        where the forward rate is. Source: Campbell et al., 2022; Lou et al., 2024.
        """
        layout = Dense(len(x_t)) if layout is None else layout
        x_t, k = layout.clean(x_t), self.space.k
        keep, lost = self.schedule.alpha(t), -self.schedule.rates(t)[0]
        if self.space.absorbing:
            to = torch.cat([p0, torch.zeros_like(p0[..., :1])], -1)
            to = to * on_elements(lost / (1 - keep), p0, layout)
            to = torch.where((x_t == k)[..., None], to, torch.zeros_like(to))
        else:
            rate = on_elements(lost / keep / k, p0, layout)
            to = rate * self.ratios(x_t, p0, keep, layout).scatter(-1, x_t[..., None], 0.0)
        return to.scatter(-1, x_t[..., None], -to.sum(-1, keepdim=True))

    def ratios(self, x_t: Tensor, p0: Tensor, keep: Number, layout: Layout) -> Tensor:
        r"""Uniform prior: :math:`p_t(y)/p_t(x_t)` for every class y, (..., k), at the survival ``keep``."""
        return self._carried(x_t, p0, keep, keep, layout)

    def _carried(
        self, x_t: Tensor, p0: Tensor, keep_t: Number, keep_s: Number, layout: Layout
    ) -> Tensor:
        r""":math:`\sum_{x_0} q(x_s\mid x_0)\,p(x_0\mid x_t)/q(x_t\mid x_0)` for a uniform prior, (..., k)."""
        k = self.space.k
        hit = torch.nn.functional.one_hot(layout.clean(x_t), k).to(p0)
        lost_t, lost_s = ((1 - c) / k for c in (keep_t, keep_s))
        keep_t, lost_t, keep_s, lost_s = (
            on_elements(c, p0, layout) for c in (keep_t, lost_t, keep_s, lost_s)
        )
        odds = p0 / (keep_t * hit + lost_t).clamp(min=1e-12)
        return keep_s * odds + lost_s * odds.sum(-1, keepdim=True)

    def show(
        self, x_t: Tensor, t: Tensor, layout: Layout, sigma_data: float | Tensor
    ) -> tuple[Tensor, None]:
        """The one-hot classes, in the default dtype."""
        return layout.clean(self.one_hot(layout.clean(x_t), torch.get_default_dtype())), None

    def read(
        self, raw: Tensor, x_t: Tensor, t: Tensor, layout: Layout, target: Target, shown: Any = None
    ) -> Tensor:
        """Logits, whatever the target."""
        return raw.to(torch.get_default_dtype()).softmax(-1)

    def express(
        self, x0_hat: Tensor, x_t: Tensor, t: Tensor, layout: Layout, target: Target
    ) -> Tensor:
        """The probabilities, whatever the target."""
        return x0_hat

    def certain(self, x0: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(x0, self.space.k).to(torch.get_default_dtype())

    def one_hot(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """The noised classes as a network's input, (..., k); a mask is all zeros."""
        return torch.nn.functional.one_hot(x, self.space.states)[..., : self.space.k].to(dtype)

    def posterior(
        self,
        x_t: Tensor,
        p0: Tensor,
        keep_t: Number,
        keep_s: Number,
        layout: Layout | None = None,
    ) -> Tensor:
        """:math:`p(x_s | x_t)` over the states, (..., states), for survivals ``keep_t`` <= ``keep_s``.

        The survivals are numbers, or tensors (B,) or per element. ``layout``: dense unless given.
        """
        layout = Dense(len(x_t)) if layout is None else layout
        x_t, k = layout.clean(x_t), self.space.k
        if self.space.absorbing:
            hide = (1 - keep_s) / _at_least(1 - keep_t)
            reveal, hide = (on_elements(c, p0, layout) for c in (1 - hide, hide))
            stay = torch.nn.functional.one_hot(x_t, k + 1).to(p0)
            masked = torch.cat([p0 * reveal, torch.ones_like(p0[..., :1]) * hide], -1)
            return torch.where((x_t == k)[..., None], masked, stay)
        step = keep_t / _at_least(keep_s)
        moved, step = on_elements((1 - step) / k, p0, layout), on_elements(step, p0, layout)
        # q(x_s | x_t, x_0) = q(x_t | x_s) q(x_s | x_0) / q(x_t | x_0), summed over x_0
        forward = step * torch.nn.functional.one_hot(x_t, k).to(p0) + moved
        out = forward * self._carried(x_t, p0, keep_t, keep_s, layout)
        return out / out.sum(-1, keepdim=True)

    def time(self, keep: Tensor) -> Tensor:
        """The time at which the survival is ``keep``, float64; the nearer end beyond the schedule's range."""
        return invert(self.schedule.alpha, lambda t: self.schedule.rates(t)[0], keep.double())

    def combine_field(self, weights: Sequence[float | Tensor], x0: Sequence[Tensor]) -> Tensor:
        logs = sum(
            (w * p.clamp(min=1e-12).log() for w, p in zip(weights, x0, strict=True)),
            torch.zeros_like(x0[0]),
        )
        return logs.softmax(-1)

    def compile(self, solver: Solver, windows: Sequence[Window]) -> list[Any]:
        moves = []
        for w in windows:
            # every stage jumps on, from the time of its own evaluation to that of the next, or to the end of the step
            ends = (*w.nodes[1:], w.end)
            stages = tuple(self._stage(t, s) for t, s in zip(w.nodes, ends, strict=True))
            moves.append((self._stay(w.start, w.nodes[0]), stages))
        return moves

    def _stay(self, t: float, s: float) -> float:
        """The survival from ``t`` up to a noisier ``s``."""
        start = float(self.schedule.alpha(t))
        return float(self.schedule.alpha(s)) / start if s > t and start > 0 else 1.0

    def _stage(self, t: float, s: float | None) -> tuple[float | None, Any]:
        """How to get from ``t`` to ``s``: the survival of a way up, or the numbers of a way down, or neither."""
        if s is not None and s >= t:
            return (self._stay(t, s) if s > t else None), None
        return None, self.step.numbers(self.schedule, t, s)

    def lift(self, move: Any, x: Tensor, layout: Layout, noise: Noise) -> Tensor:
        return self._raise(move[0], x, layout, noise)

    def _raise(self, stay: Number, x: Tensor, layout: Layout, noise: Noise) -> Tensor:
        stays = noise.uniform(x, layout) < on_elements(stay, x, layout)
        return torch.where(stays, x, self.space.prior(x, layout, noise))

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
        current, (stay, numbers) = values[0], move[1][stage]
        if numbers is not None:
            return layout.clean(self.step(self, numbers, current, x0[0], layout, noise))
        return current if stay is None else self._raise(stay, current, layout, noise)


def _at_least(c: Number) -> Number:
    """A divisor kept from zero, for numerators that vanish with it."""
    return c.clamp(min=1e-300) if isinstance(c, Tensor) else max(c, 1e-300)
