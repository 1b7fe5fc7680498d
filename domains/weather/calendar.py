r"""What date and place say to a network: the season, where the sun stands over every cell, and where the cells lie.

The season is the phase of the year, :math:`2\pi\,(\text{day of year} - 1 + h/24) / \text{length of the year}`, in the
calendar of the data. The sun's hour angle over a cell is its local solar time, :math:`2\pi\,(h/24 + \text{lon}/360)`,
without the equation of time (at most 16 minutes).

A model of several leads is told which one is wanted as :math:`\cos\pi k u`, k = 1..4, with the share u that it is of
the longest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from .grid import Grid

__all__ = ["LEAD", "PLACE", "SEASON", "SUN", "ahead", "place", "season", "sun"]

LEAD = 4
"""Numbers per lead from :func:`ahead`."""
SEASON = 2
"""Numbers per time from :func:`season`."""
SUN = 3
"""Channels per time from :func:`sun`."""

PLACE = 4
"""Channels from :func:`place`."""

_TILT = np.deg2rad(23.44)  # of the earth's axis
_SOLSTICE = 172 / 365  # June 21, as a share of the year


def season(times: NDArray[Any]) -> Tensor:
    """Sine and cosine of the phase of the year, (n, 2) float32; ``times`` are datetime64 or cftime objects."""
    phase = 2 * np.pi * _year(times)[0]
    return torch.from_numpy(np.stack([np.sin(phase), np.cos(phase)], -1).astype(np.float32))


def ahead(leads: NDArray[np.int64], longest: int) -> Tensor:
    """What leads, hours (n,), say to a network: (n, 4) float32."""
    share = torch.from_numpy(leads / longest)[:, None]
    return torch.cos(torch.pi * torch.arange(1, LEAD + 1) * share).float()


def sun(times: NDArray[Any], grid: Grid) -> Tensor:
    r"""Sine and cosine of the local solar time, and the height of the sun, (n, 3, H, W) float32.

    The height is :math:`\max(0, \sin\varphi\sin\delta - \cos\varphi\cos\delta\cos\tau)`, the cosine of the zenith angle
    by day, with latitude :math:`\varphi`, declination :math:`\delta` and local solar time :math:`\tau` from midnight.
    """
    share, hour = _year(times)
    tau = 2 * np.pi * (hour[:, None] / 24 + grid.lon.numpy() / 360)  # (n, W)
    tilt = _TILT * np.cos(2 * np.pi * (share - _SOLSTICE))[:, None, None]
    lat = np.deg2rad(grid.lat.numpy())[:, None]
    height = np.sin(lat) * np.sin(tilt) - np.cos(lat) * np.cos(tilt) * np.cos(tau)[:, None]
    rows = np.broadcast_to(
        np.stack([np.sin(tau), np.cos(tau)], 1)[:, :, None], (len(tau), 2, *grid.shape)
    )
    both = np.concatenate([rows, height.clip(min=0)[:, None]], 1)
    return torch.from_numpy(both.astype(np.float32))


def place(grid: Grid) -> Tensor:
    """Sine and cosine of latitude and longitude, (4, H, W) float32."""
    lat, lon = (torch.deg2rad(v).float() for v in (grid.lat, grid.lon))
    rows = torch.stack([lat.sin(), lat.cos()])[..., None].expand(2, *grid.shape)
    columns = torch.stack([lon.sin(), lon.cos()])[:, None].expand(2, *grid.shape)
    return torch.cat([rows, columns])


def _year(times: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The share of the year that has passed, and the hour of the day."""
    when = xr.DataArray(np.asarray(times), dims="time", coords={"time": np.asarray(times)}).time.dt
    hour = (when.hour + when.minute / 60 + when.second / 3600).values.astype(np.float64)
    return (when.dayofyear.values - 1 + hour / 24) / when.days_in_year.values, hour
