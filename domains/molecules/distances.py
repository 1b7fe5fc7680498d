"""Distances between distributions, together with their bootstrap replicates.

Histograms carry one column per replicate, (cells, R); by convention column 0 is the sample itself,
the others resample its molecules. Every distance maps them and a target (cells,) to (R,).
"""

from __future__ import annotations

import numpy as np

from sciffusion.bootstrap import Bootstrap
from sciffusion.errors import require

from .chem import Floats, Ints

__all__ = ["histograms", "jensen_shannon", "observed_and_resampled", "total_variation"]
__all__ += ["wasserstein"]


def observed_and_resampled(bootstrap: Bootstrap, molecules: int) -> Floats:
    """(R, molecules): how often each molecule counts; a row of ones, then the replicates."""
    return np.concatenate([np.ones((1, molecules)), *bootstrap.counts(molecules)])


def histograms(cell: Ints, owner: Ints, cells: int, counts: Floats) -> Floats:
    """(cells, R) shares: item i lies in ``cell[i]`` and belongs to molecule ``owner[i]``.

    A replicate that drew no item at all is NaN.
    """
    sparse = require("scipy.sparse", extra="molecules")
    shape = (cells, counts.shape[1])
    found = sparse.coo_array((np.ones(len(cell)), (cell, owner)), shape=shape).tocsr() @ counts.T
    total = found.sum(axis=0)
    return np.divide(found, total, out=np.full_like(found, np.nan), where=total > 0)


def total_variation(shares: Floats, target: Floats) -> Floats:
    """Half the sum of absolute differences: the share that has to change its cell."""
    return 0.5 * np.abs(shares - target[:, None]).sum(axis=0)


def wasserstein(shares: Floats, target: Floats, width: float) -> Floats:
    """Wasserstein-1 of histograms whose cells are ``width`` apart."""
    return width * np.abs(np.cumsum(shares - target[:, None], axis=0)).sum(axis=0)


def jensen_shannon(shares: Floats, target: Floats) -> Floats:
    """Jensen-Shannon divergence in bits: 0 for equal, 1 for disjoint histograms."""
    entropy = require("scipy.special", extra="molecules").rel_entr
    target = target[:, None]
    middle = 0.5 * (shares + target)
    both = entropy(shares, middle) + entropy(target, middle)
    return both.sum(axis=0) / (2 * np.log(2))
