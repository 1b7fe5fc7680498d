"""Simulated days per second of CPU time: forecasts of the shipped model, its members batched, on one thread.

    python benchmarks/weather_throughput.py

Each forecast begins with the states that ship and includes all that a user waits for: reading them, the network, and
the dataset that is returned. Results go to benchmarks/results/weather_throughput.{json,md}.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
from measure import interleave, write
from rich.console import Console
from rich.table import Table

from sciffusion.domains import weather

RESULTS = Path(__file__).parent / "results" / "weather_throughput.json"


def main() -> None:
    """Forecast, take the time, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="speedy")
    parser.add_argument("--members", type=int, nargs="+", default=[1, 10, 20, 50])
    parser.add_argument("--days", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, start = weather.load(args.model), weather.example(args.model)
    steps = args.days * 24 // model.config.targets[-1]

    def forecast(members: int) -> None:
        model.forecast(start, steps, members, batch_size=members, progress=False)

    run: dict[str, Callable[[], object]] = {str(m): partial(forecast, m) for m in args.members}
    times = interleave(run, args.repeats, 0.0)
    results = {}
    for name, seconds in times.items():
        rates = sorted(int(name) * args.days / s for s in seconds)
        results[name] = {
            "days per second": median(rates),
            "least": rates[0],
            "most": rates[-1],
            "seconds": seconds,
        }
    write(args.out, vars(args) | {"out": None}, results)
    title = f"{args.model}, {args.days} days"
    table = Table("members", "CPU s", "simulated days / s", "range", title=title)
    lines = [
        "| members | CPU seconds for a forecast | simulated days per second | range |",
        "|---" * 4 + "|",
    ]
    for name, row in results.items():
        cells = (
            name,
            f"{median(times[name]):.3g}",
            f"{row['days per second']:.3g}",
            f"{row['least']:.3g} to {row['most']:.3g}",
        )
        table.add_row(*cells)
        lines.append("| " + " | ".join(cells) + " |")
    Console().print(table)
    args.out.with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
