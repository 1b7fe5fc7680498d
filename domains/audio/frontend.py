"""What a model may see of waveforms: log-mel frames, complex spectra, or the latents of a codec."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from torch import Tensor

from .codec import AudioCodec, CodecConfig
from .mel import LogMel, MelConfig
from .recovery import GriffinLim, Recovery
from .stft import ComplexSTFT, Framing

if TYPE_CHECKING:
    from .adapter import ModelConfig

__all__ = ["Frontend", "LatentConfig", "SpectrumConfig", "Synthesis", "analysis", "synthesis"]


@final
@dataclass(frozen=True)
class LatentConfig:
    """Latents of one codec, which its ``fingerprint`` names: those of another mean nothing to a model of these."""

    codec: CodecConfig
    fingerprint: str


@final
@dataclass(frozen=True)
class SpectrumConfig:
    """Complex spectra of waveforms at ``rate`` Hz: a frame holds all real parts, then all imaginary ones.

    They lose nothing, so a model of them needs no recovery; but it must learn the phases, too.
    """

    rate: int = 8000
    stft: ComplexSTFT = ComplexSTFT()

    @property
    def hop(self) -> int:
        """Samples of a frame."""
        return self.stft.hop

    @property
    def width(self) -> int:
        """Numbers of a frame."""
        return 2 * (self.stft.n_fft // 2 + 1)

    @property
    def framing(self) -> Framing:
        """The Fourier transform below."""
        return self.stft.framing

    @property
    def reach(self) -> int:
        """Samples before and after its own hop that a frame sees."""
        return self.framing.reach

    def frames(self, samples: int) -> int:
        """The number of frames of a waveform: ``ceil(samples / hop)``."""
        return self.framing.frames(samples)


Frontend = MelConfig | CodecConfig | SpectrumConfig
"""What makes frames of waveforms: its ``rate``, its ``hop``, and how far beyond that a frame sees, ``reach``."""


def analysis(config: ModelConfig, codec: AudioCodec | None) -> Callable[[Tensor], Tensor]:
    """What takes waveforms (B, N) to frames (B, width, T)."""
    spectrum = config.spectrum
    if codec is not None:
        return codec.latents
    if spectrum is not None:
        return lambda waves: spectrum.stft.encode(waves).flatten(1, 2)
    return LogMel(config.spectrogram).encode


@final
@dataclass(frozen=True)
class Synthesis:
    """What makes waveforms (B, T * hop) of frames (B, width, T) and their mask (B, T; None: all there are).

    ``magnitude`` says which magnitudes (B, n_fft // 2 + 1, T) of the transform ``framing`` frames stand for.
    """

    framing: Framing
    waves: Callable[[Tensor, Tensor | None], Tensor]
    magnitude: Callable[[Tensor], Tensor]


def synthesis(
    config: ModelConfig, codec: AudioCodec | None, recovery: Recovery | None
) -> Synthesis:
    """The way back from frames; ``recovery`` is that of log-mels (None: Griffin-Lim)."""
    spectrum = config.spectrum
    if codec is not None:
        return Synthesis(codec.config.framing, codec.waves, codec.magnitude)
    if spectrum is not None:
        stft = spectrum.stft

        def waves(frames: Tensor, mask: Tensor | None) -> Tensor:
            return stft.decode(frames.unflatten(1, (2, -1)), mask=mask)

        def magnitude(frames: Tensor) -> Tensor:
            return stft.framing.analyse(waves(frames, None)).abs()

        return Synthesis(stft.framing, waves, magnitude)
    recovery = recovery or GriffinLim(config.spectrogram)
    return Synthesis(recovery.config.framing, recovery, recovery.magnitude)
