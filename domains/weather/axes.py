"""Where a dataset keeps its latitudes and longitudes, and the way to the order of rows and columns that networks see.

Datasets run north or south, from 0 to 360 or from -180 to 180, in any order of dimensions. Inside the domain row 0 is
the northernmost and columns run eastward without a jump; what goes out gets its own order back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

__all__ = ["Axes"]

_UNITS = {
    "latitude": {"degrees_north", "degree_north", "degrees_n", "degree_n", "degreesn", "degreen"},
    "longitude": {"degrees_east", "degree_east", "degrees_e", "degree_e", "degreese", "degreee"},
}
_NAMES = {
    "latitude": {"lat", "lats", "latitude", "latitudes", "nav_lat"},
    "longitude": {"lon", "lons", "long", "longitude", "longitudes", "nav_lon"},
}
_LETTER = {"latitude": "Y", "longitude": "X"}
_NOISE = 1e-4
"""Degrees that float32 may err by around the meridian where the count begins."""


@final
@dataclass(frozen=True, eq=False)
class Axes:
    """The horizontal dimensions of a dataset, with the stored position of every row and column.

    ``latitude`` and ``longitude`` name dimensions. ``lat`` (H,) falls and ``lon`` (W,) rises, degrees, float64;
    ``rows`` and ``columns`` say where in the dataset each of them lies.
    """

    latitude: str
    longitude: str
    lat: NDArray[np.float64]
    lon: NDArray[np.float64]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]

    @staticmethod
    def of(ds: xr.Dataset | xr.DataArray) -> Axes:
        """Find the axes by ``standard_name``, units such as degrees_north, name, or ``axis`` with units of degrees.

        A globe begins at the meridian that follows 0, a region at its western edge, in -180..180.
        Raises ``ValueError`` if an axis is missing, ambiguous, two-dimensional or not finite, for latitudes in no
        order, and for latitudes or meridians that occur twice.
        """
        north, east = _coordinate(ds, "latitude"), _coordinate(ds, "longitude")
        rows, lat = _southward(north)
        columns, lon = _eastward(east)
        return Axes(str(north.dims[0]), str(east.dims[0]), lat, lon, rows, columns)

    def arrange(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """Stored values (..., H, W) with the rows southward and the columns eastward."""
        return _take(_take(values, self.rows, -2), self.columns, -1)

    def restore(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """The inverse of :meth:`arrange`."""
        return _take(_take(values, np.argsort(self.rows), -2), np.argsort(self.columns), -1)


def _take(values: NDArray[np.generic], order: NDArray[np.int64], axis: int) -> NDArray[np.generic]:
    return values if (np.diff(order) == 1).all() else np.take(values, order, axis)


def _coordinate(ds: xr.Dataset | xr.DataArray, kind: str) -> xr.DataArray:
    found = [c for c in ds.coords.values() if _is(c, kind)]
    lines = [c for c in found if c.ndim == 1]
    if (
        len(lines) > 1
    ):  # "lat" of the data beside, say, the latitude of a station or a staggered grid
        lines = [c for c in lines if c.name in ds.dims] or lines
    if len(lines) == 1:
        return lines[0]
    names = [str(c.name) for c in found]
    if lines:
        raise ValueError(f"ds has several {kind} coordinates, {names}; drop all but one")
    if any(c.ndim == 2 for c in found):
        raise ValueError(
            f"the {kind} of ds, {names}, is two-dimensional (a curvilinear or projected grid); "
            "interpolate to a latitude-longitude grid first"
        )
    if found:
        raise ValueError(
            f"ds has a single {kind}, {names}; a grid needs rows and columns: select with a list "
            "or a slice, so that the dimension stays"
        )
    raise ValueError(
        f"ds has no {kind}: none of its coordinates {[str(c) for c in ds.coords]} is called so or "
        f"has the units or the standard_name of one; its dimensions are {list(map(str, ds.dims))}. "
        f"If one of them is meant, set its attribute units = {sorted(_UNITS[kind], key=len)[-1]!r}"
    )


def _is(coordinate: xr.DataArray, kind: str) -> bool:
    attrs = coordinate.attrs
    units = str(attrs.get("units", "")).replace(" ", "_").lower()
    if "standard_name" in attrs:  # grid_latitude and projection_y_coordinate are something else
        return bool(attrs["standard_name"] == kind)
    if units in _UNITS[kind]:
        return True
    if units and not units.startswith("deg"):
        return False
    if any(units in _UNITS[other] for other in _UNITS):
        return False
    if str(coordinate.name).lower() in _NAMES[kind]:
        return True
    return bool(units) and attrs.get("axis") == _LETTER[kind]


def _degrees(coordinate: xr.DataArray) -> NDArray[np.float64]:
    values = coordinate.to_numpy().astype(np.float64)
    if len(values) < 2:
        raise ValueError(f"{coordinate.name} has {len(values)} value; a grid needs at least 2")
    if not np.isfinite(values).all():
        raise ValueError(f"{coordinate.name} has values that are not finite")
    return values


def _southward(coordinate: xr.DataArray) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    values, name = _degrees(coordinate), coordinate.name
    steps = np.diff(values)
    if (steps < 0).all():
        rows = np.arange(len(values))
    elif (steps > 0).all():
        rows = np.arange(len(values))[::-1].copy()
    elif len(np.unique(values)) < len(values):
        twice = sorted({float(v) for v in values if (values == v).sum() > 1})
        raise ValueError(f"{name} has {twice[:5]} more than once; ds.drop_duplicates({name!r})")
    else:
        raise ValueError(f"{name} neither rises nor falls; sort it with ds.sortby({name!r})")
    return rows, values[rows]


def _eastward(coordinate: xr.DataArray) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    values, name = _degrees(coordinate), coordinate.name
    turns = np.floor((values + _NOISE) / 360)
    wrapped = values - 360 * turns
    order = np.argsort(wrapped, kind="stable")
    gaps = np.diff(wrapped[order], append=wrapped[order[0]] + 360)
    if gaps.min() < _NOISE / 10:
        twin = order[[int(gaps.argmin()), (int(gaps.argmin()) + 1) % len(order)]]
        raise ValueError(
            f"{name} has the same meridian twice, {values[twin[0]]:g} and {values[twin[1]]:g}; "
            f"drop one of the columns with ds.isel({name}=slice(None, -1))"
        )
    # a region begins behind the widest gap; a globe has none that is wider than the others
    region = gaps.max() > 1.5 * gaps.min()
    begin = (int(gaps.argmax()) + 1) % len(order) if region else 0
    turns[order[:begin]] -= 1
    order = np.roll(order, -begin)
    if region and wrapped[order[0]] >= 180:
        turns += 1
    return order, (values - 360 * turns)[order]
