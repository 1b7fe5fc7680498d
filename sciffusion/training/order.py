"""Which samples each step sees: a pure function of (seed, epoch, step).

Nothing is stored and nothing advances, so a resumed run, or one on another number of processes,
sees exactly the batches that the uninterrupted run would have seen.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache
from typing import final

import numpy as np
from numpy.typing import NDArray


class Order(ABC):
    """The order of the data: global batches of sample indices, independent of the processes."""

    @property
    @abstractmethod
    def steps_per_epoch(self) -> int:
        """Number of batches in each epoch."""

    @abstractmethod
    def batch(self, epoch: int, step: int) -> NDArray[np.int64]:
        """Return the indices of batch ``step`` (from 0) of an epoch; the same for each call."""


@final
class Shuffled(Order):
    """Every sample once per epoch, in a new random order each epoch.

    The epoch is cut into the fewest batches of at most ``batch_size``; their sizes differ by at
    most one, so there is never a small, noisy last batch.
    """

    def __init__(self, n: int, batch_size: int, seed: int) -> None:
        if n < 1 or batch_size < 1:
            raise ValueError(
                f"n and batch_size must be positive, got n={n}, batch_size={batch_size}"
            )
        self.n, self.seed = n, seed
        self._steps = -(-n // batch_size)

    @property
    def steps_per_epoch(self) -> int:
        """``ceil(n / batch_size)``."""
        return self._steps

    def batch(self, epoch: int, step: int) -> NDArray[np.int64]:
        """Return one batch of the epoch's permutation."""
        if not 0 <= step < self._steps:
            raise IndexError(f"step must lie in 0..{self._steps - 1}, got {step}")
        bounds = slice(step * self.n // self._steps, (step + 1) * self.n // self._steps)
        return permutation(self.n, self.seed, epoch)[bounds]


@lru_cache(maxsize=4)
def permutation(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return a read-only random permutation of 0..n-1, the same under every numpy version.

    Sorts the raw words of a counter-based generator (Philox), whose stream numpy guarantees;
    ``Generator.permutation`` carries no such guarantee.
    """
    words = np.random.Philox(np.random.SeedSequence([seed, epoch])).random_raw(n)
    order = np.argsort(words, kind="stable").astype(np.int64)
    order.flags.writeable = False
    return order
