"""A small classifier of images: the judge of samples, and the features in which sets of images are compared.

It is trained on real images only, and knows nothing of any generator. A distance of its features is a distance in this
network's eyes, and is named after it: no Inception network is at work here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciffusion.training import ModelFile, write_model

from .container import Images

__all__ = ["Classifier", "ClassifierConfig"]

_KIND = "image-classifier"


@final
@dataclass(frozen=True)
class ClassifierConfig:
    """A convolutional network; every level after the first has half the points on both axes.

    ``features`` is the width of the layer before the classes. ``classes`` are found in the training data if empty.
    """

    channels: int = 1
    widths: tuple[int, ...] = (16, 32, 64)
    features: int = 64
    attribute: str = "label"
    classes: tuple[str, ...] = ()
    size: tuple[int, int] = (0, 0)


@final
class Classifier(nn.Module):
    """Images (B, C, H, W), 0 to 1, to features and to the logits of classes.

    ``info`` says what it was trained on and how many held-out images it tells right.
    """

    def __init__(self, config: ClassifierConfig, info: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.config, self.info = config, dict(info or {})
        widths = (config.channels, *config.widths)
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(zip(widths, widths[1:], strict=False)):
            stride = 2 if i else 1
            layers += [nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
            if i:  # the finest level has the most points and the least to tell
                layers += [nn.Conv2d(b, b, 3, 1, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        shrink = 2 ** (len(config.widths) - 1)
        points = [-(-n // shrink) for n in config.size]
        # one more halving by a mean, so that places still count, on the coarsest grid
        self.pooled = (max(1, (points[0] + 1) // 2), max(1, (points[1] + 1) // 2))
        self.wide = nn.Linear(config.widths[-1] * self.pooled[0] * self.pooled[1], config.features)
        self.last = nn.Linear(config.features, len(config.classes))
        self.dropout = nn.Dropout(0.3)

    def embed(self, x: Tensor) -> Tensor:
        """Features (B, D) of pixels."""
        h = F.adaptive_avg_pool2d(self.body(2 * x - 1), self.pooled)
        return F.gelu(self.wide(h.flatten(1)))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, classes) of pixels."""
        return self.last(self.dropout(self.embed(x)))

    @torch.no_grad()
    def features(self, images: Images, batch_size: int = 512) -> Tensor:
        """Features (N, D) of images, float64. Raises ``ValueError`` for images of another size or other channels."""
        return torch.cat([self.embed(x).double() for x in self._batches(images, batch_size)])

    @torch.no_grad()
    def probabilities(self, images: Images, batch_size: int = 512) -> Tensor:
        """Probabilities (N, classes) of the classes, in the order of ``config.classes``."""
        return torch.cat([self(x).softmax(1) for x in self._batches(images, batch_size)])

    def index(self, labels: Any) -> Tensor:
        """The numbers of classes by name, -1 for names that are none."""
        known = {name: i for i, name in enumerate(self.config.classes)}
        return torch.tensor([known.get(str(v), -1) for v in labels])

    def _batches(self, images: Images, batch_size: int) -> tuple[Tensor, ...]:
        c = self.config
        if images.size != c.size or images.channels != c.channels:
            raise ValueError(
                f"this classifier knows images of {c.size[0]} x {c.size[1]} and {c.channels} channels, got {images!r}"
            )
        self.eval()
        return images.to_floats().pixels.split(batch_size)

    def save(self, path: str | Path, info: Mapping[str, Any] | None = None) -> Path:
        """Write weights and settings to one safetensors file, weights rounded to float16."""
        said = {**self.info, **(info or {})}
        meta = {"model": self.config, "info": said}
        return write_model(path, _KIND, meta, {"": self.state_dict()})

    @classmethod
    def load(cls, path: str | Path) -> Classifier:
        """Read what :meth:`save` wrote. Raises ``ValueError`` for a file of another kind."""
        file = ModelFile.read(path, _KIND, "a classifier of images")
        made = cls(file.config(ClassifierConfig, "model"), file.meta["info"])
        made.load_state_dict(file.tensors)
        return made.eval()
