"""Ensembles and truths laid over each other: which dimensions are space, where cells are, which times are meant."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from datetime import timedelta
from typing import TypeVar

import numpy as np
import pandas as pd
import xarray as xr

from .axes import Axes
from .grid import Grid
from .units import conversion, same_units

__all__ = [
    "LEADS",
    "MEMBER",
    "TIME",
    "Data",
    "Dims",
    "area_weights",
    "average",
    "axes_of",
    "each",
    "lead_dim",
    "lead_hours",
    "match",
    "space_dims",
    "units_of",
    "valid_truth",
]

Data = TypeVar("Data", xr.DataArray, xr.Dataset)
Dims = Sequence[Hashable] | None

MEMBER, TIME = "member", "time"
LEADS = ("prediction_timedelta", "lead", "lead_time", "step")

_HOURS = {"hours": 1.0, "hour": 1.0, "h": 1.0, "days": 24.0, "day": 24.0, "minutes": 1 / 60}


def axes_of(data: xr.DataArray) -> Axes | None:
    """Where latitudes and longitudes lie; None for a projected map, with dimensions "y" and "x" and equal cells.

    Raises ``ValueError`` for data with neither.
    """
    projected = {"y", "x"} <= set(data.dims)
    try:
        return Axes.of(data)
    except ValueError:
        if projected:
            return None
        raise


def space_dims(data: xr.DataArray) -> tuple[str, str]:
    """The dimensions of latitude and longitude, or "y" and "x"; raises ``ValueError`` for data with neither."""
    axes = axes_of(data)
    return ("y", "x") if axes is None else (axes.latitude, axes.longitude)


def lead_dim(data: xr.DataArray) -> Hashable | None:
    """The dimension of the lead time, if there is one."""
    return next((d for d in data.dims if d in LEADS), None)


def lead_hours(lead: xr.DataArray) -> list[float]:
    """Lead times in hours: of time differences, or of numbers with units (hours without)."""
    if np.issubdtype(lead.dtype, np.timedelta64):
        return [float(h) for h in (lead.values / np.timedelta64(1, "s")) / 3600]
    units = str(lead.attrs.get("units", "hours"))
    if units not in _HOURS:
        raise ValueError(
            f"the coordinate {lead.name!r} has units {units!r}; lead times are time differences, or numbers in "
            f"{', '.join(_HOURS)}"
        )
    return [float(h) * _HOURS[units] for h in lead.values]


def area_weights(data: xr.DataArray) -> xr.DataArray:
    """The area of each row of cells, mean 1, along the latitude of ``data``: see `Grid.area`; 1 on projected maps."""
    axes = axes_of(data)
    if axes is None:
        return xr.DataArray(np.ones(data.sizes["y"]), dims=("y",), name="area")
    weights = np.empty(len(axes.rows))
    weights[axes.rows] = Grid.of(data).area.numpy()[:, 0]
    row = axes.latitude
    coords = {row: data[row]} if row in data.coords else None
    return xr.DataArray(weights, coords, (row,), name="area")


def average(data: Data, dim: Dims = None) -> Data:
    """The area-weighted mean over ``dim``, missing cells left out.

    None takes time and the two dimensions of space, those that are there, and members; leads and levels stay.
    """
    return each(lambda field, _: _average(field, dim), data, data)


def _average(data: xr.DataArray, dim: Dims) -> xr.DataArray:
    if dim is None:
        dim = [d for d in (TIME, MEMBER, *space_dims(data)) if d in data.dims]
    if absent := [str(d) for d in dim if d not in data.dims]:
        raise ValueError(
            f"dim names {absent}, which {_called(data)} lacks; it has {tuple(map(str, data.dims))}"
        )
    if not list(dim):
        return data
    if set(dim) <= {TIME, MEMBER, *LEADS} or space_dims(data)[0] not in dim:
        return data.mean(dim, keep_attrs=True)
    return data.weighted(area_weights(data)).mean(dim, keep_attrs=True)


def each(of: Callable[[xr.DataArray, xr.DataArray], xr.DataArray], a: Data, b: Data) -> Data:
    """``of`` two arrays, or of every variable of the first data set and its namesake in the second.

    Raises ``ValueError`` for a variable that the second lacks, and for an array beside a data set.
    """
    if isinstance(a, xr.DataArray) and isinstance(b, xr.DataArray):
        return of(a, b)
    if isinstance(a, xr.DataArray) or isinstance(b, xr.DataArray):
        raise ValueError(
            f"the ensemble is a {type(a).__name__}, the truth a {type(b).__name__}; give two of a kind"
        )
    if absent := [str(name) for name in a.data_vars if name not in b]:
        raise ValueError(
            f"the truth has no variable {absent}; it has {sorted(map(str, b.data_vars))}: select or rename"
        )
    return xr.Dataset({name: of(a[name], b[name]) for name in a.data_vars}, attrs=a.attrs)


def match(ensemble: xr.DataArray, truth: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """The two with the same coordinates: the truth is cut, turned and read at valid times to fit the ensemble.

    Coordinates that differ by rounding count as the same. Raises ``ValueError`` where the truth has members, other
    units or the same time twice, or lacks dimensions, places or times of the ensemble.
    """
    if MEMBER in truth.dims:
        raise ValueError(f"the truth has a dimension {MEMBER!r}: select one of its members")
    ours, theirs = units_of(ensemble), units_of(truth)
    if ours and theirs and not same_units(ours, theirs):
        way = conversion(ours, theirs)
        raise ValueError(
            f"{_called(ensemble)} is in {ours!r}, its truth in {theirs!r}: convert one of them"
            + (f" (from the first to the second: {way})" if way else "")
        )
    lead = lead_dim(ensemble)
    if lead is not None and lead not in truth.dims:
        truth = valid_truth(truth, ensemble)
    wanted = [d for d in ensemble.dims if d != MEMBER]
    if set(wanted) != set(truth.dims):
        raise ValueError(
            f"the ensemble has dimensions {tuple(map(str, wanted))} and members, the truth "
            f"{tuple(map(str, truth.dims))}; they must be the same but for the members"
        )
    for dim in wanted:
        truth = _fit(truth, ensemble, dim)
    return ensemble, truth.transpose(*wanted)


def valid_truth(truth: xr.DataArray, ensemble: xr.DataArray) -> xr.DataArray:
    """The truth (time, ...) at every initial time + lead of the ensemble, with the dimensions of the two.

    Raises ``ValueError`` for an ensemble without initial times, and for valid times that the truth lacks.
    """
    lead = lead_dim(ensemble)
    if lead is None or TIME not in ensemble.dims:
        raise ValueError(
            f"the ensemble needs the dimensions {TIME!r} (initial times) and a lead time"
        )
    starts, known = ensemble.indexes[TIME], _unique(truth, TIME)
    parts = []
    for hours in lead_hours(ensemble[lead]):
        valid = starts + timedelta(hours=hours)
        if len(late := valid.difference(known)):
            raise ValueError(
                f"the truth lacks {len(late)} valid times at lead {hours:g} h, the first of them {late[0]}; give "
                f"more of the truth, or fewer initial times (those up to {known[-1] - timedelta(hours=hours)})"
            )
        parts.append(truth.sel({TIME: valid}).assign_coords({TIME: ensemble[TIME]}))
    return xr.concat(parts, ensemble[lead].variable.to_index_variable()).assign_attrs(truth.attrs)


def _fit(truth: xr.DataArray, ensemble: xr.DataArray, dim: Hashable) -> xr.DataArray:
    """The truth at the ensemble's labels of one dimension."""
    if dim not in ensemble.coords or dim not in truth.coords:
        if ensemble.sizes[dim] != truth.sizes[dim]:
            raise ValueError(
                f"{str(dim)!r} has {ensemble.sizes[dim]} entries in the ensemble, {truth.sizes[dim]} in the truth, "
                "and no coordinate that says which belong together"
            )
        return truth
    ours, theirs = ensemble.indexes[dim], _unique(truth, dim)
    if ours.equals(theirs):
        return truth
    if ours.dtype.kind in "fiu" and theirs.dtype.kind in "fiu":
        at = _nearest(np.asarray(ours, float), np.asarray(theirs, float))
    else:
        at = theirs.get_indexer(ours)
    if (at < 0).any():
        lost = ours[at < 0]
        raise ValueError(
            f"the truth lacks {len(lost)} of the {len(ours)} entries of {str(dim)!r} in the ensemble, the first of "
            f"them {lost[0]}; bring both to the same grid, times and longitude convention"
        )
    return truth.isel({dim: at}).assign_coords({dim: ensemble[dim]})


def _unique(truth: xr.DataArray, dim: Hashable) -> pd.Index:
    labels = truth.indexes[dim]
    if not labels.is_unique:
        twice = labels[labels.duplicated()][0]
        raise ValueError(
            f"the truth has {str(dim)} {twice} more than once; truth.drop_duplicates({str(dim)!r})"
        )
    return labels


def _nearest(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Where ours lie in theirs, -1 where they do not; numbers in float32 and float64 are the same."""
    gaps = np.abs(ours[:, None] - theirs)
    tolerance = 1e-4 * max(float(np.ptp(ours)) / max(len(ours) - 1, 1), 1e-6)
    return np.where(gaps.min(1) <= tolerance, gaps.argmin(1), -1)


def units_of(data: xr.DataArray) -> str:
    """The units, empty if they are not known."""
    return str(data.attrs.get("units", ""))


def _called(data: xr.DataArray) -> str:
    return f"the field {str(data.name)!r}" if data.name is not None else "the field"
