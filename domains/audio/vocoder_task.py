"""Training a vocoder: settings, batches and losses for the training engine."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sciffusion.config import to_dict
from sciffusion.noise import Noise
from sciffusion.training import Order, Shuffled, StepLoss, Task, TrainConfig, TrainState
from sciffusion.training import train as run_training

from .clip import Clips
from .mel import LogMel
from .stft import Framing
from .task import DataConfig, waveform
from .vocoder import Vocoder, VocoderConfig, VocoderNet, waves

__all__ = ["VocoderLoss", "VocoderTask", "VocoderTraining", "phase_error", "train_vocoder"]


@final
@dataclass(frozen=True)
class VocoderLoss:
    r"""What is minimised, all of it without a discriminator.

    * Magnitudes at several ``resolutions`` (window lengths, hop a quarter): the mean absolute difference of logarithms
      above ``floor`` and of magnitudes, as a share of their sum (Yamamoto et al., Parallel WaveGAN, 2020).
    * ``mel``: the mean absolute difference of log-mel spectrograms above the same floor.
    * ``phase``: how far the differences of the phase between neighbouring frames and between neighbouring frequencies
      are from the truth, wrapped to :math:`[-\pi, \pi]` and weighted by the true magnitude (Ai & Ling, Neural speech
      phase prediction based on parallel estimation architecture and anti-wrapping losses, 2023).
    """

    resolutions: tuple[int, ...] = (128, 256, 512)
    mel: float = 1.0
    phase: float = 0.5
    floor: float = 1e-2

    def __call__(self, net: VocoderNet, x: Tensor) -> Tensor:
        """The loss of every waveform (B, N), N a multiple of the hop: (B,)."""
        config = net.config.mel
        made, _, phase = waves(net, LogMel(config).encode(x))
        total = sum(self._magnitudes(made, x, n) for n in self.resolutions) / len(self.resolutions)
        low = max(config.floor, self.floor)
        heard = LogMel(replace(config, floor=low))
        total = total + self.mel * (heard.encode(made) - heard.encode(x)).abs().mean((1, 2))
        truth = config.framing.analyse(x)
        return total + self.phase * phase_error(phase, truth)

    def _magnitudes(self, made: Tensor, x: Tensor, n: int) -> Tensor:
        a, b = (_magnitude(w, Framing(n, n // 4)) for w in (made, x))
        logs = (a.clamp(min=self.floor).log() - b.clamp(min=self.floor).log()).abs().mean((1, 2))
        return logs + (a - b).abs().sum((1, 2)) / b.sum((1, 2)).clamp(min=1.0)


def _magnitude(x: Tensor, framing: Framing) -> Tensor:
    z = framing.analyse(x)
    return (z.real.square() + z.imag.square()).clamp(min=1e-12).sqrt()


def phase_error(phase: Tensor, truth: Tensor) -> Tensor:
    """The wrapped error of phase differences along time and along frequency, (B,)."""
    error, weight = phase - truth.angle(), truth.abs()
    total = torch.zeros(len(phase), device=phase.device)
    for axis in (1, 2):
        size = error.shape[axis] - 1
        both = weight.narrow(axis, 0, size) * weight.narrow(axis, 1, size)
        both = both.clamp(min=0).sqrt()
        wrapped = torch.remainder(error.diff(dim=axis) + torch.pi, 2 * torch.pi) - torch.pi
        total = total + (both * wrapped.abs()).sum((1, 2)) / both.sum((1, 2)).clamp(min=1.0)
    return total


@final
@dataclass(frozen=True)
class VocoderTraining:
    """All settings of a training run: what a configuration file holds.

    Every batch holds pieces of ``frames`` frames, cut at random; shorter clips are followed by silence.
    """

    model: VocoderConfig = VocoderConfig()
    data: DataConfig = DataConfig()
    loss: VocoderLoss = VocoderLoss()
    frames: int = 32
    train: TrainConfig = TrainConfig()

    def __post_init__(self) -> None:
        if self.frames < 2:
            raise ValueError(f"frames must be at least 2, got {self.frames}")
        if self.data.shifts != 1:
            raise ValueError(
                f"data.shifts must be 1 for a vocoder, whose pieces begin anywhere, got {self.data.shifts}"
            )


@final
class VocoderTask(Task[Tensor]):
    """Learning to make the waveforms of a data set from their spectrograms."""

    def __init__(self, config: VocoderTraining, clips: Clips, valid: Clips | None = None) -> None:
        if not len(clips):
            raise ValueError("clips must hold at least one clip to learn from")
        self.config = config
        self.waves = [waveform(clip, config.model.mel) for clip in clips]
        self.valid = [waveform(clip, config.model.mel) for clip in valid or ()]

    def model(self) -> VocoderNet:
        """The untrained network."""
        return VocoderNet(self.config.model)

    def order(self, config: TrainConfig) -> Order:
        """Clips in a new order each epoch."""
        return Shuffled(len(self.waves), config.batch_size, config.seed)

    def batch(self, indices: NDArray[np.int64], key: int, device: torch.device) -> Tensor:
        """A piece of each of these clips, (B, frames * hop)."""
        places = Noise(key).scalars(len(indices)).tolist()
        found = [self.waves[i] for i in indices.tolist()]
        return self._pieces(found, places).to(device)

    def loss(self, model: nn.Module, batch: Tensor, key: int) -> StepLoss:
        """The mean over the pieces."""
        return StepLoss(self.config.loss(model, batch).mean())  # type: ignore[arg-type]

    def validate(self, model: nn.Module, key: int) -> dict[str, float]:
        """The loss of the beginnings of the held-out clips."""
        if not self.valid:
            return {}
        device = next(model.parameters()).device
        batch = self._pieces(self.valid, [0.0] * len(self.valid)).to(device)
        with torch.no_grad():
            losses = [self.config.loss(model, part) for part in batch.split(64)]  # type: ignore[arg-type]
        return {"loss": float(torch.cat(losses).mean())}

    def describe(self) -> dict[str, object]:
        """Everything that shapes the run but the engine's own settings."""
        c = self.config
        # where the file lies shapes nothing
        parts = {"model": c.model, "data": replace(c.data, path=None), "loss": c.loss}
        found = {k: to_dict(v) for k, v in parts.items()}
        return found | {"frames": c.frames, "clips": len(self.waves)}

    def _pieces(self, found: list[Tensor], places: list[float]) -> Tensor:
        """A piece of every waveform, at a place between its beginning (0) and its end (1)."""
        size = self.config.frames * self.config.model.mel.hop
        batch = torch.zeros(len(found), size)
        for row, wave, place in zip(batch, found, places, strict=True):
            start = int(place * max(len(wave) - size + 1, 1))
            piece = wave[start : start + size]
            row[: len(piece)] = piece
        return batch


def train_vocoder(
    config: VocoderTraining,
    directory: str | Path,
    clips: Clips | None = None,
    valid: Clips | None = None,
    *,
    resume: bool = True,
) -> tuple[Vocoder, TrainState]:
    """Train a vocoder in ``directory`` (continuing the run found there) and write ``vocoder.safetensors`` in it.

    The data are those that the configuration names, or ``clips`` and ``valid``, clips of your own. Returns the vocoder
    with averaged weights and the state of the run.
    """
    directory = Path(directory)
    if clips is None:
        clips = config.data.load()
        if config.data.valid is not None and config.train.validate_every:
            valid = config.data.load(config.data.valid)
    task = VocoderTask(config, clips, valid)
    state = run_training(task, config.train, directory, resume=resume)
    tensors = state.tensors()  # gathered from all processes, so all of them must call it
    net = task.model()
    net.load_state_dict(dict(tensors.get("ema", tensors["model"])))
    vocoder = Vocoder(config.model.mel, net.eval())
    if int(os.environ.get("RANK", "0")) == 0:
        vocoder.save(directory / "vocoder.safetensors")
    return vocoder, state
