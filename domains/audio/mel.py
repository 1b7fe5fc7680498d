r"""Log-mel spectrograms: what models of sound see.

Frame i looks at ``n_fft`` samples around the middle of samples i * hop to (i + 1) * hop, weighted by Hann's window;
beyond the ends there is silence. Its Fourier magnitudes are summed in triangles that overlap by half and are evenly
spaced on the mel scale, :math:`2595\log_{10}(1 + f/700)` (O'Shaughnessy, 1987); the natural logarithm is taken of what
is above ``floor``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["LogMel", "MelConfig", "filters", "window"]


@final
@dataclass(frozen=True)
class MelConfig:
    """A log-mel spectrogram.

    ``rate``, ``fmin`` and ``fmax`` are in Hz (None: half the rate), ``n_fft`` and ``hop`` in samples.

    Raises ``ValueError`` for numbers that make no spectrogram.
    """

    rate: int = 8000
    n_fft: int = 256
    hop: int = 64
    mels: int = 64
    fmin: float = 0.0
    fmax: float | None = None
    floor: float = 1e-5

    def __post_init__(self) -> None:
        if min(self.rate, self.n_fft, self.hop, self.mels) < 1 or self.floor <= 0:
            raise ValueError(f"rate, n_fft, hop, mels and floor must be positive, got {self}")
        if self.hop > self.n_fft or (self.n_fft - self.hop) % 2:
            raise ValueError(
                f"n_fft must exceed hop by an even number, got n_fft {self.n_fft} and hop {self.hop}"
            )
        if not 0 <= self.fmin < self.highest <= self.rate / 2:
            raise ValueError(
                f"need 0 <= fmin < fmax <= rate / 2 = {self.rate / 2}, got {self.fmin} and {self.highest}"
            )

    @property
    def highest(self) -> float:
        """The upper end of the last triangle, in Hz."""
        return self.rate / 2 if self.fmax is None else self.fmax

    def frames(self, samples: int) -> int:
        """The number of frames of a waveform: ``ceil(samples / hop)``."""
        return -(-samples // self.hop)


@cache
def filters(config: MelConfig) -> Tensor:
    """The triangles, (mels, n_fft / 2 + 1), each of height 1."""
    low, high = (2595 * math.log10(1 + f / 700) for f in (config.fmin, config.highest))
    corners = torch.linspace(low, high, config.mels + 2, dtype=torch.float64)
    hertz = 700 * (10 ** (corners / 2595) - 1)
    bins = torch.linspace(0, config.rate / 2, config.n_fft // 2 + 1, dtype=torch.float64)
    rise = (bins - hertz[:-2, None]) / hertz.diff()[:-1, None]
    fall = (hertz[2:, None] - bins) / hertz.diff()[1:, None]
    return torch.minimum(rise, fall).clamp(min=0).float()


@cache
def window(n_fft: int) -> Tensor:
    """Hann's window, periodic."""
    return torch.hann_window(n_fft)


@final
@dataclass(frozen=True)
class LogMel:
    """Waveforms to log-mel spectrograms; differentiable."""

    config: MelConfig

    def encode(self, waves: Tensor) -> Tensor:
        """(B, N) at the configuration's rate to (B, mels, T), T = ``ceil(N / hop)``.

        Raises ``ValueError`` for another shape, or without any sample.
        """
        if waves.ndim != 2 or not waves.shape[1]:
            raise ValueError(
                f"waves must be (B, N) with at least one sample, got {tuple(waves.shape)}"
            )
        c = self.config
        total = (c.frames(waves.shape[1]) - 1) * c.hop + c.n_fft
        left = (c.n_fft - c.hop) // 2
        padded = F.pad(waves, (left, total - left - waves.shape[1]))
        spectrum = torch.stft(
            padded,
            c.n_fft,
            c.hop,
            window=window(c.n_fft).to(waves),
            center=False,
            return_complex=True,
        )
        # the norm has no gradient at zero, where the floor takes over
        power = spectrum.real.square() + spectrum.imag.square()
        magnitude = power.clamp(min=1e-20).sqrt()
        return (filters(c).to(magnitude) @ magnitude).clamp(min=c.floor).log()
