"""Weather by name: a file, or a part of a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import xarray as xr

from sciffusion.errors import did_you_mean, require

from .datasets.card import Card
from .datasets.era5 import get_era5
from .datasets.netcdf import open_netcdf
from .datasets.qg import get_qg
from .datasets.radar import get_fmi, get_mrms
from .datasets.speedy import get_speedy, get_speedy_long
from .datasets.sst import get_sst
from .datasets.uk import get_uk

__all__ = ["DATASETS", "check_output", "read", "split"]


def read(source: str | Path) -> xr.Dataset:
    """The dataset of a file (``"mine.nc"``, ``"mine.zarr"``), of a data set (``"qg"``) or of a part (``"qg:test"``).

    A data set is fetched or made on first use. Values are read when they are used.

    Raises:
        FileNotFoundError: no such file.
        ValueError: neither a file nor a data set, or one that cannot be read.
    """
    path, (name, _, part) = Path(source), str(source).partition(":")
    if path.suffix == ".nc":
        return open_netcdf(path)
    if path.suffix == ".zarr":
        require("zarr", extra="weather")
        if not path.is_dir():
            raise FileNotFoundError(f"there is no Zarr store {path}")
        return xr.open_zarr(path)
    if name in DATASETS:
        ds, _ = DATASETS[name](None)
        return split(ds, str(source)) if part else ds
    raise ValueError(
        f"{str(source)!r} is neither a file that ends with .nc or .zarr nor a data set such as 'qg' "
        f"or 'qg:test'; there are {', '.join(DATASETS)}. {did_you_mean(name, DATASETS)}".rstrip()
    )


def split(ds: xr.Dataset, name: str) -> xr.Dataset:
    """The part ``name``, such as ``"speedy:test"``, of ``ds``, which is that data set or a selection from it.

    The parts are ``train``, ``valid`` and ``test``, contiguous in time (for ``mrms``: in longitude); each card gives
    their bounds. What is lazy stays lazy.

    Raises:
        ValueError: no such data set or part, or nothing of it is in ``ds``.
    """
    known, _, part = name.partition(":")
    if known not in DATASETS or not part:
        raise ValueError(
            f"name must be a data set and a part, such as 'speedy:test', got {name!r}; the data sets are "
            f"{', '.join(DATASETS)}. {did_you_mean(known, DATASETS)}".rstrip()
        )
    return Card.of(known).split(ds, part)


def check_output(path: Path) -> None:
    """See early whether weather can be written to ``path``.

    Raises:
        ValueError: the suffix is of no known format.
        MissingExtra: the package that writes it is not installed.
    """
    if path.suffix not in (".nc", ".zarr"):
        raise ValueError(f"{path}: weather is written to files that end with .nc or .zarr")
    if path.suffix == ".nc":
        require("h5netcdf", extra="weather")
        require("h5py", extra="weather")  # through which h5netcdf writes; it does not bring it
    else:
        require("zarr", extra="weather")


DATASETS: Mapping[str, Callable[[Path | None], tuple[xr.Dataset, Path]]] = {
    "qg": get_qg,
    "speedy": get_speedy,
    "speedy-long": get_speedy_long,
    "sst": get_sst,
    "era5": get_era5,
    "era5-uk": get_uk,
    "mrms": get_mrms,
    "fmi": get_fmi,
}
"""How to fetch or make each data set, or take it from a local copy; the functions return it and where it is kept."""
