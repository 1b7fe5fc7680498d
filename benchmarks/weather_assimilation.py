"""The 500 hPa height of a simulated climate from 64 stations, beside optimal interpolation at the same stations.

    python benchmarks/weather_assimilation.py --data speedy_t21_12h.nc --starts 5 --iterations 2

Stations report every twelve hours with errors of 10 m. Both methods give the state at the last time: the prior from
that instant alone, and from a day of reports; optimal interpolation, whose covariance is that of the anomalies of the
training data, from the instant. Results go to benchmarks/results/weather_assimilation.{json,md}.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from measure import write
from rich.console import Console
from rich.table import Table

from sciffusion.domains import weather
from sciffusion.domains.weather.baselines.interpolation import OptimalInterpolation
from sciffusion.domains.weather.baselines.statistics import Climatology
from sciffusion.domains.weather.kernels import crps
from sciffusion.domains.weather.observations import Points
from sciffusion.inverse import MMPS
from sciffusion.samplers import Multistep, Sampler

RESULTS = Path(__file__).parent / "results" / "weather_assimilation.json"
ERROR = 10.0  # m


def main() -> None:
    """Assimilate, judge, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="a local copy of the data set speedy")
    parser.add_argument("--model", default="speedy-prior")
    parser.add_argument("--stations", type=int, default=64)
    parser.add_argument("--starts", type=int, default=6, help="times, spread evenly over the test")
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--iterations", type=int, default=4, help="of MMPS")
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--shrinkage", type=float, help="of the rival's covariance; by a formula")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    ds = weather.DATASETS["speedy"](args.data)[0].load()
    past, test = weather.split(ds, "speedy:train"), weather.split(ds, "speedy:test")
    model = weather.load(args.model)
    rng = np.random.default_rng(args.seed)
    fields = weather.Fields.of(test, model.frame.names)
    grid, area = fields.grid, fields.grid.area.numpy()
    lat = np.degrees(np.arcsin(rng.uniform(-0.99, 0.99, args.stations)))
    lon = rng.uniform(0, 360, args.stations)
    points = Points(grid, lat, lon, 0)
    height = weather.Fields.of(past, ["z500"])
    before = height.read(np.arange(len(height)))[:, 0].double().numpy()
    usual = Climatology.fit(height.times, before)
    law = OptimalInterpolation.fit(
        (before - usual.at(height.times)).reshape(len(before), -1), shrinkage=args.shrinkage
    )
    where = _matrix(points, grid)
    settings = weather.Assimilation(
        MMPS(args.iterations), Sampler(Multistep(2, eta=1.0), args.steps), members=args.members
    )
    ends = np.linspace(4, len(fields) - 1, args.starts).round().astype(int)
    errors: dict[str, list[tuple[float, float, float]]] = {}
    for end in ends:
        at = np.array([end - 2, end - 1, end])
        times, truth = fields.times[at], fields.read(at)
        seen = points.see(truth).numpy() + ERROR * rng.standard_normal((3, args.stations))
        table = pd.concat(
            pd.DataFrame(
                {
                    "time": time,
                    "lat": lat,
                    "lon": lon,
                    "variable": "z500",
                    "value": seen[k],
                    "std": ERROR,
                }
            )
            for k, time in enumerate(times)
        )
        y = truth[-1, 0].double().numpy()
        for name, rows in (
            ("prior, a day", table),
            ("prior, an instant", table[table.time == times[-1]]),
        ):
            made = model.assimilate(rows, times, settings=settings, seed=int(end))
            x = made.z500.isel(time=-1).transpose("lat", "lon", "member").values.astype(np.float64)
            skill = (area * (x.mean(-1) - y) ** 2).mean()
            spread = (area * x.var(-1, ddof=1)).mean() * (args.members + 1) / args.members
            errors.setdefault(name, []).append((skill, (area * crps(x, y)).mean(), spread))
        mean = usual.at(times[-1:])[0]
        expected = where @ mean.reshape(-1)
        found = law.analyse(seen[-1] - expected, where, ERROR**2)
        x = found.mean.reshape(y.shape) + mean
        score = found.crps((y - mean).reshape(-1)).reshape(y.shape)
        spread = (area * found.variance.reshape(y.shape)).mean()
        errors.setdefault("optimal interpolation", []).append(
            ((area * (x - y) ** 2).mean(), (area * score).mean(), spread)
        )
        skill = (area * (mean - y) ** 2).mean()
        errors.setdefault("climatology", []).append((skill, (area * abs(mean - y)).mean(), np.nan))
    results = {name: _scores(np.array(rows)) for name, rows in errors.items()}
    write(args.out, vars(args) | {"out": None, "data": None, "model": None}, results)
    table_ = Table("z500, m", "RMSE", "CRPS", "spread/skill")
    lines = ["| z500, m | RMSE | CRPS | spread/skill |", "|---|---|---|---|"]
    for name, row in results.items():
        values = [f"{v:.3g}" for v in row.values()]
        table_.add_row(name, *values)
        lines.append(f"| {name} | " + " | ".join(values) + " |")
    Console().print(table_)
    args.out.with_suffix(".md").write_text("\n".join(lines) + "\n")


def _matrix(points: Points, grid: weather.Grid) -> np.ndarray:
    """The stations' operator as rows over all cells."""
    cells = torch.eye(grid.shape[0] * grid.shape[1]).reshape(-1, 1, *grid.shape)
    return np.asarray(points.see(cells).T.double())


def _scores(rows: np.ndarray) -> dict[str, float]:
    skill, score, spread = rows.mean(0)
    return {
        "RMSE": float(np.sqrt(skill)),
        "CRPS": float(score),
        "spread/skill": float(np.sqrt(spread / skill)),
    }


if __name__ == "__main__":
    main()
