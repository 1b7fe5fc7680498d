from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from sciffusion.domains.weather.datasets import jcm, speedy
from sciffusion.domains.weather.datasets.card import Card
from sciffusion.domains.weather.datasets.speedy import (
    PYTHON,
    make_long,
    make_speedy,
    to_levels,
    truncate,
)
from sciffusion.domains.weather.datasets.sst import from_wheel, get_sst
from sciffusion.errors import MissingExtra
from sciffusion.harmonics import Harmonics, SphereGrid
from sciffusion.io import ChecksumError, cache_dir

READY = Path(__file__).parents[4] / "shared" / "data" / "weather"


def gauss(rows: int) -> dict[str, object]:
    nodes = np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(rows)[0]))
    return {"lat": nodes, "lon": np.arange(2 * rows) * (180 / rows)}


def put(wheel: Path, **members: xr.Dataset) -> Path:
    """A wheel that holds datasets; a name has ``_`` for ``/``."""
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, ds in members.items():
            file = wheel.with_suffix(".nc")
            ds.to_netcdf(file, engine="h5netcdf")
            archive.write(file, f"jcm/data/bc/{name.replace('__', '/')}.nc")
    return wheel


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCIFFUSION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def sst_wheel(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    grid = gauss(48)
    anomaly = rng.uniform(-5, 5, (420, 48, 96)).astype(np.float32)
    anomaly[7, 3, 3] = 9.0  # row 3 from the north
    ice = np.zeros((96, 48, 12), np.float32)
    ice[5, 5, 6] = 0.2
    land = np.zeros((96, 48), np.float32)
    land[10:20] = 0.5
    months, hours = np.arange(12.0), {"units": "hours since 1979-1-1"}
    stamps = np.arange("1979-01", "2014-01", dtype="datetime64[M]").astype("datetime64[h]")
    since = (stamps - stamps[0]).astype(float)
    dims = ("lon", "lat", "time")
    return put(
        tmp_path / "fake.whl",
        t30__anom__sea_surface_temperature_anomaly=xr.Dataset(
            {"ssta": (("time", "lat", "lon"), anomaly)},
            {"time": ("time", since, hours), "lat": np.flip(grid["lat"]), "lon": grid["lon"]},  # type: ignore[call-overload]
        ),
        t30__clim__forcing=xr.Dataset(
            {"icec": (dims, ice), "sst": (dims, np.full((96, 48, 12), 290, np.float32))},
            {**grid, "time": ("time", months, hours)},
        ),
        t30__clim__terrain=xr.Dataset(
            {"lsm": (dims[:2], land), "orog": (dims[:2], 100 * land)}, grid
        ),
    )


def test_anomalies_are_kept_where_the_sea_is_free_of_ice_and_plausible(tmp_path: Path) -> None:
    ds = Card.of("sst").check(from_wheel(sst_wheel(tmp_path)), "wheel")
    dry = np.zeros((48, 96), bool)
    dry[:, 10:20] = True  # land
    dry[5, 5] = True  # ice, latitudes rising
    dry[48 - 1 - 3, 3] = True  # 9 K
    assert np.array_equal(ds["sea_mask"].values == 0, dry)
    for name in ("ssta", "sst_climatology"):
        assert (np.isnan(ds[name].values) == dry).all()
    assert ds["time"].values[-1] == np.datetime64("2013-12-01")


def test_a_wheel_with_another_checksum_is_refused(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(ChecksumError, match="1ae0408e53ce9c58"):
        get_sst(sst_wheel(tmp_path))
    assert not cache.exists()


def test_a_wheel_without_the_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="other.whl is damaged or another wheel"):
        from_wheel(put(tmp_path / "other.whl"))
    (tmp_path / "bad.whl").write_bytes(b"no zip")
    with pytest.raises(ValueError, match="bad.whl is damaged"):
        from_wheel(tmp_path / "bad.whl")


def test_the_true_wheel_gives_the_ready_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCIFFUSION_CACHE")
    wheel = cache_dir("jcm") / "jcm-3.0.0-py3-none-any.whl"
    ready = READY / "sst_anomaly_t30_1979_2013.nc"
    if not (wheel.exists() and ready.exists()):
        pytest.skip("no wheel in the cache, or no ready file beside this checkout")
    ds, expected = from_wheel(wheel), xr.load_dataset(ready, engine="h5netcdf")
    for name in expected.coords:
        assert np.array_equal(ds[name], expected[name])
    for name in expected.data_vars:
        step = Card.of("sst").recipe["packing"].get(name, [0.0])[0]
        np.testing.assert_allclose(ds[name], expected[name], rtol=1e-6, atol=step / 2 + 1e-5)


def sigma(time: int = 3) -> xr.Dataset:
    """Fields linear in the logarithm of pressure, on the model's levels; mountains of 600 hPa."""
    rng = np.random.default_rng(0)
    level = np.array([0.95, 0.835, 0.685, 0.51, 0.34, 0.2, 0.095, 0.025])
    surface = rng.uniform(0.6, 1.03, (time, 96, 48))
    p = np.log(level[None, :, None, None] * surface[:, None] * 1e5)
    wave = np.cos(np.deg2rad(gauss(48)["lon"]))[:, None]  # type: ignore[call-overload]
    fields = {name: a + (b + wave) * p for name, a, b in SLOPES}
    dims = ("time", "level", "lon", "lat")
    return xr.Dataset(
        {name: (dims, field.astype(np.float32)) for name, field in fields.items()}
        | {"normalized_surface_pressure": (("time", "lon", "lat"), surface)},
        {"time": np.arange(time), "level": level, **gauss(48)},
    )


SLOPES = (
    ("geopotential", 9e5, -7e4),
    ("temperature", 10.0, 23.0),
    ("u_wind", 0.0, -1.0),
    ("v_wind", 3.0, 1.0),
)


def test_levels_are_exact_for_what_is_linear_in_the_logarithm_of_pressure() -> None:
    ds = sigma()
    fields = to_levels(ds)
    surface = ds["normalized_surface_pressure"].values.swapaxes(1, 2)
    wave = np.cos(np.deg2rad(gauss(48)["lon"]))  # type: ignore[call-overload]
    for (name, field), (_, a, b), level in zip(
        fields.items(), SLOPES, (5e4, 8.5e4, 8.5e4, 8.5e4), strict=True
    ):
        # under mountains, the lowest level's own
        at = np.minimum(np.log(level), np.log(0.95e5 * surface))
        expected = (a + (b + wave) * at) / (9.80665 if name == "z500" else 1)
        np.testing.assert_allclose(field, expected, rtol=2e-5, atol=1e-3)


def test_truncation_keeps_low_degrees_and_removes_high_ones() -> None:
    fine, coarse = (Harmonics(SphereGrid.gauss(n, 2 * n), lmax) for n, lmax in ((48, 31), (32, 21)))
    waves = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 32**2)))
    kept = coarse.synthesis(waves[:, : 22**2]).numpy()
    np.testing.assert_allclose(truncate(fine.synthesis(waves).numpy()), kept, atol=1e-10)
    upside_down = np.ascontiguousarray(fine.synthesis(waves).numpy()[:, ::-1])
    np.testing.assert_allclose(truncate(upside_down)[:, ::-1], kept, atol=1e-10)


FAKE = """
import os, sys
from pathlib import Path
told = dict(word.split("=", 1) for word in sys.argv[1:])
assert told["+configuration"] == "speedy-t31" and told["run.time_step"] == "30"
assert Path(told["terrain.file"]).exists() and Path(told["forcing.file"]).exists()
checkpoint, prefix = Path(told["run.checkpoint_path"]), told["run.output_prefix"]
piece = int(told["run.chunk_days"])
done = int(checkpoint.read_text()) if checkpoint.exists() else 0
if not done and list(Path(prefix).parent.glob("raw_day*")):
    sys.exit("refuse to start over the pieces of another run")
for day in range(done + piece, int(told["run.total_time"]) + 1, piece):
    content = (Path(os.environ["FAKE_PIECES"]) / f"{day}.nc").read_bytes()
    dies = str(day) == os.environ.get("FAKE_DEATH")
    Path(f"{prefix}_day{day}.nc").write_bytes(content[: len(content) // 2] if dies else content)
    if dies:
        sys.exit("out of memory")
    checkpoint.write_text(str(day))
    print(f"  Saved checkpoint to {checkpoint}")
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A jcm that copies pieces of two times each; the wheel beside it."""
    (tmp_path / "site" / "jcm").mkdir(parents=True)
    (tmp_path / "site" / "jcm" / "__init__.py").touch()
    (tmp_path / "site" / "jcm" / "main.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("FAKE_PIECES", str(tmp_path))
    monkeypatch.setenv(PYTHON, sys.executable)
    for day in (30, 60, 90):
        start = np.datetime64("2000-01-01T00", "ns") + np.timedelta64(day, "D")
        times = start - np.array([12, 0]) * np.timedelta64(1, "h")
        ds = sigma(2).assign_coords(time=times)
        ds["temperature"] += day
        ds["time_bounds"] = (("time", "bounds"), np.stack([times, times], 1))  # and much else
        ds.to_netcdf(tmp_path / f"{day}.nc", engine="h5netcdf")
    rows = gauss(96)
    flat = (("lon", "lat"), np.full((192, 96), 0.25, np.float32))
    terrain = xr.Dataset({"orog": flat, "lsm": flat}, rows)
    wheel = put(tmp_path / "jcm.whl", t63__terrain=terrain, t63__forcing=terrain)
    monkeypatch.setattr(speedy, "fetch_wheel", lambda: wheel)
    return tmp_path


def test_the_model_is_run_in_its_own_python_and_its_weather_kept(fake: Path) -> None:
    target = make_speedy(fake / "out" / "speedy.nc", days=60, spinup=30)
    with xr.open_dataset(target, engine="h5netcdf") as ds:
        problems = Card.of("speedy")._variables(ds)
        assert problems == [] and ds.sizes == {"time": 4, "lat": 32, "lon": 64}
        assert ds["time"].values[0] == np.datetime64("2000-02-29T12")  # 30 days are left out
        warmer = ds["t850"].isel(time=2) - ds["t850"].isel(time=0)
        np.testing.assert_allclose(warmer, 30, atol=0.03)
        np.testing.assert_allclose(ds["orography"], 0.25, atol=1e-6)
        assert ds["t850"].encoding["dtype"] == np.int16
    assert [path.name for path in (fake / "out").iterdir()] == ["speedy.nc"]


def test_runs_from_several_starts_are_strung_together(fake: Path) -> None:
    runs = [("2000-01-01", 30), ("2010-07-01", 60)]
    target = make_long(fake / "out" / "long.nc", runs=runs, spinup=30)
    with xr.open_dataset(target, engine="h5netcdf") as ds:
        assert ds.sizes == {"time": 6, "lat": 32, "lon": 64}
        assert ds["orography"].dims == ("lat", "lon")
        # the second run begins with the weather that its own spin-up leads to
        np.testing.assert_array_equal(ds["t850"][:2], ds["t850"][2:4])
        assert "start 2000-01-01" in ds.attrs["source"] and "2010-07-01" in ds.attrs["source"]
    assert [path.name for path in (fake / "out").iterdir()] == ["long.nc"]
    with pytest.raises(ValueError, match="start 'soon' must be a date"):
        make_speedy(fake / "out" / "speedy.nc", start="soon")


def test_an_interrupted_model_goes_on_from_its_checkpoint(
    fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_speedy(fake / "whole" / "speedy.nc", days=60, spinup=30).read_bytes()
    target = fake / "out" / "speedy.nc"
    for death in ("30", "90"):  # before the first checkpoint; after two
        monkeypatch.setenv("FAKE_DEATH", death)
        with pytest.raises(RuntimeError, match=r"(?s)jcm failed.*out of memory"):
            make_speedy(target, days=60, spinup=30)
        assert not target.exists()
    monkeypatch.delenv("FAKE_DEATH")
    (fake / "60.nc").unlink()  # the piece of day 60 is kept: the model need not make it again
    make_speedy(target, days=60, spinup=30)
    expected = fake / "whole" / "speedy.nc"
    assert whole == expected.read_bytes()
    with xr.open_dataset(target) as one, xr.open_dataset(expected) as other:
        xr.testing.assert_identical(one, other)


def test_without_the_model_the_user_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for python in ("/no/such/python", sys.executable):
        monkeypatch.setenv(PYTHON, python)
        with pytest.raises(MissingExtra, match=r"(?s)pip install jcm==3.0.0.*--path"):
            speedy.get_speedy()


def test_pieces_are_of_thirty_days(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="days 45 and spinup 30 must be multiples of 30"):
        make_speedy(tmp_path / "speedy.nc", days=45, spinup=30)


def test_the_wheel_is_asked_of_pip_with_its_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def fetch(*names: str, **wishes: object) -> Path:
        asked.extend([*names, wishes["sha256"], wishes["folder"]])
        return Path("wheel")

    monkeypatch.setattr(jcm, "fetch_pypi", fetch)
    assert jcm.fetch_wheel() == Path("wheel")
    assert asked[:2] == ["jcm", "3.0.0"] and len(str(asked[2])) == 64
    assert asked[3] == cache_dir("jcm")
