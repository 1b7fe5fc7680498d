"""A small convolutional autoencoder of waveforms, and the latents that models may work on instead of spectrograms.

Strided convolutions take a waveform to one vector for every hop, and back (Evans et al., Stable Audio Open, 2024, whose
transformer generates such latents). Their activation is the periodic one of Ziyin et al., Neural networks fail to learn
periodic functions and how to fix it, 2020. Nothing here is adversarial.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from sciffusion.codec import Codec
from sciffusion.config import parse, to_dict
from sciffusion.training import export, load_weights

__all__ = ["AudioCodec", "CodecConfig"]

_KIND = "audio-codec"


@final
@dataclass(frozen=True)
class CodecConfig:
    """A codec of waveforms at ``rate`` Hz: ``channels`` latent numbers for every hop, the product of ``strides``.

    ``widths`` are the channels of the network before the first stride and after each; ``dilations`` are those of the
    residual convolutions at every width.

    Raises ``ValueError`` unless strides are even and widths are one more.
    """

    rate: int = 8000
    channels: int = 32
    strides: tuple[int, ...] = (4, 4, 4)
    widths: tuple[int, ...] = (16, 32, 64, 128)
    dilations: tuple[int, ...] = (1, 3)
    kernel: int = 5

    def __post_init__(self) -> None:
        if not self.strides or any(s < 2 or s % 2 for s in self.strides):
            raise ValueError(f"strides must be even, one or more, got {self.strides}")
        if len(self.widths) != len(self.strides) + 1:
            raise ValueError(
                f"widths must be one more than the {len(self.strides)} strides, got {len(self.widths)}"
            )
        sizes = (self.rate, self.channels, self.kernel, *self.widths, *self.dilations)
        if min(sizes) < 1 or self.kernel % 2 == 0:
            raise ValueError(f"all sizes must be positive and kernel odd, got {self}")

    @property
    def hop(self) -> int:
        """Samples of a latent vector."""
        return math.prod(self.strides)

    def frames(self, samples: int) -> int:
        """The number of latent vectors of a waveform: ``ceil(samples / hop)``."""
        return -(-samples // self.hop)


@final
class AudioCodec(Codec):
    """Waveforms (B, 1, N), N a multiple of the hop, to latents (B, channels, N / hop) and back.

    :meth:`latents` and :meth:`waves` are what models use: any length there, and padded batches here.
    """

    def __init__(self, config: CodecConfig) -> None:
        super().__init__(config.channels)
        self.config = config
        c = config
        self.first = nn.Conv1d(1, c.widths[0], 7, padding=3)
        stages = list(zip(c.widths, c.widths[1:], c.strides, strict=False))
        self.down = nn.Sequential(*(_Down(c, a, b, s) for a, b, s in stages))
        self.middle = nn.Sequential(
            _Snake(c.widths[-1]), nn.Conv1d(c.widths[-1], 2 * c.channels, 3, padding=1)
        )
        self.begin = nn.Conv1d(c.channels, c.widths[-1], 3, padding=1)
        self.up = nn.ModuleList(_Up(c, b, a, s) for a, b, s in reversed(stages))
        self.last = nn.Sequential(_Snake(c.widths[0]), nn.Conv1d(c.widths[0], 1, 7, padding=3))

    @property
    def fingerprint(self) -> str:
        """A short text that differs between codecs with different weights, as they are stored."""
        found = hashlib.sha256()
        for name, value in sorted(self.state_dict().items()):
            value = value if name.startswith("affine.") else value.half()
            found.update(name.encode() + value.cpu().numpy().tobytes())
        return found.hexdigest()[:16]

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latent, (B, channels, N / hop).

        Raises ``ValueError`` for another shape than (B, 1, N), N a positive multiple of the hop.
        """
        hop = self.config.hop
        if x.ndim != 3 or x.shape[1] != 1 or not x.shape[2] or x.shape[2] % hop:
            raise ValueError(
                f"x must be (B, 1, N), N a multiple of {hop} samples, got {tuple(x.shape)}"
            )
        mean, log_std = self.middle(self.down(self.first(x))).chunk(2, 1)
        return mean, log_std.clamp(-10, 2).exp()

    def reconstruct(self, z: Tensor, mask: Tensor | None = None) -> Tensor:
        """Waveforms (B, 1, T * hop) of latents in the autoencoder's units, silent where ``mask`` (B, T) is false."""
        alive = torch.ones_like(z[:, :1]) if mask is None else mask[:, None].to(z)
        # what lies beyond the end of a clip is zero to every convolution, within a batch as alone
        x = self.begin(z * alive) * alive
        for stage in self.up:
            x, alive = stage(x, alive)
        made: Tensor = self.last(x) * alive
        return made

    @torch.no_grad()
    def latents(self, waves: Tensor) -> Tensor:
        """Waveforms (B, N) to standardised latents (B, channels, ``ceil(N / hop)``); the end is completed by silence.

        Raises ``ValueError`` for another shape, or without any sample.
        """
        if waves.ndim != 2 or not waves.shape[1]:
            raise ValueError(
                f"waves must be (B, N) with at least one sample, got {tuple(waves.shape)}"
            )
        missing = -waves.shape[1] % self.config.hop
        return self.encode(nn.functional.pad(waves, (0, missing))[:, None])

    @torch.no_grad()
    def waves(self, z: Tensor, mask: Tensor | None = None) -> Tensor:
        """Standardised latents (B, channels, T) to waveforms (B, T * hop).

        ``mask`` (B, T) says which of them there are, the first of each clip; a clip is what it would be alone.
        """
        return self.reconstruct(self.affine.inverse(z), mask)[:, 0]

    def save(self, path: str | Path) -> Path:
        """Write the codec to one safetensors file, weights rounded to float16."""
        meta = {"kind": _KIND, "codec": to_dict(self.config)}
        weights, exact = self.tensors()
        export(weights, path, meta, torch.float16, exact=exact)
        return Path(path)

    def tensors(self, prefix: str = "") -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The weights by name, and what must not be rounded: the affine map."""
        parts: tuple[dict[str, Tensor], dict[str, Tensor]] = {}, {}
        for name, value in self.state_dict().items():
            parts[name.startswith("affine.")][prefix + name] = value
        return parts

    @classmethod
    def from_file(cls, path: str | Path) -> AudioCodec:
        """Read what :meth:`save` wrote. Raises ``ValueError`` for a file of another kind."""
        tensors, meta = load_weights(path)
        if meta.get("kind") != _KIND:
            raise ValueError(
                f"{path} holds {meta.get('kind', 'something else')!r}, not a codec; save one with AudioCodec.save"
            )
        fields: dict[str, Any] = dict(meta)
        codec = cls(parse(CodecConfig, fields["codec"], source=str(path)))
        codec.load_state_dict(tensors)
        return codec.eval()


@final
class _Snake(nn.Module):
    r"""The activation :math:`x + \sin^2(ax)/a` with a frequency a for every channel; zero stays zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.log_a = nn.Parameter(torch.zeros(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        a = self.log_a.exp()
        return x + (a * x).sin().square() / a


@final
class _Residual(nn.Module):
    """A dilated convolution and one of a single sample, added to what comes in."""

    def __init__(self, width: int, kernel: int, dilation: int) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.before, self.between = _Snake(width), _Snake(width)
        self.along = nn.Conv1d(width, width, kernel, dilation=dilation, padding=padding)
        self.mix = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.mix(self.between(self.along(self.before(x))))
        return x + y


@final
class _Down(nn.Module):
    """Residual convolutions, then one that makes a vector of every ``stride``."""

    def __init__(self, config: CodecConfig, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.residuals = nn.Sequential(
            *(_Residual(width, config.kernel, d) for d in config.dilations)
        )
        self.snake = _Snake(width)
        self.narrow = nn.Conv1d(width, out, 2 * stride, stride, padding=stride // 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.narrow(self.snake(self.residuals(x)))
        return y


@final
class _Up(nn.Module):
    """A convolution that makes ``stride`` vectors of each, then residual ones."""

    def __init__(self, config: CodecConfig, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.snake = _Snake(width)
        self.widen = nn.ConvTranspose1d(width, out, 2 * stride, stride, padding=stride // 2)
        self.residuals = nn.ModuleList(_Residual(out, config.kernel, d) for d in config.dilations)

    def forward(self, x: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
        alive = alive.repeat_interleave(self.stride, 2)
        x = self.widen(self.snake(x)) * alive
        for residual in self.residuals:
            x = residual(x) * alive
        return x, alive
