"""A forecast on disk holds whole steps at every moment, and a resumed one is that of an uninterrupted run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from sciffusion.domains.weather import stores
from sciffusion.domains.weather.output import ForecastWriter

ME: dict[str, str | int | float | bool | None] = {
    "model": "toy",
    "seed": 3,
    "members": 2,
    "initial": "2000-01-01T00",
}
SUFFIXES = pytest.mark.parametrize("suffix", [".zarr", ".nc"])


def steps(start: int, stop: int, calendar: str | None = None) -> xr.Dataset:
    """A piece of a forecast of 2 members; its values depend on the step alone."""
    hours = np.arange(start, stop)
    times: Any = np.datetime64("2000-01-01T00", "ns") + hours * np.timedelta64(12, "h")
    if calendar is not None:
        times = xr.date_range(
            "2000-01-01", periods=99, freq="12h", calendar=calendar, use_cftime=True
        )[hours]
    a = [np.random.default_rng(k).normal(size=(2, 3, 4)) for k in hours]
    a_field = np.stack(a, 1).astype(np.float32)
    a_field[:, :, 0, 0] = np.nan
    rain = (np.abs(a_field) * 10).astype(np.float64)
    code = np.stack([np.full((2, 3, 4), k % 250, np.uint8) for k in hours], 1)
    dims = ("member", "time", "lat", "lon")
    return xr.Dataset(
        {
            "t": (dims, a_field, {"units": "K"}),
            "rain": (dims, rain, {"units": "mm"}),
            "code": (dims, code),
        },
        {
            "member": np.arange(2),
            "time": ("time", times, {"long_name": "valid time"}),
            "lead": ("time", hours * np.timedelta64(12, "h").astype("timedelta64[ns]")),
            "lat": ("lat", np.array([10.0, 5, 0]), {"units": "degrees_north"}),
            "lon": np.arange(4.0),
            "surface": 0.0,
        },
        attrs={"title": "toy"},
    )


def opened(path: Path) -> xr.Dataset:
    """What another program reads."""
    engine = "zarr" if path.suffix == ".zarr" else "h5netcdf"
    with xr.open_dataset(path, engine=engine) as ds:
        return ds.load()


def run(
    path: Path, until: int, by: int = 1, names: tuple[str, ...] = ("t", "rain", "code")
) -> None:
    with ForecastWriter(path, ME) as out:
        for k in range(out.done, until, by):
            out.append(steps(k, min(k + by, until))[list(names)])


def without_marks(ds: xr.Dataset) -> xr.Dataset:
    return ds.assign_attrs({"forecast": None, "steps_done": None})


@SUFFIXES
@pytest.mark.parametrize("calendar", [None, "noleap", "360_day"])
def test_what_is_written_is_what_is_read(tmp_path: Path, suffix: str, calendar: str | None) -> None:
    path = tmp_path / f"out{suffix}"
    with ForecastWriter(path, ME) as out:
        for a, b in ((0, 1), (1, 2), (2, 5)):
            out.append(steps(a, b, calendar))
            assert out.done == b
    xr.testing.assert_identical(without_marks(opened(path)), without_marks(steps(0, 5, calendar)))


@SUFFIXES
def test_pieces_of_any_size_make_the_same_file(tmp_path: Path, suffix: str) -> None:
    for by in (1, 3):
        run(tmp_path / f"{by}{suffix}", 7, by)
    xr.testing.assert_identical(opened(tmp_path / f"1{suffix}"), opened(tmp_path / f"3{suffix}"))


@SUFFIXES
def test_a_run_that_stops_goes_on_where_it_was(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    with pytest.raises(KeyboardInterrupt), ForecastWriter(path, ME) as out:
        for k in range(3):
            out.append(steps(k, k + 1))
        raise KeyboardInterrupt
    again = ForecastWriter(path, ME)
    assert again.done == 3
    xr.testing.assert_identical(without_marks(again.tail(2)), without_marks(steps(1, 3)))
    run(path, 6)
    run(tmp_path / f"whole{suffix}", 6)
    xr.testing.assert_identical(opened(path), opened(tmp_path / f"whole{suffix}"))


@SUFFIXES
def test_a_finished_forecast_can_be_made_longer(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    run(path, 2)
    assert opened(path).sizes["time"] == 2
    run(path, 5)
    run(path, 5)
    xr.testing.assert_identical(without_marks(opened(path)), without_marks(steps(0, 5)))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


class Killed(RuntimeError):
    """Stands for a kill signal: nothing is written any more."""


def test_a_zarr_store_killed_before_any_of_its_writes_resumes_to_the_same_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zarr.storage import _local

    put, left = _local._put, [10**9]

    def dying(*args: Any, **kwargs: Any) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return put(*args, **kwargs)

    monkeypatch.setattr(_local, "_put", dying)
    run(tmp_path / "whole.zarr", 3, names=("t",))
    want, writes, seen = opened(tmp_path / "whole.zarr"), 10**9 - left[0], set()
    for k in {0, writes // 5, writes // 3, writes // 2, 2 * writes // 3, writes - 2, writes - 1}:
        path = tmp_path / f"{k}.zarr"
        left[0] = k
        with pytest.raises(Killed):
            run(path, 3, names=("t",))
        left[0] = 10**9
        out = ForecastWriter(path, ME)
        seen.add(out.done)
        if out.done:
            kept = steps(0, out.done)[["t"]]
            xr.testing.assert_identical(without_marks(out.tail(out.done)), without_marks(kept))
        run(path, 3, names=("t",))
        xr.testing.assert_identical(opened(path), want)
    assert seen == {0, 1, 2, 3}


@pytest.mark.parametrize("moment", ["in a part", "in the file", "after the file"])
def test_a_netcdf_killed_while_it_writes_resumes_to_the_same_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    path = tmp_path / "out.nc"

    def die(*args: Any, **kwargs: Any) -> None:
        raise Killed

    def half(self: object, ds: xr.Dataset, part: Path) -> None:
        whole(self, ds, part)
        part.write_bytes(part.read_bytes()[:500])
        part.rename(part.with_name(f".part-9-{part.name[-8:]}"))  # which no clean-up finds
        raise Killed

    whole: Any = stores.NetCDFStore._write
    with monkeypatch.context() as patch, pytest.raises(Killed), ForecastWriter(path, ME) as out:
        out.append(steps(0, 1))
        out.append(steps(1, 2))
        patch.setattr(
            *(
                (stores.shutil, "rmtree", die)
                if "after" in moment
                else (stores.NetCDFStore, "_write", half)
            )
        )
        if moment == "in a part":
            out.append(steps(2, 3))
    assert ForecastWriter(path, ME).done == 2
    run(path, 4)
    xr.testing.assert_identical(without_marks(opened(path)), without_marks(steps(0, 4)))
    assert not (tmp_path / ".out.nc.parts").exists()


@SUFFIXES
@pytest.mark.parametrize("finished", [True, False])
def test_the_forecast_of_somebody_else_is_left_alone(
    tmp_path: Path, suffix: str, finished: bool
) -> None:
    path = tmp_path / f"out{suffix}"
    out = ForecastWriter(path, ME)
    out.append(steps(0, 1))
    if finished:
        out.finish()
    for key, value in (("seed", 4), ("members", 3), ("model", "other"), ("initial", None)):
        with pytest.raises(ValueError, match=f"another forecast: its {key} "):
            ForecastWriter(path, {**ME, key: value})
    with pytest.raises(ValueError, match="physics None, not 1"):
        ForecastWriter(path, {**ME, "physics": 1})


@SUFFIXES
def test_a_file_that_no_writer_made_is_left_alone(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    steps(0, 1).to_zarr(path) if suffix == ".zarr" else steps(0, 1).to_netcdf(path)
    with pytest.raises(ValueError, match="no forecast that a writer made"):
        ForecastWriter(path, ME)
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(ValueError, match="no forecast that a writer made"):
        ForecastWriter(tmp_path / "empty.zarr", ME)


@SUFFIXES
def test_steps_that_do_not_follow_are_refused(tmp_path: Path, suffix: str) -> None:
    out = ForecastWriter(tmp_path / f"out{suffix}", ME)
    with pytest.raises(ValueError, match="nothing was appended"):
        out.finish()
    with pytest.raises(ValueError, match="count must lie in 1..0"):
        out.tail(1)
    out.append(steps(0, 2))
    for a, b in ((0, 2), (1, 3)):
        with pytest.raises(ValueError, match="must go on rising from 2000-01-01T12"):
            out.append(steps(a, b))
    with pytest.raises(ValueError, match="must go on rising"):
        out.append(steps(2, 4).isel(time=[1, 0]))
    with pytest.raises(ValueError, match="the steps before"):
        out.append(steps(2, 3).drop_vars("rain"))
    with pytest.raises(ValueError, match="the steps before"):
        out.append(steps(2, 3).isel(lat=slice(2)))
    with pytest.raises(ValueError, match="the steps before"):
        out.append(steps(2, 3).astype(np.float32))
    with pytest.raises(ValueError, match="dimension 'time'"):
        out.append(steps(2, 3).isel(time=0))
    late = steps(2, 3)
    late = late.assign_coords(time=late["time"] + np.timedelta64(1, "ms"))
    with pytest.raises(ValueError, match="fractions of a second"):
        out.append(late)
    assert out.done == 2


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.zarr or \.nc, got 'out.grib'"):
        ForecastWriter(tmp_path / "out.grib", ME)


@SUFFIXES
def test_leads_serve_as_the_dimension_of_steps(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    whole = steps(0, 4).swap_dims(time="lead").drop_vars("time")
    with ForecastWriter(path, ME, dim="lead") as out:
        for k in range(4):
            out.append(whole.isel(lead=[k]))
    read = xr.open_dataset(
        path, engine="zarr" if suffix == ".zarr" else "h5netcdf", decode_timedelta=True
    )
    xr.testing.assert_identical(without_marks(read.load()), without_marks(whole))
    read.close()
