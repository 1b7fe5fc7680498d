"""Observed monthly anomalies of the sea surface temperature, 1979-2013, on the Gaussian grid of 96 x 48 points.

They are the boundary data of the model SPEEDY (ICTP), out of the wheel of JAX-GCM. The card is ``datasets/sst``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from sciffusion.io import cache_dir

from .card import Card
from .jcm import fetch_wheel, read_members
from .netcdf import keep, write_netcdf

__all__ = ["from_wheel", "get_sst"]

_LARGEST = 8.0  # K; beyond it an anomaly is an artefact of the ice's edge
_ICE = 0.15  # of a cell, in any month of the climatology: such cells are left out


def get_sst(path: Path | None = None) -> tuple[xr.Dataset, Path]:
    """The data set and its file in the cache; from a ready file or the wheel of jcm if one is at ``path``.

    Raises:
        ValueError, FileNotFoundError: ``path`` is neither.
        ChecksumError, DownloadError: the wheel could not be fetched, or is another one.
    """
    kept = cache_dir("sst") / "sst_anomaly_t30_1979_2013.nc"
    if path is not None and path.suffix == ".whl":
        _write(fetch_wheel(path), kept)
        path = None
    return keep(Card.of("sst"), kept, path, lambda to: _write(fetch_wheel(), to)), kept


def from_wheel(wheel: Path) -> xr.Dataset:
    """Anomalies (K) of the sea that is free of ice all year, its climatology, mask, and the land beside it.

    A cell is sea if less than half of it is land, the climatology has less than 15 % ice there in every month, and no
    anomaly reaches 8 K. Elsewhere ``ssta`` and ``sst_climatology`` are NaN. Latitudes rise.
    """
    names = (
        "t30/anom/sea_surface_temperature_anomaly.nc",
        "t30/clim/forcing.nc",
        "t30/clim/terrain.nc",
    )
    anomaly, climate, surface = read_members(wheel, *names)
    ssta = anomaly["ssta"].isel(lat=slice(None, None, -1))
    climate = climate.transpose("time", "lat", "lon")
    surface = surface.transpose("lat", "lon")
    ice = climate["icec"].values.max(0)
    sea = (surface["lsm"].values < 0.5) & (ice < _ICE) & (np.abs(ssta.values).max(0) < _LARGEST)
    grid = ("lat", "lon")
    dry = np.float32(np.nan)
    return xr.Dataset(
        {
            "ssta": (
                ("time", *grid),
                np.where(sea, ssta.values, dry),
                {"units": "K", "long_name": "monthly sea surface temperature anomaly"},
            ),
            "sst_climatology": (
                ("month", *grid),
                np.where(sea, climate["sst"].values, dry),
                {"units": "K", "long_name": "monthly mean sea surface temperature"},
            ),
            "sea_mask": (grid, sea.astype(np.int8), {"units": "1"}),
            "orography": (grid, surface["orog"].values, {"units": "m"}),
            "land_fraction": (grid, surface["lsm"].values, {"units": "1"}),
        },
        coords={
            "time": ssta["time"].values,
            "lat": ("lat", surface["lat"].values, {"units": "degrees_north"}),
            "lon": ("lon", surface["lon"].values, {"units": "degrees_east"}),
            "month": np.arange(1, 13),
        },
        attrs={
            "title": "Observed monthly SST anomalies 1979-2013 on the T30 Gaussian grid, ice-free ocean",
            "source": "SPEEDY boundary data (ICTP) of the ERA-Interim period, in the wheel of jcm 3.0.0",
            "license": "Apache-2.0 (the package jcm)",
        },
    )


def _write(wheel: Path, target: Path) -> Path:
    return write_netcdf(from_wheel(wheel), target, Card.of("sst").recipe["packing"])
