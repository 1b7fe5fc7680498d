r"""Diffusion on circles: Gaussian noise that is wrapped around them.

.. math:: x_t = x_0 + \sigma_t\,\varepsilon \mod P,\qquad
          p(x_t\mid x_0) = \sum_{n\in\mathbb Z} N(x_t - x_0 + nP;\, 0, \sigma_t^2),

which is the variance exploding process of data that repeat with the period P. A score is therefore defined, every
solver of Gaussian processes goes through, noise and high order included, and at large :math:`\sigma` all is uniform. A
prediction of :math:`x_0` is the point that lies in the mean direction,

.. math:: \hat x_0 = x_t + \sigma_t^2\,\nabla\log p_t(x_t) \mod P,

nearer than half a period; over all images of :math:`x_0`, so that far from the data it is :math:`x_t` itself.

Source: De Bortoli et al., Riemannian score-based modelling, 2022; Jing et al., torsional diffusion, 2022 (the loss);
Jiao et al., DiffCSP, 2023 and Zeni et al., MatterGen, 2023 (fractional coordinates).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

import torch
from torch import Tensor

from sciffusion.layout import Layout
from sciffusion.noise import Noise
from sciffusion.process.base import AffineProcess
from sciffusion.process.gaussian import Gaussian
from sciffusion.schedule import Schedule
from sciffusion.solver import Rule, Solver, Window, times
from sciffusion.space import Torus

if TYPE_CHECKING:
    from sciffusion.objective import Weight
    from sciffusion.process.gaussian import Target

__all__ = ["Wrapped"]

_IMAGES = 3


@final
@dataclass(frozen=True, eq=False)
class Wrapped(AffineProcess):
    r"""Wrapped Gaussian noise on a torus; :math:`\sigma` in the units of its numbers.

    Predictions may be read and said as ``"x0"``, ``"eps"``, ``"flow"`` and ``"score"``; ``"v"`` is the same as
    ``"eps"``, whose optimal output never exceeds unit variance. Raises ``ValueError`` unless the schedule's alpha is 1
    (:class:`~sciffusion.schedule.VE`) and its last sigma makes every circle uniform within 1 %, about half a period.
    """

    schedule: Schedule
    space: Torus
    scaled: ClassVar[bool] = False

    def __post_init__(self) -> None:
        ends = [float(self.schedule.alpha(t).detach()) for t in (0.0, 0.5, 1.0)]
        if any(abs(alpha - 1) > 1e-6 for alpha in ends):
            raise ValueError(f"schedule: wrapped noise leaves alpha at 1, got {ends}; use VE()")
        period, last = (
            float(torch.as_tensor(self.space.period).max()),
            float(self.schedule.sigma(1.0).detach()),
        )
        left = math.exp(-2 * (math.pi * last / period) ** 2)
        if left > 0.01:
            raise ValueError(
                f"schedule: sigma ends at {last:g}, where a circle of {period:g} is not uniform yet; "
                f"let it end at {0.5 * period:g} or more"
            )

    def noise_field(self, x0: Tensor, layout: Layout, noise: Noise) -> Tensor:
        return noise.normal(x0, layout)

    def prior_field(self, like: Tensor, layout: Layout, noise: Noise) -> Tensor:
        return self.space.prior(like, layout, noise)

    def perturb_field(
        self, x0: Tensor, t: Tensor, layout: Layout, noise: Noise, eps: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        x0 = self.space.project(x0, layout)
        eps = self.noise_field(x0, layout, noise) if eps is None else eps
        sigma = layout.expand(self.schedule.sigma(t).to(x0), x0)
        return layout.clean(self.space.exp(x0, sigma * eps)), x0, eps

    def show(
        self, x_t: Tensor, t: Tensor, layout: Layout, sigma_data: float | Tensor
    ) -> tuple[Tensor, None]:
        """The point itself."""
        return x_t, None

    def read(
        self, raw: Tensor, x_t: Tensor, t: Tensor, layout: Layout, target: Target, shown: Any = None
    ) -> Tensor:
        raw = raw.to(x_t.dtype)
        if target == "x0":
            return self.space.project(raw, layout)
        gain = layout.expand((1 / self._per_step(t, target)).to(x_t), x_t)
        return layout.clean(self.space.exp(x_t, gain * layout.clean(raw)))

    def express(
        self, x0_hat: Tensor, x_t: Tensor, t: Tensor, layout: Layout, target: Target
    ) -> Tensor:
        if target == "x0":
            return x0_hat
        gain = layout.expand(self._per_step(t, target).to(x_t), x_t)
        return layout.clean(gain * self.space.log(x_t, x0_hat))

    def _per_step(self, t: Tensor, target: Target) -> Tensor:
        """The target per unit of the way from x_t to the prediction, like ``t``."""
        sigma = self.schedule.sigma(t)
        if target == "flow":
            return -self.schedule.rates(t)[1] / sigma
        if target in ("eps", "v"):
            return -1 / sigma
        if target == "score":
            return sigma**-2
        return torch.ones_like(sigma)

    def direction(self, x_t: Tensor, x0: Tensor, t: Tensor, layout: Layout) -> Tensor:
        r""":math:`\sigma_t^2\nabla\log p(x_t\mid x_0)`: the mean way to the images of ``x0``, like ``x_t``.

        A sum over the nearest images where they are few, and over harmonics where the circle is nearly uniform.
        """
        way = self.space.log(x_t, x0)
        period = torch.as_tensor(self.space.period, dtype=torch.float64, device=way.device)
        sigma = layout.expand(self.schedule.sigma(t).to(way.device), way)
        level, angle = sigma / period, 2 * math.pi * (way.double() / period)
        narrow = level < 0.4
        n = torch.arange(-_IMAGES, _IMAGES + 1, dtype=torch.float64, device=way.device)
        image = way.double()[..., None] / period[..., None] + n
        log_p = -0.5 * (image / level.clamp(1e-6, 0.4)[..., None]) ** 2
        near = period * (log_p.softmax(-1) * image).sum(-1)
        m = n[_IMAGES + 1 :]
        fade = torch.exp(-2 * (math.pi * m * level.clamp(min=0.3)[..., None]) ** 2)
        wave = m * angle[..., None]
        slope = (2 * m * fade * wave.sin()).sum(-1)
        height = 1 + 2 * (fade * wave.cos()).sum(-1)
        far = period * level**2 * 2 * math.pi * slope / height
        return torch.where(narrow, near, far).to(way)

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
        r""":math:`w(t)\,\|\log_{x_t}\hat x_0 - \sigma_t^2\nabla\log p(x_t\mid x_0)\|^2/\mathrm{dof}`.

        Its least is the exact score. Without a weight the error of the target counts evenly. One that is certain of
        ``x0`` has no loss while the images of ``x0`` are apart; at more noise not even it can tell which of them the
        noise came from.
        """
        x_t, x0_hat = layout.clean(x_t), layout.clean(x0_hat)
        error = self.space.log(x_t, x0_hat) - self.direction(x_t, x0, t, layout)
        w = self._per_step(t, target) ** 2 if weight is None else weight(self.schedule, t)
        w = layout.expand(w.to(error), error)
        return layout.reduce(w * error.square()) / self.space.dof(x0, layout).clamp(min=1)

    def combine_field(self, weights: Sequence[float | Tensor], x0: Sequence[Tensor]) -> Tensor:
        """Weights that sum to 1 act on the ways from the first point."""
        way = torch.zeros_like(x0[0])
        for w, x in zip(weights[1:], x0[1:], strict=True):
            way = way + w * self.space.log(x0[0], x)
        return self.space.exp(x0[0], way)

    def compile(self, solver: Solver, windows: Sequence[Window]) -> list[Any]:
        return Gaussian(self.schedule).compile(solver, windows)

    def _apply(
        self,
        rule: Rule,
        base: Tensor,
        values: Sequence[Tensor],
        x0: Sequence[Tensor],
        layout: Layout,
        noise: Noise,
    ) -> Tensor:
        """The affine rule, whose coefficients sum to 1 since alpha is 1, on the ways from the base."""
        ways = [self.space.log(base, x) for x in values]
        step = torch.zeros_like(base)
        for b, way, x, p in zip(rule.x0, ways, values, x0, strict=False):
            step = step + times(b, way + self.space.log(x, p), layout)
        for c, way in zip(rule.values, ways, strict=False):
            step = step + times(c, way, layout)
        if bool(torch.as_tensor(rule.noise).any()):
            step = step + times(rule.noise, noise.normal(base, layout), layout)
        return layout.clean(self.space.exp(base, step))
