"""Training a classifier of images: settings, batches and loss for the training engine."""

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
from sciffusion.noise import Noise
from sciffusion.training import Order, Shuffled, StepLoss, Task, TrainConfig

from .classifier import Classifier, ClassifierConfig
from .container import Images
from .task import DataConfig

__all__ = ["ClassifierTask", "ClassifierTraining"]


@final
@dataclass(frozen=True)
class ClassifierTraining:
    """All settings of a training run: what a configuration file holds.

    Every image is moved by up to ``shift`` pixels on both axes, its edges continued, and turned left to right with the
    probability ``flip``: the classifier shall tell classes, not places.
    """

    kind: Literal["classifier"] = "classifier"
    model: ClassifierConfig = ClassifierConfig()
    data: DataConfig = DataConfig()
    shift: int = 1
    flip: float = 0.0
    smoothing: float = 0.05
    train: TrainConfig = TrainConfig()


Batch = tuple[Tensor, Tensor]


@final
class ClassifierTask(Task[Batch]):
    """Learning to tell the classes of a data set. Raises ``ValueError`` for a label that the images lack."""

    def __init__(
        self, config: ClassifierTraining, images: Images, valid: Images | None = None
    ) -> None:
        name = config.model.attribute
        for part in (images, *([] if valid is None else [valid])):
            if name not in part.labels:
                known = ", ".join(part.labels) or "none"
                raise ValueError(f"model.attribute is {name!r}; labels of the images: {known}")
        classes = config.model.classes or tuple(str(v) for v in np.unique(images.labels[name]))
        model = replace(config.model, classes=classes, size=images.size, channels=images.channels)
        self.config = replace(config, model=model)
        self.images, self.valid = images, valid
        self.rows = self.model().index(images.labels[name])

    def model(self) -> Classifier:
        """The untrained network."""
        return Classifier(self.config.model)

    def order(self, config: TrainConfig) -> Order:
        """Images in a new order each epoch."""
        return Shuffled(len(self.images), config.batch_size, config.seed)

    def batch(self, indices: NDArray[np.int64], key: int, device: torch.device) -> Batch:
        """Pixels (B, C, H, W), moved, and the numbers of their classes."""
        noise, x = Noise(key), self.images[indices].to_floats().pixels
        n, s = len(x), self.config.shift
        flipped = noise.scalars(n) < self.config.flip
        x = torch.where(flipped[:, None, None, None], x.flip(3), x)
        moves = [(noise.scalars(n) * (2 * s + 1)).long().tolist() for _ in range(2)]
        wide = F.pad(x, (s, s, s, s), mode="replicate")
        h, w = x.shape[2:]
        moved = [p[:, i : i + h, j : j + w] for p, i, j in zip(wide, *moves, strict=True)]
        return torch.stack(moved).to(device), self.rows[torch.from_numpy(indices.copy())].to(device)

    def loss(self, model: nn.Module, batch: Batch, key: int) -> StepLoss:
        """The cross-entropy, with targets smoothed a little, and the accuracy beside it."""
        logits = model(batch[0])
        loss = F.cross_entropy(logits, batch[1], label_smoothing=self.config.smoothing)
        right = (logits.argmax(1) == batch[1]).float().mean()
        return StepLoss(loss, {"accuracy": right})

    def validate(self, model: nn.Module, key: int) -> dict[str, float]:
        """The accuracy on held-out images."""
        if self.valid is None:
            return {}
        assert isinstance(model, Classifier)
        return {"accuracy": accuracy(model, self.valid)}

    def finished(self, weights: Mapping[str, Tensor]) -> Classifier:
        """The trained classifier, with its accuracy on the held-out images in ``info``."""
        made = self.model()
        made.load_state_dict(dict(weights))
        made.eval()
        if self.valid is not None:
            made.info["accuracy"] = accuracy(made, self.valid)
            made.info["held_out"] = len(self.valid)
        return made

    def describe(self) -> dict[str, object]:
        """Everything that shapes the run but the engine's own settings."""
        c = self.config
        parts = {"model": to_dict(c.model), "data": to_dict(replace(c.data, path=None))}
        own = {"shift": c.shift, "flip": c.flip, "smoothing": c.smoothing}
        return parts | own | {"images": len(self.images)}


def accuracy(classifier: Classifier, images: Images) -> float:
    """The share of images whose class is told right."""
    told = classifier.probabilities(images).argmax(1).cpu()
    return float(
        (told == classifier.index(images.labels[classifier.config.attribute])).double().mean()
    )
