"""Molecules in dense blocks: how a network that looks at all pairs of atoms sees a batch.

A network over pairs wants a rectangle (molecules, atoms, atoms), without padding, because its cost is the number of
pairs. :class:`Blocks` rearranges the atoms of any layout into *slots*: molecules of one size lie together and form one
block without a mask. Where launching many small kernels costs more than padding (a GPU), all molecules form a single
padded block instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciffusion.layout import Layout, Masked, Packed

from .base import to_packed, to_padded

__all__ = ["Blocks", "join"]


@final
@dataclass(frozen=True, eq=False)
class Blocks:
    """Atoms of a batch in slots, S in all; use :meth:`of`.

    Attributes:
        layout: the layout that the fields come from.
        shapes: (molecules, atoms) of every block, in the order of the slots.
        molecule: the molecule of each slot, (S,).
        rows: the row of the field (padded dimensions flattened) in each slot, (S,); None if that is
            the same order.
        mask: whether a slot holds an atom, (S,); None if all do.
    """

    layout: Layout
    shapes: tuple[Sequence[int], ...]
    molecule: Tensor
    rows: Tensor | None = None
    mask: Tensor | None = None

    @staticmethod
    def of(layout: Layout, x: Tensor, by_size: bool) -> Blocks:
        """Arrange the molecules of ``layout``, of which ``x`` is a per-atom field.

        ``by_size``: one block for every number of atoms; otherwise a single padded one.
        """
        if not isinstance(layout, Masked | Packed):
            return Blocks(layout, (x.shape[:2],), _rectangle(x.shape[:2], x.device))
        if not by_size:
            mask = layout.mask if isinstance(layout, Masked) else to_padded(x[:, :0], layout)[1]
            molecule = _rectangle(mask.shape, x.device)
            return Blocks(layout, (mask.shape,), molecule, mask=mask.flatten())
        counts = layout.points(x).to(x.device)
        order = counts.argsort(stable=True)
        counts_in_order = counts[order]
        size, number = torch.unique_consecutive(counts_in_order, return_counts=True)
        shapes = tuple(zip(number.tolist(), size.tolist(), strict=True))
        place = _repeat(counts_in_order)  # of its molecule in the order, for each slot
        molecule = order[place]
        first = counts_in_order.cumsum(0) - counts_in_order
        inside = torch.arange(len(place), device=x.device) - first[place]
        rows = (counts.cumsum(0) - counts)[molecule] + inside
        if isinstance(layout, Masked):
            rows = layout.mask.flatten().nonzero().squeeze(1)[rows]
        in_place = len(shapes) == 1 and len(rows) == x[..., 0].numel()
        return Blocks(layout, shapes, molecule, rows=None if in_place else rows)

    def __len__(self) -> int:
        """Number of slots, S."""
        return sum(self.sizes)

    def parts(self, pairs: int) -> Iterator[Blocks]:
        """Cut between molecules into parts of about ``pairs`` pairs; one molecule is never cut."""
        shapes: list[tuple[int, int]] = []
        start, count = 0, 0
        for total, n in self.shapes:
            left = total
            while left:
                g = min(left, round((pairs - count) / n**2))
                if g < 1 and shapes:  # full
                    yield self._part(start, shapes)
                    start, shapes, count = start + sum(g * n for g, n in shapes), [], 0
                    continue
                g = max(g, 1)
                shapes.append((g, n))
                left, count = left - g, count + g * n**2
        if shapes:
            yield self._part(start, shapes)

    def _part(self, start: int, shapes: list[tuple[int, int]]) -> Blocks:
        here = slice(start, start + sum(g * n for g, n in shapes))
        rows = None if self.rows is None else self.rows[here]
        mask = None if self.mask is None else self.mask[here]
        return Blocks(self.layout, tuple(shapes), self.molecule[here], rows, mask)

    @property
    def sizes(self) -> list[int]:
        """Slots of every block."""
        return [g * n for g, n in self.shapes]

    @property
    def pairs(self) -> int:
        """Number of pairs, P, self-pairs and those with empty slots included."""
        return sum(g * n * n for g, n in self.shapes)

    def take(self, x: Tensor) -> Tensor:
        """A per-atom field in slots, (S, *features); zero where a slot is empty."""
        if self.mask is not None:
            return to_padded(x, self.layout)[0].flatten(0, 1)
        flat = x if isinstance(self.layout, Packed) else x.flatten(0, 1)
        return flat if self.rows is None else flat[self.rows]

    def give(self, values: Tensor, like: Tensor) -> Tensor:
        """The way back: (S, *features) in the layout of the field ``like``; zero where there is no atom."""
        features = values.shape[1:]
        if self.mask is not None:
            padded = values.reshape(*self.shapes[0], *features)
            if isinstance(self.layout, Packed):
                return to_packed(padded, self.mask.reshape(self.shapes[0]), self.layout)
            return self.layout.clean(padded)
        points = like.shape[:-1]
        if self.rows is not None:
            empty = values.new_zeros((points.numel(), *features))
            values = empty.index_copy(0, self.rows, values)
        return values.reshape(*points, *features)

    def split(self, values: Tensor) -> Iterator[Tensor]:
        """The blocks (molecules, atoms, *features) of (S, *features)."""
        for part, shape in zip(cut(values, self.sizes), self.shapes, strict=True):
            yield part.reshape(*shape, *values.shape[1:])

    def split_pairs(self, values: Tensor) -> Iterator[Tensor]:
        """The blocks (molecules, atoms, atoms, *features) of all pairs in a row, self-pairs included."""
        parts = cut(values, [g * n * n for g, n in self.shapes])
        for part, (g, n) in zip(parts, self.shapes, strict=True):
            yield part.reshape(g, n, n, *values.shape[1:])

    def pair_mask(self) -> Tensor:
        """Which pairs in a row are two different atoms, boolean, (P, 1)."""
        masks = []
        for g, n in self.shapes:
            other = ~torch.eye(n, dtype=torch.bool, device=self.molecule.device)
            if self.mask is not None:
                other = other & self.mask.view(g, n, 1) & self.mask.view(g, 1, n)
            masks.append(other.expand(g, n, n).reshape(-1, 1))
        return join(masks)

    def differences(self, x: Tensor) -> Tensor:
        """x_i - x_j for all pairs in a row: (S, k) -> (P, k)."""
        blocks = [b.unsqueeze(2) - b.unsqueeze(1) for b in self.split(x)]
        return join([b.flatten(0, 2) for b in blocks])

    def sum_pairs(self, values: Tensor, weight: Tensor) -> Tensor:
        """sum_j weight_ij values_ij: (P, k) and (P, 1) -> (S, k)."""
        sums = [
            torch.matmul(w.transpose(-1, -2), v).squeeze(2).flatten(0, 1)
            for v, w in zip(self.split_pairs(values), self.split_pairs(weight), strict=True)
        ]
        return join(sums)

    def slots_of(self, packed_rows: Tensor) -> Tensor:
        """The slot of atoms that are named by their row in the packed order."""
        if self.mask is not None:
            return self.mask.nonzero().squeeze(1)[packed_rows]
        if self.rows is None:
            return packed_rows
        return self.rows.argsort()[packed_rows]

    def pairs_of(self, first: Tensor, second: Tensor) -> Tensor:
        """Where the pairs of two slots lie among all pairs in a row (see :meth:`split_pairs`)."""
        sizes = torch.tensor([n for _, n in self.shapes], device=first.device)
        slots = torch.tensor(self.sizes, device=first.device)
        block = torch.bucketize(first, slots.cumsum(0), right=True)
        first_slot = (slots.cumsum(0) - slots)[block]
        first_pair = ((slots * sizes).cumsum(0) - slots * sizes)[block]
        n = sizes[block]
        return first_pair + (first - first_slot) * n + (second - first_slot) % n

    def edges(self) -> tuple[Tensor, Tensor]:
        """Slots (to, from) of all ordered pairs of different atoms of one molecule."""
        slot = torch.arange(len(self.molecule), device=self.molecule.device)
        to, origin, mask = [], [], self.pair_mask().squeeze(1)
        for block, (g, n) in zip(self.split(slot), self.shapes, strict=True):
            to.append(block.unsqueeze(2).expand(g, n, n).reshape(-1))
            origin.append(block.unsqueeze(1).expand(g, n, n).reshape(-1))
        return join(to)[mask], join(origin)[mask]


def join(parts: Sequence[Tensor]) -> Tensor:
    """``torch.cat`` that does not copy a single part."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def cut(values: Tensor, sizes: list[int]) -> Sequence[Tensor]:
    """``Tensor.split`` whose backward pass does not copy a single part."""
    return [values] if len(sizes) == 1 else values.split(sizes)


def _rectangle(shape: torch.Size, device: torch.device) -> Tensor:
    """The molecule of each slot of a single block (molecules, atoms)."""
    return torch.arange(shape[0], device=device).unsqueeze(1).expand(shape).reshape(-1)


def _repeat(counts: Tensor) -> Tensor:
    """0, 0, ..., 1, 1, ...: each number as often as its count says."""
    return torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
