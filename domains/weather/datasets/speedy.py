"""Simulated weather: years of the model SPEEDY (JAX-GCM), 12-hourly on the Gaussian grid T21 of 64 x 32 points.

``speedy`` is four years with parts to train, validate and test; ``speedy-long`` is ten other years to train on. The
model runs in a Python of its own, in which the package jcm is installed; it leaves pieces of 30 days with a
checkpoint after each, which are interpolated to pressure levels and truncated here. The cards are ``datasets/speedy``
and ``datasets/speedy-long``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from sciffusion.errors import MissingExtra
from sciffusion.harmonics import Harmonics, SphereGrid
from sciffusion.io import cache_dir

from .card import Card
from .era5 import GRAVITY
from .jcm import REQUIREMENT, fetch_wheel, read_members
from .netcdf import keep, open_netcdf, write_netcdf

__all__ = [
    "PYTHON",
    "get_speedy",
    "get_speedy_long",
    "make_long",
    "make_speedy",
    "to_levels",
    "truncate",
]

PYTHON = "SCIFFUSION_JCM_PYTHON"
"""The environment variable that names the Python in which jcm is installed."""

_SURFACE = 1e5  # Pa; the model's unit of surface pressure
_DEGREE = 21
_START = "2000-01-01"
_LONG = (("2010-01-01", 1800), ("2030-07-01", 1800))  # starts and days of the runs of speedy-long
_SPINUP, _DAYS, _PIECE = 90, 1440, 30  # days: left out, kept, between checkpoints
_FIELDS = {  # name: variable of the model, Pa, factor
    "z500": ("geopotential", 5e4, 1 / GRAVITY),
    "t850": ("temperature", 8.5e4, 1.0),
    "u850": ("u_wind", 8.5e4, 1.0),
    "v850": ("v_wind", 8.5e4, 1.0),
}
_ATTRS = {
    "z500": {"units": "m", "long_name": "500 hPa geopotential height"},
    "t850": {"units": "K", "long_name": "850 hPa temperature"},
    "u850": {"units": "m s-1", "long_name": "850 hPa eastward wind"},
    "v850": {"units": "m s-1", "long_name": "850 hPa northward wind"},
    "orography": {"units": "m", "long_name": "surface height (T21 truncation of T63)"},
    "land_fraction": {"units": "1", "long_name": "land fraction (T21 truncation, clipped)"},
}


def get_speedy(path: Path | None = None) -> tuple[xr.Dataset, Path]:
    """The data set and its file in the cache; copied from a ready file at ``path``, else simulated (hours).

    Raises:
        ValueError, FileNotFoundError: ``path`` is not it.
        MissingExtra: jcm is not installed; the message says how.
        RuntimeError: the model failed.
    """
    kept = cache_dir("speedy") / "speedy_t21_12h.nc"
    return keep(Card.of("speedy"), kept, path, make_speedy), kept


def get_speedy_long(path: Path | None = None) -> tuple[xr.Dataset, Path]:
    """As `get_speedy`: ten years of other weather of the same climate, in two runs."""
    kept = cache_dir("speedy-long") / "speedy_long_t21_12h.nc"
    return keep(Card.of("speedy-long"), kept, path, make_long), kept


def make_long(
    target: Path, *, runs: Sequence[tuple[str, int]] = _LONG, spinup: int = _SPINUP
) -> Path:
    """Simulate the ``runs``, (start, days) in rising order without overlap, one after the other into ``target``.

    Raises: as `make_speedy`.
    """
    parts = [target.parent / start / "part.nc" for start, _ in runs]
    for part, (start, days) in zip(parts, runs, strict=True):
        if not part.exists():
            part.parent.mkdir(parents=True, exist_ok=True)
            make_speedy(part, days=days, spinup=spinup, start=start)
    ds = xr.concat(
        [open_netcdf(part).load() for part in parts],
        "time",
        data_vars="minimal",
        join="exact",
        combine_attrs="override",
    )
    ds.attrs["source"] = " | ".join(open_netcdf(part).attrs["source"] for part in parts)
    write_netcdf(ds, target, Card.of("speedy-long").recipe["packing"])
    for part in parts:
        shutil.rmtree(part.parent)
    return target


def make_speedy(
    target: Path, *, days: int = _DAYS, spinup: int = _SPINUP, start: str = _START
) -> Path:
    """Simulate ``days`` after a spin-up from rest at ``start``, both multiples of 30, and write ``target``.

    Every start gives weather of its own (the climate is the same), so other starts than the card's are more data to
    train on. Go on from the last checkpoint after an interruption: pieces are kept beside ``target`` until all are
    there.

    Raises: as `get_speedy`; ``ValueError`` for other numbers of days or a ``start`` that is no date.
    """
    try:
        np.datetime64(start, "D")
    except ValueError:
        raise ValueError(f"start {start!r} must be a date such as {_START!r}") from None
    if days < _PIECE or spinup < 0 or days % _PIECE or spinup % _PIECE:
        raise ValueError(
            f"days {days} and spinup {spinup} must be multiples of {_PIECE}, days positive"
        )
    python = _python()
    folder = target.parent / "pieces"
    folder.mkdir(parents=True, exist_ok=True)
    wheel = fetch_wheel()
    terrain, forcing = folder / "terrain.nc", folder / "forcing.nc"
    surface, climate = read_members(wheel, "t63/terrain.nc", "t63/forcing.nc")
    surface.to_netcdf(terrain, engine="h5netcdf")
    climate.to_netcdf(forcing, engine="h5netcdf")
    last = spinup + days
    command = [
        *(python, "-u", "-m", "jcm.main", "+configuration=speedy-t31"),
        *(f"terrain.file={terrain}", f"forcing.file={forcing}", f"hydra.run.dir={folder / 'log'}"),
        *("run.time_step=30", "run.save_interval=0.5", f"run.chunk_days={_PIECE}"),
        *(f"run.start_time={start}", f"run.total_time={last}"),
        f"run.output_prefix={folder / 'raw'}",
        f"run.checkpoint_path={folder / 'state.ckpt'}",
    ]
    wanted = [folder / f"t21_day{day}.nc" for day in range(spinup + _PIECE, last + 1, _PIECE)]
    _convert_all(folder, spinup)  # what an interrupted call has left
    if not (
        folder / "state.ckpt"
    ).exists():  # the model refuses to start beside pieces without a checkpoint
        for raw in folder.glob("raw_day*"):
            raw.unlink()
    if not all(piece.exists() for piece in wanted):
        _run(command, lambda: _convert_all(folder, spinup))
    missing = [piece.name for piece in wanted if not piece.exists()]
    if missing:
        raise RuntimeError(
            f"jcm ended without the pieces {missing[0]} to {missing[-1]}; remove {folder} to start over"
        )
    pieces = [open_netcdf(piece).load() for piece in wanted]
    ds = xr.concat(pieces, "time", join="exact").assign(_statics(surface))
    for name, attrs in _ATTRS.items():
        ds[name].attrs = attrs
    ds.attrs = {
        "title": "Simulated global weather, SPEEDY physics at T31L8 (JAX-GCM), truncated to T21, 12-hourly",
        "source": f"{REQUIREMENT}, configuration speedy-t31, time step 30 min, the T63 terrain and monthly "
        f"climatology of its wheel; start {start}, first {spinup} days left out",
        "license": "made with Apache-2.0 software (jcm); no restrictions known",
        "note": "a model world, not observations",
        "synthetic": "true",
    }
    write_netcdf(ds, target, Card.of("speedy").recipe["packing"])
    shutil.rmtree(folder)
    return target


def to_levels(ds: xr.Dataset) -> dict[str, NDArray[np.float64]]:
    """The fields of the card, (time, lat, lon), out of the model's sigma levels: linear in the logarithm of pressure.

    Under high mountains, below the lowest level, the values of that level.
    """
    ds = ds[[*(variable for variable, _, _ in _FIELDS.values()), "normalized_surface_pressure"]]
    ds = ds.transpose("time", "level", "lat", "lon").sortby("level").astype(np.float64)
    pressure = ds["normalized_surface_pressure"].values[:, None] * _SURFACE
    height = np.log(ds["level"].values[None, :, None, None] * pressure)  # rises with the level
    fields = {}
    for name, (variable, level, factor) in _FIELDS.items():
        values, at = ds[variable].values * factor, np.log(level)
        below = np.clip((height < at).sum(1, keepdims=True), 1, values.shape[1] - 1)
        (y1, y0), (x1, x0) = (
            (np.take_along_axis(a, below, 1), np.take_along_axis(a, below - 1, 1))
            for a in (values, height)
        )
        share = np.minimum((at - x0) / (x1 - x0), 1)
        fields[name] = (y0 + (y1 - y0) * share)[:, 0]
    return fields


def truncate(field: NDArray[np.float64], degree: int = _DEGREE) -> NDArray[np.float64]:
    """A field on the Gaussian grid (..., n, 2n) without the harmonics above ``degree``, on the grid (..., 32, 64).

    Either grid has its latitudes in one order, north or south first, and that order is kept.
    """
    fine = SphereGrid.gauss(field.shape[-2], field.shape[-1])
    coarse = SphereGrid.gauss(32, 64)
    waves = Harmonics(fine, degree).analysis(torch.from_numpy(np.ascontiguousarray(field)))
    return Harmonics(coarse, degree).synthesis(waves).numpy()


def _python() -> str:
    """The Python in which jcm is installed."""
    python = os.environ.get(PYTHON, sys.executable)
    look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('jcm') is None)"
    try:
        found = subprocess.run([python, "-c", look], check=False).returncode == 0
    except OSError:
        found = False
    if not found:
        raise MissingExtra(
            f"the model SPEEDY is in the package jcm, which {python} does not have. It brings JAX, "
            "so give it an environment of its own:\n"
            f"  python -m venv ~/jcm && ~/jcm/bin/pip install {REQUIREMENT}\n"
            f"  {PYTHON}=~/jcm/bin/python sciffusion data get speedy\n"
            "or give a ready file: sciffusion data get speedy --path speedy_t21_12h.nc",
            name="jcm",
        )
    return python


def _run(command: list[str], at_checkpoint: Callable[[], None]) -> None:
    """Run the model, with a call after every checkpoint. Raises ``RuntimeError`` with its last words if it fails."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}  # all it needs lies on the disk
    said: deque[str] = deque(maxlen=20)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as model:
        try:
            for line in model.stdout or ():
                said.append(line)
                if "Saved checkpoint" in line:
                    at_checkpoint()
        except BaseException:
            model.terminate()
            raise
    if model.returncode:
        raise RuntimeError(
            f"jcm failed (exit {model.returncode}); its last words:\n{''.join(said)}"
        )


def _convert_all(folder: Path, spinup: int) -> None:
    """Turn what the model has written into pieces of the data set, and remove it."""
    checkpoint = folder / "state.ckpt"
    for raw in folder.glob("raw_day*.nc"):
        # a checkpoint follows its piece: a younger piece may be half written, and the model writes it again
        if checkpoint.exists() and raw.stat().st_mtime <= checkpoint.stat().st_mtime:
            day = int(raw.stem.removeprefix("raw_day"))
            if day > spinup:
                with open_netcdf(raw) as ds:
                    write_netcdf(_convert(ds), folder / f"t21_day{day}.nc")
            raw.unlink()
            if sys.stderr.isatty():
                print(f"SPEEDY: day {day}", file=sys.stderr)


def _convert(ds: xr.Dataset) -> xr.Dataset:
    fields = {name: truncate(field) for name, field in to_levels(ds).items()}
    dims = ("time", "lat", "lon")
    return xr.Dataset(
        {name: (dims, field.astype(np.float32)) for name, field in fields.items()},
        coords={"time": ds["time"].values, **_grid()},
    )


def _statics(surface: xr.Dataset) -> dict[str, tuple[tuple[str, str], NDArray[np.float32]]]:
    """Orography and land of the T63 terrain, truncated."""
    surface = surface.transpose("lat", "lon").astype(np.float64)
    land = np.clip(truncate(surface["lsm"].values), 0, 1)
    return {
        "orography": (("lat", "lon"), truncate(surface["orog"].values).astype(np.float32)),
        "land_fraction": (("lat", "lon"), land.astype(np.float32)),
    }


def _grid() -> dict[str, tuple[str, NDArray[np.float64], dict[str, str]]]:
    """The coordinates of T21, latitudes rising."""
    nodes = np.polynomial.legendre.leggauss(32)[0]
    return {
        "lat": ("lat", np.rad2deg(np.arcsin(nodes)), {"units": "degrees_north"}),
        "lon": ("lon", np.arange(64) * (360 / 64), {"units": "degrees_east"}),
    }
