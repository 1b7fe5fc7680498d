"""Observed anomalies of the sea surface temperature from 50 ships a month, beside optimal interpolation.

    python benchmarks/weather_sst.py --data sst_anomaly_t30_1979_2013.nc

Every month 50 ships report from other cells of the sea, with errors of 0.2 K. All methods give the last month: from
its own reports, and from those of the two months before, too. Optimal interpolation knows the covariance of all months
before 2007, more than the model was trained on, or the covariance of windows of three; its shrinkage is the best for
these observations of those tried, which favours it. Results go to benchmarks/results/weather_sst.{json,md}.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from measure import environment, write
from rich.console import Console
from rich.table import Table

from sciffusion.domains import weather
from sciffusion.domains.weather.baselines.interpolation import OptimalInterpolation
from sciffusion.domains.weather.kernels import crps
from sciffusion.domains.weather.significance import BlockBootstrap
from sciffusion.inverse import MMPS
from sciffusion.samplers import Multistep, Sampler

RESULTS = Path(__file__).parent / "results" / "weather_sst.json"
ERROR = 0.2  # K
SHRINKAGES = (None, 0.1, 0.2, 0.3, 0.5)  # None: by a formula


def main() -> None:
    """Assimilate, judge, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="a local copy of the data set sst")
    parser.add_argument("--model", default="sst-prior")
    parser.add_argument("--ships", type=int, default=50)
    parser.add_argument("--months", type=int, default=12, help="spread evenly over the test")
    parser.add_argument("--window", type=int, default=3, help="months whose reports are used")
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--iterations", type=int, default=2, help="of MMPS")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--part", default="test", help="valid, to choose settings by")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    ds = weather.DATASETS["sst"](args.data)[0].load()
    model = weather.load(args.model)
    fields = weather.Fields.of(ds, model.frame.names)
    first, last = fields.index(weather.split(ds, f"sst:{args.part}").time.values[[0, -1]])
    grid, mask = fields.grid, fields.mask()[0].numpy()
    x = fields.read(np.arange(len(fields)))[:, 0].double().numpy()[:, mask]
    area = np.broadcast_to(grid.area.numpy(), grid.shape)[mask]
    area = area / area.mean()
    rng, k = np.random.default_rng(args.seed), args.window
    ships = rng.permuted(np.tile(np.arange(x.shape[1]), (len(x), 1)), axis=1)[:, : args.ships]
    seen = np.take_along_axis(x, ships, 1) + ERROR * rng.standard_normal(ships.shape)
    rows, columns = np.nonzero(mask)
    settings = weather.Assimilation(
        MMPS(args.iterations), Sampler(Multistep(2, eta=1.0), args.steps), members=args.members
    )
    ends = np.linspace(first + k - 1, last, args.months).round().astype(int)
    began = time.process_time()
    found: dict[str, list[list[float]]] = {f"prior, {k} months": [], "prior, a month": []}
    for end in ends:
        at = np.arange(end - k + 1, end + 1)
        table = pd.concat(
            pd.DataFrame(
                {
                    "time": fields.times[i],
                    "lat": grid.lat.numpy()[rows[ships[i]]],
                    "lon": grid.lon.numpy()[columns[ships[i]]],
                    "variable": "ssta",
                    "value": seen[i],
                    "std": ERROR,
                }
            )
            for i in at
        )
        for name, some in zip(found, (table, table[table.time == fields.times[end]]), strict=True):
            made = model.assimilate(some, fields.times[at], settings=settings, seed=int(end))
            made = made.ssta.isel(time=-1).sortby("lat", ascending=False)
            z = made.transpose("lat", "lon", "member").values.astype(np.float64)[mask]
            spread = z.var(-1, ddof=1) * (args.members + 1) / args.members
            parts = ((z.mean(-1) - x[end]) ** 2, crps(z, x[end]), spread)
            found[name].append([float((area * p).mean()) for p in parts] + [1.0])
            print(fields.times[end].astype("M8[M]"), name, np.round(found[name][-1], 3), flush=True)
    taken = (time.process_time() - began) / len(ends) / 2
    for name, window in ((f"optimal interpolation, {k} months", k), ("optimal interpolation", 1)):
        tried = [
            _interpolated(x[:first], x, ships, seen, ends, window, s, area) for s in SHRINKAGES
        ]
        found[name] = min(tried, key=lambda p: sum(row[0] for row in p))
    mean = x[:first].mean(0)
    found["climatology"] = [
        [(area * (mean - x[end]) ** 2).mean(), (area * abs(mean - x[end])).mean(), np.nan, 1.0]
        for end in ends
    ]
    results = _figures({name: np.array(parts) for name, parts in found.items()})
    write(args.out, vars(args) | {"out": None, "data": None, "model": None}, results)
    _show(results, args, taken)


def _interpolated(
    past: np.ndarray,
    x: np.ndarray,
    ships: np.ndarray,
    seen: np.ndarray,
    ends: np.ndarray,
    window: int,
    shrinkage: float | None,
    area: np.ndarray,
) -> list[list[float]]:
    """Error, CRPS and variance of the last month of windows, by the covariance of those of the past."""
    p = x.shape[1]
    stacked = np.concatenate([past[i : len(past) - window + 1 + i] for i in range(window)], 1)
    law = OptimalInterpolation.fit(stacked, shrinkage=shrinkage)
    out = []
    for end in ends:
        at = np.arange(end - window + 1, end + 1)
        where = np.concatenate([ships[i] + n * p for n, i in enumerate(at)])
        made = law.analyse(seen[at].reshape(-1), where, ERROR**2)
        parts = (made.mean - x[at].reshape(-1)) ** 2, made.crps(x[at].reshape(-1)), made.variance
        out.append([float((area * part[-p:]).mean()) for part in parts] + [1.0])
    return out


def _figures(parts: dict[str, np.ndarray]) -> dict[str, dict[str, list[float]]]:
    """Each with its interval; differences are those from optimal interpolation of the same months."""
    draw, rival = BlockBootstrap(block=1), parts["optimal interpolation"]
    out = {}
    for name, p in parts.items():
        both = np.concatenate([p, rival], 1)
        made = {
            "RMSE": draw.interval(lambda s: (s[:, 0] / s[:, 3]) ** 0.5, p),
            "less OI": draw.interval(
                lambda s: (s[:, 0] / s[:, 3]) ** 0.5 - (s[:, 4] / s[:, 3]) ** 0.5, both
            ),
            "CRPS": draw.interval(lambda s: s[:, 1] / s[:, 3], p),
            "CRPS less OI's": draw.interval(lambda s: (s[:, 1] - s[:, 5]) / s[:, 3], both),
            "spread/skill": draw.interval(lambda s: (s[:, 2] / s[:, 0]) ** 0.5, p),
        }
        out[name] = {k: [i.value, i.low, i.high] for k, i in made.items()}
    return out


def _show(
    results: dict[str, dict[str, list[float]]], args: argparse.Namespace, taken: float
) -> None:
    heads = list(next(iter(results.values())))
    table = Table("SST anomaly, K", *heads)
    lines = [f"| SST anomaly, K | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    for name, row in results.items():
        cells = ["" if np.isnan(v) else f"{v:.3f} ({a:.3f} to {b:.3f})" for v, a, b in row.values()]
        table.add_row(name, *cells)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    Console(width=170).print(table)
    where = environment()
    about = (
        f"{args.months} months of the {args.part} part, {args.ships} ships a month, {args.members} members, "
        f"{args.steps} steps, MMPS with {args.iterations} iterations; 95 % intervals by drawing months again. "
        f"{taken:.0f} s of one core's time an analysis ({where['cpu']}, torch {where['torch']}). The CRPS of the "
        "climatology is its absolute error."
    )
    args.out.with_suffix(".md").write_text(about + "\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
