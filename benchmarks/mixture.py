"""The problem on which solvers are compared: a mixture of Gaussians, whose denoiser is known, and its distance."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sciffusion import oracle
from sciffusion.process import Gaussian
from sciffusion.schedule import VP, Schedule

__all__ = ["SCHEDULE", "Truth", "exact", "posterior_mean", "start"]

SCHEDULE = VP()

WEIGHTS = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
MEANS = torch.tensor([[1.5, 0.0], [-0.6, 1.2], [-1.0, -1.0], [0.7, -1.6]], dtype=torch.float64)
ROOTS = torch.tensor(
    [
        [[0.30, 0.00], [0.10, 0.15]],
        [[0.25, 0.00], [-0.15, 0.20]],
        [[0.10, 0.00], [0.05, 0.35]],
        [[0.15, 0.00], [0.00, 0.15]],
    ],
    dtype=torch.float64,
)


def exact(schedule: Schedule = SCHEDULE) -> oracle.Mixture:
    """Four modes in the plane, correlated, of unequal weights, three to fifteen standard deviations apart."""
    return oracle.Mixture(WEIGHTS, MEANS, ROOTS @ ROOTS.mT, Gaussian(schedule))


def posterior_mean(x: Tensor, alpha: float, sigma: float) -> Tensor:
    """E[x0 | x] for x = alpha x0 + sigma e, in the dtype of ``x``: what other libraries' loops are given."""
    y = x.double()
    covs = ROOTS @ ROOTS.mT
    noised = alpha**2 * covs + sigma**2 * torch.eye(2, dtype=torch.float64)
    a, b, c = noised[:, 0, 0], noised[:, 0, 1], noised[:, 1, 1]  # of every mode, (K,)
    det = a * c - b**2
    u, v = (y[:, i, None] - alpha * MEANS[:, i] for i in (0, 1))  # (n, K)
    p, q = (c * u - b * v) / det, (a * v - b * u) / det
    log_p = WEIGHTS.log() - 0.5 * det.log() - 0.5 * (u * p + v * q)
    gained = alpha * covs  # what p and q say about the data
    means = [MEANS[:, i] + gained[:, i, 0] * p + gained[:, i, 1] * q for i in (0, 1)]
    share = log_p.softmax(1)
    return torch.stack([(share * m).sum(1) for m in means], 1).to(x)


def start(n: int, seed: int) -> Tensor:
    """``n`` (a power of two) normal numbers that fill the plane evenly, (n, 2) float32: scrambled Sobol points."""
    u = torch.quasirandom.SobolEngine(2, scramble=True, seed=seed).draw(n, dtype=torch.float64)
    return torch.special.ndtri(u.clamp(1e-9, 1 - 1e-9)).float()


class Truth:
    """The quantiles of the mixture along ``directions`` of the plane, from a million exact samples."""

    def __init__(self, n: int, seed: int, directions: int = 64) -> None:
        angle = torch.arange(directions, dtype=torch.float64) * math.pi / directions
        self.axes = torch.stack([angle.cos(), angle.sin()])
        many = exact().sample(n * max(1, 2**20 // n), torch.Generator().manual_seed(seed))
        self.quantiles = torch.stack(
            [(many @ axis).sort().values.reshape(n, -1).mean(1) for axis in self.axes.T], 1
        )

    def distance(self, x: Tensor) -> float:
        """The sliced Wasserstein-1 distance of samples (n, 2) to the mixture."""
        return float(((x.double() @ self.axes).sort(0).values - self.quantiles).abs().mean())
