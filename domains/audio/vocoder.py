"""A small network that says what magnitudes lie behind a log-mel spectrogram, and Griffin-Lim for their phases.

A triangle of the mel scale adds up what several frequencies hold, and least squares share it out evenly; the network
has heard where harmonics lie. Convolutions over the frames (Liu et al., A ConvNet for the 2020s, 2022) correct the
logarithms of the least squares solution, so an untrained network sounds as Griffin-Lim does. Phases that a network of
this size predicts (as in Siuzdak, Vocos, 2023) were worse than those that Griffin-Lim finds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor, nn

from sciffusion.described import described
from sciffusion.training import ModelFile, write_model

from .mel import MelConfig
from .recovery import GriffinLim, Recovery, magnitudes
from .shelf import SHELF

__all__ = ["Vocoder", "VocoderConfig", "VocoderNet"]

_KIND = "audio-vocoder"

LEAST = 1e-3
"""The least magnitude that is corrected: silence."""


@final
@dataclass(frozen=True)
class VocoderConfig:
    """The spectrogram that a vocoder reads, and its size: ``depth`` blocks of ``width`` channels.

    Raises ``ValueError`` for sizes that are not positive, and an even ``kernel``.
    """

    mel: MelConfig = MelConfig()
    width: int = 192
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
    """Log-mel frames to log-magnitudes of the short-time Fourier transform."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        c, mel = config, config.mel
        self.first = nn.Conv1d(mel.mels, c.width, c.kernel, padding=c.kernel // 2)
        self.blocks = nn.ModuleList(
            _Block(c.width, c.expansion * c.width, c.kernel) for _ in range(c.depth)
        )
        self.norm = nn.LayerNorm(c.width)
        self.last = nn.Linear(c.width, mel.n_fft // 2 + 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, mel: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, mels, T) to log-magnitudes (B, n_fft // 2 + 1, T); ``mask`` (B, T) as in a recovery."""
        alive = torch.ones_like(mel[:, :1]) if mask is None else mask[:, None].to(mel)
        # silence is zero to the convolutions, within a batch as beyond its ends
        x = self.first((mel - math.log(self.config.mel.floor)) / 4 * alive)
        for block in self.blocks:
            x = block(x, alive)
        change: Tensor = self.last(self.norm(x.mT)).mT
        start = magnitudes(self.config.mel, mel).clamp(min=LEAST).log()
        # no frame is louder than a window of ones
        return (start + change).clamp(max=math.log(self.config.mel.n_fft))


@final
class _Block(nn.Module):
    """ConvNeXt's block over frames."""

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
@dataclass(frozen=True, eq=False, repr=False)
class Vocoder(Recovery):
    """A trained network and as many ``iterations`` of Griffin-Lim as a recovery; deterministic, each clip by itself.

    Raises ``ValueError`` if the network reads other spectrograms than ``config``.
    """

    net: VocoderNet
    iterations: int = 32

    def __post_init__(self) -> None:
        self.config.require_same(self.net.config.mel, "net")

    def __repr__(self) -> str:
        return described(self, self.net, f"{self.config.rate} Hz")

    @torch.no_grad()
    def magnitude(self, mel: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, mels, T) to (B, n_fft // 2 + 1, T); see :class:`Recovery`."""
        self._check(mel, mask)
        return self.net(mel, mask).exp()

    def __call__(self, mel: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, mels, T) to (B, T * hop); see :class:`Recovery`."""
        griffin_lim = GriffinLim(self.config, self.iterations)
        return griffin_lim.waves(self.magnitude(mel, mask), mask)

    def to(self, device: str | torch.device) -> Vocoder:
        """The same vocoder on another device."""
        return Vocoder(self.config, self.net.to(device), self.iterations)

    def save(self, path: str | Path) -> Path:
        """Write network and spectrogram to one safetensors file, weights rounded to float16."""
        return write_model(
            path, _KIND, {"vocoder": self.net.config}, {"net": self.net.state_dict()}
        )

    @classmethod
    def load(cls, name: str | Path) -> Vocoder:
        """A vocoder that ships, by its name, or a file that :meth:`save` wrote.

        Raises:
            FileNotFoundError: neither; the message lists the names.
            ValueError: a file of another kind.
        """
        return cls.from_file(SHELF.find("decoder", name))

    @classmethod
    def from_file(cls, path: str | Path) -> Vocoder:
        """Read what :meth:`save` wrote. Raises ``ValueError`` for a file of another kind."""
        file = ModelFile.read(path, _KIND, "a vocoder")
        net = VocoderNet(file.config(VocoderConfig, "vocoder"))
        net.load_state_dict(file.part("net"))
        return cls(net.config.mel, net.eval())
