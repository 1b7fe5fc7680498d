"""Tables of observations: sorted to the window's times and channels, whatever their layout."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from torch import Tensor

from sciffusion.domains.weather.fields import Channel
from sciffusion.domains.weather.grid import Grid
from sciffusion.domains.weather.observed import Observations, Report
from sciffusion.domains.weather.scales import Scales
from sciffusion.domains.weather.stations import read_stations

GRID = Grid(torch.linspace(60, -60, 5).double(), torch.linspace(0, 315, 8).double())
CHANNELS = (Channel("z500", None), Channel("t", 850.0), Channel("t", 500.0))
TIMES = np.array(["2001-01-01T00", "2001-01-01T12", "2001-01-02T00"], "datetime64[ns]")
ROWS = pd.DataFrame(
    {
        "time": ["2001-01-01T12:00", "2001-01-01T00:20", "2001-01-01T12", "2001-01-02"],
        "latitude": [30.0, 0.0, -60.0, 0.0],
        "longitude": [-45.0, 315.0, 10.0, 725.0],
        "variable": ["t", "z500", "t:850", "t"],
        "level": [850, np.nan, np.nan, 500],
        "value": [280.0, 5500.0, 281.0, 260.0],
        "std": [1.0, 10.0, 2.0, 3.0],
    }
)


def fields() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, 3, 3, 5, 8, generator=generator, dtype=torch.float64)


def seen(reports: tuple[Report, ...]) -> Tensor:
    return Observations(reports, Scales(torch.zeros(3, 1, 1), torch.ones(3, 1, 1))).see(fields())[0]


def test_rows_are_sorted_to_times_and_channels() -> None:
    reports = read_stations(ROWS, GRID, CHANNELS, TIMES)
    assert [(r.step, r.name) for r in reports] == [(0, "z500"), (1, "t:850"), (2, "t:500")]
    assert [r.values.tolist() for r in reports] == [[5500.0], [280.0, 281.0], [260.0]]
    assert reports[1].std.tolist() == [1.0, 2.0]  # type: ignore[union-attr]
    x = fields()[0]
    between = x[1, 1, 4, 0] * 35 / 45 + x[1, 1, 4, 1] * 10 / 45
    far = x[2, 2, 2, 0] * 40 / 45 + x[2, 2, 2, 1] * 5 / 45
    want = torch.stack([x[0, 0, 2, 7], x[1, 1, 1, 7], between, far])
    assert torch.allclose(seen(reports), want)


def test_a_dataset_says_the_same_as_the_table_it_came_from() -> None:
    rows = xr.Dataset.from_dataframe(ROWS)
    a, b = (read_stations(t, GRID, CHANNELS, TIMES) for t in (ROWS, rows))
    assert torch.equal(seen(a), seen(b))


def test_stations_may_come_as_variables_over_time_and_station() -> None:
    values = np.array([[5500.0, np.nan], [5510.0, 5400.0]])
    temperature = np.array([[280.0, 281.0], [282.0, 283.0]])[..., None]
    ds = xr.Dataset(
        {
            "z500": (("time", "station"), values),
            "t": (("time", "station", "level"), temperature),
            "wind": (("time", "station"), values),
        },
        {
            "time": TIMES[:2],
            "lat": ("station", [0.0, 30.0]),
            "lon": ("station", [-10.0, 20.0]),
            "level": [850],
        },
    )
    with pytest.warns(UserWarning, match="1 of 8 observations are NaN"):
        reports = read_stations(ds, GRID, CHANNELS, TIMES, std={"z500": 10.0, "t": 1.0})
    found = {(r.step, r.name): (r.values.tolist(), float(r.std[0])) for r in reports}  # type: ignore[index]
    assert found == {
        (0, "z500"): ([5500.0], 10.0),
        (0, "t:850"): ([280.0, 281.0], 1.0),
        (1, "z500"): ([5510.0, 5400.0], 10.0),
        (1, "t:850"): ([282.0, 283.0], 1.0),
    }


def test_times_of_other_calendars_and_zones_are_told_apart() -> None:
    noleap = xr.date_range("2001-01-01", periods=3, freq="12h", calendar="noleap", use_cftime=True)
    rows = ROWS.assign(time=[noleap[1], noleap[0], noleap[1], noleap[2]])
    assert torch.equal(
        seen(read_stations(rows, GRID, CHANNELS, noleap.to_numpy())),
        seen(read_stations(ROWS, GRID, CHANNELS, TIMES)),
    )
    for table, times in ((rows, TIMES), (ROWS, noleap.to_numpy())):
        with pytest.raises(ValueError, match="calendar"):
            read_stations(table, GRID, CHANNELS, times)
    utc = pd.to_datetime(ROWS["time"], format="ISO8601").dt.tz_localize("UTC")
    zoned = ROWS.assign(time=utc.dt.tz_convert("Asia/Tokyo"))
    assert [r.step for r in read_stations(zoned, GRID, CHANNELS, TIMES)] == [0, 1, 2]


def changed(**columns: object) -> pd.DataFrame:
    return ROWS.assign(**columns)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (ROWS.drop(columns=["value", "time"]), r"no column \['time', 'value'\]"),
        (ROWS.drop(columns="std"), "no column 'std'"),
        (changed(variable="z50", level=np.nan), "'z50' is observed.*Did you mean 'z500'"),
        (changed(variable="t", level=700), "'t:700' is observed, but the fields have"),
        (changed(value=np.nan), "no observation"),
        (changed(value=np.inf), "value is infinite in 4 rows"),
        (changed(std=0.0), "std of 'z500' must be positive"),
        (changed(latitude=61.0, longitude=3.0), r"\(61, 3\) lie outside the grid"),
        (changed(latitude=np.nan), "no finite position"),
        (changed(time=pd.NaT), "time is missing in 4 rows"),
        (changed(time="2001-01-03"), "4 observations, the first of 2001-01-03.*more than 6 hours"),
    ],
)
def test_tables_that_do_not_fit_are_refused(table: pd.DataFrame, message: str) -> None:
    region = Grid(GRID.lat, GRID.lon[:-1])  # does not close, and so does not go on over the poles
    if "outside" not in message:
        region = GRID
    with pytest.raises(ValueError, match=message):
        read_stations(table, region, CHANNELS, TIMES)


@pytest.mark.parametrize("kind", ["table", "variables"])
def test_observations_in_other_units_are_refused_with_the_way_to_convert_them(kind: str) -> None:
    units = ("m", "K", "K")
    ds = xr.Dataset(
        {"t": (("time", "station"), [[7.0]], {"units": "degC"})},
        {"time": TIMES[:1], "lat": ("station", [0.0]), "lon": ("station", [10.0]), "level": 850},
    )
    table = ROWS.assign(units=["degC", "m", "degC", "degC"]) if kind == "table" else ds
    with pytest.raises(
        ValueError, match=r"t:850 is observed in 'degC'.*'K': convert value, value \+ 273.15"
    ):
        read_stations(table, GRID, CHANNELS, TIMES, std=1.0, units=units)
    with pytest.raises(ValueError, match="in 'kg'.*no factor leads there"):
        read_stations(ROWS.assign(units="kg"), GRID, CHANNELS, TIMES, units=units)


def test_units_that_are_spelled_otherwise_or_not_named_are_those_of_the_fields() -> None:
    plain = seen(read_stations(ROWS, GRID, CHANNELS, TIMES, units=("m", "K", "K")))
    spelled = ROWS.assign(units=["kelvin", "metre", None, np.nan])
    assert torch.equal(
        seen(read_stations(spelled, GRID, CHANNELS, TIMES, units=("m", "K", "K"))), plain
    )


def test_errors_may_be_named_by_the_caller() -> None:
    plain = ROWS.drop(columns="std")
    assert all(
        bool((torch.as_tensor(r.std) == 4).all())
        for r in read_stations(plain, GRID, CHANNELS, TIMES, std=4.0)
    )
    with pytest.raises(ValueError, match=r"std has no entry for \['t:500', 't:850'\]"):
        read_stations(plain, GRID, CHANNELS, TIMES, std={"z500": 1.0})


def test_one_time_takes_its_own_observations_alone_unless_told() -> None:
    rows = ROWS.iloc[1:2]
    with pytest.raises(ValueError, match="more than 0 hours"):
        read_stations(rows, GRID, CHANNELS, TIMES[:1])
    near = read_stations(rows, GRID, CHANNELS, TIMES[:1], within=np.timedelta64(30, "m"))
    assert len(near) == 1
