"""Downscaling of real fields by four, beside bilinear interpolation and ridge regression.

    sciffusion train weather --config era5-uk --out runs/era5-uk data.path=era5_t2m_uk_201903.nc
    python benchmarks/weather_downscale.py --uk era5_t2m_uk_201903.nc --rain mrms_conus_20190610.nc

Temperature of the British Isles: the error of the ensemble's mean and of the rivals, the fair CRPS, the spread over the
skill, the outliers. Rain, as log(1 + mm/h): the same, and how often it is wet, the fractions skill score at 1 mm/h in
boxes of 5 cells, and the spectrum, of members beside the ridge. Results go to
benchmarks/results/weather_downscale.{json,md}.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from measure import write
from rich.console import Console
from rich.table import Table
from torch import Tensor

from sciffusion.domains import weather
from sciffusion.domains.weather.baselines.statistics import LocalRidge
from sciffusion.domains.weather.events import fss
from sciffusion.domains.weather.kernels import crps, ranks
from sciffusion.domains.weather.spectra import planar_spectrum, spectral_ratio
from sciffusion.domains.weather.task import DataConfig, WeatherTask

RESULTS = Path(__file__).parent / "results" / "weather_downscale.json"


def main() -> None:
    """Downscale, judge, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--uk", type=Path, help="a local copy of the data set era5-uk")
    parser.add_argument("--rain", type=Path, help="a local copy of the data set mrms")
    parser.add_argument("--uk-model", default="runs/era5-uk/model.safetensors")
    parser.add_argument("--rain-model", default="mrms")
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument(
        "--every", type=int, default=3, help="hours between the maps of temperature"
    )
    parser.add_argument("--patches", type=int, default=80, help="of rain")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = {"temperature": temperature(args), "rain": rain(args)}
    write(args.out, vars(args) | {"out": None, "uk": None, "rain": None}, results)
    lines = []
    for task, rows in results.items():
        table = Table("", *next(iter(rows.values())), title=task)
        for name, row in rows.items():
            table.add_row(name, *(f"{v:.3g}" for v in row.values()))
        Console(width=150).print(table)
        head = list(next(iter(rows.values())))
        lines += [f"| {task} | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
        lines += [
            f"| {n} | " + " | ".join(f"{v:.3g}" for v in r.values()) + " |" for n, r in rows.items()
        ]
        lines.append("")
    args.out.with_suffix(".md").write_text("\n".join(lines))


def temperature(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """K, on the last eight days."""
    model, data = (
        weather.load(args.uk_model),
        DataConfig("era5-uk", args.uk, rows=(0, 32), columns=(0, 48)),
    )
    test = data.load("test")
    assert test is not None
    test = test.isel(time=slice(None, None, args.every))
    fields, frame = weather.Fields.of(test, ["t2m"]), model.frame
    truth = fields.read(np.arange(len(fields)))
    grid = frame.grid
    assert grid is not None
    coarse = frame.coarsen(truth, grid)
    small = grid.coarsen(4)
    made = model.downscale(
        _coarse(test.t2m, coarse[:, 0], small.lat, small.lon), args.members, seed=args.seed
    )
    members = made.t2m.transpose("time", "latitude", "longitude", "member").values
    inputs = frame.encode(frame.refine(coarse, grid))[:, None]
    ridge = frame.decode(frame.base(inputs, fields.times, grid))[:, 0, 0]
    bilinear = (
        frame.decode(frame.base(inputs, fields.times, grid)) * 0
        + frame.refine(coarse, grid)[:, None]
    )
    area = grid.area.numpy()
    y = truth[:, 0].numpy()
    rivals = {"bilinear": bilinear[:, 0, 0].numpy(), "ridge": ridge.numpy()}
    return {
        **{name: _single(x, y, area) for name, x in rivals.items()},
        f"{args.members} members": _ensemble(members, y, area, args.seed),
    }


def rain(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """log(1 + mm/h), on patches of the east."""
    model = weather.load(args.rain_model)
    data = DataConfig("mrms", args.rain, patch=(64, 64), active=0.1)
    config = replace(weather.recipe("mrms"), data=data)
    train, test = data.load("train"), data.load("test")
    assert train is not None
    task = WeatherTask(config, train, test)
    assert task.valid is not None
    ridge = LocalRidge.fit(*_pairs(task, task.cases, 1200))
    coarse, truth = _pairs(task, task.valid, args.patches)
    y = np.log1p(truth)
    lines = torch.arange(16.0)
    ds = _coarse(None, torch.from_numpy(coarse), 45 - 0.08 * lines, 0.08 * lines)
    made = model.downscale(ds, args.members, seed=args.seed)
    drawn = made.rain.transpose("time", "lat", "lon", "member").values
    members = np.log1p(drawn)
    bilinear = model.frame.refine(torch.from_numpy(coarse), None).numpy()
    linear = np.log1p(ridge(coarse).clip(min=0))
    area = np.ones((64, 1))
    rows = {
        "bilinear": _single(np.log1p(bilinear), y, area),
        "ridge 5 x 5": _single(linear, y, area),
        f"{args.members} members": _ensemble(members, y, area, args.seed),
    }
    fields = {
        "bilinear": np.log1p(bilinear)[..., None],
        "ridge 5 x 5": linear[..., None],
        f"{args.members} members": members,
    }
    for name, x in fields.items():
        rows[name] |= _texture(x, y)
    rows["truth"] = dict.fromkeys(rows["bilinear"], float("nan")) | _texture(y[..., None], y)
    return rows


def _pairs(task: WeatherTask, cases: object, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Coarse and fine rain of up to so many patches, mm/h."""
    chosen = np.arange(0, len(cases), -(-len(cases) // most))  # type: ignore[arg-type]
    fine = task.frame.decode(cases.batch(chosen).targets)[:, 0]  # type: ignore[attr-defined]
    return task.frame.coarsen(fine, None)[:, 0].numpy(), fine[:, 0].numpy()


def _coarse(like: xr.DataArray | None, values: Tensor, lat: Tensor, lon: Tensor) -> xr.Dataset:
    """Coarse fields as a data set; without ``like`` each one is a time of its own, at no particular place."""
    times = (
        like.time.values
        if like is not None
        else np.datetime64("2019-06-10", "ns") + np.arange(len(values)) * np.timedelta64(1, "h")
    )
    names = (like.dims[1], like.dims[2]) if like is not None else ("lat", "lon")
    attrs = like.attrs if like is not None else {"units": "mm h-1"}
    coords = {
        "time": times,
        names[0]: (names[0], lat.double().numpy(), {"units": "degrees_north"}),
        names[1]: (names[1], lon.double().numpy(), {"units": "degrees_east"}),
    }
    name = str(like.name) if like is not None else "rain"
    return xr.Dataset({name: (("time", *names), values.numpy(), attrs)}, coords)


def _single(x: np.ndarray, y: np.ndarray, area: np.ndarray) -> dict[str, float]:
    error = x - y
    none = float("nan")
    return {
        "RMSE": float(np.sqrt((area * error**2).mean())),
        "MAE": float((area * abs(error)).mean()),
        "CRPS": float((area * abs(error)).mean()),
        "spread/skill": none,
        "outliers / expected": none,
    }


def _ensemble(x: np.ndarray, y: np.ndarray, area: np.ndarray, seed: int) -> dict[str, float]:
    """Members come last."""
    m = x.shape[-1]
    out = _single(x.mean(-1), y, area)
    spread = np.sqrt((area * x.var(-1, ddof=1)).mean())
    rank = ranks(
        x.astype(np.float64), y.astype(np.float64), np.random.default_rng(seed).random(y.shape)
    )
    outliers = (area * ((rank == 0) | (rank == m))).mean()
    return out | {
        "CRPS": float((area * crps(x.astype(np.float64), y.astype(np.float64))).mean()),
        "spread/skill": float(np.sqrt((m + 1) / m) * spread / out["RMSE"]),
        "outliers / expected": float(outliers * (m + 1) / 2),
    }


def _texture(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """What rain looks like, of fields (n, H, W, members)."""
    scales = 111.2 * 0.02  # km; only ratios are used
    coords = {"y": np.arange(64) * scales, "x": np.arange(64) * scales}
    a = xr.DataArray(x, dims=("time", "y", "x", "member"), coords=coords)
    b = xr.DataArray(y, dims=("time", "y", "x"), coords=coords)
    a["y"].attrs["units"] = a["x"].attrs["units"] = b["y"].attrs["units"] = b["x"].attrs[
        "units"
    ] = "km"
    ratio = spectral_ratio(planar_spectrum(a), planar_spectrum(b)).values
    return {
        "wet share": float((x > np.log1p(0.1)).mean()),
        "FSS 1 mm/h": float(fss(a, b, np.log(2.0), [5]).squeeze()),
        "power, coarse half": float(ratio[: len(ratio) // 2].mean()),
        "power, fine half": float(ratio[len(ratio) // 2 :].mean()),
    }


if __name__ == "__main__":
    main()
