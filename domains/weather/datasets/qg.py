"""Simulated weather that needs no download: the two-level quasi-geostrophic model, made once and kept.

The card is ``datasets/qg``; the model, and any other amount of its weather, ``simulators/quasigeostrophic.py``.
"""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from sciffusion.io import cache_dir

from ..simulators.quasigeostrophic import simulate
from .card import Card
from .netcdf import keep, write_netcdf

__all__ = ["get_qg"]


def get_qg(path: Path | None = None) -> tuple[xr.Dataset, Path]:
    """The data set and its file in the cache; copied from a ready file at ``path``, else simulated (minutes).

    Raises:
        FileNotFoundError, ValueError: ``path`` is not it.
    """
    card, kept = Card.of("qg"), cache_dir("qg") / "qg_t21_12h.nc"

    def make(target: Path) -> None:
        run = card.recipe["simulate"]
        ds = simulate(
            run["days"], run["seed"], hours=run["hours"], trajectories=run["trajectories"]
        )
        write_netcdf(ds, target, card.recipe["packing"])

    return keep(card, kept, path, make), kept
