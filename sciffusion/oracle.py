r"""Exact denoisers of known distributions: the truth that solvers, objectives and guidance are tested against.

For :math:`x_0 \sim N(m, C)` and :math:`x_t = \alpha x_0 + \sigma L\varepsilon` the posterior mean is
:math:`m + \alpha C(\alpha^2 C + \sigma^2 LL^T)^{-1}(x_t - \alpha m)`, and the probability flow has a closed form.
"""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.layout import Layout
from sciffusion.process import Jump, Process
from sciffusion.state import Value, batch_of, layout_of

__all__ = ["Categorical", "Gaussian", "Mixture"]


def _levels(process: Process, x: Value, t: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma of every flattened coordinate, (B or 1, D): fields side by side, each by its own schedule."""
    rows: list[tuple[Tensor, Tensor]] = []
    for name, v in process.fields(x).items():
        alpha, sigma = process.field(name).clock(t)
        width = v.reshape(batch_of(x), -1).shape[1]
        rows.append(
            (alpha.reshape(-1, 1).expand(-1, width), sigma.reshape(-1, 1).expand(-1, width))
        )
    return torch.cat([a for a, _ in rows], 1), torch.cat([s for _, s in rows], 1)


def _flatten(process: Process, x: Value) -> Tensor:
    return torch.cat([v.reshape(batch_of(x), -1) for v in process.fields(x).values()], 1)


def _unflatten(process: Process, flat: Tensor, like: Value) -> Value:
    out, at = {}, 0
    for name, v in process.fields(like).items():
        width = v.reshape(batch_of(like), -1).shape[1]
        out[name] = flat[:, at : at + width].reshape(v.shape)
        at += width
    return process.rebuild(like, out)


@final
class Mixture(Denoiser):
    r"""The exact denoiser of a Gaussian mixture :math:`\sum_k w_k N(m_k, C_k)` over all coordinates of a sample.

    Fields are dense, of unit noise scale, and lie side by side: a state of two fields has correlations between them.

    Args:
        weights: (K,), positive, summing to 1.
        means: (K, D).
        covs: (K, D, D), symmetric positive semi-definite.
        process: Gaussian, or a joint of Gaussians.
    """

    def __init__(self, weights: Tensor, means: Tensor, covs: Tensor, process: Process) -> None:
        super().__init__()
        k, d = means.shape
        if weights.shape != (k,) or covs.shape != (k, d, d):
            raise ValueError(
                f"need weights (K,), means (K, D), covs (K, D, D); got {weights.shape}, {covs.shape}"
            )
        if not math.isclose(float(weights.sum()), 1.0, rel_tol=1e-6) or bool((weights <= 0).any()):
            raise ValueError(f"weights must be positive and sum to 1, got {weights.tolist()}")
        self.weights, self.means, self.covs, self.process = weights, means, covs, process

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        x = _flatten(self.process, x_t).double()
        alpha, sigma = (c.to(x.device) for c in _levels(self.process, x_t, torch.as_tensor(t)))
        means, posterior = [], []
        for w, m, c in zip(
            self.weights.double(), self.means.double(), self.covs.double(), strict=True
        ):
            centred = x - alpha * m
            ct = c * alpha[:, :, None] * alpha[:, None, :] + torch.diag_embed(
                sigma**2
            )  # (B or 1, D, D)
            chol = torch.linalg.cholesky(ct).expand(x.shape[0], -1, -1)
            solved = torch.cholesky_solve(centred[:, :, None], chol)[:, :, 0]
            means.append(m + (solved * alpha) @ c)
            log_det = chol.diagonal(dim1=1, dim2=2).log().sum(1)
            posterior.append(w.log() - log_det - 0.5 * (centred * solved).sum(1))
        p = torch.stack(posterior, 1).softmax(1)
        x0 = (p[:, :, None] * torch.stack(means, 1)).sum(1).to(_flatten(self.process, x_t))
        return Prediction(_unflatten(self.process, x0, x_t), x_t, t, self.process)

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

    def flow(self, x_t: Tensor, t: float, s: float) -> Tensor:
        r"""The exact map of the probability flow from time t to s, for one dense field.

        In the eigenbasis of C, :math:`x_s = \alpha_s m + \sqrt{(\alpha_s^2c+\sigma_s^2)/(\alpha_t^2c+\sigma_t^2)}
        (x_t-\alpha_t m)`.
        """
        (a_t, s_t), (a_s, s_s) = self.process.clock(t), self.process.clock(s)
        c, basis = torch.linalg.eigh(self.cov.double())
        ratio = ((a_s**2 * c + s_s**2) / (a_t**2 * c + s_t**2)).sqrt()
        flat, m = x_t.reshape(x_t.shape[0], -1).double(), self.mean.double()
        return (a_s * m + ((flat - a_t * m) @ basis * ratio) @ basis.T).to(x_t).reshape(x_t.shape)


@final
class Categorical(Denoiser):
    """The exact denoiser of points with classes drawn independently from ``probs`` (k,), for a jump process."""

    def __init__(self, probs: Tensor, process: Jump | Process, field: str | None = None) -> None:
        super().__init__()
        self.probs, self.process, self.name = probs, process, field

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        x = self.process.fields(x_t)[self.name]
        process, layout = self.process.field(self.name), layout_of(x_t, self.name)
        assert isinstance(process, Jump)
        p0 = self._posterior(process, x, torch.as_tensor(t), layout)
        fields = {**self.process.fields(x_t), self.name: p0}
        return Prediction(self.process.rebuild(x_t, fields), x_t, t, self.process)

    def _posterior(self, process: Jump, x: Tensor, t: Tensor, layout: Layout) -> Tensor:
        k, prior = process.space.k, self.probs.double()
        keep = layout.expand(process.schedule.alpha(t), x).to(torch.float64)
        keep = keep.expand(x.shape)[..., None]
        hit = torch.nn.functional.one_hot(x, process.space.states)[..., :k].double()
        if process.space.absorbing:
            seen = (x < k)[..., None]
            p = torch.where(seen, hit, prior.expand(*x.shape, k))
        else:
            p = prior * (keep * hit + (1 - keep) / k)
        return (p / p.sum(-1, keepdim=True)).to(torch.get_default_dtype())
