"""How good images are: in the eyes of a classifier that never saw a generator, beside real images of equal number.

The judges ship with the domain (``weights/judges``) and are trained by its recipes on real images only. Distances
are those of a judge's features, and mean nothing beside those of another network.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sciffusion.bootstrap import Bootstrap
from sciffusion.metrics import Interval, compare
from sciffusion.report import Metric, Report

from .api import load
from .classifier import Classifier
from .container import Images
from .datasets import load as read
from .datasets import split
from .shelf import SHELF

__all__ = ["demo", "evaluate", "judge", "judges", "load_judge"]

MOST = 5000
"""Images of each set that distances are taken of: they need the distances of all pairs."""

_WHAT = {
    "frechet": "Frechet distance in the judge's features (not FID: that network is another)",
    "kernel_distance": "unbiased squared discrepancy of a cubic kernel in the judge's features",
    "precision": "share of the images that lie among the real ones",
    "recall": "share of the real images that lie among these",
    "density": "in how many neighbourhoods of real images an image lies, over k",
    "coverage": "share of the real images with one of these in their neighbourhood",
}


def judges() -> dict[str, Path]:
    """The judges that ship, by name, and their files."""
    return SHELF.all("judge")


def load_judge(name: str | Path) -> Classifier:
    """A judge that ships, or a classifier in a file. Raises ``FileNotFoundError`` for neither."""
    return Classifier.load(SHELF.find("judge", name))


def evaluate(
    images: Images,
    reference: Images | None = None,
    *,
    classifier: Classifier | None = None,
    seed: int = 0,
    k: int = 5,
    bootstrap: Bootstrap | None = None,
) -> Report:
    """Judge images by a classifier, and by their distances from real ones if there are any.

    ``accuracy`` is the share of images whose class is the one that they were asked for (label ``label``). Distances
    are those from one half of the reference, drawn by ``seed``; beside each stands that of as many images of the other
    half, which a perfect generator would reach.

    Args:
        images: generated ones; labels say what was asked for.
        reference: real ones that no generator was trained on.
        classifier: the judge; None: the one that ships for images of this size.
        seed: of halves and intervals.
        k: neighbours of precision, recall, density and coverage.
        bootstrap: how intervals are made; None: 200 replicates.

    Raises:
        ValueError: no judge ships for images of this kind, or there are too few images to compare.
    """
    name, classifier = _chosen(images) if classifier is None else ("given", classifier)
    bootstrap = bootstrap or Bootstrap(200, seed=seed)
    metrics = _accuracy(images, classifier, bootstrap)
    ceiling: dict[str, Metric] = {}
    about: dict[str, str | int] = {"images": len(images), "judge": _described(name, classifier)}
    if reference is not None:
        order = np.random.default_rng(seed).permutation(len(reference))
        half = len(reference) // 2
        near, other = order[:half][:MOST], order[half:]
        n = min(len(images), len(other), MOST)
        if n <= k:
            raise ValueError(
                f"distances need more than k = {k} images of each kind, got {len(images)} and {len(reference)}, which "
                "is halved"
            )
        real, held = (classifier.features(reference[rows]) for rows in (near, other[:n]))
        found = compare(real, classifier.features(images[:n]), k=k, bootstrap=bootstrap)
        floor = compare(real, held, k=k, bootstrap=bootstrap)
        metrics |= _metrics(found, n)
        ceiling = _accuracy(reference[other], classifier, bootstrap) | _metrics(floor, n)
        about |= {"compared": n, "with": f"{len(near)} of {len(reference)} real images"}
    return Report(metrics, ceiling, about=about | {"seed": seed}, level=bootstrap.level)


def judge(file: str, reference: str | None = None, *, seed: int = 0) -> Report:
    """Judge images in a file, a folder or part of a data set; see :func:`evaluate`."""
    return evaluate(read(file), None if reference is None else read(reference), seed=seed)


def demo(directory: str | Path, *, n: int = 200, seed: int = 0, model: str = "digits") -> Report:
    """Sample ``n`` digits and judge them; ``directory`` receives ``digits.npz``, ``digits.png`` and ``report.json``."""
    folder = Path(directory)
    made = load(model).sample(n, seed=seed)
    made.save(folder / "digits.npz")
    made[:100].save(folder / "digits.png")
    report = evaluate(made, split("digits:test"), seed=seed)
    report.save(folder / "report.json")
    return report


def _chosen(images: Images) -> tuple[str, Classifier]:
    """The judge for images of this kind."""
    found = {name: Classifier.load(path) for name, path in judges().items()}
    for name, one in found.items():
        if one.config.size == images.size and one.config.channels == images.channels:
            return name, one
    known = ", ".join(f"{k} ({c.config.size[0]} x {c.config.size[1]})" for k, c in found.items())
    raise ValueError(
        f"no judge ships for {images!r}; there are {known or 'none'}. Train one by a recipe of kind classifier and "
        "give it to evaluate as classifier"
    )


def _described(name: str, classifier: Classifier) -> str:
    share = classifier.info.get("accuracy")
    told = "" if share is None else f", right on {100 * share:.1f} % of held-out images"
    return f"{name} ({classifier.config.features} features{told})"


def _accuracy(images: Images, classifier: Classifier, bootstrap: Bootstrap) -> dict[str, Metric]:
    """The share of the labelled images that the judge puts into their class."""
    labels = images.labels.get(classifier.config.attribute)
    if labels is None:
        return {}
    wanted = classifier.index(labels)
    known = (wanted >= 0).numpy()
    if not known.any():
        return {}
    told = classifier.probabilities(images).argmax(1).cpu()
    right: NDArray[np.float64] = (told == wanted).numpy()[known].astype(float)[:, None]
    low, high = bootstrap.ratio(right, np.ones_like(right))
    what = "share of the images that the judge puts into the class that they were asked for"
    figure = Metric(float(right.mean()), float(low[0]), float(high[0]), len(right), what)
    return {"accuracy": figure}


def _metrics(found: Mapping[str, Interval], n: int) -> dict[str, Metric]:
    shares = ("precision", "recall", "coverage")
    return {
        name: Metric(f.value, f.low, f.high, n, _WHAT[name], "fraction" if name in shares else "")
        for name, f in found.items()
    }
