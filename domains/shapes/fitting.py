r"""Which superquadric a set of points lies on, and how far off: a judge that needs no training.

The points are compared with the surface of each class, whose exponents are known, along rays from its centre: a point
at distance r with :math:`f = F(p)` is off by :math:`r\,|1 - F^{-e_1/2}|` (Gross & Boult, Error of fit measures for
recovering parametric solids, 1988), exactly zero on the surface. Semi-axes and centre are those of least squares; the
class is that with the least mean distance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from sciffusion.errors import require

from .container import Shapes
from .surfaces import Superquadric

__all__ = ["Fit", "fit"]

Floats = NDArray[np.floating[Any]]

_LEAST, _MOST = 0.1, 4.0
"""Semi-axes, as shares of the half width of the points, between which one is looked for."""


@final
@dataclass(frozen=True)
class Fit:
    """The nearest superquadric of each set: its ``label``, and the mean ``distance`` of the points from it, (N,).

    ``distance`` is in the unit of the points; ``size`` is their mean distance from the centre, to compare it with.
    """

    label: NDArray[Any]
    distance: Floats
    size: Floats


def fit(shapes: Shapes, classes: Mapping[str, tuple[float, float]]) -> Fit:
    """Fit a superquadric to every set, with the exponents of the class that suits it best.

    The surfaces stand upright, as :func:`.superquadrics` makes them: their axes are those of space.

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


def _distance(points: Floats, exponents: tuple[float, float]) -> float:
    """The mean distance from the nearest surface with these exponents."""
    optimize = require("scipy.optimize", extra="shapes")
    low, high = points.min(0), points.max(0)
    half = np.maximum((high - low) / 2, 1e-6)
    middle = (low + high) / 2

    def off(free: Floats) -> Floats:
        axes, p = half * np.exp(free[:3]), points - middle - half * free[3:]
        surface = Superquadric((float(axes[0]), float(axes[1]), float(axes[2])), exponents)
        # beyond e^30 a power of a small exponent has left what floats hold
        scale = np.exp(-exponents[0] / 2 * np.log(surface.value(p).clip(1e-30, 1e30)))
        return np.asarray(np.linalg.norm(p, axis=1) * np.abs(1 - scale))

    bound = np.array([np.log(_MOST)] * 3 + [1.0] * 3)
    least = np.array([np.log(_LEAST)] * 3 + [-1.0] * 3)
    # the width of a few points is less than that of the surface, never more
    start = np.array([0.05] * 3 + [0.0] * 3)
    solved = optimize.least_squares(off, start, bounds=(least, bound), loss="soft_l1", f_scale=0.1)
    return float(off(solved.x).mean())
