"""How far every solver gets with how many calls of the denoiser; writes tutorials/choose_a_sampler.md and its picture.

    python benchmarks/choose_a_sampler.py              # about two minutes
    python benchmarks/choose_a_sampler.py --render     # the page and the picture again, from the numbers on disk

The denoiser is the exact one of a mixture of Gaussians (``mixture.py``), the grid every sampler's default, and the
starts are evenly spread. Samples are judged by the sliced Wasserstein-1 distance to the mixture, the ends of
deterministic runs also by their root mean square distance from those of the exact flow. With a given number of calls a
solver makes as many steps as they pay for. When to choose a solver is read from the table in ``sciffusion.samplers``;
the rest of the page's words lie in ``choose_a_sampler_template.md``.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from measure import write
from mixture import SCHEDULE, Truth, exact, start
from torch import Tensor

from sciffusion import oracle, samplers
from sciffusion.grid import Beta, FlowTime, Grid, Karras, LogSNR, Power, Uniform
from sciffusion.grid.optimise import optimise
from sciffusion.noise import Noise
from sciffusion.process import Gaussian
from sciffusion.samplers import (
    BDIA,
    DDIM,
    DEIS,
    ERSDE,
    LMS,
    Ancestral,
    EulerMaruyama,
    Heun,
    Langevin,
    Multistep,
    Restart,
    Sampler,
    SASolver,
    Singlestep,
    UniPC,
    invert,
    revert,
)
from sciffusion.samplers.adaptive import Adaptive
from sciffusion.samplers.parallel import Parallel
from sciffusion.solver import Solver
from sciffusion.state import Value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SETTINGS: tuple[Solver, ...] = (
    DDIM(),
    Heun(),
    Multistep(2),
    Multistep(3),
    Singlestep(2),
    Singlestep(3),
    UniPC(2),
    UniPC(3),
    DEIS(3),
    LMS(4),
    BDIA(),
    DDIM(1.0),
    Ancestral(1.0),
    EulerMaruyama(),
    Heun(8.0),
    Multistep(2, 1.0),
    Singlestep(2, 1.0),
    SASolver(),
    ERSDE(2),
    ERSDE(3),
    Langevin(),
)
"""Every solver, in the settings in which it is measured."""

CALLS = (4, 5, 6, 8, 10, 14, 20, 28, 40, 50, 70, 100)
SHOWN = (5, 8, 10, 20, 50)
ROOT = Path(__file__).resolve().parents[1]
PAGE, PICTURE = ROOT / "tutorials/choose_a_sampler.md", ROOT / "tutorials/choose_a_sampler.svg"
TEMPLATE = Path(__file__).with_name("choose_a_sampler_template.md")
NUMBERS = Path(__file__).parent / "results/choose_a_sampler.json"
# Tol's bright colours and black: told apart with any colour vision
COLOURS = ("#000000", "#4477AA", "#EE6677", "#228833", "#AA3377", "#66CCEE", "#BBA030")
MARKERS = "osD^vP"


def label(solver: Solver) -> str:
    """What one types to get it: the settings that differ from the defaults, and the order."""
    arguments = {
        DDIM: lambda s: f"eta={s.eta:g}" if s.eta else "",
        Ancestral: lambda s: f"{s.sigma_data:g}",
        Heun: lambda s: f"churn={s.churn:g}" if s.churn else "",
        Multistep: lambda s: f"{s.order}" + (f", eta={s.eta:g}" if s.eta else ""),
        Singlestep: lambda s: f"{s.order}" + (f", eta={s.eta:g}" if s.eta else ""),
        UniPC: lambda s: f"{s.p}",
        DEIS: lambda s: f"{s.order}",
        LMS: lambda s: f"{s.order}",
        ERSDE: lambda s: f"{s.order}",
    }
    return f"{type(solver).__name__}({arguments.get(type(solver), lambda s: '')(solver)})"


def advice() -> dict[str, str]:
    """When to choose each solver, by its name: the last column of the table in ``sciffusion.samplers``."""
    rows = (samplers.__doc__ or "").split("\n")
    rules = [i for i, row in enumerate(rows) if row.startswith("===")]
    begins = rows[rules[0]].rindex(" ") + 1
    return {
        row.partition("(")[0]: row[begins:].replace("``", "`")
        for row in rows[rules[1] + 1 : rules[2]]
    }


def affordable(solver: Solver, calls: int) -> Sampler | None:
    """The sampler with the most steps that ``calls`` calls pay for, on the default grid."""
    for steps in range(calls, solver.fewest - 1, -1):
        sampler = Sampler(solver, steps)
        if sum(len(w.nodes) for w in sampler.windows(Gaussian(SCHEDULE))) <= calls:
            return sampler
    return None


def tensor(x: Value) -> Tensor:
    """A value that is known to be a tensor."""
    assert isinstance(x, Tensor)
    return x


def rms(x: Value, y: Value) -> float:
    """The root mean square distance of points."""
    return float((tensor(x) - tensor(y)).square().sum(1).mean().sqrt())


def solvers(denoiser: oracle.Mixture, x: Tensor, truth: Truth, ends: Tensor) -> dict[str, Any]:
    """By solver and number of calls allowed: the calls made, the distance, and how far from the exact flow."""
    out: dict[str, Any] = {}
    for solver in SETTINGS:
        rows = []
        for calls in CALLS:
            sampler = affordable(solver, calls)
            if sampler is None:
                continue
            seeds = (1, 2) if solver.stochastic else (1,)
            runs = [sampler(denoiser, x, Noise(seed)) for seed in seeds]
            off = None if solver.stochastic else rms(runs[0].x, ends)
            far = sum(truth.distance(tensor(run.x)) for run in runs) / len(runs)
            rows.append([calls, runs[0].nfe, far, off])
        out[label(solver)] = rows
        print(label(solver), *(f"{n}: {d:.3f}" for _, n, d, _ in rows), flush=True)
    return out


def grids(denoiser: oracle.Mixture, x: Tensor, truth: Truth, seed: int) -> dict[str, list[float]]:
    """The distance by grid: Multistep(2) in 8 and 20 steps."""
    steps = (8, 20)
    few = denoiser.sample(64, torch.Generator().manual_seed(seed))
    listed: list[tuple[str, list[Grid]]] = [
        ("FlowTime()", [FlowTime()] * 2),
        ("LogSNR()", [LogSNR()] * 2),
        ("Karras()", [Karras()] * 2),
        ("Uniform()", [Uniform()] * 2),
        ("Power(2)", [Power(2.0)] * 2),
        ("Beta()", [Beta()] * 2),
        ("Times(...)", [optimise(denoiser, few, n, Multistep(2), seed=seed) for n in steps]),
    ]
    return {
        name: [
            truth.distance(tensor(Sampler(Multistep(2), n, grid)(denoiser, x).x))
            for n, grid in zip(steps, each, strict=True)
        ]
        for name, each in listed
    }


def beside(denoiser: oracle.Mixture, x: Tensor, truth: Truth, ends: Tensor) -> dict[str, Any]:
    """What is no solver: the adaptive flow, the parallel run, restarts, and runs undone."""
    adaptive = Adaptive()(denoiser, x)
    sampler = Sampler(Multistep(2), 50)
    parallel = Parallel(sampler, 1e-3)(denoiser, x[:1024])
    again = Sampler(Heun(), 9, restarts=(Restart(0.1, 0.6, 6),))(denoiser, x, Noise(1))
    plain = affordable(Heun(), again.nfe)
    assert plain is not None
    data = denoiser.sample(256, torch.Generator().manual_seed(2))
    back = {}
    for solver in (DDIM(), BDIA()):
        way = Sampler(solver, 20)
        back[label(solver)] = rms(revert(way, denoiser, invert(way, denoiser, data)).x, data)
    return {
        "adaptive": [adaptive.nfe, rms(adaptive.x, ends)],
        "parallel": [parallel.rounds, rms(parallel.x, sampler(denoiser, x[:1024]).x)],
        "restart": [
            again.nfe,
            truth.distance(tensor(again.x)),
            truth.distance(tensor(plain(denoiser, x).x)),
        ],
        "back": back,
    }


def measure(samples: int, seed: int) -> dict[str, Any]:
    """All numbers of the page."""
    denoiser, truth = exact(), Truth(samples, seed)
    x = start(samples, seed).double() * float(SCHEDULE.sigma(1.0))
    generator = torch.Generator().manual_seed(seed)
    floors = sorted(truth.distance(denoiser.sample(samples, generator)) for _ in range(9))
    ends = tensor(Adaptive(1e-6, 1e-7, high=18.0)(denoiser, x).x)
    return {
        "floor": floors[4],
        "solvers": solvers(denoiser, x, truth, ends),
        "grids": grids(denoiser, x, truth, seed),
        "beside": beside(denoiser, x, truth, ends),
    }


def solver_table(results: Mapping[str, Any]) -> str:
    """One line for every solver in every setting; the advice stands in the first of a solver's neighbouring lines."""
    when, above = advice(), ""
    head = " | ".join(str(n) for n in SHOWN)
    out = [
        f"| solver | order | calls a step | noise | fewest steps | {head} | when to choose it |",
        "|---|---|---|---|---|" + "---:|" * len(SHOWN) + "---|",
    ]
    for solver in SETTINGS:
        name, noisy = type(solver).__name__, solver.stochastic
        order = f"{min(solver.order, 2)} (weak)" if noisy else str(solver.order)
        far = {calls: distance for calls, _, distance, _ in results[label(solver)]}
        cells = [number(far[n]) if n in far else "–" for n in SHOWN]
        facts = [order, str(solver.evaluations), "yes" if noisy else "no", str(solver.fewest)]
        out.append(
            f"| `{label(solver)}` | {' | '.join(facts + cells)} | {when[name] if name != above else ''} |"
        )
        above = name
    return "\n".join(out)


def number(x: float) -> str:
    """Three decimals, or that it came to nothing."""
    return f"{x:.3f}" if x < 10 else "diverges"


def page(record: Mapping[str, Any]) -> str:
    """The page, of what is recorded and of the template."""
    env, settings, results = record["environment"], record["settings"], record["results"]
    extra, fields = results["beside"], {}
    fields["where"] = (
        f"`python {env['command']}` on {env['date']}: {env['cpu']}, {env['threads']} thread, "
        f"torch {env['torch']}, {settings['samples']} samples, seed {settings['seed']}"
    )
    fields["floor"] = f"{results['floor']:.3f}"
    fields["solvers"] = solver_table(results["solvers"])
    for name, (few, many) in results["grids"].items():
        fields[f"grid {name}"] = f"{few:.3f} | {many:.3f}"
    for name in ("adaptive", "parallel"):
        calls, off = extra[name]
        fields[f"{name} calls"], fields[f"{name} rms"] = str(calls), f"{off:.1g}"
    fields["restart calls"] = str(extra["restart"][0])
    fields["restart with"], fields["restart without"] = map(number, extra["restart"][1:])
    for name, off in extra["back"].items():
        fields[f"back {name}"] = f"{off:.1g}"
    text = TEMPLATE.read_text()
    for key, value in fields.items():
        if f"{{{{{key}}}}}" not in text:
            raise ValueError(f"{TEMPLATE.name} has no place for {key!r}")
        text = text.replace(f"{{{{{key}}}}}", value)
    if "{{" in text:
        raise ValueError(
            f"nothing was measured for {text[text.index('{{') : text.index('}}') + 2]}"
        )
    return text


def apart(values: Sequence[float], gap: float) -> list[float]:
    """Heights nearest to ``values`` (any order) that keep their order and at least ``gap`` between neighbours."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    blocks: list[tuple[list[int], float]] = []
    for i in order:
        members, low = [i], values[i]
        while blocks and low < blocks[-1][1] + gap * len(blocks[-1][0]):
            members = blocks.pop()[0] + members
            low = sum(values[k] - gap * j for j, k in enumerate(members)) / len(members)
        blocks.append((members, low))
    out = list(values)
    for members, low in blocks:
        for j, k in enumerate(members):
            out[k] = low + gap * j
    return out


def panel(axes: Axes, curves: Mapping[str, list[tuple[int, float]]], gap: float) -> None:
    """Curves with their names at their ends, in their colours."""
    last = {name: math.log10(points[-1][1]) for name, points in curves.items()}
    places = dict(zip(last, apart(list(last.values()), gap), strict=True))
    right = 135.0
    for i, (name, points) in enumerate(curves.items()):
        colour = COLOURS[i % len(COLOURS)]
        line = "-" if i < len(COLOURS) else (0, (4, 2))
        marker = MARKERS[i % len(MARKERS)]
        axes.plot(*zip(*points, strict=True), color=colour, ls=line, lw=1.1, marker=marker, ms=3.2)
        end = (right * 1.04, 10 ** places[name])
        axes.plot(
            [points[-1][0], right],
            [points[-1][1], end[1]],
            color=colour,
            lw=0.5,
            alpha=0.6,
            clip_on=False,
        )
        axes.text(*end, name, color=colour, fontsize=8, va="center", clip_on=False)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(3.7, right)
    ticks = (4, 5, 8, 10, 20, 50, 100)
    axes.set_xticks(ticks, [str(n) for n in ticks])
    axes.minorticks_off()
    axes.set_xlabel("calls of the denoiser")
    axes.grid(color="#dddddd", lw=0.5)
    axes.spines[["top", "right"]].set_visible(False)


def figure(results: Mapping[str, Any]) -> Figure:
    """Error against calls: the flow's error on the left, the distribution's with noise on the right."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    # text stays text; the same file from the same numbers
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "choose", "font.size": 9})
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 5), gridspec_kw={"wspace": 0.5})
    flows: dict[str, list[tuple[int, float]]] = {}
    noisy: dict[str, list[tuple[int, float]]] = {}
    for solver in SETTINGS:
        rows = {n: (far, off) for _, n, far, off in results["solvers"][label(solver)]}
        if solver.stochastic:
            noisy[label(solver)] = [(n, far) for n, (far, _) in rows.items()]
        else:
            flows[label(solver)] = [(n, off) for n, (_, off) in rows.items()]
    panel(left, flows, 0.125)
    panel(right, noisy, 0.085)
    left.set_ylim(8e-4, 1.2)
    left.set_title("no noise: distance from the ends of the exact flow", loc="left", fontsize=9.5)
    left.set_ylabel("root mean square distance")
    right.set_ylim(5e-3, 0.6)
    right.set_title("noise: distance from the law of the data", loc="left", fontsize=9.5)
    right.set_ylabel("sliced Wasserstein-1 distance")
    right.axhline(results["floor"], color="#777777", lw=0.8, ls=":")
    right.text(
        3.9, results["floor"] * 0.93, "as many exact samples", va="top", color="#555555", fontsize=8
    )
    fig.subplots_adjust(left=0.06, right=0.87, top=0.93, bottom=0.1)
    return fig


def main() -> None:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--samples", type=int, default=8192)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--render", action="store_true", help="measure nothing; use the numbers on disk"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not args.render:
        settings = {"samples": args.samples, "seed": args.seed}
        write(NUMBERS, settings, measure(args.samples, args.seed))
    record = json.loads(NUMBERS.read_text())
    PAGE.write_text(page(record))
    figure(record["results"]).savefig(PICTURE, metadata={"Date": None})


if __name__ == "__main__":
    main()
