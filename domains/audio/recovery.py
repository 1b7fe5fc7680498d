"""Waveforms out of log-mel spectrograms, which know nothing of phases."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import final

import torch
from torch import Tensor, nn

from sciffusion.layout import Dense
from sciffusion.noise import Noise

from .mel import MelConfig, filters
from .stft import Framing

__all__ = ["GriffinLim", "Recovery", "banded", "consistent", "envelope", "magnitudes"]


@dataclass(frozen=True)
class Recovery(ABC):
    """What makes waveforms of the log-mel spectrograms of one configuration."""

    config: MelConfig

    @abstractmethod
    def __call__(self, mel: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, mels, T) to (B, T * hop), each clip by itself.

        ``mask`` (B, T) says which frames there are (the first ones of each clip, None: all): a clip is then what it
        would be alone, and silent beyond its end. Raises ``ValueError`` for other shapes.
        """

    def magnitude(self, mel: Tensor, mask: Tensor | None = None) -> Tensor:
        """Magnitudes of single frequencies, (B, mels, T) to (B, n_fft // 2 + 1, T); ``mask`` as above."""
        self._check(mel, mask)
        return magnitudes(self.config, mel)

    def _check(self, mel: Tensor, mask: Tensor | None) -> None:
        mels = self.config.mels
        if mel.ndim != 3 or mel.shape[1] != mels or not mel.shape[2]:
            raise ValueError(f"mel must be (B, {mels}, T), got {tuple(mel.shape)}")
        if mask is not None and mask.shape != mel[:, 0].shape:
            raise ValueError(
                f"mask must be {tuple(mel[:, 0].shape)}, one entry for each frame, got {tuple(mask.shape)}"
            )


@final
@dataclass(frozen=True)
class GriffinLim(Recovery):
    """Phases that fit the magnitudes, found by going to and fro (Griffin & Lim, 1984), with momentum.

    Magnitudes of single frequencies are the least squares solution of the triangles. The first phases are random, the
    same for every clip. Momentum: Perraudin, Balazs & Søndergaard, A fast Griffin-Lim algorithm, 2013.
    """

    iterations: int = 32
    momentum: float = 0.99
    seed: int = 0

    def __post_init__(self) -> None:
        if self.iterations < 1 or not 0 <= self.momentum < 1:
            raise ValueError(
                f"need iterations >= 1 and 0 <= momentum < 1, got {self.iterations} and {self.momentum}"
            )

    def __call__(self, mel: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, mels, T) to (B, T * hop); see :class:`Recovery`."""
        return self.waves(self.magnitude(mel, mask), mask)

    def waves(self, magnitude: Tensor, mask: Tensor | None = None) -> Tensor:
        """Waveforms (B, T * hop) of magnitudes (B, n_fft // 2 + 1, T)."""
        if mask is not None:
            magnitude = magnitude.where(mask[:, None], 0)
        # frame by frame, so that those of a short clip are those of a long one
        start = torch.empty(1, magnitude.shape[2], magnitude.shape[1])
        phase = 2 * math.pi * Noise(self.seed).uniform(start, Dense(1)).mT.to(magnitude)
        spectrum = torch.polar(magnitude, phase.expand_as(magnitude).contiguous())
        framing = self.config.framing
        return consistent(framing, magnitude, spectrum, self.iterations, self.momentum, mask)


def magnitudes(config: MelConfig, mel: Tensor) -> Tensor:
    """Magnitudes of single frequencies (B, n_fft // 2 + 1, T) of log-mels (B, mels, T): the least squares solution."""
    return (_inverse(config).to(mel) @ mel.exp()).clamp(min=0)


def envelope(config: MelConfig, mel: Tensor) -> Tensor:
    """Magnitudes (B, n_fft // 2 + 1, T) of log-mels (B, mels, T) as means of the triangles around: smooth, never zero.

    Where there is no triangle (at 0 Hz, above ``fmax``) they are those of the nearest.
    """
    weights = filters(config).to(mel)
    widths, above = weights.sum(1), weights.sum(0)
    # a triangle between two frequencies of the transform sees nothing
    heights = mel.exp() / widths.clamp(min=1e-9)[:, None]
    seen = torch.where(above > 0)[0]
    means = (weights.mT @ heights)[:, seen] / above[seen, None]
    every = torch.arange(len(above), device=seen.device)
    return means[:, torch.searchsorted(seen, every).clamp(max=len(seen) - 1)]


def consistent(
    framing: Framing,
    magnitude: Tensor,
    spectrum: Tensor,
    iterations: int = 32,
    momentum: float = 0.99,
    mask: Tensor | None = None,
    hold: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """The waveform (B, T * hop) that Griffin-Lim finds for magnitudes (B, F, T) from the phases of a spectrum.

    ``hold`` is a projection: it takes a waveform and puts in what is known of it, in every iteration but the last.
    """
    share, before = momentum / (1 + momentum), torch.zeros_like(spectrum)
    for _ in range(iterations):
        waves = framing.synthesise(spectrum, mask)
        fitting = framing.analyse(waves if hold is None else hold(waves))
        spectrum = fitting - share * before
        spectrum = magnitude * spectrum / spectrum.abs().clamp(min=1e-9)
        before = fitting
    return framing.synthesise(spectrum, mask)


def banded(framing: Framing, magnitude: Tensor, wave: Tensor, share: float) -> Tensor:
    """Waveforms (n, N) of magnitudes (n, F, T) above a share of the rate; up to it they are a given wave (N,).

    Phases are found by Griffin-Lim with the lower band held fast.
    """

    def hold(waves: Tensor) -> Tensor:
        return _below(wave, waves, share)

    own = framing.analyse(wave[None]).to(magnitude.device)
    low = torch.arange(magnitude.shape[1], device=magnitude.device) <= share * framing.n_fft
    magnitude = torch.where(low[:, None], own.abs(), magnitude)
    start = torch.empty(1, magnitude.shape[2], magnitude.shape[1])
    phase = 2 * math.pi * Noise(0).uniform(start, Dense(1)).mT.to(magnitude)
    spectrum = torch.polar(magnitude, phase.expand_as(magnitude).contiguous())
    spectrum = torch.where(low[:, None], own, spectrum)
    return hold(consistent(framing, magnitude, spectrum, hold=hold)[:, : len(wave)])


def _below(wave: Tensor, made: Tensor, share: float) -> Tensor:
    """Made waveforms (n, N) with the frequencies of a wave (up to N,) up to a share of the rate."""
    size = made.shape[1]
    padded = nn.functional.pad(wave, (0, size - len(wave))).to(made)
    mine, theirs = torch.fft.rfft(padded), torch.fft.rfft(made)
    low = torch.arange(theirs.shape[1], device=made.device) <= share * size
    return torch.fft.irfft(torch.where(low, mine, theirs), size)


@cache
def _inverse(config: MelConfig) -> Tensor:
    # Triangles at low frequencies may share all that they see. What tells them apart is then arithmetic at best, and
    # would magnify the errors of made spectrograms without bound: singular values end at a twentieth of the largest.
    return torch.linalg.pinv(filters(config).double(), rtol=0.05).float()
