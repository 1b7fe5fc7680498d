"""Training a codec: settings and losses for the training engine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

from torch import Tensor, nn

from sciffusion.layout import Dense
from sciffusion.noise import Noise
from sciffusion.training import TrainConfig

from .clip import Clips
from .codec import AudioCodec, CodecConfig
from .pieces import PieceTask, magnitude_error
from .task import DataConfig

__all__ = ["CodecLoss", "CodecTask", "CodecTraining"]


@final
@dataclass(frozen=True)
class CodecLoss:
    """What is minimised: the error of the decoded magnitudes (:func:`.magnitude_error`), and two little things more.

    * ``root``: the mean absolute difference of the roots of magnitudes, between logarithms, which count silence as much
      as speech, and magnitudes, of which the loudest frames have nearly all.
    * ``kl``: the divergence of the latent's law from a standard normal one, per latent number (Kingma & Welling,
      Auto-encoding variational Bayes, 2014); small, so that latents stay near it and decoding is smooth.
    """

    root: float = 2.0
    kl: float = 1e-3

    def __call__(self, codec: AudioCodec, x: Tensor, noise: Noise | None) -> Tensor:
        """The loss of every waveform (B, N), (B,); without ``noise`` the latent is its mean."""
        mean, std = codec.posterior(x[:, None])
        z = mean if noise is None else mean + std * noise.normal(mean, Dense(1))
        floor = codec.config.floor
        made, truth = ((v + math.log(floor)).exp() for v in (codec.spectrum(z), codec.logs(x)))
        kl = 0.5 * (mean.square() + std.square() - 1) - std.log()
        return (
            magnitude_error(made, truth, floor)
            + self.root * (made.sqrt() - truth.sqrt()).abs().mean((1, 2))
            + self.kl * kl.mean((1, 2))
        )


@final
@dataclass(frozen=True)
class CodecTraining:
    """All settings of a training run: what a configuration file holds.

    Every batch holds pieces of ``frames`` hops, cut at random; shorter clips are followed by silence.
    """

    kind: Literal["codec"] = "codec"
    model: CodecConfig = CodecConfig()
    data: DataConfig = DataConfig()
    loss: CodecLoss = CodecLoss()
    frames: int = 48
    train: TrainConfig = TrainConfig()

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ValueError(f"frames must be at least 1, got {self.frames}")


@final
class CodecTask(PieceTask[AudioCodec, AudioCodec]):
    """Learning to encode and decode the waveforms of a data set."""

    config: CodecTraining

    def __init__(self, config: CodecTraining, clips: Clips, valid: Clips | None = None) -> None:
        super().__init__(config, clips, valid, config.model, config.frames * config.model.hop)

    def model(self) -> AudioCodec:
        """The codec that training starts from: the best linear one."""
        codec = AudioCodec(self.config.model)
        codec.begin(self.waves)
        return codec

    def losses(self, model: nn.Module, x: Tensor, key: int | None) -> Tensor:
        """The loss of every piece."""
        return self.config.loss(model, x, None if key is None else Noise(key + 1))  # type: ignore[arg-type]

    def part(self, net: AudioCodec, info: Mapping[str, Any]) -> AudioCodec:
        """The trained codec, its latents standardised over the training clips."""
        net.fit(w[None, None] for w in self.waves)
        return net
