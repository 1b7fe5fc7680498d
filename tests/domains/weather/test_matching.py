"""Cells count by their area, and a truth is laid over the ensemble's cells and times or refused."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from sciffusion.domains.weather import metrics
from sciffusion.domains.weather.evaluation import evaluate
from sciffusion.domains.weather.matching import area_weights, average
from tests.domains.weather.ensembles import field, gaussian


@pytest.fixture(scope="module")
def perfect() -> tuple[xr.DataArray, xr.DataArray]:
    return gaussian(8, 40)


def test_means_weigh_cells_by_area_exactly_even_at_poles() -> None:
    # sin^2(latitude) averages to 1/3 over the sphere
    for latitude in (np.linspace(90, -90, 91), np.linspace(-89, 89, 90)):
        x = field(
            np.sin(np.radians(latitude))[:, None] ** 2 * np.ones(12),
            latitude=latitude,
            longitude=np.arange(12) * 30.0,
        )
        assert average(x).item() == pytest.approx(1 / 3, abs=2e-4)
        weights = area_weights(x)
        assert float(weights.mean()) == pytest.approx(1)
        np.testing.assert_allclose(weights, weights[::-1])
    assert area_weights(x)[0] < area_weights(x)[1] < area_weights(x)[45]


@pytest.mark.parametrize("step", [-1, 1])
def test_rows_of_a_region_keep_their_own_area_whether_they_run_north_or_south(step: int) -> None:
    latitude = np.arange(50.0, 81.0, 2.0)[::step]  # no mirror image at the equator
    x = field(np.ones((16, 4)), latitude=latitude, longitude=np.arange(4) * 2.0)
    cells = np.sin(np.radians(latitude + 1)) - np.sin(np.radians(latitude - 1))
    np.testing.assert_allclose(area_weights(x), cells / cells.mean(), rtol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.isel(latitude=slice(0, 12)), "lacks 4 of the 16 entries of 'latitude'"),
        (lambda x: x.assign_coords(longitude=x.longitude - 180), "entries of 'longitude'"),
        (lambda x: x.isel(time=slice(1, None)), "lacks 1 of the 3 entries of 'time'"),
        (lambda x: x.isel(time=0), "must be the same but for the members"),
        (lambda x: x.expand_dims("member"), "select one of its members"),
        (lambda x: x.assign_attrs(units="degC"), r"in 'K', its truth in 'degC'.*x - 273.15"),
        (lambda x: x.isel(time=[0, 1, 1, 2]), "2001-01-02 00:00:00 more than once"),
        (lambda x: x.sel(longitude=slice(0, 90)), "entries of 'longitude'"),
        (lambda x: x.rename(longitude="x", latitude="y"), "must be the same but for the members"),
    ],
)
def test_a_truth_that_does_not_fit_is_refused(
    change: Callable[[xr.DataArray], xr.DataArray],
    message: str,
    perfect: tuple[xr.DataArray, xr.DataArray],
) -> None:
    ensemble, truth = (x.isel(time=slice(3)) for x in perfect)
    with pytest.raises(ValueError, match=message):
        metrics.crps(ensemble, change(truth))


def test_fields_without_a_place_or_in_no_order_are_refused(
    perfect: tuple[xr.DataArray, xr.DataArray],
) -> None:
    ensemble, truth = (x.isel(time=slice(3)) for x in perfect)
    shuffled = np.random.default_rng(0).permutation(16)
    with pytest.raises(ValueError, match="neither rises nor falls"):
        metrics.crps(*(x.isel(latitude=shuffled) for x in (ensemble, truth)))
    with pytest.raises(ValueError, match="has no latitude"):
        metrics.crps(*(x.drop_vars("latitude").rename(latitude="row") for x in (ensemble, truth)))
    with pytest.raises(ValueError, match=r"dim names \['level'\]"):
        metrics.crps(ensemble, truth, dim=("level",))


def test_valid_times_are_found_in_any_calendar_and_missing_ones_are_named() -> None:
    ensemble, truth = gaussian(3, 6, rows=8, columns=16)
    days = xr.date_range("2001-02-26", periods=6, calendar="noleap", use_cftime=True)
    leads = xr.IndexVariable(
        "lead", np.array([0, 2]) * np.timedelta64(1, "D").astype("timedelta64[ns]")
    )
    forecast = xr.concat(
        [ensemble[:, :4], ensemble[:, 2:].assign_coords(time=ensemble.time[:4])], leads
    )
    expected = metrics.crps(forecast, truth)
    other = forecast.assign_coords(time=days[:4]), truth.assign_coords(time=days)
    np.testing.assert_allclose(metrics.crps(*other), expected)
    report = evaluate(other[0].to_dataset(), other[1].to_dataset(), n_boot=10)
    assert report["t2m +48 h", "crps"].value == pytest.approx(expected[1].item())
    with pytest.raises(ValueError, match="lacks 1 valid times at lead 48 h"):
        metrics.crps(forecast, truth.isel(time=slice(5)))


def test_a_truth_in_single_precision_or_with_more_times_fits(
    perfect: tuple[xr.DataArray, xr.DataArray],
) -> None:
    ensemble, truth = perfect
    rounded = truth.assign_coords(latitude=truth.latitude.astype(np.float32))
    part = ensemble.isel(time=slice(5, 8))
    expected = metrics.crps(part, truth.isel(time=slice(5, 8))).item()
    assert metrics.crps(part, rounded).item() == pytest.approx(expected)
