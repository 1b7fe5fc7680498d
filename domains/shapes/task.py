"""Training a model of shapes: settings, batches and loss for the training engine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sciffusion.config import to_dict
from sciffusion.denoiser import Preconditioned
from sciffusion.layout import Dense
from sciffusion.noise import Noise, sample_seeds
from sciffusion.objective import EDM, LogNormal, Objective
from sciffusion.sampling import SamplingConfig
from sciffusion.space import SO3
from sciffusion.state import State
from sciffusion.training import Order, Shuffled, SizeBuckets, StepLoss, Task, TrainConfig

from .adapter import SAMPLING, ModelConfig, shape_state
from .container import Shapes
from .data import load

__all__ = ["DataConfig", "ObjectiveConfig", "ShapeTask", "ShapeTraining"]


@final
@dataclass(frozen=True)
class DataConfig:
    """Which shapes to learn from.

    ``source`` is a part of a data set that the project knows (``superquadrics:train``), or a file or folder; ``valid``
    another one to measure the loss on. ``path`` is a local copy of the data set. ``limit`` takes the first shapes only.
    ``points`` draws so many points of every shape anew at each step (None: all). ``turn`` turns every shape by a random
    rotation.
    """

    source: str = "superquadrics:train"
    valid: str | None = None
    path: Path | None = None
    limit: int | None = None
    points: int | None = None
    turn: bool = False

    def load(self, source: str | None = None) -> Shapes:
        """The shapes of a part of the data (None: those to learn from)."""
        return load(source or self.source, self.path, limit=self.limit)


@final
@dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised, and at which noise levels.

    The logarithm of noise over signal is normal with ``time_mean`` and ``time_std``. ``drop`` is the share of the
    shapes that lose their condition.
    """

    time_mean: float = -0.5
    time_std: float = 1.4
    drop: float = 0.1


@final
@dataclass(frozen=True)
class ShapeTraining:
    """All settings of a training run: what a configuration file holds.

    ``sampling`` is stored with the model and shapes nothing in training.
    """

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    sampling: SamplingConfig = SAMPLING
    train: TrainConfig = TrainConfig()


Batch = tuple[State, dict[str, Tensor]]


@final
class ShapeTask(Task[Batch]):
    """Learning to generate the shapes of a data set, each about its own centre.

    Raises ``ValueError`` for attributes that are no labels, for shapes of a single point, and for chains of which only
    some points would be drawn.
    """

    def __init__(self, config: ShapeTraining, shapes: Shapes, valid: Shapes | None = None) -> None:
        model, data = config.model, config.data
        sizes = shapes.sizes if data.points is None else np.minimum(shapes.sizes, data.points)
        if int(sizes.min()) < 2:
            raise ValueError("shapes must have at least 2 points: a single one is its own centre")
        self.shapes = shapes.centred()
        self.valid = None if valid is None else valid.centred()
        # rounded, for the last digits of a sum depend on the number of threads
        measured = float(self.shapes.points.double().square().mean().sqrt())
        quantiles = np.quantile(sizes, np.linspace(0, 1, 101), method="nearest").astype(int)
        few = np.unique(sizes)
        found = few if len(few) == 1 else quantiles
        classes = model.asked.found(shapes.labels).classes
        scale = model.scale or round(measured, 6)
        if model.network.chain and data.points is not None:
            raise ValueError("data.points draws points at random, which tears chains: leave it out")
        steps = self.shapes.points.double().diff(dim=0)
        inside = np.delete(np.arange(len(steps)), np.cumsum(self.shapes.sizes)[:-1] - 1)
        bond = round(float(steps[inside].square().mean().sqrt()) / scale, 6)
        model = replace(
            model,
            classes=classes,
            scale=scale,
            bond=(model.bond or bond) if model.network.chain else None,
            sizes=model.sizes or tuple(found.tolist()),
        )
        self.config = replace(config, model=model)
        self.classes = model.asked.rows(shapes.labels)
        null = model.asked.sizes
        self.objective = Objective(
            model.process(),
            weight=EDM(),
            times=LogNormal(config.objective.time_mean, config.objective.time_std),
            null=null or None,
            drop=config.objective.drop if null else 0.0,
        )

    def model(self) -> Preconditioned:
        """The untrained denoiser."""
        return self.config.model.denoiser()

    def order(self, config: TrainConfig) -> Order:
        """Shapes in a new order each epoch, those of near sizes together."""
        sizes = self.shapes.sizes
        if self.config.data.points is not None or len(np.unique(sizes)) == 1:
            return Shuffled(len(sizes), config.batch_size, config.seed)
        return SizeBuckets(
            sizes, config.batch_size, seed=config.seed, max_padding=8, min_bucket=config.batch_size
        )

    def batch(self, indices: NDArray[np.int64], key: int, device: torch.device) -> Batch:
        """The shapes of these rows, thinned and turned, with their condition."""
        # a stream apart from that of the loss: what is drawn here must not tell the noise
        own = sample_seeds(key, 1)[0]
        cond = {k: v[torch.from_numpy(indices.copy())].to(device) for k, v in self.classes.items()}
        return self._state(self.shapes[indices], own, device), cond

    def _state(self, shapes: Shapes, seed: int, device: torch.device) -> State:
        if self.config.data.points is not None:
            shapes = shapes.thinned(self.config.data.points, seed=seed)
        assert self.config.model.scale is not None
        x, mask = shapes.padded()
        if self.config.data.turn:
            like = torch.empty(len(x), 3, 3)
            x = x @ SO3().prior(like, Dense(len(x)), Noise(seed))
        return shape_state(x / self.config.model.scale, mask, device)

    def loss(self, model: nn.Module, batch: Batch, key: int) -> StepLoss:
        """The mean squared error of the normalised target."""
        loss = self.objective(model, batch[0], batch[1] or None, noise=Noise(key))  # type: ignore[arg-type]
        return StepLoss(loss.mean)

    def validate(self, model: nn.Module, key: int) -> dict[str, float]:
        """The loss of up to 256 held-out shapes, with their conditions, always with the same noise."""
        if self.valid is None:
            return {}
        device, part = next(model.parameters()).device, self.valid[:256]
        cond = {k: v.to(device) for k, v in self.config.model.asked.rows(part.labels).items()}
        objective = replace(self.objective, drop=0.0)
        with torch.no_grad():
            x = self._state(part, key, device)
            loss = objective(model, x, cond or None, noise=Noise(key))  # type: ignore[arg-type]
        return {"loss": float(loss.mean)}

    def describe(self) -> dict[str, object]:
        """Everything that shapes the run but the engine's own settings."""
        c = self.config
        # where the file lies shapes nothing
        parts = {"model": c.model, "data": replace(c.data, path=None), "objective": c.objective}
        return {k: to_dict(v) for k, v in parts.items()} | {"shapes": len(self.shapes)}
