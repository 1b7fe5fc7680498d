"""Are generated shapes like real ones, as a set and one by one?

    python benchmarks/shapes_generated.py

The shipped models of superquadrics and of primitives, 200 samples each of the five classes in turn, 64 points, beside

* cloud: for every shape of the training data a cloud of normally distributed points with its centre and covariance: all
  sizes and proportions are right, and there is no surface.
* real: the half of the test part that no figure is measured against, what a perfect generator would reach.

1-NNA (50 %: alike), coverage and MMD are taken by the Chamfer distance and by the earth mover's distance, solved
exactly, of 100 shapes of each kind against one half of the test part. ``as asked`` is the share of the shapes that lie
nearest to a surface of their class, ``off surface`` the mean distance of a point from it, over that from the centre,
both by least squares (:mod:`sciffusion.domains.shapes.fitting`).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from measure import environment, write

from sciffusion.bootstrap import Bootstrap
from sciffusion.domains import shapes
from sciffusion.domains.shapes import Shapes
from sciffusion.domains.shapes.data import load

ROWS = {
    "1nna_chamfer": "1-NNA, Chamfer",
    "1nna_emd": "1-NNA, EMD",
    "coverage_chamfer": "coverage, Chamfer",
    "coverage_emd": "coverage, EMD",
    "mmd_chamfer": "MMD, Chamfer",
    "mmd_emd": "MMD, EMD",
    "as_asked": "as asked",
    "off_surface": "off surface",
    "radius": "radius",
    "spacing": "spacing",
}


def clouds(real: Shapes, points: int, seed: int) -> Shapes:
    """A normal cloud for every shape, of its centre and covariance."""
    rng = torch.Generator().manual_seed(seed)
    made = []
    for x in real.parts():
        factor = torch.linalg.cholesky(torch.cov(x.T.double()))
        z = torch.randn(points, 3, generator=rng, dtype=torch.float64)
        made.append(x.mean(0) + (z @ factor.T).float())
    return Shapes.of(made, real.labels).centred()


def main() -> None:
    """Sample, judge, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--names", nargs="+", default=["superquadrics", "primitives"])
    parser.add_argument("-n", type=int, default=200)
    parser.add_argument("--points", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results/shapes_generated.json")
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    seed, points, found = args.seed, args.points, {}
    env = environment()
    lines = [
        "# Generated shapes",
        "",
        f"`{env['command']}` on one thread of {env['cpu']}, torch {env['torch']}, seed {seed}: {args.n} samples, 100 "
        f"of them against 100 of the test part, {points} points; 95 % bootstrap intervals. `real`: the other 100. "
        "`cloud`: normal points with the covariances of real shapes.",
    ]
    for name in args.names:
        model, test = shapes.load(name), load(f"{name}:test")
        kinds = {
            "model": model.sample(args.n, points=points, seed=seed),
            "cloud": clouds(load(f"{name}:train", limit=args.n), points, seed),
        }
        reports = {
            kind: shapes.evaluate(
                made, test, points=points, seed=seed, bootstrap=Bootstrap(200, seed=seed)
            )
            for kind, made in kinds.items()
        }
        ceiling = reports["model"].ceiling
        assert ceiling is not None
        columns = {**{k: r.metrics for k, r in reports.items()}, "real": ceiling}
        found[name] = {
            kind: {k: (m[k].value, m[k].low, m[k].high) for k in ROWS}
            for kind, m in columns.items()
        }
        steps = (model.info or {}).get("steps", 0)
        lines += [
            "",
            f"## {name.capitalize()}",
            "",
            f"A model of {sum(p.numel() for p in model.denoiser.parameters()):,} weights and {steps:,} steps.",
            "",
            "| | " + " | ".join(columns) + " |",
            "|---|" + "---|" * len(columns),
        ]
        for key, title in ROWS.items():
            share = columns["model"][key].unit == "fraction"
            cells = []
            for metrics in columns.values():
                v, low, high = (
                    f"{100 * x:.1f}" if share else f"{x:.3f}"
                    for x in (metrics[key].value, metrics[key].low, metrics[key].high)
                )
                cells.append(f"{v}{' %' if share else ''} ({low} to {high})")
            lines.append(f"| {title} | " + " | ".join(cells) + " |")
        print("\n".join(lines[-len(ROWS) - 3 :]), flush=True)
    write(args.out, {"n": args.n, "points": points, "seed": seed}, found)
    args.out.with_suffix(".md").write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
