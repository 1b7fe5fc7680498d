"""Daily states of a simulated climate made twelve-hourly, beside linear interpolation in time.

    sciffusion train weather --config speedy-interpolate --out runs/between data.path=speedy_t21_12h.nc
    python benchmarks/weather_interpolate.py --data speedy_t21_12h.nc --model runs/between/model.safetensors

The state in the middle of a day, from those at its two ends, over the test part of the data: the error of the
ensemble's mean and of linear interpolation, the fair CRPS (of linear interpolation its absolute error), the spread over
the skill, and how far the spherical spectra lie from the truth's, over all resolved degrees. Results go to
benchmarks/results/weather_interpolate.{json,md}.
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

RESULTS = Path(__file__).parent / "results" / "weather_interpolate.json"


def main() -> None:
    """Interpolate, judge, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="a local copy of the data set speedy")
    parser.add_argument("--model", default="runs/between/model.safetensors")
    parser.add_argument("--members", type=int, default=20)
    parser.add_argument("--days", type=int, default=60, help="spread evenly over the test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = weather.load(args.model)
    names, lmax = list(model.frame.names), model.config.lmax
    ds = weather.DATASETS["speedy"](args.data)[0].load()
    test = weather.split(ds, "speedy:test")[names]
    begins = np.linspace(0, test.sizes["time"] - 3, args.days).round().astype(int)
    made, linear = [], []
    for k in begins.tolist():
        ends = test.isel(time=[k, k + 2])
        middle = test.time[k + 1 : k + 2]
        made.append(model.interpolate_time(ends, args.members, seed=args.seed).sel(time=middle))
        linear.append(ends.mean("time", keep_attrs=True).expand_dims(time=middle.values))
    ours = xr.concat(made, "time", data_vars="minimal").drop_duplicates("time")
    rival = xr.concat(linear, "time").drop_duplicates("time")
    truth = test.sel(time=ours.time)
    reports = {
        "linear": weather.evaluate(rival, truth, seed=args.seed, lmax=lmax),
        f"{args.members} members": weather.evaluate(ours, truth, seed=args.seed, lmax=lmax),
    }
    results = {}
    for name in names:
        for who, report in reports.items():
            row = next(r for r in report.rows if r.variable == name).scores
            crps = row["crps" if "crps" in row else "mae"]
            results[f"{name}, {crps.unit}: {who}"] = {
                "RMSE": row["rmse"].value,
                "CRPS": crps.value,
                "spread/skill": row["spread_skill"].value if "spread_skill" in row else np.nan,
                "power from": row["power_low"].value,
                "power to": row["power_high"].value,
            }
    write(args.out, vars(args) | {"out": None, "data": None, "model": None}, results)
    head = list(next(iter(results.values())))
    table = Table("", *head, title=f"{truth.sizes['time']} days")
    lines = ["| | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    for name, values in results.items():
        cells = ["-" if np.isnan(v) else f"{v:.3g}" for v in values.values()]
        table.add_row(name, *cells)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    Console(width=120).print(table)
    args.out.with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
