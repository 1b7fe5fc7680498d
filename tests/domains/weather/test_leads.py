"""One model of several leads: of air that is carried around the globe it learns the way for each of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from sciffusion.domains.weather.adapter import ModelConfig, UNetConfig
from sciffusion.domains.weather.api import train
from sciffusion.domains.weather.fields import Fields
from sciffusion.domains.weather.measure import measure
from sciffusion.domains.weather.model import WeatherModel
from sciffusion.domains.weather.task import ObjectiveConfig, WeatherTraining
from sciffusion.training import TrainConfig
from tests.domains.weather.tiny import config, task, untrained, world

LEADS = (6, 12, 24)
RING = ModelConfig(
    network=UNetConfig(widths=(16,), blocks=2, attention=(False,), embedding=32),
    variables=("q",),
    inputs=(0,),
    targets=(0,),
    leads=LEADS,
    head="mean",
    place=False,
)


def carried(runs: int, seed: int = 0) -> xr.Dataset:
    """Random waves that move by one column in six hours, for thirty hours each, with a day between the runs."""
    rng = np.random.default_rng(seed)
    lon, hours = np.arange(16) * 22.5, np.arange(0, 36, 6)
    k = np.arange(1, 4)
    size = rng.standard_normal((2, runs, 1, 4, 1, 3)) / k
    at = np.deg2rad(lon - 22.5 * hours[:, None] / 6)[:, None, :, None] * k
    x = (size[0] * np.cos(at) + size[1] * np.sin(at)).sum(-1)
    starts = np.datetime64("2001-01-01", "ns") + np.arange(runs) * np.timedelta64(66, "h")
    times = (starts[:, None] + hours * np.timedelta64(1, "h")).reshape(-1)
    coords = {"time": times, "lat": [67.5, 22.5, -22.5, -67.5], "lon": lon}
    q = (("time", "lat", "lon"), x.reshape(-1, 4, 16).astype(np.float32), {"units": "1"})
    return xr.Dataset({"q": q}, coords)


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> WeatherModel:
    settings = TrainConfig(steps=150, batch_size=32, lr=8e-3, warmup=20, print_seconds=1e9)
    training = WeatherTraining(model=RING, train=settings)
    return train(training, tmp_path_factory.mktemp("ring"), carried(100))[0]


def error(model: WeatherModel, hours: int, lead: int) -> float:
    """Of a forecast over these hours in steps of the lead, over the deviation of the field."""
    ds = carried(40, seed=1)
    starts = ds.time.values[::6]
    out = model.forecast(ds, hours // lead, times=starts, lead=lead, progress=False)
    got = out.q.isel(member=0, prediction_timedelta=-1).values
    truth = ds.q.sel(time=starts + np.timedelta64(hours, "h")).values
    return float(np.sqrt(((got - truth) ** 2).mean() / truth.var()))


@pytest.mark.parametrize("lead", LEADS)
def test_each_lead_is_carried_its_own_way(ring: WeatherModel, lead: int) -> None:
    """The errors of persistence are 0.5, 0.9 and 1.4."""
    assert error(ring, lead, lead) < 0.2


@pytest.mark.parametrize(("hours", "lead"), [(24, 6), (24, 12), (30, 6)])
def test_steps_of_one_lead_reach_other_times(ring: WeatherModel, hours: int, lead: int) -> None:
    assert error(ring, hours, lead) < 0.3


def test_a_file_keeps_the_leads_and_the_longest_is_the_usual_one(
    ring: WeatherModel, tmp_path: Path
) -> None:
    again = WeatherModel.from_file(ring.save(tmp_path / "ring.safetensors"))
    ds = carried(2, seed=2)
    out, longest = (m.forecast(ds, 1, progress=False) for m in (again, ring))
    assert out.prediction_timedelta.values / np.timedelta64(1, "h") == [24]
    np.testing.assert_allclose(out.q, longest.q, atol=0.02)


def test_every_time_is_a_case_of_every_lead_that_the_data_reach() -> None:
    ds = carried(3)
    frame, cases = measure(RING, Fields.of(ds, ["q"]))
    lead = cases.table[:, -1]
    assert [int((lead == h).sum()) for h in LEADS] == [15, 12, 6]
    rows = np.arange(len(cases))
    batch = cases.batch(rows)
    states = frame.decode(batch.targets)[:, 0, 0].numpy()
    moments = ds.time.values[cases.table[:, 0]] + batch.leads * np.timedelta64(1, "h")
    np.testing.assert_allclose(states, ds.q.sel(time=moments).values, atol=1e-5)
    base = cases.base(frame, rows, batch, frame.grid)
    r = frame.residual(batch.targets, base, batch.leads)
    for h in LEADS:  # all leads are seen at the same size
        part = r[lead == h] * frame.grid.area.float().sqrt()  # type: ignore[union-attr]
        assert float(part.square().mean()) == pytest.approx(1, rel=1e-4)
    assert torch.allclose(frame.targets(r, base, batch.leads), batch.targets, atol=1e-5)


@pytest.mark.parametrize("head", ["diffusion", "ensemble"])
def test_windows_of_states_follow_each_other_at_any_lead(head: str, tmp_path: Path) -> None:
    """Inputs 12 hours apart, so each step makes two such states; killed half way, it goes on as if nothing had been."""
    model = untrained(config(head=head, inputs=(-12, 0), targets=(-12, 0), leads=(24, 36)))
    ds = world()
    whole = model.forecast(ds, 3, 2, seed=1, lead=24, progress=False)
    hours = whole.prediction_timedelta.values / np.timedelta64(1, "h")
    assert hours.tolist() == [12, 24, 36, 48, 60, 72]
    path = tmp_path / "f.zarr"
    with model.forecast(ds, 3, 2, seed=1, lead=24, out=path, progress=False) as out:
        np.testing.assert_array_equal(out.z500, whole.z500)
    with pytest.raises(ValueError, match="another forecast"):
        model.forecast(ds, 2, 2, seed=1, lead=36, out=path, progress=False)
    other = model.forecast(ds, 2, 1, lead=36, batch_size=1, progress=False)
    assert (other.prediction_timedelta.values / np.timedelta64(1, "h")).tolist() == [24, 36, 60, 72]


@pytest.mark.parametrize("lead", [3, 18, 30])
def test_other_leads_are_refused(ring: WeatherModel, lead: int) -> None:
    with pytest.raises(
        ValueError, match=rf"lead {lead} h is none of .*\(6, 12, 24\).*several steps"
    ):
        ring.forecast(carried(1), 1, lead=lead)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"leads": (24,)}, "at least two"),
        ({"leads": (24, 12)}, "rising"),
        ({"leads": (6, 12), "targets": (-12, 0)}, "after the start"),
        ({"leads": (6, 12), "targets": (6,)}, "end with 0"),
        ({"leads": (6, 12), "targets": (0,), "inputs": ()}, "made of inputs"),
        ({"leads": (6, 12), "targets": (0,), "inputs": (0,), "base": "linear"}, "no leads"),
    ],
)
def test_settings_of_leads_that_make_no_sense_are_refused(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        config(**settings)


def test_what_knows_no_leads_says_so() -> None:
    with pytest.raises(ValueError, match="leave it out"):
        untrained(config(head="mean", targets=(12,))).forecast(world(), 1, lead=12)
    several = config(head="mean", inputs=(0,), targets=(0,), leads=(12, 24))
    with pytest.raises(ValueError, match="rollout to 1"):
        task(several, objective=ObjectiveConfig(rollout=2))
    with pytest.raises(ValueError, match="leads is missing"):
        made = untrained(several)
        made.predict(torch.zeros(1, 1, 2, 8, 16), world().time.values[:1], made.frame.grid)
