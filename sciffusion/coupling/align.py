r"""Equivariant optimal transport: the noise of a point cloud is turned and renumbered towards its data.

For points :math:`x_n` and noise :math:`e_n` in d dimensions,

.. math:: \min_{R \in SO(d),\;\pi \in S_N} \sum_n \|x_n - R\,e_{\pi(n)}\|^2 .

For a fixed :math:`\pi` the best rotation follows from a singular value decomposition (Kabsch, 1976); for a fixed R the
best permutation is an assignment. Both together are found by turns, which ends in a local minimum.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, permutations, product
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciffusion.coupling.base import Coupling, Deciding, deciding
from sciffusion.coupling.transport import assign, check_one_size, permute
from sciffusion.denoiser import Condition
from sciffusion.errors import require
from sciffusion.layout import Dense, Layout, Masked, Packed
from sciffusion.process import FieldProcess, Gaussian, Jump, Process
from sciffusion.space import Categorical, Euclidean, ZeroCoM
from sciffusion.state import Value, layout_of

__all__ = ["Align", "kabsch"]

Array = NDArray[np.float64]


@final
@dataclass(frozen=True)
class Align(Coupling):
    """The noise of every sample, turned and its points renumbered to lie nearest to the data.

    Each sample by itself, of any size; with ``pair``, samples of one size then also trade their noise, at the cost of
    aligning all pairs of the batch. The point permutation moves the noise of every field that lives on the same points
    (same layout, same number of points) and whose noise is the same for all points; the rotation moves ``field`` alone.

    Sampling from the plain prior stays right if the network is equivariant under what is aligned, or if the data are:
    turn (and renumber) every sample at random, and the aligned noise has the law of the prior again.

    Args:
        field: the field of points (points x d) whose distances count; None for a plain tensor.
        rotate: turn the noise (proper rotations, about the origin).
        permute: renumber the points of the noise (scipy, from the extra ``molecules``, solves it).
        pair: let samples trade their noise, too.
        starts: from how many rotations the alternation starts, when it does both: the identity, then the rotations that
            carry the axes onto each other (24 in three dimensions, as many as there are). The best end is kept.

    Source: Klein, Krämer & Noé, Equivariant flow matching, 2023; Song et al., 2023. Raises ``ValueError`` if nothing is
    to be aligned, and for a field that has no points, or whose noise is not the same in every direction or for every
    point; with ``pair``, for samples of different sizes.
    """

    field: str | None = None
    rotate: bool = True
    permute: bool = True
    pair: bool = False
    starts: int = 1

    def __post_init__(self) -> None:
        if not (self.rotate or self.permute):
            raise ValueError("rotate and permute are both False: use Independent or Permutation")
        if self.starts < 1:
            raise ValueError(f"starts must be at least 1, got {self.starts}")

    def __call__(self, x0: Value, eps: Value, cond: Condition, process: Process) -> Value:
        chosen = deciding(x0, eps, self.field, process)
        self._check(chosen)
        if self.pair:
            check_one_size(x0)
            eps = permute(eps, assign(self._costs(chosen)).to(chosen.eps.device))
            chosen = deciding(x0, eps, self.field, process)
        moved = dict(process.fields(eps))
        if self.permute:
            source = self._source(chosen).to(chosen.eps.device)
            for name, e in moved.items():
                layout = layout_of(eps, name)
                if _same_points(layout, e, chosen) and _exchangeable(
                    process.field(name), e, layout
                ):
                    flat = e.reshape(len(source), *e.shape[_axes(layout) :])
                    moved[name] = flat[source].reshape(e.shape)
        if self.rotate:
            e, layout = moved[self.field], chosen.layout
            turn = kabsch(chosen.x0, layout.clean(e.double()), layout)
            moved[self.field] = (layout.spread(turn.to(e), e) @ e[..., None])[..., 0]
        return process.rebuild(eps, moved)

    def _check(self, chosen: Deciding) -> None:
        e, space = chosen.eps, chosen.process.space
        if e.ndim != _axes(chosen.layout) + 1:
            raise ValueError(
                f"field {self.field!r} of shape {tuple(e.shape)} does not hold points: it needs one vector per point"
            )
        if self.rotate and not _isotropic(space):
            raise ValueError(
                f"the noise of field {self.field!r} is not the same in every direction; set rotate=False"
            )
        if self.permute and not _exchangeable(chosen.process, e, chosen.layout):
            raise ValueError(
                f"the noise of field {self.field!r} is not the same for every point; set permute=False"
            )

    def _source(self, chosen: Deciding) -> Tensor:
        """For every point of the batch, counted through, the one whose noise it gets."""
        source = np.arange(chosen.eps.shape[:-1].numel())
        for rows, (a, b) in zip(_rows(chosen), _pairs(chosen), strict=True):
            source[rows] = rows[self._align(a, b)[0]]
        return torch.from_numpy(source)

    def _align(self, a: Array, b: Array) -> tuple[NDArray[np.int64], float]:
        """The order in which to take the points of ``b``, and the sum of x . R e that is reached with it."""
        optimize = require("scipy.optimize", extra="molecules")

        def order(e: Array) -> tuple[NDArray[np.int64], float]:
            overlap = a @ e.T
            rows, pi = optimize.linear_sum_assignment(overlap, maximize=True)
            return pi, float(overlap[rows, pi].sum())

        if not self.rotate:
            return order(b)
        best = (np.arange(len(a)), -np.inf)
        for turn in islice(_turns(a.shape[1]), self.starts):
            before = -np.inf
            while True:
                pi, _ = order(b @ turn.T)
                turn, common = _turn(a.T @ b[pi])
                if common > best[1]:
                    best = (pi, common)
                if common - before <= 1e-12 * abs(common):
                    break
                before = common
        return best

    def _costs(self, chosen: Deciding) -> Tensor:
        """Minus twice the overlap of every pair of samples, aligned: their squared distance without the norms."""
        n = chosen.layout.batch
        if self.permute:
            parts = _pairs(chosen)
            common = [[self._align(a, b)[1] for _, b in parts] for a, _ in parts]
            return -2 * torch.tensor(common, dtype=torch.float64)
        a, b = (v.reshape(n, -1, v.shape[-1]) for v in (chosen.x0, chosen.eps))
        u, s, vh = torch.linalg.svd(torch.einsum("inc,jnd->ijcd", a, b))
        s[..., -1] *= torch.linalg.det(u @ vh).sign()
        return -2 * s.sum(-1)


def kabsch(x: Tensor, e: Tensor, layout: Layout) -> Tensor:
    """The proper rotation R of each sample, (B, d, d), that brings ``R e`` nearest to ``x``; padding must be zero."""
    u, _, vh = torch.linalg.svd(layout.pool(x[..., :, None] * e[..., None, :]))
    sign = torch.linalg.det(u @ vh).sign()
    u = torch.cat([u[..., :-1], u[..., -1:] * sign[:, None, None]], -1)
    return u @ vh


def _turn(product_: Array) -> tuple[Array, float]:
    """The rotation R with the largest trace of R^T ``product_``, and that trace."""
    u, s, vh = np.linalg.svd(product_)
    sign = 1.0 if np.linalg.det(u @ vh) > 0 else -1.0
    u[:, -1] *= sign
    return u @ vh, float(s[:-1].sum() + sign * s[-1])


def _turns(d: int) -> Iterator[Array]:
    """The proper rotations that carry the axes onto each other; the identity first."""
    for order in permutations(range(d)):
        for signs in product((1.0, -1.0), repeat=d):
            turn = np.eye(d)[list(order)] * np.array(signs)[:, None]
            if np.linalg.det(turn) > 0:
                yield turn


def _axes(layout: Layout) -> int:
    """How many leading axes of a field count its points."""
    return 1 if isinstance(layout, Packed) else 2


def _rows(chosen: Deciding) -> list[NDArray[np.int64]]:
    """The points of each sample, by their place in the batch, padding counted."""
    layout, shape = chosen.layout, chosen.eps.shape[: _axes(chosen.layout)]
    rows = np.arange(shape.numel()).reshape(shape)
    if isinstance(layout, Packed):
        return np.split(rows, np.cumsum(layout.points(chosen.eps).cpu().numpy())[:-1])
    if isinstance(layout, Masked):
        return [row[m] for row, m in zip(rows, layout.mask.cpu().numpy(), strict=True)]
    return list(rows)


def _pairs(chosen: Deciding) -> list[tuple[Array, Array]]:
    """The points and the noise of every sample."""
    a, b = (v.cpu().reshape(-1, v.shape[-1]).numpy() for v in (chosen.x0, chosen.eps))
    return [(a[rows], b[rows]) for rows in _rows(chosen)]


def _same_points(layout: Layout, e: Tensor, chosen: Deciding) -> bool:
    """Whether the noise ``e`` of a field belongs to the points that decide."""
    if isinstance(layout, Packed) and isinstance(chosen.layout, Packed):
        return torch.equal(layout.index, chosen.layout.index)
    if isinstance(layout, Masked) and isinstance(chosen.layout, Masked):
        return torch.equal(layout.mask, chosen.layout.mask)
    dense = isinstance(layout, Dense) and isinstance(chosen.layout, Dense)
    return dense and e.shape[:2] == chosen.eps.shape[:2]


def _exchangeable(process: FieldProcess, e: Tensor, layout: Layout) -> bool:
    """Whether all points have the same noise, independently but for a common mean."""
    if isinstance(process, Jump):
        return isinstance(process.space, Categorical)
    if not (isinstance(process, Gaussian) and isinstance(process.space, Euclidean | ZeroCoM)):
        return False
    scale = process.space.scale
    return not isinstance(scale, Tensor) or scale.ndim <= e.ndim - _axes(layout)


def _isotropic(space: object) -> bool:
    """Whether the noise is the same in every direction."""
    if not isinstance(space, Euclidean | ZeroCoM):
        return False
    return not isinstance(space.scale, Tensor) or space.scale.numel() == 1
