"""Log-mel spectrograms in units that a network likes: zero mean and unit variance at every frequency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

__all__ = ["Standard"]


@final
@dataclass(frozen=True, eq=False)
class Standard:
    """Mean and standard deviation of every mel bin, (mels,)."""

    mean: Tensor
    std: Tensor

    @classmethod
    def fit(cls, frames: Sequence[Tensor]) -> Standard:
        """Those of all frames (T_i, mels) of some clips; bins that never change get the deviation 1."""
        x = torch.cat(list(frames)).double()
        # rounded, for the last digits of a sum depend on the number of threads
        mean = (x.mean(0) * 2**16).round() / 2**16
        std = ((x - mean).square().mean(0).sqrt() * 2**16).round() / 2**16
        return cls(mean.float(), torch.where(std > 1e-3, std, 1.0).float())

    def encode(self, frames: Tensor) -> Tensor:
        """Log-mel frames (..., mels) in units of the model."""
        return (frames - self.mean.to(frames)) / self.std.to(frames)

    def decode(self, x: Tensor) -> Tensor:
        """The inverse of :meth:`encode`."""
        return x * self.std.to(x) + self.mean.to(x)
