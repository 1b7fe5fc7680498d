r"""The divergence of a vector field on a batch: exact, or estimated from a few products with its Jacobian.

The trace of :math:`J = \partial f/\partial x` on the space in which the field lives is :math:`\mathrm{tr}(JP)`, P being
any projection onto it: the trace over all entries for the function of the projected point, :math:`x\mapsto f(Px)`,
whose products are asked for here. One vector-Jacobian product serves the whole batch, since samples do not depend on
each other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciffusion.layout import Layout
from sciffusion.noise import Noise

__all__ = ["Divergence", "Exact", "Hutchinson", "HutchinsonPlusPlus", "Probes"]

Fields = Sequence[Tensor]
Products = Callable[[Fields], Fields]
"""From cotangents v to :math:`J^T v`, field by field."""


@final
class Probes:
    """The vectors of a batch of fields: ``width`` numbers for the largest sample."""

    def __init__(self, like: Fields, layouts: Sequence[Layout]) -> None:
        self.like, self.layouts = like, layouts
        self._places = []
        first = torch.zeros(layouts[0].batch, dtype=torch.long, device=like[0].device)
        for x, layout in zip(like, layouts, strict=True):
            valid = layout.clean(torch.ones_like(x, dtype=torch.bool))
            samples = torch.arange(layout.batch, device=x.device)
            owner = layout.expand(samples, x).expand(x.shape)[valid]
            count = layout.count(x)
            # in every layout the numbers of one sample follow those of the sample before
            slot = torch.arange(len(owner), device=x.device) - (count.cumsum(0) - count)[owner]
            self._places.append((valid, owner, slot + first[owner]))
            first = first + count
        self.width = int(first.max())

    def dot(self, a: Fields, b: Fields) -> Tensor:
        """The dot product of each sample, over all fields, (B,)."""
        parts = [l.reduce(x * y) for x, y, l in zip(a, b, self.layouts, strict=True)]
        return torch.stack(parts).sum(0)

    def normal(self, noise: Noise) -> list[Tensor]:
        """Standard normal numbers for every sample."""
        return [noise.normal(x, l) for x, l in zip(self.like, self.layouts, strict=True)]

    def flatten(self, v: Fields) -> Tensor:
        """The numbers of every sample as one row, padded with zeros, (B, width)."""
        rows = v[0].new_zeros(self.layouts[0].batch, self.width)
        for x, (valid, owner, slot) in zip(v, self._places, strict=True):
            rows[owner, slot] = x[valid]
        return rows

    def unflatten(self, rows: Tensor) -> list[Tensor]:
        """The fields of such rows."""
        out = []
        for x, (valid, owner, slot) in zip(self.like, self._places, strict=True):
            field = torch.zeros_like(x)
            field[valid] = rows[owner, slot]
            out.append(field)
        return out


class Divergence(ABC):
    """A way to take the trace of a Jacobian."""

    @abstractmethod
    def draw(self, probes: Probes, noise: Noise) -> list[list[Tensor]]:
        """The random vectors of a whole run: fixed along it, so that what is integrated is smooth."""

    @abstractmethod
    def trace(self, products: Products, probes: Probes, drawn: Sequence[Fields]) -> Tensor:
        """The trace of every sample, (B,)."""


@final
@dataclass(frozen=True)
class Exact(Divergence):
    """One product for each number of the largest sample; in fields of any rank, layout and number."""

    def draw(self, probes: Probes, noise: Noise) -> list[list[Tensor]]:
        eye = torch.eye(probes.width, dtype=probes.like[0].dtype, device=probes.like[0].device)
        return [probes.unflatten(row.expand(probes.layouts[0].batch, -1)) for row in eye]

    def trace(self, products: Products, probes: Probes, drawn: Sequence[Fields]) -> Tensor:
        parts = [probes.dot(products(e), e) for e in drawn]
        return torch.stack(parts).sum(0)


@final
@dataclass(frozen=True)
class Hutchinson(Divergence):
    r"""The mean of :math:`v^TJv` over ``probes`` standard normal vectors v; unbiased (Hutchinson, 1989)."""

    probes: int = 1

    def __post_init__(self) -> None:
        if self.probes < 1:
            raise ValueError(f"probes must be at least 1, got {self.probes}")

    def draw(self, probes: Probes, noise: Noise) -> list[list[Tensor]]:
        return [probes.normal(noise) for _ in range(self.probes)]

    def trace(self, products: Products, probes: Probes, drawn: Sequence[Fields]) -> Tensor:
        return torch.stack([probes.dot(products(v), v) for v in drawn]).mean(0)


@final
@dataclass(frozen=True)
class HutchinsonPlusPlus(Divergence):
    r"""Hutch++: exact on the range that J shows to a third of the ``probes``, Hutchinson's estimate on what is left.

    With Q an orthonormal basis of :math:`J^TS`: :math:`\mathrm{tr}(Q^TJ^TQ) + \mathrm{mean}\,g^T(I-QQ^T)J^T(I-QQ^T)g`.
    Exact as soon as Q spans the range; its variance falls with the square of the number of probes.
    Source: Meyer, Musco, Musco & Woodruff, 2021.
    """

    probes: int = 6

    def __post_init__(self) -> None:
        if self.probes < 3:
            raise ValueError(f"probes must be at least 3, got {self.probes}")

    def draw(self, probes: Probes, noise: Noise) -> list[list[Tensor]]:
        return [probes.normal(noise) for _ in range(2 * (self.probes // 3))]

    def trace(self, products: Products, probes: Probes, drawn: Sequence[Fields]) -> Tensor:
        k = len(drawn) // 2

        def times(v: Tensor) -> Tensor:
            """J^T applied to k vectors of every sample, (B, D, k)."""
            out = [probes.flatten(products(probes.unflatten(v[..., j]))) for j in range(v.shape[2])]
            return torch.stack(out, 2)

        q = torch.linalg.qr(times(torch.stack([probes.flatten(v) for v in drawn[:k]], 2))).Q
        known = (q * times(q)).sum((1, 2))
        g = torch.stack([probes.flatten(v) for v in drawn[k:]], 2)
        g = g - q @ (q.mT @ g)
        return known + (g * times(g)).sum((1, 2)) / k
