r"""Rotary positions (Su et al. 2021) on grids of any dimension, whose axes may be circles.

Pairs of a head's channels turn by an angle proportional to the position along one axis, so that the product of a query
and a key depends on the difference of their positions only. On a circle of n points the frequencies are integer
multiples of :math:`2\pi/n`: the difference then counts modulo n, and no point is the first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

__all__ = ["Rotary", "rotate"]

_SLOWEST = 100.0  # an open axis turns by one radian in 1 to 100 tokens
_FASTEST = 64  # a circle is turned around up to 64 times


@final
class Rotary(nn.Module):
    """The angles of a grid of tokens. All axes have the same number of pairs; what is left over does not turn.

    Args:
        width: channels of a head.
        circular: for each axis whether it is a circle.
    """

    turns: Tensor

    def __init__(self, width: int, circular: Sequence[bool]) -> None:
        super().__init__()
        self.pairs = width // 2 // len(circular)
        if width % 2 or not self.pairs:
            raise ValueError(
                f"heads of width {width} cannot hold positions on {len(circular)} axes: "
                f"an even width of at least {2 * len(circular)} can"
            )
        self.circular, self.idle = tuple(circular), width // 2 - self.pairs * len(circular)
        # integers, so that a network in bfloat16 keeps them
        self.register_buffer("turns", torch.tensor(_integers(self.pairs)), persistent=False)

    def forward(self, steps: Sequence[Tensor], sizes: Sequence[float]) -> Tensor:
        """Complex numbers of modulus one, (L, width / 2), L the product of the axes' lengths.

        Args:
            steps: the positions along every axis, in tokens; they bring the precision.
            sizes: the circumference of every circle, in tokens; of no account for the others.
        """
        shape, axes = [len(at) for at in steps], []
        for axis, (at, size) in enumerate(zip(steps, sizes, strict=True)):
            if self.circular[axis]:
                speed = 2 * math.pi / size * self.turns.to(at.dtype)
            else:
                speed = _SLOWEST ** -(
                    torch.arange(self.pairs, dtype=at.dtype, device=at.device) / self.pairs
                )
            here = [n if i == axis else 1 for i, n in enumerate(shape)]
            axes.append((at[:, None] * speed).view(*here, -1).expand(*shape, -1))
        axes.append(axes[0].new_zeros(*shape, self.idle))
        angles = torch.cat(axes, -1).flatten(0, -2)
        return torch.complex(angles.cos(), angles.sin())


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn the pairs (0, 1), (2, 3), ... of the last axis of x, (..., d), by complex numbers that broadcast to them.

    In the precision of the rotation; the result is in that of x.
    """
    pairs = torch.view_as_complex(x.to(rotation.real.dtype).unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotation).flatten(-2).to(x.dtype)


def _integers(n: int) -> list[int]:
    """n rising integers from 1, as geometric as integers can be."""
    found: list[int] = []
    for i in range(n):
        wanted = round(_FASTEST ** (i / max(n - 1, 1)))
        found.append(max(wanted, found[-1] + 1 if found else 1))
    return found
