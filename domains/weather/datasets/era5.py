"""ERA5 out of a Zarr store in the layout of WeatherBench 2, on the disk or in its public bucket, read lazily.

The layout: variables by their long names (``geopotential``, ``2m_temperature``), dimensions ``time``, ``level`` (hPa),
``latitude`` and ``longitude`` in any order, as Rasp et al. (2024) published it. The card is ``datasets/era5``.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import xarray as xr

from sciffusion.errors import MissingExtra, did_you_mean, require
from sciffusion.io import DownloadError, cache_dir

from .card import Card
from .netcdf import write_netcdf

__all__ = ["GRAVITY", "STORE", "geopotential_height", "get_era5", "open_era5"]

STORE = "gs://weatherbench2/datasets/era5/1959-2023_01_10-6h-64x32_equiangular_conservative.zarr"
"""The coarsest ERA5 of WeatherBench 2: 5.625 degrees, 6-hourly, 13 levels."""

GRAVITY = 9.80665
"""Standard gravity, m/s2, which turns geopotential into metres (WMO)."""

_ORDER = ("time", "level", "latitude", "longitude")
_SHORT = {
    "z": "geopotential",
    "t": "temperature",
    "u": "u_component_of_wind",
    "v": "v_component_of_wind",
    "q": "specific_humidity",
    "t2m": "2m_temperature",
    "u10": "10m_u_component_of_wind",
    "v10": "10m_v_component_of_wind",
    "msl": "mean_sea_level_pressure",
}


def open_era5(
    store: str | Path = STORE,
    *,
    variables: Sequence[str] | None = None,
    levels: Sequence[int] | None = None,
    times: tuple[str, str] | None = None,
    hours: Sequence[int] | None = None,
) -> xr.Dataset:
    """Open a part of a store; nothing is read but its coordinates until values are used.

    Variables come back with the dimensions (time, level, latitude, longitude), as many of these as they have; the
    order of the latitudes, attributes and chunks are the store's.

    Args:
        store: a folder, or a URL; ``gs://`` needs the package gcsfs.
        variables: long names; None is all.
        levels: in hPa, in this order; None is all.
        times: the first and the last, such as ``("1979", "2017-12-31T18")``; both are included.
        hours: of the day, UTC, such as (0, 12); None is all.

    Raises:
        FileNotFoundError: there is no such folder.
        DownloadError: the URL cannot be opened: no network, no such store, no right to read it.
        MissingExtra: gcsfs or zarr is not installed.
        ValueError: no Zarr store, a store of another layout or other units, or a variable, level or time that it
            does not have.
    """
    ds = _open(store)
    for name in ("time", "latitude", "longitude"):
        if name not in ds.coords:
            raise ValueError(
                f"{store} is not in the layout of WeatherBench: it has no coordinate {name!r}, only "
                f"{[str(known) for known in ds.coords]}"
            )
    if variables is not None:
        ds = ds[[_known(name, ds, store) for name in variables]]
    if levels is not None and "level" in ds.dims:
        absent = [level for level in levels if level not in ds["level"].values]
        if absent:
            raise ValueError(
                f"{store} has no level {absent} hPa, only {ds['level'].values.tolist()}"
            )
        ds = ds.sel(level=list(levels))
    if times is not None:
        ds = ds.sel(time=slice(*times))
    if hours is not None:
        ds = ds.isel(time=np.flatnonzero(np.isin(ds["time"].dt.hour, list(hours))))
    if not ds.sizes["time"]:
        raise ValueError(f"{store} has no times {times or ''} at hours {hours or 'of any kind'}")
    _check_units(ds, store)
    return ds.transpose(*(dim for dim in _ORDER if dim in ds.dims), ...)


def geopotential_height(ds: xr.Dataset, variable: str = "geopotential") -> xr.Dataset:
    r"""``ds`` with ``variable``, a geopotential in m2/s2, replaced by heights in m named ``geopotential_height``.

    :math:`Z = \\Phi / 9.80665` (WMO's standard gravity). Lazy if ``ds`` is.

    Raises:
        ValueError: there is no such variable, or its units are others.
    """
    if variable not in ds:
        raise ValueError(f"ds has no variable {variable!r}, only {[str(name) for name in ds]}")
    phi = ds[variable]
    units = str(phi.attrs.get("units", "none"))
    if _plain(units) != "m2s-2":
        raise ValueError(f"{variable!r} has the units {units!r}, not m2 s-2: it is no geopotential")
    height = (phi / GRAVITY).astype(phi.dtype)
    height.attrs = {"units": "m", "long_name": "geopotential height"}
    return ds.drop_vars(variable).assign(geopotential_height=height)


def get_era5(path: Path | None = None) -> tuple[xr.Dataset, Path]:
    """The part of ERA5 that the card names, copied year by year to the cache; from the store at ``path``, or `STORE`.

    What a broken transfer has copied stays, and the next call goes on from there. Returns the lazy dataset and the
    folder of the years.

    Raises: as `open_era5`.
    """
    store = str(path or STORE)
    kept = cache_dir("era5") / store.rstrip("/").rpartition("/")[2]
    done = kept / "complete"
    if not done.exists():
        part = Card.of("era5").recipe["part"]
        ds = open_era5(
            store,
            variables=part["variables"],
            levels=part["levels"],
            times=(part["times"][0], part["times"][1]),
            hours=part["hours"],
        )
        for year, of_year in ds.groupby("time.year"):
            piece = kept / f"{year}.nc"
            if not piece.exists():
                write_netcdf(of_year, piece)
        done.touch()
    years = sorted(kept.glob("*.nc"))
    return xr.open_mfdataset(years, engine="h5netcdf", chunks={}, combine="by_coords"), kept


def _open(store: str | Path) -> xr.Dataset:
    require("zarr", extra="weather")
    require("dask", extra="weather")
    protocol, _, rest = str(store).rpartition("://")
    if protocol in ("", "file"):
        if not Path(rest).is_dir():
            raise FileNotFoundError(f"there is no Zarr store {store}: no such folder")
        try:
            return xr.open_zarr(rest, chunks={})
        except (OSError, KeyError, ValueError) as error:
            raise ValueError(f"{store} is no Zarr store: {error}") from error
    if protocol == "gs" and find_spec("gcsfs") is None:
        raise MissingExtra(
            f"{store} is in a bucket that the package gcsfs reads. Install it with: pip install gcsfs",
            name="gcsfs",
        )
    options = {"token": "anon"} if protocol == "gs" else {}
    try:
        return xr.open_zarr(str(store), chunks={}, storage_options=options)
    except (
        Exception
    ) as error:  # every protocol has errors of its own, some without a base of Python's
        raise DownloadError(
            f"could not open {store}: {error!r}. Is there a network, and such a store? A copy on the disk "
            "is opened by its folder."
        ) from error


def _known(name: str, ds: xr.Dataset, store: str | Path) -> str:
    known = [str(variable) for variable in ds.data_vars]
    if name not in known:
        long = _SHORT.get(name)
        hint = f"Did you mean {long!r}?" if long in known else did_you_mean(name, known)
        raise ValueError(f"{store} has no variable {name!r}. {hint or f'It has {known}.'}")
    return name


def _check_units(ds: xr.Dataset, store: str | Path) -> None:
    wanted = Card.of("era5").recipe["units"]
    for name in ds.data_vars:
        units = ds[name].attrs.get("units")
        if name in wanted and units is not None and _plain(units) != _plain(wanted[name]):
            raise ValueError(f"{name!r} of {store} has the units {units!r}, not {wanted[name]!r}")


def _plain(units: str) -> str:
    """Units without the signs that differ among writers: ``m**2 s**-2`` and ``m2 s-2`` are the same."""
    for sign in ("**", "^", " ", "*"):
        units = units.replace(sign, "")
    return units
