r"""The harmonic prior of a chain: neighbours stay close, as the atoms of a polymer's backbone do.

:math:`p(x) \propto \exp(-\tfrac{1}{2s^2}\sum_{i=1}^{N-1}|x_{i+1}-x_i|^2)` on the clouds without a centre of mass: the
bonds :math:`x_{i+1}-x_i` are independent, N(0, s^2). The precision is the Laplacian of the path graph, whose
eigenvectors are the cosines of the DCT-II and whose eigenvalues are :math:`4\sin^2(\pi k/2N)`, k = 1..N-1; none is
needed here, for :math:`s` times a centred running sum of white noise is a draw, and the Laplacian's inverse is two
running sums. The mean variance of a coordinate is :math:`s^2(N^2-1)/6N`.
Source: Jing et al., EigenFold, 2023; as a flow's prior: Stärk et al., Harmonic Self-Conditioned Flow Matching, 2023,
and Jing, Berger & Jaakkola, AlphaFold Meets Flow Matching, 2024.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciffusion.layout import Layout, Packed
from sciffusion.noise import Noise
from sciffusion.space.base import GaussianSpace, check_scale
from sciffusion.space.euclidean import ZeroCoM

__all__ = ["Chain"]

_FREE = ZeroCoM()


@final
@dataclass(frozen=True)
class Chain(GaussianSpace):
    """Chains of points (points x d), consecutive in the order in which a sample holds them, without centre of mass.

    ``scale`` is the standard deviation of each coordinate of a bond. Masked samples may have gaps: the next valid point
    is the neighbour. A single point has no freedom at all. Raises ``ValueError`` unless ``scale`` is positive, and for
    a field whose points have no features.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        check_scale(self.scale)

    def prior(self, like: Tensor, layout: Layout, noise: Noise) -> Tensor:
        walk = _along(noise.normal(like, layout), layout, lambda x, last: x.cumsum(1))
        return _FREE.project(walk * self.scale, layout)

    def project(self, x: Tensor, layout: Layout) -> Tensor:
        return _FREE.project(x, layout)

    def dof(self, x: Tensor, layout: Layout) -> Tensor:
        return _FREE.dof(x, layout)

    def precision(self, e: Tensor, layout: Layout) -> Tensor:
        return _along(e / self.scale**2, layout, _laplacian)

    def covariance(self, p: Tensor, layout: Layout) -> Tensor:
        forces = _FREE.project(p * self.scale**2, layout)
        return _FREE.project(_along(forces, layout, _inverse_laplacian), layout)

    def noise_scale(self, x: Tensor, layout: Layout) -> Tensor:
        n = (
            layout.points(x).clamp(min=2).double()
        )  # that of a single point would be 0 and divide by it
        return layout.expand(self.scale * ((n**2 - 1) / (6 * n)).sqrt().to(x.device), x)

    def log_volume(self, x: Tensor, layout: Layout) -> Tensor:
        # the product of a path's nonzero eigenvalues is N (Kirchhoff: N times its one spanning tree)
        points = layout.points(x)
        width = (layout.count(x) // points).to(x.dtype)
        bonds = (points - 1).to(x.dtype)
        return width * (bonds * math.log(self.scale) - 0.5 * points.to(x.dtype).log())


def _along(x: Tensor, layout: Layout, fn: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Apply ``fn(chains, last)`` to chains (B, N, ...), each from its first point on and zero after its last.

    ``last`` (B, 1) is the index of the last point. Zero outside the samples.
    """
    own = 1 if isinstance(layout, Packed) else 2
    if x.ndim <= own:
        raise ValueError(f"a chain's points need features, (..., points, d), got {tuple(x.shape)}")
    rows = layout.clean(torch.ones(x.shape[:own], dtype=torch.bool, device=x.device))
    points = layout.points(x)
    width = int(points.max())
    present = torch.arange(width, device=x.device) < points[:, None]
    chains = x.new_zeros(len(points), width, *x.shape[own:])
    chains[present] = x[rows]
    out = torch.zeros_like(x)
    out[rows] = fn(chains, points[:, None] - 1)[present]
    return out


def _bonds(chains: Tensor, last: Tensor) -> Tensor:
    """True where a point has a successor, (B, N-1, 1...)."""
    has = torch.arange(chains.shape[1] - 1, device=chains.device) < last
    return has.reshape(*has.shape, *[1] * (chains.ndim - 2))


def _laplacian(chains: Tensor, last: Tensor) -> Tensor:
    bonds = torch.where(_bonds(chains, last), chains.diff(dim=1), 0.0)
    edge = torch.zeros_like(chains[:, :1])
    return -torch.cat([edge, bonds, edge], 1).diff(dim=1)


def _inverse_laplacian(chains: Tensor, last: Tensor) -> Tensor:
    """Of forces that sum to zero, up to a constant: the tension of a bond is minus the sum of the forces before it."""
    tension = -chains.cumsum(1)[:, :-1]
    edge = torch.zeros_like(chains[:, :1])
    return torch.cat([edge, tension], 1).cumsum(1)
