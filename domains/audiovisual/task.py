"""Training a model of scenes: settings, batches and loss for the training engine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sciffusion.codec import Affine
from sciffusion.config import to_dict
from sciffusion.denoiser import Preconditioned
from sciffusion.inverse import KnownFields
from sciffusion.layout import Dense
from sciffusion.noise import Noise, sample_seeds
from sciffusion.objective import LogNormal, Objective
from sciffusion.pixels import to_floats
from sciffusion.state import State
from sciffusion.training import Order, Shuffled, StepLoss, Task, TrainConfig

from ..audio.mel import LogMel
from ..video.api import load as load_film_model
from ..video.networks import FilmNet
from ..video.task import Capped
from .adapter import FIELDS, ModelConfig, pair
from .data import NUMBERS, TalkingDigits
from .networks import SceneNet

__all__ = ["DataConfig", "ObjectiveConfig", "SceneTask", "SceneTraining", "laws", "scaled"]


@final
@dataclass(frozen=True)
class DataConfig:
    """Which scenes to learn from: a part of the digits that say their name, and another to measure the loss on.

    ``path`` is a copy of the spoken digits (None: that in the cache).
    """

    source: Literal["talking-digits:train", "talking-digits:test"] = "talking-digits:train"
    valid: Literal["talking-digits:train", "talking-digits:test"] | None = None
    path: Path | None = None

    def load(self, source: str | None = None) -> TalkingDigits:
        """A part of the data (None: that to learn from)."""
        return TalkingDigits.of((source or self.source).partition(":")[2], self.path)


@final
@dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised, and at which noise levels.

    The logarithm of noise over signal, of both fields, is normal with ``time_mean`` and ``time_std``. A squared error
    of what is clean counts as much as one of the preconditioned output, up to ``heaviest`` times. ``known`` is the
    share of the scenes of which one field is known, ``alone`` that of which one is not there; in all others both are
    noised alike. ``drop`` is the share of the scenes that lose an attribute, each by itself, and ``sound`` the weight
    of the sound beside the film, much of which is silence.
    """

    time_mean: float = 0.8
    time_std: float = 1.4
    heaviest: float = 8.0
    known: float = 0.4
    alone: float = 0.2
    drop: float = 0.3
    sound: float = 2.0

    def __post_init__(self) -> None:
        if not (self.known >= 0 and self.alone >= 0 and self.known + self.alone <= 1):
            raise ValueError(f"known and alone must be shares, got {self.known} and {self.alone}")


@final
@dataclass(frozen=True)
class SceneTraining:
    """All settings of a training run: what a configuration file holds.

    ``start`` is a trained model of films, the name of one that ships or a file, whose knowledge the half of the film
    begins with; None: nothing.
    """

    model: ModelConfig = ModelConfig()
    start: str | None = None
    data: DataConfig = DataConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    train: TrainConfig = TrainConfig()


@final
@dataclass(frozen=True, eq=False)
class Batch:
    """Scenes ``x`` in units of the model, their attributes, and which fields are shown and hidden, (B,) by name."""

    x: State
    cond: dict[str, Tensor]
    shown: dict[str, Tensor]
    hidden: dict[str, Tensor]


@final
class SceneTask(Task[Batch]):
    """Learning to generate scenes; ``pixels`` and ``spectra`` are the affine maps to the units of the model.

    Raises ``ValueError`` for films of another rate than the model's, and attributes that are no labels of the voices.
    """

    def __init__(
        self, config: SceneTraining, scenes: TalkingDigits, valid: TalkingDigits | None = None
    ) -> None:
        if scenes.rate != config.model.rate:
            raise ValueError(f"model.rate is {config.model.rate}, but the films' is {scenes.rate}")
        classes = config.model.asked.found(scenes.voices.labels).classes
        config = replace(config, model=replace(config.model, classes=classes))
        self.config, self.scenes, self.valid = config, scenes, valid
        u = Noise(0).uniform(torch.zeros(256, NUMBERS), Dense(256))
        films, mels, _ = self._made(scenes, u)
        # one number for all frequencies, for their differences are part of a sound; rounded, for the last digits of a
        # sum depend on the number of threads
        self.pixels, self.spectra = (_affine(v) for v in (films, mels))
        self.start = None if config.start is None else load_film_model(config.start)
        if self.start is not None:
            self.pixels = self.start.codec.affine
        o, null = config.objective, config.model.asked.sizes
        self.objective = Objective(
            config.model.process(),
            weight=Capped(o.heaviest),
            times=LogNormal(o.time_mean, o.time_std),
            field_weights={"sound": o.sound},
            null=null or None,
            drop=dict.fromkeys(null, o.drop) if null else 0.0,
        )

    def _made(self, scenes: TalkingDigits, u: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Pixels (B, T, C, H, W), 0 to 1, log-mel spectra (B, S, mels), and attributes of numbers (B, 7)."""
        model = self.config.model
        made = scenes.render(u.double(), model.shape[0], model.shape[1:], model.mel)
        waves = nn.functional.pad(made.waves, (0, model.samples - made.waves.shape[1]))
        labels = {k: np.asarray(v)[made.voices.numpy()] for k, v in scenes.voices.labels.items()}
        return to_floats(made.films), LogMel(model.mel).encode(waves).mT, model.asked.rows(labels)

    def encode(self, films: Tensor, mels: Tensor) -> State:
        """Pixels and spectra as the model sees them."""
        return pair(scaled(self.pixels, films), scaled(self.spectra, mels))

    def model(self) -> Preconditioned:
        """The untrained denoiser, or one whose film begins with what a model of films knows."""
        denoiser = self.config.model.denoiser()
        if self.start is not None:
            net, film = denoiser.net, self.start.denoiser.net
            assert isinstance(net, SceneNet) and isinstance(film, FilmNet)
            net.begin_with(film)
        return denoiser

    def order(self, config: TrainConfig) -> Order:
        """All pictures once in every epoch."""
        return Shuffled(len(self.scenes), config.batch_size, config.seed)

    def batch(self, indices: NDArray[np.int64], key: int, device: torch.device) -> Batch:
        """New scenes of these pictures."""
        return self._batch(self.scenes, indices, key, device)

    def _batch(
        self, scenes: TalkingDigits, rows: NDArray[np.int64], key: int, device: torch.device
    ) -> Batch:
        # a stream apart from that of the loss: what is shown must not tell the noise level
        noise, n = Noise(sample_seeds(key, 1)[0]), len(rows)
        u = noise.uniform(torch.zeros(n, NUMBERS + 1), Dense(n)).double()
        u[:, 4] = (torch.from_numpy(rows.copy()) + 0.5) / len(scenes)
        films, mels, cond = self._made(scenes, u[:, :NUMBERS])
        x = self.encode(films, mels)
        shown, hidden = laws(u[:, NUMBERS], self.config.objective)
        fields = {k: v.to(device) for k, v in x.items()}
        cond = {k: v.to(device) for k, v in cond.items()}
        return Batch(pair(fields["film"], fields["sound"]), cond, shown, hidden)

    def loss(self, model: nn.Module, batch: Batch, key: int) -> StepLoss:
        """The mean squared error of both fields; what is shown or hidden costs nothing."""
        known = KnownFields(model, batch.x, batch.shown, batch.hidden)  # type: ignore[arg-type]
        found = self.objective(known, batch.x, batch.cond or None, noise=Noise(key))
        return StepLoss(found.mean, {str(k): v.mean().detach() for k, v in found.per_field.items()})

    def validate(self, model: nn.Module, key: int) -> dict[str, float]:
        """The losses of 128 held-out scenes, always with the same noise."""
        if self.valid is None:
            return {}
        device, losses = next(model.parameters()).device, []
        for step in range(4):
            rows = np.arange(step * 32, (step + 1) * 32) % len(self.valid)
            batch = self._batch(self.valid, rows, key + step, device)
            with torch.no_grad():
                loss = self.loss(model, batch, key + step)
            losses.append([float(loss.mean), *(float(loss.logs[k]) for k in FIELDS)])
        mean = np.mean(losses, axis=0).tolist()
        return dict(zip(("loss", *FIELDS), mean, strict=True))

    def describe(self) -> dict[str, object]:
        """Everything that shapes the run but the engine's own settings."""
        c = self.config
        parts = {"model": c.model, "data": replace(c.data, path=None), "objective": c.objective}
        told = {k: to_dict(v) for k, v in parts.items()}
        return told | {"start": c.start, "pictures": len(self.scenes)}


def laws(u: Tensor, config: ObjectiveConfig) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Which fields are shown, and which hidden, (B,) by name, of numbers (B,) uniform on [0, 1): never both of them."""
    known, alone = config.known, config.alone
    shown = {
        "film": u < known / 2,
        "sound": (u >= known / 2) & (u < known),
    }
    hidden = {
        "film": (u >= known) & (u < known + alone / 2),
        "sound": (u >= known + alone / 2) & (u < known + alone),
    }
    return shown, hidden


def _affine(x: Tensor) -> Affine:
    mean, std = ((v * 2**16).round() / 2**16 for v in (x.double().mean(), x.double().std()))
    return Affine([float(mean)], [float(std)])


def scaled(affine: Affine, x: Tensor) -> Tensor:
    """A field in units of an affine map with one number for all of it."""
    return affine(x[:, None])[:, 0]
