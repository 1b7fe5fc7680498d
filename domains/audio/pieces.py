"""What the trainings of networks of waveforms share: batches of pieces, and the differences of their spectra."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sciffusion.noise import Noise
from sciffusion.training import Order, Shuffled, StepLoss, TrainConfig

from .clip import Clips
from .codec import CodecConfig
from .mel import LogMel, MelConfig
from .parts import PartTask, PartTraining
from .stft import Framing
from .task import waveform

__all__ = ["PieceTask", "magnitude_error", "mel_error", "spectral_error"]


Net = TypeVar("Net", bound=nn.Module)
Made = TypeVar("Made", covariant=True)


class PieceTask(PartTask[Tensor, Net, Made]):
    """Learning from pieces of ``size`` samples, cut at random out of clips; shorter ones are followed by silence.

    Clips are made mono and brought to the rate of what is ``heard``, their peak to 0.5.
    """

    def __init__(
        self,
        config: PartTraining,
        clips: Clips,
        valid: Clips | None,
        heard: MelConfig | CodecConfig,
        size: int,
    ) -> None:
        super().__init__(config, clips)
        self.size = size
        self.waves = [waveform(clip, heard) for clip in clips]
        self.valid = [waveform(clip, heard) for clip in valid or ()]

    @abstractmethod
    def losses(self, model: nn.Module, x: Tensor, key: int | None) -> Tensor:
        """The loss of every piece (B, size), (B,); ``key`` is that of random numbers (None: none are drawn)."""

    def order(self, config: TrainConfig) -> Order:
        """Clips in a new order each epoch."""
        return Shuffled(len(self.waves), config.batch_size, config.seed)

    def batch(self, indices: NDArray[np.int64], key: int, device: torch.device) -> Tensor:
        """A piece of each of these clips, (B, size)."""
        places = Noise(key).scalars(len(indices)).tolist()
        return self._pieces([self.waves[i] for i in indices.tolist()], places).to(device)

    def loss(self, model: nn.Module, batch: Tensor, key: int) -> StepLoss:
        """The mean over the pieces."""
        return StepLoss(self.losses(model, batch, key).mean())

    def validate(self, model: nn.Module, key: int) -> dict[str, float]:
        """The loss of the beginnings of the held-out clips."""
        if not self.valid:
            return {}
        device = next(model.parameters()).device
        batch = self._pieces(self.valid, [0.0] * len(self.valid)).to(device)
        with torch.no_grad():
            found = [self.losses(model, part, None) for part in batch.split(64)]
        return {"loss": float(torch.cat(found).mean())}

    def _pieces(self, found: list[Tensor], places: list[float]) -> Tensor:
        """A piece of every waveform, at a place between its beginning (0) and its end (1)."""
        batch = torch.zeros(len(found), self.size)
        for row, wave, place in zip(batch, found, places, strict=True):
            start = int(place * max(len(wave) - self.size + 1, 1))
            piece = wave[start : start + self.size]
            row[: len(piece)] = piece
        return batch


def magnitude_error(made: Tensor, truth: Tensor, floor: float) -> Tensor:
    """How far magnitudes (B, F, T) are from the truth, (B,).

    The mean absolute difference of logarithms above ``floor``, and that of magnitudes as a share of their sum (Yamamoto
    et al., Parallel WaveGAN, 2020).
    """
    logs = (made.clamp(min=floor).log() - truth.clamp(min=floor).log()).abs().mean((1, 2))
    return logs + (made - truth).abs().sum((1, 2)) / truth.sum((1, 2)).clamp(min=1.0)


def spectral_error(made: Tensor, x: Tensor, resolutions: tuple[int, ...], floor: float) -> Tensor:
    """The error of the magnitudes of waveforms, mean over several window lengths, hop a quarter, (B,)."""
    total = torch.zeros(len(x), device=x.device)
    for n in resolutions:
        a, b = (_magnitude(w, Framing(n, n // 4)) for w in (made, x))
        total = total + magnitude_error(a, b, floor)
    return total / len(resolutions)


def mel_error(made: Tensor, x: Tensor, config: MelConfig, floor: float) -> Tensor:
    """The mean absolute difference of log-mel spectrograms above the same floor, (B,)."""
    heard = LogMel(replace(config, floor=max(config.floor, floor)))
    return (heard.encode(made) - heard.encode(x)).abs().mean((1, 2))


def _magnitude(x: Tensor, framing: Framing) -> Tensor:
    z = framing.analyse(x)
    return (z.real.square() + z.imag.square()).clamp(min=1e-12).sqrt()
