"""A small world, a wave that travels around a globe with a little noise, and models of it that learn in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import xarray as xr

from sciffusion.domains.weather.adapter import ModelConfig, UNetConfig
from sciffusion.domains.weather.model import WeatherModel
from sciffusion.domains.weather.task import WeatherTask, WeatherTraining
from sciffusion.training import TrainConfig

NET = UNetConfig(widths=(8, 8), blocks=1, attention=(False, False), embedding=8)


def world(n: int = 40, lat: int = 8, lon: int = 16, step: int = 12, seed: int = 0) -> xr.Dataset:
    """z500 and u850 every ``step`` hours on an equiangular globe, with orography."""
    rng = np.random.default_rng(seed)
    lats = 90 - (np.arange(lat) + 0.5) * 180 / lat
    lons = np.arange(lon) * 360 / lon
    t = np.arange(n)[:, None, None]
    wave = np.cos(np.deg2rad(lats))[:, None] * np.sin(2 * np.deg2rad(lons) - 0.3 * t)
    noise = 0.1 * rng.standard_normal((2, n, lat, lon))
    data = {
        "z500": (
            ("time", "lat", "lon"),
            (5500 + 80 * (wave + noise[0])).astype(np.float32),
            {"units": "m"},
        ),
        "u850": (
            ("time", "lat", "lon"),
            (10 * (wave - noise[1])).astype(np.float32),
            {"units": "m s-1"},
        ),
        "orography": (
            ("lat", "lon"),
            rng.standard_normal((lat, lon)).astype(np.float32),
            {"units": "m"},
        ),
    }
    times = np.datetime64("2001-01-01", "ns") + np.arange(n) * np.timedelta64(step, "h")
    coords = {
        "time": times,
        "lat": ("lat", lats, {"units": "degrees_north"}),
        "lon": ("lon", lons, {"units": "degrees_east"}),
    }
    return xr.Dataset(data, coords, {"title": "a small world"})


def config(**settings: object) -> ModelConfig:
    """Settings of a model of the small world."""
    given = {
        "network": NET,
        "variables": ("z500", "u850"),
        "vectors": ("u850",),
        "statics": ("orography",),
    }
    return ModelConfig(**(given | settings))  # type: ignore[arg-type]


def task(model: ModelConfig, ds: xr.Dataset | None = None, **settings: object) -> WeatherTask:
    """Its training task."""
    return WeatherTask(WeatherTraining(model=model, **settings), world() if ds is None else ds)  # type: ignore[arg-type]


def untrained(model: ModelConfig, ds: xr.Dataset | None = None, seed: int = 0) -> WeatherModel:
    """A model whose weights are random, its output not zero."""
    made = task(model, ds)
    torch.manual_seed(seed)
    module = made.model()
    for p in module.parameters():
        if p.ndim > 1:
            torch.nn.init.normal_(p, std=0.1)
    return WeatherModel.from_training(made, module.state_dict())


def trained(model: ModelConfig, folder: Path, steps: int = 60) -> WeatherModel:
    """A model after a few steps."""
    from sciffusion.domains.weather.api import train

    settings = TrainConfig(
        steps=steps, batch_size=8, lr=3e-3, warmup=5, log_every=20, print_seconds=1e9
    )
    return train(WeatherTraining(model=model, train=settings), folder, world())[0]
