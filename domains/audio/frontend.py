"""What a model may see of waveforms: log-mel frames, complex spectra, or the latents of a codec."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from torch import Tensor

from .codec import AudioCodec, CodecConfig
from .mel import LogMel
from .recovery import GriffinLim, Recovery
from .stft import ComplexSTFT

if TYPE_CHECKING:
    from .adapter import ModelConfig

__all__ = ["LatentConfig", "SpectrumConfig", "analysis", "synthesis"]


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

    def frames(self, samples: int) -> int:
        """The number of frames of a waveform: ``ceil(samples / hop)``."""
        return self.stft.framing.frames(samples)


def analysis(config: ModelConfig, codec: AudioCodec | None) -> Callable[[Tensor], Tensor]:
    """What takes waveforms (B, N) to frames (B, width, T)."""
    spectrum = config.spectrum
    if codec is not None:
        return codec.latents
    if spectrum is not None:
        return lambda waves: spectrum.stft.encode(waves).flatten(1, 2)
    return LogMel(config.spectrogram).encode


def synthesis(
    config: ModelConfig, codec: AudioCodec | None, recovery: Recovery | None
) -> Callable[[Tensor, Tensor], Tensor]:
    """What takes frames (B, width, T) and their mask (B, T) to waveforms (B, T * hop)."""
    spectrum = config.spectrum
    if codec is not None:
        return codec.waves
    if spectrum is not None:
        return lambda frames, mask: spectrum.stft.decode(frames.unflatten(1, (2, -1)), mask=mask)
    return recovery or GriffinLim(config.spectrogram)
