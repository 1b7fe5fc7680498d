r"""Which surface of known kind a set of points lies on, and how far off: a judge that needs no training.

With superquadrics the points are compared along rays from the centre: a point at distance r with :math:`f = F(p)` is
off by :math:`r\,|1 - F^{-e_1/2}|` (Gross & Boult, Error of fit measures for recovering parametric solids, 1988), zero
on the surface. From primitives the distance is the true one. Sizes and centre are those of least squares; the class is
that with the least mean distance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from sciffusion.errors import require

from .container import Shapes
from .surfaces import PRIMITIVES, TUBE, Superquadric

__all__ = ["Fit", "Surface", "fit", "solids", "superquadric_surfaces"]

Floats = NDArray[np.floating[Any]]

Surface = Callable[[Floats, Floats], Floats]
"""How far points (n, 3) are off a surface about the origin with three sizes: (n,)."""

_LEAST, _MOST = 0.1, 4.0
"""Sizes, as shares of the half width of the points, between which one is looked for."""


@final
@dataclass(frozen=True)
class Fit:
    """The nearest surface of each set: its ``label``, and the mean ``distance`` of the points from it, (N,).

    ``distance`` is in the unit of the points; ``size`` is their mean distance from the centre, to compare it with.
    """

    label: NDArray[Any]
    distance: Floats
    size: Floats


def fit(shapes: Shapes, classes: Mapping[str, Surface]) -> Fit:
    """Fit a surface to every set, of the class that suits it best.

    The surfaces stand upright, as :func:`.superquadrics` and :func:`.primitives` make them: their axes are those of
    space.

    Raises ``ValueError`` for sets of less than 7 points, which any surface could meet.
    """
    if int(shapes.sizes.min()) < 7:
        raise ValueError(f"shapes must have at least 7 points, got {int(shapes.sizes.min())}")
    names, labels, distances, sizes = list(classes), [], [], []
    for x in shapes.parts():
        points = x.double().numpy()
        found = [_distance(points, classes[name]) for name in names]
        best = int(np.argmin(found))
        labels.append(names[best])
        distances.append(found[best])
        sizes.append(float(np.linalg.norm(points - points.mean(0), axis=1).mean()))
    return Fit(np.array(labels), np.array(distances), np.array(sizes))


def superquadric_surfaces(classes: Mapping[str, tuple[float, float]]) -> dict[str, Surface]:
    """The surfaces of superquadrics with these exponents, by name; sizes are semi-axes."""

    def off(exponents: tuple[float, float], p: Floats, size: Floats) -> Floats:
        surface = Superquadric((float(size[0]), float(size[1]), float(size[2])), exponents)
        # beyond e^30 a power of a small exponent has left what floats hold
        scale = np.exp(-exponents[0] / 2 * np.log(surface.value(p).clip(1e-30, 1e30)))
        return np.asarray(np.linalg.norm(p, axis=1) * np.abs(1 - scale))

    return {name: partial(off, exponents) for name, exponents in classes.items()}


def solids() -> dict[str, Surface]:
    """The surfaces of :data:`~.surfaces.PRIMITIVES`, with sizes as :func:`.primitive` takes them."""
    found: dict[str, Surface] = {
        "box": _box,
        "cone": lambda p, size: _turned(p, [(0, -size[2]), (size[0], -size[2]), (0, size[2])]),
        "cylinder": lambda p, size: _turned(
            p, [(0, -size[2]), (size[0], -size[2]), (size[0], size[2]), (0, size[2])]
        ),
        "sphere": lambda p, size: np.abs(np.linalg.norm(p, axis=1) - size[0]),
        "torus": lambda p, size: np.abs(
            np.hypot(np.hypot(p[:, 0], p[:, 1]) - size[0], p[:, 2]) - TUBE * size[0]
        ),
    }
    return {name: found[name] for name in PRIMITIVES}


def _box(p: Floats, size: Floats) -> Floats:
    beyond = np.abs(p) - size
    inside = np.minimum(beyond.max(1), 0)
    return np.asarray(np.abs(np.linalg.norm(np.maximum(beyond, 0), axis=1) + inside))


def _turned(p: Floats, profile: list[tuple[Any, Any]]) -> Floats:
    """The distance from the surface that a line of corners (radius, height) sweeps about the third axis."""
    here, corners = np.stack([np.hypot(p[:, 0], p[:, 1]), p[:, 2]], 1), np.array(profile)
    found = []
    for a, b in zip(corners[:-1], corners[1:], strict=True):
        along = b - a
        share = ((here - a) @ along / (along @ along)).clip(0, 1)
        found.append(np.linalg.norm(here - a - share[:, None] * along, axis=1))
    return np.asarray(np.min(found, axis=0))


def _distance(points: Floats, surface: Surface) -> float:
    """The mean distance from the nearest surface of this kind."""
    optimize = require("scipy.optimize", extra="shapes")
    low, high = points.min(0), points.max(0)
    half = np.maximum((high - low) / 2, 1e-6)
    middle = (low + high) / 2

    def off(free: Floats) -> Floats:
        return surface(points - middle - half * free[3:], half * np.exp(free[:3]))

    bound = np.array([np.log(_MOST)] * 3 + [1.0] * 3)
    least = np.array([np.log(_LEAST)] * 3 + [-1.0] * 3)
    # the width of a few points is less than that of the surface, never more
    start = np.array([0.05] * 3 + [0.0] * 3)
    solved = optimize.least_squares(off, start, bounds=(least, bound), loss="soft_l1", f_scale=0.1)
    return float(off(solved.x).mean())
