r"""How far sets of shapes are from each other: distances of shapes first, then of their sets.

Between two shapes X and Y, sets of points,

* the Chamfer distance :math:`\mathrm{mean}_x \min_y |x-y|^2 + \mathrm{mean}_y \min_x |x-y|^2` (Fan et al. 2017);
* the earth mover's distance :math:`\min_\phi \mathrm{mean}_x |x - \phi(x)|` over the bijections, solved exactly, of
  sets of equal size (Rubner et al. 2000).

Between real shapes R and made ones G (Yang et al., PointFlow, 2019; Achlioptas et al. 2018), for either distance,

* 1-NNA, the share of both whose nearest other shape is of their own kind: 50 % where nobody can tell them apart, 100 %
  where they are far apart, less than 50 % where made ones are copies (Lopez-Paz & Oquab 2017);
* coverage, the share of R that is nearest to some g of G; mode collapse lowers it, noise doesn't;
* the minimum matching distance MMD, the mean over R of the distance of the nearest g; noise raises it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciffusion.bootstrap import Bootstrap
from sciffusion.errors import require
from sciffusion.metrics import Interval

from .container import Shapes

__all__ = ["chamfer", "compare", "distances", "earth_mover"]

Floats = NDArray[np.floating[Any]]


def chamfer(x: Tensor, y: Tensor) -> float:
    """The Chamfer distance of two sets (n, 3) and (m, 3), in the square of their unit."""
    return _chamfer(torch.cdist(x.double(), y.double(), compute_mode=_EXACT))


def earth_mover(x: Tensor, y: Tensor) -> float:
    """The earth mover's distance of two sets (n, 3), in their unit. Raises ``ValueError`` for sets of unequal size."""
    if len(x) != len(y):
        raise ValueError(
            f"the earth mover's distance needs sets of equal size, got {len(x)} and {len(y)}; thin them"
        )
    return _earth_mover(torch.cdist(x.double(), y.double(), compute_mode=_EXACT))


def distances(a: Shapes, b: Shapes | None = None) -> dict[str, Floats]:
    """The distances of all shapes of a from all of b (None: from each other), (N, M), as ``chamfer`` and ``emd``.

    Raises ``ValueError`` unless all shapes have as many points.
    """
    other = a if b is None else b
    sizes = {*a.sizes.tolist(), *other.sizes.tolist()}
    if len(sizes) > 1:
        raise ValueError(f"shapes must have one number of points, got {sorted(sizes)}; thin them")
    rows, columns = ([x.double() for x in s.parts()] for s in (a, other))
    shape = (len(a), len(other))
    out: dict[str, Floats] = {name: np.zeros(shape) for name in ("chamfer", "emd")}
    for i, x in enumerate(rows):
        for j, y in enumerate(columns):
            if b is None and j <= i:
                continue
            apart = torch.cdist(x, y, compute_mode=_EXACT)
            out["chamfer"][i, j], out["emd"][i, j] = _chamfer(apart), _earth_mover(apart)
    return out if b is not None else {k: v + v.T for k, v in out.items()}


def compare(
    real: Floats, made: Floats, between: Floats, bootstrap: Bootstrap | None = None
) -> Mapping[str, Interval]:
    """``1nna``, ``coverage`` and ``mmd`` of distances, each with its bootstrap interval.

    ``real`` (N, N) and ``made`` (N, N) are the distances within the sets, ``between`` (N, N) those of real shapes
    (rows) from made ones. Intervals resample the shapes over which the mean is taken, with the distances as they are. A
    shape as near to both kinds is counted by half.

    Raises ``ValueError`` for matrices of other shapes: 1-NNA means something for sets of equal size only.
    """
    n = len(between)
    if n < 2 or not real.shape == made.shape == between.shape == (n, n):
        raise ValueError(
            f"the three matrices must be square and of one size, at least 2, got {real.shape}, {made.shape} and "
            f"{between.shape}: take as many shapes of each kind"
        )
    bootstrap = Bootstrap(200) if bootstrap is None else bootstrap
    right = []
    for within, apart in ((real, between), (made, between.T)):
        own, foreign = (within + np.diag(np.full(n, np.inf))).min(1), apart.min(1)
        right.append((own < foreign) + 0.5 * (own == foreign))
    covered = np.zeros(n)
    covered[between.argmin(0)] = 1
    values = {"1nna": np.concatenate(right), "coverage": covered, "mmd": between.min(1)}
    return {k: _mean(v, bootstrap) for k, v in values.items()}


_EXACT = "donot_use_mm_for_euclid_dist"  # the product form loses half the digits of small distances


def _chamfer(apart: Tensor) -> float:
    squared = apart.square()
    return float(squared.amin(1).mean() + squared.amin(0).mean())


def _earth_mover(apart: Tensor) -> float:
    optimize = require("scipy.optimize", extra="shapes")
    table = apart.numpy()
    return float(table[optimize.linear_sum_assignment(table)].mean())


def _mean(values: Floats, bootstrap: Bootstrap) -> Interval:
    def mean(drawn: Floats) -> Floats:
        return np.asarray(drawn.mean(1))

    return Interval(float(values.mean()), *bootstrap.statistic(mean, values))
