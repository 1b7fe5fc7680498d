r"""Images and texts as vectors of one space, near each other where a text is true of an image (CLIP).

(Radford et al. 2021.) Of a batch of pairs either side must tell which of the other side's vectors is its own,

.. math:: L = -\tfrac12 \sum_i \log \frac{e^{s\, u_i \cdot v_i}}{\sum_j e^{s\, u_i \cdot v_j}}
    + \log \frac{e^{s\, u_i \cdot v_i}}{\sum_j e^{s\, u_j \cdot v_i}},

with unit vectors u of images and v of texts and a learned scale s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciffusion.networks import FourierEmbedding
from sciffusion.networks.blocks import Block
from sciffusion.training import ModelFile, write_model

from .container import Images
from .texts import TextConfig

__all__ = ["Embedder", "EmbedderConfig"]

ORDER = 32
"""Fourier features of a token's place in the text."""


@final
@dataclass(frozen=True)
class EmbedderConfig:
    """Convolutions that halve the size after the first of ``widths``, and a transformer over the tokens of texts.

    ``features`` is the width E of the vectors, ``width`` and ``depth`` are those of the transformer.
    """

    channels: int = 3
    size: tuple[int, int] = (0, 0)
    widths: tuple[int, ...] = (24, 48, 96)
    features: int = 64
    text: TextConfig = TextConfig()
    width: int = 96
    depth: int = 2


@final
class Embedder(nn.Module):
    """Images (B, C, H, W), 0 to 1, and tokens (B, L, D) to unit vectors (B, E).

    :meth:`references` makes of them what a decoder is told, with mean zero and variance one over the images that
    :meth:`fit` saw.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: EmbedderConfig, info: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.config, self.info = config, dict(info or {})
        pairs = zip((config.channels, *config.widths), config.widths, strict=False)
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(pairs):
            layers += [nn.Conv2d(a, b, 3, 2 if i else 1, 1), nn.GroupNorm(4, b), nn.GELU()]
        self.images = nn.Sequential(*layers)
        shrink = 2 ** (len(config.widths) - 1)
        h, w = (-(-n // shrink) for n in config.size)
        self.seen = nn.Linear(config.widths[-1] * h * w, config.features)
        self.order = FourierEmbedding(ORDER, 128.0, 2.0)
        self.first = nn.Linear(config.text.width + ORDER, config.width)
        self.blocks = nn.ModuleList(
            Block(config.width, 4, 2 * config.width, 0) for _ in range(config.depth)
        )
        self.told = nn.Linear(config.width, config.features)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("mean", torch.zeros(config.features))
        self.register_buffer("std", torch.ones(config.features))

    def forward(self, x: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """How well every image (rows) goes with every text (columns), (B, B): logits for both."""
        scale = self.scale.exp().clamp(max=100.0)
        return scale * self.see(x) @ self.read(text, mask).mT

    def see(self, x: Tensor) -> Tensor:
        """The unit vectors of pixels."""
        return F.normalize(self.seen(self.images(2 * x - 1).flatten(1)), dim=1)

    def read(self, text: Tensor, mask: Tensor) -> Tensor:
        """The unit vectors of texts: tokens (B, L, D), and which of them count (B, L)."""
        places = self.order(torch.arange(text.shape[1], device=text.device)).to(text)
        h = self.first(torch.cat((text, places.expand(len(text), -1, -1)), -1))
        for block in self.blocks:
            h = block(h, None, None, mask, None, None)
        share = mask / mask.sum(1, keepdim=True).clamp(min=1)
        return F.normalize(self.told(torch.einsum("bld,bl->bd", h, share.to(h))), dim=1)

    @torch.no_grad()
    def embed(self, images: Images, batch_size: int = 512) -> Tensor:
        """The unit vectors (N, E) of images. Raises ``ValueError`` for another size or other channels."""
        c = self.config
        if images.size != c.size or images.channels != c.channels:
            raise ValueError(
                f"this embedder knows images of {c.size[0]} x {c.size[1]} and {c.channels} channels, got {images!r}"
            )
        return torch.cat([self.see(x) for x in images.to_floats().pixels.split(batch_size)])

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """The unit vectors (N, E) of texts."""
        return self.read(*self.config.text.condition(texts, len(texts)).values())

    def fit(self, images: Images) -> None:
        """Measure mean and spread of the vectors of images."""
        found = self.embed(images)
        self.mean.copy_(found.mean(0))
        self.std.copy_(found.std(0).clamp(min=1e-6))

    def references(self, vectors: Tensor) -> Tensor:
        """Unit vectors as a decoder is told them."""
        return (vectors - self.mean) / self.std

    def labelled(self, images: Images) -> Images:
        """The same images with their references as the label ``reference``."""
        return images.labelled(reference=self.references(self.embed(images)).numpy())

    def vectors(self, references: Tensor) -> Tensor:
        """The unit vectors nearest to references: the inverse of :meth:`references`."""
        return F.normalize(references * self.std + self.mean, dim=1)

    def save(self, path: str | Path, info: Mapping[str, Any] | None = None) -> Path:
        """Write settings and weights, rounded to float16, to one safetensors file."""
        state = self.state_dict()
        exact = {k: state.pop(k) for k in ("mean", "std")}
        meta = {"model": self.config, "info": {**self.info, **(info or {})}}
        return write_model(path, "image-embedder", meta, {"": state}, {"": exact})

    @classmethod
    def load(cls, path: str | Path) -> Embedder:
        """Read what :meth:`save` wrote. Raises ``ValueError`` for a file of another kind."""
        file = ModelFile.read(path, "image-embedder", "an embedder of images and texts")
        made = cls(file.config(EmbedderConfig, "model"), file.meta["info"])
        made.load_state_dict(dict(file.tensors))
        return made.eval()
