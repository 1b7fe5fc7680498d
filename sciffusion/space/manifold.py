r"""Curved spaces: tori, spheres, rotations.

On a Riemannian manifold a straight line is a geodesic. :math:`\exp_x(v)` is the point that the geodesic from x reaches
with the velocity v after unit time, and :math:`\log_x(y)` the velocity of the shortest one that reaches y, so that
:math:`\exp_x(\log_x y) = y` and :math:`d(x,y) = \|\log_x y\|`. Where several are shortest (at the antipode, say) one of
them is taken, always the same.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from sciffusion.layout import Layout
from sciffusion.space.base import Space

__all__ = ["Manifold", "angle_over_sine"]


class Manifold(Space):
    """A compact manifold, embedded in numbers, with the uniform prior.

    The last ``point_dims`` dimensions of a field hold one point (none: every number is a point). A tangent vector has
    the shape of the point where it begins. All formulas are made of operations with finite gradients, also where two
    points coincide.
    """

    point_dims: ClassVar[int]

    @abstractmethod
    def exp(self, x: Tensor, v: Tensor) -> Tensor:
        """The point that the geodesic from ``x`` with the velocity ``v`` reaches."""

    @abstractmethod
    def log(self, x: Tensor, y: Tensor) -> Tensor:
        """The velocity at ``x`` of the shortest geodesic to ``y``; exactly zero for equal points."""

    @abstractmethod
    def to_tangent(self, x: Tensor, v: Tensor) -> Tensor:
        """The nearest tangent vector at ``x`` to any numbers ``v``."""

    @abstractmethod
    def transport(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """The tangent vector ``v`` at ``x`` carried to ``y`` along the shortest geodesic, in parallel."""

    @abstractmethod
    def length2(self, v: Tensor) -> Tensor:
        """The squared length of tangent vectors, one per point."""

    @abstractmethod
    def log_jacobian(self, v: Tensor) -> Tensor:
        r"""The log-ratio of volumes at :math:`\exp_x(v)` and at v, one per point; -inf beyond the shortest geodesics.

        It is the log-density of :math:`\log_x(y)` for a uniform y, up to the volume of the space.
        """

    @abstractmethod
    def noise_scale(self, x: Tensor, layout: Layout) -> float | Tensor:
        r"""Root mean square of :math:`\log_x(y)` for a uniform y, per degree of freedom; broadcastable to ``x``."""

    @abstractmethod
    def _point(self, x: Tensor) -> tuple[Tensor | float, int]:
        """The log-volume of a point's space, broadcastable to one number per point, and its dimension."""

    def dist2(self, x: Tensor, y: Tensor) -> Tensor:
        """The squared geodesic distance, one per point: a field that ``layout.reduce`` sums over samples."""
        return self.length2(self.log(x, y))

    def log_prior(self, x: Tensor, layout: Layout) -> Tensor:
        volume, _ = self._point(x)
        points = self.length2(torch.zeros_like(x))
        return -layout.reduce(layout.clean(points + volume), "sum")

    def dof(self, x: Tensor, layout: Layout) -> Tensor:
        points = self.length2(torch.zeros_like(x))
        return layout.count(points) * self._point(x)[1]


def angle_over_sine(sine2: Tensor, cosine: Tensor) -> Tensor:
    r""":math:`\theta/\sin\theta` from the square of the sine and the cosine, which need not be normalised; 1 at 0.

    The arc tangent needs no clamping, and is exact at both ends where the arc cosine loses half of its digits.
    """
    tiny = sine2 < torch.finfo(sine2.dtype).eps ** 2
    sine = torch.where(tiny, 1.0, sine2).sqrt()
    return torch.where(tiny, 1.0, torch.atan2(sine, cosine) / sine)
