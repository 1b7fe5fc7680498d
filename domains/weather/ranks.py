"""Rank histograms: where the truth falls among the members, and whether that is as often everywhere as it should be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import xarray as xr

from sciffusion.errors import require

from . import kernels
from .kernels import Floats
from .matching import MEMBER, Data, Dims, average, each, match
from .metrics import pointwise

__all__ = ["Flatness", "effective_cases", "flatness", "outlier_fraction", "rank_histogram"]


def rank_histogram(ensemble: Data, truth: Data, *, dim: Dims = None, seed: int = 0) -> Data:
    """The share of cases in which the truth has each rank 0 to M among M members, along a new dimension "rank".

    Flat, at 1 / (M + 1), if truth and members are exchangeable; raised ends show too narrow ensembles (Hamill, Mon.
    Weather Rev. 129, 2001). Cells count by their area, ties are broken at random (``seed``), missing cells are left
    out. ``dim`` as in `metrics`.
    """

    def histogram(a: xr.DataArray, b: xr.DataArray) -> xr.DataArray:
        a, b = match(a, b)
        members = a.sizes.get(MEMBER, 1)
        uniform = b.copy(data=np.random.default_rng(seed).random(b.shape))
        rank = pointwise(kernels.ranks, a, b, uniform)
        every = xr.DataArray(np.arange(members + 1), dims="rank", name="rank")
        every = every.assign_coords(rank=every)
        share = average((rank == every).where(rank.notnull()), dim)
        return share.assign_attrs({"long_name": "share of cases", "units": "1"})

    return each(histogram, ensemble, truth)


def outlier_fraction(histogram: xr.DataArray) -> xr.DataArray:
    """The share of truths below or above all members; 2 / (M + 1) is right, and stands in the attribute "expected"."""
    share = histogram.isel(rank=[0, -1]).sum("rank", skipna=False)
    expected = 2 / histogram.sizes["rank"]
    return share.assign_attrs({"long_name": "outliers", "units": "1", "expected": expected})


def effective_cases(series: xr.DataArray, *, dim: str = "time") -> float:
    r"""How many independent cases a mean histogram is worth, from the scatter of the histograms of single times.

    .. math:: n = \sum_k p_k (1 - p_k) \Big/ \sum_k \mathrm{Var}(\bar p_k)

    Neighbouring cells share their weather: a field of thousands of cells may be worth ten. Times count as independent,
    so leave out some if they are close. ``series`` (``dim``, rank), as `rank_histogram` gives it with ``dim`` of space
    only. Raises ``ValueError`` for fewer than 2 times.
    """
    shares = series.transpose(dim, "rank").values
    if len(shares) < 2:
        raise ValueError(
            f"the scatter among times needs at least 2 of them along {dim!r}, got {len(shares)}"
        )
    p = shares.mean(0)
    scatter = shares.var(0, ddof=1).sum() / len(shares)
    return float((p * (1 - p)).sum() / scatter) if scatter > 0 else float("inf")


@final
@dataclass(frozen=True)
class Flatness:
    """A chi-square test of a rank histogram.

    ``statistic`` would be ``expected`` on average, with a deviation of ``scatter``, if the ensemble were reliable;
    ``p_value`` is how often it would be as large then. ``cases`` is what the test took for the number of independent
    cases.
    """

    statistic: float
    expected: float
    scatter: float
    p_value: float
    cases: float


def flatness(histogram: xr.DataArray, *, cases: float) -> Flatness:
    r"""Whether a histogram (rank,) of shares differs from a flat one by more than sampling would make it.

    .. math:: \chi^2 = n (M+1) \sum_k \Big(p_k - \frac1{M+1}\Big)^2,\qquad \mathrm{E}\,\chi^2 = M

    ``cases`` is n, the number of independent cases. The number of cells is far too large for it, as neighbours are
    correlated, and every ensemble then fails the test; give `effective_cases`. Raises ``ValueError`` for a histogram
    with more dimensions, and for n that is not positive.
    """
    if histogram.dims != ("rank",):
        raise ValueError(
            f"histogram must have the dimension 'rank' alone, got {histogram.dims}; select a lead or a level"
        )
    if not cases > 0:
        raise ValueError(f"cases must be positive, got {cases}")
    share: Floats = histogram.values.astype(np.float64)
    bins = len(share)
    statistic = float(cases * bins * ((share - 1 / bins) ** 2).sum())
    p_value = float(require("scipy.stats", extra="weather").chi2.sf(statistic, bins - 1))
    return Flatness(statistic, bins - 1.0, float(np.sqrt(2 * (bins - 1))), p_value, float(cases))
