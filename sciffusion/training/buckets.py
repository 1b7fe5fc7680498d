"""Batches of samples of one size, so that no time goes into padding."""

from __future__ import annotations

from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .order import Order, permutation

__all__ = ["SizeBuckets"]


@final
class SizeBuckets(Order):
    """Every sample once an epoch, in batches of one bucket of sizes, in random order.

    A bucket is a run of neighbouring sizes. It is cut into the fewest batches of at most
    ``batch_size``, which differ by one at most, so that no bucket ends in a tiny batch. Batches
    are a pure function of (seed, epoch, step), whatever was asked before and however many
    processes share one: process r of R takes ``batch(epoch, step)[r::R]``.

    Args:
        sizes: (M,) size of each sample: atoms of molecules, frames of clips.
        batch_size: samples in a batch, at most.
        seed: of the shuffling.
        max_padding: how far sizes in one bucket may differ; 0 gives batches without padding.
        min_bucket: a bucket takes in further sizes, whatever the padding, until it holds so many
            samples. A handful of tiny ones would otherwise be a noisy batch of their own.

    Raises:
        ValueError: a size or an argument below its range.
    """

    def __init__(
        self,
        sizes: ArrayLike,
        batch_size: int,
        *,
        seed: int,
        max_padding: int = 0,
        min_bucket: int = 1,
    ) -> None:
        numbers = np.asarray(sizes)
        if numbers.ndim != 1 or not numbers.size or numbers.min() < 1:
            raise ValueError("sizes must be a vector of one or more positive integers")
        if batch_size < 1 or max_padding < 0 or min_bucket < 1:
            raise ValueError(
                "batch_size and min_bucket must be positive and max_padding not negative, got "
                f"{batch_size}, {min_bucket} and {max_padding}"
            )
        self.seed = seed
        self._bucket = _buckets(numbers.astype(np.int64), max_padding, min_bucket)
        counts = np.bincount(self._bucket)
        batches = -(-counts // batch_size)
        starts = np.cumsum(counts) - counts
        cuts = [
            start + np.arange(parts) * count // parts
            for start, count, parts in zip(starts, counts, batches, strict=True)
        ]
        self._bounds = np.append(np.concatenate(cuts), len(numbers))
        self._cache: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in each epoch."""
        return len(self._bounds) - 1

    def batch(self, epoch: int, step: int) -> NDArray[np.int64]:
        """The samples of one batch of an epoch.

        Raises:
            IndexError: ``step`` is not in ``range(steps_per_epoch)``.
        """
        if not 0 <= step < self.steps_per_epoch:
            raise IndexError(f"step must lie in 0..{self.steps_per_epoch - 1}, got {step}")
        if epoch not in self._cache:
            self._cache = {epoch: self._shuffle(epoch)}
        samples, order = self._cache[epoch]
        place = order[step]
        return samples[self._bounds[place] : self._bounds[place + 1]]

    def _shuffle(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The samples, shuffled in each bucket, bucket after bucket; and the batches' order."""
        # one permutation of samples and batches together holds an independent one of each
        both = permutation(len(self._bucket) + self.steps_per_epoch, self.seed, epoch)
        shuffled = both[both < len(self._bucket)]
        samples = shuffled[np.argsort(self._bucket[shuffled], kind="stable")]
        samples.flags.writeable = False
        return samples, both[both >= len(self._bucket)] - len(self._bucket)


def _buckets(sizes: NDArray[np.int64], max_padding: int, min_bucket: int) -> NDArray[np.int64]:
    """The bucket of each sample, numbered from the smallest sizes upwards."""
    values, counts = np.unique(sizes, return_counts=True)
    starts: list[int] = []
    held = 0
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        if not starts or (value - starts[-1] > max_padding and held >= min_bucket):
            starts.append(value)
            held = 0
        held += count
    if held < min_bucket and len(starts) > 1:  # what is left joins the bucket below
        starts.pop()
    return np.searchsorted(starts, sizes, side="right") - 1
