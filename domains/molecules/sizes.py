"""How many atoms a molecule should have: distributions of sizes, fitted to data, to draw from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

__all__ = ["ConditionalSizePrior", "JointSizePrior", "SizePrior"]


@final
@dataclass(frozen=True)
class SizePrior:
    """p(N), the distribution of the number of atoms, as counted in a data set.

    >>> SizePrior.fit([3, 3, 3, 5]).probabilities
    (0.75, 0.25)

    Args:
        sizes: the numbers of atoms that occur, rising.
        probabilities: of each; they sum to one.
    """

    sizes: tuple[int, ...]
    probabilities: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.sizes or len(self.sizes) != len(self.probabilities):
            raise ValueError(f"{len(self.sizes)} sizes for {len(self.probabilities)} probabilities")
        if min(self.sizes) < 1 or list(self.sizes) != sorted(set(self.sizes)):
            raise ValueError(f"sizes must be positive and rise, got {self.sizes}")
        if min(self.probabilities) < 0 or abs(sum(self.probabilities) - 1) > 1e-6:
            raise ValueError("probabilities must be non-negative and sum to one")

    @classmethod
    def fit(cls, sizes: ArrayLike) -> SizePrior:
        """The histogram of the sizes of a data set (``mols.sizes``)."""
        values, counts = np.unique(_sizes(sizes), return_counts=True)
        return cls(tuple(values.tolist()), tuple((counts / counts.sum()).tolist()))

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """``n`` sizes, (n,) int64."""
        weights = torch.tensor(self.probabilities, dtype=torch.float64)
        return _draw(weights, n, self.sizes, generator)

    def log_prob(self, sizes: ArrayLike | Tensor) -> Tensor:
        """log p(N) of each, float64; minus infinity for a size that never occurs."""
        table = torch.full((self.sizes[-1] + 2,), -torch.inf, dtype=torch.float64)
        table[list(self.sizes)] = torch.tensor(self.probabilities, dtype=torch.float64).log()
        return table[torch.as_tensor(sizes).long().clamp(0, self.sizes[-1] + 1)]

    def to_dict(self) -> dict[str, list[int] | list[float]]:
        """As plain lists, for JSON."""
        return {"sizes": list(self.sizes), "probabilities": list(self.probabilities)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Sequence[Any]]) -> SizePrior:
        """The way back of `to_dict`."""
        return cls(tuple(values["sizes"]), tuple(values["probabilities"]))


@final
@dataclass(frozen=True)
class ConditionalSizePrior:
    """p(N | y): which sizes go with a wanted value of a property.

    The values of y are cut at their quantiles; in each bin the sizes are counted and mixed with
    a little of p(N), ``p(N | bin) = (1 - s) count / total + s p(N)``, so that no size that occurs
    at all is impossible. The mixture leaves the mean over the bins exactly at p(N). A value
    beyond the data takes the outermost bin.

    Args:
        marginal: p(N).
        edges: (K - 1,) values of y between the K bins, rising.
        weights: the share of the data in each bin.
        probabilities: p(N | bin), a row of each bin.
    """

    marginal: SizePrior
    edges: tuple[float, ...]
    weights: tuple[float, ...]
    probabilities: tuple[tuple[float, ...], ...]

    @classmethod
    def fit(
        cls, sizes: ArrayLike, y: ArrayLike, *, bins: int = 20, smoothing: float = 0.01
    ) -> ConditionalSizePrior:
        """Count the sizes in ``bins`` quantile bins of the property ``y`` (M,).

        Repeated values of y can leave fewer bins.
        """
        numbers, values = _sizes(sizes), _values(y, len(_sizes(sizes)))
        if bins < 1 or not 0 <= smoothing <= 1:
            raise ValueError(f"bins must be positive and smoothing in 0..1: {bins}, {smoothing}")
        marginal = SizePrior.fit(numbers)
        # edges that are data, and above the lowest of them: then no bin is empty
        edges = np.unique(np.quantile(values, np.arange(1, bins) / bins, method="inverted_cdf"))
        edges = edges[edges > values.min()]
        place = np.searchsorted(edges, values, side="right")
        counts = np.zeros((len(edges) + 1, len(marginal.sizes)))
        np.add.at(counts, (place, np.searchsorted(marginal.sizes, numbers)), 1)
        totals = counts.sum(1)
        mixed = (1 - smoothing) * counts / totals[:, None]
        mixed += smoothing * np.array(marginal.probabilities)
        return cls(
            marginal,
            tuple(edges.tolist()),
            tuple((totals / totals.sum()).tolist()),
            tuple(tuple(row) for row in mixed.tolist()),
        )

    def at(self, y: float) -> SizePrior:
        """p(N | y) for one value."""
        row = self.probabilities[int(np.searchsorted(self.edges, y, side="right"))]
        return SizePrior(self.marginal.sizes, row)

    def sample(self, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A size for each wanted value, (n,) int64."""
        bins = torch.bucketize(
            y.detach().cpu().double(), torch.tensor(self.edges, dtype=torch.float64), right=True
        )
        weights = torch.tensor(self.probabilities, dtype=torch.float64)[bins]
        column = torch.multinomial(weights, 1, generator=generator)[:, 0]
        return torch.tensor(self.marginal.sizes)[column]

    def to_dict(self) -> dict[str, Any]:
        """As plain lists, for JSON."""
        return {
            "marginal": self.marginal.to_dict(),
            "edges": list(self.edges),
            "weights": list(self.weights),
            "probabilities": [list(row) for row in self.probabilities],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ConditionalSizePrior:
        """The way back of `to_dict`."""
        return cls(
            SizePrior.from_dict(values["marginal"]),
            tuple(values["edges"]),
            tuple(values["weights"]),
            tuple(tuple(row) for row in values["probabilities"]),
        )


@final
@dataclass(frozen=True)
class JointSizePrior:
    """p(N, y) = p(N) p(y | N): targets for conditional sampling as EDM draws them.

    For each size the range of y in the data is cut into equal bins (EDM: 1,000), and y is uniform
    inside the bin that its histogram drew (Hoogeboom et al., 2022).

    Args:
        marginal: p(N).
        ranges: lowest and highest y at each size.
        counts: at each size, how often each bin that occurs does: ``{bin: count}``.
        bins: number of bins.
    """

    marginal: SizePrior
    ranges: tuple[tuple[float, float], ...]
    counts: tuple[Mapping[int, int], ...]
    bins: int

    @classmethod
    def fit(cls, sizes: ArrayLike, y: ArrayLike, *, bins: int = 1000) -> JointSizePrior:
        """Count the property ``y`` (M,) in ``bins`` equal bins at each size."""
        numbers, values = _sizes(sizes), _values(y, len(_sizes(sizes)))
        if bins < 1:
            raise ValueError(f"bins must be positive, got {bins}")
        marginal = SizePrior.fit(numbers)
        ranges, counts = [], []
        for size in marginal.sizes:
            here = values[numbers == size]
            low, high = float(here.min()), float(here.max())
            width = (high - low) or 1.0
            place = np.minimum(((here - low) / width * bins).astype(int), bins - 1)
            occupied, count = np.unique(place, return_counts=True)
            ranges.append((low, high))
            counts.append(dict(zip(occupied.tolist(), count.tolist(), strict=True)))
        return cls(marginal, tuple(ranges), tuple(counts), bins)

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """``n`` pairs: sizes (n,) int64 and values of y (n,) float64."""
        sizes = self.marginal.sample(n, generator)
        return sizes, self.sample_given(sizes, generator)

    def sample_given(self, sizes: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A value of y for each size, float64; ValueError for a size that never occurs."""
        y = torch.empty(len(sizes), dtype=torch.float64)
        inside = torch.rand(len(sizes), generator=generator, dtype=torch.float64)
        for size in sizes.unique().tolist():
            if size not in self.marginal.sizes:
                raise ValueError(f"no molecule of {size} atoms was seen: y is unknown for it")
            row = self.marginal.sizes.index(size)
            here = sizes == size
            counts = self.counts[row]
            weights = torch.tensor(list(counts.values()), dtype=torch.float64)
            place = _draw(weights, int(here.sum()), tuple(counts), generator)
            low, high = self.ranges[row]
            y[here] = low + (high - low) * (place + inside[here]) / self.bins
        return y

    def to_dict(self) -> dict[str, Any]:
        """As plain lists, for JSON."""
        return {
            "marginal": self.marginal.to_dict(),
            "ranges": [list(pair) for pair in self.ranges],
            "counts": [[list(pair) for pair in row.items()] for row in self.counts],
            "bins": self.bins,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> JointSizePrior:
        """The way back of `to_dict`."""
        return cls(
            SizePrior.from_dict(values["marginal"]),
            tuple((low, high) for low, high in values["ranges"]),
            tuple(dict(row) for row in values["counts"]),
            values["bins"],
        )


def _draw(
    weights: Tensor, n: int, choices: tuple[int, ...], generator: torch.Generator | None
) -> Tensor:
    rows = torch.multinomial(weights, n, replacement=True, generator=generator)
    return torch.tensor(choices)[rows]


def _sizes(sizes: ArrayLike) -> NDArray[np.int64]:
    numbers = np.asarray(sizes)
    whole = numbers.ndim == 1 and np.issubdtype(numbers.dtype, np.integer)
    if not whole or not numbers.size or numbers.min() < 1:
        raise ValueError("sizes must be a vector of one or more positive integers")
    return numbers.astype(np.int64)


def _values(y: ArrayLike, molecules: int) -> NDArray[np.float64]:
    values = np.asarray(y, dtype=np.float64)
    if values.shape != (molecules,) or not np.isfinite(values).all():
        raise ValueError(f"y must be ({molecules},) finite numbers, one a molecule")
    return values
