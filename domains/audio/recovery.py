"""Waveforms out of log-mel spectrograms, which know nothing of phases."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from .mel import MelConfig, filters, window

__all__ = ["GriffinLim"]


@final
@dataclass(frozen=True)
class GriffinLim:
    """Phases that fit the magnitudes, found by going to and fro (Griffin & Lim, 1984), with momentum.

    Magnitudes of single frequencies are the least squares solution of the triangles. The first phases are random, the
    same for every clip. Momentum: Perraudin, Balazs & Søndergaard, A fast Griffin-Lim algorithm, 2013.
    """

    config: MelConfig
    iterations: int = 32
    momentum: float = 0.99

    def __call__(self, mel: Tensor) -> Tensor:
        """(B, mels, T) to (B, T * hop). Raises ``ValueError`` for another number of mels."""
        c = self.config
        if mel.ndim != 3 or mel.shape[1] != c.mels:
            raise ValueError(f"mel must be (B, {c.mels}, T), got {tuple(mel.shape)}")
        magnitude = (_inverse(c).to(mel) @ mel.exp()).clamp(min=0)
        generator = torch.Generator().manual_seed(0)
        phase = 2 * math.pi * torch.rand(magnitude.shape[1:], generator=generator)
        spectrum = torch.polar(magnitude, phase.to(mel).expand_as(magnitude))
        share, before = self.momentum / (1 + self.momentum), torch.zeros_like(spectrum)
        for _ in range(self.iterations):
            fitting = torch.stft(
                self._wave(spectrum),
                c.n_fft,
                c.hop,
                window=window(c.n_fft).to(mel),
                center=False,
                return_complex=True,
            )
            spectrum = fitting - share * before
            spectrum = magnitude * spectrum / spectrum.abs().clamp(min=1e-9)
            before = fitting
        left = (c.n_fft - c.hop) // 2
        return self._wave(spectrum)[:, left : left + mel.shape[2] * c.hop]

    def _wave(self, spectrum: Tensor) -> Tensor:
        """The waveform whose spectrum is nearest, with what lies beyond the ends."""
        c, frames = self.config, spectrum.shape[2]
        shape = window(c.n_fft).to(spectrum.real)
        pieces = torch.fft.irfft(spectrum, c.n_fft, dim=1) * shape[:, None]
        total = (frames - 1) * c.hop + c.n_fft
        weight = shape.square()[None, :, None].expand(1, -1, frames)

        def laid(x: Tensor) -> Tensor:
            return F.fold(x, (1, total), (1, c.n_fft), stride=(1, c.hop))[:, 0, 0]

        return laid(pieces) / laid(weight).clamp(min=1e-3)


@cache
def _inverse(config: MelConfig) -> Tensor:
    return torch.linalg.pinv(filters(config).double()).float()
