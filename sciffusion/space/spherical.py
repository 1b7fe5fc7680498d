r"""Isotropic Gaussian noise on a sphere: :math:`e = \sum_{lm} \sqrt{C_l}\,\varepsilon_{lm} Y_{lm}`.

The angular spectrum :math:`C_l` says all of an isotropic field's covariance; by the addition theorem the variance is
:math:`\sum_l (2l+1) C_l / 4\pi` at every point, whatever the grid. Weather lives here, and the cosmic microwave
background.
Source: Marinucci & Peccati, Random Fields on the Sphere, 2011.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from sciffusion.harmonics import Harmonics
from sciffusion.layout import Layout
from sciffusion.noise import Noise
from sciffusion.space.base import GaussianSpace
from sciffusion.space.grids import per_sample, require_grid

__all__ = ["SphereField"]


@final
@dataclass(frozen=True, eq=False)
class SphereField(GaussianSpace):
    r"""Fields (..., nlat, nlon) of degree at most lmax with an isotropic prior: (lmax+1)^2 numbers per channel.

    ``spectrum``: C_l for l = 0..lmax, (lmax+1,), or one row per channel, (C, lmax+1), for fields (..., C, nlat, nlon).
    Constant C_l are white noise on the sphere, up to lmax. Projection cuts higher degrees away (nearest with cells
    weighted by their area). Raises ``ValueError`` for a spectrum of another length, or one that is not positive.
    """

    harmonics: Harmonics
    spectrum: Tensor
    _log_gram: list[float] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        n = self.harmonics.lmax + 1
        if self.spectrum.ndim not in (1, 2) or self.spectrum.shape[-1] != n:
            raise ValueError(
                f"spectrum must be ({n},) or (channels, {n}) for lmax = {n - 1}, got {tuple(self.spectrum.shape)}"
            )
        if not bool(((self.spectrum > 0) & self.spectrum.isfinite()).all()):
            raise ValueError("spectrum must be positive and finite; lower lmax to where it is")

    @staticmethod
    def fit(data: Tensor, harmonics: Harmonics) -> SphereField:
        """The space with the spectrum of ``data``, (B, nlat, nlon) or (B, C, nlat, nlon), about the mean field.

        Raises ``ValueError`` for fewer than two samples.
        """
        if data.ndim not in (3, 4) or len(data) < 2:
            raise ValueError(
                f"data must be (B, nlat, nlon) or (B, C, nlat, nlon) with B > 1, got {tuple(data.shape)}"
            )
        a = harmonics.analysis(data.double() - data.double().mean(0))
        power = a.square().sum(0) / (len(data) - 1)
        degrees = harmonics.degrees.to(power.device)
        total = power.new_zeros(*power.shape[:-1], harmonics.lmax + 1)
        total.index_add_(-1, degrees, power)
        return SphereField(harmonics, total / (2 * torch.arange(harmonics.lmax + 1) + 1).to(total))

    def _variances(self, x: Tensor, layout: Layout) -> Tensor:
        """C_l for every coefficient, ((C,) (lmax+1)^2), float64."""
        require_grid(x, layout, self.harmonics.grid.shape, self.spectrum.shape[:-1])
        return self.spectrum.double()[..., self.harmonics.degrees].to(x.device)

    def prior(self, like: Tensor, layout: Layout, noise: Noise) -> Tensor:
        variances = self._variances(like, layout)
        white = noise.normal(like.new_empty(*like.shape[:-2], variances.shape[-1]), layout)
        return layout.clean(self.harmonics.synthesis(white * variances.sqrt()).to(like))

    def project(self, x: Tensor, layout: Layout) -> Tensor:
        require_grid(x, layout, self.harmonics.grid.shape, self.spectrum.shape[:-1])
        return layout.clean(self.harmonics.synthesis(self.harmonics.analysis(x)).to(x))

    def covariance(self, p: Tensor, layout: Layout) -> Tensor:
        coefficients = self.harmonics.adjoint(p) * self._variances(p, layout)
        return layout.clean(self.harmonics.synthesis(coefficients).to(p))

    def precision(self, e: Tensor, layout: Layout) -> Tensor:
        coefficients = self.harmonics.analysis(e) / self._variances(e, layout)
        area = self.harmonics.grid.area.to(e.device)
        return (self.harmonics.synthesis(coefficients) * area).to(e)

    def noise_scale(self, x: Tensor, layout: Layout) -> float | Tensor:
        weights = (
            2 * torch.arange(self.harmonics.lmax + 1, device=self.spectrum.device) + 1
        ).double()
        scale = (self.spectrum.double() @ weights / (4 * math.pi)).sqrt()
        return float(scale) if scale.ndim == 0 else scale.to(x.device)[:, None, None]

    def dof(self, x: Tensor, layout: Layout) -> Tensor:
        return per_sample(torch.tensor((self.harmonics.lmax + 1) ** 2), x, layout, 2)

    def log_volume(self, x: Tensor, layout: Layout) -> Tensor:
        if not self._log_gram:
            self._log_gram.append(self.harmonics.log_det_gram())
        log_det = self._variances(x, layout).log().sum(-1) + self._log_gram[0]
        return per_sample(0.5 * log_det, x, layout, 2).to(x.dtype)
