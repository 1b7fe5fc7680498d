r"""The linear rival as a foundation: ridge regression from all coarse cells to every fine one.

The penalty is found by leaving out one block of time after another, for neighbouring times are nearly the same; the
predictions of the blocks that were left out are what residuals are taken from, since a model's residuals on its own
training data are too small.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from .baselines.statistics import Ridge as Regression

__all__ = ["Ridge"]

_PENALTIES = tuple(10.0 ** (k / 2) for k in range(-12, 3))


@final
@dataclass(frozen=True, eq=False)
class Ridge:
    """A linear map of inputs (n, p) to targets (n, q): ``x @ weights + offset``."""

    weights: Tensor
    offset: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """The prediction."""
        return x @ self.weights.to(x) + self.offset.to(x)

    @staticmethod
    def fit(x: Tensor, y: Tensor, blocks: int = 6) -> tuple[Ridge, tuple[Ridge, ...]]:
        """The map of all cases, and for each of so many blocks of consecutive cases that of all the others.

        Raises ``ValueError`` for fewer than two cases a block.
        """
        if len(x) < 2 * blocks:
            raise ValueError(f"{len(x)} cases are too few for {blocks} blocks; take more times")
        inputs, targets = x.double().numpy(), y.double().numpy()
        parts = np.arange(len(x)) * blocks // len(x)

        def left_out(penalty: float) -> list[Regression]:
            return [
                Regression.fit(inputs[parts != b], targets[parts != b], penalty=penalty)
                for b in range(blocks)
            ]

        tried = {penalty: left_out(penalty) for penalty in _PENALTIES}
        errors = {
            penalty: sum(
                float(((fit(inputs[parts == b]) - targets[parts == b]) ** 2).sum())
                for b, fit in enumerate(fits)
            )
            for penalty, fits in tried.items()
        }
        best = min(errors, key=lambda penalty: errors[penalty])
        whole = Regression.fit(inputs, targets, penalty=best)
        return Ridge._of(whole), tuple(Ridge._of(fit) for fit in tried[best])

    @staticmethod
    def _of(fit: Regression) -> Ridge:
        return Ridge(
            torch.from_numpy(fit.coefficients).float(), torch.from_numpy(fit.constant).float()
        )
