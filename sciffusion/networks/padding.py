r"""What lies beyond the edge of a grid: the rule by which convolutions continue a field.

A padding is a frozen value that a network is given; it knows the last ``d`` axes of a tensor (B, C, \*spatial).
Zeros are left to the convolution itself, which needs no copy for them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Circular", "Padding", "SpherePadding", "Zeros"]


class Padding(ABC):
    """Continues a field beyond the edges of its grid."""

    def __call__(self, x: Tensor, n: int, signs: Tensor | None = None) -> Tensor:
        """The field (B, C, *spatial) with ``n`` more points on each side of every spatial axis.

        Args:
            x: the field.
            n: number of points, at most the size of the smallest axis.
            signs: +1 or -1 for every channel, (C,): the factor that a component of a vector takes on beyond a pole.
        """
        open_ends = [n if zero else 0 for zero in self.zeros(x.ndim - 2)]
        x = self.fill(x, n, signs)
        return F.pad(x, [m for m in reversed(open_ends) for _ in range(2)]) if any(open_ends) else x

    @abstractmethod
    def zeros(self, dims: int) -> tuple[bool, ...]:
        """For each of ``dims`` spatial axes, whether zeros lie beyond its ends."""

    @abstractmethod
    def fill(self, x: Tensor, n: int, signs: Tensor | None = None) -> Tensor:
        """Pad the axes that are continued with something else than zeros, and only these."""

    def halved(self, size: Sequence[int]) -> Padding:
        """The rule on the grid of every second point (0, 2, 4, ...) of a grid of this size."""
        return self


@final
@dataclass(frozen=True)
class Zeros(Padding):
    """Zeros beyond every edge."""

    def zeros(self, dims: int) -> tuple[bool, ...]:
        return (True,) * dims

    def fill(self, x: Tensor, n: int, signs: Tensor | None = None) -> Tensor:
        return x


@final
@dataclass(frozen=True)
class Circular(Padding):
    """Some axes are circles; beyond the ends of the others lie zeros.

    Args:
        axes: the axes that are circles, counted from the end: -1 is the last one.
    """

    axes: tuple[int, ...] = (-1,)

    def __post_init__(self) -> None:
        if not self.axes or any(axis >= 0 for axis in self.axes):
            raise ValueError(f"axes counts from the end, like (-1,), not {self.axes}")

    def zeros(self, dims: int) -> tuple[bool, ...]:
        if min(self.axes) < -dims:
            raise ValueError(f"axes {self.axes} do not exist in {dims} dimension(s)")
        return tuple(axis - dims not in self.axes for axis in range(dims))

    def fill(self, x: Tensor, n: int, signs: Tensor | None = None) -> Tensor:
        for axis in self.axes:
            x = _wrap(x, n, axis)
        return x


@final
@dataclass(frozen=True)
class SpherePadding(Padding):
    """A latitude-longitude grid on the sphere, or a part of it: the last two axes are rows and columns.

    A row that reaches a pole is followed by the rows that it meets there: those of the same latitudes on the other
    side, half a circle away. (With an odd number of columns half a circle is half a column too far: the mean of the two
    nearest columns is taken.) Where there is neither a pole nor a circle the edge is repeated. Axes before the last two
    (levels, times) are continued by zeros.

    Args:
        circular: the last column is followed by the first.
        poles: whether the first and the last row reach their pole.
        pole_rows: whether the first and the last row lie on their pole; then that row is not repeated.
    """

    circular: bool = True
    poles: tuple[bool, bool] = (True, True)
    pole_rows: tuple[bool, bool] = (False, False)

    def __post_init__(self) -> None:
        if any(self.poles) and not self.circular:
            raise ValueError("a grid reaches over a pole only if its longitude is circular")
        if any(on and not over for on, over in zip(self.pole_rows, self.poles, strict=True)):
            raise ValueError(f"pole_rows {self.pole_rows} need poles, which are {self.poles}")

    def zeros(self, dims: int) -> tuple[bool, ...]:
        if dims < 2:
            raise ValueError(f"a sphere needs rows and columns, not {dims} dimension(s)")
        return (True,) * (dims - 2) + (False, False)

    def fill(self, x: Tensor, n: int, signs: Tensor | None = None) -> Tensor:
        north, south = (self._beyond(x, n, end, signs) for end in (0, 1))
        x = torch.cat((north, x, south), -2)
        return _wrap(x, n, -1) if self.circular else _repeat(x, n, -1)

    def halved(self, size: Sequence[int]) -> SpherePadding:
        north, south = self.pole_rows
        last = south and size[-2] % 2 == 1  # else the last row is left out
        return SpherePadding(self.circular, self.poles, (north, last))

    def _beyond(self, x: Tensor, n: int, end: int, signs: Tensor | None) -> Tensor:
        """The rows before the first (``end`` 0) or after the last one (1)."""
        height, width = x.shape[-2:]
        if not self.poles[end]:
            edge = x.narrow(-2, end * (height - 1), 1)
            return edge.expand(*x.shape[:-2], n, width)
        skip = 1 if self.pole_rows[end] and height > n else 0
        rows = x.narrow(-2, height - n - skip if end else skip, n).flip(-2)
        if signs is not None:
            rows = rows * signs.view(-1, *(1,) * (x.ndim - 2))
        half, odd = divmod(width, 2)
        turned = rows.roll(half, -1)
        return torch.lerp(turned, rows.roll(half + 1, -1), 0.5) if odd else turned


def _wrap(x: Tensor, n: int, axis: int) -> Tensor:
    size = x.shape[axis]
    if n > size:
        return x.index_select(axis, torch.arange(-n, size + n, device=x.device) % size)
    return torch.cat((x.narrow(axis, size - n, n), x, x.narrow(axis, 0, n)), axis)


def _repeat(x: Tensor, n: int, axis: int) -> Tensor:
    shape = list(x.shape)
    shape[axis] = n
    first, last = x.narrow(axis, 0, 1), x.narrow(axis, x.shape[axis] - 1, 1)
    return torch.cat((first.expand(shape), x, last.expand(shape)), axis)
