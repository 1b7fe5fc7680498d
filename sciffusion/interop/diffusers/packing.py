"""What becomes of a field before a network of theirs gets it, and of what the network returns."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

__all__ = ["FramesFirst", "Packing", "Patches", "Singles"]


class Packing(ABC):
    """The way from a field (B, C, ...) to what a network takes, and back."""

    @abstractmethod
    def pack(self, x: Tensor) -> Any:
        """What the network is given for a field."""

    @abstractmethod
    def unpack(self, out: Any, like: Tensor) -> Tensor:
        """The field that a network's output is, in the space of ``like``."""


@final
@dataclass(frozen=True)
class Patches(Packing):
    """Fields (B, C, ...) as sequences of patches (B, L, C * patch), channels slowest within a patch.

    ``sizes`` are those of a patch along the field's dimensions.
    """

    sizes: tuple[int, ...]

    @property
    def size(self) -> int:
        """Points of a patch."""
        return math.prod(self.sizes)

    def grid(self, x: Tensor) -> tuple[int, ...]:
        """How many patches there are along each dimension.

        Raises ``ValueError`` unless the field has as many dimensions and they are multiples of the sizes.
        """
        shape = tuple(x.shape[2:])
        if len(shape) != len(self.sizes) or any(
            n % p for n, p in zip(shape, self.sizes, strict=True)
        ):
            raise ValueError(
                f"the field must have shape (B, C, ...) with {len(self.sizes)} dimensions after the channels that are "
                f"multiples of {self.sizes}, got {tuple(x.shape)}"
            )
        return tuple(n // p for n, p in zip(shape, self.sizes, strict=True))

    def pack(self, x: Tensor) -> Tensor:
        """(B, C, ...) to (B, L, C * patch)."""
        d, grid = len(self.sizes), self.grid(x)
        parts = [n for pair in zip(grid, self.sizes, strict=True) for n in pair]
        split = x.reshape(*x.shape[:2], *parts)
        order = (0, *range(2, 2 + 2 * d, 2), 1, *range(3, 3 + 2 * d, 2))
        return split.permute(order).flatten(1 + d).flatten(1, d)

    def unpack(self, tokens: Tensor, like: Tensor) -> Tensor:
        """The inverse, to the space of ``like``; the number of channels is whatever the tokens hold."""
        d, grid = len(self.sizes), self.grid(like)
        split = tokens.reshape(len(tokens), *grid, -1, *self.sizes)
        order = (0, 1 + d, *(i for k in range(d) for i in (1 + k, 2 + d + k)))
        return split.permute(order).reshape(len(tokens), -1, *like.shape[2:])


@final
@dataclass(frozen=True)
class FramesFirst(Packing):
    """Films (B, C, T, H, W) as (B, T, C, H, W)."""

    def pack(self, x: Tensor) -> Tensor:
        """Frames before channels."""
        return x.transpose(1, 2)

    def unpack(self, out: Tensor, like: Tensor) -> Tensor:
        """Channels before frames."""
        return out.transpose(1, 2)


@final
@dataclass(frozen=True)
class Singles(Packing):
    """Images (B, C, H, W) as a list of films of one frame, (C, 1, H, W) each."""

    def pack(self, x: Tensor) -> list[Tensor]:
        """A film for each sample."""
        return list(x.unsqueeze(2).unbind())

    def unpack(self, out: list[Tensor], like: Tensor) -> Tensor:
        """The batch of their only frames."""
        return torch.stack(list(out)).squeeze(2)
