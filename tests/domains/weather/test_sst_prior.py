"""The prior of monthly sea surface temperatures that ships: ships' reports become maps, on the dates of the data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from sciffusion.domains import weather
from sciffusion.inverse import MMPS
from sciffusion.samplers import Multistep, Sampler

DATA = Path("../shared/data/weather/sst_anomaly_t30_1979_2013.nc")
SETTINGS = weather.Assimilation(MMPS(1), Sampler(Multistep(1, eta=1.0), 6), members=3)


def reports(ds: xr.Dataset, ships: int) -> pd.DataFrame:
    """Of cells of the sea, without errors, other ones each month."""
    rng = np.random.default_rng(0)
    rows, columns = np.nonzero(np.isfinite(ds.ssta.values[0]))
    table = []
    for k, month in enumerate(ds.time.values):
        for cell in rng.choice(len(rows), ships, replace=False):
            i, j = rows[cell], columns[cell]
            value = float(ds.ssta[k, i, j])
            table.append((month, float(ds.lat[i]), float(ds.lon[j]), "ssta", value, 0.2))
    return pd.DataFrame(table, columns=["time", "lat", "lon", "variable", "value", "std"])


@pytest.fixture(scope="module")
def months() -> xr.Dataset:
    if not DATA.exists():
        pytest.skip("the data set sst is not here")
    return (
        weather.split(weather.DATASETS["sst"](DATA)[0], "sst:test").isel(time=slice(12, 15)).load()
    )


def test_an_analysis_is_nearer_the_truth_than_no_anomaly_and_keeps_dates_and_land(
    months: xr.Dataset,
) -> None:
    model = weather.load("sst-prior")
    out = model.assimilate(reports(months, 50), months.time.values, settings=SETTINGS)
    assert (out.time.values == months.time.values).all()
    made = out.ssta.mean("member").sortby("lat")
    assert (np.isnan(made.values) == np.isnan(months.ssta.values)).all()
    area = np.cos(np.deg2rad(months.lat))
    error = ((made.values - months.ssta) ** 2).weighted(area).mean()
    assert float(error) < 0.8 * float((months.ssta**2).weighted(area).mean())


def test_the_recipe_is_what_the_model_was_trained_by() -> None:
    recipe, model = weather.recipe("sst-prior"), weather.load("sst-prior")
    assert recipe.model == model.config
    assert model.info is not None
    assert model.info["training"].startswith(f"{recipe.train.steps} steps")
