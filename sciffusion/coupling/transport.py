r"""Minibatch optimal transport: whole samples trade their noise.

A permutation :math:`\pi` of the batch gives sample i the draw that was made for sample :math:`\pi(i)`. The best one,

.. math:: \min_\pi \sum_i \|x_0^i - e^{\pi(i)}\|^2,

is an assignment, solved exactly. It shortens and straightens the paths from noise to data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciffusion.coupling.base import Coupling, deciding
from sciffusion.denoiser import Condition
from sciffusion.errors import require
from sciffusion.layout import Layout, Masked
from sciffusion.process import Process
from sciffusion.state import State, Value, batch_of, layout_of, take

__all__ = ["Conditional", "Permutation", "assign", "check_one_size", "permute"]


@final
@dataclass(frozen=True)
class Permutation(Coupling):
    """The permutation of the noise with the least total transport: exact minibatch OT.

    ``field`` names the field of a state whose distances count; every field moves. All samples must have the same shape.
    Without conditions, sampling from the plain prior is right. With conditions it is not: within one class the noise is
    skewed towards the data of that class; use :class:`Conditional`. The assignment is solved by scipy (extra
    ``molecules``, ``audio``, ``weather`` or ``images`` brings it). Source: Pooladian et al., 2023; Tong et al., 2024.
    Raises ``ValueError`` for samples of different sizes, and for a field that is not there or has no Gaussian noise.
    """

    field: str | None = None

    def __call__(self, x0: Value, eps: Value, cond: Condition, process: Process) -> Value:
        return permute(eps, assign(_cost(x0, eps, self.field, process)).to(_device(eps)))


@final
@dataclass(frozen=True)
class Conditional(Coupling):
    r"""Minibatch OT that knows of the conditions, so that they stay independent of the noise: C2OT.

    A draw carries the condition c of the record for which it was drawn, and :math:`\mathrm{weight}\,|c_i - c_j|^2` is
    added to the cost of giving it to another. With an infinite weight, the default, only records of the same condition
    trade noise: the noise of a class has exactly the law of the prior, and nothing is gained where every condition is
    different. A finite weight is for continuous conditions: between that (large) and :class:`Permutation` (zero), it
    trades a shorter path for some dependence. (The paper takes the cosine distance there, with a weight found by a
    search.)

    The condition must be a tensor (B, ...) or a mapping of these; NaN, a missing value, equals NaN. All samples must
    have the same shape. Source: Cheng & Schwing, The Curse of Conditions, 2025 (arXiv 2503.10636).
    Raises ``ValueError`` without a condition, for a negative weight, and like :class:`Permutation`.
    """

    field: str | None = None
    weight: float = math.inf

    def __post_init__(self) -> None:
        if not self.weight >= 0:
            raise ValueError(f"weight must not be negative, got {self.weight}")

    def __call__(self, x0: Value, eps: Value, cond: Condition, process: Process) -> Value:
        c, cost = _numbers(cond, batch_of(x0)), _cost(x0, eps, self.field, process)
        if math.isfinite(self.weight):
            c = c.to(cost.device)
            # |x - e|^2 + w |c - c'|^2, without the terms that every permutation shares
            perm = assign(cost - 2 * self.weight * c @ c.mT)
        else:
            _, kind = torch.unique(c, dim=0, return_inverse=True)
            perm = torch.arange(len(c))
            for k in range(int(kind.max()) + 1):
                rows = (kind == k).nonzero()[:, 0].cpu()
                perm[rows] = rows[assign(cost[rows.to(cost.device)][:, rows.to(cost.device)])]
        return permute(eps, perm.to(_device(eps)))


def assign(cost: Tensor) -> Tensor:
    """The permutation p (B,) with the least ``sum_i cost[i, p(i)]``, on the CPU."""
    optimize = require("scipy.optimize", extra="molecules")
    return torch.as_tensor(optimize.linear_sum_assignment(cost.cpu().numpy())[1])


def _cost(x0: Value, eps: Value, field: str | None, process: Process) -> Tensor:
    """|x - e|^2 for every pair, without the norms, which every permutation shares."""
    chosen = deciding(x0, eps, field, process)
    check_one_size(x0)
    a, b = (v.reshape(batch_of(x0), -1) for v in (chosen.x0, chosen.eps))
    return -2 * a @ b.mT


def _numbers(cond: Condition, batch: int) -> Tensor:
    """The condition as a matrix (B, D), missing values marked in columns of their own."""
    parts = list(cond.values()) if isinstance(cond, Mapping) else [cond]
    if isinstance(cond, State) or not all(isinstance(v, Tensor) for v in parts):
        raise ValueError(
            "Conditional pairs by the condition: give a tensor (B, ...), or a mapping of tensors; "
            "without conditions use Permutation"
        )
    flat = torch.cat([v.detach().double().reshape(batch, -1) for v in parts], 1)
    return torch.cat([flat.nan_to_num(0.0), flat.isnan().double()], 1)


def check_one_size(x: Value) -> None:
    """Raise ``ValueError`` unless every field has samples of one shape: all are permuted, so none may be ragged."""
    for name, v in x.items() if isinstance(x, State) else [(None, x)]:
        if not _of_one_size(v, layout_of(x, name)):
            raise ValueError(
                "samples of one size can trade their noise, these have several; bucket the batch by size, or use "
                "Independent, or Align without pair"
            )


def _of_one_size(x: Tensor, layout: Layout) -> bool:
    padded = isinstance(layout, Masked) and not bool(layout.mask.all())
    return not padded and len(set(layout.parts(x))) == 1


def permute(x: Value, perm: Tensor) -> Value:
    """The samples of ``x`` in another order, its context as it is; samples must have one size."""
    if not isinstance(x, State):
        return take(x, perm)
    return x.replace({k: x.layout(k).take(v, perm)[0] for k, v in x.items()})


def _device(x: Value) -> torch.device:
    return next(iter(x.values())).device if isinstance(x, State) else x.device
