"""Ensembles whose scores are known."""

import numpy as np
import xarray as xr


def coordinates(times: int, rows: int = 16, columns: int = 32) -> dict[str, np.ndarray]:
    """Days, and a Gaussian globe, south to north."""
    days = np.datetime64("2001-01-01", "ns") + np.arange(times) * np.timedelta64(1, "D")
    latitude = np.degrees(np.arcsin(np.polynomial.legendre.leggauss(rows)[0]))
    return {"time": days, "latitude": latitude, "longitude": np.arange(columns) * 360 / columns}


def field(values: np.ndarray, **coords: np.ndarray) -> xr.DataArray:
    """Values with dimensions named by the coordinates; kelvin."""
    return xr.DataArray(values, coords, tuple(coords), name="t2m", attrs={"units": "K"})


def gaussian(
    members: int,
    times: int,
    *,
    width: float = 1.0,
    rows: int = 16,
    columns: int = 32,
    seed: int = 0,
) -> tuple[xr.DataArray, xr.DataArray]:
    """Truth and members around the same unknown mean: deviations 1 of the truth, ``width`` of the members."""
    rng = np.random.default_rng(seed)
    coords = coordinates(times, rows, columns)
    shape = tuple(len(c) for c in coords.values())
    mean = 5 * rng.normal(size=shape)
    truth = mean + rng.normal(size=shape)
    values = mean + width * rng.normal(size=(members, *shape))
    return field(values, member=np.arange(members), **coords), field(truth, **coords)
