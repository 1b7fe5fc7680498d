r"""Exact denoisers of known distributions: the truth that solvers, objectives and guidance are tested against.

For :math:`x_0 \sim N(m, C)` and :math:`x_t = \alpha x_0 + \sigma L\varepsilon` the posterior mean is
:math:`m + \alpha C(\alpha^2 C + \sigma^2 LL^T)^{-1}(x_t - \alpha m)`, and the probability flow has a closed form.
Densities on a subspace are relative to the volume of an orthonormal basis, as those of the spaces are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.layout import Dense, Layout
from sciffusion.process import Gaussian as GaussianProcess
from sciffusion.process import Jump, Process
from sciffusion.space import BySize, GaussianSpace, ZeroCoM
from sciffusion.state import Value, batch_of, layout_of

__all__ = ["Categorical", "Gaussian", "Mixture", "PointCloud"]


def _levels(process: Process, x: Value, t: Tensor | None) -> tuple[Tensor, Tensor]:
    """alpha and sigma of every number of a sample, (B or 1, D): fields side by side, each by its own schedule.

    Without a time, those of clean data.
    """
    rows: list[tuple[Tensor, ...]] = []
    for name, v in process.fields(x).items():
        width, layout = v[:1].numel(), layout_of(x, name)
        at = torch.ones(()), torch.zeros(())
        pair = at if t is None else process.field(name).clock(t)
        rows.append(
            tuple(
                layout.expand(c.to(v.device), v).expand(v.shape).reshape(-1, width)
                if c.ndim
                else c.to(v.device).expand(1, width)
                for c in pair
            )
        )
    batch = max(c.shape[0] for row in rows for c in row)
    alpha, sigma = (torch.cat([row[i].expand(batch, -1) for row in rows], 1) for i in range(2))
    return alpha.double(), sigma.double()


def _flatten(process: Process, x: Value) -> Tensor:
    return torch.cat([v.reshape(batch_of(x), -1) for v in process.fields(x).values()], 1)


def _unflatten(process: Process, flat: Tensor, like: Value) -> Value:
    out, at = {}, 0
    for name, v in process.fields(like).items():
        width = v.reshape(batch_of(like), -1).shape[1]
        out[name] = flat[:, at : at + width].reshape(v.shape)
        at += width
    return process.rebuild(like, out)


@dataclass(frozen=True)
class _Noise:
    """The covariance (D, D) of the noise of all numbers of a sample, and a basis (D, R) of where it lives."""

    covariance: Tensor
    basis: Tensor

    @staticmethod
    def of(process: Process, like: Value) -> _Noise:
        """Raises ``ValueError`` unless every field is dense and its noise Gaussian."""
        blocks, bases = [], []
        for name, v in process.fields(like).items():
            field, layout = process.field(name), layout_of(like, name)
            known = isinstance(field, GaussianProcess) and isinstance(field.space, GaussianSpace)
            if not known or not isinstance(layout, Dense):
                raise ValueError(
                    f"this oracle needs dense fields with Gaussian noise; field {name!r} has {field} and {layout}"
                )
            assert isinstance(field, GaussianProcess)
            d = v[:1].numel()
            units = torch.eye(d, dtype=torch.float64, device=v.device).reshape(d, *v.shape[1:])
            matrix = field.space.covariance(units, Dense(d)).reshape(d, d)
            values, vectors = torch.linalg.eigh(matrix)
            inside = values > 1e-12 * values.max()
            blocks.append(matrix)
            bases.append(vectors[:, inside])
        return _Noise(torch.block_diag(*blocks), torch.block_diag(*bases))


@final
class Mixture(Denoiser):
    r"""The exact denoiser of a Gaussian mixture :math:`\sum_k w_k N(m_k, C_k)` over all coordinates of a sample.

    Fields are dense and lie side by side: a state of two fields has correlations between them. Their noise may have any
    covariance, and live on a subspace: data count by their part in it. Raises ``ValueError`` for shapes that do not fit
    and weights that are no law, and calls do for other fields.

    Args:
        weights: (K,), positive, summing to 1.
        means: (K, D).
        covs: (K, D, D), symmetric positive semi-definite.
        process: Gaussian, or a joint of Gaussians.
    """

    def __init__(self, weights: Tensor, means: Tensor, covs: Tensor, process: Process) -> None:
        super().__init__()
        fits = weights.shape == means.shape[:1] and covs.shape == (*means.shape, means.shape[-1])
        if means.ndim != 2 or not fits:
            shapes = ", ".join(str(tuple(v.shape)) for v in (weights, means, covs))
            raise ValueError(f"need weights (K,), means (K, D), covs (K, D, D); got {shapes}")
        if not math.isclose(float(weights.sum()), 1.0, rel_tol=1e-6) or bool((weights <= 0).any()):
            raise ValueError(f"weights must be positive and sum to 1, got {weights.tolist()}")
        self.weights, self.means, self.covs, self.process = weights, means, covs, process
        self._noises: dict[object, _Noise] = {}

    def noise(self, like: Value) -> _Noise:
        """The noise of one sample of values like ``like``."""
        key = tuple((v.shape[1:], v.device) for v in self.process.fields(like).values())
        if key not in self._noises:
            self._noises[key] = _Noise.of(self.process, like)
        return self._noises[key]

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        log_p, means = self._modes(x_t, torch.as_tensor(t))
        x0 = (log_p.softmax(1)[:, :, None] * means).sum(1).to(_flatten(self.process, x_t))
        return Prediction(_unflatten(self.process, x0, x_t), x_t, t, self.process)

    def log_prob(self, x: Value, t: Tensor | float | None = None) -> Tensor:
        """The exact log-density, nats, (B,), of noised values at the time ``t``, or of clean data."""
        return self._modes(x, None if t is None else torch.as_tensor(t, dtype=torch.float64))[
            0
        ].logsumexp(1)

    def _modes(self, x_t: Value, t: Tensor | None) -> tuple[Tensor, Tensor]:
        """Each mode's part of the log-density, (B, K), and its posterior mean, (B, K, D)."""
        noise = self.noise(x_t)  # first: it refuses what cannot be laid out flat
        x = _flatten(self.process, x_t).double()
        alpha, sigma = _levels(self.process, x_t, t)
        added = noise.covariance * sigma[:, :, None] * sigma[:, None, :]
        means, parts = [], []
        modes = (v.to(x) for v in (self.weights, self.means, self.covs))
        for w, m, c in zip(*modes, strict=True):
            centred = x - alpha * m
            # the marginal's covariance in the basis of the space, (B or 1, R, R)
            ct = noise.basis.T @ (c * alpha[:, :, None] * alpha[:, None, :] + added) @ noise.basis
            chol = torch.linalg.cholesky(ct).expand(x.shape[0], -1, -1)
            free = centred @ noise.basis
            solved = torch.cholesky_solve(free[:, :, None], chol)[:, :, 0]
            means.append(m + (solved @ noise.basis.T * alpha) @ c)
            log_det = chol.diagonal(dim1=1, dim2=2).log().sum(1)
            constant = 0.5 * free.shape[1] * math.log(2 * math.pi)
            parts.append(w.log() - constant - log_det - 0.5 * (free * solved).sum(1))
        return torch.stack(parts, 1), torch.stack(means, 1)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw ``n`` flat samples of the data, (n, D), float64."""
        k = torch.multinomial(self.weights.double(), n, replacement=True, generator=generator)
        chol = torch.linalg.cholesky(
            self.covs.double() + 1e-12 * torch.eye(self.means.shape[1], dtype=torch.float64)
        )
        z = torch.randn(n, self.means.shape[1], generator=generator, dtype=torch.float64)
        return self.means.double()[k] + (chol[k] @ z[:, :, None])[:, :, 0]


@final
class Gaussian(Denoiser):
    r"""The exact denoiser of :math:`N(m, C)`, with its probability flow in closed form; a mixture of one."""

    def __init__(self, mean: Tensor, cov: Tensor, process: Process) -> None:
        super().__init__()
        self.mixture = Mixture(torch.ones(1), mean[None], cov[None], process)
        self.mean, self.cov, self.process = mean, cov, process

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        return self.mixture(x_t, t)

    def log_prob(self, x: Value, t: Tensor | float | None = None) -> Tensor:
        """The exact log-density, nats, (B,), of noised values at the time ``t``, or of clean data."""
        return self.mixture.log_prob(x, t)

    def flow(self, x_t: Tensor, t: float, s: float) -> Tensor:
        r"""The exact map of the probability flow from time t to s, for one dense field.

        In coordinates in which the noise is white and C diagonal, with entries c,
        :math:`x_s = \alpha_s m + \sqrt{(\alpha_s^2c+\sigma_s^2)/(\alpha_t^2c+\sigma_t^2)}(x_t-\alpha_t m)`.
        """
        (a_t, s_t), (a_s, s_s) = self.process.clock(t), self.process.clock(s)
        noise = self.mixture.noise(x_t)
        root = torch.linalg.cholesky(noise.basis.T @ noise.covariance @ noise.basis)
        white = torch.linalg.solve_triangular(root, noise.basis.T, upper=False)  # (R, D)
        c, axes = torch.linalg.eigh(white @ self.cov.to(white) @ white.T)
        ratio = ((a_s**2 * c + s_s**2) / (a_t**2 * c + s_t**2)).sqrt()
        flat, m = x_t.reshape(x_t.shape[0], -1).double(), self.mean.to(white)
        z = (flat - a_t * m) @ white.T @ axes * ratio
        return (a_s * m + z @ axes.T @ root.T @ noise.basis.T).to(x_t).reshape(x_t.shape)


@final
class PointCloud(Denoiser):
    r"""The exact denoiser of clouds of N independent points N(0, s^2) whose centre of mass is taken away.

    With noise of scale n in :class:`~sciffusion.space.ZeroCoM` the posterior mean is
    :math:`\alpha s^2/(\alpha^2s^2+\sigma^2n^2)\,P x_t`, P taking away the centre of mass; for samples of any sizes,
    dense, masked or packed. ``data`` is the law of the data as a space: ``data.prior`` draws, ``data.log_prior`` is
    their density.

    Args:
        scale: the standard deviation s of the data.
        process: Gaussian in ``ZeroCoM``, or a joint process with such a field.
        field: that field's name in a state; the others come back as they are.

    Raises ``ValueError`` for a process in another space.
    """

    def __init__(self, scale: float, process: Process, field: str | None = None) -> None:
        super().__init__()
        own = process.field(field)
        if not isinstance(own, GaussianProcess) or not isinstance(own.space, ZeroCoM):
            raise ValueError(f"process must be Gaussian in ZeroCoM, got {own}")
        self.data, self.scale = ZeroCoM(scale), scale
        self.process, self.name, self.own, self.space = process, field, own, own.space

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        x, layout = self.process.fields(x_t)[self.name], layout_of(x_t, self.name)
        alpha, data, noise = self._variances(x, layout, torch.as_tensor(t))
        x0 = self._scaled(x, layout, alpha * self.scale**2 / (data + noise))
        fields = {**self.process.fields(x_t), self.name: x0}
        return Prediction(self.process.rebuild(x_t, fields), x_t, t, self.process)

    def log_prob(self, x: Value, t: Tensor | float | None = None) -> Tensor:
        """The exact log-density, nats, (B,), of noised clouds at the time ``t``, or of clean ones."""
        cloud, layout = self.process.fields(x)[self.name], layout_of(x, self.name)
        at = None if t is None else torch.as_tensor(t, dtype=torch.float64)
        _, data, noise = self._variances(cloud, layout, at)
        variance, dof = data + noise, self.data.dof(cloud, layout)
        square = layout.reduce(self.data.project(cloud, layout).double().square(), "sum")
        return (-0.5 * (square / variance + dof * (2 * math.pi * variance).log())).to(cloud)

    def flow(self, x_t: Value, t: float, s: float) -> Value:
        """The exact map of the probability flow from time t to s; other fields stay as they are."""
        x, layout = self.process.fields(x_t)[self.name], layout_of(x_t, self.name)
        (_, d_t, n_t), (_, d_s, n_s) = (
            self._variances(x, layout, torch.tensor(u, dtype=torch.float64)) for u in (t, s)
        )
        x_s = self._scaled(x, layout, ((d_s + n_s) / (d_t + n_t)).sqrt())
        return self.process.rebuild(x_t, {**self.process.fields(x_t), self.name: x_s})

    def _scaled(self, x: Tensor, layout: Layout, by: Tensor) -> Tensor:
        return self.data.project(layout.expand(by.to(x), x) * x, layout)

    def _variances(
        self, x: Tensor, layout: Layout, t: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """alpha, and the variances that data and noise have at ``t``, (B,) float64; without a time, of clean data."""
        if t is not None and t.shape not in ((), (layout.batch,)):
            raise ValueError(
                f"t must be one time, or one for each of {layout.batch} clouds; got {tuple(t.shape)}"
            )
        clean = torch.ones(()), torch.zeros(())
        alpha, sigma = (
            c.to(x.device, torch.float64).expand(layout.batch)
            for c in (clean if t is None else self.own.schedule(t))
        )
        n = self.space.scale
        by = n(layout.points(x)).to(x.device) if isinstance(n, BySize) else n
        return alpha, (alpha * self.scale) ** 2, (sigma * by) ** 2


@final
class Categorical(Denoiser):
    r"""The exact denoiser of points with classes drawn independently from ``probs`` (k,), for a jump process.

    :math:`p(x_0\mid x_t) \propto p(x_0)\,q(x_t\mid x_0)` point by point, in any layout.

    Args:
        probs: (k,), not negative, summing to 1.
        process: a jump process, or a joint process with such a field.
        field: that field's name in a state; the others come back as they are.

    Raises ``ValueError`` for a process of another kind, and for probabilities that are no law of its classes.
    """

    def __init__(self, probs: Tensor, process: Process, field: str | None = None) -> None:
        super().__init__()
        jump = process.field(field)
        if not isinstance(jump, Jump):
            raise ValueError(f"process must jump in the field {field!r}, got {jump}")
        total = float(probs.sum())
        if probs.shape != (jump.space.k,) or bool((probs < 0).any()) or abs(total - 1) > 1e-6:
            raise ValueError(
                f"probs must be {jump.space.k} probabilities that sum to 1, got {tuple(probs.shape)} with sum {total}"
            )
        self.probs, self.process, self.name, self.jump = probs, process, field, jump

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        x = self.process.fields(x_t)[self.name]
        p0 = self._posterior(self.jump, x, torch.as_tensor(t), layout_of(x_t, self.name))
        fields = {**self.process.fields(x_t), self.name: p0}
        return Prediction(self.process.rebuild(x_t, fields), x_t, t, self.process)

    def _posterior(self, process: Jump, x: Tensor, t: Tensor, layout: Layout) -> Tensor:
        k, prior = process.space.k, self.probs.to(x.device, torch.float64)
        keep = layout.expand(process.schedule.alpha(t).to(x.device), x)
        keep = keep.expand(x.shape)[..., None]
        x = layout.clean(x)
        hit = torch.nn.functional.one_hot(x, process.space.states)[..., :k].double()
        if process.space.absorbing:
            seen = (x < k)[..., None]
            p = torch.where(seen, hit, prior.expand(*x.shape, k))
        else:
            p = prior * (keep * hit + (1 - keep) / k)
        return (p / p.sum(-1, keepdim=True)).to(torch.get_default_dtype())
