r"""How much a field varies at each scale: on the sphere, along circles of latitude, and in a region.

A mean of members is smoother than any of them, so spectra are taken of single members and averaged afterwards. All of
them are real variances: see each function for what its values sum to. Fields must be complete: a transform has no value
for a missing cell.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
import xarray as xr

from sciffusion.harmonics import Harmonics, SphereGrid

from .axes import Axes
from .grid import Grid
from .kernels import Floats
from .matching import MEMBER, TIME, area_weights, axes_of, space_dims, units_of

__all__ = [
    "SCALES",
    "log_spectral_distance",
    "planar_spectrum",
    "spectral_ratio",
    "spectrum",
    "spherical_spectrum",
    "zonal_spectrum",
]

SCALES = ("degree", "zonal_wavenumber", "wavenumber")
"""The dimensions that spectra have: of the sphere, of circles of latitude, of a region."""

_EARTH = 6371.0  # km, mean radius


def spectrum(data: xr.DataArray) -> xr.DataArray:
    """`spherical_spectrum` on a globe with a quadrature, `planar_spectrum` elsewhere."""
    axes = axes_of(data)
    if axes is not None and Grid.of(data).sphere is not None:
        return spherical_spectrum(data)
    return planar_spectrum(data)


def spherical_spectrum(data: xr.DataArray) -> xr.DataArray:
    r"""The power of each total wavenumber l on the sphere, along a new dimension "degree".

    .. math:: S_l = \frac1{4\pi}\sum_m |a_{lm}|^2,\qquad \sum_l S_l = \overline{x^2}

    with the area mean of a field that the grid resolves; white noise has :math:`S_l \propto 2l + 1`. The highest l is
    what the grid's quadrature allows. The coordinate "wavelength" is :math:`2\pi R/\sqrt{l(l+1)}` in km. Raises
    ``ValueError`` for a grid without a quadrature (a region; see `planar_spectrum`) and for missing cells.
    """
    grid = Grid.of(data)
    sphere = grid.sphere
    if sphere is None:
        raise ValueError(
            f"{grid!r} is no globe with a quadrature, so it has no spherical spectrum; take a planar or a zonal one"
        )
    harmonics = Harmonics(sphere, _largest(sphere))
    l = np.arange(harmonics.lmax + 1)

    def power(x: Floats) -> Floats:
        squares = harmonics.analysis(torch.from_numpy(x)) ** 2 / (4 * math.pi)
        out = squares.new_zeros(*squares.shape[:-1], len(l))
        return out.index_add_(-1, harmonics.degrees, squares).numpy()

    with np.errstate(divide="ignore"):
        wavelength = 2 * math.pi * _EARTH / np.sqrt(l * (l + 1.0))
    return _transformed(data, power, "degree", l, wavelength, "power", "")


def zonal_spectrum(
    data: xr.DataArray, *, band: tuple[float, float] = (-90.0, 90.0)
) -> xr.DataArray:
    r"""The power of each zonal wavenumber k on circles of latitude, along a new dimension "zonal_wavenumber".

    .. math:: S_0 = C|F_0|^2,\quad S_k = 2C|F_k|^2,\qquad \sum_k S_k = C\,\overline{x^2}

    with the length C of the circle in km and F the FFT over the number of columns: averaged over the rows between the
    latitudes of ``band``, by area. Units are the field's squared times km. The coordinate "wavelength", in km, is that
    of the band's mean circle. Raises ``ValueError`` unless the columns close around the globe and rows lie in the band.
    """
    axes = axes_of(data)
    if axes is None or not Grid.of(data).circular:
        raise ValueError("a zonal spectrum needs columns that close around the globe")
    inside = (axes.lat >= band[0]) & (axes.lat <= band[1])
    if not inside.any():
        raise ValueError(
            f"band {band} holds no row; latitudes run from {axes.lat[-1]} to {axes.lat[0]}"
        )
    area = np.where(inside, area_weights(data).values[axes.rows], 0.0)
    area /= area.sum()
    circle = 2 * math.pi * _EARTH * np.cos(np.radians(axes.lat))
    n = len(axes.lon)

    def power(x: Floats) -> Floats:
        squares = np.abs(np.fft.rfft(x, axis=-1, norm="forward")) ** 2
        squares[..., 1 : (n + 1) // 2] *= 2  # not the mean, nor the highest of an even number
        return np.einsum("...hk,h->...k", squares, circle * area)

    k = np.arange(n // 2 + 1)
    with np.errstate(divide="ignore"):
        wavelength = (circle * area).sum() / k
    return _transformed(data, power, "zonal_wavenumber", k, wavelength, "power", " km")


def planar_spectrum(data: xr.DataArray) -> xr.DataArray:
    r"""The power density E(k) of a region taken as a plane, along a new dimension "wavenumber" (1 / km).

    The mean is taken off, a Hann window of unit mean square (which has no edge) laid on, and the squares of the Fourier
    coefficients are summed over rings of the width of the lowest wavenumber, up to the highest that both axes resolve:
    :math:`\sum_k E(k)\,\Delta k` is the variance under the window that the rings hold. Longitudes are as wide as at the
    middle latitude; projected maps need coordinates in m or km. Units are the field's squared times km. Raises
    ``ValueError`` for uneven steps, for fewer than 8 rows or columns, and for missing cells.
    """
    dy, dx = _steps(data)
    height, width = (data.sizes[d] for d in space_dims(data))
    if min(height, width) < 8:
        raise ValueError(
            f"a planar spectrum needs at least 8 rows and columns, got {height} x {width}"
        )
    window = np.outer(_hann(height), _hann(width))
    fy, fx = np.fft.fftfreq(height, dy), np.fft.fftfreq(width, dx)
    radius = np.hypot(fy[:, None], fx)
    step = max(1 / (height * dy), 1 / (width * dx))
    rings = int(min(np.abs(fy).max(), np.abs(fx).max()) / step + 1e-9)
    ring = np.rint(radius / step).astype(int)
    kept = (ring >= 1) & (ring <= rings)

    def power(x: Floats) -> Floats:
        anomaly = (x - x.mean((-2, -1), keepdims=True)) * window
        squares = np.abs(np.fft.fft2(anomaly, norm="forward")) ** 2
        out = np.zeros((*x.shape[:-2], rings + 1))
        np.add.at(np.moveaxis(out, -1, 0), ring[kept], np.moveaxis(squares[..., kept], -1, 0))
        return out[..., 1:] / step

    k = np.arange(1, rings + 1) * step
    return _transformed(data, power, "wavenumber", k, 1 / k, "power density", " km")


def spectral_ratio(ensemble: xr.DataArray, truth: xr.DataArray) -> xr.DataArray:
    """Spectra of members over spectra of the truth, each averaged over members and time first.

    1 at every scale is right; below 1 members are too smooth there, above 1 too rough. Raises ``ValueError`` for
    spectra of different kinds.
    """
    dim = _scale(ensemble)
    if _scale(truth) != dim or ensemble.sizes[dim] != truth.sizes[dim]:
        raise ValueError(
            "the two spectra are of different kinds or grids; take both on the same grid"
        )
    ours, theirs = (_mean(x) for x in (ensemble, truth))
    ratio = ours / theirs.assign_coords({dim: ours[dim]})
    return ratio.assign_attrs({"long_name": "power / power of the truth", "units": "1"})


def log_spectral_distance(ensemble: xr.DataArray, truth: xr.DataArray) -> xr.DataArray:
    r"""The root mean square over scales of :math:`10\log_{10}` of `spectral_ratio`, in dB; the mean is left out."""
    ratio = spectral_ratio(ensemble, truth)
    dim = _scale(ratio)
    ratio = ratio.where(ratio[dim] > 0)
    decibels = 10 * xr.apply_ufunc(np.log10, ratio)
    distance = (decibels**2).mean(dim) ** 0.5
    return distance.assign_attrs({"long_name": "log-spectral distance", "units": "dB"})


def _mean(spectra: xr.DataArray) -> xr.DataArray:
    return spectra.mean([d for d in (MEMBER, TIME) if d in spectra.dims])


def _scale(spectra: xr.DataArray) -> str:
    found = [d for d in SCALES if d in spectra.dims]
    if not found:
        raise ValueError(
            f"{tuple(map(str, spectra.dims))} has none of {SCALES}: give spectra, not fields"
        )
    return found[0]


def _transformed(
    data: xr.DataArray,
    power: Callable[[Floats], Floats],
    dim: str,
    at: np.ndarray,
    wavelength: Floats,
    name: str,
    per: Literal["", " km"],
) -> xr.DataArray:
    """``power`` of the fields in the order of rows and columns that it expects, with coordinates and units."""
    axes = axes_of(data)

    def one(x: Floats) -> Floats:
        x = np.ascontiguousarray(x, dtype=np.float64)
        if not np.isfinite(x).all():
            raise ValueError(
                "a spectrum needs complete fields, and these hold cells that are NaN or infinite"
            )
        return power(x if axes is None else np.asarray(axes.arrange(x), dtype=np.float64))

    out = xr.apply_ufunc(
        one,
        data,
        input_core_dims=[list(space_dims(data))],
        output_core_dims=[[dim]],
        dask="parallelized",
        dask_gufunc_kwargs={"allow_rechunk": True, "output_sizes": {dim: len(at)}},
        output_dtypes=[np.float64],
    )
    units = units_of(data)
    out = out.assign_coords({dim: at, "wavelength": (dim, wavelength, {"units": "km"})})
    base = units if units.isalpha() else f"({units})"
    squared = f"{base}^2{per}" if units else ""
    return out.assign_attrs({"long_name": name, "units": squared})


def _largest(sphere: SphereGrid) -> int:
    return min(sphere.degree, sphere.nlon - 1) // 2


def _hann(n: int) -> Floats:
    """The Hann window of unit mean square, its zeros half a cell outside of the first and the last."""
    window = np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2
    return window / np.sqrt((window**2).mean())


def _steps(data: xr.DataArray) -> tuple[float, float]:
    """The distances of rows and of columns, km."""
    axes = axes_of(data)
    if isinstance(axes, Axes):
        dlat, dlon = _even(-np.diff(axes.lat), "latitude"), _even(np.diff(axes.lon), "longitude")
        middle = math.cos(math.radians((axes.lat[0] + axes.lat[-1]) / 2))
        return math.radians(dlat) * _EARTH, math.radians(dlon) * middle * _EARTH
    steps = []
    for d in ("y", "x"):
        unit = {"m": 1e-3, "metre": 1e-3, "meters": 1e-3, "km": 1.0}.get(
            units_of(data[d]) if d in data.coords else ""
        )
        if unit is None:
            raise ValueError(f"the coordinate {d!r} needs values in m or km, said by its units")
        steps.append(unit * _even(np.abs(np.diff(data[d].values)), d))
    return steps[0], steps[1]


def _even(steps: Floats, name: str) -> float:
    mean = float(steps.mean())
    if np.abs(steps - mean).max() > 0.02 * mean:
        raise ValueError(
            f"{name} has steps from {steps.min():g} to {steps.max():g}: interpolate to even ones"
        )
    return mean
