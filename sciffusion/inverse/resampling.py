"""The weights of particles, and drawing particles by them.

All particles of a sample lie next to each other; weights are (B, P), and indices count all B P particles of a batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["Weights", "systematic"]


def systematic(log_weights: Tensor, u: Tensor) -> Tensor:
    """Indices (B P,) of particles drawn by the weights (B, P), with one uniform number (B,) per sample.

    Particle i is drawn either the floor or the ceiling of P w_i times, so that equal weights keep everyone.
    """
    batch, count = log_weights.shape
    cdf = log_weights.exp().cumsum(1)
    places = (u[:, None].to(cdf) + torch.arange(count)) / count
    own = torch.searchsorted(cdf / cdf[:, -1:], places, right=True).clamp(max=count - 1)
    return (own + count * torch.arange(batch)[:, None]).flatten()


class Weights:
    """Normalised log-weights, their history, and the evidence so far."""

    def __init__(self, batch: int, count: int) -> None:
        self.shape = (batch, count)
        self.log = torch.full(self.shape, -math.log(count), dtype=torch.float64)
        self.evidence = torch.zeros(batch, dtype=torch.float64)
        self.ess: list[Tensor] = []

    def add(self, change: Tensor) -> None:
        new = self.log + change.reshape(self.shape)
        total = new.logsumexp(1)
        if not bool(total.isfinite().all()):
            lost = (~total.isfinite()).nonzero().flatten().tolist()
            raise ValueError(
                f"the twist gives no particle of the samples {lost} a finite likelihood; widen it, or take more "
                "particles"
            )
        self.evidence, self.log = self.evidence + total, new - total[:, None]
        self.ess.append((-(2 * self.log).logsumexp(1)).exp())

    def resample(self, u: Tensor, threshold: float) -> Tensor:
        """Indices of all particles; the samples with an effective size above the threshold keep theirs."""
        batch, count = self.shape
        drawn = systematic(self.log, u).reshape(self.shape)
        poor = (self.ess[-1] < threshold * count)[:, None]
        own = torch.arange(batch * count).reshape(self.shape)
        self.log = torch.where(poor, -math.log(count), self.log)
        return torch.where(poor, drawn, own).flatten()
