"""A trained prior and observations: what the verb makes of tables, fields and functions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from torch import Tensor

from sciffusion.domains.weather.assimilation import Assimilation
from sciffusion.domains.weather.model import WeatherModel
from sciffusion.inverse import MMPS
from sciffusion.samplers import Multistep, Sampler
from tests.domains.weather.tiny import config, untrained, world

SETTINGS = Assimilation(method=MMPS(4), sampler=Sampler(Multistep(1, eta=1.0), 24), members=3)


@pytest.fixture(scope="module")
def prior() -> WeatherModel:
    """Windows of two states whose network says nothing: white noise around the mean of every cell."""
    model = untrained(config(head="diffusion", inputs=(), targets=(0, 12), base="cell"))
    for p in model.module.parameters():
        torch.nn.init.zeros_(p)
    return model


def stations(ds: xr.Dataset, n: int = 6) -> pd.DataFrame:
    """Exact reports of z500 at cells of the small world."""
    rng = np.random.default_rng(0)
    rows = [
        (
            ds.time.values[k],
            float(ds.lat[i]),
            float(ds.lon[j]),
            "z500",
            float(ds.z500[k, i, j]),
            1.0,
        )
        for k in range(ds.sizes["time"])
        for i, j in zip(rng.integers(8, size=n), rng.integers(16, size=n), strict=True)
    ]
    return pd.DataFrame(rows, columns=["time", "lat", "lon", "variable", "value", "std"])


def test_members_agree_with_stations_and_differ_elsewhere(prior: WeatherModel) -> None:
    ds = world(n=2)
    table = stations(ds)
    out = prior.assimilate(table, ds.time.values, settings=SETTINGS, seed=1)
    assert dict(out.sizes) == {"member": 3, "time": 2, "lat": 8, "lon": 16}
    seen = [
        out.z500.sel(time=r.time, lat=r.lat, lon=r.lon).values - r.value for r in table.itertuples()
    ]
    assert np.abs(seen).max() < 20  # deviations of the small world are about 50
    spread = out.z500.std("member")
    assert float(spread.median()) > 3 * float(np.std(seen))


def test_a_member_depends_on_seed_and_number_alone(prior: WeatherModel) -> None:
    ds = world(n=2)
    table = stations(ds)
    out = prior.assimilate(table, ds.time.values, settings=SETTINGS, seed=1)
    one = Assimilation(SETTINGS.method, SETTINGS.sampler, members=1)
    again = prior.assimilate(table, ds.time.values, settings=one, seed=1)
    np.testing.assert_allclose(again.z500, out.z500[:1], rtol=1e-5)


def test_boxes_masks_and_functions_are_honoured(prior: WeatherModel) -> None:
    ds = world(n=2)
    grid = prior.frame.grid
    assert grid is not None
    area = grid.area.numpy()[None]
    boxes = (ds.z500.values * area).reshape(2, 4, 2, 8, 2).sum((2, 4))
    boxes /= np.broadcast_to(area, (2, 8, 16)).reshape(2, 4, 2, 8, 2).sum((2, 4))
    small = grid.coarsen(2)
    coords = {
        "time": ds.time.values,
        "lat": ("lat", small.lat.numpy(), {"units": "degrees_north"}),
        "lon": ("lon", small.lon.numpy(), {"units": "degrees_east"}),
    }
    coarse = xr.Dataset({"z500": (("time", "lat", "lon"), boxes, {"units": "m"})}, coords)
    out = prior.assimilate(coarse, ds.time.values, operator="coarse", std=0.5, settings=SETTINGS)
    made = (out.z500.values * area).reshape(3, 2, 4, 2, 8, 2).sum((3, 5))
    made /= np.broadcast_to(area, (2, 8, 16)).reshape(2, 4, 2, 8, 2).sum((2, 4))
    assert np.abs(made - boxes).max() < 10

    swath = ds[["z500"]].where(ds.lon < 100)
    out = prior.assimilate(
        swath, ds.time.values, operator="mask", std={"z500": 0.5}, settings=SETTINGS
    )
    assert float(abs(out.z500 - swath.z500).max()) < 10

    def speed(fields: Mapping[str, Tensor]) -> Tensor:
        return fields["u850"].mean((-2, -1))

    wanted = np.array([4.0, -4.0])
    out = prior.assimilate(wanted, ds.time.values, operator=speed, std=0.05, settings=SETTINGS)
    assert np.allclose(out.u850.mean(("lat", "lon")), wanted, atol=0.5)


def test_longer_trajectories_are_composed_of_windows() -> None:
    model = untrained(config(head="diffusion", inputs=(), targets=(0, 12, 24), base="cell"))
    ds = world(n=6)
    out = model.assimilate(stations(ds), ds.time.values, settings=SETTINGS)
    assert out.sizes["time"] == 6 and (out.time.values == ds.time.values).all()
    assert bool(np.isfinite(out.z500).all())


def test_what_cannot_be_assimilated_is_refused(prior: WeatherModel) -> None:
    ds = world(n=4)
    table, times = stations(ds.isel(time=slice(0, 2))), ds.time.values[:2]
    with pytest.raises(ValueError, match="needs a prior"):
        untrained(config()).assimilate(table, times)
    with pytest.raises(ValueError, match="windows of 2 states"):
        prior.assimilate(table, times[:1])
    with pytest.raises(ValueError, match="h apart"):
        prior.assimilate(table, ds.time.values[[0, 2]])
    with pytest.raises(ValueError, match="std is needed"):
        prior.assimilate(ds[["z500"]], times, operator="mask")
    with pytest.raises(ValueError, match="wants an xarray.Dataset"):
        prior.assimilate(table, times, operator="coarse", std=1.0)
    wrong = ds[["z500"]].copy()
    wrong["z500"].attrs["units"] = "m2 s-2"
    with pytest.raises(ValueError, match="9.80665"):
        prior.assimilate(wrong, times, operator="mask", std=1.0)
    late = ds[["z500"]].assign_coords(time=ds.time + np.timedelta64(900, "D"))
    with pytest.raises(ValueError, match="nothing was observed"):
        prior.assimilate(late, times, operator="mask", std=1.0)
