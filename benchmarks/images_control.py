"""Does a control by edges bring the edges that it is shown, and keep the class that is asked for?

    python benchmarks/images_control.py --data fashion_mnist.npz     # three minutes; without --data they are fetched

The edges and the classes of held-out test images are given to the shipped model under control (`fashion-edges`), and
the classes alone to the model without control (`fashion`); both draw from the same noise. Two numbers say how well the
edges of a sample agree with those that were asked for: the correlation of the two pictures of edge strengths, and the
F1 score of the points whose strength is above 0.25, the mean over images. Another real image of the same class shows
what agreement the class alone brings. The last rows ask for another class than that of the edges: what guidance by the
class does to both. The weights of the model without control must be found unchanged, bit by bit, inside the controlled.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import write
from torch import Tensor

from sciffusion.bootstrap import Bootstrap
from sciffusion.domains import images as domain
from sciffusion.domains.images import ImageModel, Images
from sciffusion.domains.images.control import edges
from sciffusion.domains.images.datasets import split

RESULTS = Path(__file__).parent / "results"
STRONG = 0.25


def agreement(images: Images, hint: Tensor) -> dict[str, float]:
    """Mean correlation and F1 of the edges of images with those that were asked for."""
    found = edges(images.to_floats().pixels)
    a, b = (x.flatten(1) - x.flatten(1).mean(1, keepdim=True) for x in (found, hint))
    size = (a.square().sum(1) * b.square().sum(1)).sqrt()
    correlation = (a * b).sum(1) / size.clamp(min=1e-9)
    p, q = ((x > STRONG).flatten(1) for x in (found, hint))
    f1 = 2 * (p & q).sum(1) / (p.sum(1) + q.sum(1)).clamp(min=1)
    return {"correlation": float(correlation.mean()), "f1": float(f1.mean())}


def digest(weights: dict[str, Tensor], prefix: str) -> str:
    """A hash of the weights whose names begin with a prefix, by their names without it."""
    told = hashlib.sha256()
    for name in sorted(k for k in weights if k.startswith(prefix)):
        told.update(name.removeprefix(prefix).encode())
        told.update(weights[name].numpy().tobytes())
    return told.hexdigest()[:16]


def others(labels: np.ndarray[Any, Any], seed: int) -> np.ndarray[Any, Any]:
    """For each image another one of its class."""
    rng, out = np.random.default_rng(seed), np.arange(len(labels))
    for value in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == value))
        out[rows] = np.roll(rows, 1)
    return out


def main() -> None:
    """Sample, compare, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="a local copy of the data")
    parser.add_argument("--model", default="fashion-edges")
    parser.add_argument("--base", default="fashion")
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    model, base = domain.load(args.model), domain.load(args.base)
    before = digest(base.denoiser.state_dict(), "net.")
    inside = digest(model.denoiser.state_dict(), "net.base.")
    assert before == inside, "training the control has changed the base"
    data = split("fashion-mnist", args.data)
    test = data[data.labels["part"] == "test"]
    some, rest = test[: args.n].to_floats(), test[args.n :]
    asked, classes = some.labels["label"], np.array(model.config.classes[0])
    hint = edges(some.pixels)
    swapped = classes[(np.searchsorted(classes, asked) + 1) % len(classes)]
    judge = domain.load_judge("fashion-mnist")
    scale = model.sampling.scale
    found: dict[str, dict[str, float]] = {}
    pictures: list[Images] = [Images(hint[:10]), some[:10]]

    def measured(name: str, made: Images, labels: np.ndarray[Any, Any], seconds: float) -> None:
        told = classes[judge.probabilities(made).argmax(1).numpy()]
        again = Images(made.to_floats().pixels, {"label": labels})
        report = domain.evaluate(again, rest, bootstrap=Bootstrap(20), seed=args.seed)
        found[name] = agreement(made, hint) | {
            "accuracy": float((told == labels).mean()),
            "class_of_edges": float((told == asked).mean()),
            "frechet": report["frechet"].value,
            "frechet_of_real": report.ceiling["frechet"].value,
            "seconds_for_1000": 1000 * seconds / len(made),
        }
        print(name, found[name], flush=True)

    def sampled(
        name: str,
        who: ImageModel,
        labels: np.ndarray[Any, Any] | None,
        guidance: float,
        hints: bool,
    ) -> Images:
        given: dict[str, object] = {"label": None if labels is None else labels.tolist()}
        if hints:
            given["edges"] = hint
        start = time.process_time()
        made = who.sample(args.n, given=given, guidance=guidance, seed=args.seed)
        measured(name, made, asked if labels is None else labels, time.process_time() - start)
        return made

    measured("another real image of the class", some[others(asked, args.seed)], asked, 0.0)
    pictures.append(sampled(f"without control, guidance {scale:g}", base, asked, scale, False))
    sampled("edges and class, no guidance", model, asked, 1.0, True)
    pictures.insert(2, sampled(f"edges and class, guidance {scale:g}", model, asked, scale, True))
    sampled("edges alone", model, None, 1.0, True)
    sampled(f"under control, no edges shown, guidance {scale:g}", model, asked, scale, False)
    sampled("edges, and another class, no guidance", model, swapped, 1.0, True)
    pictures.append(
        sampled(f"edges, and another class, guidance {scale:g}", model, swapped, scale, True)
    )
    grid = Images(torch.cat([part[:10].to_floats().pixels for part in pictures])).grid(10)
    Images(grid[None]).save(RESULTS / "images_control.png")
    parameters = {
        name: sum(p.numel() for p in part.parameters())
        for name, part in (("base", base.denoiser), ("with control", model.denoiser))
    }
    lines = [
        "# Clothes under control of edges",
        "",
        f"{args.n:,} samples for each row, asked for by the edges and classes of as many test images; models "
        f"`{args.base}` ({parameters['base']:,} parameters) and `{args.model}` "
        f"({parameters['with control'] - parameters['base']:,} more), seed {args.seed}. Written by",
        f"`python benchmarks/{Path(__file__).name}`, one thread of a CPU. The base's weights inside the "
        f"controlled model are its own, bit by bit (SHA-256 {before}).",
        "",
        "| | correlation of edges | F1 of edges | class as asked | class of the edges | Frechet distance | "
        "CPU s for 1,000 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in found.items():
        seconds = f"{row['seconds_for_1000']:.0f}" if row["seconds_for_1000"] else ""
        lines.append(
            f"| {name} | {row['correlation']:.3f} | {row['f1']:.3f} | {100 * row['accuracy']:.1f} % | "
            f"{100 * row['class_of_edges']:.1f} % | {row['frechet']:.2f} | {seconds} |"
        )
    real = next(iter(found.values()))["frechet_of_real"]
    lines += [
        "",
        f"Frechet distances are those from half of the other test images; as many of the other half reach {real:.2f}. "
        "The judge tells",
        f"{100 * judge.info['accuracy']:.1f} % of real images right.",
        "",
        "![Edges, the images that they are of, samples after edges and class, samples without control, and edges asked "
        "as another class](images_control.png)",
    ]
    (RESULTS / "images_control.md").write_text("\n".join(lines) + "\n")
    settings = {k: str(v) for k, v in vars(args).items() if k != "data"}
    write(RESULTS / "images_control.json", settings | {"base_sha256": before} | parameters, found)


if __name__ == "__main__":
    main()
