"""Forecasts that go to disk step by step, survive being killed, and go on where they stopped.

A writer is told whose forecast it is (model, seed, members, initial time: the *identity*), which is kept in the
attributes of the file, and is given datasets that follow one another along one dimension. At every moment the disk
holds a number of whole steps, :attr:`ForecastWriter.done`; what a killed process had half written is not counted, and
is overwritten. Memory holds one step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import final

import numpy as np
import xarray as xr

from .stores import NetCDFStore, Store, ZarrStore

__all__ = ["ForecastWriter"]

_IDENTITY = "forecast"
"""The attribute of the file that holds the identity, as JSON."""


@final
class ForecastWriter:
    """Append to ``path``, a Zarr store (.zarr) or a NetCDF file (.nc), along ``dim``, in the forecast of ``identity``.

    >>> with ForecastWriter("forecast.nc", {"model": "speedy", "seed": 0}) as out:     # doctest: +SKIP
    ...     for step in range(out.done, steps):
    ...         out.append(forecast_of(step))

    A Zarr store can be read while it grows. The steps of a NetCDF file lie in a hidden folder beside it until the block
    ends without an exception, or :meth:`finish` is called; then the file appears at once, in place of an older one with
    fewer steps. A finished forecast may be continued too.

    Raises ``ValueError`` for another suffix, and if ``path`` holds another forecast, or none that a writer made.
    """

    def __init__(
        self,
        path: str | Path,
        identity: Mapping[str, str | int | float | bool | None],
        *,
        dim: str = "time",
    ) -> None:
        self.path, self.dim = Path(path), dim
        self.identity = json.loads(json.dumps(dict(identity)))
        stores: dict[str, type[Store]] = {".zarr": ZarrStore, ".nc": NetCDFStore}
        if self.path.suffix not in stores:
            raise ValueError(f"path must end in .zarr or .nc, got {self.path.name!r}")
        self._store = stores[self.path.suffix](self.path, dim)
        self._last: xr.Dataset | None = None
        found = self._store.attributes()
        if found is not None:
            self._check_identity(found.get(_IDENTITY))
            self._store.trim()
            self._last = self.tail(1)

    @property
    def done(self) -> int:
        """How many steps along ``dim`` are whole on the disk."""
        return self._store.done

    def append(self, ds: xr.Dataset) -> None:
        """Write the next steps. When this returns they are on the disk.

        Raises ``ValueError`` if variables, dtypes or other dimensions are not those of the steps before, if ``dim``
        does not go on rising, and for times with fractions of a second, which the file would round.
        """
        self._check_next(ds)
        attrs = {**ds.attrs, _IDENTITY: json.dumps(self.identity, sort_keys=True)}
        plain = ds.drop_encoding().assign_attrs(attrs)
        self._store.append(plain)
        self._last = plain.isel({self.dim: slice(-1, None)})

    def tail(self, count: int) -> xr.Dataset:
        """The last ``count`` whole steps, in memory: where a rollout goes on. ``ValueError`` if there are fewer."""
        if not 0 < count <= self.done:
            raise ValueError(
                f"count must lie in 1..{self.done}, the number of whole steps, got {count}"
            )
        return self._store.tail(count)

    def finish(self) -> None:
        """Make the file at ``path`` complete. Raises ``ValueError`` if there is no step."""
        if not self.done:
            raise ValueError(f"nothing was appended to {self.path}")
        self._store.finish()

    def __enter__(self) -> ForecastWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.finish()

    def _check_identity(self, text: object) -> None:
        if not isinstance(text, str):
            raise ValueError(
                f"{self.path} is there, and is no forecast that a writer made; give another path"
            )
        theirs = json.loads(text)
        keys = [k for k in {**theirs, **self.identity} if theirs.get(k) != self.identity.get(k)]
        if keys:
            both = ", ".join(f"{k} {theirs.get(k)!r}, not {self.identity.get(k)!r}" for k in keys)
            raise ValueError(
                f"{self.path} holds another forecast: its {both}; give another path, or delete it"
            )

    def _check_next(self, ds: xr.Dataset) -> None:
        dim = self.dim
        if dim not in ds.dims or dim not in ds.coords:
            raise ValueError(
                f"ds needs the dimension {dim!r} with a coordinate; it has {dict(ds.sizes)}"
            )
        for name, c in ds.variables.items():
            if _fraction_of_second(c):
                raise ValueError(f"{name} has fractions of a second, which the file would round")
        here = ds[dim].to_numpy()
        old = self._last
        before = here[:0] if old is None else old[dim].to_numpy()
        line = np.concatenate([before, here])
        if not len(here) or not bool(np.all(line[1:] > line[:-1])):
            raise ValueError(
                f"{dim} must go on rising"
                + ("" if old is None else f" from {before[-1]}, the last step on the disk")
                + f"; got {here[:1]}"
            )
        if old is not None and _structure(ds, dim) != _structure(old, dim):
            raise ValueError(
                f"ds is {_structure(ds, dim)}; the steps before it are {_structure(old, dim)}"
            )


def _structure(ds: xr.Dataset, dim: str) -> dict[str, object]:
    return {
        str(name): (str(v.dtype), {str(d): "..." if d == dim else v.sizes[d] for d in v.dims})
        for name, v in sorted(ds.data_vars.items(), key=lambda item: str(item[0]))
    }


def _fraction_of_second(variable: xr.Variable) -> bool:
    if variable.dtype.kind in "mM":
        values = variable.to_numpy()
        return bool((values != values.astype(f"{values.dtype.kind}8[s]")).any())
    if variable.dtype == object:
        return any(getattr(v, "microsecond", 0) for v in variable.to_numpy().reshape(-1))
    return False
