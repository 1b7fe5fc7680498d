"""Following the Lorenz-96 model: a learnt filter whose members a diffusion draws, beside Kalman filters and 3D-Var.

    python benchmarks/lorenz96.py                  # learns the filter first: about five minutes on one core
    python benchmarks/lorenz96.py --steps 300 --draws 200 --times 100       # half a minute, for a look

All 40 numbers are observed every 0.05 units of time with errors of variance 1, the setting in which data assimilation
is usually compared (Sakov & Oke, Tellus A 60, 2008). The test's trajectories are no others' continuation; every method
sees the same observations. The root mean squared error is that of the mean of the members over the state, averaged
over times; the first --skip cycles of each trajectory do not count. Inflations are the best for these observations of
those tried, which favours the Kalman filters. Results go to benchmarks/results/lorenz96.{json,md}.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from measure import environment, write
from rich.console import Console
from rich.table import Table

from sciffusion.domains.weather.baselines.kalman import (
    ETKF,
    EnsembleFilter,
    StochasticEnKF,
    ThreeDVar,
    cycle,
)
from sciffusion.domains.weather.kernels import crps
from sciffusion.domains.weather.ringfilter import Lessons, learn
from sciffusion.domains.weather.significance import BlockBootstrap, Interval
from sciffusion.domains.weather.simulators.lorenz96 import Lorenz96

RESULTS = Path(__file__).parent / "results" / "lorenz96.json"
MODEL = Lorenz96()
TEST = 10_000  # the seed of the test's trajectories; learning draws others


def main() -> None:
    """Learn, follow, judge, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--trajectories", type=int, default=3)
    parser.add_argument("--times", type=int, default=400, help="that count, of each trajectory")
    parser.add_argument("--skip", type=int, default=100)
    parser.add_argument("--members", type=int, default=40)
    parser.add_argument("--steps", type=int, default=Lessons().steps, help="of the mean's training")
    parser.add_argument("--draws", type=int, default=Lessons().draws, help="of the diffusion's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    learnt = learn(
        MODEL, Lessons(steps=args.steps, draws=args.draws, seed=args.seed), progress=True
    )
    taken = time.process_time() - began
    print(f"learnt in {taken / 60:.1f} minutes", flush=True)
    count = args.skip + args.times
    truth = MODEL.trajectory(
        MODEL.start(TEST + args.seed, range(args.trajectories)), count + 1, skip=400
    ).numpy()
    rng = np.random.default_rng(args.seed)
    observed = truth + rng.standard_normal(truth.shape)
    spread = rng.standard_normal((args.trajectories, args.members, 40))

    def follow(method: EnsembleFilter, members: int = args.members) -> list[np.ndarray]:
        """The members on every trajectory, (times, members, 40)."""
        return [
            cycle(
                method,
                observed[i, 0] + spread[i, :members],
                lambda e: MODEL.advance(torch.from_numpy(e)).numpy(),
                lambda e: e,
                observed[i, 1:],
                1.0,
                seed=args.seed + i,
            ).ensembles
            for i in range(args.trajectories)
        ]

    past = MODEL.trajectory(MODEL.start(args.seed + 77, range(20)), 500, skip=200)
    past = past[:, ::20].reshape(-1, 40).numpy()
    law = np.cov(past.T)
    rivals: dict[str, list[tuple[EnsembleFilter, int]]] = {
        "ETKF": [(ETKF(a, rotate=True), args.members) for a in (1.0, 1.01, 1.02, 1.04)],
        "stochastic EnKF": [(StochasticEnKF(a), args.members) for a in (1.03, 1.06, 1.1)],
        "3D-Var": [(ThreeDVar(s * law, np.eye(40)), 1) for s in (0.01, 0.015, 0.02, 0.03)],
    }
    parts = {f"learnt filter, {args.members} members": _parts(follow(learnt), truth, args.skip)}
    for name, methods in rivals.items():
        tried = [_parts(follow(*method), truth, args.skip) for method in methods]
        best = min(tried, key=lambda p: float(np.nanmean(p[:, 0])))
        parts[name + (f", {args.members} members" if methods[0][1] > 1 else "")] = best
    draws = rng.choice(len(past), (count, args.members))
    usual = [past[draws] for _ in range(args.trajectories)]
    parts["climatology"] = _parts(usual, truth, args.skip)
    results = {name: _figures(p) for name, p in parts.items()}
    settings = vars(args) | {"out": None, "training_minutes": round(taken / 60, 1)}
    write(args.out, settings, results)
    _show(results, args.out.with_suffix(".md"), taken, args)


def _parts(found: list[np.ndarray], truth: np.ndarray, skip: int) -> np.ndarray:
    """Of every time that counts: the error, its square, the variance of the members, and the CRPS, (times, 5)."""
    rows = []
    for members, y in zip(found, truth, strict=True):
        x, y = members[skip:], y[1 + skip :]
        square = ((x.mean(1) - y) ** 2).mean(-1)
        m = x.shape[1]
        alone = np.full(len(y), np.nan)
        variance = x.var(1, ddof=1).mean(-1) if m > 1 else alone
        score = crps(np.moveaxis(x, 1, -1), y).mean(-1) if m > 1 else abs(x[:, 0] - y).mean(-1)
        ones = np.ones(len(y))
        rows.append(np.stack([square**0.5, square, variance * (m + 1) / m, score, ones], 1))
    return np.concatenate(rows)


def _figures(parts: np.ndarray) -> dict[str, list[float]]:
    """Each with its interval."""
    draw = BlockBootstrap(block=50)
    found: dict[str, Interval] = {
        "RMSE": draw.interval(lambda s: s[:, 0] / s[:, 4], parts),
        "spread": draw.interval(lambda s: (s[:, 2] / s[:, 4]) ** 0.5, parts),
        "spread/skill": draw.interval(lambda s: (s[:, 2] / s[:, 1]) ** 0.5, parts),
        "CRPS": draw.interval(lambda s: s[:, 3] / s[:, 4], parts),
    }
    return {name: [i.value, i.low, i.high] for name, i in found.items()}


def _show(
    results: dict[str, dict[str, list[float]]], path: Path, taken: float, args: argparse.Namespace
) -> None:
    heads = list(next(iter(results.values())))
    table = Table("analyses of Lorenz-96", *heads)
    lines = [f"| | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    for name, row in results.items():
        cells = [
            "" if np.isnan(v) else f"{v:.3f}" + ("" if np.isnan(a) else f" ({a:.3f} to {b:.3f})")
            for v, a, b in row.values()
        ]
        table.add_row(name, *cells)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    Console(width=150).print(table)
    where = environment()
    times = args.trajectories * args.times
    about = (
        f"{times:,} analyses of {args.trajectories} trajectories that were not learnt from; 95 % intervals from blocks "
        f"of 50 times. A calibrated ensemble has spread/skill 1; the spread has the factor for {args.members} members, "
        "and 3D-Var, which has one, the absolute error for its CRPS. Learnt in "
        f"{taken / 60:.0f} minutes of one core's time ({where['cpu']}, torch {where['torch']})."
    )
    path.write_text(about + "\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
