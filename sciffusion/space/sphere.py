"""Directions: unit vectors of any dimension."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from sciffusion.layout import Layout
from sciffusion.noise import Noise
from sciffusion.space.manifold import Manifold, angle_over_sine

__all__ = ["Sphere"]


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum(-1, keepdim=True)


@final
@dataclass(frozen=True)
class Sphere(Manifold):
    r"""The last dimension, of any size d >= 2, is a unit vector: a point of :math:`S^{d-1}`.

    Projecting divides by the norm; the origin, to which no point is nearest, goes to the first axis.
    """

    point_dims: ClassVar[int] = 1

    def project(self, x: Tensor, layout: Layout) -> Tensor:
        x = layout.clean(x)
        lost = (x == 0).all(-1, keepdim=True)
        return layout.clean(normalize(torch.where(lost, self._axis(x, 0), x), dim=-1))

    def prior(self, like: Tensor, layout: Layout, noise: Noise) -> Tensor:
        return self.project(noise.normal(like, layout), layout)

    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        angle = torch.linalg.vector_norm(v, dim=-1, keepdim=True)
        return normalize(angle.cos() * x + torch.sinc(angle / math.pi) * v, dim=-1)

    def log(self, x: Tensor, y: Tensor) -> Tensor:
        chord = y - x
        v = self.to_tangent(x, self.to_tangent(x, chord))  # twice: what the first rounding left
        sine2, cosine = _dot(v, v), _dot(x, y)
        across = (cosine < 0) & (sine2 < (4 * torch.finfo(x.dtype).eps) ** 2)
        out = angle_over_sine(sine2, cosine) * v
        if not bool(across.any()):
            return out
        # the antipode: half a great circle in a direction at right angles to x
        least = x.abs().argmin(-1)
        aside = math.pi * normalize(self.to_tangent(x, self._axis(x, least)), dim=-1)
        return torch.where(across, aside, out)

    def to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        return v - _dot(x, v) * x

    def transport(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        return v - _dot(y, v) / (1 + _dot(x, y)) * (x + y)

    def length2(self, v: Tensor) -> Tensor:
        return v.square().sum(-1)

    def log_jacobian(self, v: Tensor) -> Tensor:
        r""":math:`(\sin r/r)^{d-2}`, the volume of the sphere of directions around a point."""
        r = torch.linalg.vector_norm(v, dim=-1)
        log = (v.shape[-1] - 2) * torch.sinc(r / math.pi).clamp(min=0).log()
        return torch.where(r <= math.pi, log, -math.inf)

    def noise_scale(self, x: Tensor, layout: Layout) -> float | Tensor:
        return _spread(x.shape[-1])

    def _point(self, x: Tensor) -> tuple[Tensor | float, int]:
        d = x.shape[-1]
        if d < 2:
            raise ValueError(f"a point of a sphere has at least two numbers, got shape {x.shape}")
        return math.log(2) + 0.5 * d * math.log(math.pi) - math.lgamma(0.5 * d), d - 1

    @staticmethod
    def _axis(x: Tensor, which: Tensor | int) -> Tensor:
        return one_hot(torch.as_tensor(which, device=x.device), x.shape[-1]).to(x)


@lru_cache(maxsize=64)
def _spread(d: int) -> float:
    r"""Root mean square angle from a point to a uniform one, whose density is :math:`\sin^{d-2}`, per dimension."""
    angle = torch.linspace(0, math.pi, 20001, dtype=torch.float64)[1:-1]
    log = (d - 2) * angle.sin().log()
    return math.sqrt(float((log.softmax(0) * angle.square()).sum()) / (d - 1))
