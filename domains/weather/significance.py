"""How sure a score is: block-bootstrap intervals over initial times, and paired differences.

Scores of neighbouring initial times resemble each other, as the weather does; an interval that takes them as
independent is too short. So whole blocks of consecutive times are drawn again (Kuensch, Ann. Stat. 17, 1989), on a
circle, so that every time is drawn equally often (Politis & Romano, 1992).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import final

import numpy as np
import xarray as xr

from .kernels import Floats

__all__ = ["BlockBootstrap", "Interval", "block_length", "mean_interval", "paired_difference"]


@final
@dataclass(frozen=True)
class Interval:
    """A figure and its interval from ``low`` to ``high``; NaN bounds where too few times say nothing."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4g} ({self.low:.4g} to {self.high:.4g})"

    def excludes(self, value: float) -> bool:
        """Whether ``value`` lies outside: a difference whose interval excludes 0 is significant."""
        return bool(value < self.low or value > self.high)


@final
@dataclass(frozen=True)
class BlockBootstrap:
    """Seeded percentile intervals of ``level`` from ``replicates`` draws of blocks of times.

    ``block`` is a number of consecutive times; None takes `block_length` of each series. With few times (less than
    about 10 blocks) such intervals are somewhat short. Raises ``ValueError`` for values out of range.
    """

    replicates: int = 1000
    block: int | None = None
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.replicates < 2:
            raise ValueError(f"replicates must be at least 2, got {self.replicates}")
        if self.block is not None and self.block < 1:
            raise ValueError(
                f"block must be a positive number of times (or None), got {self.block}"
            )
        if not 0 < self.level < 1:
            raise ValueError(f"level must lie between 0 and 1, got {self.level}")

    def interval(self, statistic: Callable[[Floats], Floats], parts: Floats) -> Interval:
        """The interval of a ``statistic`` of sums over times.

        ``parts`` (times, K) are what is summed, one row a time; ``statistic`` maps sums (R, K) to figures (R,), so that
        a root is taken of the mean, and a ratio of two means. Where no block was given, the figures of single times set
        it.
        """
        value = float(statistic(parts.sum(0, keepdims=True))[0])
        unknown = Interval(value, float("nan"), float("nan"))
        if len(parts) < 2:
            return unknown
        block = block_length(statistic(parts)) if self.block is None else self.block
        counts = _counts(len(parts), min(block, len(parts)), self.replicates, self.seed)
        figures = statistic(counts @ parts)
        if np.isnan(figures).all():
            return unknown
        low, high = np.nanquantile(figures, [(1 - self.level) / 2, (1 + self.level) / 2])
        return Interval(value, float(low), float(high))


@lru_cache(maxsize=4)
def _counts(times: int, block: int, replicates: int, seed: int) -> Floats:
    """How often each of the ``times`` was drawn, (replicates, times); each row sums to ``times``."""
    rng = np.random.default_rng(seed)
    starts = rng.integers(times, size=(replicates, -(-times // block)))
    drawn = (starts[..., None] + np.arange(block)) % times
    drawn = drawn.reshape(replicates, -1)[:, :times]  # the last block is cut to length
    rows = np.arange(replicates)[:, None] * times
    counts = np.bincount((drawn + rows).ravel(), minlength=replicates * times)
    return counts.reshape(replicates, times).astype(np.float64)


def block_length(series: Floats) -> int:
    r"""The block length that suits a series (times,) of scores, from its correlation r between neighbours.

    .. math:: \left(\frac{\sqrt 6\, r}{1 - r^2}\right)^{2/3} n^{1/3}

    minimises the error of the variance of the mean for an autoregressive series (Carlstein, Ann. Stat. 14, 1986, as
    Politis & White, Econom. Rev. 23, 2004 have it for circular blocks). 1 for negative r; at most a third of the times.
    """
    series = series[~np.isnan(series)]
    anomaly = series - series.mean() if len(series) else series
    power = float(anomaly @ anomaly)
    if len(series) < 4 or power == 0:
        return 1
    r = min(max(float(anomaly[1:] @ anomaly[:-1]) / power, 0.0), 0.99)
    length = (6**0.5 * r / (1 - r**2)) ** (2 / 3) * len(series) ** (1 / 3)
    return int(min(max(round(length), 1), max(len(series) // 3, 1)))


def mean_interval(
    scores: xr.DataArray | Floats, bootstrap: BlockBootstrap | None = None
) -> Interval:
    """The mean of scores (times,), one each initial time, with its interval; NaN times are left out.

    Raises ``ValueError`` unless the scores have one dimension, and where all are NaN.
    """
    series = _series(scores)
    known = ~np.isnan(series)
    parts = np.stack([np.where(known, series, 0.0), known.astype(np.float64)], axis=1)
    return (bootstrap or BlockBootstrap()).interval(_ratio, parts)


def paired_difference(
    ours: xr.DataArray | Floats,
    theirs: xr.DataArray | Floats,
    bootstrap: BlockBootstrap | None = None,
) -> Interval:
    """The mean difference ours - theirs of scores at the same initial times, with its interval.

    Weather that is hard for one is hard for the other: the difference of each time is far less uncertain than either
    mean. Times that one of them lacks are left out; coordinates, where there are any, decide which times are the same.
    Raises ``ValueError`` where the lengths differ or no time is common.
    """
    if isinstance(ours, xr.DataArray) and isinstance(theirs, xr.DataArray):
        ours, theirs = xr.align(ours, theirs, join="inner")
    a, b = _series(ours), _series(theirs)
    if len(a) != len(b):
        raise ValueError(
            f"ours holds {len(a)} times, theirs {len(b)}; a paired difference needs the same"
        )
    return mean_interval(a - b, bootstrap)


def _ratio(sums: Floats) -> Floats:
    total, count = sums.T
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def _series(scores: xr.DataArray | Floats) -> Floats:
    series = np.asarray(scores, dtype=np.float64)
    if series.ndim != 1:
        raise ValueError(
            f"scores must have one dimension, the initial times; got {series.ndim}: average over the others first"
        )
    if np.isnan(series).all():
        raise ValueError("scores holds no time with a value")
    return series
