"""One pass or many: the shipped ensemble of SPEEDY's weather beside a diffusion of the same network and data.

    python benchmarks/weather_one_pass.py --data speedy_t21_12h.nc --starts 16 --members 12    # five minutes

prints, for one, three and five days ahead, the error of the mean, the fair CRPS, the spread over the skill and how far
the members' spherical spectra lie from the truth's, and the CPU time of a member's day. Results go to
benchmarks/results/weather_one_pass.{json,md}.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from measure import write
from rich.console import Console
from rich.table import Table
from weather_forecast import DAYS, at_days, markdown, spectra, value

from sciffusion.domains import weather

RESULTS = Path(__file__).parent / "results" / "weather_one_pass.json"


def main() -> None:
    """Forecast with either, judge, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="a local copy of the data set speedy")
    parser.add_argument("--one", default="speedy", help="the model of one pass a step")
    parser.add_argument("--many", default="speedy-diffusion", help="the diffusion")
    parser.add_argument("--members", type=int, default=20)
    parser.add_argument("--starts", type=int, default=20, help="initial times, spread evenly")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    test = weather.split(weather.DATASETS["speedy"](args.data)[0].load(), "speedy:test")
    last = test.sizes["time"] - 2 * max(DAYS) - 1
    times = test.time.values[np.linspace(2, last, args.starts).round().astype(int)]
    rows: dict[str, dict[str, float]] = {}
    for label, name in {"one pass": args.one, "diffusion": args.many}.items():
        model = weather.load(name)
        names = list(model.frame.names)
        steps = max(DAYS) * 24 // model.config.targets[-1]
        began = time.process_time()
        made = model.forecast(test, steps, args.members, seed=args.seed, times=times)
        seconds = (time.process_time() - began) / (args.starts * args.members * max(DAYS))
        made = at_days(made)
        report = weather.evaluate(made, test[names], seed=args.seed)
        for variable in names:
            for day in DAYS:
                truth = test[variable].sel(time=times + np.timedelta64(24 * day, "h"))
                here = made[variable].sel(prediction_timedelta=np.timedelta64(24 * day, "h"))
                scores = next(
                    r for r in report.rows if r.variable == variable and r.lead == 24 * day
                ).scores
                power = spectra(here, truth)
                rows[f"{variable} day {day}, {label}"] = {
                    "mean RMSE": value(scores, "rmse"),
                    "fair CRPS": value(scores, "crps"),
                    "spread/skill": value(scores, "spread_skill"),
                    "power from": float(power.min()),
                    "power to": float(power.max()),
                    "CPU ms a member's day": 1000 * seconds,
                }
    rows = dict(sorted(rows.items(), key=lambda item: item[0].rpartition(",")[0]))
    write(args.out, vars(args) | {"out": None, "data": None}, rows)
    about = f"{args.starts} initial times, {args.members} members, seed {args.seed}."
    args.out.with_suffix(".md").write_text(about + "\n\n" + markdown(rows))
    table = Table(title=f"{args.starts} initial times, {args.members} members")
    for column in ("", *next(iter(rows.values()))):
        table.add_column(column, justify="right")
    for name, row in rows.items():
        table.add_row(name, *(f"{v:.3g}" for v in row.values()))
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
