"""Which noise meets which data in a training batch.

A coupling returns a permutation of the batch: sample i is noised with the draw that was made for sample ``perm[i]``. It
moves the noise, never the record, so labels and conditions stay with their data, and every draw is used exactly once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciffusion.errors import require
from sciffusion.layout import Layout, Masked, Packed
from sciffusion.state import State, Value, batch_of, layout_of

__all__ = ["Coupling", "Independent", "Permutation"]


class Coupling(ABC):
    """A rule that pairs data with noise."""

    @abstractmethod
    def __call__(self, x0: Value, eps: Value) -> Tensor | None:
        """The permutation (B,) of the noise, or None for the identity."""


@final
@dataclass(frozen=True)
class Independent(Coupling):
    """Every sample keeps the noise that was drawn for it."""

    def __call__(self, x0: Value, eps: Value) -> None:
        return None


@final
@dataclass(frozen=True)
class Permutation(Coupling):
    r"""The permutation with the least total transport :math:`\sum_i |x_0^i - e^{\pi(i)}|^2`: exact minibatch OT.

    ``field`` names the field of a state whose distances count. All samples must have the same shape. The assignment is
    solved exactly by scipy (extra ``molecules``, ``audio`` or ``weather`` brings it). Source: Pooladian et al., 2023;
    Tong et al., 2024. Raises ``ValueError`` for samples of different sizes.
    """

    field: str | None = None

    def __call__(self, x0: Value, eps: Value) -> Tensor:
        optimize = require("scipy.optimize", extra="molecules")
        if isinstance(x0, State) and self.field not in x0:
            raise ValueError(f"field must name one of {list(x0)} for a state, got {self.field!r}")
        # every field is permuted, so none may be ragged
        for name, v in x0.items() if isinstance(x0, State) else [(None, x0)]:
            if not _of_one_size(v, layout_of(x0, name)):
                raise ValueError(
                    "Permutation pairs samples of one size; bucket the batch by size or use Independent"
                )
        a, b = (v[str(self.field)] if isinstance(v, State) else v for v in (x0, eps))
        shape = (batch_of(x0), -1)
        cost = torch.cdist(a.double().reshape(shape), b.double().reshape(shape)) ** 2
        return torch.as_tensor(
            optimize.linear_sum_assignment(cost.cpu().numpy())[1], device=a.device
        )


def _of_one_size(x: Tensor, layout: Layout) -> bool:
    padded = isinstance(layout, Masked) and not bool(layout.mask.all())
    return not padded and len(set(layout.parts(x))) == 1


def permute(x: Value, perm: Tensor) -> Value:
    """The samples of ``x`` in another order; samples must have equal sizes (:class:`Permutation` checks that)."""

    def field(v: Tensor, layout: Layout) -> Tensor:
        if not isinstance(layout, Packed):
            return v[perm]
        return v.reshape(layout.batch, -1, *v.shape[1:])[perm].reshape(v.shape)

    return (
        x.replace({k: field(v, x.layout(k)) for k, v in x.items()})
        if isinstance(x, State)
        else x[perm]
    )
