"""The wheel of JAX-GCM on the Python package index: boundary data of the model SPEEDY, read without installing it."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import xarray as xr

from sciffusion.errors import require
from sciffusion.io import cache_dir, fetch_pypi, verify

__all__ = ["REQUIREMENT", "fetch_wheel", "read_members"]

_VERSION = "3.0.0"
_FILENAME = f"jcm-{_VERSION}-py3-none-any.whl"
_SHA256 = "1ae0408e53ce9c581f84a55279f7bc2efc8d2d54ed1087189b0bb89d1ac4cd62"

REQUIREMENT = f"jcm=={_VERSION}"
"""What pip installs to run the model itself."""


def fetch_wheel(path: Path | None = None) -> Path:
    """The wheel (19 MB), from the cache, or checked where it lies at ``path``; fetched by pip on first use.

    Raises:
        ChecksumError: it is another file.
        DownloadError: it could not be fetched.
        FileNotFoundError: there is nothing at ``path``.
    """
    if path is not None:
        return verify(path, _SHA256, advice=f"It should be {_FILENAME} of the package index.")
    return fetch_pypi("jcm", _VERSION, filename=_FILENAME, sha256=_SHA256, folder=cache_dir("jcm"))


def read_members(wheel: Path, *names: str) -> list[xr.Dataset]:
    """The NetCDF files ``names`` of the wheel's folder ``jcm/data/bc``, in memory.

    Raises:
        ValueError: the wheel is damaged or has no such file.
    """
    require("h5netcdf", extra="weather")
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [archive.read(f"jcm/data/bc/{name}") for name in names]
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"{wheel} is damaged or another wheel: {error}") from error
    return [xr.load_dataset(io.BytesIO(member), engine="h5netcdf") for member in members]
