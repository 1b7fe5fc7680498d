"""Training an embedder of images and texts: settings, batches and loss for the training engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sciffusion.config import to_dict
from sciffusion.training import Order, Shuffled, StepLoss, Task, TrainConfig

from .captions import Captions, captions
from .container import Images
from .embedder import Embedder, EmbedderConfig
from .task import DataConfig

__all__ = ["EmbedderTask", "EmbedderTraining"]


@final
@dataclass(frozen=True)
class EmbedderTraining:
    """All settings of a training run: what a configuration file holds. ``data`` must name captions."""

    kind: Literal["embedder"] = "embedder"
    model: EmbedderConfig = EmbedderConfig()
    data: DataConfig = DataConfig(source="scenes:train", valid="scenes:test", captions="scenes")
    train: TrainConfig = TrainConfig()


Batch = tuple[Tensor, Tensor, Tensor]


@final
class EmbedderTask(Task[Batch]):
    """Learning which text belongs to which image. Raises ``ValueError`` for data without captions."""

    def __init__(
        self, config: EmbedderTraining, images: Images, valid: Images | None = None
    ) -> None:
        if config.data.captions is None:
            raise ValueError("data.captions is missing: an embedder learns from images and texts")
        self.captions: Captions = captions(config.data.captions)
        self.captions.check(images)
        model = replace(
            config.model,
            channels=images.channels,
            size=images.size,
            text=config.model.text.settled(),
        )
        self.config, self.images, self.valid = replace(config, model=model), images, valid

    def model(self) -> Embedder:
        """The untrained embedder."""
        return Embedder(self.config.model)

    def order(self, config: TrainConfig) -> Order:
        """Images in a new order each epoch."""
        return Shuffled(len(self.images), config.batch_size, config.seed)

    def batch(self, indices: NDArray[np.int64], key: int, device: torch.device) -> Batch:
        """Pixels, and the tokens of a text for each."""
        return self._pairs(self.images[indices], key, device)

    def _pairs(self, images: Images, key: int, device: torch.device) -> Batch:
        texts = self.captions.texts(images, key, self.config.data.detailed)
        cond = self.config.model.text.condition(texts, len(texts))
        parts = (images.to_floats().pixels, cond["text"], cond["text_mask"])
        x, text, mask = (part.to(device) for part in parts)
        return x, text, mask

    def loss(self, model: nn.Module, batch: Batch, key: int) -> StepLoss:
        """The contrastive loss."""
        scores = model(*batch)
        own = torch.arange(len(scores), device=scores.device)
        both = F.cross_entropy(scores, own) + F.cross_entropy(scores.mT, own)
        return StepLoss(both / 2)

    def validate(self, model: nn.Module, key: int) -> dict[str, float]:
        """How many of up to 256 held-out images find their own text among all of these."""
        if self.valid is None:
            return {}
        assert isinstance(model, Embedder)
        x, text, mask = self._pairs(self.valid[:256], 0, next(model.parameters()).device)
        with torch.no_grad():
            found = model(x, text, mask).argmax(1)
        return {"accuracy": float((found.cpu() == torch.arange(len(x))).double().mean())}

    def finished(self, weights: Mapping[str, Tensor]) -> Embedder:
        """The trained embedder, its references measured on the training images."""
        made = self.model()
        made.load_state_dict(dict(weights))
        made.eval()
        made.fit(self.images)
        made.info |= self.validate(made, 0)
        return made

    def describe(self) -> dict[str, object]:
        """Everything that shapes the run but the engine's own settings."""
        c = self.config
        parts = {"model": to_dict(c.model), "data": to_dict(replace(c.data, path=None))}
        return parts | {"images": len(self.images)}
