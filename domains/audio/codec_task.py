"""Training a codec: settings and losses for the training engine."""

from __future__ import annotations

import os
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
from .mel import MelConfig
from .pieces import PieceTask, mel_error, spectral_error
from .task import DataConfig

__all__ = ["CodecLoss", "CodecTask", "CodecTraining", "train_codec"]


@final
@dataclass(frozen=True)
class CodecLoss:
    r"""What is minimised, all of it without a discriminator.

    * ``wave``: the mean absolute difference of waveforms, which have a peak of 0.5.
    * Magnitudes at several ``resolutions`` (:func:`.spectral_error`), above ``floor``.
    * ``mel``: the mean absolute difference of log-mel spectrograms of ``bins`` above the same floor, the window four
      hops of the codec.
    * ``kl``: the divergence of the latent's law from a standard normal one, per latent number (Kingma & Welling,
      Auto-encoding variational Bayes, 2014); small, so that latents stay near it and decoding is smooth.
    """

    resolutions: tuple[int, ...] = (64, 128, 256, 512)
    wave: float = 20.0
    mel: float = 1.0
    bins: int = 64
    kl: float = 1e-3
    floor: float = 1e-2

    def __call__(self, codec: AudioCodec, x: Tensor, noise: Noise | None) -> Tensor:
        """The loss of every waveform (B, N), (B,); without ``noise`` the latent is its mean."""
        mean, std = codec.posterior(x[:, None])
        z = mean if noise is None else mean + std * noise.normal(mean, Dense(1))
        made = codec.reconstruct(z)[:, 0]
        hop = codec.config.hop
        mel = MelConfig(codec.config.rate, 4 * hop, hop, self.bins)
        kl = 0.5 * (mean.square() + std.square() - 1) - std.log()
        return (
            self.wave * (made - x).abs().mean(1)
            + spectral_error(made, x, self.resolutions, self.floor)
            + self.mel * mel_error(made, x, mel, self.floor)
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
        if self.frames * self.model.hop < max(self.loss.resolutions):
            raise ValueError(
                f"frames must make pieces of at least {max(self.loss.resolutions)} samples, the longest window, "
                f"got {self.frames} of {self.model.hop}"
            )
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
        """The untrained codec."""
        return AudioCodec(self.config.model)

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
    if clips is None:
        clips = config.data.load()
        if config.data.valid is not None and config.train.validate_every:
            valid = config.data.load(config.data.valid)
    task = CodecTask(config, clips, valid)
    state = run_training(task, config.train, directory, resume=resume)
    tensors = state.tensors()  # gathered from all processes, so all of them must call it
    codec = task.model()
    codec.load_state_dict(dict(tensors.get("ema", tensors["model"])))
    hop = config.model.hop
    codec.fit(nn.functional.pad(w, (0, -len(w) % hop))[None, None] for w in task.waves)
    if int(os.environ.get("RANK", "0")) == 0:
        codec.save(directory / "codec.safetensors")
    return codec.eval(), state
