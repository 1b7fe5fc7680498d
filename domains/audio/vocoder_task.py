"""Training a vocoder: settings, batches and the loss for the training engine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from torch import Tensor, nn

from sciffusion.config import to_dict
from sciffusion.training import TrainConfig, TrainState
from sciffusion.training import train as run_training

from .clip import Clips
from .mel import LogMel
from .pieces import PieceTask, magnitude_error
from .task import DataConfig
from .vocoder import Vocoder, VocoderConfig, VocoderNet

__all__ = ["VocoderTask", "VocoderTraining", "train_vocoder"]


@final
@dataclass(frozen=True)
class VocoderTraining:
    """All settings of a training run: what a configuration file holds.

    Every batch holds pieces of ``frames`` frames, cut at random; shorter clips are followed by silence. What is
    minimised is the error of the magnitudes, whose logarithms count above ``floor`` (:func:`.magnitude_error`).

    Raises ``ValueError`` for pieces below two frames, several shifts, and a floor that is not positive.
    """

    model: VocoderConfig = VocoderConfig()
    data: DataConfig = DataConfig()
    frames: int = 24
    floor: float = 1e-2
    train: TrainConfig = TrainConfig()

    def __post_init__(self) -> None:
        if self.frames < 2:
            raise ValueError(f"frames must be at least 2, got {self.frames}")
        if self.floor <= 0:
            raise ValueError(f"floor must be positive, got {self.floor}")
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
        """The error of the magnitudes of every piece."""
        mel = self.config.model.mel
        truth = mel.framing.analyse(x).abs()
        made: Tensor = model(LogMel(mel).encode(x)).exp()
        return magnitude_error(made, truth, self.config.floor)

    def describe(self) -> dict[str, object]:
        """Everything that shapes the run but the engine's own settings."""
        c = self.config
        # where the file lies shapes nothing
        parts = {"model": c.model, "data": replace(c.data, path=None)}
        found = {k: to_dict(v) for k, v in parts.items()}
        return found | {"frames": c.frames, "floor": c.floor, "clips": len(self.waves)}


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
    clips, valid = config.data.sets(clips, valid, check=bool(config.train.validate_every))
    task = VocoderTask(config, clips, valid)
    state = run_training(task, config.train, directory, resume=resume)
    net = task.model()
    net.load_state_dict(state.weights())
    vocoder = Vocoder(config.model.mel, net.eval())
    if state.first:
        vocoder.save(directory / "vocoder.safetensors")
    return vocoder, state
