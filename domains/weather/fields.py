"""The variables and levels of an ``xarray.Dataset`` as one stack of channels, read when asked, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import final

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .axes import Axes
from .grid import Grid
from .layout import Layout
from .naming import check_names, levels_named, without_other_levels
from .times import (
    Times,
    Unit,
    calendar_of,
    check_times,
    clock,
    like,
    microseconds,
    shift,
    show,
    ticks,
    time_of,
)

__all__ = ["Channel", "Fields"]


@final
@dataclass(frozen=True)
class Channel:
    """A variable, at one level if it has levels."""

    variable: str
    level: float | None

    @property
    def name(self) -> str:
        """The variable's name, with the level behind a colon: z500, t:850."""
        return self.variable if self.level is None else f"{self.variable}:{self.level:g}"


@final
@dataclass(frozen=True, eq=False)
class Fields:
    """Fields of a dataset at ``times``, to be read as float32 (n, C, H, W), north first and eastward.

    Make one with :meth:`of`. Nothing is read before :meth:`read` is called, and then only the times asked for: a
    dataset opened with dask or from a file may be larger than memory. Values pass through float32: 7 digits.
    """

    source: xr.Dataset
    layouts: tuple[Layout, ...]
    axes: Axes
    grid: Grid
    times: Times
    time: str
    channels: tuple[Channel, ...]
    _origin: xr.Dataset
    _at: NDArray[np.int64]
    _values: Tensor | None = None

    @staticmethod
    def of(ds: xr.Dataset, variables: Sequence[str] | None = None) -> Fields:
        """The fields of ``ds``: the named variables, or all that have latitude, longitude and time, in their order.

        A variable may have one more dimension with a numeric coordinate, whose entries become channels; "t:850" names
        one of them. So ``Fields.of(ds, fields.names)`` has the channels of ``fields``. A dataset without time
        dimension needs a scalar time coordinate, and gets a dimension.

        Raises ``ValueError`` for a variable that is missing or has other dimensions (members!), for axes that are
        missing or in disorder, and for times that are missing, repeated or in disorder. Gaps between times are allowed.
        """
        if not hasattr(ds, "data_vars"):
            raise ValueError(
                f"ds must be an xarray.Dataset, got {type(ds).__name__}; a DataArray becomes one "
                "with .to_dataset(name=...)"
            )
        wanted = None if variables is None else levels_named(ds, variables)
        chosen = ds if wanted is None else ds[list(wanted)]
        axes = Axes.of(chosen)
        time = time_of(chosen)
        if wanted is None:
            needed = {axes.latitude, axes.longitude} | ({time} if time in ds.dims else set())
            names = [
                str(name)
                for name, array in ds.data_vars.items()
                if needed <= set(array.dims) and array.dtype.kind in "fiub"
            ]
            if not names:
                raise ValueError(f"ds has no variable with the dimensions {sorted(needed)}")
            chosen = ds[names]
        if time not in chosen.dims:
            chosen = chosen.expand_dims(time)
        times = chosen[time].to_numpy()
        check_times(times, time)
        levels = wanted or {}
        layouts = tuple(
            Layout.of(array, time, axes, levels.get(str(name)))
            for name, array in chosen.data_vars.items()
        )
        chosen, layouts = without_other_levels(chosen, layouts)
        return Fields(
            source=chosen,
            layouts=layouts,
            axes=axes,
            grid=Grid.of(chosen),
            times=times,
            time=time,
            channels=tuple(Channel(x.name, level) for x in layouts for level in x.levels),
            _origin=ds,
            _at=np.arange(len(times)),
        )

    def __len__(self) -> int:
        return len(self.times)

    @property
    def names(self) -> tuple[str, ...]:
        """The channels' names: ("z500", "t:850", ...)."""
        return tuple(channel.name for channel in self.channels)

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables' names."""
        return tuple(layout.name for layout in self.layouts)

    @property
    def units(self) -> tuple[str | None, ...]:
        """The ``units`` attribute of each channel's variable, None where it has none."""
        return tuple(x.attrs.get("units") for x in self.layouts for _ in x.levels)

    @property
    def calendar(self) -> str:
        """The calendar of the times."""
        return str(calendar_of(self.times))

    @property
    def step(self) -> np.timedelta64:
        """The commonest difference between neighbours in time, the shortest of several; ``ValueError`` for one time."""
        if len(self) < 2:
            raise ValueError("the fields have one time, and so no step")
        steps, counts = np.unique(np.diff(self._clock), return_counts=True)
        return np.timedelta64(int(steps[counts.argmax()]), "us")

    @property
    def nbytes(self) -> int:
        """What all of it takes as float32, bytes."""
        return 4 * len(self) * len(self.channels) * self.grid.shape[0] * self.grid.shape[1]

    @cached_property
    def _clock(self) -> NDArray[np.int64]:
        return microseconds(self.times, self.times[0])

    def read(self, indices: ArrayLike) -> Tensor:
        """The fields at ``indices`` into times, in that order, repeated as asked: float32 (n, C, H, W); NaN stays.

        Raises ``ValueError`` for an index outside 0..len - 1 (none is counted from the end) and for infinite values.
        """
        at = self._at[self._check_indices(indices)]
        if self._values is not None:
            return self._values[torch.from_numpy(at)]
        unique, back = np.unique(at, return_inverse=True)
        out = torch.empty(len(unique), len(self.channels), *self.grid.shape)
        if not len(unique):
            return out
        dense = unique[-1] - unique[0] + 1 == len(unique)  # a slice reads faster than a list
        part = slice(unique[0], unique[-1] + 1) if dense else unique
        loaded, c = self.source.isel({self.time: part}).compute(), 0
        for layout in self.layouts:
            values = layout.unpack(loaded[layout.name], self.axes)
            out[:, c : c + len(layout.levels)] = torch.from_numpy(values)
            c += len(layout.levels)
        self._check_finite(out, self._times_of(unique))
        return out if np.array_equal(unique, at) else out[torch.from_numpy(back)]

    def cached(self, limit: int = 2**30) -> Fields:
        """The same fields, kept in memory if they take at most ``limit`` bytes; else these, which read when asked."""
        if self._values is not None or self.nbytes > limit:
            return self
        values = torch.empty(len(self), len(self.channels), *self.grid.shape)
        for a in range(0, len(self), 512):  # decoded values are often float64: not all at once
            block = np.arange(a, min(a + 512, len(self)))
            values[a : a + 512] = self.read(block)
        source = self.source.isel({self.time: self._at})
        return replace(self, source=source, _values=values, _at=np.arange(len(self)))

    def select(self, indices: slice | ArrayLike) -> Fields:
        """The fields at some of the times only: a slice, rising indices, or one truth value per time.

        Raises ``ValueError`` for indices that do not rise, and if none is left.
        """
        at: NDArray[np.int64] = np.arange(len(self))
        if isinstance(indices, slice):
            at = at[indices]
        elif np.asarray(indices).dtype == bool:
            at = at[np.asarray(indices)]
        else:
            at = self._check_indices(indices)
        if not len(at) or (np.diff(at) <= 0).any():
            raise ValueError("indices must rise and leave at least one time")
        return replace(self, times=self.times[at], _at=self._at[at])

    def starts(self, hours: Sequence[float], unit: Unit = "hour") -> NDArray[np.int64]:
        """The indices i for which times[i] + h exists for every h in ``hours``: a gap costs the starts around it.

        With ``unit="month"`` months are counted, and a date stands for its month: those of the fields need not be as
        many days apart. Raises ``ValueError`` for two dates in one month.
        """
        there = clock(self.times, self.times[0], unit)
        found = np.ones(len(there), dtype=bool)
        for h in hours:
            found &= np.isin(there + ticks(h, unit), there)
        return np.flatnonzero(found)

    def index(self, times: ArrayLike) -> NDArray[np.int64]:
        """Where ``times`` lie among the times. Raises ``ValueError`` that names the first that is not there."""
        wanted = like(times, self.times)
        clock = self._clock
        asked = microseconds(wanted, self.times[0])
        at = np.searchsorted(clock, asked)
        missing = np.flatnonzero(clock[np.minimum(at, len(clock) - 1)] != asked)
        if len(missing):
            k, i = missing[0], int(at[missing[0]])
            if 0 < i < len(clock):
                place = f"there is a gap from {show(self.times[i - 1])} to {show(self.times[i])}"
            else:
                place = f"they run from {show(self.times[0])} to {show(self.times[-1])}"
            raise ValueError(
                f"the fields have no time {show(wanted[k])} ({len(missing)} of {len(asked)} are "
                f"missing): {place}"
            )
        return at

    def at(
        self, indices: ArrayLike, hours: Sequence[float], unit: Unit = "hour"
    ) -> NDArray[np.int64]:
        """The indices of times[i] + h, (n, len(hours)). Raises ``ValueError`` as :meth:`index`; see :meth:`starts`."""
        at = self._check_indices(indices)
        if unit == "hour":
            return np.stack([self.index(shift(self.times[at], h)) for h in hours], 1)
        there = clock(self.times, self.times[0], unit)
        asked = there[at][:, None] + np.array([ticks(h, unit) for h in hours])
        found = np.searchsorted(there, asked).clip(max=len(there) - 1)
        if (there[found] != asked).any():
            raise ValueError(
                f"the fields lack {int((there[found] != asked).sum())} of the months asked for; they run from "
                f"{show(self.times[0])} to {show(self.times[-1])}"
            )
        return found

    def statics(self, names: Sequence[str]) -> Tensor:
        """Variables of the dataset that depend on latitude and longitude only: float32 (S, H, W); NaN stays.

        Raises ``ValueError`` for one that is missing, has other dimensions, or is infinite somewhere.
        """
        check_names(self._origin, names)
        out = torch.empty(len(names), *self.grid.shape)
        for k, name in enumerate(names):
            array = self._origin[name]
            if set(array.dims) != {self.axes.latitude, self.axes.longitude}:
                raise ValueError(
                    f"names: {name!r} has the dimensions {list(array.dims)}; a static variable has "
                    f"{self.axes.latitude!r} and {self.axes.longitude!r} only"
                )
            stored = array.transpose(self.axes.latitude, self.axes.longitude).to_numpy()
            out[k] = torch.from_numpy(self.axes.arrange(stored).astype(np.float32))
            if out[k].isinf().any():
                raise ValueError(f"names: {name!r} has infinite values")
        return out

    def mask(self, samples: int | None = None) -> Tensor:
        """The cells that hold a number at all times, (C, H, W) bool; with ``samples`` at so many times, evenly spread.

        Raises ``ValueError`` if a channel has no such cell.
        """
        n = len(self) if samples is None else min(max(samples, 1), len(self))
        at = np.linspace(0, len(self) - 1, n).round().astype(np.int64)
        valid = torch.ones(len(self.channels), *self.grid.shape, dtype=torch.bool)
        for block in np.array_split(at, -(-n // 64)):
            here = ~self.read(block).isnan()
            empty = (~here.flatten(2).any(2)).nonzero().tolist()
            if empty:
                i, c = empty[0]
                raise ValueError(
                    f"{self.names[c]} is NaN everywhere at {show(self.times[block[i]])}; leave that "
                    "time out with ds.sel or ds.dropna(dim, how='all'), or leave the variable out"
                )
            valid &= here.all(0)
        never = [name for name, cells in zip(self.names, valid, strict=True) if not cells.any()]
        if never:
            raise ValueError(f"{never} have no cell that is valid at all times")
        return valid

    def dataset(self, values: Tensor, times: ArrayLike) -> xr.Dataset:
        """``values`` (n, C, H, W), or (n, M, C, H, W) with members, at ``times`` (n,), in the structure of the source.

        Order of dimensions and coordinates, attributes, dtypes and calendar are those of the source; members come
        first, as dimension "member". Coordinates along time other than time itself come back where every time is one
        of the source. Numbers for integer variables are rounded, and kept within their range. Variables that are not
        among the channels, such as static ones, are left out.

        Raises ``ValueError`` for a wrong shape, for times of another calendar, and for NaN in integer variables.
        """
        times = like(times, self.times)
        want = (len(times), len(self.channels), *self.grid.shape)
        if values.ndim not in (4, 5) or (values.shape[0], *values.shape[-3:]) != want:
            raise ValueError(
                f"values must be {list(want)}, or with members behind the first dimension, "
                f"got {list(values.shape)}"
            )
        members = values.shape[1] if values.ndim == 5 else None
        stacked = values.detach().cpu().to(torch.float32)
        stacked = stacked if members is None else stacked.transpose(0, 1)
        variables, c = {}, 0
        for layout in self.layouts:
            part = stacked.narrow(-3, c, len(layout.levels)).numpy()
            variables[layout.name] = layout.pack(part, self.axes)
            c += len(layout.levels)
        coords = self._coordinates(times)
        if members is not None:
            coords["member"] = xr.Variable("member", np.arange(members))
        return xr.Dataset(variables, coords, attrs=self.source.attrs)

    def _coordinates(self, times: Times) -> dict[str, xr.Variable]:
        coords = {str(k): c.variable for k, c in self.source.coords.items()}
        along = [k for k, c in coords.items() if self.time in c.dims]
        clock = microseconds(self.source[self.time].to_numpy(), self.times[0])
        asked = microseconds(times, self.times[0])
        at = np.searchsorted(clock, asked)
        known = bool((clock[np.minimum(at, len(clock) - 1)] == asked).all())
        for name in along:
            if known and name != self.time:
                coords[name] = coords[name].isel({self.time: at})
            elif name != self.time:
                del coords[name]
        old = coords[self.time]
        kept = {k: v for k, v in old.encoding.items() if k in ("units", "calendar")}
        coords[self.time] = xr.Variable(self.time, times, old.attrs, kept)
        return coords

    def _times_of(self, at: NDArray[np.int64]) -> Times:
        return np.asarray(self.source[self.time].to_numpy()[at])

    def _check_indices(self, indices: ArrayLike) -> NDArray[np.int64]:
        at = np.atleast_1d(np.asarray(indices))
        if at.size == 0:
            return np.zeros(0, dtype=np.int64)
        if at.ndim != 1 or at.dtype.kind not in "iu":
            raise ValueError(f"indices must be a vector of integers, got {at.dtype} {at.shape}")
        if at.min() < 0 or at.max() >= len(self):
            raise ValueError(f"indices must lie in 0..{len(self) - 1}, got {at.min()}..{at.max()}")
        return at.astype(np.int64)

    def _check_finite(self, x: Tensor, times: Times) -> None:
        where = x.isinf()
        if where.any():
            n, c = where.flatten(2).any(2).nonzero()[0].tolist()
            raise ValueError(
                f"{self.names[c]} has infinite values (or such as float32 cannot hold) at "
                f"{show(times[n])}; mask them with ds.where(np.isfinite(ds))"
            )

    def __repr__(self) -> str:
        return (
            f"Fields({', '.join(self.names)}; {len(self)} times {show(self.times[0])}.."
            f"{show(self.times[-1])}; {self.grid})"
        )
