"""A user's dataset held against a model: the same variables and units, the same grid, wherever its longitudes begin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike
from torch import Tensor

from .fields import Fields
from .frame import Frame
from .grid import Grid
from .units import check_units

__all__ = ["Fitted", "fit", "refined", "template", "turn_to"]


@final
@dataclass(frozen=True, eq=False)
class Fitted:
    """Fields in the order of a model's channels and columns: theirs, rolled by ``turn``."""

    fields: Fields
    grid: Grid
    turn: int

    def read(self, indices: ArrayLike) -> Tensor:
        """As :meth:`Fields.read`."""
        return self.fields.read(indices).roll(self.turn, -1)

    def dataset(self, values: Tensor, times: ArrayLike) -> xr.Dataset:
        """As :meth:`Fields.dataset`."""
        return self.fields.dataset(values.roll(-self.turn, -1), times)


def fit(frame: Frame, ds: xr.Dataset, grid: Grid | None = None) -> Fitted:
    """The model's variables of a dataset, on the model's grid (or on ``grid``, where coarse data are wanted).

    Raises ``ValueError`` for variables or levels that are missing, units other than those that the model was trained
    on, and another grid.
    """
    fields = Fields.of(ds, frame.names)
    check_units(frame.names, fields.units, frame.units)
    grid = grid or frame.grid
    if grid is None:
        return Fitted(fields, fields.grid, 0)
    return Fitted(fields, grid, turn_to(fields.grid, grid))


def turn_to(found: Grid, wanted: Grid) -> int:
    """The number of columns by which ``found`` is rolled to be ``wanted``. Raises ``ValueError`` for another grid."""
    if found.shape == wanted.shape and bool((found.lat - wanted.lat).abs().max() < 1e-2):
        difference = torch.remainder(found.lon[None] - wanted.lon[0] + 180, 360) - 180
        turn = int(-difference.abs().argmin()) % len(found.lon)
        gap = torch.remainder(found.lon.roll(turn) - wanted.lon + 180, 360) - 180
        if bool(gap.abs().max() < 1e-2):
            return turn
    raise ValueError(
        f"ds is on another grid than the model: {_shown(found)} instead of {_shown(wanted)}; interpolate or select"
    )


def _shown(grid: Grid) -> str:
    (h, w), lat, lon = grid.shape, grid.lat, grid.lon
    return f"{h} x {w} cells from {lat[0]:.2f}N {lon[0]:.2f}E to {lat[-1]:.2f}N {lon[-1]:.2f}E"


def template(frame: Frame, times: ArrayLike) -> xr.Dataset:
    """A dataset of the model's variables and grid at these times, to be filled: time, (level,) lat, lon.

    Raises ``ValueError`` for a model that knows no grid.
    """
    if frame.grid is None:
        raise ValueError(
            "this model serves any grid and knows none; give it data on the grid that is wanted"
        )
    names = dict.fromkeys(name.split(":")[0] for name in frame.names)
    levels = {
        v: [float(n.split(":")[1]) for n in frame.names if n.split(":")[0] == v and ":" in n]
        for v in names
    }
    units = {n.split(":")[0]: u for n, u in zip(frame.names, frame.units, strict=True)}
    coords: dict[str, object] = {
        "time": np.atleast_1d(np.asarray(times)),
        "lat": (
            "lat",
            frame.grid.lat.numpy(),
            {"units": "degrees_north", "standard_name": "latitude"},
        ),
        "lon": (
            "lon",
            frame.grid.lon.numpy(),
            {"units": "degrees_east", "standard_name": "longitude"},
        ),
    }
    variables = {}
    for name in names:
        dims = ["time", *(["level"] if levels[name] else []), "lat", "lon"]
        if levels[name]:
            coords["level"] = levels[name]
        sizes = [
            len(np.atleast_1d(np.asarray(times))),
            *([len(levels[name])] if levels[name] else []),
            *frame.grid.shape,
        ]
        empty = np.broadcast_to(np.float32(0), sizes)
        variables[name] = (dims, empty, {"units": units[name]} if units[name] else {})
    return xr.Dataset(variables, coords)


def refined(ds: xr.Dataset, coarse: Fields, grid: Grid) -> xr.Dataset:
    """A dataset like ``ds`` on a finer grid, to be filled: the same dimensions, attributes and order of coordinates."""
    axes = coarse.axes
    lat, lon = grid.lat.numpy(), grid.lon.numpy()
    old_lat, old_lon = (np.asarray(ds[n]) for n in (axes.latitude, axes.longitude))
    if len(old_lat) > 1 and old_lat[0] < old_lat[-1]:
        lat = lat[::-1]
    if old_lon.min() < 0 or lon.max() < old_lon.min():
        lon = np.sort((lon + 180) % 360 - 180) if grid.circular else (lon + 180) % 360 - 180
    elif lon.max() >= 360 and old_lon.max() < 360 and grid.circular:
        lon = np.sort(lon % 360)
    sizes = {axes.latitude: len(lat), axes.longitude: len(lon)}
    variables = {}
    for name in coarse.variables:
        v = ds[name].variable
        shape = [sizes.get(str(d), v.sizes[d]) for d in v.dims]
        variables[name] = xr.Variable(v.dims, np.broadcast_to(v.dtype.type(0), shape), v.attrs)
    coords = {k: c.variable for k, c in ds.coords.items() if not set(c.dims) & set(sizes)}
    coords[axes.latitude] = xr.Variable(
        axes.latitude, lat.astype(old_lat.dtype), ds[axes.latitude].attrs
    )
    coords[axes.longitude] = xr.Variable(
        axes.longitude, lon.astype(old_lon.dtype), ds[axes.longitude].attrs
    )
    return xr.Dataset(variables, coords, ds.attrs)
