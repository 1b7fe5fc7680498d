"""Flat spaces of white noise: all of R^n, and its point clouds without a centre of mass."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciffusion.layout import Layout
from sciffusion.noise import Noise
from sciffusion.space.base import LOG_2PI, GaussianSpace, check_scale

__all__ = ["Euclidean", "ZeroCoM"]


@final
@dataclass(frozen=True, eq=False)
class Euclidean(GaussianSpace):
    """All of R^n with noise of standard deviation ``scale``: a number, or a tensor broadcastable to the field.

    A tensor of shape (C,) is a scale per last-dimension feature; (C, 1, 1) one per channel of an image.
    """

    scale: float | Tensor = 1.0

    def __post_init__(self) -> None:
        check_scale(self.scale)

    def _scale(self, x: Tensor) -> float | Tensor:
        return self.scale.to(x) if isinstance(self.scale, Tensor) else self.scale

    def prior(self, like: Tensor, layout: Layout, noise: Noise) -> Tensor:
        return layout.clean(noise.normal(like, layout) * self._scale(like))

    def log_prior(self, x: Tensor, layout: Layout) -> Tensor:
        scale = torch.as_tensor(self._scale(x), dtype=x.dtype, device=x.device)
        log_det = layout.reduce(layout.clean(scale.log().expand_as(x)), "sum")
        dof = self.dof(x, layout).to(x.dtype)
        return -0.5 * (self.norm2(x, layout) + dof * LOG_2PI) - log_det

    def project(self, x: Tensor, layout: Layout) -> Tensor:
        return layout.clean(x)

    def dof(self, x: Tensor, layout: Layout) -> Tensor:
        return layout.count(x)

    def precision(self, e: Tensor, layout: Layout) -> Tensor:
        return e / self._scale(e) ** 2


@final
@dataclass(frozen=True)
class ZeroCoM(GaussianSpace):
    r"""Point clouds (points x d) whose unweighted centre of mass is zero: a linear space of dimension (N-1) d.

    The prior is the isotropic Gaussian of standard deviation ``scale`` on that subspace, that is, white noise with its
    mean removed: :math:`E|Pe|^2 = s^2 d (N-1)`. A single point has no freedom at all.
    Source: Köhler, Klein & Noé, Equivariant Flows, ICML 2020; Hoogeboom et al., EDM, ICML 2022.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        check_scale(self.scale)

    def prior(self, like: Tensor, layout: Layout, noise: Noise) -> Tensor:
        return self.project(noise.normal(like, layout) * self.scale, layout)

    def log_prior(self, x: Tensor, layout: Layout) -> Tensor:
        dof = self.dof(x, layout).to(x.dtype)
        return -0.5 * (self.norm2(x, layout) + dof * LOG_2PI) - dof * math.log(self.scale)

    def project(self, x: Tensor, layout: Layout) -> Tensor:
        total = layout.pool(x)
        mean = total / layout.points(x).to(x.dtype).reshape(-1, *[1] * (total.ndim - 1))
        return layout.clean(x - layout.spread(mean, x))

    def dof(self, x: Tensor, layout: Layout) -> Tensor:
        points = layout.points(x)
        return layout.count(x) // points * (points - 1)

    def precision(self, e: Tensor, layout: Layout) -> Tensor:
        return e / self.scale**2
