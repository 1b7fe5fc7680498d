"""Reports from tables of observations: a ``pandas.DataFrame``, or an ``xarray.Dataset`` of stations or of rows."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from sciffusion.errors import did_you_mean

from .fields import Channel
from .grid import Grid
from .observations import Points
from .observed import Report
from .times import Times, calendar_of, microseconds, show
from .units import conversion, same_units

__all__ = ["read_stations"]

_OTHER_NAMES = {"latitude": "lat", "longitude": "lon"}


def read_stations(
    table: pd.DataFrame | xr.Dataset,
    grid: Grid,
    channels: Sequence[Channel],
    times: Times,
    *,
    std: float | Mapping[str, float] | None = None,
    vectors: Sequence[bool] | None = None,
    known: Tensor | None = None,
    within: np.timedelta64 | None = None,
    units: Sequence[str | None] | None = None,
) -> tuple[Report, ...]:
    """One report for every time of the window and every channel that is observed then, under the channel's name.

    A table has a row per observation: ``time``, ``lat``, ``lon`` (or latitude, longitude; either count of longitudes),
    ``variable`` (or a channel's whole name, "t:850"), ``level`` where there are levels, ``value`` in the units of the
    fields, and ``std``; a column ``units`` says so. A dataset holds such columns, or a variable for each one observed,
    with its units, over stations with lat and lon, and times. Where no units are named, those of the fields are meant.
    Values that are NaN are missing: they are left out, and a warning says how many.

    Args:
        grid, channels, times: of the states that are to be found.
        std: deviation of the errors where there is no such column: a number, or one for each channel's name or
            variable.
        vectors, known: as :class:`.observations.Points` takes them.
        within: the farthest that an observation's time may lie from a state's, to which it then counts; by default half
            the shortest spacing of ``times``, or nothing for one time.
        units: of the channels, to compare those of the observations with.

    Raises:
        ValueError: for missing columns, unknown variables or levels, times and places outside the window and the grid
            (by their coordinates), other units, infinite values, and errors that are unknown or not positive.
    """
    rows = _table(table, channels)
    absent = [k for k in ("time", "lat", "lon", "variable", "value") if k not in rows]
    if absent:
        raise ValueError(f"table has no column {absent}; it has {sorted(map(str, rows.columns))}")
    value = rows["value"].to_numpy(dtype=np.float64)
    missing = np.isnan(value)
    if missing.all():
        raise ValueError("table holds no observation (no rows, or all values are NaN)")
    if missing.any():
        warnings.warn(
            f"{missing.sum()} of {len(rows)} observations are NaN and left out", stacklevel=2
        )
        rows, value = rows[~missing], value[~missing]
    if np.isinf(value).any():
        raise ValueError(f"value is infinite in {int(np.isinf(value).sum())} rows of the table")
    channel = _channel(rows, channels)
    if units is not None and "units" in rows:
        _check_units(rows["units"], channel, channels, units)
    step = _step(_times(rows["time"], times), times, within)
    deviation = _deviation(rows, channel, channels, std)
    lat, lon = (rows[k].to_numpy(dtype=np.float64) for k in ("lat", "lon"))
    out = []
    for k, c in sorted(set(zip(step.tolist(), channel.tolist(), strict=True))):
        here = (step == k) & (channel == c)
        points = Points(grid, lat[here], lon[here], c, vectors=vectors, known=known)
        y, errors = (torch.from_numpy(x[here]) for x in (value, deviation))
        out.append(Report(points, y, errors, k, channels[c].name))
    return tuple(out)


def _table(table: pd.DataFrame | xr.Dataset, channels: Sequence[Channel]) -> pd.DataFrame:
    """The rows of a table, with the names of columns that :func:`read_stations` lists."""
    if isinstance(table, xr.Dataset) and "value" not in table:
        names = {c.variable for c in channels} | {c.name for c in channels}
        seen = [v for v in table.data_vars if v in names]
        if not seen:
            raise ValueError(
                f"table has neither a variable 'value' nor any of {sorted(names)}; it has "
                f"{sorted(map(str, table.data_vars))}"
            )
        parts = [
            table[v]
            .to_dataframe(name="value")
            .reset_index()
            .assign(variable=v, units=table[v].attrs.get("units"))
            for v in seen
        ]
        rows = pd.concat(parts, ignore_index=True)
    elif isinstance(table, xr.Dataset):
        rows = table.to_dataframe().reset_index()
    else:
        rows = table
    return rows.rename(columns=_OTHER_NAMES)


def _channel(rows: pd.DataFrame, channels: Sequence[Channel]) -> NDArray[np.int64]:
    """The index of every row's channel."""
    known = {(c.variable, c.level): i for i, c in enumerate(channels)}
    known |= {(c.name, None): i for i, c in enumerate(channels)}
    levels = (
        rows["level"].to_numpy(dtype=np.float64) if "level" in rows else np.full(len(rows), np.nan)
    )
    keys = [
        (str(v), None if np.isnan(l) else float(l))
        for v, l in zip(rows["variable"], levels, strict=True)
    ]
    # a level given beside a variable that has none in the fields, or within its name, says nothing new
    keys = [k if k in known or (k[0], None) not in known else (k[0], None) for k in keys]
    wrong = sorted({k for k in keys if k not in known}, key=str)
    if wrong:
        names = [c.name for c in channels]
        first = wrong[0][0] if wrong[0][1] is None else f"{wrong[0][0]}:{wrong[0][1]:g}"
        raise ValueError(
            f"variable {first!r} is observed, but the fields have {names}. {did_you_mean(first, names)}"
        )
    return np.array([known[k] for k in keys], dtype=np.int64)


def _check_units(
    column: pd.Series,
    channel: NDArray[np.int64],
    channels: Sequence[Channel],
    units: Sequence[str | None],
) -> None:
    for c, given in sorted(set(zip(channel.tolist(), column.astype(object), strict=True)), key=str):
        wanted = units[c]
        if not isinstance(given, str) or not wanted or same_units(given, wanted):
            continue
        formula = conversion(given, wanted)
        how = (
            f"convert value, {formula.replace('x', 'value', 1)}, and std with it"
            if formula
            else "no factor leads there"
        )
        raise ValueError(
            f"{channels[c].name} is observed in {given!r}, and the fields are in {wanted!r}: {how}"
        )


def _times(column: pd.Series, reference: Times) -> Times:
    """Times of the kind that the states have; text is read, and zones are turned into UTC."""
    if reference.dtype.kind == "M" and calendar_of(column.to_numpy()) in (
        None,
        "proleptic_gregorian",
    ):
        utc = pd.to_datetime(column, utc=True, format="ISO8601").dt.tz_localize(None)
        if utc.isna().any():
            raise ValueError(f"time is missing in {int(utc.isna().sum())} rows of the table")
        return np.asarray(utc.to_numpy())
    times = column.to_numpy()
    have, want = calendar_of(times), calendar_of(reference)
    if have != want:
        raise ValueError(f"time has the calendar {have!r}, the fields have {want!r}")
    return times


def _step(
    observed: NDArray[np.generic], times: Times, within: np.timedelta64 | None
) -> NDArray[np.int64]:
    """The state to which every observation counts."""
    states = microseconds(times, times[0])
    at = microseconds(observed, times[0])
    apart = np.abs(at[:, None] - states)
    nearest = apart.argmin(1)
    spacing = np.diff(np.sort(states))
    limit = int(spacing.min()) // 2 if len(spacing) else 0
    if within is not None:
        limit = int(within / np.timedelta64(1, "us"))
    far = apart.min(1) > limit
    if far.any():
        raise ValueError(
            f"{far.sum()} observations, the first of {show(observed[far][0])}, are more than "
            f"{limit / 3.6e9:g} hours from any of the {len(times)} states between {show(times[0])} and "
            f"{show(times[-1])}; leave them out, widen the window, or give within"
        )
    return nearest


def _deviation(
    rows: pd.DataFrame,
    channel: NDArray[np.int64],
    channels: Sequence[Channel],
    std: float | Mapping[str, float] | None,
) -> NDArray[np.float64]:
    if "std" in rows:
        return rows["std"].to_numpy(dtype=np.float64)
    if std is None:
        raise ValueError(
            "table has no column 'std'; give std, the deviation of the observations' errors"
        )
    if not isinstance(std, Mapping):
        return np.full(len(rows), float(std))
    each = [std.get(c.name, std.get(c.variable, np.nan)) for c in channels]
    unknown = sorted({channels[c].name for c in channel if np.isnan(each[c])})
    if unknown:
        raise ValueError(f"std has no entry for {unknown}, which are observed")
    return np.array(each, dtype=np.float64)[channel]
