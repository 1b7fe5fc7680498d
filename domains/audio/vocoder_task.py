"""Training a vocoder: settings, batches and the loss for the training engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

from torch import Tensor, nn

from sciffusion.training import TrainConfig

from .clip import Clips
from .mel import LogMel
from .pieces import PieceTask, magnitude_error
from .task import DataConfig
from .vocoder import Vocoder, VocoderConfig, VocoderNet

__all__ = ["VocoderTask", "VocoderTraining"]


@final
@dataclass(frozen=True)
class VocoderTraining:
    """All settings of a training run: what a configuration file holds.

    Every batch holds pieces of ``frames`` frames, cut at random; shorter clips are followed by silence. What is
    minimised is the error of the magnitudes, whose logarithms count above ``floor`` (:func:`.magnitude_error`).

    Raises ``ValueError`` for pieces below two frames, and a floor that is not positive.
    """

    kind: Literal["vocoder"] = "vocoder"
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


@final
class VocoderTask(PieceTask[VocoderNet, Vocoder]):
    """Learning to make the waveforms of a data set from their spectrograms."""

    config: VocoderTraining

    def __init__(self, config: VocoderTraining, clips: Clips, valid: Clips | None = None) -> None:
        mel = config.model.mel
        super().__init__(config, clips, valid, mel, config.frames * mel.hop)

    def model(self) -> VocoderNet:
        """The untrained network."""
        return VocoderNet(self.config.model)

    def losses(self, model: nn.Module, x: Tensor, key: int | None) -> Tensor:
        """The error of the magnitudes of every piece."""
        mel = self.config.model.mel
        truth = mel.framing.analyse(x).abs()
        made: Tensor = model(LogMel(mel).encode(x)).exp()
        return magnitude_error(made, truth, self.config.floor)

    def part(self, net: VocoderNet, info: Mapping[str, Any]) -> Vocoder:
        """The trained vocoder."""
        return Vocoder(self.config.model.mel, net)
