from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from sciffusion.domains.weather.datasets import era5
from sciffusion.domains.weather.datasets.era5 import geopotential_height, get_era5, open_era5
from sciffusion.domains.weather.sources import read
from sciffusion.errors import MissingExtra
from sciffusion.io import DownloadError

LEVELS = [50, 500, 850]


def layout() -> xr.Dataset:
    """Two months of a small ERA5, in the layout of the coarse stores of WeatherBench 2."""
    time = np.datetime64("2019-12-01", "ns") + np.arange(4 * 60) * np.timedelta64(6, "h")
    rng = np.random.default_rng(0)
    deep, flat = (len(time), 3, 6, 4), (len(time), 6, 4)
    dims = ("time", "level", "longitude", "latitude")

    def of(units: str, shape: tuple[int, ...]) -> tuple[tuple[str, ...], object, dict[str, str]]:
        names = dims if len(shape) == 4 else (dims[0], *dims[2:])
        return names, rng.normal(size=shape).astype(np.float32), {"units": units}

    return xr.Dataset(
        {
            "geopotential": of("m**2 s**-2", deep),
            "temperature": of("K", deep),
            "u_component_of_wind": of("m s**-1", deep),
            "v_component_of_wind": of("m s**-1", deep),
            "2m_temperature": of("K", flat),
            "land_sea_mask": (dims[2:], np.ones((6, 4), np.float32)),
        },
        coords={
            "time": time,
            "level": LEVELS,
            "longitude": np.arange(6) * 60.0,
            "latitude": [-67.5, -22.5, 22.5, 67.5],
        },
    )


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCIFFUSION_CACHE", str(tmp_path / "cache"))
    layout().chunk(time=60).to_zarr(tmp_path / "small.zarr", zarr_format=2, consolidated=True)
    return tmp_path / "small.zarr"


def test_a_part_of_a_store_is_that_part_and_nothing_is_read(store: Path) -> None:
    ds = open_era5(
        store,
        variables=["temperature", "2m_temperature"],
        levels=[850, 500],
        times=("2019-12-30", "2020-01-02"),
        hours=(0, 12),
    )
    assert all(ds[name].chunks is not None for name in ds)
    assert ds["temperature"].dims == ("time", "level", "latitude", "longitude")
    assert ds["2m_temperature"].dims == ("time", "latitude", "longitude")
    days = np.datetime64("2019-12-30") + np.arange(8) * np.timedelta64(12, "h")
    expected = layout()[["temperature", "2m_temperature"]].sel(time=days, level=[850, 500])
    xr.testing.assert_identical(
        ds.load(), expected.transpose("time", "level", "latitude", "longitude")
    )


def test_a_whole_store_is_all_of_it_in_either_order_of_dimensions(tmp_path: Path) -> None:
    ds = layout().isel(time=slice(0, 4), latitude=slice(None, None, -1))
    ds.transpose("time", "level", "latitude", "longitude").to_zarr(
        tmp_path / "fine.zarr", zarr_format=2
    )
    back = open_era5(tmp_path / "fine.zarr")
    assert back["latitude"].values[0] == 67.5
    xr.testing.assert_identical(back.load().transpose(*ds["temperature"].dims), ds)


def test_a_url_is_opened_by_the_same_code() -> None:
    layout().isel(time=slice(0, 4)).to_zarr("memory://era5-test/small.zarr", zarr_format=2)
    ds = open_era5("memory://era5-test/small.zarr", variables=["temperature"], levels=[500])
    assert ds.sizes == {"time": 4, "level": 1, "latitude": 4, "longitude": 6}


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"variables": ["temprature"]}, "no variable 'temprature'. Did you mean 'temperature'"),
        ({"variables": ["z"]}, "no variable 'z'. Did you mean 'geopotential'"),
        ({"variables": ["q"]}, r"no variable 'q'. It has \['2m_temperature'"),
        ({"levels": [500, 700]}, r"no level \[700\] hPa, only \[50, 500, 850\]"),
        ({"times": ("1959", "1960")}, "no times"),
        ({"hours": [3]}, r"no times.*\[3\]"),
    ],
)
def test_what_a_store_lacks_is_an_error_with_a_hint(
    store: Path, wish: dict[str, object], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        open_era5(store, **wish)  # type: ignore[arg-type]


def test_another_layout_or_other_units_are_refused(tmp_path: Path) -> None:
    ds = layout().isel(time=slice(0, 2))
    ds.rename(latitude="lat").to_zarr(tmp_path / "names.zarr", zarr_format=2)
    with pytest.raises(ValueError, match="no coordinate 'latitude'"):
        open_era5(tmp_path / "names.zarr")
    ds["temperature"].attrs["units"] = "degC"
    ds.to_zarr(tmp_path / "units.zarr", zarr_format=2)
    with pytest.raises(ValueError, match=r"'temperature'.*the units 'degC', not 'K'"):
        open_era5(tmp_path / "units.zarr")


def test_a_store_that_is_not_there_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError, match="no Zarr store"):
        open_era5(tmp_path / "none.zarr")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty is no Zarr store"):
        open_era5(tmp_path / "empty")
    with pytest.raises(DownloadError, match="could not open memory://nowhere/x.zarr"):
        open_era5("memory://nowhere/x.zarr")
    monkeypatch.setattr(era5, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="pip install gcsfs"):
        open_era5()


def test_geopotential_becomes_height_by_standard_gravity(store: Path) -> None:
    ds = open_era5(store)
    out = geopotential_height(ds)
    assert "geopotential" not in out and out["geopotential_height"].attrs["units"] == "m"
    assert out["geopotential_height"].chunks is not None
    np.testing.assert_allclose(out["geopotential_height"] * 9.80665, ds["geopotential"], rtol=1e-6)
    assert out["geopotential_height"].dtype == np.float32
    with pytest.raises(ValueError, match="'temperature' has the units 'K', not m2 s-2"):
        geopotential_height(ds, "temperature")
    with pytest.raises(ValueError, match="no variable 'phi'"):
        geopotential_height(ds, "phi")


def test_the_part_of_the_card_is_kept_year_by_year_and_resumed(store: Path) -> None:
    ds, kept = get_era5(store)
    assert sorted(path.name for path in kept.iterdir()) == ["2019.nc", "2020.nc", "complete"]
    names = [
        "geopotential",
        "temperature",
        "u_component_of_wind",
        "v_component_of_wind",
        "2m_temperature",
    ]
    expected = open_era5(store, variables=names, levels=[500, 850], hours=(0, 12)).load()
    xr.testing.assert_identical(ds.load(), expected)
    ds.close()
    (kept / "complete").unlink()  # as if the transfer had broken in the second year
    (kept / "2020.nc").unlink()
    first = (kept / "2019.nc").stat().st_mtime_ns
    again, _ = get_era5(store)
    xr.testing.assert_identical(again.load(), expected)
    assert (kept / "2019.nc").stat().st_mtime_ns == first


def test_a_whole_copy_is_read_without_its_store(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get_era5(store)
    monkeypatch.setattr(era5, "STORE", str(store))
    store.rename(store.with_name("gone"))
    assert read("era5:test")["time"].values[0] == np.datetime64("2020-01-01")
