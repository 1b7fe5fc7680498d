r"""Exact denoisers of known distributions on curved spaces.

In a geodesic process the prior's point :math:`x_1` is uniform, so :math:`\log_{x_0}x_1` has the density of the
Jacobian J of exp, and :math:`x_t`, at :math:`v = \log_{x_0}x_t = \kappa\log_{x_0}x_1`, has the density

.. math:: p(x_t\mid x_0) \propto \frac{J(v/\kappa)}{\kappa^n\,J(v)}

as far as :math:`v/\kappa` is a shortest way, and zero beyond: on a torus a box that shrinks, on a sphere a cap.
"""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.layout import Layout
from sciffusion.process import Geodesic, Process, Wrapped
from sciffusion.space import Torus
from sciffusion.state import Value, layout_of

__all__ = ["Atoms", "Cardioid"]


def _parts(
    process: Process, x_t: Value, t: Tensor, name: str | None
) -> tuple[Geodesic, Tensor, Tensor, Layout]:
    """The process, the clean field, kappa (broadcastable to it) and the layout of one field."""
    field, layout = process.field(name), layout_of(x_t, name)
    if not isinstance(field, Geodesic):
        raise ValueError(f"process must be geodesic in the field {name!r}, got {field}")
    x = layout.clean(process.fields(x_t)[name]).double()
    return field, x, layout.expand(field.schedule.sigma(t).to(x), x), layout


def _predict(
    process: Process, x_t: Value, t: Tensor, name: str | None, x0: Tensor, layout: Layout
) -> Prediction:
    fields = dict(process.fields(x_t))
    fields[name] = layout.clean(x0).to(fields[name])
    return Prediction(process.rebuild(x_t, fields), x_t, t, process)


@final
class Atoms(Denoiser):
    """The exact denoiser of data that take one of K values, with the probabilities ``weights``.

    The values fill the last dimensions of a field: atoms of shape (K, d) are rows, all rows independent, as points
    (K, d) of a sphere, or places (K, 3) in a periodic box; atoms (K, N, d) are whole dense samples of N points.

    Args:
        weights: (K,), positive, summing to 1.
        atoms: (K, ...), points of the process's space.
        process: geodesic, or a joint with a geodesic field.
        field: its name in a joint; predictions of the other fields are their noised values.
    """

    def __init__(
        self, weights: Tensor, atoms: Tensor, process: Process, field: str | None = None
    ) -> None:
        super().__init__()
        if weights.shape != atoms.shape[:1]:
            raise ValueError(
                f"need weights (K,) and atoms (K, ...), got {tuple(weights.shape)}, {tuple(atoms.shape)}"
            )
        if not math.isclose(float(weights.sum()), 1.0, rel_tol=1e-6) or bool((weights <= 0).any()):
            raise ValueError(f"weights must be positive and sum to 1, got {weights.tolist()}")
        self.weights, self.atoms, self.process, self.name = weights, atoms, process, field

    def posterior(self, x_t: Value, t: Tensor) -> Tensor:
        """The probabilities of the atoms, (..., K), one row for every value that is an atom."""
        field, x, kappa, _ = _parts(self.process, x_t, t, self.name)
        return self._posterior(field, x, kappa)

    def _posterior(self, field: Geodesic, x: Tensor, kappa: Tensor) -> Tensor:
        space, inner = field.space, self.atoms.ndim - 1
        kappa = kappa.clamp(min=1e-12)
        logs, sizes = [], []
        for w, atom in zip(self.weights.double(), self.atoms.double(), strict=True):
            v = space.log(atom.expand_as(x), x)
            density = space.log_jacobian(v / kappa) - space.log_jacobian(v)
            size = space.length2(v)
            for _ in range(inner - space.point_dims):
                density, size = density.sum(-1), size.sum(-1)
            logs.append(density + w.log())
            sizes.append(size)
        log_p, size = torch.stack(logs, -1), torch.stack(sizes, -1)
        # steps of finite length and rounding can leave all atoms' reach: then it was the nearest
        lost = (log_p == -math.inf).all(-1, keepdim=True)
        nearest = torch.where(size == size.amin(-1, keepdim=True), 0.0, -math.inf)
        return torch.where(lost, nearest, log_p).softmax(-1)

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        t = torch.as_tensor(t)
        field, x, kappa, layout = _parts(self.process, x_t, t, self.name)
        p, v = self._posterior(field, x, kappa), torch.zeros_like(x)
        for k, atom in enumerate(self.atoms.double()):
            share = p[..., k].reshape(p.shape[:-1] + (1,) * (self.atoms.ndim - 1))
            v = v + share * field.space.log(x, atom.expand_as(x))
        return _predict(self.process, x_t, t, self.name, field.space.exp(x, v), layout)


@final
class Cardioid(Denoiser):
    r"""The exact denoiser of independent angles with the density :math:`(1 + a\cos kx)/P`, :math:`k = 2\pi/P`.

    Noise leaves the density :math:`p_t(x) = (1 + a_t\cos kx)/P`. In a geodesic process the clean angle lies uniformly
    within :math:`h = \kappa P/2` of the noised one, so that

    .. math:: E[\log_{x_t}x_0] = -\frac{a\sin(kx)\,(\sin kh - kh\cos kh)/k}{kh + a\cos(kx)\sin kh},\qquad
              a_t = a\,\frac{\sin kh}{kh};

    wrapped noise has :math:`a_t = a\,e^{-k^2\sigma^2/2}` and a score. The probability flow keeps each angle's share of
    the probability, which gives it in closed form. With a = 0 the data are uniform, and nothing moves.
    Raises ``ValueError`` unless 0 <= a < 1 and the space is a torus of one period.
    """

    def __init__(self, a: float, process: Geodesic | Wrapped) -> None:
        super().__init__()
        space = process.space
        if not 0 <= a < 1 or not isinstance(space, Torus) or isinstance(space.period, Tensor):
            raise ValueError(f"need 0 <= a < 1 and a torus of one period, got a={a} and {space}")
        self.a, self.process, self.k = a, process, 2 * math.pi / space.period
        self.schedule, self.space = process.schedule, space

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        assert isinstance(x_t, Tensor)
        t, layout, x = torch.as_tensor(t), layout_of(x_t), x_t.double()
        sigma = layout.expand(self.schedule.sigma(t).to(x.device), x)
        angle, a = self.k * x, self.a * self._fade(sigma)
        if isinstance(self.process, Geodesic):
            kh = math.pi * sigma.clamp(min=1e-6)
            slope = self.a * (kh.sin() / kh - kh.cos()) / self.k
        else:
            slope = a * self.k * sigma**2
        v = -slope * angle.sin() / (1 + a * angle.cos())
        return _predict(self.process, x_t, t, None, self.space.exp(x, v), layout)

    def _fade(self, sigma: Tensor) -> Tensor:
        """What noise leaves of the cosine."""
        if isinstance(self.process, Geodesic):
            return torch.sinc(sigma)
        return torch.exp(-0.5 * (self.k * sigma) ** 2)

    def share(self, x: Tensor, t: float) -> Tensor:
        """The probability from the angle 0 to ``x`` at time t."""
        angle, a = self.k * x, self.a * self._fade(self.schedule.sigma(t))
        return (angle + a * angle.sin()) / (2 * math.pi)

    def flow(self, x_t: Tensor, t: float, s: float) -> Tensor:
        """The exact map of the probability flow from time t to s, by bisection."""
        share, period = self.share(x_t.double(), t), 2 * math.pi / self.k
        low, high = torch.zeros_like(share), torch.full_like(share, period)
        for _ in range(60):
            middle = 0.5 * (low + high)
            below = self.share(middle, s) < share
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return low.to(x_t)
