r"""Spherical harmonics: from a field on a latitude-longitude grid to its coefficients, and back, without loss.

The basis is real and orthonormal on the unit sphere,

.. math:: Y_{l0} = \bar P_{l0}(\cos\theta),\quad Y_{lm} = \sqrt2\,\bar P_{lm}(\cos\theta)\cos m\varphi,\quad
          Y_{l,-m} = \sqrt2\,\bar P_{lm}(\cos\theta)\sin m\varphi \qquad (m > 0),

with :math:`2\pi\int\bar P_{lm}^2\,d\cos\theta = 1` and no Condon-Shortley phase. Latitudes are summed by a quadrature
that is exact for the products of two harmonics, longitudes by FFT. Cost: O(lmax^2 nlat) in time and memory.
Source: Driscoll & Healy, Adv. Appl. Math. 15, 1994; the recursion in l: Holmes & Featherstone, J. Geodesy 76, 2002.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["Harmonics", "SphereGrid"]

_LARGEST = 1900
"""Beyond this degree the recursion, which starts from sin(theta)^m, underflows."""


@final
@dataclass(frozen=True, eq=False)
class SphereGrid:
    """Circles of latitude with ``nlon`` equally spaced longitudes from 0.

    Make one by :meth:`gauss` or :meth:`regular`. ``colatitudes`` run from the north pole, radians; ``weights``
    integrate over cos(colatitude), exactly for polynomials up to ``degree``.
    """

    colatitudes: Tensor
    weights: Tensor
    nlon: int
    degree: int

    @staticmethod
    def gauss(nlat: int, nlon: int) -> SphereGrid:
        """The Gauss-Legendre latitudes, which serve the largest lmax: nlat - 1."""
        nodes, weights = np.polynomial.legendre.leggauss(nlat)
        theta = torch.from_numpy(np.arccos(nodes[::-1]).copy())
        return SphereGrid(theta, torch.from_numpy(weights[::-1].copy()), nlon, 2 * nlat - 1)

    @staticmethod
    def regular(nlat: int, nlon: int, *, poles: bool) -> SphereGrid:
        """Equally spaced latitudes, from pole to pole (``poles``) or half a step away from either.

        The quadratures of Clenshaw & Curtis and of Fejér, for lmax up to (nlat - 1) / 2. Raises ``ValueError`` for
        fewer than 2 latitudes.
        """
        if nlat < 2:
            raise ValueError(f"nlat must be at least 2, got {nlat}")
        j = torch.arange(nlat, dtype=torch.float64)
        theta = j * (math.pi / (nlat - 1)) if poles else (j + 0.5) * (math.pi / nlat)
        # a cosine series of the integrand is integrated term by term: over x, cos(2k theta) gives 2 / (1 - 4k^2)
        n = nlat - 1 if poles else nlat
        k = torch.arange(1, n // 2 + 1, dtype=torch.float64)
        halved = torch.where(2 * k == n, 0.5, 1.0) if poles else torch.ones_like(k)
        series = 2 * halved / (4 * k**2 - 1) * torch.cos(2 * k * theta[:, None])
        weights = 2 / n * (1 - series.sum(1))
        if poles:
            weights[0], weights[-1] = weights[0] / 2, weights[-1] / 2
        return SphereGrid(theta, weights, nlon, nlat - 1)

    @property
    def shape(self) -> tuple[int, int]:
        """(nlat, nlon)."""
        return len(self.colatitudes), self.nlon

    @property
    def area(self) -> Tensor:
        """What each cell integrates over, (nlat, 1), float64; times nlon they sum to 4 pi."""
        return self.weights[:, None] * (2 * math.pi / self.nlon)


def _legendre(lmax: int, theta: Tensor) -> Tensor:
    r"""The normalised :math:`\bar P_{lm}(\cos\theta)`, (m, l, nlat); zero for l < m."""
    x, s = torch.cos(theta), torch.sin(theta)
    out = torch.zeros(lmax + 1, lmax + 1, len(theta), dtype=torch.float64)
    out[0, 0] = math.sqrt(1 / (4 * math.pi))
    for l in range(1, lmax + 1):
        out[l, l] = math.sqrt((2 * l + 1) / (2 * l)) * s * out[l - 1, l - 1]
        out[l - 1, l] = math.sqrt(2 * l + 1) * x * out[l - 1, l - 1]
        if l > 1:
            m = torch.arange(l - 1, dtype=torch.float64)[:, None]
            a = ((4 * l**2 - 1) / (l**2 - m**2)).sqrt()
            b = (((l - 1) ** 2 - m**2) / (4 * (l - 1) ** 2 - 1)).sqrt()
            out[: l - 1, l] = a * (x * out[: l - 1, l - 1] - b * out[: l - 1, l - 2])
    return out


def _slopes(table: Tensor) -> Tensor:
    r"""From :math:`\bar P_{lm}`, (m, l, nlat), the pair :math:`m\bar P_{lm}/\sin\theta` and
    :math:`-d\bar P_{lm}/d\theta`, (2, m, l, nlat), by recursions that need no division by sin(theta)."""
    n = len(table)
    m = torch.arange(n, dtype=table.dtype)[:, None, None]
    l = torch.arange(n, dtype=table.dtype)[:, None]
    above, below = pad(table[1:], (0, 0, 0, 0, 0, 1)), pad(table[:-1], (0, 0, 0, 0, 1, 0))  # m +- 1
    up, down = (l - m) * (l + m + 1), (l + m) * (l - m + 1)
    north = (up.clamp(min=0).sqrt() * above - down.clamp(min=0).sqrt() * below) / 2
    above, below = (pad(x[:, :-1], (0, 0, 1, 0)) for x in (above, below))  # of the degree l - 1
    up, down = (l - m) * (l - m - 1), (l + m) * (l + m - 1)
    east = (up.clamp(min=0).sqrt() * above + down.clamp(min=0).sqrt() * below) / 2
    east = east * ((2 * l + 1) / (2 * l - 1).abs()).sqrt()
    # order 0: the order -1 is minus the order 1, and nothing varies along a parallel
    north[0], east[0] = 2 * north[0], 0.0
    return torch.stack([east, north])


@final
class Harmonics:
    """The transform between fields (..., nlat, nlon) and coefficients (..., (lmax+1)^2), in ``dtype``.

    The coefficient of :math:`Y_{lm}` lies at l^2 + l + m; ``degrees`` names the l of each. A field of degree at most
    ``lmax`` comes back from analysis and synthesis as it was. Raises ``ValueError`` if the grid is too coarse for that.
    """

    def __init__(self, grid: SphereGrid, lmax: int, dtype: torch.dtype = torch.float64) -> None:
        if not 0 <= lmax <= _LARGEST:
            raise ValueError(f"lmax must lie in 0..{_LARGEST}, got {lmax}")
        if 2 * lmax > grid.degree or grid.nlon < 2 * lmax + 1:
            raise ValueError(
                f"a grid of {grid.shape} points resolves lmax = {min(grid.degree, grid.nlon - 1) // 2}, "
                f"not {lmax}; lower lmax or refine the grid"
            )
        self.grid, self.lmax, self.dtype = grid, lmax, dtype
        self.degrees = torch.repeat_interleave(
            torch.arange(lmax + 1), 2 * torch.arange(lmax + 1) + 1
        )
        order = torch.arange((lmax + 1) ** 2) - self.degrees**2 - self.degrees
        # where (l, m) lies in an array (cosine or sine, |m|, l)
        self._at = ((order < 0).long() * (lmax + 1) + order.abs()) * (lmax + 1) + self.degrees
        self._root = torch.full((lmax + 1, 1, 1), math.sqrt(2), dtype=torch.float64)
        self._root[0] = 1.0
        self._exact = _legendre(lmax, grid.colatitudes) * self._root
        self._tables: dict[torch.device, tuple[Tensor, Tensor]] = {}
        self._gradients: dict[torch.device, Tensor] = {}

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if device not in self._tables:
            self._tables[device] = (
                self._exact.to(device, self.dtype),
                self.grid.area.to(device, self.dtype),
            )
        return self._tables[device]

    def analysis(self, x: Tensor) -> Tensor:
        r"""The coefficients :math:`\int Y_{lm} x`, (..., (lmax+1)^2). Degrees above ``lmax`` up to the grid's alias."""
        return self.adjoint(x * self._on(x.device)[1])

    def adjoint(self, x: Tensor) -> Tensor:
        """The transpose of :meth:`synthesis`: sums of harmonics times entries, without the cells' areas."""
        table, _ = self._on(x.device)
        waves = torch.fft.rfft(x.to(self.dtype), dim=-1)[..., : self.lmax + 1].transpose(-1, -2)
        parts = torch.stack([waves.real, -waves.imag], -3)  # (..., 2, m, nlat)
        out = torch.einsum("...cmj,mlj->...cml", parts, table)
        return out.flatten(-3)[..., self._at.to(x.device)]

    def synthesis(self, coefficients: Tensor) -> Tensor:
        r"""The field :math:`\sum_{lm} a_{lm} Y_{lm}`, (..., nlat, nlon)."""
        table, _ = self._on(coefficients.device)
        return self._wave_sum(torch.einsum("...cml,mlj->...cmj", self._unpack(coefficients), table))

    def gradient(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        r"""The eastward and northward slopes of the field on the unit sphere, each (..., nlat, nlon).

        :math:`(\sin\theta)^{-1}\partial_\varphi` and :math:`-\partial_\theta` of :meth:`synthesis`, exact, on pole
        rows too (there longitude says which way is east).
        """
        device = coefficients.device
        if device not in self._gradients:
            slopes = _slopes(self._exact / self._root) * self._root
            self._gradients[device] = slopes.to(device, self.dtype)
        both = torch.einsum(
            "...cml,dmlj->...dcmj", self._unpack(coefficients), self._gradients[device]
        )
        # along a parallel, cosines become minus sines, and sines cosines
        cosine, sine = both[..., 0, :, :, :].unbind(-3)
        east = self._wave_sum(torch.stack([sine, -cosine], -3))
        return east, self._wave_sum(both[..., 1, :, :, :])

    def _unpack(self, coefficients: Tensor) -> Tensor:
        """Coefficients as (..., cosine or sine, m, l)."""
        n = self.lmax + 1
        a = coefficients.to(self.dtype)
        full = a.new_zeros(*a.shape[:-1], 2 * n * n)
        full[..., self._at.to(a.device)] = a
        return full.unflatten(-1, (2, n, n))

    def _wave_sum(self, parts: Tensor) -> Tensor:
        """The field whose parallels have the amplitudes ``parts``, (..., cosine or sine, m, nlat)."""
        cosine, sine = parts.unbind(-3)
        # irfft counts every order but 0 twice
        half = torch.full((self.lmax + 1, 1), 0.5, dtype=self.dtype, device=parts.device)
        half[0] = 1.0
        waves = torch.complex(cosine * half, -sine * half).transpose(-1, -2)
        return torch.fft.irfft(waves, n=self.grid.nlon, dim=-1, norm="forward")

    def log_det_gram(self) -> float:
        r""":math:`\log\det Y^TY` of the matrix Y of :meth:`synthesis`: how it stretches volume, squared."""
        table, total = self._exact, 0.0
        for m in range(self.lmax + 1):
            own = table[m, m:]
            sines = (
                1 if m == 0 else 2
            )  # cos and sin of m phi; their squares sum to nlon / 2, the root 2 is in the table
            gram = own @ own.T * self.grid.nlon / sines
            total += sines * float(torch.linalg.slogdet(gram).logabsdet)
        return total
