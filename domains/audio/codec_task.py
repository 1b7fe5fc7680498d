"""Training a codec: settings and losses for the training engine."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from torch import Tensor, nn

from sciffusion.config import to_dict
from sciffusion.layout import Dense
from sciffusion.noise import Noise
from sciffusion.training import TrainConfig, TrainState
from sciffusion.training import train as run_training

from .clip import Clips
from .codec import AudioCodec, CodecConfig
from .pieces import PieceTask, magnitude_error
from .task import DataConfig

__all__ = ["CodecLoss", "CodecTask", "CodecTraining", "train_codec"]


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

    model: CodecConfig = CodecConfig()
    data: DataConfig = DataConfig()
    loss: CodecLoss = CodecLoss()
    frames: int = 48
    train: TrainConfig = TrainConfig()

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ValueError(f"frames must be at least 1, got {self.frames}")
        if self.data.shifts != 1:
            raise ValueError(
                f"data.shifts must be 1 for a codec, whose pieces begin anywhere, got {self.data.shifts}"
            )


@final
class CodecTask(PieceTask):
    """Learning to encode and decode the waveforms of a data set."""

    def __init__(self, config: CodecTraining, clips: Clips, valid: Clips | None = None) -> None:
        super().__init__(clips, valid, config.model, config.frames * config.model.hop)
        self.config = config

    def model(self) -> AudioCodec:
        """The codec that training starts from: the best linear one."""
        codec = AudioCodec(self.config.model)
        codec.begin(self.waves)
        return codec

    def losses(self, model: nn.Module, x: Tensor, key: int | None) -> Tensor:
        """The loss of every piece."""
        return self.config.loss(model, x, None if key is None else Noise(key + 1))  # type: ignore[arg-type]

    def describe(self) -> dict[str, object]:
        """Everything that shapes the run but the engine's own settings."""
        c = self.config
        # where the file lies shapes nothing
        parts = {"model": c.model, "data": replace(c.data, path=None), "loss": c.loss}
        found = {k: to_dict(v) for k, v in parts.items()}
        return found | {"frames": c.frames, "clips": len(self.waves)}


def train_codec(
    config: CodecTraining,
    directory: str | Path,
    clips: Clips | None = None,
    valid: Clips | None = None,
    *,
    resume: bool = True,
) -> tuple[AudioCodec, TrainState]:
    """Train a codec in ``directory`` (continuing the run found there) and write ``codec.safetensors`` in it.

    The data are those that the configuration names, or ``clips`` and ``valid``, clips of your own. Returns the codec
    with averaged weights, its latents standardised over the training clips, and the state of the run.
    """
    directory = Path(directory)
    clips, valid = config.data.sets(clips, valid, check=bool(config.train.validate_every))
    task = CodecTask(config, clips, valid)
    state = run_training(task, config.train, directory, resume=resume)
    codec = task.model()
    codec.load_state_dict(state.weights())
    codec.fit(w[None, None] for w in task.waves)
    if state.first:
        codec.save(directory / "codec.safetensors")
    return codec.eval(), state
