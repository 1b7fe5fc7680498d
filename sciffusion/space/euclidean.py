"""Flat spaces of white noise: all of R^n, and its point clouds without a centre of mass."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from torch import Tensor

from sciffusion.layout import Layout
from sciffusion.noise import Noise
from sciffusion.space.base import GaussianSpace, check_scale

__all__ = ["BySize", "Euclidean", "ZeroCoM"]


@final
@dataclass(frozen=True)
class BySize:
    r"""A noise scale that depends on the number N of points in a sample: :math:`s(N) = s_1 N^p`.

    Atoms of a crystal, whose volume grows with N, are MatterGen's case: a power of -1/3 keeps the noise of fractional
    coordinates the same in the units of space (Zeni et al., 2023, divide it by the cube root of N).
    Raises ``ValueError`` unless ``base`` is positive.
    """

    base: float = 1.0
    power: float = 0.0

    def __post_init__(self) -> None:
        check_scale(self.base)

    def __call__(self, points: Tensor) -> Tensor:
        """Scales, float64, like ``points``."""
        return self.base * points.double() ** self.power


class _White(GaussianSpace):
    """Independent noise of standard deviation ``scale`` in every entry, projected onto the space."""

    scale: float | Tensor | BySize

    def noise_scale(self, x: Tensor, layout: Layout) -> float | Tensor:
        if isinstance(self.scale, BySize):
            return layout.expand(self.scale(layout.points(x)).to(x.device), x)
        return self.scale

    def _scale(self, x: Tensor, layout: Layout) -> float | Tensor:
        scale = self.noise_scale(x, layout)
        return scale.to(x) if isinstance(scale, Tensor) else scale

    def prior(self, like: Tensor, layout: Layout, noise: Noise) -> Tensor:
        return self.project(noise.normal(like, layout) * self._scale(like, layout), layout)

    def covariance(self, p: Tensor, layout: Layout) -> Tensor:
        return self.project(p * self._scale(p, layout) ** 2, layout)

    def precision(self, e: Tensor, layout: Layout) -> Tensor:
        return e / self._scale(e, layout) ** 2

    def log_volume(self, x: Tensor, layout: Layout) -> Tensor:
        scale, dof = self.scale, self.dof(x, layout).to(x.dtype)
        if isinstance(scale, Tensor):
            return layout.reduce(layout.clean(scale.to(x).log().expand_as(x)), "sum")
        if isinstance(scale, BySize):
            return dof * scale(layout.points(x)).log().to(x)
        return dof * math.log(scale)


@final
@dataclass(frozen=True, eq=False)
class Euclidean(_White):
    """All of R^n with noise of standard deviation ``scale``: a number, a tensor broadcastable to the field, or by size.

    A tensor of shape (C,) is a scale per last-dimension feature; (C, 1, 1) one per channel of an image; a
    :class:`BySize` one per sample. Raises ``ValueError`` unless every scale is positive.
    """

    scale: float | Tensor | BySize = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.scale, BySize):
            check_scale(self.scale)

    def project(self, x: Tensor, layout: Layout) -> Tensor:
        return layout.clean(x)

    def dof(self, x: Tensor, layout: Layout) -> Tensor:
        return layout.count(x)


@final
@dataclass(frozen=True)
class ZeroCoM(_White):
    r"""Point clouds (points x d) whose unweighted centre of mass is zero: a linear space of dimension (N-1) d.

    The prior is the isotropic Gaussian of standard deviation ``scale`` on that subspace, that is, white noise with its
    mean removed: :math:`E|Pe|^2 = s^2 d (N-1)`. A single point has no freedom at all. The scale may depend on N
    (:class:`BySize`). Raises ``ValueError`` unless it is positive.
    Source: Köhler, Klein & Noé, Equivariant Flows, ICML 2020; Hoogeboom et al., EDM, ICML 2022.
    """

    scale: float | BySize = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.scale, BySize):
            check_scale(self.scale)

    def project(self, x: Tensor, layout: Layout) -> Tensor:
        total = layout.pool(x)
        mean = total / layout.points(x).to(x.dtype).reshape(-1, *[1] * (total.ndim - 1))
        return layout.clean(x - layout.spread(mean, x))

    def dof(self, x: Tensor, layout: Layout) -> Tensor:
        points = layout.points(x)
        return layout.count(x) // points * (points - 1)
