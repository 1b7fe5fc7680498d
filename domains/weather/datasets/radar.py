"""Rain from radars: the two packed sets, their 8-bit code, and the composites of FMI that one of them is made of.

The cards are ``datasets/mrms`` (United States, 10 June 2019) and ``datasets/fmi`` (Finland, two events).
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from sciffusion.io import cache_dir

from .card import Card
from .netcdf import keep, open_netcdf

__all__ = ["decode_rain", "encode_rain", "from_pgm", "get_fmi", "get_mrms"]

_DECODE = (
    "0: dry (< 0.08 mm/h); 1..250: R[mm/h] = 10**((0.14*(code-1)-11)/10); 255: no radar coverage"
)
_TOP, _HIDDEN = 250, 255
_STEP, _LEAST = 0.14, -11.0  # of 10 log10 R
_DRY = 0.08  # mm/h

_HEADER = re.compile(
    rb"P5\s+(?:#[^\n]*\n\s*)*(\d+)\s+(?:#[^\n]*\n\s*)*(\d+)\s+(?:#[^\n]*\n\s*)*(\d+)\s"
)
_STAMP = re.compile(r"(\d{12})")


def get_mrms(path: Path | None = None) -> tuple[xr.Dataset, Path]:
    """Rain over the United States on 10 June 2019, 8 frames of 1750 x 3500 cells, and its file in the cache.

    Raises:
        FileNotFoundError: it is neither in the cache nor at ``path``; the message says how to come by it.
        ValueError: what is at ``path`` is another data set.
    """
    return _packed("mrms", "mrms_conus_20190610.nc", path)


def get_fmi(path: Path | None = None) -> tuple[xr.Dataset, Path]:
    """Rain over Finland, two events of 40 frames of 613 x 380 cells, and its file in the cache.

    Raises: as `get_mrms`.
    """
    return _packed("fmi", "fmi_radar_2events.nc", path)


def decode_rain(ds: xr.Dataset) -> xr.Dataset:
    r"""``ds`` with its ``rain_code`` replaced by ``rain`` in mm/h, float32; lazy if ``ds`` is.

    .. math:: R = 10^{(0.14\,(c - 1) - 11)/10},\quad c = 1..250;

    c = 0 is dry (below 0.08 mm/h), 255 and codes without a meaning become NaN.

    Raises:
        ValueError: there is no ``rain_code``, or its attribute ``decode`` names another code.
    """
    if "rain_code" not in ds:
        raise ValueError(f"ds has no variable 'rain_code', only {[str(name) for name in ds]}")
    code = ds["rain_code"]
    if code.attrs.get("decode") != _DECODE or code.dtype != np.uint8:
        raise ValueError(
            f"rain_code ({code.dtype}) is coded as {code.attrs.get('decode')!r}; only uint8 of the "
            f"code {_DECODE!r} is known"
        )
    table = np.full(256, np.nan, dtype=np.float32)
    table[0] = 0
    table[1 : _TOP + 1] = 10 ** ((_STEP * np.arange(_TOP) + _LEAST) / 10)
    rain = xr.apply_ufunc(table.__getitem__, code, dask="parallelized", output_dtypes=[np.float32])
    rain.attrs = {"units": "mm h-1", "long_name": "precipitation rate"}
    return ds.drop_vars("rain_code").assign(rain=rain)


def encode_rain(rain: NDArray[Any]) -> NDArray[np.uint8]:
    """The codes of rates in mm/h: to 1.6 %, at most 10^2.386 = 243 mm/h; NaN becomes 255.

    Raises:
        ValueError: a rate is negative.
    """
    if (rain < 0).any():
        raise ValueError(f"rain must not be negative, got {np.nanmin(rain)} mm/h")
    wet = rain >= _DRY
    level = 10 * np.log10(np.where(wet, rain, 1.0))
    code = np.where(wet, np.clip(np.rint((level - _LEAST) / _STEP) + 1, 1, _TOP), 0)
    return np.where(np.isnan(rain), _HIDDEN, code).astype(np.uint8)


def from_pgm(paths: Sequence[str | Path]) -> xr.Dataset:
    r"""The set ``fmi`` out of composites of the Finnish Meteorological Institute, ``*.pgm`` or ``*.pgm.gz``.

    A pixel p is a reflectivity of (p - 64)/2 dBZ, 255 is no coverage. Rain follows :math:`Z = 223\,R^{1.53}`; 2 x 2
    pixels of 1 km become their mean, without coverage where one of them has none. Times are those in the file names.

    Raises:
        ValueError: no files, a file that is no 8-bit PGM, one of another shape, or one whose name has no time.
    """
    if not paths:
        raise ValueError("paths names no file; give the *.pgm.gz of the events")
    frames: list[NDArray[np.uint8]] = []
    times = []
    for path in sorted(map(Path, paths), key=lambda one: one.name):
        stamp = _STAMP.match(path.name)
        if stamp is None:
            raise ValueError(f"the name of {path} does not begin with its time, YYYYMMDDhhmm")
        times.append(np.datetime64(datetime.strptime(stamp[1], "%Y%m%d%H%M"), "ns"))
        pixels = _read_pgm(path)
        if frames and frames[0].shape != (pixels.shape[0] // 2, pixels.shape[1] // 2):
            raise ValueError(f"{path} has {pixels.shape} pixels, unlike the files before it")
        rain = (10 ** ((pixels - 64.0) / 20) / 223) ** (1 / 1.53)
        rain[pixels == 255] = np.nan
        height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
        boxes = rain[: 2 * height, : 2 * width].reshape(height, 2, width, 2)
        frames.append(encode_rain(boxes.mean((1, 3))))
    attrs = {"long_name": "precipitation rate, logarithmic code", "decode": _DECODE}
    codes = np.stack(frames)
    return xr.Dataset(
        {"rain_code": (("time", "y", "x"), codes, attrs)},
        coords={
            "time": np.array(times),
            "y": ("y", 2 * np.arange(codes.shape[1], dtype=np.float32), {"units": "km"}),
            "x": ("x", 2 * np.arange(codes.shape[2], dtype=np.float32), {"units": "km"}),
        },
        attrs={
            "title": "FMI radar composite (Finland), 2 km",
            "license": "CC BY 4.0, FMI open data",
        },
    )


def _packed(name: str, file: str, path: Path | None) -> tuple[xr.Dataset, Path]:
    card, kept = Card.of(name), cache_dir(name) / file
    keep(card, kept, path, card.explain).close()
    return open_netcdf(kept, chunks={"time": 1}), kept


def _read_pgm(path: Path) -> NDArray[np.uint8]:
    content = path.read_bytes()
    try:
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    header = _HEADER.match(content)
    if header is None:
        raise ValueError(f"{path} is no binary PGM file")
    width, height, top = map(int, header.groups())
    if top != 255 or len(content) - header.end() < width * height:
        raise ValueError(f"{path} is cut off, or has values other than 0 to 255")
    return np.frombuffer(content, np.uint8, width * height, header.end()).reshape(height, width)
