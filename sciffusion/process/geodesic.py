r"""Flow matching along geodesics: noising on a curved space.

The way from a clean point :math:`x_0` to a point :math:`x_1` of the uniform prior is the shortest geodesic,

.. math:: x_t = \exp_{x_0}\big(\kappa_t\log_{x_0}x_1\big),

with :math:`\kappa_t` the schedule's sigma, from 0 to 1. Seen from :math:`x_t` the data lie behind, at
:math:`\log_{x_t}x_0`, and the point moves with the velocity :math:`\dot x_t = -(\dot\kappa_t/\kappa_t)\log_{x_t}x_0`. A
prediction of :math:`x_0` is the point that lies in the mean direction,

.. math:: \hat x_0 = \exp_{x_t}\big(E[\log_{x_t}x_0\mid x_t]\big),\qquad
          E[\dot x_t\mid x_t] = -\frac{\dot\kappa_t}{\kappa_t}\log_{x_t}\hat x_0,

and a step goes along the geodesic to it, :math:`x_s = \exp_{x_t}\big((1-\kappa_s/\kappa_t)\log_{x_t}\hat x_0\big)`,
which is exact where :math:`\hat x_0` stays the same. On a flat space this is DDIM for rectified flow.

Source: Chen & Lipman, Riemannian flow matching, ICLR 2024; on rotations Yim et al., FrameFlow, 2023; on tori Miller et
al., FlowMM, 2024.
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
from sciffusion.solver import Number, Solver, Window
from sciffusion.space import Manifold

if TYPE_CHECKING:
    from sciffusion.objective import Weight
    from sciffusion.process.gaussian import Target

__all__ = ["Geodesic"]


@final
@dataclass(frozen=True, eq=False)
class Geodesic(FieldProcess):
    r"""The geodesic process of one field on a manifold.

    Every solver takes a first-order step of its times here, but for a second evaluation at the end of a step (Heun's),
    which makes it second order; its noise is left out, since marginals between the uniform prior and the data have no
    score in closed form. Predictions may be read from a network and said as

    * ``"x0"``: the point (any numbers, to which the nearest point is taken);
    * ``"flow"``: the velocity :math:`\dot x_t`, a tangent vector at :math:`x_t`;
    * ``"v"``: for a network the velocity per :math:`\dot\kappa` and per its root mean square, an output of unit
      variance; for a loss or a prediction the same as ``"flow"``.

    Raises ``ValueError`` unless the schedule's sigma rises from 0 to 1, for another target, and for runs that raise the
    noise on their way (churn, restarts, the rounds of RePaint).
    """

    schedule: Schedule
    space: Manifold

    def __post_init__(self) -> None:
        start, end = (float(self.schedule.sigma(t).detach()) for t in (0.0, 1.0))
        if not (abs(start) < 0.01 and abs(end - 1) < 0.01):
            raise ValueError(
                f"schedule: a geodesic process needs a sigma that rises from 0 to 1, got {start} to {end}; "
                "use RectifiedFlow() or a variance preserving one"
            )

    def noise_field(self, x0: Tensor, layout: Layout, noise: Noise) -> Tensor:
        return self.space.prior(x0, layout, noise)

    def prior_field(self, like: Tensor, layout: Layout, noise: Noise) -> Tensor:
        return self.space.prior(like, layout, noise)

    def perturb_field(
        self, x0: Tensor, t: Tensor, layout: Layout, noise: Noise, eps: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        x0 = self.space.project(x0, layout)
        eps = self.noise_field(x0, layout, noise) if eps is None else eps
        kappa = _factor(self.schedule.sigma(t), x0, layout)
        return layout.clean(self.space.exp(x0, kappa * self.space.log(x0, eps))), x0, eps

    def show(
        self, x_t: Tensor, t: Tensor, layout: Layout, sigma_data: float | Tensor
    ) -> tuple[Tensor, Number]:
        r"""The point itself; the way to x0 per unit of output, :math:`-\kappa_t` times the prior's spread."""
        spread = self.space.noise_scale(x_t, layout)
        scale = spread.to(x_t) if isinstance(spread, Tensor) else spread
        return x_t, -scale * _factor(self.schedule.sigma(t), x_t, layout)

    def read(
        self, raw: Tensor, x_t: Tensor, t: Tensor, layout: Layout, target: Target, shown: Any = None
    ) -> Tensor:
        raw = raw.to(x_t.dtype)
        if target == "x0":
            return self.space.project(raw, layout)
        self._check(target)
        if target == "v" and shown is not None:
            gain = shown
        else:
            kappa, rate = self.schedule.sigma(t), self.schedule.rates(t)[1]
            gain = _factor(-kappa / rate, x_t, layout)
        v = self.space.to_tangent(x_t, layout.clean(raw))
        return layout.clean(self.space.exp(x_t, gain * v))

    def express(
        self, x0_hat: Tensor, x_t: Tensor, t: Tensor, layout: Layout, target: Target
    ) -> Tensor:
        if target == "x0":
            return x0_hat
        self._check(target)
        kappa, rate = self.schedule.sigma(t), self.schedule.rates(t)[1]
        return layout.clean(_factor(-rate / kappa, x_t, layout) * self.space.log(x_t, x0_hat))

    @staticmethod
    def _check(target: Target) -> None:
        if target not in ("flow", "v"):
            raise ValueError(
                f"target {target!r} means nothing on a curved space; use 'x0', 'flow' or 'v' there"
            )

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
        r""":math:`w(t)\,\|\log_{x_t}\hat x_0 - \log_{x_t}x_0\|^2 / \mathrm{dof}`, least at the mean of the logarithms.

        Without a weight ``w`` is :math:`(\dot\kappa/\kappa)^2`, the error of the velocity, or 1 for the target x0.
        """
        x_t, x0_hat = layout.clean(x_t), layout.clean(x0_hat)
        error = self.space.length2(self.space.log(x_t, x0_hat) - self.space.log(x_t, x0))
        if weight is not None:
            w = weight(self.schedule, t)
        elif target == "x0":
            w = torch.ones_like(t, dtype=torch.float64)
        else:
            self._check(target)
            w = (self.schedule.rates(t)[1] / self.schedule.sigma(t)) ** 2
        return layout.reduce(_factor(w, error, layout) * error) / self.space.dof(x0, layout).clamp(
            min=1
        )

    def combine_field(self, weights: Sequence[Number], x0: Sequence[Tensor]) -> Tensor:
        """Weights that sum to 1 act on the tangent vectors at the first point."""
        first = x0[0]
        v = torch.zeros_like(first)
        for w, x in zip(weights[1:], x0[1:], strict=True):
            v = v + w * self.space.log(first, x)
        return self.space.exp(first, v)

    def compile(self, solver: Solver, windows: Sequence[Window]) -> list[Any]:
        """Each step's kappas: where it evaluates the denoiser, and at its end."""
        if any(w.nodes[0] != w.start for w in windows):
            raise ValueError(
                f"the run of {solver} raises the noise on its way, which a geodesic process cannot; take it without "
                "churn, restarts and rounds"
            )
        times = sorted({t for w in windows for t in (*w.nodes, w.end) if t is not None})
        kappas = self.schedule.sigma(torch.tensor(times, dtype=torch.float64)).tolist()
        kappa: dict[float | None, float] = {None: 0.0, **dict(zip(times, kappas, strict=True))}
        return [tuple(kappa[t] for t in (*w.nodes, w.end)) for w in windows]

    def lift(self, move: Any, x: Tensor, layout: Layout, noise: Noise) -> Tensor:
        return x

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
        here, ahead = move[stage], move[stage + 1]
        if not _equal(here, ahead):
            x = layout.clean(values[0])
            return self._go(x, self.space.log(x, x0[0]), here, ahead, layout)
        if stage == 0:
            return values[0]
        # evaluated at the end of the step: go again from the evaluation before, with the mean of both velocities
        before, at = layout.clean(values[1]), layout.clean(values[0])
        seen = self.space.transport(at, before, self.space.log(at, x0[0]))
        seen = _factor(move[stage - 1] / here, before, layout) * seen
        mean = 0.5 * (self.space.log(before, x0[1]) + seen)
        return self._go(before, mean, move[stage - 1], here, layout)

    def _go(self, x: Tensor, v: Tensor, here: Number, ahead: Number, layout: Layout) -> Tensor:
        """From kappa ``here`` to ``ahead`` on the geodesic that reaches the data with the velocity ``v``."""
        return layout.clean(self.space.exp(x, _factor(1 - ahead / here, x, layout) * v))


def _factor(c: Number, x: Tensor, layout: Layout) -> Number:
    """What multiplies the field ``x`` by ``c``."""
    return layout.expand(c.to(x), x) if isinstance(c, Tensor) else c


def _equal(a: Number, b: Number) -> bool:
    return bool(torch.as_tensor(a == b).all())
