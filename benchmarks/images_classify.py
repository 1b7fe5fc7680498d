"""How well does a model that makes images tell them apart? Against the independent judge, a network trained for that.

    python benchmarks/images_classify.py

The shipped models of digits and of clothes say which class explains an image best (``model.classify``), of images that
neither they nor the judges were trained on: accuracy, the probability that the model gives its answer (were it honest,
their means would agree), and CPU time an image on one thread. With ``--chosen-on 60`` also the same of so many images
that the model was trained on, by the log-SNR to which the noise goes down, which is how ``high`` was chosen.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import environment, write

from sciffusion.domains import images
from sciffusion.domains.images import Images
from sciffusion.domains.images.datasets import split

RESULTS = Path(__file__).parent / "results"
MODELS = {"digits": "digits", "fashion": "fashion-mnist"}
HIGHS = (0.0, 2.0, 4.0, 6.0)


def some(source: str, n: int, seed: int, path: Path | None) -> Images:
    """n images of a data set, drawn."""
    found = split(source, path)
    rows = np.random.default_rng(seed).permutation(len(found))[:n]
    return found[rows]


def told(name: str, real: Images, seed: int, high: float | None = None) -> dict[str, float]:
    """What a model makes of images; None: with its own settings."""
    model = images.load(name)
    start = time.process_time()
    p = (
        model.classify(real, seed=seed)
        if high is None
        else model.classify(real, seed=seed, high=high)
    )["label"]
    spent = (time.process_time() - start) / len(real)
    truth = model.config.asked.rows({"label": real.labels["label"]})["label"].numpy()
    right = p.argmax(1) == truth
    return {
        "accuracy": float(right.mean()),
        "error": float((right.mean() * (1 - right.mean()) / len(real)) ** 0.5),
        "confidence": float(p.max(1).mean()),
        "seconds": spent,
    }


def judged(name: str, real: Images) -> float:
    """The share that the independent judge tells right."""
    judge = images.load_judge(name)
    with torch.no_grad():
        found = judge(real.to_floats().pixels).argmax(1).numpy()
    classes = np.array(judge.config.classes)
    return float((classes[found] == np.asarray(real.labels["label"]).astype(str)).mean())


def page(results: dict[str, Any], settings: dict[str, Any]) -> str:
    """The tables."""
    lines = [
        "# Models of images as classifiers",
        "",
        f"Held-out images, {settings['n']} of each (as many as there are, of digits), seed {settings['seed']}.",
        "",
        "| images | right | mean confidence | the judge | CPU s an image |",
        "|---|---|---|---|---|",
    ]
    for name, row in results["held_out"].items():
        lines.append(
            f"| {name} | {100 * row['accuracy']:.1f} % (one standard error {100 * row['error']:.1f} %) | "
            f"{100 * row['confidence']:.1f} % | {100 * row['judge']:.1f} % | {row['seconds']:.3f} |"
        )
    if results["by_high"]:
        lines += [
            "",
            f"Of {settings['chosen_on']} images of clothes that the model was trained on, by `high`:",
            "",
            "| high | right | mean confidence |",
            "|---|---|---|",
        ]
    for high, row in results["by_high"].items():
        shares = (f"{100 * row[k]:.1f} %" for k in ("accuracy", "confidence"))
        lines.append(f"| {high} | {' | '.join(shares)} |")
    lines += ["", ", ".join(f"{k} {v}" for k, v in environment().items()), ""]
    return "\n".join(lines)


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=None, help="a copy of Fashion-MNIST")
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--chosen-on", type=int, default=0, help="images to try `high` on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "images_classify.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    seed, results = args.seed, dict[str, Any](held_out={}, by_high={})
    settings = {"n": args.n, "chosen_on": args.chosen_on, "seed": seed}
    for name, source in MODELS.items():
        real = some(f"{source}:test", args.n, seed, args.data if name == "fashion" else None)
        results["held_out"][name] = told(name, real, seed) | {"judge": judged(source, real)}
        print(name, results["held_out"][name], flush=True)
    if args.chosen_on:
        lessons = some(f"{MODELS['fashion']}:train", args.chosen_on, seed, args.data)
        for high in HIGHS:
            results["by_high"][f"{high:g}"] = told("fashion", lessons, seed, high)
    write(args.out, settings, results)
    text = page(results, settings)
    print(text)
    args.out.with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
