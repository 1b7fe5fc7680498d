"""NetCDF files: opened lazily, written whole and packed, kept in the cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import xarray as xr

from sciffusion.errors import require
from sciffusion.io import atomic_write

from .card import Card

__all__ = ["keep", "open_netcdf", "write_netcdf"]


def open_netcdf(path: str | Path, *, chunks: Mapping[str, int] | None = None) -> xr.Dataset:
    """Open a NetCDF4 file; its values are read when they are used, in ``chunks`` by dask if these are given.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no NetCDF4 file, or a damaged one.
        MissingExtra: h5netcdf is not installed.
    """
    require("h5netcdf", extra="weather")
    if chunks is not None:
        require("dask", extra="weather")
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        return xr.open_dataset(path, engine="h5netcdf", chunks=chunks)
    except OSError as error:
        raise ValueError(f"{path} is no NetCDF4 file, or is damaged: {error}") from error


def write_netcdf(
    ds: xr.Dataset, path: Path, packing: Mapping[str, tuple[float, float]] | None = None
) -> Path:
    """Write ``ds`` whole or not at all, compressed.

    ``packing`` says of variables (scale, offset): they are kept as 16-bit integers :math:`(x - offset) / scale`, to
    half a scale; NaN is kept.
    """
    require("h5netcdf", extra="weather")
    encoding: dict[str, dict[str, object]] = {
        str(name): {"zlib": True, "complevel": 4, "shuffle": True} for name in ds.data_vars
    }
    for name, (scale, offset) in (packing or {}).items():
        encoding[name] |= {
            "dtype": "int16",
            "scale_factor": scale,
            "add_offset": offset,
            "_FillValue": -(2**15),
        }
    with atomic_write(path) as part:
        ds.drop_encoding().to_netcdf(part, engine="h5netcdf", encoding=encoding)
    return path


def keep(card: Card, kept: Path, path: Path | None, make: Callable[[Path], object]) -> xr.Dataset:
    """Open the file ``kept`` of the cache; first copy it from ``path``, or ``make`` it if it is not there.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        ValueError: the file is not the data set of the ``card``; a copy of it is not kept.
    """
    if path is not None:
        card.check(open_netcdf(path), path).close()
        with atomic_write(kept) as part:
            part.write_bytes(Path(path).read_bytes())
    elif not kept.exists():
        make(kept)
    return card.check(open_netcdf(kept), kept)
