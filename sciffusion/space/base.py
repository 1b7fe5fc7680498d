r"""Where a field lives: the shape of its noise, its subspace, its degrees of freedom.

With :math:`x_t = \alpha x_0 + \sigma e`, :math:`e = L\varepsilon`, :math:`\varepsilon \sim N(0, I)`, the operator
:math:`L` belongs to the space. No solver and no schedule sees it; only the prior, the score, the norm of a loss and the
likelihood do.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from torch import Tensor

from sciffusion.layout import Layout
from sciffusion.noise import Noise

__all__ = ["GaussianSpace", "Space", "check_scale"]

LOG_2PI = math.log(2 * math.pi)


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


def check_scale(scale: float | Tensor) -> None:
    """Raise ``ValueError`` unless a noise scale is positive."""
    ok = bool((scale > 0).all()) if isinstance(scale, Tensor) else scale > 0
    if not ok:
        raise ValueError(f"scale must be positive, got {scale}")
