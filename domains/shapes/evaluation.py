"""How good shapes are: their size and spacing, and their distances from real ones beside those of real ones."""

from __future__ import annotations

import numpy as np
import torch

from sciffusion.bootstrap import Bootstrap
from sciffusion.report import Metric, Report

from .container import Shapes
from .data import SUPERQUADRICS, load
from .fitting import fit, solids, superquadric_surfaces
from .metrics import compare, distances
from .surfaces import PRIMITIVES

__all__ = ["evaluate", "judge"]

MOST = 100
"""Shapes of each set that distances are taken of: they need those of all pairs."""

POINTS = 128
"""Points of a shape that distances are taken of, at most: an assignment costs their cube."""

_WHAT = {
    "1nna": "share of real and made shapes whose nearest other one is of their kind (50 %: alike)",
    "coverage": "share of the real shapes that are the nearest to some made one",
    "mmd": "mean distance of a real shape from the nearest made one",
}


def evaluate(
    shapes: Shapes,
    reference: Shapes | None = None,
    *,
    points: int | None = None,
    seed: int = 0,
    bootstrap: Bootstrap | None = None,
) -> Report:
    """Judge shapes, beside real ones if there are any.

    ``radius`` is the mean radius of gyration of a shape, ``spacing`` the mean distance of a point from its nearest
    neighbour. Of superquadrics and primitives, known by their labels (boxes and cylinders alone pass for
    superquadrics), ``as_asked`` is the share that lies nearest to a surface of its class, and ``off_surface`` the mean
    distance from it (:mod:`.fitting`). With a reference, sizes are those of as many
    points of every shape, and 1-NNA, coverage and MMD (see :mod:`.metrics`) are those against one half of the
    reference, drawn by ``seed``; beside each stands that of as many shapes of the other half, which a perfect generator
    would reach.

    Args:
        shapes: generated ones; where they lie in space is left out.
        reference: real ones that no generator was trained on.
        points: of every shape, drawn by the seed (None: those of the smallest, at most 128).
        seed: of halves, points and intervals.
        bootstrap: how intervals are made; None: 200 replicates.

    Raises:
        ValueError: fewer than two shapes, or than four real ones; fewer points in a shape than asked for.
    """
    bootstrap = bootstrap or Bootstrap(200, seed=seed)
    about: dict[str, str | int] = {"shapes": len(shapes)}
    if reference is None:
        metrics = _sizes(shapes, bootstrap) | _fitted(shapes, bootstrap)
        return Report(metrics, about=about | {"seed": seed}, level=bootstrap.level)
    n = min(len(shapes), len(reference) // 2, MOST)
    if n < 2:
        raise ValueError(
            f"distances need at least 2 shapes and 4 real ones, got {len(shapes)} and {len(reference)}"
        )
    fewest = int(min(shapes.sizes.min(), reference.sizes.min()))
    points = min(fewest, POINTS) if points is None else points
    if not 1 <= points <= fewest:
        raise ValueError(
            f"points must lie between 1 and {fewest}, the fewest of a shape, got {points}"
        )
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(reference))
    # of the made ones, a draw as well: they may stand in the order of their classes
    chosen = shapes[rng.permutation(len(shapes))[:n]]
    real, held, made = (
        one.centred().thinned(points, seed=seed + i)
        for i, one in enumerate((reference[order[:n]], reference[order[n : 2 * n]], chosen))
    )
    metrics, ceiling = (
        _sizes(one.thinned(points, seed=seed), bootstrap) | _fitted(one[:MOST], bootstrap)
        for one in (shapes, reference)
    )
    within = distances(real)
    for into, other in ((metrics, made), (ceiling, held)):
        own, between = distances(other), distances(real, other)
        for kind in ("chamfer", "emd"):
            found = compare(within[kind], own[kind], between[kind], bootstrap)
            for name, figure in found.items():
                unit = {"1nna": "fraction", "coverage": "fraction"}.get(name, "")
                into[f"{name}_{kind}"] = Metric(
                    figure.value, figure.low, figure.high, n, _WHAT[name], unit
                )
    about |= {"compared": n, "points": points, "real": len(reference), "seed": seed}
    return Report(metrics, ceiling, about=about, level=bootstrap.level)


def judge(file: str, reference: str | None = None, *, seed: int = 0) -> Report:
    """Judge shapes in a file, a folder or part of a data set; see :func:`evaluate`."""
    return evaluate(load(file), None if reference is None else load(reference), seed=seed)


def _sizes(shapes: Shapes, bootstrap: Bootstrap) -> dict[str, Metric]:
    radii, spacings = [], []
    for x in shapes.centred().parts():
        radii.append(float(x.square().sum(1).mean().sqrt()))
        if len(x) > 1:
            apart = torch.cdist(x, x).fill_diagonal_(torch.inf)
            spacings.append(float(apart.amin(1).mean()))
    what = {
        "radius": (radii, "mean radius of gyration"),
        "spacing": (spacings, "mean distance of a point from the nearest other one of its shape"),
    }
    return {
        name: Metric(float(np.mean(v)), *bootstrap.statistic(_means, np.array(v)), len(v), text, "")
        for name, (v, text) in what.items()
        if v
    }


def _fitted(shapes: Shapes, bootstrap: Bootstrap) -> dict[str, Metric]:
    """How near superquadrics or primitives are to those of their class; nothing of other shapes."""
    asked = np.asarray(shapes.labels.get("label", ()))
    names = set(asked.tolist())
    if not names or not (names <= set(SUPERQUADRICS) or names <= set(PRIMITIVES)):
        return {}
    if shapes.sizes.min() < 7:
        return {}
    surfaces = superquadric_surfaces(SUPERQUADRICS) if names <= set(SUPERQUADRICS) else solids()
    found = fit(shapes, surfaces)
    figures = {
        "as_asked": (found.label == asked, "share nearest to a surface of its class", "fraction"),
        "off_surface": (
            found.distance / found.size,
            "mean distance of a point from the nearest surface, of that from the centre",
            "fraction",
        ),
    }
    return {
        name: Metric(
            float(v.mean()), *bootstrap.statistic(_means, v.astype(float)), len(v), text, unit
        )
        for name, (v, text, unit) in figures.items()
    }


def _means(drawn: np.ndarray) -> np.ndarray:
    return np.asarray(drawn.mean(1))
