"""Vectors that tell a network about numbers: noise levels, lead times, times of day."""

from __future__ import annotations

import math
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import zeroed

__all__ = ["FourierEmbedding", "GuidanceScale", "NoiseLevel"]


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


@final
class GuidanceScale(nn.Module):
    """A two-layer network of a guidance scale, to be added to the embedding of a noise level; zero at initialisation.

    A network that is told the scale learns to make in one call what guidance makes in two (Meng et al. 2023), see
    :class:`~sciffusion.objective.DistilledGuidance`. A trained one that gets it starts from what it knows.

    Args:
        width: size E of the embedding.
        fourier: number of Fourier features of ``log(1 + scale)``, whose periods run from 10 down to 0.3.
    """

    def __init__(self, width: int, *, fourier: int = 32) -> None:
        super().__init__()
        self.fourier = FourierEmbedding(fourier, 10.0, 0.3)
        self.first, self.last = nn.Linear(fourier, width), zeroed(nn.Linear(width, width))

    def forward(self, scale: Tensor) -> Tensor:
        """(B,) to (B, E). Raises ``ValueError`` for a negative scale."""
        if not torch.compiler.is_compiling() and bool((scale < 0).any()):
            raise ValueError(f"scale must not be negative, got {float(scale.min())}")
        x = self.fourier(scale.log1p()).to(self.first.weight.dtype)
        return self.last(F.silu(self.first(x)))
