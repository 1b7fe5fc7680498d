r"""The Gaussian process :math:`x_t = \alpha_t x_0 + \sigma_t e` of one field, and its five targets.

Every target is a linear function of the data and the noise, :math:`y = a x_0 + b e`:

========  =======================  ========================
target    a                        b
========  =======================  ========================
x0        1                        0
eps       0                        1
v         :math:`-\sigma`          :math:`\alpha`
flow      :math:`\dot\alpha`       :math:`\dot\sigma`
========  =======================  ========================

and the score is :math:`-(LL^T)^{-1} e / \sigma`, for noise that is Gaussian. With :math:`x_t` at hand, each gives every
other one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final, get_args

import torch
from torch import Tensor

from sciffusion.layout import Layout
from sciffusion.noise import Noise
from sciffusion.process.base import AffineProcess, levels_at
from sciffusion.schedule import Schedule
from sciffusion.solver import Level, Number, Rule, Solver, Window, times
from sciffusion.space import Euclidean, GaussianSpace, LinearSpace

if TYPE_CHECKING:
    from sciffusion.objective import Weight

__all__ = ["Gaussian", "Target"]

Target = Literal["x0", "eps", "v", "flow", "score"]
"""What a network predicts, or a loss compares."""


@final
@dataclass(frozen=True, eq=False)
class Gaussian(AffineProcess):
    """Gaussian noising of one field by a schedule, in a space.

    In a space whose noise is not Gaussian (:class:`~sciffusion.space.StudentT`) all goes through as well, but for
    scores and stochastic solvers, which raise ``ValueError``.
    """

    schedule: Schedule
    space: LinearSpace = field(default_factory=Euclidean)
    scaled: ClassVar[bool] = True

    def noise_field(self, x0: Tensor, layout: Layout, noise: Noise) -> Tensor:
        return self.space.prior(x0, layout, noise)

    def prior_field(self, like: Tensor, layout: Layout, noise: Noise) -> Tensor:
        return self.space.prior(like, layout, noise) * float(self.schedule.sigma(1.0).detach())

    def perturb_field(
        self, x0: Tensor, t: Tensor, layout: Layout, noise: Noise, eps: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        x0 = self.space.project(x0, layout)
        eps = self.noise_field(x0, layout, noise) if eps is None else eps
        alpha, sigma = (layout.expand(c.to(x0), x0) for c in self.schedule(t))
        return alpha * x0 + sigma * eps, x0, eps

    def show(
        self, x_t: Tensor, t: Tensor, layout: Layout, sigma_data: float | Tensor
    ) -> tuple[Tensor, tuple[Number, Number]]:
        """The field at unit variance; c_skip and c_out of a preconditioned v."""
        s, n = sigma_data, self.space.noise_scale(x_t, layout)
        alpha: Number
        sigma: Number
        plain = not isinstance(s, Tensor) and not isinstance(n, Tensor)
        if t.ndim == 0 and plain and self.schedule.frozen:
            alpha, sigma, _ = levels_at(self.schedule, float(t))
        else:
            alpha, sigma = (layout.expand(c.to(x_t.device), x_t) for c in self.schedule(t))
            s, n = (torch.as_tensor(c, dtype=torch.float64, device=x_t.device) for c in (s, n))
        c_in = (alpha**2 * s**2 + sigma**2 * n**2) ** -0.5
        c_skip, c_out = alpha * s**2 * c_in**2, -sigma * n * s * c_in
        return x_t * _cast(c_in, x_t), (_cast(c_skip, x_t), _cast(c_out, x_t))

    def read(
        self, raw: Tensor, x_t: Tensor, t: Tensor, layout: Layout, target: Target, shown: Any = None
    ) -> Tensor:
        """The target itself, but for v the preconditioned one where the field was shown at unit variance."""
        raw = raw.to(x_t.dtype)
        if target == "v" and shown is not None:
            c_skip, c_out = shown
            return self.space.project(c_skip * x_t + c_out * raw, layout)
        return self.space.project(self.convert(raw, x_t, t, layout, src=target, dst="x0"), layout)

    def express(
        self, x0_hat: Tensor, x_t: Tensor, t: Tensor, layout: Layout, target: Target
    ) -> Tensor:
        return self.convert(x0_hat, x_t, t, layout, src="x0", dst=target)

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
        r""":math:`w(t)\,\|\hat x_0 - x_0\|^2 / \mathrm{dof}` in the norm of the space.

        Without a weight, ``w`` turns the squared error of x0 into that of the target (:meth:`target_weight`).
        """
        w = self.target_weight(target, t) if weight is None else weight(self.schedule, t)
        w, error, dof = w.to(x0_hat), layout.clean(x0_hat - x0), self.space.dof(x0, layout)
        if w.ndim == 0 or w.shape == (layout.batch,):
            return w * self.space.norm2(error, layout) / dof.clamp(min=1)
        # a time for each element: its weight goes inside the norm; what has no noise is known, and none of its error
        w = torch.where(self.schedule(t)[1].to(w) > 0, w, 0.0)
        return self.space.norm2(layout.expand(w.sqrt(), error) * error, layout) / dof.clamp(min=1)

    def convert(
        self, value: Tensor, x_t: Tensor, t: Tensor, layout: Layout, *, src: Target, dst: Target
    ) -> Tensor:
        r"""Turn a prediction of ``src`` at :math:`(x_t, t)` into one of ``dst``.

        Raises ``ValueError`` for an unknown target, or a score of noise that is not Gaussian. Where a conversion
        divides by zero (x0 from eps at :math:`\alpha = 0`, eps from x0 at :math:`\sigma = 0`, anything from the flow
        where both rates vanish, as the polynomial schedule's do at t = 1) the result is not finite.
        """
        if src == dst:
            return value
        if "score" in (src, dst):
            self._need_gaussian_noise("a score")
        alpha, sigma = self.schedule(t)
        if src == "score":
            scaled = layout.expand(-sigma.to(value), value) * value
            value, src = self.space.covariance(scaled, layout), "eps"
            if dst == "eps":
                return value
        a, b = self._coefficients(src, t)
        det = alpha * b - sigma * a
        if dst == "score":
            out_x, out_y = -a / det, alpha / det
            eps = self._mix(out_x, x_t, out_y, value, layout)
            return self.space.precision(eps, layout) / layout.expand(-sigma.to(eps), eps)
        c, d = self._coefficients(dst, t)
        # x0 = (b x_t - sigma y)/det and e = (alpha y - a x_t)/det, then c x0 + d e
        return self._mix((c * b - d * a) / det, x_t, (d * alpha - c * sigma) / det, value, layout)

    def _need_gaussian_noise(self, what: str) -> None:
        if not isinstance(self.space, GaussianSpace):
            raise ValueError(
                f"{what} needs Gaussian noise, and {self.space} has none: predict x0, eps, v or flow there and sample "
                f"with a deterministic solver"
            )

    def _coefficients(self, target: Target, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = self.schedule(t)
        zero, one = torch.zeros_like(alpha), torch.ones_like(alpha)
        if target == "x0":
            return one, zero
        if target == "eps":
            return zero, one
        if target == "v":
            return -sigma, alpha
        if target == "flow":
            return self.schedule.rates(t)
        raise ValueError(f"target must be one of {get_args(Target)}, got {target!r}")

    @staticmethod
    def _mix(p: Tensor, x: Tensor, q: Tensor, y: Tensor, layout: Layout) -> Tensor:
        return layout.expand(p.to(x), x) * x + layout.expand(q.to(y), y) * y

    def target_weight(self, target: Target, t: Tensor) -> Tensor:
        r"""The factor that turns a squared error of x0 into one of ``target`` at the same :math:`x_t`, like ``t``.

        An error d of x0 is an error :math:`(a - b\alpha/\sigma) d` of the target; a score's is taken for unit noise.
        """
        alpha, sigma = self.schedule(t)
        if target == "score":
            self._need_gaussian_noise("a score")
            return (alpha / sigma**2) ** 2
        a, b = self._coefficients(target, t)
        return (a - b * alpha / sigma) ** 2

    def combine_field(self, weights: Sequence[float | Tensor], x0: Sequence[Tensor]) -> Tensor:
        out = x0[0] * weights[0]
        for w, x in zip(weights[1:], x0[1:], strict=True):
            out = out + w * x if isinstance(w, Tensor) else torch.add(out, x, alpha=w)
        return out

    def compile(self, solver: Solver, windows: Sequence[Window]) -> list[Any]:
        if solver.stochastic:
            self._need_gaussian_noise(f"the stochastic solver {solver}")
        times = sorted(
            {t for w in windows for t in (w.start, *w.nodes, *w.past, w.end) if t is not None}
        )
        alpha, sigma = self.schedule(torch.tensor(times, dtype=torch.float64))
        levels: dict[float | None, Level] = {
            t: Level(a, s) for t, a, s in zip(times, alpha.tolist(), sigma.tolist(), strict=True)
        }
        levels[None] = Level(1.0, 0.0)
        moves: list[Any] = []
        for w in windows:
            nodes = [levels[t] for t in w.nodes]
            lift = None if w.nodes[0] == w.start else levels[w.start].raised_to(nodes[0])
            moves.append((lift, solver.rules(nodes, [levels[t] for t in w.past], levels[w.end])))
        return moves

    def _apply(
        self,
        rule: Rule,
        base: Tensor,
        values: Sequence[Tensor],
        x0: Sequence[Tensor],
        layout: Layout,
        noise: Noise,
    ) -> Tensor:
        if isinstance(rule.base, Tensor):
            return self._apply_each(rule, base, values, x0, layout, noise)
        out = base * rule.base
        for b, x in zip(rule.x0, x0, strict=False):
            out = out.add_(x, alpha=b)  # type: ignore[arg-type]  # plain numbers, as the base's is
        if rule.values:
            for c, x in zip(rule.values, values, strict=False):
                out = out.add_(x, alpha=c)  # type: ignore[arg-type]
        if rule.noise:
            out = out.add_(self.space.prior(out, layout, noise), alpha=rule.noise)  # type: ignore[arg-type]
        return out

    def _apply_each(
        self,
        rule: Rule,
        base: Tensor,
        values: Sequence[Tensor],
        x0: Sequence[Tensor],
        layout: Layout,
        noise: Noise,
    ) -> Tensor:
        """The same with numbers that differ between the samples."""
        out = times(rule.base, base, layout)
        for c, x in (*zip(rule.x0, x0, strict=False), *zip(rule.values, values, strict=False)):
            out = out + times(c, x, layout)
        if bool(torch.as_tensor(rule.noise).any()):
            out = out + times(rule.noise, self.space.prior(out, layout, noise), layout)
        return out


def _cast(c: Number, x: Tensor) -> Number:
    return c.to(x.dtype) if isinstance(c, Tensor) else c
