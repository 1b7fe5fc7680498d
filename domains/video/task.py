"""Training a model of films: settings, batches and loss for the training engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sciffusion.config import to_dict
from sciffusion.denoiser import Preconditioned
from sciffusion.inverse import Known
from sciffusion.layout import Dense
from sciffusion.noise import Noise, sample_seeds
from sciffusion.objective import EDM, LogNormal, Objective, Weight
from sciffusion.pixels import to_floats
from sciffusion.schedule import Schedule
from sciffusion.training import Order, Shuffled, StepLoss, Task, TrainConfig

from .adapter import ModelConfig
from .autoencoder import CausalAutoencoder, FilmCodec, Frames
from .datasets import MovingDigits, digits, load
from .lessons import Crops, Endless, Lessons, shown

__all__ = ["DataConfig", "ObjectiveConfig", "VideoTask", "VideoTraining"]


@final
@dataclass(frozen=True)
class Capped(Weight):
    r""":math:`w = \min(\mathrm{SNR} + 1, m)`: that of :class:`~sciffusion.objective.EDM`, but never above m.

    A network that puts out the clean film itself cannot err as little as noise falls, and rare films with next to no
    noise would be most of the loss.
    """

    heaviest: float

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        return EDM()(schedule, t).clamp(max=self.heaviest)


@final
@dataclass(frozen=True)
class DataConfig:
    """Which films to learn from.

    ``source`` is a part of a data set, a file or a folder (see :func:`.datasets.load`), ``valid`` another one to
    measure the loss on; ``path`` a local copy. Moving digits are made anew for every batch. Every batch has one of the
    ``shapes`` (frames, height, width), all equally often.
    """

    source: str = "moving-digits:train"
    valid: str | None = None
    path: Path | None = None
    limit: int | None = None
    shapes: tuple[tuple[int, int, int], ...] = ((16, 32, 32),)

    def lessons(self, source: str | None = None) -> Lessons:
        """The films of a part of the data (None: those to learn from)."""
        name, _, part = (source or self.source).partition(":")
        if name == "moving-digits":
            return Endless(MovingDigits(digits(part or "train", self.path)))
        return Crops(load(source or self.source, self.path, limit=self.limit), self.shapes)


@final
@dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised, and at which noise levels.

    The logarithm of noise over signal is normal with ``time_mean`` and ``time_std``. A squared error of the clean film
    counts as much as one of the preconditioned output, up to ``heaviest`` times (see :class:`Capped`). ``drop`` is the
    share of the films that lose their condition, ``shown`` the share of which some frames are shown clean, see
    :func:`.lessons.shown`.
    """

    time_mean: float = 1.0
    time_std: float = 1.4
    drop: float = 0.1
    shown: float = 0.5
    heaviest: float = 8.0

    def __post_init__(self) -> None:
        if not 0 < self.shown <= 1:
            raise ValueError(f"shown must lie above 0 and up to 1, got {self.shown}")
        if not self.heaviest > 0:
            raise ValueError(f"heaviest must be positive, got {self.heaviest}")


@final
@dataclass(frozen=True)
class VideoTraining:
    """All settings of a training run: what a configuration file holds.

    ``autoencoder`` is the file of a trained one, in whose latent the model shall work; None: pixels.
    """

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    train: TrainConfig = TrainConfig()
    autoencoder: Path | None = None


@final
@dataclass(frozen=True, eq=False)
class Batch:
    """Films ``x`` (B, T, C, H, W) as the model sees them, the frames that are shown (B, T), and the condition."""

    x: Tensor
    shown: Tensor
    cond: dict[str, Tensor]


@final
class VideoTask(Task[Batch]):
    """Learning to generate the films of a data set.

    Raises ``ValueError`` for attributes that are no labels, films of other channels than the model's, an autoencoder
    beside settings of another one, and lengths that it cannot encode.
    """

    def __init__(
        self, config: VideoTraining, lessons: Lessons, valid: Lessons | None = None
    ) -> None:
        classes = config.model.asked.found(lessons.labels).classes
        self.codec = _codec(config, lessons)
        found = self.codec.config if isinstance(self.codec, CausalAutoencoder) else None
        model = replace(config.model, classes=classes, codec=found)
        self.config = replace(config, model=model)
        self.lessons, self.valid = lessons, valid
        self.rows = self.config.model.asked.rows(lessons.labels)
        for shape in config.data.shapes:
            self.codec.frames(shape[0])
        objective, null = self.config.objective, self.config.model.asked.sizes
        self.objective = Objective(
            self.config.model.process(),
            weight=Capped(objective.heaviest),
            times=LogNormal(objective.time_mean, objective.time_std),
            null=null or None,
            drop=objective.drop if null else 0.0,
        )

    def model(self) -> Preconditioned:
        """The untrained denoiser."""
        return self.config.model.denoiser()

    def order(self, config: TrainConfig) -> Order:
        """All films once in every epoch."""
        return Shuffled(len(self.lessons), config.batch_size, config.seed)

    def batch(self, indices: NDArray[np.int64], key: int, device: torch.device) -> Batch:
        """The films of these rows: a window of each, some of its frames shown."""
        return self._batch(self.lessons, self.rows, indices, key, device)

    def _batch(
        self,
        lessons: Lessons,
        rows: Mapping[str, Tensor],
        indices: NDArray[np.int64],
        key: int,
        device: torch.device,
    ) -> Batch:
        # a stream apart from that of the loss: windows must not tell the noise level
        noise, n = Noise(sample_seeds(key, 1)[0]), len(indices)
        shapes = self.config.data.shapes
        shape = shapes[int(noise.scalars(1)[0] * len(shapes))]
        frames = self.codec.frames(shape[0])
        u = noise.uniform(torch.zeros(n, 6 + frames), Dense(n))
        x = to_floats(lessons.draw(indices, u[:, :4], shape).to(device))
        self.codec.to(device)
        x = self.codec.latents(x)
        at = torch.from_numpy(indices.copy())
        return Batch(
            x,
            shown(u[:, 4:], frames, self.config.objective.shown).to(device),
            {name: row[at].to(device) for name, row in rows.items()},
        )

    def loss(self, model: nn.Module, batch: Batch, key: int) -> StepLoss:
        """The mean squared error of the normalised target; frames that are shown cost nothing."""
        known = Known(model, batch.x, batch.shown)  # type: ignore[arg-type]
        return StepLoss(self.objective(known, batch.x, batch.cond or None, noise=Noise(key)).mean)

    def validate(self, model: nn.Module, key: int) -> dict[str, float]:
        """The loss of 256 held-out films, with their conditions, always with the same noise."""
        if self.valid is None:
            return {}
        device, rows = (
            next(model.parameters()).device,
            self.config.model.asked.rows(self.valid.labels),
        )
        objective, size = replace(self.objective, drop=0.0), min(32, len(self.valid))
        losses = []
        for step in range(8):
            indices = np.arange(step * size, (step + 1) * size) % len(self.valid)
            batch = self._batch(self.valid, rows, indices, key + step, device)
            known = Known(model, batch.x, batch.shown)  # type: ignore[arg-type]
            with torch.no_grad():
                loss = objective(known, batch.x, batch.cond or None, noise=Noise(key + step))
            losses.append(float(loss.mean))
        return {"loss": float(np.mean(losses))}

    def describe(self) -> dict[str, object]:
        """Everything that shapes the run but the engine's own settings."""
        c = self.config
        # where the files lie shapes nothing
        parts = {"model": c.model, "data": replace(c.data, path=None), "objective": c.objective}
        return {k: to_dict(v) for k, v in parts.items()} | {"films": len(self.lessons)}


def _codec(config: VideoTraining, lessons: Lessons) -> FilmCodec:
    """The trained autoencoder that is named, or frames, with the mean and deviation of every channel in 256 films."""
    if config.autoencoder is not None:
        codec = CausalAutoencoder.load(config.autoencoder)
        if config.model.codec not in (None, codec.config):
            raise ValueError("model.codec describes another autoencoder than the file does")
        return codec.requires_grad_(False)
    if config.model.codec is not None:
        raise ValueError("model.codec needs autoencoder, the file of a trained one")
    n = min(256, len(lessons))
    rows = np.linspace(0, len(lessons) - 1, n).round().astype(np.int64)
    u = Noise(0).uniform(torch.zeros(n, 4), Dense(n))
    x = to_floats(lessons.draw(rows, u, config.data.shapes[0])).double()
    if x.shape[2] != config.model.channels:
        raise ValueError(
            f"model.channels is {config.model.channels}, but the films have {x.shape[2]}"
        )
    mean, std = x.mean((0, 1, 3, 4)), x.std((0, 1, 3, 4))
    # rounded, for the last digits of a sum depend on the number of threads
    mean, std = ((v * 2**16).round() / 2**16 for v in (mean, std))
    frames = Frames(len(mean))
    frames.affine.set(mean, torch.where(std > 1e-3, std, 1.0))
    return frames
