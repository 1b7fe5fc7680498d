r"""The linear rival as a foundation: ridge regression from all coarse cells to every fine one.

With n cases of p centred inputs X and q centred targets Y, :math:`W = (X^TX + \lambda n I)^{-1}X^TY`. The best
:math:`\lambda` is found by leaving out one block of time after another; the predictions of the blocks that were left
out are what residuals are taken from, since a model's residuals on its own training data are too small.
Source: Hoerl & Kennard, Technometrics 12, 1970.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

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
        x, y = x.double(), y.double()
        parts = torch.arange(len(x)) * blocks // len(x)
        systems = [_System.of(x[parts != b], y[parts != b]) for b in range(blocks)]
        errors = [
            sum(
                float((s.solve(c)(x[parts == b]) - y[parts == b]).square().sum())
                for b, s in enumerate(systems)
            )
            for c in _PENALTIES
        ]
        best = _PENALTIES[errors.index(min(errors))]
        return _System.of(x, y).solve(best), tuple(s.solve(best) for s in systems)


@final
@dataclass(frozen=True, eq=False)
class _System:
    """The normal equations in their eigenvectors, which serve every penalty."""

    values: Tensor
    vectors: Tensor
    right: Tensor
    x_mean: Tensor
    y_mean: Tensor

    @staticmethod
    def of(x: Tensor, y: Tensor) -> _System:
        x_mean, y_mean = x.mean(0), y.mean(0)
        values, vectors = torch.linalg.eigh((x - x_mean).T @ (x - x_mean) / len(x))
        return _System(
            values, vectors, vectors.T @ ((x - x_mean).T @ (y - y_mean)) / len(x), x_mean, y_mean
        )

    def solve(self, penalty: float) -> Ridge:
        scale = penalty * self.values.mean()
        weights = self.vectors @ (self.right / (self.values.clamp(min=0) + scale)[:, None])
        return Ridge(weights.float(), (self.y_mean - self.x_mean @ weights).float())
