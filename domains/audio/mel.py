r"""Log-mel spectrograms: what models of sound see.

The Fourier magnitudes of each frame (:class:`~sciffusion.domains.audio.stft.Framing`) are summed in triangles that
overlap by half and are evenly spaced on the mel scale, :math:`2595\log_{10}(1 + f/700)` (O'Shaughnessy, 1987); the
natural logarithm is taken of what is above ``floor``. This is what torchaudio's ``MelSpectrogram`` makes of the same
frames with ``power=1``, and needs nothing but torch, so a model works wherever its weights load.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import cache
from typing import final

import torch
from torch import Tensor

from .stft import Framing

__all__ = ["LogMel", "MelConfig", "filters"]


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
        _ = self.framing
        if not 0 <= self.fmin < self.highest <= self.rate / 2:
            raise ValueError(
                f"need 0 <= fmin < fmax <= rate / 2 = {self.rate / 2}, got {self.fmin} and {self.highest}"
            )

    @property
    def framing(self) -> Framing:
        """The Fourier transform below."""
        return Framing(self.n_fft, self.hop)

    @property
    def highest(self) -> float:
        """The upper end of the last triangle, in Hz."""
        return self.rate / 2 if self.fmax is None else self.fmax

    @property
    def reach(self) -> int:
        """Samples before and after its own hop that a frame sees."""
        return self.framing.reach

    def frames(self, samples: int) -> int:
        """The number of frames of a waveform: ``ceil(samples / hop)``."""
        return self.framing.frames(samples)

    def require_same(self, other: MelConfig, what: str) -> None:
        """Raise ``ValueError`` that lists what differs, unless ``other``, that of ``what``, is this one.

        A model and a vocoder of different spectrograms make noise together, not an error.
        """
        mine, theirs = (asdict(c) | {"fmax": c.highest} for c in (self, other))
        differ = [f"{k} {theirs[k]} instead of {v}" for k, v in mine.items() if theirs[k] != v]
        if differ:
            raise ValueError(f"{what} is made for other spectrograms: {', '.join(differ)}")


@cache
def filters(config: MelConfig) -> Tensor:
    """The triangles, (mels, n_fft // 2 + 1), each of height 1."""
    low, high = (2595 * math.log10(1 + f / 700) for f in (config.fmin, config.highest))
    corners = torch.linspace(low, high, config.mels + 2, dtype=torch.float64)
    hertz = 700 * (10 ** (corners / 2595) - 1)
    count = config.n_fft // 2 + 1
    bins = torch.arange(count, dtype=torch.float64) * (config.rate / config.n_fft)
    rise = (bins - hertz[:-2, None]) / hertz.diff()[:-1, None]
    fall = (hertz[2:, None] - bins) / hertz.diff()[1:, None]
    return torch.minimum(rise, fall).clamp(min=0).float()


@final
@dataclass(frozen=True)
class LogMel:
    """Waveforms to log-mel spectrograms; differentiable."""

    config: MelConfig

    def encode(self, waves: Tensor) -> Tensor:
        """(B, N) at the configuration's rate to (B, mels, T), T = ``ceil(N / hop)``.

        Pad a batch of several lengths with zeros: the first ``frames(N)`` frames of a clip are then its own.

        Raises ``ValueError`` for another shape, or without any sample.
        """
        spectrum = self.config.framing.analyse(waves)
        # the norm has no gradient at zero, where the floor takes over
        power = spectrum.real.square() + spectrum.imag.square()
        magnitude = power.clamp(min=1e-20).sqrt()
        return (filters(self.config).to(magnitude) @ magnitude).clamp(min=self.config.floor).log()
