"""A small network that makes waveforms of log-mel spectrograms in one pass.

Convolutions over the frames say what magnitude and phase every frequency has, and one inverse transform makes the
waveform (Siuzdak, Vocos: Closing the gap between time-domain and Fourier-based neural vocoders, 2023). Magnitudes are
corrections to those that Griffin-Lim starts from, so an untrained network has the right ones already.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from sciffusion.config import parse, to_dict
from sciffusion.training import export, load_weights

from .mel import MelConfig, filters
from .recovery import Recovery

__all__ = ["Vocoder", "VocoderConfig", "VocoderNet"]

_KIND = "audio-vocoder"


@final
@dataclass(frozen=True)
class VocoderConfig:
    """The spectrogram that a vocoder reads, and its size: ``depth`` blocks of ``width`` channels.

    Raises ``ValueError`` for sizes that are not positive, and an even ``kernel``.
    """

    mel: MelConfig = MelConfig()
    width: int = 128
    depth: int = 5
    expansion: int = 3
    kernel: int = 7

    def __post_init__(self) -> None:
        if min(self.width, self.depth, self.expansion, self.kernel) < 1 or self.kernel % 2 == 0:
            raise ValueError(
                f"width, depth, expansion and kernel must be positive and kernel odd, got {self}"
            )


@final
class VocoderNet(nn.Module):
    """Log-mel frames to log-magnitudes and phases of the short-time Fourier transform."""

    inverse: Tensor

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        c, mel = config, config.mel
        bins = mel.n_fft // 2 + 1
        self.first = nn.Conv1d(mel.mels, c.width, c.kernel, padding=c.kernel // 2)
        self.blocks = nn.ModuleList(
            _Block(c.width, c.expansion * c.width, c.kernel) for _ in range(c.depth)
        )
        self.norm = nn.LayerNorm(c.width)
        self.last = nn.Linear(c.width, 2 * bins)
        inverse = torch.linalg.pinv(filters(mel).double()).float()
        self.register_buffer("inverse", inverse, persistent=False)
        with torch.no_grad():
            self.last.weight[:bins] = 0
            self.last.bias[:bins] = 0

    def forward(self, mel: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, mels, T) to log-magnitudes and phases, (B, n_fft // 2 + 1, T) each; ``mask`` (B, T) as in a recovery."""
        alive = torch.ones_like(mel[:, :1]) if mask is None else mask[:, None].to(mel)
        # silence is zero to the convolutions, within a batch as beyond its ends
        floor = self.config.mel.floor
        x = self.first((mel - math.log(floor)) / 4 * alive)
        for block in self.blocks:
            x = block(x, alive)
        change, phase = self.last(self.norm(x.mT)).mT.chunk(2, 1)
        start = (self.inverse @ mel.exp()).clamp(min=floor).log()
        return start + change, phase


@final
class _Block(nn.Module):
    """ConvNeXt's block (Liu et al., A ConvNet for the 2020s, 2022) over frames."""

    def __init__(self, width: int, hidden: int, kernel: int) -> None:
        super().__init__()
        self.along = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.scale = nn.Parameter(torch.full((width,), 0.2))

    def forward(self, x: Tensor, alive: Tensor) -> Tensor:
        y = self.norm(self.along(x * alive).mT)
        y = self.scale * self.down(nn.functional.gelu(self.up(y)))
        return x + y.mT


@final
@dataclass(frozen=True, eq=False)
class Vocoder(Recovery):
    """A trained network as a recovery; deterministic, each clip by itself.

    Raises ``ValueError`` if the network reads other spectrograms than ``config``.
    """

    net: VocoderNet

    def __post_init__(self) -> None:
        self.config.require_same(self.net.config.mel, "net")

    @torch.no_grad()
    def __call__(self, mel: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, mels, T) to (B, T * hop); see :class:`Recovery`."""
        self._check(mel, mask)
        return waves(self.net, mel, mask)[0]

    def save(self, path: str | Path) -> Path:
        """Write network and spectrogram to one safetensors file, weights rounded to float16."""
        meta = {"kind": _KIND, "vocoder": to_dict(self.net.config)}
        export(self.net.state_dict(), path, meta, torch.float16)
        return Path(path)

    @classmethod
    def from_file(cls, path: str | Path) -> Vocoder:
        """Read what :meth:`save` wrote. Raises ``ValueError`` for a file of another kind."""
        tensors, meta = load_weights(path)
        if meta.get("kind") != _KIND:
            raise ValueError(
                f"{path} holds {meta.get('kind', 'something else')!r}, not a vocoder; save one with Vocoder.save"
            )
        fields: dict[str, Any] = dict(meta)
        config = parse(VocoderConfig, fields["vocoder"], source=str(path))
        net = VocoderNet(config)
        net.load_state_dict(tensors)
        return cls(config.mel, net.eval())


def waves(
    net: VocoderNet, mel: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Waveforms (B, T * hop) with the log-magnitudes and phases that make them; differentiable."""
    magnitude, phase = net(mel, mask)
    config = net.config.mel
    # no frame is louder than a window of ones
    spectrum = torch.polar(magnitude.clamp(max=math.log(config.n_fft)).exp(), phase)
    return config.framing.synthesise(spectrum, mask), magnitude, phase
