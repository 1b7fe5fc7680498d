"""Times of either kind that xarray knows: numpy's datetime64, and cftime's calendars (noleap, 360_day ...).

Differences are counted in whole microseconds, in the calendar of the data.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from sciffusion.errors import require

__all__ = [
    "Times",
    "Unit",
    "calendar_of",
    "check_times",
    "clock",
    "like",
    "microseconds",
    "shift",
    "show",
    "ticks",
    "time_of",
]

Times = NDArray[Any]
"""One-dimensional, of datetime64 or of cftime objects (dtype object)."""

Unit = Literal["hour", "month"]
"""What steps in time are counted in. Months are those of the calendar; a date stands for its month."""

_HOUR = 3_600_000_000


def calendar_of(times: Times) -> str | None:
    """The calendar of an array of times; None if it holds none. Numpy's own is proleptic_gregorian."""
    if times.dtype.kind == "M":
        return "proleptic_gregorian"
    first = times.reshape(-1)[0] if times.dtype == object and times.size else None
    return getattr(first, "calendar", None)


def like(times: ArrayLike, reference: Times) -> Times:
    """``times`` as a vector of the kind that ``reference`` is, whose resolution it takes; text is in ISO form.

    Raises ``ValueError`` for times of another calendar, and if the resolution cannot hold them.
    """
    if reference.dtype.kind == "M":
        given = np.atleast_1d(np.asarray(times))
        if given.dtype == object and getattr(given.reshape(-1)[0], "calendar", None) is not None:
            raise ValueError("times are cftime objects, those of the data are datetime64")
        exact = given.astype("datetime64[ns]") if given.dtype.kind != "M" else given
        out = exact.astype(reference.dtype)
        if (out != exact).any():
            raise ValueError(f"times are finer than the {reference.dtype} of the data")
        return out
    given = np.atleast_1d(np.asarray(times, dtype=object))
    wanted = calendar_of(reference)
    given = np.array([_date(t, reference[0]) if isinstance(t, str) else t for t in given], object)
    wrong = [t for t in given if getattr(t, "calendar", None) != wanted]
    if wrong:
        raise ValueError(
            f"times must be cftime objects of the calendar {wanted!r}, as in the data; got "
            f"{wrong[0]!r}"
        )
    return given


def _date(text: str, kind: Any) -> Any:
    """A date in ISO form, from the day on, in the calendar of ``kind``. Raises ``ValueError`` for one it lacks."""
    cftime = require("cftime", extra="weather")
    whole = text.replace(" ", "T") + "0000-01-01T00:00:00"[len(text) :]
    date = cftime.datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S", calendar=kind.calendar)
    return type(kind)(*date.timetuple()[:6])


def microseconds(times: Times, origin: Any) -> NDArray[np.int64]:
    """Whole microseconds from ``origin``, an element of the same kind, to each of ``times``."""
    if times.dtype.kind == "M":
        since = times.astype("datetime64[us]") - np.datetime64(origin, "us")
        return np.asarray(since.astype(np.int64))
    unit = timedelta(microseconds=1)
    return np.array([(t - origin) // unit for t in times], dtype=np.int64)


def clock(times: Times, origin: Any, unit: Unit) -> NDArray[np.int64]:
    """Where ``times`` stand on the clock of a unit, in its :func:`ticks` since ``origin``, an element of the same kind.

    Raises ``ValueError`` for times of which two fall into one month, where months are counted.
    """
    if unit == "hour":
        return microseconds(times, origin)
    found = _months(times) - _months(np.array([origin], dtype=times.dtype))
    _, first, counts = np.unique(found, return_index=True, return_counts=True)
    if (counts > 1).any():
        several = show(times[first[counts > 1][0]])
        raise ValueError(
            f"unit 'month' wants one state a month, and there are several in that of {several}; average them with "
            "ds.resample(time='MS').mean()"
        )
    return found


def ticks(count: float, unit: Unit) -> int:
    """``count`` hours in microseconds, or months in months. Raises ``ValueError`` for a fraction of a month."""
    if unit == "hour":
        return round(count * _HOUR)
    if count != int(count):
        raise ValueError(f"months are counted whole, got {count}")
    return int(count)


def _months(times: Times) -> NDArray[np.int64]:
    """Months since the year 0 of the calendar."""
    if times.dtype.kind == "M":
        return np.asarray(times.astype("datetime64[M]").astype(np.int64)) + 12 * 1970
    return np.array([12 * t.year + t.month - 1 for t in times], dtype=np.int64)


def _month_later(time: Any, months: int) -> Any:
    """A cftime date so many months later, on the same day of the month, or its last if it has no such day."""
    year, month = divmod(12 * time.year + time.month - 1 + months, 12)
    first = time.replace(year=year, month=month + 1, day=1)
    return first.replace(day=min(time.day, first.daysinmonth))


def shift(times: Times, count: float, unit: Unit = "hour") -> Times:
    """``times`` moved by ``count`` hours, which may be negative or a fraction, or by whole months.

    A month later is the same day of the month, or its last if it has no such day.

    >>> shift(np.array(["2020-02-28T18"], "datetime64[ns]"), 12)
    array(['2020-02-29T06:00:00.000000000'], dtype='datetime64[ns]')
    >>> shift(np.array(["2020-01-31T18"], "datetime64[ns]"), 1, "month")
    array(['2020-02-29T18:00:00.000000000'], dtype='datetime64[ns]')
    """
    if unit == "month":
        return _shift_months(times, ticks(count, unit))
    step = ticks(count, unit)
    if times.dtype.kind == "M":
        grain = np.datetime_data(times.dtype)[0]
        whole = np.timedelta64(step, "us").astype(f"timedelta64[{grain}]")
        if whole != np.timedelta64(step, "us"):
            raise ValueError(f"{count} hours are no whole number of [{grain}], the unit of times")
        return np.asarray(times + whole)
    out = np.empty(times.shape, dtype=object)
    out[...] = times + timedelta(microseconds=step) if times.size else times
    return out


def _shift_months(times: Times, months: int) -> Times:
    if times.dtype.kind != "M":
        out = np.empty(times.shape, dtype=object)
        out[...] = [_month_later(t, months) for t in times]
        return out
    old = times.astype("datetime64[M]")
    new = old + np.timedelta64(months, "M")
    last = (new + np.timedelta64(1, "M")).astype("datetime64[D]") - np.timedelta64(1, "D")
    day = np.minimum(new.astype("datetime64[D]") + (times.astype("datetime64[D]") - old), last)
    return np.asarray(day.astype(times.dtype) + (times - times.astype("datetime64[D]")))


def show(time: Any) -> str:
    """A time as people write it, without the zeros of its fraction."""
    text = str(time).replace(" ", "T")
    return text.split(".")[0].removesuffix(":00")


def _is_time(coordinate: xr.DataArray) -> bool:
    return coordinate.dtype.kind == "M" or (
        coordinate.dtype == object
        and coordinate.size > 0
        and calendar_of(coordinate.to_numpy()) is not None
    )


def time_of(ds: xr.Dataset) -> str:
    """The dimension of time, or the scalar coordinate that shall become one.

    Raises ``ValueError`` if there is none, or several, or if its numbers were not decoded to dates.
    """
    along = [str(d) for d in ds.dims if d in ds.coords and _is_time(ds[d])]
    if len(along) > 1 and "time" in along:
        along = ["time"]
    if len(along) == 1:
        return along[0]
    if along:
        raise ValueError(
            f"ds has several dimensions of time, {along}; select one time of all but one"
        )
    for name in ("time", "valid_time"):
        if name in ds.dims:
            units = ds[name].attrs.get("units") if name in ds.coords else None
            raise ValueError(
                f"the dimension {name!r} of ds has no dates"
                + (f" but numbers, {units!r}: decode them with xr.decode_cf(ds)" if units else "")
            )
    scalar = [str(k) for k, c in ds.coords.items() if c.ndim == 0 and _is_time(c)]
    scalar = [k for k in ("time", "valid_time") if k in scalar] or scalar
    if not scalar:
        raise ValueError(
            "ds has no time: neither a dimension with dates nor a scalar coordinate; set one with "
            "ds.assign_coords(time=np.datetime64('2000-01-01', 'ns'))"
        )
    return scalar[0]


def check_times(times: Times, name: str) -> None:
    """Raise ``ValueError`` for times that are missing, repeated, or not in order."""
    if times.dtype.kind == "M" and np.isnat(times).any():
        raise ValueError(f"{name} has missing dates (NaT)")
    if not len(times):
        raise ValueError(f"{name} is empty")
    steps = np.diff(microseconds(times, times[0]))
    if (steps > 0).all():
        return
    twice = [show(t) for t, step in zip(times[1:], steps, strict=True) if step == 0]
    if twice:
        raise ValueError(
            f"{name} has {len(twice)} dates more than once, the first {twice[0]}; "
            f"ds.drop_duplicates({name!r})"
        )
    k = int(np.flatnonzero(steps < 0)[0])
    raise ValueError(
        f"{name} is not in order: {show(times[k])} is followed by {show(times[k + 1])}; "
        f"ds.sortby({name!r})"
    )
