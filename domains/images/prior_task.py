"""Training a prior of embeddings: settings, batches and loss for the training engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sciffusion.config import to_dict
from sciffusion.denoiser import Preconditioned
from sciffusion.noise import Noise
from sciffusion.objective import EDM, LogNormal, Objective
from sciffusion.sampling import SamplingConfig
from sciffusion.training import Order, Shuffled, StepLoss, Task, TrainConfig

from .captions import Captions, captions
from .container import Images
from .embedder import Embedder
from .prior import Prior, PriorConfig
from .task import DataConfig, ObjectiveConfig

__all__ = ["PriorTask", "PriorTraining"]


@final
@dataclass(frozen=True)
class PriorTraining:
    """All settings of a training run: what a configuration file holds.

    ``embedder`` is the file of a trained one, of whose vectors the prior is to be. ``data`` must name captions.
    ``sampling`` is stored with the prior and shapes nothing in training.
    """

    kind: Literal["prior"] = "prior"
    embedder: Path | None = None
    model: PriorConfig = PriorConfig()
    data: DataConfig = DataConfig(source="scenes:train", captions="scenes")
    objective: ObjectiveConfig = ObjectiveConfig(time_mean=0.0)
    sampling: SamplingConfig = SamplingConfig()
    train: TrainConfig = TrainConfig()


Batch = tuple[Tensor, dict[str, Tensor]]


@final
class PriorTask(Task[Batch]):
    """Learning which vectors of an embedder's images go with a text.

    Raises ``ValueError`` for data without captions, and without an embedder.
    """

    def __init__(self, config: PriorTraining, images: Images) -> None:
        if config.embedder is None:
            raise ValueError("embedder is missing: give the file of a trained one")
        embedder = Embedder.load(config.embedder)
        if config.data.captions is None:
            raise ValueError("data.captions is missing: a prior learns from images and texts")
        self.captions: Captions = captions(config.data.captions)
        self.captions.check(images)
        model = replace(
            config.model,
            features=embedder.config.features,
            text=config.model.text.settled(),
        )
        self.config, self.images = replace(config, model=model), images
        self.vectors = embedder.references(embedder.embed(images))
        self.objective = Objective(
            model.process(),
            weight=EDM(),
            times=LogNormal(config.objective.time_mean, config.objective.time_std),
            null=model.null(),
            drop=config.objective.drop,
        )

    def model(self) -> Preconditioned:
        """The untrained denoiser."""
        return self.config.model.denoiser()

    def order(self, config: TrainConfig) -> Order:
        """Images in a new order each epoch."""
        return Shuffled(len(self.images), config.batch_size, config.seed)

    def batch(self, indices: NDArray[np.int64], key: int, device: torch.device) -> Batch:
        """The vectors of these images, and the tokens of a text for each."""
        texts = self.captions.texts(self.images[indices], key, self.config.data.detailed)
        cond = self.config.model.text.condition(texts, len(texts))
        vectors = self.vectors[torch.from_numpy(indices.copy())]
        return vectors.to(device), {k: v.to(device) for k, v in cond.items()}

    def loss(self, model: nn.Module, batch: Batch, key: int) -> StepLoss:
        """The mean squared error of the normalised target."""
        loss = self.objective(model, batch[0], batch[1], noise=Noise(key))  # type: ignore[arg-type]
        return StepLoss(loss.mean)

    def finished(self, weights: Mapping[str, Tensor], info: Mapping[str, Any]) -> Prior:
        """The trained prior."""
        denoiser = self.model()
        denoiser.load_state_dict(dict(weights))
        return Prior(self.config.model, denoiser.eval(), self.config.sampling, info)

    def describe(self) -> dict[str, object]:
        """Everything that shapes the run but the engine's own settings."""
        c = self.config
        parts = {"model": c.model, "data": replace(c.data, path=None), "objective": c.objective}
        return {k: to_dict(v) for k, v in parts.items()} | {"images": len(self.images)}
