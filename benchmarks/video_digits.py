"""How good are the shipped model's films of moving digits: do they show what is asked, fly straight, and last?

    python benchmarks/video_digits.py
    python benchmarks/video_digits.py --choose                # which sampling settings are best, on other films

The reference is films of held-out digits, of exact physics, judged in the same way.

* Films from nothing: all digits in turn, as the model is sampled by itself. The reader of digits was trained on the
  training digits by another script and judges frame by frame; figures as ``sciffusion evaluate video`` gives them.
  The floor of a Frechet distance is that between two sets of real films of this size.
* Pictures animated: first frames of held-out films; does the digit stay what it was?
* Time between frames: held-out films in slow motion, every second or fourth frame kept. The root mean squared error of
  the missing frames, of pixels from 0 to 1, beside that of linear interpolation. One film of the model's law is not the
  mean of it: an error of the best guess would be smaller.
* Films extended to ten times the length of training, window by window: how the digit, its light, its flight, and its
  place beside the exact continuation change with time.
* CPU time of a film on one thread, and calls of the network.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import environment, write
from torch import Tensor

from sciffusion.domains import video
from sciffusion.domains.video import Film, Films, MovingDigits, SamplingConfig, VideoModel, digits
from sciffusion.domains.video.classifier import accuracy, reader
from sciffusion.domains.video.evaluation import likeness
from sciffusion.domains.video.motion import centres, flights
from sciffusion.report import Metric, Report

RESULTS = Path(__file__).parent / "results"

TRIED = [
    SamplingConfig(),
    SamplingConfig(scale=2.0),
    SamplingConfig(scale=3.0),
    SamplingConfig(scale=2.0, high=0.0),
    SamplingConfig(scale=3.0, high=0.0),
    SamplingConfig(steps=24, scale=2.0, high=0.0, shift=5.0),
    SamplingConfig(steps=32, scale=2.0, high=0.0, eta=1.0),
]


def real(n: int, seed: int, frames: int = 16, substeps: int = 1) -> Films:
    """Films of held-out digits."""
    return MovingDigits(digits("test")).films(n, frames=frames, seed=seed, substeps=substeps)


def floats(films: Films) -> Tensor:
    """All films of one shape, pixels from 0 to 1."""
    return films.stack().float() / 255


def asked(n: int) -> dict[str, list[int]]:
    """All digits in turn."""
    return {"digit": [i % 10 for i in range(n)]}


def calls(model: VideoModel) -> int:
    """Calls of the network for a film."""
    count = 0

    def add(*_: object) -> None:
        nonlocal count
        count += 1

    handle = model.denoiser.net.register_forward_hook(add)
    model.sample(1, progress=False)
    handle.remove()
    return count


def figures(metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """Figures as plain numbers."""
    return {name: asdict(metric) for name, metric in metrics.items()}


def between(model: VideoModel, films: Films, factor: int) -> dict[str, float]:
    """Errors of the missing frames, by the model and by linear interpolation."""
    truth, ours, linear = [], [], []
    weights = torch.arange(factor).view(1, -1, 1, 1, 1) / factor
    for i, film in enumerate(films):
        kept = Film(film.frames[::factor], film.rate / factor)
        made = model.interpolate_time(kept, factor, seed=i)[0]
        x = kept.floats().frames[:, None]
        line = torch.cat(((x[:-1] * (1 - weights) + x[1:] * weights).flatten(0, 1), x[-1]))
        hidden = torch.arange(len(made)) % factor != 0
        truth.append(film.floats().frames[: len(made)][hidden])
        ours.append(made.floats().frames[hidden])
        linear.append(line[hidden])

    def error(found: list[Tensor]) -> float:
        return float((torch.stack(found) - torch.stack(truth)).square().mean().sqrt())

    return {"factor": factor, "films": len(films), "model": error(ours), "linear": error(linear)}


def drift(
    model: VideoModel, n: int, times: int, seed: int, anchors: int | None = 0
) -> list[dict[str, float]]:
    """What becomes of films that go on for ``times`` windows more, window by window.

    Without anchors windows see nothing but each other; ``benchmarks/video_extend.py`` measures what these mend.
    """
    window = model.config.shape[0]
    truth = real(n, seed, frames=window * (times + 1))
    made = [
        model.extend(
            film[:window], window * (times + 1), given={"digit": digit}, anchors=anchors, seed=i
        )[0]
        for i, (film, digit) in enumerate(zip(truth, truth.labels["digit"].tolist(), strict=True))
    ]
    x, y = floats(Films(made)), floats(truth)
    wanted = torch.from_numpy(np.asarray(truth.labels["digit"]))[:, None]
    rows = []
    for k in range(times + 1):
        part = slice(k * window, (k + 1) * window)
        flight, seen = flights(x[:, part]), reader().read(x[:, part])[0]
        # the first frame of a film beside its others: does it still look as it began?
        looks = likeness(torch.cat((y[:, :1].expand(-1, window, -1, -1, -1), x[:, part]), 1))
        off = (centres(x[:, part]) - centres(y[:, part])).square().sum(-1).sqrt()
        rows.append(
            {
                "window": k,
                "agreement": float((seen == wanted).double().mean()),
                "likeness": float(looks.mean()),
                "light": float(x[:, part].mean() / y[:, part].mean()),
                "speed": float(flight.speed.norm(dim=1).mean()),
                "straight": float(flight.straight.mean()),
                "off_course": float(off.nanmedian()),
            }
        )
    return rows


def choose(model: VideoModel, n: int, seed: int) -> list[dict[str, Any]]:
    """What other settings would give, on films that are not the reported ones."""
    rows = []
    reference = real(n, seed)
    for sampling in TRIED:
        trial = replace(model, sampling=sampling)
        report = trial.sample(n, asked(n), seed=seed, progress=False).report(reference, seed=seed)
        row = asdict(sampling) | {"calls": calls(trial)}
        row |= {k: m.value for k, m in report.metrics.items()}
        rows.append(row)
        print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
    return rows


def page(results: dict[str, Any], settings: dict[str, Any]) -> str:
    """The tables."""

    def cell(metric: dict[str, Any]) -> str:
        scale, unit = (100, " %") if metric["unit"] == "fraction" else (1, "")
        value, low, high = (scale * metric[k] for k in ("value", "low", "high"))
        return f"{value:.3g}{unit} ({low:.3g} to {high:.3g})"

    lines = [
        "# The shipped model of moving digits",
        "",
        f"{results['parameters']:,} parameters, {results['calls']} calls of the network a film, "
        f"{results['seconds_a_film']:.2f} s of CPU time on one thread. The reader is right on "
        f"{100 * results['reader']:.1f} % of the held-out digits.",
        "",
        f"## From nothing: {settings['n']} films of 16 x 32 x 32, seed {settings['seed']}, 95 % intervals",
        "",
        "| | made | held-out films | what it is |",
        "|---|---|---|---|",
    ]
    for name, metric in results["made"].items():
        ceiling = results["real"].get(name)
        beside = cell(ceiling) if ceiling else ""
        lines.append(f"| {name.replace('_', ' ')} | {cell(metric)} | {beside} | {metric['what']} |")
    lines += [
        "",
        f"Between two sets of {settings['n']} real films each the Frechet distances are "
        f"{results['floor']['frechet_digits']:.3g} (digits) and {results['floor']['frechet_pooled']:.3g} (pooled): "
        f"ours are {results['over_floor']['frechet_digits']:.1f} and "
        f"{results['over_floor']['frechet_pooled']:.1f} times that "
        "(the held-out films' column halves the set and is larger).",
        "",
        f"## From a picture: {settings['animated']} first frames of held-out films",
        "",
        f"First frames that come back bit by bit: {results['animated']['first_frames_equal']} of "
        f"{settings['animated']}.",
        "",
        "| | made | held-out films |",
        "|---|---|---|",
    ]
    for name, metric in results["animated"]["figures"].items():
        lines.append(
            f"| {name.replace('_', ' ')} | {cell(metric)} | {cell(results['animated']['real'][name])} |"
        )
    lines += [
        "",
        "## Between given frames",
        "",
        "| frames for one | model, error | linear interpolation, error | ratio |",
        "|---|---|---|---|",
    ]
    for row in results["between"]:
        lines.append(
            f"| {row['factor']} | {row['model']:.4f} | {row['linear']:.4f} | {row['model'] / row['linear']:.2f} |"
        )
    lines += [
        "",
        f"## Ten times the length of training: {settings['extended']} held-out films of 16 frames, extended by 160, "
        "without anchors",
        "",
        "Window 0 is what was given. Likeness is the correlation with the first frame; off course, the median distance "
        "in pixels of the digit from the exact continuation.",
        "",
        "| window | agreement | likeness | light | speed | straight | off course |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in results["drift"]:
        lines.append(
            f"| {row['window']} | {100 * row['agreement']:.1f} % | {row['likeness']:.3f} | {row['light']:.2f} | "
            f"{row['speed']:.2f} | {100 * row['straight']:.1f} % | {row['off_course']:.1f} |"
        )
    lines += ["", ", ".join(f"{k} {v}" for k, v in environment().items()), ""]
    return "\n".join(lines)


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="moving-digits")
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--animated", type=int, default=100)
    parser.add_argument("--extended", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS / "video_digits.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = video.load(args.model)
    settings = {
        "n": args.n,
        "animated": args.animated,
        "extended": args.extended,
        "seed": args.seed,
        "sampling": asdict(model.sampling),
    }
    if args.choose:
        choose(model, args.n, args.seed + 100)
        return
    start = time.process_time()
    films = model.sample(args.n, asked(args.n), seed=args.seed, progress=False)
    spent = time.process_time() - start
    held = real(args.n, seed=11)
    report: Report = films.report(held, seed=args.seed)
    print(report, flush=True)
    floor = real(args.n, seed=12).report(held, seed=args.seed)
    firsts = real(args.animated, seed=13)
    animated = [
        model.animate(film.frames[0], given={"digit": digit}, seed=i)[0]
        for i, (film, digit) in enumerate(zip(firsts, firsts.labels["digit"].tolist(), strict=True))
    ]
    equal = sum(
        torch.equal(a.frames[0], b.frames[0]) for a, b in zip(animated, firsts, strict=True)
    )
    judged = Films(animated, firsts.labels).report(firsts, seed=args.seed)
    print(judged, flush=True)
    slow = real(args.animated // 2, seed=14, frames=17, substeps=2)
    slower = real(args.animated // 2, seed=15, frames=17, substeps=4)
    distances = ("frechet_digits", "frechet_pooled")
    results = {
        "parameters": sum(p.numel() for p in model.denoiser.parameters()),
        "calls": calls(model),
        "seconds_a_film": spent / args.n,
        "reader": accuracy(reader(), digits("test")),
        "made": figures(report.metrics),
        "real": figures(report.ceiling),
        "floor": {k: floor[k].value for k in distances},
        "over_floor": {k: report[k].value / floor[k].value for k in distances},
        "animated": {
            "first_frames_equal": equal,
            "figures": figures(judged.metrics),
            "real": figures(judged.ceiling),
        },
        "between": [between(model, slow, 2), between(model, slower, 4)],
        "drift": drift(model, args.extended, 10, seed=16),
        "info": dict(model.info or {}),
    }
    write(args.out, settings, results)
    text = page(results, settings)
    print(text)
    args.out.with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
