"""ERA5's 2 m temperature over the United Kingdom, hourly in March 2019. The card is ``datasets/era5-uk``."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import xarray as xr

from sciffusion.errors import MissingExtra
from sciffusion.io import ChecksumError, cache_dir

from .card import Card
from .netcdf import keep, write_netcdf

__all__ = ["get_uk", "to_uk"]


def get_uk(path: Path | None = None) -> tuple[xr.Dataset, Path]:
    """The data set and its file in the cache; made from a ready ``.nc`` or the ``.grib`` of xarray's examples.

    Raises:
        FileNotFoundError: it is neither in the cache nor at ``path``; the message says how to come by it.
        ValueError: what is at ``path`` is another data set.
        ChecksumError: the GRIB file is another one, by its MD5.
        MissingExtra: cfgrib, which reads GRIB, is not installed.
    """
    card, kept = Card.of("era5-uk"), cache_dir("era5-uk") / "era5_t2m_uk_201903.nc"
    if path is not None and path.suffix in (".grib", ".grb"):
        write_netcdf(
            card.check(_read_grib(path, card.recipe["md5"]), path), kept, card.recipe["packing"]
        )
        path = None
    return keep(card, kept, path, card.explain), kept


def to_uk(ds: xr.Dataset) -> xr.Dataset:
    """``t2m`` of a dataset of cfgrib in the form of the card: latitudes rise, no scalar coordinates of GRIB."""
    t2m = ds["t2m"].reset_coords(drop=True).sortby("latitude")
    t2m.attrs = {
        "units": "K",
        "long_name": "2 metre temperature",
        "standard_name": "air_temperature",
    }
    return t2m.to_dataset().assign_attrs(
        title="ERA5 hourly 2 m temperature, United Kingdom, March 2019",
        license="Contains modified Copernicus Climate Change Service information 2019",
    )


def _read_grib(path: Path, md5: str) -> xr.Dataset:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    with open(path, "rb") as file:
        got = hashlib.file_digest(file, "md5").hexdigest()
    if got != md5:
        raise ChecksumError(path, md5, got, "These are MD5 sums; fetch the file again.")
    if find_spec("cfgrib") is None:
        raise MissingExtra(
            f"{path} is GRIB, which the package cfgrib reads. Install it with: pip install cfgrib",
            name="cfgrib",
        )
    return to_uk(xr.load_dataset(path, engine="cfgrib", backend_kwargs={"indexpath": ""}))
