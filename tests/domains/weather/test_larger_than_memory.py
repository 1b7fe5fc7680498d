"""Data that are opened lazily are never read whole: blocks are counted as they are read and as they are given up."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from sciffusion.domains.weather import cases, measure
from sciffusion.domains.weather.api import train
from sciffusion.domains.weather.model import WeatherModel
from sciffusion.domains.weather.task import WeatherTraining
from sciffusion.training import TrainConfig
from tests.domains.weather.tiny import config, untrained, world

da = pytest.importorskip("dask.array")
zarr = pytest.importorskip("zarr")

STATE = 2 * 8 * 16 * 4
"""Bytes of a state."""


class Meter:
    """What is read: bytes that are held, the most at once, and all together."""

    def __init__(self) -> None:
        self.held = self.most = self.total = 0

    def add(self, block: np.ndarray) -> np.ndarray:
        self.held += block.nbytes
        self.total += block.nbytes
        self.most = max(self.most, self.held)
        weakref.finalize(block, self.remove, block.nbytes)
        return block

    def remove(self, size: int) -> None:
        self.held -= size


class Metered:
    """An array of a Zarr store, whose blocks are counted."""

    def __init__(self, array: Any, meter: Meter) -> None:
        self.array, self.meter = array, meter
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __getitem__(self, key: object) -> np.ndarray:
        return self.meter.add(np.asarray(self.array[key]))


def stored(path: Path, n: int) -> tuple[xr.Dataset, Meter]:
    """The small world in a Zarr store of a chunk for each time, opened lazily."""
    whole = world(n=n)
    whole.chunk(time=1).to_zarr(path, consolidated=False)
    group, meter = zarr.open_group(path, mode="r"), Meter()
    lazy = whole.copy()
    for name in ("z500", "u850"):
        blocks = da.from_array(
            Metered(group[name], meter), chunks=(1, 8, 16), meta=np.empty((0, 0, 0), np.float32)
        )
        lazy[name] = (whole[name].dims, blocks, whole[name].attrs)
    return lazy, meter


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> int:
    """Bytes that may be kept or looked at: those of 32 states."""
    monkeypatch.setattr(cases, "_IN_MEMORY", 32 * STATE)
    monkeypatch.setattr(measure, "_BYTES", 32 * STATE)
    return 32 * STATE


@pytest.mark.parametrize("leads", [(), (12, 24)])
def test_training_streams_its_cases(
    tmp_path: Path, little_memory: int, leads: tuple[int, ...]
) -> None:
    ds, meter = stored(tmp_path / "w.zarr", 200)
    settings = TrainConfig(steps=10, batch_size=4, warmup=5, print_seconds=1e9, validate_every=5)
    targets = (0,) if leads else (12,)
    model = config(head="mean", inputs=(0,), targets=targets, leads=leads)
    trained, state = train(WeatherTraining(model=model, train=settings), tmp_path / "run", ds, ds)
    assert state.step == 10 and isinstance(trained, WeatherModel)
    assert meter.total > 10 * 4 * STATE  # each batch is read when it is wanted
    assert (
        meter.most <= 2 * little_memory < 200 * STATE / 3
    )  # 32 cases of two states are validated at once
    assert meter.held <= little_memory


def test_small_data_are_read_once_and_learnt_from_all_the_same(tmp_path: Path) -> None:
    ds, meter = stored(tmp_path / "w.zarr", 40)
    settings = TrainConfig(steps=10, batch_size=8, warmup=5, print_seconds=1e9)
    training = WeatherTraining(model=config(head="mean", targets=(12,)), train=settings)
    lazy, _ = train(training, tmp_path / "lazy", ds)
    assert meter.total <= 3 * 40 * STATE
    loaded, _ = train(training, tmp_path / "loaded", world(n=40))
    assert lazy.fingerprint == loaded.fingerprint


def test_a_forecast_reads_the_states_that_it_starts_from_alone(tmp_path: Path) -> None:
    ds, meter = stored(tmp_path / "w.zarr", 60)
    model = untrained(config(head="ensemble", targets=(12, 24)))
    starts = ds.time.values[[5, 20, 50]]
    with model.forecast(ds, 3, 2, times=starts, out=tmp_path / "f.zarr", progress=False) as out:
        assert out.sizes["prediction_timedelta"] == 6
    assert meter.total == 3 * 2 * STATE
