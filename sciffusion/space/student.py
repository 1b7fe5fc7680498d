r"""Heavy-tailed noise: the multivariate Student t distribution.

:math:`e = s\,\varepsilon/\sqrt{\kappa}`, :math:`\varepsilon\sim N(0, I)`, :math:`\kappa\sim\chi^2_\nu/\nu`, one
:math:`\kappa` for all of a sample. Its density is

.. math:: \log p(e) = \log\frac{\Gamma((\nu+d)/2)}{\Gamma(\nu/2)} - \frac d2\log(\nu\pi s^2)
          - \frac{\nu+d}{2}\log\Bigl(1 + \frac{|e|^2}{\nu s^2}\Bigr)

and its covariance :math:`s^2\nu/(\nu-2)`. The flow :math:`E[\dot\alpha x_0 + \dot\sigma e \mid x_t]` transports the
marginals for any noise, so denoisers and deterministic solvers need nothing new. The score is not linear in
:math:`E[e\mid x_t]`, and a sum of independent t draws is none: what needs either is refused.
Source: Pandey et al., Heavy-Tailed Diffusion Models, 2024.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciffusion.layout import Layout
from sciffusion.noise import Noise
from sciffusion.space.base import LinearSpace, check_scale

__all__ = ["StudentT"]


def _chi_square(u: Tensor, nu: float) -> Tensor:
    """The quantile of the chi-square distribution at ``u``, float64, for ``nu`` up to 300."""
    u = u.clamp(2.0**-54, 1 - 2.0**-53)
    a, low = torch.full_like(u, nu / 2), u < 0.5
    goal = torch.where(low, u, 1 - u).log()
    # Newton for the logarithm of the nearer tail P(a, x): concave, in log x below the median and in x above it, so from
    # outside (bounds: P(a, x) <= x^a / Gamma(a+1); Laurent & Massart, 2000) all steps go inwards and none too far
    below = ((u.log() + torch.lgamma(a + 1)) / a).exp()
    x = torch.where(low, below, nu / 2 + math.sqrt(40 * nu) + 40)
    for _ in range(8):
        tail = torch.where(low, torch.special.gammainc(a, x), torch.special.gammaincc(a, x))
        off, density = tail.log() - goal, ((a - 1) * x.log() - x - torch.lgamma(a)).exp() / tail
        x = torch.where(low, x * (-off / (density * x)).exp(), x + off / density)
    return 2 * x


@final
@dataclass(frozen=True)
class StudentT(LinearSpace):
    """All of R^n with Student t noise of ``nu`` degrees of freedom: the smaller, the heavier its tails.

    ``scale`` is the s of the formula; the standard deviation, which ``noise_scale`` gives, is s sqrt(nu / (nu - 2)).
    Raises ``ValueError`` unless 2 < ``nu`` <= 300 (no variance exists below; above, Gaussian noise is as good)
    and ``scale`` is positive.
    """

    nu: float = 5.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_scale(self.scale)
        if not 2 < self.nu <= 300:
            raise ValueError(
                f"nu must lie above 2, where the variance exists, and not above 300, where Euclidean is as good; got "
                f"{self.nu}"
            )

    @property
    def _variance(self) -> float:
        return self.scale**2 * self.nu / (self.nu - 2)

    def prior(self, like: Tensor, layout: Layout, noise: Noise) -> Tensor:
        normal = noise.normal(like, layout)
        kappa = _chi_square(noise.scalars(layout.batch), self.nu) / self.nu
        return layout.clean(layout.expand((self.scale / kappa.sqrt()).to(like), like) * normal)

    def log_prior(self, x: Tensor, layout: Layout) -> Tensor:
        nu, d = self.nu, self.dof(x, layout).double()
        ratio = layout.reduce(layout.clean(x).square(), "sum") / (nu * self.scale**2)
        constant = torch.lgamma((nu + d) / 2) - math.lgamma(nu / 2)
        constant = constant - d / 2 * math.log(nu * math.pi * self.scale**2)
        return constant.to(x.dtype) - ((nu + d) / 2).to(x.dtype) * ratio.log1p()

    def project(self, x: Tensor, layout: Layout) -> Tensor:
        return layout.clean(x)

    def dof(self, x: Tensor, layout: Layout) -> Tensor:
        return layout.count(x)

    def covariance(self, p: Tensor, layout: Layout) -> Tensor:
        return layout.clean(p * self._variance)

    def precision(self, e: Tensor, layout: Layout) -> Tensor:
        return e / self._variance

    def noise_scale(self, x: Tensor, layout: Layout) -> float:
        return math.sqrt(self._variance)
