from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from sciffusion.domains.weather.datasets import qg
from sciffusion.domains.weather.datasets.card import Card
from sciffusion.domains.weather.datasets.netcdf import open_netcdf, write_netcdf
from sciffusion.domains.weather.datasets.speedy import get_speedy
from sciffusion.domains.weather.datasets.uk import get_uk, to_uk
from sciffusion.domains.weather.simulators.quasigeostrophic import simulate
from sciffusion.domains.weather.sources import DATASETS, check_output, read, split
from sciffusion.io import ChecksumError

READY = Path(__file__).parents[4] / "shared" / "data" / "weather"
FILES = {
    "speedy": "speedy_t21_12h.nc",
    "sst": "sst_anomaly_t30_1979_2013.nc",
    "era5-uk": "era5_t2m_uk_201903.nc",
    "mrms": "mrms_conus_20190610.nc",
    "fmi": "fmi_radar_2events.nc",
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCIFFUSION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def speedy_like() -> xr.Dataset:
    """The form of the data set ``speedy``, without its weather and without its memory."""
    dims = ("time", "lat", "lon")
    flow = np.broadcast_to(np.float32(0), (2880, 32, 64))
    ds = xr.Dataset(
        {
            name: (dims, flow, {"units": units})
            for name, units in (("z500", "m"), ("t850", "K"), ("u850", "m s-1"), ("v850", "m s-1"))
        },
        coords={
            "time": np.datetime64("2000-03-31T12", "ns")
            + np.arange(2880) * np.timedelta64(12, "h"),
            "lat": np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(32)[0])),
            "lon": np.arange(64) * 5.625,
        },
    )
    ds["orography"] = (dims[1:], flow[0], {"units": "m"})
    ds["land_fraction"] = (dims[1:], flow[0], {"units": "1"})
    return ds


def test_what_fits_the_card_passes_and_is_the_same_object() -> None:
    ds = speedy_like()
    assert Card.of("speedy").check(ds, "mine") is ds


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda ds: ds.rename(z500="z50"),
            r"mine is not the data set 'speedy'.*'z500' is missing.*'z50'",
        ),
        (
            lambda ds: ds.transpose("time", "lon", "lat"),
            r"'u850' has the dimensions \['time', 'lon'",
        ),
        (lambda ds: ds.isel(lat=slice(1, None)), "'lat' has the size 31, not 32"),
        (lambda ds: ds.assign_coords(lat=np.linspace(-87, 87, 32)), "'lat' is not the Gaussian"),
        (lambda ds: ds.isel(time=[*range(2879), 0]), "times are not 720 minutes apart"),
        (lambda ds: ds.assign(t850=ds["t850"].assign_attrs(units="degC")), "units 'degC', not 'K'"),
    ],
)
def test_what_does_not_fit_the_card_is_refused_with_the_reason(change: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Card.of("speedy").check(change(speedy_like()), "mine")  # type: ignore[operator]


def test_latitudes_of_either_direction_are_gaussian() -> None:
    Card.of("speedy").check(speedy_like().isel(lat=slice(None, None, -1)), "mine")


def test_parts_are_disjoint_and_in_order_with_ten_days_between() -> None:
    ds = speedy_like()
    train, valid, test = (
        split(ds, f"speedy:{part}")["time"].values for part in ("train", "valid", "test")
    )
    assert train[0] == ds["time"].values[0] and test[-1] == ds["time"].values[-1]
    assert len(test) == 420
    gap = np.timedelta64(10, "D") + np.timedelta64(12, "h")  # from the last time to the next first
    assert valid[0] - train[-1] == test[0] - valid[-1] == gap


@pytest.mark.parametrize("name", DATASETS)
def test_no_value_is_in_two_parts(name: str) -> None:
    parts = Card.of(name).recipe["splits"]
    assert list(parts) == ["train", "valid", "test"][: len(parts)] and len(parts) >= 2
    for dim in parts["train"]:
        bounds = [bound for part in parts.values() for bound in part[dim]]
        assert bounds == sorted(bounds)


def test_a_part_of_a_selection_keeps_the_selection() -> None:
    ds = speedy_like()[["z500"]].sel(time=slice("2003-01-01", "2003-12-31")).isel(lon=slice(0, 5))
    part = split(ds, "speedy:test")
    assert list(part) == ["z500"] and part.sizes == {"time": 281, "lat": 32, "lon": 5}


def test_a_part_of_which_nothing_is_there_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing of the part 'test' of 'speedy' is in ds"):
        split(speedy_like().isel(time=slice(0, 10)), "speedy:test")
    with pytest.raises(ValueError, match="no coordinate 'time'"):
        split(speedy_like().drop_vars("time"), "speedy:test")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("speedy:tset", "no part 'tset'.*Did you mean 'test'"),
        ("speedy", "a data set and a part"),
        ("spedy:test", "Did you mean 'speedy'"),
    ],
)
def test_a_misspelt_part_or_data_set_brings_a_hint(name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        split(speedy_like(), name)


def test_a_file_is_read_by_its_suffix(tmp_path: Path) -> None:
    ds = speedy_like().isel(time=slice(0, 3))
    write_netcdf(ds, tmp_path / "mine.nc")
    ds.to_zarr(tmp_path / "mine.zarr", zarr_format=2)
    for file in ("mine.nc", "mine.zarr"):
        xr.testing.assert_identical(read(tmp_path / file).load(), ds)


def test_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "bad.nc").write_bytes(b"no NetCDF")
    with pytest.raises(ValueError, match="bad.nc is no NetCDF4 file, or is damaged"):
        read(tmp_path / "bad.nc")
    for name in ("none.nc", "none.zarr"):
        with pytest.raises(FileNotFoundError, match=name):
            read(tmp_path / name)
    with pytest.raises(ValueError, match="ends with .nc or .zarr.*Did you mean 'speedy'"):
        read("spedy:test")


def test_weather_is_written_to_netcdf_or_zarr(tmp_path: Path) -> None:
    check_output(tmp_path / "out.nc")
    check_output(tmp_path / "out.zarr")
    with pytest.raises(ValueError, match=r"\.csv: weather is written to"):
        check_output(tmp_path / "out.csv")


def test_packed_values_come_back_to_half_a_step(tmp_path: Path) -> None:
    values = np.linspace(-30, 30, 100)
    values[7] = np.nan
    ds = xr.Dataset({"u": ("x", values)})
    back = open_netcdf(write_netcdf(ds, tmp_path / "u.nc", {"u": (0.05, 0.0)}))["u"].values
    assert np.array_equal(np.isnan(back), np.isnan(values))
    assert np.nanmax(np.abs(back - values)) <= 0.025 + 1e-9


def test_a_local_copy_is_checked_and_then_kept(tmp_path: Path, cache: Path) -> None:
    ready = write_netcdf(speedy_like(), tmp_path / "ready.nc")
    ds, kept = get_speedy(ready)
    assert kept == cache / "speedy" / "speedy_t21_12h.nc"
    ready.unlink()
    xr.testing.assert_identical(read("speedy:valid"), split(ds, "speedy:valid"))


def test_a_wrong_local_copy_is_not_kept(tmp_path: Path, cache: Path) -> None:
    wrong = write_netcdf(speedy_like().isel(time=slice(0, 9)), tmp_path / "wrong.nc")
    with pytest.raises(ValueError, match="wrong.nc is not the data set 'speedy'.*size 9, not 2880"):
        get_speedy(wrong)
    with pytest.raises(FileNotFoundError, match="none.nc"):
        get_speedy(tmp_path / "none.nc")
    assert not cache.exists()


def test_the_simulated_set_is_made_once_and_split_by_trajectory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = Card.of("qg").recipe
    for key, small in (("days", 1), ("trajectories", 8)):
        monkeypatch.setitem(recipe["simulate"], key, small)
    monkeypatch.setitem(recipe["sizes"], "time", 16)
    calls: list[int] = []

    def quick(days: float, seed: int, *, hours: float, trajectories: int) -> xr.Dataset:
        calls.append(seed)
        return simulate(days, seed, hours=hours, trajectories=trajectories, spin_up=1)

    monkeypatch.setattr(qg, "simulate", quick)
    ds = read("qg")
    parts = {part: read(f"qg:{part}") for part in ("train", "valid", "test")}
    assert calls == [0]
    assert {name: part.sizes["time"] for name, part in parts.items()} == {
        "train": 12,
        "valid": 2,
        "test": 2,
    }
    xr.testing.assert_identical(
        xr.concat([*parts.values()], "time", data_vars="minimal").load(), ds.load()
    )
    expected = quick(1, 0, hours=12, trajectories=8)
    for name, (step, _) in recipe["packing"].items():
        np.testing.assert_allclose(ds[name], expected[name], atol=step * 0.51)


@pytest.mark.parametrize("name", ["era5-uk", "mrms", "fmi"])
def test_a_data_set_that_no_program_can_fetch_says_where_it_is(name: str) -> None:
    with pytest.raises(FileNotFoundError, match=rf"(?s)github.com.*data get {name} --path FILE"):
        DATASETS[name](None)


def test_a_grib_file_is_recognised_by_its_checksum(tmp_path: Path) -> None:
    (tmp_path / "other.grib").write_bytes(b"GRIB")
    with pytest.raises(ChecksumError, match="eae4f0d198f4f6c16ba950975a217155"):
        get_uk(tmp_path / "other.grib")
    with pytest.raises(FileNotFoundError, match="none.grib"):
        get_uk(tmp_path / "none.grib")


def test_the_form_of_cfgrib_becomes_the_form_of_the_card() -> None:
    times = np.datetime64("2019-03-01", "ns") + np.arange(744) * np.timedelta64(1, "h")
    values = np.broadcast_to(np.arange(33.0)[:, None], (744, 33, 49))
    ds = xr.Dataset(
        {"t2m": (("time", "latitude", "longitude"), values, {"GRIB_paramId": 167, "units": "K"})},
        coords={
            "time": times,
            "latitude": np.linspace(58, 50, 33),
            "longitude": np.linspace(-10, 2, 49),
            "number": 0,
            "surface": 0.0,
            "valid_time": ("time", times),
        },
    )
    out = Card.of("era5-uk").check(to_uk(ds), "cfgrib")
    assert set(out.coords) == {"time", "latitude", "longitude"}
    assert out["t2m"].sel(latitude=58).values.max() == 0
    assert not [key for key in out["t2m"].attrs if key.startswith("GRIB")]


@pytest.mark.parametrize("name", FILES)
def test_the_ready_files_are_accepted(name: str) -> None:
    if not (READY / FILES[name]).exists():
        pytest.skip("no ready files beside this checkout")
    ds, _ = DATASETS[name](READY / FILES[name])
    sizes = [split(ds, f"{name}:{part}").sizes for part in ("train", "valid", "test")]
    dim = next(iter(Card.of(name).recipe["splits"]["test"]))
    assert all(size[dim] for size in sizes)
    assert sum(size[dim] for size in sizes) <= ds.sizes[dim]


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_has_a_page_that_names_licence_splits_and_call(name: str) -> None:
    page = (Path(__file__).parents[3] / "datasets" / name / "README.md").read_text("utf-8")
    for words in ("licence", "citation", "## Splits", f"sciffusion data get {name}"):
        assert re.search(words, page, re.IGNORECASE), words
    for bounds in Card.of(name).recipe["splits"].values():
        assert all(str(bound) in page for pair in bounds.values() for bound in pair)
