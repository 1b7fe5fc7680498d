"""How good are the generated clothes? Asked of a classifier that never saw a generator, beside real test images.

    python benchmarks/images_fashion.py --data fashion_mnist.npz     # three minutes; without --data they are fetched

Samples of the shipped model, the ten classes in turn, at several scales of guidance. The judge is the shipped
classifier, trained on the training images; its accuracy on the 10,000 test images stands in the table. Distances are
those from one half of the test images; the last column is the same figure for as many images of the other half. The
nearest training image of a sample, by the root mean squared difference of pixels, tells copies: as near as those of
real test images is what to expect without any.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from measure import write

from sciffusion.domains import images as domain
from sciffusion.domains.images import ImageModel, Images
from sciffusion.domains.images.datasets import split
from sciffusion.report import Metric, Report

RESULTS = Path(__file__).parent / "results"
ROWS = {
    "accuracy": "class as asked",
    "frechet": "Frechet distance",
    "kernel_distance": "kernel distance, x 1000",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
}


def nearest(images: Images, train: Images) -> float:
    """The median over images of the distance to the nearest training image."""
    y = train.to_floats().pixels.flatten(1)
    size = y.square().sum(1)
    found = []
    for x in images.to_floats().pixels.flatten(1).split(250):
        squared = size - 2 * x @ y.T + x.square().sum(1, keepdim=True)
        found.append((squared.amin(1).clamp(min=0) / y.shape[1]).sqrt())
    return float(torch.cat(found).median())


def calls(model: ImageModel, scale: float) -> int:
    """Calls of the network for each image."""
    count = 0

    def counted(*_: object) -> None:
        nonlocal count
        count += 1

    handle = model.denoiser.register_forward_pre_hook(counted)
    model.sample(1, guidance=scale)
    handle.remove()
    return count


def cell(name: str, metric: Metric) -> str:
    """A figure with half the width of its interval."""
    unit = {"fraction": 100.0}.get(metric.unit, 1000.0 if name == "kernel_distance" else 1.0)
    half = unit * (metric.high - metric.low) / 2
    digits = 1 if metric.unit == "fraction" else 2
    percent = " %" if metric.unit == "fraction" else ""
    return f"{unit * metric.value:.{digits}f} ± {half:.{digits}f}{percent}"


def table(reports: dict[str, Report], others: dict[str, dict[str, str]]) -> list[str]:
    """Lines of Markdown: a row for each figure, a column for each set of images."""
    real = next(iter(reports.values())).ceiling
    head = ["", *reports, "real test images"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, title in ROWS.items():
        cells = [cell(name, report[name]) for report in reports.values()]
        lines.append(f"| {title} | " + " | ".join([*cells, cell(name, real[name])]) + " |")
    for title, row in others.items():
        lines.append(
            f"| {title} | " + " | ".join(row.get(k, "") for k in (*reports, "real")) + " |"
        )
    return lines


def main() -> None:
    """Sample, judge, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="a local copy of the data")
    parser.add_argument("--model", default="fashion")
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 2.75])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="images_fashion", help="name of the files of results")
    args = parser.parse_args()
    model, data = domain.load(args.model), split("fashion-mnist", args.data)
    train, test = (data[data.labels["part"] == part] for part in ("train", "test"))
    reports, seconds = {}, {}
    others: dict[str, dict[str, str]] = {
        "nearest training image": {"real": f"{nearest(test[:1000], train):.4f}"},
        "calls of the network": {},
        "CPU seconds for 1,000": {},
    }
    for scale in args.scales:
        start = time.process_time()
        made = model.sample(args.n, guidance=scale, seed=args.seed)
        name = f"guidance {scale:g}"
        seconds[name] = (time.process_time() - start) / args.n * 1000
        reports[name] = domain.evaluate(made, test, seed=args.seed)
        others["nearest training image"][name] = f"{nearest(made[:1000], train):.4f}"
        others["calls of the network"][name] = str(calls(model, scale))
        others["CPU seconds for 1,000"][name] = f"{seconds[name]:.0f}"
        print(name, reports[name], sep="\n", flush=True)
        if scale == model.sampling.scale:
            made[:100].save(RESULTS / f"{args.out}.png")
            told = domain.load_judge("fashion-mnist").probabilities(made).argmax(1).numpy()
            classes = np.array(domain.load_judge("fashion-mnist").config.classes)
            each = {
                str(c): float((classes[told] == c)[made.labels["label"] == c].mean())
                for c in classes
            }
    first = next(iter(reports.values()))
    lines = [
        "# Generated clothes",
        "",
        f"{args.n:,} samples of the model `{args.model}` ({sum(p.numel() for p in model.denoiser.parameters()):,} "
        f"parameters), seed {args.seed}; judge: {first.about['judge']};",
        f"compared with {first.about['with']}. Written by `python benchmarks/{Path(__file__).name} --scales "
        f"{' '.join(f'{scale:g}' for scale in args.scales)}`,",
        f"one thread of a CPU; guidance acts from a log-SNR of {model.sampling.low} on.",
        "Intervals: 95 %, bootstrap over images; half their width is shown.",
        "",
        *table(reports, others),
        "",
        f"Accuracy by class, guidance {model.sampling.scale:g}: "
        + ", ".join(f"{k} {100 * v:.0f} %" for k, v in each.items())
        + ".",
    ]
    (RESULTS / f"{args.out}.md").write_text("\n".join(lines) + "\n")
    found = {
        name: {k: vars(m) for k, m in report.metrics.items()} for name, report in reports.items()
    }
    found["real"] = {k: vars(m) for k, m in first.ceiling.items()}
    settings = {k: str(v) for k, v in vars(args).items() if k != "data"} | {"seconds": seconds}
    write(RESULTS / f"{args.out}.json", settings, found | {"others": others, "classes": each})


if __name__ == "__main__":
    main()
