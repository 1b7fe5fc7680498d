"""Intervals by resampling what was drawn independently: molecules, images, clips.

A unit is drawn again with all that belongs to it: a pooled figure such as the share of stable atoms resamples whole
molecules. (Efron and Tibshirani, *An Introduction to the Bootstrap*, 1993.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bootstrap"]

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]


@final
@dataclass(frozen=True)
class Bootstrap:
    """Seeded bootstrap intervals of a given level.

    An interval of no width at 0 or 100 % means that the sample holds no counter-example, not that
    there are none. Raises ``ValueError`` unless there is a replicate and 0 < level < 1.
    """

    replicates: int = 1000
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.replicates < 1 or not 0 < self.level < 1:
            raise ValueError(
                "replicates must be at least 1 and level between 0 and 1, "
                f"got {self.replicates} and {self.level}"
            )

    def counts(self, n: int, *, most: int = 5_000_000) -> Iterator[Floats]:
        """All replicates in blocks (R, n): how often each of ``n`` units was drawn again."""
        rng = np.random.default_rng(self.seed)
        block = max(1, most // max(n, 1))
        for start in range(0, self.replicates, block):
            rows = min(block, self.replicates - start)
            drawn = rng.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
            yield np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(float)

    def ratio(self, numerator: Floats | Bools, denominator: Floats) -> tuple[Floats, Floats]:
        """Percentile interval of sum(numerator) / sum(denominator) over units, (M, K) -> (K,).

        Replicates with an empty denominator say nothing and are left out; NaN if all are.
        """
        both = np.concatenate([numerator, denominator], axis=1, dtype=float)
        sums = np.concatenate([counts @ both for counts in self.counts(len(both))])
        top, bottom = np.split(sums, 2, axis=1)
        ratios = np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0)
        low, high = (np.full(ratios.shape[1], np.nan) for _ in range(2))
        known = ~np.isnan(ratios).all(axis=0)
        low[known], high[known] = np.nanquantile(ratios[:, known], self.tails, axis=0)
        return low, high

    def statistic(self, of: Callable[[Floats], Floats], values: Floats) -> tuple[float, float]:
        """Percentile interval of ``of``, which maps replicates (R, M) to (R,), e.g. a median."""
        rng = np.random.default_rng(self.seed)
        drawn = rng.integers(len(values), size=(self.replicates, len(values)))
        low, high = np.quantile(of(values[drawn]), self.tails)
        return float(low), float(high)

    def distance(self, values: Floats) -> tuple[float, float, float]:
        """Value and interval of a distance: ``values[0]`` is observed, the rest are replicates.

        The interval is the scatter of the replicates, moved from their median to the observed
        value: resampling adds noise, which lengthens every distance, so that percentiles alone
        would lie too high throughout. What noise the sample itself holds lengthens the observed
        distance too; a sample of real data of equal size shows how much.
        """
        observed, replicates = float(values[0]), values[1:][~np.isnan(values[1:])]
        if np.isnan(observed) or not len(replicates):
            return observed, float("nan"), float("nan")
        low, high = observed + np.quantile(replicates, self.tails) - np.median(replicates)
        return observed, max(float(low), 0.0), float(high)

    @property
    def tails(self) -> tuple[float, float]:
        """The quantiles at which an interval ends."""
        return (1 - self.level) / 2, (1 + self.level) / 2
