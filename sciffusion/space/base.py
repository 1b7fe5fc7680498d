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

__all__ = ["GaussianSpace", "LinearSpace", "Space", "check_scale"]

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


class LinearSpace(Space):
    r"""A linear space with noise to be added to data, of mean zero and covariance :math:`\Sigma = LL^T`.

    Densities are relative to the volume of the field's valid entries; on a subspace, to that of an orthonormal basis.
    """

    @abstractmethod
    def covariance(self, p: Tensor, layout: Layout) -> Tensor:
        r""":math:`\Sigma p`: turns a gradient with respect to the field's entries, a score say, into a displacement."""

    @abstractmethod
    def precision(self, e: Tensor, layout: Layout) -> Tensor:
        r""":math:`\Sigma^{-1} e` for ``e`` in the space: what turns a noise into a score; ``covariance`` undoes it."""

    @abstractmethod
    def noise_scale(self, x: Tensor, layout: Layout) -> float | Tensor:
        """The noise's standard deviation, before a projection takes some of it away, as a network's input sees it.

        Root mean square over what is correlated (a grid, a chain). A number, or a tensor that broadcasts to ``x``.
        """

    def norm2(self, e: Tensor, layout: Layout) -> Tensor:
        r"""Squared Mahalanobis norm :math:`e^T \Sigma^{-1} e` of each sample, (B,)."""
        return layout.reduce(layout.clean(e * self.precision(e, layout)), "sum")


class GaussianSpace(LinearSpace):
    r"""A linear space with the Gaussian prior :math:`N(0, LL^T)`.

    Its score is linear in the noise, :math:`\nabla\log p_t(x_t) = -\Sigma^{-1}E[e\mid x_t]/\sigma`, and sums of its
    noise are its noise again: what scores and stochastic solvers need.
    """

    @abstractmethod
    def log_volume(self, x: Tensor, layout: Layout) -> Tensor:
        r""":math:`\tfrac12\log\det\Sigma` on the space, (B,)."""

    def log_prior(self, x: Tensor, layout: Layout) -> Tensor:
        dof = self.dof(x, layout).to(x.dtype)
        return -0.5 * (self.norm2(x, layout) + dof * _LOG_2PI) - self.log_volume(x, layout)


def check_scale(scale: float | Tensor) -> None:
    """Raise ``ValueError`` unless a noise scale is positive."""
    ok = bool((scale > 0).all()) if isinstance(scale, Tensor) else scale > 0
    if not ok:
        raise ValueError(f"scale must be positive, got {scale}")
