"""Datasets become tensors and come back as they were, only what is asked for is read, and disorder is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import torch
import xarray as xr

from sciffusion.domains.weather.fields import Channel, Fields
from sciffusion.domains.weather.times import shift

Rng = np.random.default_rng


def times(n: int, calendar: str | None = None, start: str = "2000-02-27") -> Any:
    if calendar is None:
        return np.datetime64(start, "ns") + np.arange(n) * np.timedelta64(12, "h")
    dates = xr.date_range(start, periods=n, freq="12h", calendar=calendar, use_cftime=True)
    return dates.to_numpy()


def world(
    n: int = 6,
    calendar: str | None = None,
    lat: Any = (60.0, 55.0, 50.0),
    lon: Any = (-10.0, -5.0, 0.0, 5.0),
    dtype: str = "float32",
) -> xr.Dataset:
    """A surface field, one on levels, a static one; attributes everywhere."""
    lat, lon, levels = np.asarray(lat), np.asarray(lon), [500, 850]
    noise = (Rng(0).normal(size=(n, 3, len(lat), len(lon))) * 50).astype(dtype)
    return xr.Dataset(
        {
            "t2m": (("time", "lat", "lon"), noise[:, 0], {"units": "K", "long_name": "warmth"}),
            "z": (("time", "level", "lat", "lon"), noise[:, 1:], {"units": "m"}),
            "orography": (("lat", "lon"), noise[0, 0], {"units": "m"}),
        },
        {
            "time": ("time", times(n, calendar), {"long_name": "valid time"}),
            "level": ("level", levels, {"units": "hPa"}),
            "lat": ("lat", lat, {"units": "degrees_north"}),
            "lon": ("lon", lon, {"units": "degrees_east"}),
            "season": ("time", np.arange(n) // 2, {"note": "a companion of time"}),
            "height": ((), 2.0, {"units": "m"}),
        },
        attrs={"title": "a world", "history": "made"},
    )


def back_and_forth(ds: xr.Dataset, variables: list[str]) -> xr.Dataset:
    fields = Fields.of(ds, variables)
    return fields.dataset(fields.read(np.arange(len(fields))), fields.times)


GLOBE = np.arange(0, 360, 45.0)
ORDERS = [
    (-10.0, -5.0, 0.0, 5.0),
    (350.0, 355.0, 0.0, 5.0),
    (5.0, 0.0, -5.0),
    (170.0, 175.0, -180.0, -175.0, -170.0),
    tuple(GLOBE),
    tuple((GLOBE + 180) % 360 - 180),
    tuple(np.roll(GLOBE, 3)),
    tuple(Rng(1).permutation(GLOBE)),
]


@pytest.mark.parametrize("lat", [(60.0, 55.0, 50.0), (-90.0, 0.0, 90.0)])
@pytest.mark.parametrize("lon", ORDERS)
def test_every_order_of_coordinates_comes_back_bit_by_bit(lat: Any, lon: Any) -> None:
    ds = world(lat=lat, lon=lon)
    xr.testing.assert_identical(back_and_forth(ds, ["t2m", "z"]), ds[["t2m", "z"]])


@pytest.mark.parametrize(
    "dims",
    [
        ("time", "level", "lat", "lon"),
        ("time", "level", "lon", "lat"),
        ("lon", "lat", "level", "time"),
        ("level", "lat", "time", "lon"),
    ],
)
def test_every_order_of_dimensions_comes_back(dims: tuple[str, ...]) -> None:
    ds = world().transpose(*dims)
    back = back_and_forth(ds, ["z", "t2m"])
    xr.testing.assert_identical(back, ds[["z", "t2m"]])
    assert back["z"].dims == dims


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "all_leap", "julian", "gregorian"])
def test_every_calendar_comes_back(calendar: str) -> None:
    ds = world(calendar=calendar)
    back = back_and_forth(ds, ["t2m", "z"])
    xr.testing.assert_identical(back, ds[["t2m", "z"]])
    assert back["time"].dt.calendar == ds["time"].dt.calendar
    assert Fields.of(ds, ["t2m"]).step == np.timedelta64(12, "h")


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_the_resolution_of_times_comes_back(unit: str) -> None:
    ds = world()
    ds = ds.assign_coords(time=ds["time"].astype(f"datetime64[{unit}]"))
    back = back_and_forth(ds, ["t2m"])
    assert back["time"].dtype == ds["time"].dtype == np.dtype(f"datetime64[{unit}]")
    xr.testing.assert_identical(back, ds[["t2m"]])


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "int16", "uint8", "bool", ">f4"]
)
def test_dtypes_come_back(dtype: str) -> None:
    ds = world().map(lambda v: abs(v).astype(np.float16).astype(dtype), keep_attrs=True)
    back = back_and_forth(ds, ["t2m", "z"])
    assert back["z"].dtype == ds["z"].dtype
    xr.testing.assert_identical(back, ds[["t2m", "z"]])


def test_integers_are_rounded_and_kept_in_range() -> None:
    fields = Fields.of(world().map(lambda v: v.astype("uint8")), ["t2m"])
    x = torch.tensor([-3.0, 0.4, 0.6, 254.7, 300.0]).repeat(3)[:12].reshape(1, 1, 3, 4)
    back = fields.dataset(x, fields.times[:1])["t2m"].to_numpy().reshape(-1)
    assert back[:5].tolist() == [0, 0, 1, 255, 255]
    with pytest.raises(ValueError, match="NaN for 't2m', whose dtype uint8"):
        fields.dataset(x * torch.nan, fields.times[:1])


def test_rows_run_southward_columns_eastward_channels_by_variable_and_level() -> None:
    ds = world(lat=(-10.0, 0.0, 10.0), lon=(0.0, 5.0, 350.0, 355.0))
    fields = Fields.of(ds)
    assert fields.names == ("t2m", "z:500", "z:850")
    assert fields.channels[1] == Channel("z", 500.0) and fields.units == ("K", "m", "m")
    assert fields.grid.lat.tolist() == [10, 0, -10] and fields.grid.lon.tolist() == [-10, -5, 0, 5]
    x = fields.read([3])[0]
    assert x.dtype == torch.float32
    for c, (k, level) in enumerate([("t2m", None), ("z", 500), ("z", 850)]):
        array = ds[k].isel(time=3) if level is None else ds[k].isel(time=3).sel(level=level)
        assert x[c, 0, 0] == float(array.sel(lat=10, lon=350))
        assert x[c, 2, 3] == float(array.sel(lat=-10, lon=5))


def test_levels_are_chosen_by_the_names_of_channels() -> None:
    ds = world()
    whole = Fields.of(ds)
    part = Fields.of(ds, ["z:850", "t2m"])
    assert part.names == ("z:850", "t2m")
    assert part.read([0, 2]).equal(whole.read([0, 2])[:, [2, 0]])
    back = part.dataset(part.read(np.arange(6)), part.times)
    xr.testing.assert_identical(back, ds[["z", "t2m"]].sel(level=[850]))
    assert Fields.of(ds, whole.names).names == whole.names
    turned = Fields.of(ds, ["z:850", "z:500"])
    back = turned.dataset(turned.read(np.arange(6)), turned.times)
    xr.testing.assert_identical(back, ds[["z"]])


def test_levels_that_only_another_variable_has_come_back_empty() -> None:
    ds = world()
    ds["q"] = (ds["z"] * 2).assign_attrs(units="1")
    fields = Fields.of(ds, ["z:500", "q:850"])
    back = fields.dataset(fields.read([1]), fields.times[[1]])
    xr.testing.assert_equal(back["z"].sel(level=500), ds["z"].isel(time=[1]).sel(level=500))
    assert back["z"].sel(level=850).isnull().all() and back["q"].sel(level=500).isnull().all()


def test_members_come_first_and_new_times_keep_the_calendar() -> None:
    ds = world(calendar="noleap").transpose("time", "lon", "level", "lat")
    fields = Fields.of(ds, ["t2m", "z"])
    x = fields.read([0, 1])
    later = shift(fields.times[-2:], 24)
    back = fields.dataset(torch.stack([x, -x, 2 * x], 1), later)
    assert back["z"].dims == ("member", "time", "lon", "level", "lat")
    assert back["member"].to_numpy().tolist() == [0, 1, 2]
    assert (back["time"].to_numpy() == later).all() and back["time"].attrs == ds["time"].attrs
    assert back["time"].to_numpy()[0].isoformat() == "2000-03-02T00:00:00"  # a day more than 28/2
    assert "season" not in back.coords and "orography" not in back
    want = (
        ds[["t2m", "z"]].isel(time=slice(2)).assign_coords(time=("time", later, ds["time"].attrs))
    )
    xr.testing.assert_identical(back.isel(member=2, drop=True), 2 * want.drop_vars("season"))


def test_a_single_state_gets_its_time_as_a_dimension() -> None:
    ds = world()
    fields = Fields.of(ds.isel(time=2), ["t2m", "z"])
    assert len(fields) == 1 and fields.times[0] == ds["time"].to_numpy()[2]
    assert fields.read([0]).equal(Fields.of(ds, ["t2m", "z"]).read([2]))
    with pytest.raises(ValueError, match="no step"):
        _ = fields.step


def test_reading_follows_the_order_asked_for_and_keeps_nan() -> None:
    ds = world()
    ds["t2m"][2, 1, 1] = np.nan
    fields = Fields.of(ds, ["t2m"])
    x = fields.read(np.arange(6))
    assert fields.read([4, 1, 4, 2])[:3].equal(x[[4, 1, 4]])
    assert fields.read(np.zeros(0, int)).shape == (0, 1, 3, 4)
    assert fields.read(2)[0, 0, 1, 1].isnan() and int(x.isnan().sum()) == 1
    assert fields.mask().sum() == 11 and not fields.mask()[0, 1, 1]
    for bad in ([-1], [6]):
        with pytest.raises(ValueError, match=r"must lie in 0..5"):
            fields.read(bad)
    with pytest.raises(ValueError, match="integers"):
        fields.read([0.5])


def test_selected_and_cached_fields_read_the_same(tmp_path: Path) -> None:
    world(8).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf") as ds:
        fields = Fields.of(ds)
        x = fields.read(np.arange(8))
        assert fields.nbytes == x.nbytes
        for kept in (fields, fields.cached(), fields.select(slice(None)).cached()):
            late = kept.select(slice(3, None)).select([0, 2, 4])
            assert late.times.tolist() == fields.times[[3, 5, 7]].tolist()
            assert late.read([2, 0]).equal(x[[7, 3]])
            assert late.cached().read([2, 0]).equal(x[[7, 3]])
            assert kept.select(np.arange(8) > 5).read([0]).equal(x[[6]])
        assert fields.cached(limit=x.nbytes - 1) is fields
        memory = fields.cached()
    assert memory.read([1]).equal(x[[1]])  # the file is closed
    with pytest.raises(ValueError, match="must rise"):
        fields.select([2, 1])
    with pytest.raises(ValueError, match="at least one"):
        fields.select(slice(0, 0))


def counted(n: int) -> tuple[xr.Dataset, list[int]]:
    """n maps of 4 MB in chunks of eight, and the numbers of the chunks that were made."""
    seen: list[int] = []

    def block(block_info: Any = None) -> Any:
        place = block_info[None]
        seen.append(place["chunk-location"][0])
        return np.full(place["chunk-shape"], place["chunk-location"][0], np.float32)

    none = np.zeros((0, 0, 0), np.float32)
    chunks = ((8,) * (n // 8), (721,), (1440,))
    lazy = da.map_blocks(block, chunks=chunks, dtype=np.float32, meta=none)
    coords = {
        "time": times(n),
        "lat": np.linspace(-90, 90, 721),
        "lon": np.arange(-180, 180, 0.25),
    }
    return xr.Dataset({"t": (("time", "lat", "lon"), lazy)}, coords), seen


def test_only_the_chunks_of_the_times_asked_for_are_made() -> None:
    ds, seen = counted(24_800)
    assert ds.nbytes > 1e11
    fields = Fields.of(ds)
    assert not seen
    with dask.config.set(scheduler="synchronous"):
        x = fields.read([20_001, 7, 20_000])
        assert sorted(seen) == [0, 2500]
        assert x[:, 0, 0, 0].tolist() == [2500, 0, 2500]
        assert fields.select(slice(100, 300)).read([5])[0, 0, 9, 9] == 13
        assert fields.cached() is fields
    assert sorted(seen) == [0, 13, 2500]


def test_starts_skip_gaps_and_at_finds_their_neighbours() -> None:
    ds = world(10).isel(time=[0, 1, 2, 3, 6, 7, 9])
    for calendar in (None, "noleap"):
        here = (
            ds
            if calendar is None
            else ds.assign_coords(time=times(10, calendar)[[0, 1, 2, 3, 6, 7, 9]])
        )
        fields = Fields.of(here, ["t2m"])
        assert fields.starts([-12, 0, 12]).tolist() == [1, 2]
        assert fields.starts([0, 24]).tolist() == [0, 1, 5]
        assert fields.starts([0]).tolist() == list(range(7))
        assert fields.at([1, 2], [-12, 0, 12]).tolist() == [[0, 1, 2], [1, 2, 3]]
        assert fields.step == np.timedelta64(12, "h")
        assert fields.index(fields.times[[4, 2]]).tolist() == [4, 2]
        with pytest.raises(
            ValueError, match="no time 2000-0.-..T00:00 .*gap from .*T12:00 to 2000"
        ):
            fields.at([3], [12])
        with pytest.raises(ValueError, match="they run from 2000-02-27T00:00 to"):
            fields.at([0], [-12])


def test_times_are_asked_for_as_people_write_them() -> None:
    fields = Fields.of(world(), ["t2m"])
    assert fields.index("2000-02-28").tolist() == [2]
    assert fields.index(["2000-02-28T12", "2000-02-27"]).tolist() == [3, 0]
    noleap = Fields.of(world(calendar="noleap"), ["t2m"])
    assert noleap.index(["2000-02-28T12", "2000-03-01 00:00"]).tolist() == [3, 4]
    with pytest.raises(ValueError):
        noleap.index(["2000-02-29"])
    for wrong in (times(2), times(2, "360_day")):
        with pytest.raises(ValueError, match="cftime objects of the calendar 'noleap'"):
            noleap.index(wrong)
    with pytest.raises(ValueError, match="cftime objects, those of the data are datetime64"):
        fields.index(times(2, "noleap"))


def test_static_variables_are_read_apart() -> None:
    ds = world(lat=(50.0, 55.0, 60.0), lon=(0.0, 5.0, -5.0))
    ds["land"] = (ds["orography"] > 0).astype("int8").transpose("lon", "lat")
    fields = Fields.of(ds)
    x = fields.statics(["land", "orography"])
    assert x.shape == (2, 3, 3) and fields.statics([]).shape == (0, 3, 3)
    assert x[1, 0, 0] == float(ds["orography"].sel(lat=60, lon=-5))
    assert x[0].equal((x[1] > 0).float())
    with pytest.raises(ValueError, match="'t2m' has the dimensions"):
        fields.statics(["t2m"])
    with pytest.raises(ValueError, match="no variable 'orografy'.*Did you mean 'orography'"):
        fields.statics(["orografy"])


def with_time(values: Any) -> xr.Dataset:
    return world().assign_coords(time=("time", values))


@pytest.mark.parametrize(
    ("ds", "variables", "message"),
    [
        (world(), ["t2n"], r"no variable 't2n'; it has .*Did you mean 't2m'"),
        (world(), ["z:700"], r"'z' has no level 700; it has \[500.0, 850.0\]"),
        (world(), ["t2m:700"], "'t2m' has no levels"),
        (world(), ["z:high"], "'high' no level"),
        (world(), ["z:500", "t2m", "z:850"], "side by side"),
        (world(), ["z:500", "z"], "with and without levels"),
        (world(), ["z", "z"], "named twice"),
        (world(), "z", "not the string 'z'"),
        (world(), [], "variables is empty"),
        (world(), ["orography"], "no time"),
        (world(), ["t2m", "orography"], r"'orography' has no dimension \['time'\].*static"),
        (world()["t2m"], None, "got DataArray.*to_dataset"),
        (
            world().expand_dims(number=2),
            ["t2m"],
            r"has members, dimension 'number'.*isel\(number=0",
        ),
        (world().expand_dims(lead_time=2), ["t2m"], "has lead times, dimension 'lead_time'"),
        (world().expand_dims(band=2), ["t2m"], "'band' .*has no coordinate"),
        (world().expand_dims(band=["a", "b"]), ["t2m"], "'band' .*is not numeric"),
        (world().expand_dims(depth=[0.0, 5.0]), ["z"], r"further dimensions \['depth', 'level'\]"),
        (world().assign_coords(level=[500, 500]), ["z"], "levels 'level' .* repeat"),
        (world().astype(str), ["t2m"], "not real numbers"),
        (with_time(times(6)[::-1]), ["t2m"], "not in order: 2000-02-29T12:00 .*sortby"),
        (
            with_time(times(6)[[0, 1, 1, 2, 3, 4]]),
            ["t2m"],
            "1 dates more than once, the first 2000-02-27T12",
        ),
        (with_time(times(6, "noleap")[[0, 2, 1, 3, 4, 5]]), ["t2m"], "not in order"),
        (with_time(np.full(6, np.datetime64("NaT", "ns"))), ["t2m"], "NaT"),
        (
            world().assign_coords(time=("time", np.arange(6), {"units": "hours since 2000-01-01"})),
            ["t2m"],
            "decode_cf",
        ),
        (world().drop_vars("time"), ["t2m"], "'time' of ds has no dates"),
        (world().isel(time=0, drop=True), ["t2m"], "ds has no time"),
        (world().isel(time=[]), ["t2m"], "time is empty"),
        (
            world()[["orography"]].assign_coords(time=times(6)),
            None,
            "no variable with the dimensions",
        ),
    ],
)
def test_datasets_in_disorder_are_refused(ds: Any, variables: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Fields.of(ds, variables)


def test_fields_without_numbers_and_infinite_ones_are_refused() -> None:
    ds = world()
    ds["t2m"][3] = np.nan
    ds["z"][1, 1, 0, 0] = np.inf
    fields = Fields.of(ds)
    with pytest.raises(ValueError, match="z:850 has infinite values .* at 2000-02-27T12:00"):
        fields.read([0, 1])
    with pytest.raises(ValueError, match="t2m is NaN everywhere at 2000-02-28T12:00"):
        Fields.of(ds, ["t2m"]).mask()
    assert Fields.of(ds, ["t2m"]).mask(samples=1).all()
    huge = Fields.of(world(dtype="float64") * 1e300, ["t2m"])
    with pytest.raises(ValueError, match="float32 cannot hold"):
        huge.read([0])


def test_a_mask_without_a_cell_is_refused() -> None:
    ds = world(2)[["t2m"]]
    ds["t2m"][0, :2] = np.nan
    ds["t2m"][1, 1:] = np.nan
    with pytest.raises(ValueError, match=r"\['t2m'\] have no cell that is valid at all times"):
        Fields.of(ds).mask()


def test_values_of_another_shape_are_refused() -> None:
    fields = Fields.of(world(), ["t2m"])
    for shape in ((2, 1, 3, 5), (3, 1, 3, 4), (2, 2, 3, 4), (1, 3, 4)):
        with pytest.raises(ValueError, match=r"values must be \[2, 1, 3, 4\]"):
            fields.dataset(torch.zeros(shape), fields.times[:2])


@pytest.mark.parametrize(
    ("file", "channels", "starts"),
    [
        ("speedy_t21_12h", ("z500", "t850", "u850", "v850"), 2877),
        ("era5_t2m_uk_201903", ("t2m",), 744 - 36),
        ("sst_anomaly_t30_1979_2013", ("ssta",), 0),
    ],
)
def test_real_files_come_back_bit_by_bit(
    file: str, channels: tuple[str, ...], starts: int, shared_data: Callable[[str], Path]
) -> None:
    with xr.open_dataset(shared_data(f"weather/{file}.nc")) as ds:
        fields = Fields.of(ds)
        assert fields.names == channels and len(fields.starts([-12, 0, 24])) == starts
        back = fields.dataset(fields.read([0, 1, 2]), fields.times[:3])
        stored = ds[list(channels)].isel(time=slice(3))
        xr.testing.assert_identical(back, stored.astype("float32").astype("float64"))
        assert fields.mask(samples=3).any()


def test_members_of_a_real_ensemble_are_taken_one_at_a_time(
    shared_data: Callable[[str], Path],
) -> None:
    with xr.open_dataset(shared_data("weather/era5_eda_members_3deg.nc")) as ds:
        with pytest.raises(ValueError, match="members"):
            Fields.of(ds)
        x = Fields.of(ds.isel(number=3)).read([0])
        assert x[0, 0, 0, 0] == np.float32(ds["z500"][3, 0, 0, 0])
