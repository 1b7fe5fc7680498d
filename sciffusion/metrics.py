r"""How far a set of samples is from real data, from their features.

Features are vectors (N, D) that a network, a descriptor or the data themselves give; every figure depends on which, so
name it beside the figure. All work is in float64.

* :func:`frechet`, the squared Wasserstein-2 distance of the two Gaussians with the features' moments,
  :math:`|m_1-m_2|^2 + \mathrm{tr}(S_1+S_2-2(S_1S_2)^{1/2})` (Dowson & Landau 1982; Heusel et al. 2017). It is biased
  upwards, the more so the fewer samples there are: compare equal numbers, and with the value between two halves of the
  real data;
* :func:`kernel_distance`, the unbiased squared maximum mean discrepancy of a cubic kernel (Binkowski et al. 2018, KID);
* :class:`Neighbours`: precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020), which
  part what is wrong with single samples from what is missing among all.

:func:`compare` gives them all with intervals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from sciffusion.bootstrap import Bootstrap

__all__ = ["Interval", "Moments", "Neighbours", "compare", "frechet", "kernel_distance"]

Floats = NDArray[np.floating[Any]]
Features = ArrayLike | Tensor
"""One vector for each sample, (N, D)."""


@final
@dataclass(frozen=True)
class Interval:
    """A figure, and its interval from ``low`` to ``high``."""

    value: float
    low: float
    high: float


@final
@dataclass(frozen=True, eq=False)
class Moments:
    """Mean (D,) and covariance (D, D) of features."""

    mean: Floats
    covariance: Floats

    @classmethod
    def of(cls, features: Features, counts: Floats | None = None) -> Moments:
        """Those of features (N, D), each of which counts as often as ``counts`` (N,) says (None: once).

        Raises ``ValueError`` for features of another shape or fewer than two, or that are not finite.
        """
        x = _matrix(features, "features")
        c = np.ones(len(x)) if counts is None else counts
        mean = c @ x / c.sum()
        centred = x - mean
        return cls(mean, (centred * c[:, None]).T @ centred / (c.sum() - 1))

    def distance(self, other: Moments) -> float:
        """The Frechet distance of two Gaussians, never negative."""
        # the eigenvalues of S1 S2 are those of R S2 R with R R = S1, which is symmetric
        values, vectors = np.linalg.eigh(self.covariance)
        root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
        shared = np.linalg.eigvalsh(root @ other.covariance @ root)
        overlap = np.sqrt(np.clip(shared, 0, None)).sum()
        apart = ((self.mean - other.mean) ** 2).sum()
        total = apart + np.trace(self.covariance) + np.trace(other.covariance) - 2 * overlap
        return max(float(total), 0.0)


def frechet(a: Features, b: Features) -> float:
    """The Frechet distance of two sets of features, (N, D) and (M, D).

    Raises ``ValueError`` for features of another shape or fewer than two, or that are not finite.
    """
    x, y = _pair(a, b)
    return Moments.of(x).distance(Moments.of(y))


def kernel_distance(a: Features, b: Features) -> float:
    r"""The unbiased squared discrepancy of two sets under the kernel :math:`(x\cdot y/D + 1)^3`; it may be negative.

    For the errors see :func:`frechet`.
    """
    x, y = _pair(a, b)
    ones = np.ones((1, len(x))), np.ones((1, len(y)))
    return float(_discrepancies(_Kernel.of(x, y), *ones)[0])


@final
@dataclass(frozen=True, eq=False)
class Neighbours:
    """What the distances to the ``k`` nearest neighbours say, sample by sample.

    ``faithful`` (M,): a made sample lies within the ball of a real one, out to its k-th real neighbour; its mean is the
    precision. ``crowd`` (M,): in how many such balls, over k; its mean is the density, which one outlier among the real
    data cannot raise as it raises precision. ``reached`` (N,): a real sample lies within the ball of a made one; its
    mean is the recall. ``covered`` (N,): the ball of a real sample holds a made one; its mean is the coverage.
    """

    faithful: Floats
    crowd: Floats
    reached: Floats
    covered: Floats

    @classmethod
    def of(cls, real: Features, made: Features, k: int = 5) -> Neighbours:
        """Those of real features (N, D) and made ones (M, D).

        Raises ``ValueError`` unless both hold more than ``k``, and for what :func:`frechet` refuses.
        """
        x, y = _pair(real, made)
        if k < 1 or min(len(x), len(y)) <= k:
            raise ValueError(
                f"k must be at least 1 and below the number of samples, {min(len(x), len(y))}, got {k}"
            )
        apart = _squared(x, y)
        inside = apart <= _radii(x, k)[:, None]
        return cls(
            inside.any(0).astype(float),
            inside.sum(0) / k,
            (apart <= _radii(y, k)[None]).any(1).astype(float),
            inside.any(1).astype(float),
        )


def compare(
    real: Features, made: Features, *, k: int = 5, bootstrap: Bootstrap | None = None
) -> Mapping[str, Interval]:
    """All distances of made features (M, D) from real ones (N, D), each with its bootstrap interval.

    ``frechet``, ``kernel_distance``, ``precision``, ``recall``, ``density`` and ``coverage``, see the module. Intervals
    of the first two are those of resampling both sets; of the others of resampling the set over which the mean is
    taken, with the balls as they are.

    Raises ``ValueError`` for what :class:`Neighbours` refuses.
    """
    x, y = _pair(real, made)
    bootstrap = Bootstrap(200) if bootstrap is None else bootstrap
    near = Neighbours.of(x, y, k)
    # streams of their own, or two sets of one size would be resampled alike
    first, second = (
        np.concatenate(list(Bootstrap(bootstrap.replicates, seed=s).counts(n)))
        for s, n in ((2 * bootstrap.seed, len(x)), (2 * bootstrap.seed + 1, len(y)))
    )
    again = [
        Moments.of(x, a).distance(Moments.of(y, b)) for a, b in zip(first, second, strict=True)
    ]
    kernel = _Kernel.of(x, y)
    unbiased = kernel_distance(x, y)
    scatter = _discrepancies(kernel, first, second)
    low, high = np.quantile(scatter, bootstrap.tails) - np.median(scatter)
    means = {
        "precision": near.faithful,
        "recall": near.reached,
        "density": near.crowd,
        "coverage": near.covered,
    }
    distances = {
        "frechet": Interval(*bootstrap.distance(np.array([frechet(x, y), *again]))),
        "kernel_distance": Interval(unbiased, unbiased + float(low), unbiased + float(high)),
    }
    return distances | {name: _mean(values, bootstrap) for name, values in means.items()}


def _mean(values: Floats, bootstrap: Bootstrap) -> Interval:
    def mean(drawn: Floats) -> Floats:
        return np.asarray(drawn.mean(1))

    return Interval(float(values.mean()), *bootstrap.statistic(mean, values))


@final
@dataclass(frozen=True, eq=False)
class _Kernel:
    """The cubic kernel within two sets and between them."""

    xx: Floats
    yy: Floats
    xy: Floats

    @classmethod
    def of(cls, x: Floats, y: Floats) -> _Kernel:
        d = x.shape[1]
        return cls((x @ x.T / d + 1) ** 3, (y @ y.T / d + 1) ** 3, (x @ y.T / d + 1) ** 3)


def _discrepancies(kernel: _Kernel, a: Floats, b: Floats) -> Floats:
    """The discrepancy of resampled sets (R,): row r counts samples as often as ``a[r]`` (N,) and ``b[r]`` (M,) say.

    Pairs of a sample with itself say nothing of how near two samples are, also where it was drawn twice.
    """

    def within(k: Floats, c: Floats) -> Floats:
        pairs = ((c @ k) * c).sum(1) - (c**2) @ np.diag(k)
        return pairs / (c.sum(1) ** 2 - (c**2).sum(1))

    between = ((a @ kernel.xy) * b).sum(1) / (a.sum(1) * b.sum(1))
    return within(kernel.xx, a) + within(kernel.yy, b) - 2 * between


def _squared(x: Floats, y: Floats) -> Floats:
    """Squared distances (N, M)."""
    apart = (x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * x @ y.T
    return np.clip(apart, 0, None)


def _radii(x: Floats, k: int) -> Floats:
    """The squared distance of every sample to its k-th nearest neighbour among the others."""
    apart = _squared(x, x)
    np.fill_diagonal(apart, np.inf)
    return np.partition(apart, k - 1, axis=1)[:, k - 1]


def _pair(a: Features, b: Features) -> tuple[Floats, Floats]:
    x, y = _matrix(a, "the first features"), _matrix(b, "the second features")
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"both sets must have features of one width, got {x.shape[1]} and {y.shape[1]}; take them from one network"
        )
    return x, y


def _matrix(features: Features, name: str) -> Floats:
    if isinstance(features, Tensor):
        features = features.detach().to("cpu", torch.float64).numpy()
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"{name} must be (N, D) with at least two rows, got {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError(f"{name} hold NaN or infinity")
    return x
