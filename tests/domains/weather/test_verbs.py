"""What trained models do with datasets: their laws, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from sciffusion.domains.weather import verbs
from sciffusion.domains.weather.fit import fit
from sciffusion.domains.weather.frame import Frame
from sciffusion.domains.weather.model import WeatherModel
from sciffusion.domains.weather.output import ForecastWriter
from sciffusion.domains.weather.task import DataConfig, WeatherTask, WeatherTraining
from tests.domains.weather.tiny import config, task, trained, untrained, world

HEADS = ["diffusion", "ensemble", "mean"]


@pytest.fixture(scope="module", params=HEADS)
def forecaster(request: pytest.FixtureRequest) -> WeatherModel:
    return untrained(config(head=request.param, targets=(12,)))


def test_a_forecast_keeps_names_attributes_and_coordinates(forecaster: WeatherModel) -> None:
    ds = world()
    out = forecaster.forecast(ds, steps=3, members=2)
    assert out.z500.dims == ("member", "time", "prediction_timedelta", "lat", "lon")
    assert dict(out.sizes) == {
        "member": 2,
        "time": 1,
        "prediction_timedelta": 3,
        "lat": 8,
        "lon": 16,
    }
    assert out.z500.attrs == ds.z500.attrs and out.z500.dtype == ds.z500.dtype
    for name in ("lat", "lon"):
        xr.testing.assert_identical(out[name].variable, ds[name].variable)
    assert (
        out.valid_time.values[0] == ds.time.values[-1] + np.arange(1, 4) * np.timedelta64(12, "h")
    ).all()
    assert "orography" not in out and out.attrs == ds.attrs
    assert bool(np.isfinite(out.z500).all())


def test_a_member_depends_on_seed_member_and_time_alone(forecaster: WeatherModel) -> None:
    ds = world()
    times = ds.time.values[[5, 20, 33]]
    many = forecaster.forecast(ds, 2, 3, seed=7, times=times)
    few = forecaster.forecast(ds, 2, 2, seed=7, times=times[1:2], batch_size=1)
    got = many.isel(member=slice(0, 2), time=slice(1, 2))
    np.testing.assert_allclose(got.z500, few.z500, rtol=1e-5)
    np.testing.assert_allclose(got.u850, few.u850, rtol=1e-3, atol=1e-3)
    other = forecaster.forecast(ds, 2, 2, seed=8, times=times[1:2])
    deterministic = forecaster.config.head == "mean"
    assert np.allclose(other.z500, few.z500, rtol=1e-6) == deterministic


def test_longer_forecasts_begin_with_shorter_ones(forecaster: WeatherModel) -> None:
    ds = world()
    long, short = forecaster.forecast(ds, 4, 2), forecaster.forecast(ds, 2, 2)
    np.testing.assert_allclose(
        long.z500.isel(prediction_timedelta=slice(0, 2)), short.z500, rtol=1e-6
    )


def test_a_forecast_is_the_same_wherever_longitudes_begin_and_latitudes_run(
    forecaster: WeatherModel,
) -> None:
    ds = world()
    turned = (
        ds.isel(lat=slice(None, None, -1))
        .assign_coords(lon=(ds.lon + 180) % 360 - 180)
        .sortby("lon")
    )
    turned["lon"].attrs = ds.lon.attrs
    a, b = forecaster.forecast(ds, 2, 2), forecaster.forecast(turned, 2, 2)
    assert (b.lat.values == turned.lat.values).all() and (b.lon.values == turned.lon.values).all()
    back = b.assign_coords(lon=b.lon % 360).sortby("lon").isel(lat=slice(None, None, -1))
    np.testing.assert_allclose(back.z500, a.z500, rtol=1e-6)


def test_lazy_data_are_forecast_like_loaded_ones(forecaster: WeatherModel) -> None:
    pytest.importorskip("dask")
    ds = world()
    a, b = forecaster.forecast(ds, 1, 1), forecaster.forecast(ds.chunk(time=1), 1, 1)
    np.testing.assert_array_equal(a.z500, b.z500)


@pytest.mark.parametrize("suffix", ["nc", "zarr"])
@pytest.mark.parametrize("cut", [1, 3])
def test_a_killed_forecast_goes_on_as_if_nothing_had_happened(
    suffix: str, cut: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = untrained(config(head="ensemble", targets=(12, 24)))
    ds, path = world(), tmp_path / f"forecast.{suffix}"
    whole = model.forecast(ds, 3, 2, seed=5)

    class Killed(Exception):
        pass

    append = ForecastWriter.append
    calls: list[xr.Dataset] = []

    def appended(writer: ForecastWriter, part: xr.Dataset) -> None:
        if len(calls) == cut:
            raise Killed
        calls.append(part)
        append(writer, part)

    monkeypatch.setattr(ForecastWriter, "append", appended)
    with pytest.raises(Killed):
        model.forecast(ds, 3, 2, seed=5, out=path)
    monkeypatch.setattr(ForecastWriter, "append", append)
    with model.forecast(ds, 3, 2, seed=5, out=path) as found:
        assert found.z500.dims == whole.z500.dims
        np.testing.assert_array_equal(found.z500, whole.z500)
        np.testing.assert_array_equal(found.u850, whole.u850)
    with pytest.raises(ValueError, match="another forecast"):
        model.forecast(ds, 3, 2, seed=6, out=path)


def test_steps_may_make_several_times_that_become_inputs() -> None:
    model = untrained(config(head="mean", targets=(12, 24)))
    out = model.forecast(world(), steps=2)
    hours = out.prediction_timedelta.values / np.timedelta64(1, "h")
    assert hours.tolist() == [12, 24, 36, 48]
    # a second forecast from the states of the first goes on as the first did
    first = (
        out.isel(member=0, time=0)
        .drop_vars(["time", "member"])
        .swap_dims(prediction_timedelta="valid_time")
    )
    first = first.rename(valid_time="time").drop_vars("prediction_timedelta").isel(time=slice(0, 2))
    first = first.transpose("time", "lat", "lon")
    again = model.forecast(xr.merge([first, world()[["orography"]]]), steps=1)
    np.testing.assert_allclose(again.z500.values[0, 0], out.z500.values[0, 0, 2:], rtol=1e-5)


@pytest.fixture(scope="module")
def downscaler() -> WeatherModel:
    return untrained(config(head="diffusion", inputs=(0,), targets=(0,), coarse=2, base="coarse"))


def coarse(model: WeatherModel, ds: xr.Dataset) -> xr.Dataset:
    """Box means of the small world."""
    frame: Frame = model.frame
    fitted = fit(frame, ds)
    assert frame.grid is not None
    means = frame.coarsen(fitted.read(np.arange(ds.sizes["time"])), frame.grid)
    small = frame.grid.coarsen(2)
    coords = {
        "time": ds.time,
        "lat": ("lat", small.lat.numpy(), ds.lat.attrs),
        "lon": ("lon", small.lon.numpy(), ds.lon.attrs),
    }
    data = {
        name: (("time", "lat", "lon"), means[:, k].numpy(), ds[name].attrs)
        for k, name in enumerate(frame.names)
    }
    return xr.Dataset(data, coords)


def test_downscaling_returns_the_fine_grid_and_untrained_networks_add_nothing(
    downscaler: WeatherModel,
) -> None:
    ds = world(n=6)
    out = downscaler.downscale(coarse(downscaler, ds), members=2, seed=1)
    assert dict(out.sizes) == {"member": 2, "time": 6, "lat": 8, "lon": 16}
    np.testing.assert_allclose(out.lat, ds.lat, atol=1e-6)
    np.testing.assert_allclose(out.lon, ds.lon, atol=1e-6)
    assert out.z500.attrs == ds.z500.attrs


def test_downscaled_members_depend_on_seed_member_and_time_alone(downscaler: WeatherModel) -> None:
    small = coarse(downscaler, world(n=6))
    many = downscaler.downscale(small, members=3, seed=1)
    few = downscaler.downscale(small.isel(time=slice(2, 4)), members=1, seed=1, batch_size=1)
    np.testing.assert_allclose(many.z500[:1, 2:4], few.z500, rtol=1e-5)


def test_a_model_of_patches_serves_any_grid() -> None:
    model = config(
        head="mean",
        inputs=(0,),
        targets=(0,),
        coarse=2,
        base="coarse",
        place=False,
        statics=(),
        vectors=(),
    )
    made = task(model, data=DataConfig(patch=(4, 8), stride=(2, 4)))
    assert len(made.cases) == 40 * 3 * 3
    local = WeatherModel.from_training(made, made.model().state_dict())
    region = world(lat=36, lon=72).isel(lat=slice(4, 10), lon=slice(60, 70))
    out = local.downscale(region, members=1)
    assert dict(out.sizes) == {"member": 1, "time": 40, "lat": 12, "lon": 20}
    assert float(out.lat.diff("lat").mean()) == pytest.approx(-2.5)
    inside = out.z500[0, 0, 1:-1, 1:-1]
    assert float(inside.min()) >= float(region.z500[0].min()) and float(inside.max()) <= float(
        region.z500[0].max()
    )


def test_interpolation_keeps_what_is_given_and_fills_between() -> None:
    model = untrained(config(head="diffusion", inputs=(0, 24), targets=(12,), base="linear"))
    ds = world(n=9)
    given = ds.isel(time=slice(0, None, 2))
    out = model.interpolate_time(given, members=2)
    assert (out.time.values == ds.time.values).all()
    np.testing.assert_array_equal(out.z500[0, ::2], given.z500)
    assert not np.allclose(out.z500[0, 1::2], out.z500[1, 1::2])


def test_a_prior_samples_weather_at_any_time() -> None:
    model = untrained(config(head="diffusion", inputs=(), targets=(0,), base="cell"))
    times = np.array(["2010-01-01T00", "2010-07-01T12"], "datetime64[ns]")
    out = model.sample(3, times, seed=4)
    assert dict(out.sizes) == {"member": 3, "time": 2, "lat": 8, "lon": 16}
    assert out.z500.attrs == {"units": "m"}
    np.testing.assert_allclose(out.z500[:1, 1:], model.sample(1, times[1:], seed=4).z500, rtol=1e-5)
    windows = untrained(config(head="diffusion", inputs=(), targets=(0, 12), base="cell"))
    assert windows.sample(2, times[:1]).sizes["prediction_timedelta"] == 2


@pytest.mark.parametrize("head", HEADS)
def test_training_teaches_the_wave_and_a_file_keeps_it(head: str, tmp_path: Path) -> None:
    model = trained(config(head=head, targets=(12,), inputs=(-12, 0)), tmp_path)
    ds = world(seed=5)
    times = ds.time.values[5:30:4]
    out = model.forecast(ds, 1, 8, times=times)
    truth = ds.z500.sel(time=times + np.timedelta64(12, "h")).values
    last = ds.z500.sel(time=times).values
    error = np.sqrt(((out.z500.mean("member").values[:, 0] - truth) ** 2).mean())
    assert error < 0.95 * np.sqrt(((last - truth) ** 2).mean())
    again = WeatherModel.from_file(tmp_path / "model.safetensors")
    assert again.config == model.config and again.frame.names == model.frame.names
    np.testing.assert_allclose(again.forecast(ds, 1, 2, times=times).z500, out.z500[:2], atol=1.0)


def test_residuals_of_a_regression_are_those_of_data_that_it_did_not_see() -> None:
    made = task(config(head="mean", inputs=(0,), targets=(0,), coarse=2, base="ridge"), world(n=60))
    indices = np.arange(60)
    batch = made.cases.batch(indices)
    seen = made.frame.base(batch.inputs, batch.times, made.frame.grid)
    unseen = made.cases.base(made.frame, indices, batch, made.frame.grid)
    error = [float((batch.targets - b).square().mean()) for b in (seen, unseen)]
    assert error[1] > 1.2 * error[0]
    fresh = task(
        config(head="mean", inputs=(0,), targets=(0,), coarse=2, base="ridge"), world(n=60, seed=3)
    )
    new = fresh.cases.batch(indices)
    outside = float(
        (new.targets - made.frame.base(new.inputs, new.times, made.frame.grid)).square().mean()
    )
    assert abs(outside / error[1] - 1) < abs(outside / error[0] - 1)


def test_a_diffusion_stands_on_a_deterministic_model(tmp_path: Path) -> None:
    mean = untrained(config(head="mean", targets=(12,)))
    training = WeatherTraining(model=config(head="diffusion", targets=(12,), base="model"))
    made = WeatherTask(training, world(), world(seed=9), mean)
    model = WeatherModel.from_training(made, made.model().state_dict())
    ratio = model.frame.spread / made.frame.spread
    assert not torch.equal(ratio, torch.ones_like(ratio))  # the spread of data that were not seen
    out = model.forecast(world(), 2, 2, seed=3)
    again = WeatherModel.from_file(model.save(tmp_path / "m.safetensors")).forecast(
        world(), 2, 2, seed=3
    )
    np.testing.assert_allclose(again.z500, out.z500, atol=1.0)
    with pytest.raises(ValueError, match="needs a deterministic model"):
        WeatherTask(training, world())


def bad(name: str) -> xr.Dataset:
    ds = world()
    match name:
        case "variable":
            return ds.drop_vars("u850")
        case "units":
            ds["z500"].attrs["units"] = "m2 s-2"
        case "grid":
            return ds.isel(lat=slice(1, None))
        case "gap":
            return ds.isel(time=[0, 1, 5])
    return ds


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("variable", "u850"),
        ("units", "9.80665"),
        ("grid", "another grid than the model"),
        ("gap", "no time"),
    ],
)
def test_data_that_do_not_fit_a_model_are_refused(name: str, message: str) -> None:
    model = untrained(config(head="mean", targets=(12,)))
    with pytest.raises(ValueError, match=message):
        model.forecast(bad(name), 1)


def test_a_model_refuses_what_it_was_not_made_for(downscaler: WeatherModel) -> None:
    forecaster = untrained(config(head="mean", targets=(12,)))
    ds = world()
    with pytest.raises(ValueError, match="does not downscale"):
        forecaster.downscale(ds)
    with pytest.raises(ValueError, match="does not interpolate"):
        forecaster.interpolate_time(ds)
    with pytest.raises(ValueError, match="only a prior"):
        forecaster.sample(1, ds.time.values[:1])
    with pytest.raises(ValueError, match="needs a model of later targets"):
        downscaler.forecast(ds, 1)
    with pytest.raises(ValueError, match="not known"):
        untrained(config(head="mean", targets=(24,))).forecast(ds, 2)
    with pytest.raises(ValueError, match="another grid"):
        downscaler.downscale(ds)
    with pytest.raises(ValueError, match="members must be at least 1"):
        verbs.forecast(forecaster, ds, 1, 0)
