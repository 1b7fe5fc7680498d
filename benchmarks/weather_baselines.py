"""The simple rivals of the weather models on real and simulated data, beside figures that other code found before.

    python benchmarks/weather_baselines.py --folder data/weather

A comparison is worth what its rival is. Climatology, persistence, ridge regression, bilinear and optimal interpolation
are scored here over the test parts of the data, fitted to all that went before. The last column was measured on the
same files by code of its own, written before any of this: a rival that falls behind it is a straw man. Stations, ships
and patches of rain lie at other places in either column. Results go to benchmarks/results/weather_baselines.{json,md}.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from measure import write
from rich.console import Console
from rich.table import Table

from sciffusion.domains import weather
from sciffusion.domains.weather.baselines.interpolation import OptimalInterpolation
from sciffusion.domains.weather.baselines.statistics import (
    Climatology,
    DampedPersistence,
    LocalRidge,
)
from sciffusion.domains.weather.cases import Cases
from sciffusion.domains.weather.measure import measure
from sciffusion.domains.weather.observations import Points
from sciffusion.domains.weather.task import DataConfig

RESULTS = Path(__file__).parent / "results" / "weather_baselines.json"
Figures = dict[str, tuple[float, float]]
"""What is found here, and what was found before."""


def main() -> None:
    """Score, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--folder", type=Path, required=True, help="with the files of the data sets"
    )
    parser.add_argument("--places", type=int, default=5, help="draws of random stations and ships")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(args.seed)
    figures = {
        **speedy(args.folder / "speedy_t21_12h.nc", args.places, rng),
        **sea(args.folder / "sst_anomaly_t30_1979_2013.nc", args.places, rng),
        **temperature(args.folder / "era5_t2m_uk_201903.nc"),
        **rain(args.folder / "mrms_conus_20190610.nc"),
    }
    table = Table("RMSE", "here", "before")
    lines = ["| RMSE | here | before |", "|---|---|---|"]
    for name, values in figures.items():
        cells = [f"{v:.3g}" for v in values]
        table.add_row(name, *cells)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    Console().print(table)
    results = {name: {"here": a, "before": b} for name, (a, b) in figures.items()}
    write(args.out, {"places": args.places, "seed": args.seed}, results)
    args.out.with_suffix(".md").write_text("\n".join(lines) + "\n")


def speedy(path: Path, draws: int, rng: np.random.Generator) -> Figures:
    """Climatology, persistence and optimal interpolation of a simulated climate."""
    ds = weather.DATASETS["speedy"](path)[0].load()
    test = weather.split(ds, "speedy:test")
    past = ds.isel(time=ds.time < test.time[0])
    area = weather.Grid.of(ds).area.numpy()
    out: Figures = {}
    before = {
        "z500": (60.8, {24: 41.2, 72: 69.2, 120: 76.4}),
        "t850": (2.38, {24: 1.94, 72: 3.04, 120: 3.21}),
        "u850": (4.26, {24: 3.05, 72: 4.89, 120: 5.32}),
        "v850": (3.87, {24: 3.85, 72: 5.24, 120: 5.31}),
    }
    for name, (usual, persisted) in before.items():
        climate = Climatology.fit(past.time.values, past[name].values)
        label = f"SPEEDY {name}, {ds[name].units}: "
        gone = test[name].values - climate.at(test.time.values)
        out[label + "climatology"] = (_rms(gone, area), usual)
        for hours, figure in persisted.items():
            k = hours // 12
            x = test[name].values.astype(np.float64)
            out[f"{label}persistence {hours} h"] = (_rms(x[k:] - x[:-k], area), figure)
    height = weather.Fields.of(past, ["z500"])
    x = height.read(np.arange(len(height)))[:, 0].double().numpy()
    climate = Climatology.fit(height.times, x)
    law = OptimalInterpolation.fit((x - climate.at(height.times)).reshape(len(x), -1))
    later = weather.Fields.of(test, ["z500"])
    y = later.read(np.arange(len(later)))[:, 0].double().numpy() - climate.at(later.times)
    grid = later.grid
    cells = torch.eye(y[0].size).reshape(-1, 1, *grid.shape)
    for stations, figure in ((32, 53.7), (64, 48.2), (128, 39.5)):
        errors = []
        for _ in range(draws):
            lat = np.degrees(np.arcsin(rng.uniform(-0.99, 0.99, stations)))
            points = Points(grid, lat, rng.uniform(0, 360, stations), 0)
            where = points.see(cells).T.double().numpy()
            flat = y.reshape(len(y), -1)
            seen = flat @ where.T + 10.0 * rng.standard_normal((len(y), stations))
            found = law.analyse(seen, where, 100.0).mean
            errors.append(_rms((found - flat).reshape(y.shape), area) ** 2)
        name = f"SPEEDY z500, m: optimal interpolation, {stations} stations"
        out[name] = (float(np.mean(errors)) ** 0.5, figure)
    return out


def sea(path: Path, draws: int, rng: np.random.Generator) -> Figures:
    """Climatology, persistence and optimal interpolation of observed sea temperatures."""
    ds = weather.DATASETS["sst"](path)[0].load()
    wet = ds.ssta.notnull().all("time").values & (ds.sea_mask.values > 0)
    area = (weather.Grid.of(ds).area.numpy() * np.ones(wet.shape))[wet]
    area = area / area.mean()
    test = weather.split(ds, "sst:test").ssta.values[:, wet]
    past = ds.ssta.values[: -len(test), wet]
    out: Figures = {"SST, K: climatology": (_rms(test, area), 0.570)}
    for months, figure, damped in ((1, 0.376, 0.353), (3, 0.591, 0.502), (6, 0.701, 0.558)):
        gone = test[months:] - test[:-months]
        out[f"SST, K: persistence {months} months"] = (_rms(gone, area), figure)
        made = DampedPersistence.fit(past, months)(test[:-months])
        out[f"SST, K: damped persistence {months} months"] = (
            _rms(made - test[months:], area),
            damped,
        )
    law = OptimalInterpolation.fit(past)
    for ships, figure in ((20, 0.495), (50, 0.456), (100, 0.415)):
        errors = []
        for _ in range(draws):
            where = rng.choice(test.shape[1], ships, replace=False, p=area / area.sum())
            seen = test[:, where] + 0.2 * rng.standard_normal((len(test), ships))
            errors.append(_rms(law.analyse(seen, where, 0.04).mean - test, area) ** 2)
        out[f"SST, K: optimal interpolation, {ships} ships"] = (
            float(np.mean(errors)) ** 0.5,
            figure,
        )
    return out


def temperature(path: Path) -> Figures:
    """Bilinear interpolation and ridge regression of observed temperatures, by four."""
    data = DataConfig("era5-uk", path, rows=(0, 32), columns=(0, 48))
    train, valid, test = (data.load(part) for part in ("train", "valid", "test"))
    assert train is not None and valid is not None and test is not None
    train = xr.concat([train, valid], "time", data_vars="minimal")
    config = weather.ModelConfig(
        variables=("t2m",), inputs=(0,), targets=(0,), coarse=4, base="ridge", head="mean"
    )
    frame, _ = measure(config, weather.Fields.of(train, ["t2m"]))
    cases = Cases(weather.Fields.of(test, ["t2m"]), frame)
    batch = cases.batch(np.arange(len(cases)))
    y, grid = frame.decode(batch.targets)[:, 0, 0], frame.grid
    assert grid is not None
    area = grid.area.numpy()
    bilinear = frame.decode(batch.inputs)[:, 0, 0]
    ridge = frame.decode(frame.base(batch.inputs, batch.times, grid))[:, 0, 0]
    return {
        "UK temperature, K: bilinear": (_rms((bilinear - y).numpy(), area), 0.713),
        "UK temperature, K: ridge": (_rms((ridge - y).numpy(), area), 0.293),
    }


def rain(path: Path) -> Figures:
    """Bilinear interpolation and ridge regression of radar rain, log(1 + mm/h), by four."""
    data = DataConfig("mrms", path, patch=(64, 64), active=0.1)
    config = weather.recipe("mrms").model
    name = config.variables[0]
    pairs = []
    for part in ("train", "test"):
        ds = data.load(part)  # type: ignore[arg-type]
        assert isinstance(ds, xr.Dataset)
        frame, cases = measure(config, weather.Fields.of(ds, [name]), data.cut)
        fine = frame.decode(cases.batch(np.arange(len(cases))).targets)[:, 0]
        pairs.append((frame.coarsen(fine, None)[:, 0].numpy(), fine[:, 0].numpy(), frame))
    (coarse, fine, _), (small, truth, frame) = pairs
    y, area = np.log1p(truth), np.ones((64, 1))
    bilinear = np.log1p(frame.refine(torch.from_numpy(small)[:, None], None)[:, 0].numpy())
    ridge = LocalRidge.fit(np.log1p(coarse), np.log1p(fine))(np.log1p(small))
    label = f"rain, log(1 + mm/h), {len(y)} maps: "
    return {
        label + "bilinear": (_rms(bilinear - y, area), 0.202),
        label + "ridge 5 x 5": (_rms(ridge - y, area), 0.184),
    }


def _rms(error: np.ndarray, area: np.ndarray) -> float:
    return float(np.sqrt((area * error.astype(np.float64) ** 2).mean()))


if __name__ == "__main__":
    main()
