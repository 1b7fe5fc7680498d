r"""How one number per sample meets a field.

A batch of fields can be dense (images), padded with a mask (molecules, sequences) or packed end to end with an
index (graphs). The rest of the library never asks which: it only calls the operations below.

* ``expand``: a number, a number per sample or a number per element becomes broadcastable to the field;
* ``reduce``: a field becomes one number per sample, over its valid entries;
* ``count``: how many valid entries each sample has;
* ``pool`` and ``spread``: sum over the points of a sample, features kept, and its way back (a centre of mass needs
  both);
* ``clean``: padding becomes zero;
* ``parts`` and ``assemble``: the samples' own shapes, and a field from their own parts (noise needs both);
* ``take`` and ``cat``: samples out of a batch, and batches one after another.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

__all__ = ["Dense", "Layout", "Masked", "Packed"]


class Layout(ABC):
    """Where the samples of a batch lie inside a field."""

    @property
    @abstractmethod
    def batch(self) -> int:
        """Number of samples, B."""

    @abstractmethod
    def expand(self, c: Tensor, x: Tensor) -> Tensor:
        """Make ``c``, of shape (), (B,) or one number per element, broadcastable to the field ``x``.

        A per-sample number never broadcasts on the trailing dimension, whatever the shapes.
        Raises ``ValueError`` if the shape of ``c`` is none of the three.
        """

    @abstractmethod
    def pool(self, x: Tensor) -> Tensor:
        """Sum over the valid points of each sample, features kept: (B, *features)."""

    @abstractmethod
    def spread(self, pooled: Tensor, x: Tensor) -> Tensor:
        """Give every point of ``x`` its sample's row of ``pooled`` (B, *features): broadcastable to ``x``."""

    @abstractmethod
    def points(self, x: Tensor) -> Tensor:
        """Number of valid points in each sample, (B,), integer."""

    @abstractmethod
    def clean(self, x: Tensor) -> Tensor:
        """``x`` with every entry that belongs to no sample set to zero."""

    @abstractmethod
    def parts(self, x: Tensor) -> list[tuple[int, ...]]:
        """The shape of each sample's own valid part of ``x``: the same in every layout of the same sample."""

    @abstractmethod
    def assemble(self, parts: Sequence[Tensor], like: Tensor) -> Tensor:
        """Build a field like ``like`` from the samples' own parts (shapes as ``parts`` says)."""

    @abstractmethod
    def take(self, x: Tensor, index: Tensor) -> tuple[Tensor, Layout]:
        """The samples that ``index`` (M,) names, in its order and as often as it does, and their layout."""

    @abstractmethod
    def cat(self, fields: Sequence[Tensor], layouts: Sequence[Layout]) -> tuple[Tensor, Layout]:
        """Batches of this kind of layout one after another, and their layout."""

    def reduce(self, x: Tensor, how: Literal["sum", "mean"] = "sum") -> Tensor:
        """Sum or mean of each sample's valid entries, (B,)."""
        total = self.pool(x)
        total = total.flatten(1).sum(1) if total.ndim > 1 else total
        return total if how == "sum" else total / self.count(x).clamp(min=1).to(total.dtype)

    def count(self, x: Tensor) -> Tensor:
        """Number of valid entries (points times features) in each sample, (B,), integer."""
        return self.points(x) * self._features(x)

    @abstractmethod
    def _features(self, x: Tensor) -> int:
        """Numbers per point."""


def _unsqueeze(c: Tensor, ndim: int) -> Tensor:
    return c.reshape(c.shape + (1,) * (ndim - c.ndim))


def _leading(c: Tensor, x: Tensor, batch: int) -> Tensor:
    """``c`` aligned with the leading dimensions of ``x``, never with the trailing ones."""
    if c.ndim == 0:
        return c
    if c.shape != x.shape[: c.ndim]:
        raise ValueError(
            f"c has shape {tuple(c.shape)}, which is neither (), nor one number per sample ({batch},), nor one per "
            f"element of a field of shape {tuple(x.shape)}"
        )
    return _unsqueeze(c, x.ndim)


@final
@dataclass(frozen=True)
class Dense(Layout):
    """Every sample is one slice of the leading dimension: (B, ...). The points, where asked for, lie on axis 1."""

    size: int

    @property
    def batch(self) -> int:
        return self.size

    def expand(self, c: Tensor, x: Tensor) -> Tensor:
        return _leading(c, x, self.batch)

    def pool(self, x: Tensor) -> Tensor:
        return x.sum(1) if x.ndim > 1 else x

    def spread(self, pooled: Tensor, x: Tensor) -> Tensor:
        return pooled.unsqueeze(1)

    def points(self, x: Tensor) -> Tensor:
        n = x.shape[1] if x.ndim > 1 else 1
        return torch.full((self.size,), n, device=x.device)

    def clean(self, x: Tensor) -> Tensor:
        return x

    def parts(self, x: Tensor) -> list[tuple[int, ...]]:
        return [tuple(x.shape[1:])] * self.size

    def assemble(self, parts: Sequence[Tensor], like: Tensor) -> Tensor:
        return torch.stack(list(parts)).to(like.device)

    def take(self, x: Tensor, index: Tensor) -> tuple[Tensor, Layout]:
        return x[index], Dense(len(index))

    def cat(self, fields: Sequence[Tensor], layouts: Sequence[Layout]) -> tuple[Tensor, Layout]:
        return torch.cat(list(fields)), Dense(sum(layout.batch for layout in layouts))

    def _features(self, x: Tensor) -> int:
        return x[0, 0].numel() if x.ndim > 1 and self.size and x.shape[1] else 1


@final
@dataclass(frozen=True, eq=False)
class Masked(Layout):
    """Padded fields (B, N, ...) with a boolean mask (B, N): True where a point exists.

    Raises ``ValueError`` if the mask is not boolean and two-dimensional, or a sample has no point.
    """

    mask: Tensor

    def __post_init__(self) -> None:
        if self.mask.dtype != torch.bool or self.mask.ndim != 2:
            raise ValueError(
                f"mask must be boolean of shape (B, N), got {self.mask.dtype} {tuple(self.mask.shape)}"
            )
        if not bool(self.mask.any(1).all()):
            raise ValueError("mask leaves a sample without any point; drop empty samples first")

    @property
    def batch(self) -> int:
        return self.mask.shape[0]

    def expand(self, c: Tensor, x: Tensor) -> Tensor:
        return _leading(c, x, self.batch)

    def pool(self, x: Tensor) -> Tensor:
        return self.clean(x).sum(1)

    def spread(self, pooled: Tensor, x: Tensor) -> Tensor:
        return pooled.unsqueeze(1)

    def points(self, x: Tensor) -> Tensor:
        return self.mask.sum(1)

    def clean(self, x: Tensor) -> Tensor:
        # masked_fill rather than a product: 0 * inf and 0 * nan would leak from the padding
        return x.masked_fill(~_unsqueeze(self.mask, x.ndim), 0)

    def parts(self, x: Tensor) -> list[tuple[int, ...]]:
        return [(n, *x.shape[2:]) for n in self.mask.sum(1).tolist()]

    def assemble(self, parts: Sequence[Tensor], like: Tensor) -> Tensor:
        packed = torch.cat(list(parts)).to(like.device)
        out = torch.zeros(like.shape, dtype=packed.dtype, device=like.device)
        out[self.mask] = packed
        return out

    def take(self, x: Tensor, index: Tensor) -> tuple[Tensor, Layout]:
        return x[index], Masked(self.mask[index])

    def cat(self, fields: Sequence[Tensor], layouts: Sequence[Layout]) -> tuple[Tensor, Layout]:
        masks = [layout.mask for layout in layouts if isinstance(layout, Masked)]
        widest = max(mask.shape[1] for mask in masks)

        def widen(x: Tensor) -> Tensor:
            return torch.cat([x, x.new_zeros(len(x), widest - x.shape[1], *x.shape[2:])], 1)

        return torch.cat([widen(x) for x in fields]), Masked(torch.cat([widen(m) for m in masks]))

    def _features(self, x: Tensor) -> int:
        return x[0, 0].numel()


@final
@dataclass(frozen=True, eq=False)
class Packed(Layout):
    """Fields (A, ...) whose rows belong to the sample that ``index`` (A,) names: PyG's ``batch`` vector.

    ``size`` is the number of samples. Raises ``ValueError`` if the index is not sorted, leaves the range
    0..size-1, or leaves a sample empty (a per-sample and a per-row number could not be told apart then).
    """

    index: Tensor
    size: int

    def __post_init__(self) -> None:
        if self.index.ndim != 1 or self.index.is_floating_point():
            raise ValueError(
                f"index must be a vector of integers, got {self.index.dtype} {tuple(self.index.shape)}"
            )
        if self.index.numel() and bool((self.index.diff() < 0).any()):
            raise ValueError(
                "index must be sorted: keep the rows of one sample together, samples in order"
            )
        counts = self._counts()
        if counts.numel() != self.size or not bool((counts > 0).all()):
            raise ValueError(
                f"index must name every sample from 0 to {self.size - 1} at least once and no other"
            )

    def _counts(self) -> Tensor:
        return torch.bincount(self.index, minlength=self.size)

    @property
    def batch(self) -> int:
        return self.size

    def expand(self, c: Tensor, x: Tensor) -> Tensor:
        if c.shape == (self.size,):
            return _unsqueeze(c[self.index.to(c.device)], x.ndim)
        return _leading(c, x, self.batch)

    def pool(self, x: Tensor) -> Tensor:
        # as sums along an axis do: integers do not overflow, half precision is summed in single precision
        exact = x.is_floating_point() or x.is_complex()
        wide = x.to(torch.promote_types(x.dtype, torch.float32) if exact else torch.long)
        total = wide.new_zeros((self.size, *x.shape[1:])).index_add(0, self.index, wide)
        return total.to(x.dtype) if exact else total

    def spread(self, pooled: Tensor, x: Tensor) -> Tensor:
        return pooled[self.index]

    def points(self, x: Tensor) -> Tensor:
        return self._counts()

    def clean(self, x: Tensor) -> Tensor:
        return x

    def parts(self, x: Tensor) -> list[tuple[int, ...]]:
        return [(n, *x.shape[1:]) for n in self._counts().tolist()]

    def assemble(self, parts: Sequence[Tensor], like: Tensor) -> Tensor:
        return torch.cat(list(parts)).to(like.device)

    def take(self, x: Tensor, index: Tensor) -> tuple[Tensor, Layout]:
        counts = self._counts()
        taken = counts[index]
        owner = torch.repeat_interleave(torch.arange(len(index), device=x.device), taken)
        within = torch.arange(len(owner), device=x.device) - (taken.cumsum(0) - taken)[owner]
        rows = (counts.cumsum(0) - counts)[index][owner] + within
        return x[rows], Packed(owner, len(index))

    def cat(self, fields: Sequence[Tensor], layouts: Sequence[Layout]) -> tuple[Tensor, Layout]:
        indices, size = [], 0
        for layout in layouts:
            assert isinstance(layout, Packed)
            indices.append(layout.index + size)
            size += layout.size
        return torch.cat(list(fields)), Packed(torch.cat(indices), size)

    def _features(self, x: Tensor) -> int:
        return x[0].numel()
