r"""Short-time Fourier transforms of waveforms, and waveforms out of them.

Frame i looks at ``n_fft`` samples around the middle of samples i * hop to (i + 1) * hop, weighted by Hann's window;
beyond the ends there is silence. So a waveform of N samples has exactly ``ceil(N / hop)`` frames, and those of a
waveform that is padded with zeros begin with its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["ComplexSTFT", "Framing"]


@cache
def _window(n_fft: int) -> Tensor:
    return torch.hann_window(n_fft)


@final
@dataclass(frozen=True)
class Framing:
    """The transform with windows of ``n_fft`` samples, one every ``hop``.

    Raises ``ValueError`` unless ``n_fft`` is ``hop`` or exceeds it by an even number.
    """

    n_fft: int
    hop: int

    def __post_init__(self) -> None:
        if self.hop < 1 or self.hop > self.n_fft or (self.n_fft - self.hop) % 2:
            raise ValueError(
                f"n_fft must exceed hop by an even number, got n_fft {self.n_fft} and hop {self.hop}"
            )

    def frames(self, samples: int) -> int:
        """The number of frames of a waveform: ``ceil(samples / hop)``."""
        return -(-samples // self.hop)

    def analyse(self, waves: Tensor) -> Tensor:
        """(B, N) to its complex spectra (B, n_fft // 2 + 1, T); differentiable.

        Raises ``ValueError`` for another shape, or without any sample.
        """
        if waves.ndim != 2 or not waves.shape[1]:
            raise ValueError(
                f"waves must be (B, N) with at least one sample, got {tuple(waves.shape)}"
            )
        total = (self.frames(waves.shape[1]) - 1) * self.hop + self.n_fft
        padded = F.pad(waves, (self.reach, total - self.reach - waves.shape[1]))
        window = _window(self.n_fft).to(waves)
        return torch.stft(
            padded, self.n_fft, self.hop, window=window, center=False, return_complex=True
        )

    def synthesise(self, spectrum: Tensor, mask: Tensor | None = None) -> Tensor:
        """Spectra (B, n_fft // 2 + 1, T) to the waveform (B, T * hop) whose own are nearest to them.

        For spectra of a waveform that is the waveform (Griffin & Lim, 1984). ``mask`` (B, T) says which frames there
        are; the samples of other frames' hops are zero.
        """
        window = _window(self.n_fft).to(spectrum.real)
        alive = torch.ones_like(spectrum.real[:, :1]) if mask is None else mask[:, None].to(window)
        pieces = torch.fft.irfft(spectrum, self.n_fft, dim=1) * (window[:, None] * alive)
        weight = self._laid(window.square()[:, None] * alive)
        waves = self._laid(pieces) / weight.clamp(min=1e-3)
        return waves * alive[:, 0].repeat_interleave(self.hop, 1)

    @property
    def reach(self) -> int:
        """Samples before and after its own hop that a frame sees."""
        return (self.n_fft - self.hop) // 2

    def _laid(self, pieces: Tensor) -> Tensor:
        """Windows (B, n_fft, T), each at its place, added up."""
        frames = pieces.shape[2]
        total = (frames - 1) * self.hop + self.n_fft
        added = F.fold(pieces, (1, total), (1, self.n_fft), stride=(1, self.hop))[:, 0, 0]
        return added[:, self.reach : self.reach + frames * self.hop]


@final
@dataclass(frozen=True)
class ComplexSTFT:
    r"""Waveforms as compressed complex spectra, :math:`\beta |z|^a e^{i \arg z}`, and back without loss.

    Models of spectra like magnitudes of one order (Richter et al., Speech Enhancement and Dereverberation with
    Diffusion-Based Generative Models, 2023). ``exponent`` is a, ``scale`` is :math:`\beta`.

    Raises ``ValueError`` for a hop above half the window, from which no inverse is exact, and for an exponent outside
    (0, 1] or a scale that is not positive.
    """

    n_fft: int = 256
    hop: int = 64
    exponent: float = 0.5
    scale: float = 1.0

    def __post_init__(self) -> None:
        if 2 * self.hop > self.n_fft:
            raise ValueError(f"hop must be at most n_fft / 2 = {self.n_fft / 2}, got {self.hop}")
        if not 0 < self.exponent <= 1 or self.scale <= 0:
            raise ValueError(
                f"need 0 < exponent <= 1 and scale > 0, got {self.exponent} and {self.scale}"
            )
        _ = self.framing

    @property
    def framing(self) -> Framing:
        """The transform without compression."""
        return Framing(self.n_fft, self.hop)

    def encode(self, waves: Tensor) -> Tensor:
        """(B, N) to (B, 2, n_fft // 2 + 1, T): real and imaginary parts, T = ``ceil(N / hop)``."""
        z = torch.view_as_real(self.framing.analyse(waves)).movedim(-1, 1)
        return self.scale * self._rescaled(z, self.exponent)

    def decode(self, x: Tensor, samples: int | None = None, mask: Tensor | None = None) -> Tensor:
        """The inverse of :meth:`encode`, (B, samples) (None: T * hop); ``mask`` as in :meth:`Framing.synthesise`.

        Raises ``ValueError`` for another shape, or more samples than the frames hold.
        """
        bins = self.n_fft // 2 + 1
        if x.ndim != 4 or x.shape[1:3] != (2, bins):
            raise ValueError(f"x must be (B, 2, {bins}, T), got {tuple(x.shape)}")
        if samples is not None and not 0 < samples <= x.shape[3] * self.hop:
            raise ValueError(f"samples must be 1 to {x.shape[3] * self.hop}, got {samples}")
        z = self._rescaled(x / self.scale, 1 / self.exponent).movedim(1, -1).contiguous()
        return self.framing.synthesise(torch.view_as_complex(z), mask)[:, :samples]

    @staticmethod
    def _rescaled(z: Tensor, exponent: float) -> Tensor:
        """Magnitudes to a power, phases as they are; no gradient is infinite at zero."""
        size = z.square().sum(1, keepdim=True).clamp(min=1e-20).sqrt()
        return z * size ** (exponent - 1)
