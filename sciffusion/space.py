r"""Where a field lives: the shape of its noise, its subspace, its degrees of freedom.

With :math:`x_t = \alpha x_0 + \sigma e`, :math:`e = L\varepsilon`, :math:`\varepsilon \sim N(0, I)`, the operator
:math:`L` belongs to the space. No solver and no schedule sees it; only the prior, the score, the norm of a loss and the
likelihood do.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciffusion.layout import Layout
from sciffusion.noise import Noise

__all__ = ["Categorical", "Euclidean", "GaussianSpace", "Space", "ZeroCoM"]

_LOG_2PI = math.log(2 * math.pi)


class Space(ABC):
    """A set in which a field takes its values, with a prior on it."""

    @abstractmethod
    def prior(self, like: Tensor, layout: Layout, noise: Noise) -> Tensor:
        """Draw from the prior, shaped like ``like``."""

    @abstractmethod
    def log_prior(self, x: Tensor, layout: Layout) -> Tensor:
        """Log-density (or log-mass) of the prior at ``x``, nats, (B,)."""

    @abstractmethod
    def project(self, x: Tensor, layout: Layout) -> Tensor:
        """The nearest point of the space; the identity on the space itself."""

    @abstractmethod
    def dof(self, x: Tensor, layout: Layout) -> Tensor:
        """Degrees of freedom of each sample, (B,), integer."""


class GaussianSpace(Space):
    """A linear space with the Gaussian prior :math:`N(0, L L^T)`.

    ``scale`` is the standard deviation of the noise, before a projection takes some of it away: a number, or a tensor
    that broadcasts to the field.
    """

    scale: float | Tensor

    @abstractmethod
    def precision(self, e: Tensor, layout: Layout) -> Tensor:
        r""":math:`(L L^T)^{-1} e` on the space: what turns a noise into a score."""

    def norm2(self, e: Tensor, layout: Layout) -> Tensor:
        r"""Squared Mahalanobis norm :math:`e^T (L L^T)^{-1} e` of each sample, (B,)."""
        return layout.reduce(layout.clean(e * self.precision(e, layout)), "sum")


def _check_scale(scale: float | Tensor) -> None:
    ok = bool((scale > 0).all()) if isinstance(scale, Tensor) else scale > 0
    if not ok:
        raise ValueError(f"scale must be positive, got {scale}")


@final
@dataclass(frozen=True, eq=False)
class Euclidean(GaussianSpace):
    """All of R^n with noise of standard deviation ``scale``: a number, or a tensor broadcastable to the field.

    A tensor of shape (C,) is a scale per last-dimension feature; (C, 1, 1) one per channel of an image.
    """

    scale: float | Tensor = 1.0

    def __post_init__(self) -> None:
        _check_scale(self.scale)

    def _scale(self, x: Tensor) -> float | Tensor:
        return self.scale.to(x) if isinstance(self.scale, Tensor) else self.scale

    def prior(self, like: Tensor, layout: Layout, noise: Noise) -> Tensor:
        return layout.clean(noise.normal(like, layout) * self._scale(like))

    def log_prior(self, x: Tensor, layout: Layout) -> Tensor:
        scale = torch.as_tensor(self._scale(x), dtype=x.dtype, device=x.device)
        log_det = layout.reduce(layout.clean(scale.log().expand_as(x)), "sum")
        dof = self.dof(x, layout).to(x.dtype)
        return -0.5 * (self.norm2(x, layout) + dof * _LOG_2PI) - log_det

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
        _check_scale(self.scale)

    def prior(self, like: Tensor, layout: Layout, noise: Noise) -> Tensor:
        return self.project(noise.normal(like, layout) * self.scale, layout)

    def log_prior(self, x: Tensor, layout: Layout) -> Tensor:
        dof = self.dof(x, layout).to(x.dtype)
        return -0.5 * (self.norm2(x, layout) + dof * _LOG_2PI) - dof * math.log(self.scale)

    def project(self, x: Tensor, layout: Layout) -> Tensor:
        total = layout.pool(x)
        mean = total / layout.points(x).to(x.dtype).reshape(-1, *[1] * (total.ndim - 1))
        return layout.clean(x - layout.spread(mean, x))

    def dof(self, x: Tensor, layout: Layout) -> Tensor:
        points = layout.points(x)
        return layout.count(x) // points * (points - 1)

    def precision(self, e: Tensor, layout: Layout) -> Tensor:
        return e / self.scale**2


@final
@dataclass(frozen=True)
class Categorical(Space):
    """One of ``k`` classes at every point, stored as integers 0..k-1.

    The prior is uniform over the classes, or, with ``absorbing``, a mask: the extra state ``k`` that no data has.
    """

    k: int
    absorbing: bool = False

    def __post_init__(self) -> None:
        if self.k < 2:
            raise ValueError(f"k must be at least 2 classes, got {self.k}")

    @property
    def states(self) -> int:
        """Number of states that a noised field can take: ``k``, and one more for the mask."""
        return self.k + self.absorbing

    def prior(self, like: Tensor, layout: Layout, noise: Noise) -> Tensor:
        if self.absorbing:
            return layout.clean(
                torch.full(like.shape, self.k, dtype=torch.long, device=like.device)
            )
        return layout.clean(noise.integers(self.k, like, layout))

    def log_prior(self, x: Tensor, layout: Layout) -> Tensor:
        if self.absorbing:
            hit = layout.reduce((x == self.k).long(), "sum") == layout.count(x)
            return torch.where(hit, 0.0, -math.inf)
        return -layout.count(x) * math.log(self.k)

    def project(self, x: Tensor, layout: Layout) -> Tensor:
        return layout.clean(x)

    def dof(self, x: Tensor, layout: Layout) -> Tensor:
        return layout.count(x) * (self.k - 1)

    def check(self, x0: Tensor) -> Tensor:
        """``x0`` itself. Raises ``ValueError`` if it is not integer or leaves 0..k-1."""
        if x0.is_floating_point():
            raise ValueError(
                f"a categorical field holds integers 0..{self.k - 1}, got {x0.dtype}; pass class indices"
            )
        if x0.numel() and (int(x0.min()) < 0 or int(x0.max()) >= self.k):
            raise ValueError(
                f"a categorical field holds 0..{self.k - 1}, got values {int(x0.min())}..{int(x0.max())}"
            )
        return x0
