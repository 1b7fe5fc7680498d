"""Forecasts of the shipped SPEEDY models beside persistence and climatology, over the test part of the data set.

    python benchmarks/weather_forecast.py --data speedy_t21_12h.nc

prints, for one, three and five days ahead: the error of the ensemble's mean, of a deterministic network of the same
budget, of persistence and climatology; the fair CRPS, the spread over the skill, and how far the members' spherical
spectra lie from the truth's, over all resolved degrees. Results go to benchmarks/results/weather_forecast.{json,md}.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from measure import write
from rich.console import Console
from rich.table import Table

from sciffusion.domains import weather
from sciffusion.domains.weather.baselines.statistics import Climatology
from sciffusion.domains.weather.report import Score
from sciffusion.domains.weather.spectra import spherical_spectrum

RESULTS = Path(__file__).parent / "results" / "weather_forecast.json"
DAYS = (1, 3, 5)


def main() -> None:
    """Forecast, judge, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="a local copy of the data set speedy")
    parser.add_argument("--model", default="speedy")
    parser.add_argument("--mean", default="speedy-mean", help="the deterministic network")
    parser.add_argument("--members", type=int, default=20)
    parser.add_argument("--starts", type=int, default=40, help="initial times, spread evenly")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    ds = weather.DATASETS["speedy"](args.data)[0].load()
    test, past = weather.split(ds, "speedy:test"), weather.split(ds, "speedy:train")
    model, mean = weather.load(args.model), weather.load(args.mean)
    names = list(model.frame.names)
    last = test.sizes["time"] - 2 * max(DAYS) - 1
    times = test.time.values[np.linspace(2, last, args.starts).round().astype(int)]
    steps = max(DAYS) * 24 // model.config.targets[-1]
    ensemble = at_days(model.forecast(test, steps, args.members, seed=args.seed, times=times))
    single = at_days(mean.forecast(test, steps, 1, seed=args.seed, times=times))
    report = weather.evaluate(ensemble, test[names], seed=args.seed)
    other = weather.evaluate(single.isel(member=0, drop=True), test[names], seed=args.seed)
    rows: dict[str, dict[str, float]] = {}
    for name in names:
        for day in DAYS:
            truth = test[name].sel(time=times + np.timedelta64(24 * day, "h"))
            here = ensemble[name].sel(prediction_timedelta=np.timedelta64(24 * day, "h"))
            a, b = (
                next(r for r in x.rows if r.variable == name and r.lead == 24 * day).scores
                for x in (report, other)
            )
            ratio = spectra(here, truth)
            rows[f"{name} day {day}"] = {
                "climatology RMSE": _error(_climate(past[name], truth), truth),
                "persistence RMSE": _error(test[name].sel(time=times).values, truth),
                "deterministic RMSE": value(b, "rmse"),
                "ensemble mean RMSE": value(a, "rmse"),
                "deterministic MAE": value(b, "mae"),
                "fair CRPS": value(a, "crps"),
                "CRPS below MAE, %": 100 * (1 - value(a, "crps") / value(b, "mae")),
                "spread/skill": value(a, "spread_skill"),
                "power from": float(ratio.min()),
                "power to": float(ratio.max()),
            }
    settings = vars(args) | {"out": None, "data": None}
    write(args.out, settings, rows)
    text = markdown(rows)
    args.out.with_suffix(".md").write_text(text)
    table = Table(title=f"{args.starts} initial times, {args.members} members")
    for column in ("", *next(iter(rows.values()))):
        table.add_column(column, justify="right")
    for name, row in rows.items():
        table.add_row(name, *(f"{v:.3g}" for v in row.values()))
    Console(width=170).print(table)


def value(scores: Mapping[str, Score], name: str) -> float:
    """A score without its interval."""
    return float(scores[name].value)


def at_days(forecast: xr.Dataset) -> xr.Dataset:
    """The days that are judged."""
    return forecast.sel(prediction_timedelta=[np.timedelta64(24 * d, "h") for d in DAYS]).drop_vars(
        "valid_time"
    )


def _error(forecast: np.ndarray, truth: xr.DataArray) -> float:
    weights = weather.Grid.of(truth).area.numpy()
    return float(np.sqrt((weights * (forecast - truth.values) ** 2).mean()))


def _climate(past: xr.DataArray, truth: xr.DataArray) -> np.ndarray:
    return Climatology.fit(past.time.values, past.values).at(truth.time.values)


def spectra(ensemble: xr.DataArray, truth: xr.DataArray) -> np.ndarray:
    """The members' mean power over the truth's at the degrees 1 to 21 that the data resolve."""
    mine, theirs = (
        spherical_spectrum(x.drop_vars("prediction_timedelta", errors="ignore"))
        for x in (ensemble, truth)
    )
    degrees = slice(1, 22)
    over = [[d for d in x.dims if d in ("member", "time")] for x in (mine, theirs)]
    return (mine.mean(over[0]).values / theirs.mean(over[1]).values)[degrees]


def markdown(rows: dict[str, dict[str, float]]) -> str:
    """A table, with a row for each name."""
    head = list(next(iter(rows.values())))
    lines = ["| | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    lines += [
        f"| {name} | " + " | ".join(f"{v:.3g}" for v in row.values()) + " |"
        for name, row in rows.items()
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
