"""Vectors that tell a network about numbers: noise levels, lead times, times of day."""

from __future__ import annotations

import math
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["FourierEmbedding", "NoiseLevel"]


@final
class FourierEmbedding(nn.Module):
    r"""Cosines and sines of a number at ``width / 2`` frequencies in geometric progression.

    .. math:: (\cos f_1 x, \dots, \sin f_1 x, \dots), \qquad f_i \in [2\pi / \text{longest}, 2\pi / \text{shortest}]

    Args:
        width: an even number of features.
        longest, shortest: periods, in the unit of x. Differences far below the shortest one are not resolved.
    """

    def __init__(self, width: int, longest: float, shortest: float) -> None:
        super().__init__()
        if width < 2 or width % 2:
            raise ValueError(f"width counts cosines and sines: an even number, not {width}")
        if not 0 < shortest < longest:
            raise ValueError(f"periods run from shortest {shortest} to longest {longest}")
        self.pairs, self.longest, self.shortest = width // 2, longest, shortest

    def forward(self, x: Tensor) -> Tensor:
        """(...,) to (..., width), in float32 at least."""
        x = x.to(torch.promote_types(x.dtype, torch.float32)).unsqueeze(-1)
        place = torch.arange(self.pairs, dtype=x.dtype, device=x.device) / max(self.pairs - 1, 1)
        angles = x * (2 * math.pi / self.longest * (self.longest / self.shortest) ** place)
        return torch.cat((angles.cos(), angles.sin()), -1)


@final
class NoiseLevel(nn.Module):
    """A two-layer network of the log-SNR, and of any further numbers per sample: the embedding of a denoiser.

    Args:
        width: size E of the embedding.
        features: number k of further numbers per sample; 0 for none. They should be of order one.
        fourier: number of Fourier features of the log-SNR, whose periods run from 100 down to 1.
    """

    def __init__(self, width: int, features: int = 0, *, fourier: int = 64) -> None:
        super().__init__()
        self.features = features
        self.fourier = FourierEmbedding(fourier, 100.0, 1.0)
        self.first, self.last = nn.Linear(fourier + features, width), nn.Linear(width, width)

    def forward(self, log_snr: Tensor, features: Tensor | None = None) -> Tensor:
        """(B,) and (B, k) to (B, E). Raises ``ValueError`` if features are missing or too many."""
        given = 0 if features is None else features.shape[-1]
        if given != self.features:
            raise ValueError(f"features must be (B, {self.features}), got {given} per sample")
        dtype = self.first.weight.dtype
        x = self.fourier(log_snr).to(dtype)
        if features is not None:
            x = torch.cat((x, features.to(dtype)), -1)
        return self.last(F.silu(self.first(x)))
