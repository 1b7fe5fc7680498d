"""Scores of ensembles as arithmetic on arrays: members on the last axis, NaN where a cell is missing.

What takes fields and their coordinates stands in `metrics`, `ranks` and `events`; all of it ends here. Everything is
computed in float64, cell by cell, so that a batch is scored as its entries are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Floats", "box_means", "brier", "crps", "energy", "paired", "ranks"]

Floats = NDArray[np.float64]


def paired(members: ArrayLike, truth: ArrayLike) -> tuple[Floats, Floats]:
    """Members (..., M) and truth (...) in float64, both NaN wherever one of them is missing.

    A cell is missing where the truth is NaN or all members are (the sea, the edge of a radar): every term of a score
    then skips the same cells. Raises ``ValueError`` where only some members are NaN, or a value is infinite: that is a
    forecast that failed, and to skip it would flatter the rest.
    """
    x, y = np.asarray(members, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if np.isinf(x).any() or np.isinf(y).any():
        raise ValueError(
            "the ensemble or the truth holds infinite values; a missing cell is NaN, a failed forecast has no score"
        )
    lost = np.isnan(x)
    missing = np.isnan(y) | lost.all(-1)
    partly = lost & ~missing[..., None]
    if partly.any():
        which = np.flatnonzero(partly.reshape(-1, x.shape[-1]).any(0)).tolist()
        raise ValueError(
            f"members {which} of the ensemble are NaN where others are not: these forecasts failed; drop the members, "
            "or set the cells NaN in all of them"
        )
    if missing.any():
        x, y = np.where(missing[..., None], np.nan, x), np.where(missing, np.nan, y)
    return x, y


def crps(x: Floats, y: Floats, *, biased: bool = False) -> Floats:
    r"""The continuous ranked probability score of members (..., M) for truths (...).

    .. math:: \frac1M\sum_m |x_m - y| - \frac1{2M(M-1)}\sum_{m,n} |x_m - x_n|

    is fair: its expectation does not depend on M, and is least for members drawn from the truth's distribution
    (Ferro, Q. J. R. Meteorol. Soc. 140, 2014). ``biased`` divides by 2 M^2 instead: the score of the step function
    through the members, which prefers too narrow ensembles. O(M log M): in sorted members the k-th gap counts
    k (M - k) times. Raises ``ValueError`` for the fair score of one member.
    """
    m = _enough(x.shape[-1], biased=biased)
    error = np.abs(x - y[..., None]).mean(-1)
    # the weights sum to zero: without the mean of the members no digits are lost
    ordered = np.sort(x - x.mean(-1, keepdims=True), axis=-1)
    gaps = ordered @ (2.0 * np.arange(m) - (m - 1))  # the sum of |x_i - x_j| over i < j
    return error - gaps / (m * m if biased else m * (m - 1))


def energy(x: Floats, y: Floats, weights: Floats, *, biased: bool = False) -> Floats:
    r"""The energy score of members (..., D, M) for truths (..., D): the CRPS of whole fields.

    .. math:: \frac1M\sum_m \|x_m - y\| - \frac1{2M(M-1)}\sum_{m,n} \|x_m - x_n\|,\quad
              \|x\|^2 = \sum_d w_d x_d^2 \Big/ \sum_d w_d

    with ``weights`` (D,): the norm is a root mean square, in the units of the field. Missing cells are left out of all
    norms; NaN where no cell is left. Memory: the members once. Source: Gneiting & Raftery, J. Am. Stat. Assoc. 102,
    2007; fair as the CRPS.
    """
    m = _enough(x.shape[-1], biased=biased)
    w = np.where(np.isnan(y), 0.0, weights)
    total = w.sum(-1)
    scale = np.sqrt(w / np.where(total > 0, total, np.nan)[..., None])[..., None]
    fields = np.where(scale == 0, 0.0, x * scale)
    target = np.where(scale == 0, 0.0, y[..., None] * scale)
    error = np.linalg.norm(fields - target, axis=-2).mean(-1)
    gaps = np.zeros_like(error)
    for i in range(m - 1):
        gaps += np.linalg.norm(fields[..., i + 1 :] - fields[..., i : i + 1], axis=-2).sum(-1)
    return error - gaps / (m * m if biased else m * (m - 1))


def brier(x: Floats, y: Floats, threshold: Floats | float, *, biased: bool = False) -> Floats:
    r"""The Brier score of "above ``threshold``", from members (..., M), truths (...) and thresholds (...).

    .. math:: (p - o)^2 - \frac{p (1 - p)}{M - 1}

    with the share p of the members above and the outcome o; the second term, which ``biased`` leaves out, makes it
    fair (Ferro, Q. J. R. Meteorol. Soc. 140, 2014). NaN where a cell is missing.
    """
    m = _enough(x.shape[-1], biased=biased)
    level = np.asarray(threshold, dtype=np.float64)
    p = (x > level[..., None]).mean(-1)
    score = (p - (y > level)) ** 2
    if not biased:
        score = score - p * (1 - p) / (m - 1)
    return np.where(np.isnan(y) | np.isnan(level), np.nan, score)


def ranks(x: Floats, y: Floats, uniform: Floats) -> Floats:
    """How many of the members (..., M) lie below the truth (...): 0 to M, NaN where a cell is missing.

    Of the places among members that equal the truth, as where it does not rain, ``uniform`` (...) in [0, 1) picks one:
    without that a perfect ensemble of rain would not be flat.
    """
    below = (x < y[..., None]).sum(-1)
    equal = (x == y[..., None]).sum(-1)
    return np.where(np.isnan(y), np.nan, below + np.floor(uniform * (equal + 1)))


def box_means(x: Floats, size: int, *, circular: bool) -> Floats:
    """Means over all boxes of ``size`` x ``size`` cells that lie in the field (..., H, W), NaN cells left out.

    Shape (..., H - size + 1, W - size + 1), and W columns if the last one is followed by the first (``circular``).
    NaN where a box holds no value. Raises ``ValueError`` for a box that does not fit.
    """
    if not 1 <= size <= min(x.shape[-2:]):
        raise ValueError(
            f"box must lie in 1..{min(x.shape[-2:])} for fields of {x.shape[-2:]} cells, got {size}"
        )
    if circular:
        x = np.concatenate([x, x[..., : size - 1]], axis=-1)
    known = ~np.isnan(x)
    count = _box_sums(known.astype(np.float64), size)
    total = _box_sums(np.where(known, x, 0.0), size)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def _box_sums(x: Floats, size: int) -> Floats:
    for axis in (-2, -1):
        start = np.zeros_like(np.take(x, [0], axis=axis))
        running = np.concatenate([start, np.cumsum(x, axis=axis)], axis=axis)
        n = running.shape[axis]
        ends = np.take(running, range(size, n), axis=axis)
        x = ends - np.take(running, range(n - size), axis=axis)
    return x


def _enough(members: int, *, biased: bool) -> int:
    if members < 2 and not biased:
        raise ValueError(
            f"a fair score needs at least 2 members, got {members}; of one forecast, take mae or rmse"
        )
    return members
