"""Training a vocoder: settings, batches and losses for the training engine."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import torch
from torch import Tensor, nn

from sciffusion.config import to_dict
from sciffusion.training import TrainConfig, TrainState
from sciffusion.training import train as run_training

from .clip import Clips
from .mel import LogMel
from .pieces import PieceTask, mel_error, spectral_error
from .task import DataConfig
from .vocoder import Vocoder, VocoderConfig, VocoderNet, waves

__all__ = ["VocoderLoss", "VocoderTask", "VocoderTraining", "phase_error", "train_vocoder"]


@final
@dataclass(frozen=True)
class VocoderLoss:
    r"""What is minimised, all of it without a discriminator.

    * Magnitudes at several ``resolutions`` (:func:`.spectral_error`), above ``floor``.
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
        total = spectral_error(made, x, self.resolutions, self.floor)
        total = total + self.mel * mel_error(made, x, config, self.floor)
        truth = config.framing.analyse(x)
        return total + self.phase * phase_error(phase, truth)


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
class VocoderTask(PieceTask):
    """Learning to make the waveforms of a data set from their spectrograms."""

    def __init__(self, config: VocoderTraining, clips: Clips, valid: Clips | None = None) -> None:
        mel = config.model.mel
        super().__init__(clips, valid, mel, config.frames * mel.hop)
        self.config = config

    def model(self) -> VocoderNet:
        """The untrained network."""
        return VocoderNet(self.config.model)

    def losses(self, model: nn.Module, x: Tensor, key: int | None) -> Tensor:
        """The loss of every piece."""
        return self.config.loss(model, x)  # type: ignore[arg-type]

    def describe(self) -> dict[str, object]:
        """Everything that shapes the run but the engine's own settings."""
        c = self.config
        # where the file lies shapes nothing
        parts = {"model": c.model, "data": replace(c.data, path=None), "loss": c.loss}
        found = {k: to_dict(v) for k, v in parts.items()}
        return found | {"frames": c.frames, "clips": len(self.waves)}


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
