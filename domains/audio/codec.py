r"""A small autoencoder of sounds, and the latents that models may work on instead of spectrograms.

The encoder sees log-magnitudes of single frequencies, :math:`\log\max(|X|, \text{floor})`, and leaves phases out:
those of speech are next to unpredictable, so a model of latents that hold them learns nothing in a short time, and they
follow from the magnitudes of frames that overlap (Griffin & Lim, 1984). So the latent of a hop is what a spectrogram
says of it in fewer numbers, decoding makes the magnitudes first, and Griffin-Lim finds phases for these.

Encoder and decoder are the best linear ones (principal components) plus convolutions over frames that begin at zero, so
training starts from a codec that works already. The latent is a Gaussian whose prior weighs little, as in latent
diffusion (Rombach et al., 2022; Kingma & Welling, 2014). Nothing here is adversarial.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sciffusion.codec import Codec
from sciffusion.training import ModelFile, write_model

from .mel import MelConfig
from .recovery import GriffinLim
from .stft import Framing

__all__ = ["AudioCodec", "CodecConfig"]

_KIND = "audio-codec"


@final
@dataclass(frozen=True)
class CodecConfig:
    """A codec of waveforms at ``rate`` Hz: ``channels`` latent numbers for every ``hop`` samples.

    Windows have ``n_fft`` samples and magnitudes end at ``floor``. The encoder looks at ``context`` frames to either
    side; the decoder has ``depth`` blocks of ``width`` channels that look ``kernel // 2`` frames to either side each,
    and ends with ``iterations`` of Griffin-Lim.

    Raises ``ValueError`` for numbers that make no codec, and an even kernel.
    """

    rate: int = 8000
    n_fft: int = 256
    hop: int = 64
    channels: int = 32
    width: int = 192
    depth: int = 4
    context: int = 1
    kernel: int = 5
    floor: float = 1e-3
    iterations: int = 32

    def __post_init__(self) -> None:
        sizes = (self.rate, self.channels, self.width, self.depth, self.kernel, self.iterations)
        if min(sizes) < 1 or self.context < 0 or self.floor <= 0 or self.kernel % 2 == 0:
            raise ValueError(f"all sizes must be positive and kernel odd, got {self}")
        _ = self.framing
        if self.channels > self.bins:
            raise ValueError(
                f"channels must be at most {self.bins}, the frequencies, got {self.channels}"
            )

    @property
    def framing(self) -> Framing:
        """The Fourier transform below."""
        return Framing(self.n_fft, self.hop)

    @property
    def bins(self) -> int:
        """The frequencies of a frame."""
        return self.n_fft // 2 + 1

    @property
    def reach(self) -> int:
        """Samples before and after its own hop that a latent vector depends on."""
        return self.framing.reach + self.context * self.hop

    def frames(self, samples: int) -> int:
        """The number of latent vectors of a waveform: ``ceil(samples / hop)``."""
        return self.framing.frames(samples)


@final
class AudioCodec(Codec):
    """Waveforms (B, 1, N) to latents (B, channels, ``ceil(N / hop)``) and back.

    :meth:`latents` and :meth:`waves` are what models use, for padded batches too.
    """

    def __init__(self, config: CodecConfig) -> None:
        super().__init__(config.channels)
        self.config = config
        c = config
        self.narrow = nn.Conv1d(c.bins, c.channels, 1)
        change = nn.Conv1d(c.width, 2 * c.channels, 1)
        self.encoder = nn.Sequential(
            nn.Conv1d(c.bins, c.width, 2 * c.context + 1), nn.GELU(), change
        )
        self.widen = nn.Conv1d(c.channels, c.bins, 1)
        self.first = nn.Conv1d(c.channels, c.width, 1)
        self.blocks = nn.ModuleList(_Block(c.width, c.kernel) for _ in range(c.depth))
        self.last = nn.Conv1d(c.width, c.bins, 1)
        for end in (change, self.last):
            assert end.bias is not None
            nn.init.zeros_(end.weight)
            nn.init.zeros_(end.bias)

    @torch.no_grad()
    def begin(self, waves: Sequence[Tensor]) -> None:
        """Start as the best linear codec of these waveforms (N_i,).

        The latents are the principal components, turned so that all channels vary about as much. Standardised one by
        one they keep their law: what hardly varies is not raised to the level of what matters.
        """
        x = torch.cat([self.logs(w[None])[0].mT for w in waves]).double()
        mean, count = x.mean(0), self.config.channels
        power, axes = torch.linalg.eigh((x - mean).mT @ (x - mean) / len(x))
        # Hartley's transform: orthogonal, and every entry is of one order
        angle = torch.outer(torch.arange(count), torch.arange(count)) * (2 * math.pi / count)
        turn = (angle.cos() + angle.sin()).double() / math.sqrt(count)
        axes, scale = axes[:, -count:] @ turn, power[-count:].mean().clamp(min=1e-6).sqrt()
        self.narrow.weight.copy_((axes / scale).mT[:, :, None])
        self.widen.weight.copy_((axes * scale)[:, :, None])
        assert self.narrow.bias is not None
        assert self.widen.bias is not None
        self.narrow.bias.copy_(-(mean @ axes) / scale)
        self.widen.bias.copy_(mean)

    @property
    def fingerprint(self) -> str:
        """A short text that differs between codecs with different weights, as they are stored."""
        found = hashlib.sha256()
        for name, value in sorted(self.state_dict().items()):
            value = value if name.startswith("affine.") else value.half()
            found.update(name.encode() + value.cpu().numpy().tobytes())
        return found.hexdigest()[:16]

    def logs(self, waves: Tensor, context: int = 0) -> Tensor:
        """Log-magnitudes above the floor of waveforms (B, N), (B, bins, T), the floor being 0; differentiable.

        With ``context`` there are as many frames more before the first and after the last.
        """
        c = self.config
        more = context * c.hop
        waves = F.pad(waves, (more, more + -waves.shape[1] % c.hop))
        spectrum = c.framing.analyse(waves)
        power = spectrum.real.square() + spectrum.imag.square()
        return power.clamp(min=c.floor**2).log() / 2 - math.log(c.floor)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latent, (B, channels, ``ceil(N / hop)``).

        Raises ``ValueError`` for another shape than (B, 1, N), or without any sample.
        """
        if x.ndim != 3 or x.shape[1] != 1 or not x.shape[2]:
            raise ValueError(f"x must be (B, 1, N) with at least one sample, got {tuple(x.shape)}")
        context = self.config.context
        # silence around a clip is heard as within a padded batch
        logs = self.logs(x[:, 0], context)
        change, log_std = self.encoder(logs / 4).chunk(2, 1)
        mean = self.narrow(logs[:, :, context : logs.shape[2] - context]) + change
        return mean, (log_std - 3).clamp(-10, 2).exp()

    def spectrum(self, z: Tensor, mask: Tensor | None = None) -> Tensor:
        """Log-magnitudes (B, bins, T), the floor being 0, of latents in the autoencoder's units; ``mask`` as below."""
        alive = torch.ones_like(z[:, :1]) if mask is None else mask[:, None].to(z)
        # what lies beyond the end of a clip is zero to every convolution, within a batch as alone
        x = self.first(z)
        for block in self.blocks:
            x = block(x, alive)
        made: Tensor = self.widen(z) + self.last(x)
        return made

    def reconstruct(self, z: Tensor, mask: Tensor | None = None) -> Tensor:
        """Waveforms (B, 1, T * hop) of latents in the autoencoder's units, silent where ``mask`` (B, T) is false."""
        c = self.config
        griffin_lim = GriffinLim(MelConfig(c.rate, c.n_fft, c.hop), c.iterations)
        return griffin_lim.waves(self._magnitude(z, mask), mask)[:, None]

    @torch.no_grad()
    def magnitude(self, z: Tensor) -> Tensor:
        """Magnitudes (B, bins, T) that standardised latents stand for."""
        return self._magnitude(self.affine.inverse(z), None)

    @torch.no_grad()
    def latents(self, waves: Tensor) -> Tensor:
        """Waveforms (B, N) to standardised latents (B, channels, ``ceil(N / hop)``); silence follows the end.

        Pad a batch of several lengths with zeros: the first ``frames(N)`` latents of a clip are then its own.

        Raises ``ValueError`` for another shape, or without any sample.
        """
        if waves.ndim != 2 or not waves.shape[1]:
            raise ValueError(
                f"waves must be (B, N) with at least one sample, got {tuple(waves.shape)}"
            )
        return self.encode(waves[:, None])

    @torch.no_grad()
    def waves(self, z: Tensor, mask: Tensor | None = None) -> Tensor:
        """Standardised latents (B, channels, T) to waveforms (B, T * hop).

        ``mask`` (B, T) says which of them there are, the first of each clip; a clip is what it would be alone.
        """
        return self.reconstruct(self.affine.inverse(z), mask)[:, 0]

    def _magnitude(self, z: Tensor, mask: Tensor | None) -> Tensor:
        """Magnitudes; no frame is louder than a window of ones."""
        c = self.config
        logs = self.spectrum(z, mask).clamp(max=math.log(c.n_fft / c.floor))
        return c.floor * logs.exp()

    def save(self, path: str | Path) -> Path:
        """Write the codec to one safetensors file, weights rounded to float16."""
        rounded, exact = self.tensors()
        return write_model(path, _KIND, {"codec": self.config}, {"net": rounded}, {"net": exact})

    def tensors(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The weights by name, and what must not be rounded: the affine map."""
        parts: tuple[dict[str, Tensor], dict[str, Tensor]] = {}, {}
        for name, value in self.state_dict().items():
            parts[name.startswith("affine.")][name] = value
        return parts

    @classmethod
    def from_file(cls, path: str | Path) -> AudioCodec:
        """Read what :meth:`save` wrote. Raises ``ValueError`` for a file of another kind."""
        file = ModelFile.read(path, _KIND, "a codec; save one with AudioCodec.save")
        codec = cls(file.config(CodecConfig, "codec"))
        codec.load_state_dict(file.part("net"))
        return codec.eval()


@final
class _Block(nn.Module):
    """A convolution over frames and one of a single frame, added to what comes in."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.along = nn.Conv1d(width, width, kernel, padding=kernel // 2)
        self.mix = nn.Conv1d(width, width, 1)
        nn.init.zeros_(self.mix.weight)

    def forward(self, x: Tensor, alive: Tensor) -> Tensor:
        y: Tensor = self.mix(F.gelu(self.along(self.norm(x.mT).mT * alive)))
        return x + y
