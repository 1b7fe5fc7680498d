"""Months of the calendar as the steps of a prior: counted, moved, learnt from, and handed back as they were."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from sciffusion.domains.weather.adapter import ModelConfig
from sciffusion.domains.weather.assimilation import Assimilation
from sciffusion.domains.weather.cases import Cases
from sciffusion.domains.weather.fields import Fields
from sciffusion.domains.weather.measure import measure
from sciffusion.domains.weather.model import WeatherModel
from sciffusion.domains.weather.times import clock, shift, ticks
from sciffusion.inverse import MMPS
from sciffusion.samplers import Multistep, Sampler
from tests.domains.weather.tiny import config, untrained, world

CALENDARS = ("standard", "noleap", "360_day", "julian")
PRIOR = config(head="diffusion", inputs=(), targets=(0, 1, 2), unit="month", base="zero")
SETTINGS = Assimilation(MMPS(1), Sampler(Multistep(1, eta=1.0), 3), members=2)


def dates(calendar: str, n: int = 30, day: int = 15) -> np.ndarray:
    """Mid-months, as datetime64 for the usual calendar and as cftime objects for others."""
    if calendar == "standard":
        months = np.arange(n) + np.datetime64("1999-11", "M")
        return (months.astype("datetime64[D]") + np.timedelta64(day - 1, "D")).astype(
            "datetime64[ns]"
        )
    start = f"1999-11-{day:02d}"
    found = xr.date_range(start, periods=1, calendar=calendar, use_cftime=True).to_numpy()
    return np.concatenate([shift(found, k, "month") for k in range(n)])


def monthly(calendar: str = "standard", n: int = 12) -> xr.Dataset:
    """The small world, its states a month apart."""
    return world(n=n).assign_coords(time=dates(calendar, n))


@pytest.mark.parametrize("calendar", CALENDARS)
def test_moving_by_months_and_back_returns_to_the_day(calendar: str) -> None:
    times = dates(calendar)
    for k in (-25, -12, -1, 0, 1, 11, 14):
        moved = shift(times, k, "month")
        assert (shift(moved, -k, "month") == times).all()
        assert (clock(moved, times[0], "month") == np.arange(len(times)) + k).all()
        assert (shift(shift(times, k, "month"), 3, "month") == shift(times, k + 3, "month")).all()


@pytest.mark.parametrize("calendar", CALENDARS)
def test_a_year_of_months_is_a_year(calendar: str) -> None:
    when = xr.DataArray(shift(dates(calendar), 12, "month"), dims="time").dt
    before = xr.DataArray(dates(calendar), dims="time").dt
    assert (when.year == before.year + 1).all()
    assert (when.month == before.month).all() and (when.day == before.day).all()


@pytest.mark.parametrize("calendar", CALENDARS)
def test_a_month_that_lacks_the_day_gives_its_last(calendar: str) -> None:
    day = 30 if calendar == "360_day" else 31
    times = dates(calendar, 1, 30)
    for k in range(24):
        moved = xr.DataArray(shift(times, k, "month"), dims="time").dt
        want = np.minimum(30, np.asarray(moved.days_in_month))
        assert int(moved.day[0]) == int(want[0]) <= day


def test_the_hour_of_the_day_survives() -> None:
    time = np.array(["2001-01-31T18:30"], "datetime64[ns]")
    assert str(shift(time, 1, "month")[0]).startswith("2001-02-28T18:30:00")
    assert str(shift(time, 37, "month")[0]).startswith("2004-02-29T18:30:00")


def test_a_date_stands_for_its_month_and_gaps_cost_their_neighbours() -> None:
    times = np.array(
        ["2001-01-31", "2001-02-01", "2001-03-16", "2001-05-02", "2001-06-30", "2001-07-01"],
        "datetime64[ns]",
    )
    fields = Fields.of(world(n=6).assign_coords(time=times))
    assert fields.starts([0, 1, 2], "month").tolist() == [0, 3]
    assert fields.at([0, 3], [0, 1, 2], "month").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert fields.starts([0, 4], "month").tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="lack 2 of the months"):
        fields.at([2], [1, 5], "month")


def test_two_states_in_one_month_and_parts_of_months_are_refused() -> None:
    times = np.array(["2001-01-01", "2001-01-31"], "datetime64[ns]")
    with pytest.raises(ValueError, match="one state a month.*2001-01-01"):
        Fields.of(world(n=2).assign_coords(time=times)).starts([0], "month")
    with pytest.raises(ValueError, match="whole, got 0.5"):
        ticks(0.5, "month")
    with pytest.raises(ValueError, match="month"):
        ModelConfig(inputs=(-1, 0), targets=(1,), unit="month")


def test_windows_of_months_are_the_states_that_follow_each_other() -> None:
    ds = monthly(n=14)
    frame, cases = measure(PRIOR, Fields.of(ds, ["z500", "u850"]))
    assert isinstance(cases, Cases) and len(cases) == 12
    made = frame.decode(cases.batch(np.arange(12)).targets)
    for case, k in product((0, 3, 11), range(3)):
        np.testing.assert_allclose(
            made[case, k, 0].numpy(), ds.z500[case + k].values, rtol=1e-5, atol=1e-2
        )


@pytest.mark.parametrize("calendar", CALENDARS)
def test_an_analysis_of_months_comes_back_on_the_dates_asked_for(calendar: str) -> None:
    ds = monthly(calendar, 5)
    model = untrained(PRIOR, ds)
    rows = [(t, 0.0, 90.0, "z500", 5500.0, 10.0) for t in ds.time.values]
    table = pd.DataFrame(rows, columns=["time", "lat", "lon", "variable", "value", "std"])
    out = model.assimilate(table, ds.time.values, settings=SETTINGS)
    assert (out.time.values == ds.time.values).all() and out.sizes["member"] == 2
    with pytest.raises(ValueError, match="months apart"):
        model.assimilate(table[::2], ds.time.values[[0, 2, 4]])


def test_samples_of_windows_count_their_months(tmp_path: Path) -> None:
    model = untrained(PRIOR, monthly())
    out = model.sample(2, np.array(["2003-12-31"], "datetime64[ns]"), progress=False)
    assert out.prediction_timedelta.values.tolist() == [0, 1, 2]
    assert out.prediction_timedelta.units == "months"
    want = np.array(["2003-12-31", "2004-01-31", "2004-02-29"], "datetime64[D]")
    assert (out.valid_time.values[0].astype("datetime64[D]") == want).all()
    again = WeatherModel.from_file(model.save(tmp_path / "prior.safetensors"))
    assert again.config.unit == "month"
