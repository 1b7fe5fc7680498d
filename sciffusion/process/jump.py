r"""Jump processes: classes that are replaced by a draw from their prior.

A class survives to the time t with probability :math:`\alpha_t` (the schedule's own alpha):
:math:`q(x_t\mid x_0) = \alpha_t\,\delta_{x_0} + (1-\alpha_t)\,\pi`, where :math:`\pi` is uniform over the k classes, or
the mask. In continuous time every class is resampled from :math:`\pi` at the rate :math:`-\dot\alpha_t/\alpha_t`.
The network predicts :math:`p(x_0\mid x_t)`; a step from t to s draws from the exact posterior

.. math:: p(x_s\mid x_t) = \sum_{x_0} q(x_s\mid x_t, x_0)\,p(x_0\mid x_t),\qquad
          q(x_s\mid x_t,x_0) \propto q(x_t\mid x_s)\,q(x_s\mid x_0).

Source: Austin et al., D3PM, 2021; Campbell et al., 2022 and 2024; Shi et al., 2024 (masked).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from sciffusion.layout import Layout
from sciffusion.noise import Noise
from sciffusion.process.base import FieldProcess
from sciffusion.schedule import Schedule
from sciffusion.solver import Solver, Window
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
    here. Raises ``ValueError`` if the schedule's alpha does not fall from 1 towards 0 (variance exploding ones do not).
    """

    schedule: Schedule
    space: Categorical

    def __post_init__(self) -> None:
        start, end = float(self.schedule.alpha(0.0)), float(self.schedule.alpha(1.0))
        if not (start > 0.99 and end < 0.1):
            raise ValueError(
                f"a jump process needs a schedule whose alpha falls from 1 to 0, got {start} to {end}"
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
        r"""The cross-entropy :math:`-\log p(x_0\mid x_t)`, nats per element, averaged over each sample."""
        log_p = x0_hat.gather(-1, x0[..., None])[..., 0].clamp(min=1e-12).log()
        return -layout.reduce(layout.clean(log_p), "mean")

    def show(
        self, x_t: Tensor, t: Tensor, layout: Layout, sigma_data: float | Tensor
    ) -> tuple[Tensor, None]:
        """The one-hot classes, in the default dtype."""
        return layout.clean(self.one_hot(x_t, torch.get_default_dtype())), None

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

    def posterior(self, x_t: Tensor, p0: Tensor, keep_t: float, keep_s: float) -> Tensor:
        """:math:`p(x_s | x_t)` over the states, (..., states), for survivals ``keep_t`` <= ``keep_s``."""
        k = self.space.k
        if self.space.absorbing:
            reveal = (keep_s - keep_t) / (1 - keep_t) if keep_t < 1 else 1.0
            stay = torch.nn.functional.one_hot(x_t, k + 1).to(p0)
            masked = torch.cat([p0 * reveal, torch.full_like(p0[..., :1], 1 - reveal)], -1)
            return torch.where((x_t == k)[..., None], masked, stay)
        step = keep_t / keep_s if keep_s > 0 else 0.0
        hit = torch.nn.functional.one_hot(x_t, k).to(p0)
        forward = step * hit + (1 - step) / k  # q(x_t | x_s), as a function of x_s
        # q(x_s | x_t, x_0) = forward(x_s) [keep_s 1(x_s = x_0) + (1-keep_s)/k] / q(x_t | x_0), summed over x_0
        ratio = p0 / (keep_t * hit + (1 - keep_t) / k).clamp(min=1e-12)
        out = forward * (keep_s * ratio + (1 - keep_s) / k * ratio.sum(-1, keepdim=True))
        return out / out.sum(-1, keepdim=True)

    def combine_field(self, weights: Sequence[float | Tensor], x0: Sequence[Tensor]) -> Tensor:
        logs = sum(
            (w * p.clamp(min=1e-12).log() for w, p in zip(weights, x0, strict=True)),
            torch.zeros_like(x0[0]),
        )
        return logs.softmax(-1)

    def compile(self, solver: Solver, windows: Sequence[Window]) -> list[Any]:
        def keep(t: float | None) -> float:
            return 1.0 if t is None else float(self.schedule.alpha(t))

        return [(keep(w.start), *(keep(t) for t in w.nodes), keep(w.end)) for w in windows]

    def lift(self, move: Any, x: Tensor, layout: Layout, noise: Noise) -> Tensor:
        start, lifted = move[:2]
        if lifted == start:
            return x
        stay = noise.uniform(x, layout) < lifted / start
        return torch.where(stay, x, self.space.prior(x, layout, noise))

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
        current = values[0]
        # every stage jumps on, from the time of its own evaluation to that of the next, or to the end of the step
        keep_t, keep_s = move[stage + 1], move[stage + 2]
        if keep_s == keep_t:
            return current
        cdf = self.posterior(current, x0[0], keep_t, keep_s).cumsum(-1)
        u = noise.uniform(current, layout).to(cdf) * cdf[..., -1]
        return layout.clean((u[..., None] >= cdf).sum(-1).clamp(max=self.space.states - 1))
