"""A latitude-longitude grid: its cells' areas, whether it closes around the globe, and whether it reaches the poles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sciffusion.harmonics import SphereGrid

from .axes import Axes

__all__ = ["Grid"]

_NEAR = 0.01
"""Degrees (or hundredths of a step, where that is less) by which coordinates may be off: files round them."""


@final
@dataclass(frozen=True, eq=False)
class Grid:
    """Rows of latitude, southward, and equally spaced columns, eastward.

    ``lat`` (H,) falls and ``lon`` (W,) rises, degrees, float64. ``edges`` (H + 1,) are the latitudes between the rows,
    for a grid whose cells are not bounded half way (a coarsened one); by default they are found from ``lat``.
    Raises ``ValueError`` if latitudes do not fall or leave -90..90, or if the steps of longitude are unequal or
    lead around the globe more than once.
    """

    lat: Tensor
    lon: Tensor
    edges: Tensor | None = None

    def __post_init__(self) -> None:
        for name, x in (("lat", self.lat), ("lon", self.lon)):
            if x.ndim != 1 or len(x) < 1 or x.dtype != torch.float64 or not x.isfinite().all():
                raise ValueError(f"{name} must be a vector of finite float64 degrees")
        if (self.lat.diff() >= 0).any() or self.lat.abs().max() > 90 + 1e-6:
            raise ValueError("lat must fall, within 90..-90")
        if (self.lon.diff() <= 0).any():
            raise ValueError("lon must rise")
        steps = self.lon.diff()
        if len(steps) and float((steps - steps.mean()).abs().max()) > self._slack:
            raise ValueError(
                f"lon has unequal steps, from {steps.min():g} to {steps.max():g} degrees; "
                "interpolate to equal steps first"
            )
        if self.lon[-1] - self.lon[0] + self._step > 360 + self._slack:
            raise ValueError("lon leads around the globe more than once")
        if self.edges is not None and self.edges.shape != (len(self.lat) + 1,):
            raise ValueError(f"edges must be ({len(self.lat) + 1},), got {list(self.edges.shape)}")

    @staticmethod
    def of(ds: xr.Dataset | xr.DataArray) -> Grid:
        """The grid of a dataset with any order of latitudes and either count of longitudes.

        Raises ``ValueError`` if latitudes or longitudes are missing, unsorted, repeated, or unequally spaced (lon).
        """
        axes = Axes.of(ds)
        return Grid(torch.from_numpy(axes.lat.copy()), torch.from_numpy(axes.lon.copy()))

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return len(self.lat), len(self.lon)

    @property
    def _step(self) -> float:
        return float(self.lon.diff().mean()) if len(self.lon) > 1 else 360.0

    @property
    def _slack(self) -> float:
        return 0.01 * self._step + 4e-5  # the second is what float32 leaves of 360 degrees

    @cached_property
    def circular(self) -> bool:
        """Whether the last column is followed by the first."""
        return abs(float(self.lon[-1] - self.lon[0]) + self._step - 360) <= self._slack

    @property
    def pole_rows(self) -> tuple[bool, bool]:
        """Whether a row lies exactly on the north and on the south pole."""
        return bool(self.lat[0] >= 90 - 1e-4), bool(self.lat[-1] <= -90 + 1e-4)

    @cached_property
    def poles(self) -> tuple[bool, bool]:
        """Whether the rows go on over the north and the south pole.

        They do on circles that come within one spacing of it: the row beyond is the same or the next to last one,
        half a turn away.
        """
        if not self.circular or len(self.lat) < 2:
            return False, False
        gaps = -self.lat.diff()
        north, south = 90 - self.lat[0], 90 + self.lat[-1]
        return bool(north <= 1.01 * gaps[0]), bool(south <= 1.01 * gaps[-1])

    @cached_property
    def gaussian(self) -> bool:
        """Whether the latitudes are the nodes of Gauss-Legendre quadrature, to 0.01 degree."""
        n = len(self.lat)
        # a guess that is good to 1.6 % of a step spares other grids the search for the true nodes
        guess = 90 - 180 * (4 * np.arange(1, n + 1) - 1) / (4 * n + 2)
        near = min(_NEAR, 0.05 * 180 / n)
        if n < 2 or np.abs(self.lat.numpy() - guess).max() > near + 0.02 * 180 / n:
            return False
        nodes = np.degrees(np.arcsin(np.polynomial.legendre.leggauss(n)[0]))[::-1]
        return bool(np.abs(self.lat.numpy() - nodes).max() <= near)

    @cached_property
    def bounds(self) -> Tensor:
        """The latitudes that bound the cells, (H + 1,), degrees, falling.

        Half way between rows, half a spacing outside the first and the last but never beyond a pole; on a Gaussian
        grid so that each cell has the area that the quadrature gives its row.
        """
        if self.edges is not None:
            return self.edges
        if self.gaussian:
            weights = torch.from_numpy(np.polynomial.legendre.leggauss(len(self.lat))[1])
            sines = 1 - torch.cat([weights.new_zeros(1), weights.cumsum(0)])
            return torch.rad2deg(torch.asin(sines.clamp(-1, 1)))
        if len(self.lat) < 2:
            raise ValueError("one row has no neighbours that bound it; give edges")
        middle = (self.lat[1:] + self.lat[:-1]) / 2
        ends = (2 * self.lat[:1] - middle[:1], 2 * self.lat[-1:] - middle[-1:])
        return torch.cat([ends[0].clamp(max=90), middle, ends[1].clamp(min=-90)])

    @cached_property
    def area(self) -> Tensor:
        """Cell areas in units of their mean over rows, (H, 1), float64: sin(upper) - sin(lower), Gauss weights."""
        if self.gaussian and self.edges is None:
            weights = torch.from_numpy(np.polynomial.legendre.leggauss(len(self.lat))[1].copy())
        else:
            weights = -torch.sin(torch.deg2rad(self.bounds)).diff()
        return (weights / weights.mean())[:, None]

    @cached_property
    def sphere(self) -> SphereGrid | None:
        """The quadrature on the sphere, if the grid is a globe that has one, else None.

        Gaussian latitudes have one, and equally spaced ones from pole to pole or from half a step off either.
        """
        n, columns = self.shape
        if not self.circular or n < 2:
            return None
        if self.gaussian:
            return SphereGrid.gauss(n, columns)
        for poles in (True, False):
            sphere = SphereGrid.regular(n, columns, poles=poles)
            off = (90 - self.lat - torch.rad2deg(sphere.colatitudes)).abs().max()
            if off <= min(_NEAR, 0.05 * 180 / n):
                return sphere
        return None

    def same(self, other: Grid) -> bool:
        """Whether rows and columns agree to a hundredth of a step; the count of longitudes may differ by full turns."""
        if self.shape != other.shape:
            return False
        turn = (self.lon - other.lon + 180) % 360 - 180
        near = _NEAR * abs(float(self.lat[0] - self.lat[-1])) / max(len(self.lat) - 1, 1) + 4e-5
        return bool((self.lat - other.lat).abs().max() <= near and turn.abs().max() <= self._slack)

    def subset(self, rows: slice, columns: slice) -> Grid:
        """The grid of a rectangle of its cells, which keep their areas. Raises ``ValueError`` for a step or no cell."""
        a, b = _range("rows", rows, len(self.lat)), _range("columns", columns, len(self.lon))
        edges = self.bounds[a.start : a.stop + 1]
        return Grid(self.lat[a.start : a.stop], self.lon[b.start : b.stop], edges)

    def coarsen(self, factor: int) -> Grid:
        """The grid whose cells are blocks of factor x factor cells; areas add up exactly.

        Raises ``ValueError`` unless ``factor`` divides both sides.
        """
        height, width = self.shape
        if factor < 1 or height % factor or width % factor:
            divisors = [k for k in range(2, 65) if math.gcd(height, width) % k == 0]
            raise ValueError(
                f"factor {factor} does not divide the grid of {height} x {width}; "
                + (f"these do: {divisors}" if divisors else "crop it with subset first")
            )
        lat = self.lat.unflatten(0, (-1, factor)).mean(1)
        lon = self.lon.unflatten(0, (-1, factor)).mean(1)
        return Grid(lat, lon, self.bounds[::factor])

    def __repr__(self) -> str:
        height, width = self.shape
        kind = (
            "globe" if self.circular and all(self.poles) else "band" if self.circular else "region"
        )
        return (
            f"Grid({height} x {width} {kind}, lat {self.lat[0]:g}..{self.lat[-1]:g}, "
            f"lon {self.lon[0]:g}..{self.lon[-1]:g})"
        )


def _range(name: str, part: slice, length: int) -> range:
    chosen = range(length)[part]
    if chosen.step != 1 or not len(chosen):
        raise ValueError(f"{name} {part} of {length} is not a block of cells")
    return chosen
