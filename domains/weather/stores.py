"""Files that hold a whole number of steps at every moment: a Zarr store that grows, and NetCDF in parts."""

from __future__ import annotations

import os
import shutil
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import xarray as xr

from sciffusion.errors import require
from sciffusion.io.atomic import atomic_write

__all__ = ["NetCDFStore", "Store", "ZarrStore"]

_DONE = "steps_done"
"""The attribute of a Zarr store that counts its whole steps."""


class Store(ABC):
    """Steps along ``dim`` in ``path``."""

    def __init__(self, path: Path, dim: str) -> None:
        self.path, self.dim = path, dim

    @property
    @abstractmethod
    def done(self) -> int:
        """How many steps are whole."""

    @abstractmethod
    def attributes(self) -> Mapping[str, Any] | None:
        """The attributes of what is there; None if nothing is, {} if it is no such store."""

    @abstractmethod
    def trim(self) -> None:
        """Remove what is there of steps that are not whole."""

    @abstractmethod
    def append(self, ds: xr.Dataset) -> None:
        """Write the next steps; whole when this returns."""

    @abstractmethod
    def tail(self, count: int) -> xr.Dataset:
        """The last ``count`` steps, loaded."""

    @abstractmethod
    def finish(self) -> None:
        """Bring the file to the form that readers expect."""


def _encoding(ds: xr.Dataset, dim: str, extra: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Times in whole seconds from the first; data variables as ``extra`` says."""
    out: dict[str, dict[str, Any]] = {}
    for key, v in ds.variables.items():
        name = str(key)
        dated = v.dtype.kind in "mMO" and v.size
        first: Any = v.to_numpy().reshape(-1)[:1] if dated else ()
        if v.dtype.kind == "m":
            out[name] = {"units": "seconds", "dtype": "int64"}
        elif v.dtype.kind == "M" or (len(first) and hasattr(first[0], "calendar")):
            start = str(first[0]).replace("T", " ").split(".")[0]
            out[name] = {"units": f"seconds since {start}", "dtype": "int64"}
            if hasattr(first[0], "calendar"):
                out[name]["calendar"] = first[0].calendar
        elif key in ds.data_vars and dim in v.dims and v.dtype.kind in "fiu":
            out[name] = dict(extra)
    return out


def _cells(ds: xr.Dataset, name: str, dim: str) -> tuple[int, ...]:
    """Chunks of one step: a step that is written touches no other's."""
    return tuple(1 if d == dim else n for d, n in ds[name].sizes.items())


@final
class ZarrStore(Store):
    """A store to which steps are appended; an attribute, written last, counts those that are whole."""

    def __init__(self, path: Path, dim: str) -> None:
        super().__init__(path, dim)
        require("zarr", extra="weather")
        self._done = int((self.attributes() or {}).get(_DONE, 0))
        self._whole = True

    @property
    def done(self) -> int:
        return self._done

    def _group(self, mode: str = "r+") -> Any:
        # the consolidated copy of the metadata may be older than the arrays
        zarr = require("zarr", extra="weather")
        return zarr.open_group(self.path, mode=mode, use_consolidated=False)

    def attributes(self) -> Mapping[str, Any] | None:
        if not self.path.exists():
            return None
        try:
            return dict(self._group("r").attrs)
        except FileNotFoundError:
            return {}

    def trim(self) -> None:
        for _, array in self._group().arrays():
            dims = array.metadata.dimension_names or ()
            if self.dim in dims and array.shape[dims.index(self.dim)] != self._done:
                shape = list(array.shape)
                shape[dims.index(self.dim)] = self._done
                array.resize(tuple(shape))
        self._whole = True

    def append(self, ds: xr.Dataset) -> None:
        count = ds.sizes[self.dim]
        if not self._done:
            self._create(ds.assign_attrs({_DONE: count}))
            self._done = count
            return
        if not self._whole:
            self.trim()
        self._whole = False
        along = ds.drop_vars([k for k, v in ds.variables.items() if self.dim not in v.dims])
        along.assign_attrs({_DONE: self._done}).to_zarr(
            self.path, append_dim=self.dim, consolidated=False
        )
        self._group().attrs[_DONE] = self._done + count
        self._done, self._whole = self._done + count, True

    def _create(self, ds: xr.Dataset) -> None:
        """Write the first steps beside the path and rename: the store is there with its first steps, or not."""
        part = self.path.with_name(f".{self.path.name}.first")
        shutil.rmtree(part, ignore_errors=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        encoding = _encoding(ds, self.dim, {})
        for key, v in ds.variables.items():
            if self.dim in v.dims:
                line = v.ndim == 1  # coordinates along the steps: not a file for each number
                chunks = (1024,) if line else _cells(ds, str(key), self.dim)
                encoding.setdefault(str(key), {})["chunks"] = chunks
        ds.to_zarr(part, mode="w", consolidated=False, encoding=encoding)
        os.rename(part, self.path)

    def tail(self, count: int) -> xr.Dataset:
        with xr.open_zarr(self.path, consolidated=False, chunks=None) as ds:
            return ds.isel({self.dim: slice(self._done - count, self._done)}).load()

    def finish(self) -> None:
        zarr = require("zarr", extra="weather")
        with warnings.catch_warnings():  # that a future version of the format may do this otherwise
            warnings.simplefilter("ignore")
            zarr.consolidate_metadata(self.path)


@final
class NetCDFStore(Store):
    """A file for every append, whole or not there, in a hidden folder; at the end they become one file at ``path``."""

    def __init__(self, path: Path, dim: str) -> None:
        super().__init__(path, dim)
        require("h5netcdf", extra="weather")
        require("h5py", extra="weather")  # which the other needs to write, and does not bring
        self._folder = path.with_name(f".{path.name}.parts")
        self._base = 0  # steps in the file at path
        if path.exists():
            with self._open(path) as ds:
                self._base = ds.sizes.get(dim, 0)
        self._parts = self._find()

    def _open(self, path: Path) -> xr.Dataset:
        return xr.open_dataset(path, engine="h5netcdf", cache=False)

    def _find(self) -> list[tuple[int, int, Path]]:
        """The parts that follow one another from the end of the file: (first step, end, path)."""
        found = {}
        for path in self._folder.glob("[0-9]*-[0-9]*.nc"):
            start, _, stop = path.stem.partition("-")
            found[int(start)] = (int(start), int(stop), path)
        parts, at = [], self._base
        while at in found:
            parts.append(found[at])
            at = found[at][1]
        return parts

    @property
    def done(self) -> int:
        return self._parts[-1][1] if self._parts else self._base

    def attributes(self) -> Mapping[str, Any] | None:
        for path in [self.path] if self._base or self.path.exists() else []:
            with self._open(path) as ds:
                return dict(ds.attrs)
        if not self._parts:
            return None
        with self._open(self._parts[0][2]) as ds:
            return dict(ds.attrs)

    def trim(self) -> None:
        kept = {path for _, _, path in self._parts}
        for path in self._folder.glob("*"):
            if path not in kept:
                path.unlink()

    def append(self, ds: xr.Dataset) -> None:
        stop = self.done + ds.sizes[self.dim]
        path = self._folder / f"{self.done:08d}-{stop:08d}.nc"
        with atomic_write(path) as part:
            self._write(ds, part)
        self._parts.append((self.done, stop, path))

    def _write(self, ds: xr.Dataset, path: Path) -> None:
        packing = {"zlib": True, "complevel": 1, "shuffle": True}
        encoding = _encoding(ds, self.dim, packing)
        for name in ds.data_vars:
            if str(name) in encoding and "zlib" in encoding[str(name)]:
                encoding[str(name)]["chunksizes"] = _cells(ds, str(name), self.dim)
        ds.to_netcdf(path, engine="h5netcdf", encoding=encoding, unlimited_dims=[self.dim])

    def tail(self, count: int) -> xr.Dataset:
        need, pieces = count, []
        for path in [*(p for _, _, p in reversed(self._parts)), self.path]:
            with self._open(path) as ds:
                pieces.append(ds.isel({self.dim: slice(-need, None)}).load())
            need -= pieces[-1].sizes[self.dim]
            if need == 0:
                break
        return xr.concat(pieces[::-1], self.dim, **_SIDE_BY_SIDE)

    def finish(self) -> None:
        if not self._parts:
            return
        require("dask", extra="weather")
        paths = [*([self.path] if self._base else []), *(p for _, _, p in self._parts)]
        with xr.open_mfdataset(
            paths,
            engine="h5netcdf",
            combine="nested",
            concat_dim=self.dim,
            chunks={},
            **_SIDE_BY_SIDE,
        ) as ds:
            lines = [k for k, v in ds.variables.items() if v.ndim < 2]  # coordinates: known at once
            whole = ds.drop_encoding().assign({k: ds[k].load() for k in lines})
            with atomic_write(self.path) as part:
                self._write(whole, part)
        self._base, self._parts = self.done, []
        shutil.rmtree(self._folder)


_SIDE_BY_SIDE: dict[str, Any] = {
    "data_vars": "minimal",
    "coords": "minimal",
    "compat": "override",
    "join": "override",
    "combine_attrs": "override",
}
"""Concatenate what has the dimension, take the rest from the first."""
