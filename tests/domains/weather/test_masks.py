"""Fields of the sea alone: land stays NaN whatever a model does with them, and teaches nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from sciffusion.domains.weather.adapter import GridNet, ModelConfig
from sciffusion.domains.weather.model import WeatherModel
from sciffusion.domains.weather.task import ObjectiveConfig
from tests.domains.weather.tiny import config, task, untrained, world

LAND = np.zeros((8, 16), dtype=bool)
LAND[2:4, 4:8] = True
HEADS = ["diffusion", "ensemble", "mean"]


def sea(n: int = 12, seed: int = 0) -> xr.Dataset:
    """The small world; z500 is known at sea alone, u850 everywhere."""
    ds = world(n=n, seed=seed)
    return ds.assign(z500=ds.z500.where(~xr.DataArray(LAND, dims=("lat", "lon"))))


def check(out: xr.Dataset) -> None:
    """NaN over land, numbers elsewhere."""
    z = out.z500.transpose(..., "lat", "lon").values
    assert np.isnan(z[..., LAND]).all() and np.isfinite(z[..., ~LAND]).all()
    assert bool(np.isfinite(out.u850).all())


def model(head: str, **settings: object) -> WeatherModel:
    return untrained(config(head=head, **settings), sea())


@pytest.mark.parametrize("head", HEADS)
def test_forecasts_keep_the_land_over_several_steps(head: str) -> None:
    check(model(head, targets=(12,)).forecast(sea(), 3, 2, progress=False))


@pytest.mark.parametrize("head", HEADS)
def test_states_between_two_keep_the_land(head: str) -> None:
    made = model(head, inputs=(0, 24), targets=(12,), base="linear")
    check(made.interpolate_time(sea().isel(time=slice(None, None, 2)), 2, progress=False))


def test_samples_of_a_prior_keep_the_land() -> None:
    prior = model("diffusion", inputs=(), targets=(0,), base="cell")
    check(prior.sample(2, sea().time.values[[0, 5]], progress=False))


def test_downscaled_fields_keep_the_land() -> None:
    """Boxes of the coarse field that hold land alone are NaN as well."""
    made = model("diffusion", inputs=(0,), targets=(0,), coarse=2, base="coarse")
    small = sea().coarsen(lat=2, lon=2).mean()
    for name in ("z500", "u850"):
        small[name].attrs = sea()[name].attrs
    for name in ("lat", "lon"):
        small[name].attrs = sea()[name].attrs
    assert bool(small.z500.isnull().any())
    check(made.downscale(small[["z500", "u850"]], 2, progress=False))


PRIOR = config(head="diffusion", inputs=(), targets=(0, 12), base="cell")
ENSEMBLE, MEAN = config(head="ensemble", targets=(12,)), config(head="mean", targets=(12, 24))


@pytest.mark.parametrize(
    ("settings", "rollout"), [(PRIOR, 1), (ENSEMBLE, 1), (ENSEMBLE, 2), (MEAN, 1), (MEAN, 2)]
)
def test_what_a_network_says_of_the_land_does_not_change_the_loss(
    settings: ModelConfig, rollout: int
) -> None:
    made = task(settings, sea(), objective=ObjectiveConfig(rollout=rollout))
    assert made.frame.mask is not None and torch.equal(~made.frame.mask[0], torch.from_numpy(LAND))
    module = made.model()
    torch.manual_seed(0)
    for p in module.parameters():
        if p.ndim > 1:
            torch.nn.init.normal_(p, std=0.1)
    batch = made.batch(np.arange(4), 0, torch.device("cpu"))
    land = (~made.frame.mask).repeat(len(settings.targets), 1, 1)
    net = module.net
    assert isinstance(net, GridNet)
    body = net.body

    class Wrong(nn.Module):
        """Makes something up over land."""

        def forward(self, x: torch.Tensor, embedding: torch.Tensor | None) -> torch.Tensor:
            out: torch.Tensor = body(x, embedding)
            return out + 50.0 * land

    def loss() -> float:
        with torch.no_grad():
            return float(made.loss(module, batch, 1).mean)

    right = loss()
    net.body = Wrong()
    assert loss() == pytest.approx(right, rel=1e-6)


def test_land_does_not_enter_what_is_measured() -> None:
    """Whatever stood there before it was masked: scales, spreads and residuals are those of the sea."""
    a = task(config(head="mean", targets=(12,)), sea())
    states = sea().z500.values[:, ~LAND]
    area = np.broadcast_to(a.frame.grid.area.numpy(), LAND.shape)[~LAND]  # type: ignore[union-attr]
    mean = (states * area).sum() / (area.sum() * len(states))
    assert float(a.frame.scales.mean[0]) == pytest.approx(mean, rel=1e-5)
    batch = a.cases.batch(np.arange(4))
    base = a.cases.base(a.frame, np.arange(4), batch, a.grid)
    shifted = replace(batch, targets=batch.targets + 9.0 * torch.from_numpy(LAND))
    r, other = (a.frame.residual(b.targets, base)[:, 0] for b in (batch, shifted))
    assert torch.equal(r, other) and bool((r[:, LAND] == 0).all())
    assert float(a.frame.weights(a.grid)[0][LAND].abs().max()) == 0
