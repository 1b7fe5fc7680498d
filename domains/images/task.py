"""Training a model of images: settings, batches and loss for the training engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sciffusion.codec import Codec
from sciffusion.config import to_dict
from sciffusion.denoiser import Preconditioned
from sciffusion.layout import Dense
from sciffusion.noise import Noise, sample_seeds
from sciffusion.objective import EDM, LogNormal, Objective
from sciffusion.pixels import to_floats
from sciffusion.sampling import SamplingConfig
from sciffusion.training import Order, Shuffled, StepLoss, Task, TrainConfig

from .adapter import ModelConfig, read_parts
from .autoencoder import Autoencoder
from .captions import CaptionKind, captions
from .container import Images
from .control import edges
from .datasets import load
from .embedder import Embedder
from .lora import with_terms
from .shelf import SHELF

__all__ = ["DataConfig", "ImageTask", "ImageTraining", "ObjectiveConfig"]


@final
@dataclass(frozen=True)
class DataConfig:
    """Which images to learn from.

    ``source`` is a part of a data set that the project knows (``fashion-mnist:train``), or a file or folder; ``valid``
    another one to measure the loss on. ``path`` is a local copy of the data set. ``limit`` takes the first images only.
    ``captions`` says which texts a model of texts learns from: the images' own (label ``text``), or phrasings of the
    labels of glyphs or scenes, of which a share of ``detailed`` says all that there is to see.
    """

    source: str = "digits:train"
    valid: str | None = None
    path: Path | None = None
    limit: int | None = None
    captions: CaptionKind | None = None
    detailed: float = 0.95

    def load(self, source: str | None = None) -> Images:
        """The images of a part of the data (None: those to learn from)."""
        return load(source or self.source, self.path)[: self.limit]


@final
@dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised, and at which noise levels.

    The logarithm of noise over signal is normal with ``time_mean`` and ``time_std``: on rectified flow times are then
    logit-normal. ``drop`` is the share of the images that lose their condition; a model under control loses its classes
    so often, and apart from them its edges at ``drop_control``. ``flip`` is the share of images turned left to right
    (only where that changes no class).
    """

    time_mean: float = -0.3
    time_std: float = 1.3
    drop: float = 0.1
    drop_control: float = 0.1
    flip: float = 0.0


@final
@dataclass(frozen=True)
class ImageTraining:
    """All settings of a training run: what a configuration file holds.

    ``autoencoder`` is the file of a trained one, in whose latent the model shall work; None: pixels. ``base`` is a
    trained model, the name of one that ships or a file: it stays as it is, and a control by edges is trained, or with a
    ``rank`` an adapter by low-rank terms (LoRA), with everything in ``model`` as it is there. ``embedder`` is the file
    of a trained one: its vectors of the images are then their references, for the decoder of two stages. ``sampling``
    is stored with the model and shapes nothing in training.
    """

    kind: Literal["diffusion"] = "diffusion"
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    autoencoder: Path | None = None
    base: str | None = None
    rank: int | None = None
    embedder: Path | None = None
    sampling: SamplingConfig = SamplingConfig()
    train: TrainConfig = TrainConfig()


Batch = tuple[Tensor, dict[str, Tensor]]


@final
class ImageTask(Task[Batch]):
    """Learning to generate the images of a data set. Latents are made once and kept; pixels stay as they came.

    Raises ``ValueError`` for attributes that are no labels, images with other channels or another size than the
    model's, and an autoencoder beside settings of another one.
    """

    def __init__(self, config: ImageTraining, images: Images, valid: Images | None = None) -> None:
        self.base: Preconditioned | None = None
        codec: Codec | None = None
        if config.base is not None:
            _, before, self.base, codec = read_parts(SHELF.find("model", config.base))
            if config.rank is None and before.control is not None:
                raise ValueError(f"base {config.base!r} is under control already")
            control = "edges" if config.rank is None else before.control
            config = replace(config, model=replace(before, control=control))
        elif config.rank is not None:
            raise ValueError("rank is that of an adapter to a trained model: name one in base")
        model = config.model
        if config.embedder is not None:
            embedder = Embedder.load(config.embedder)
            model = replace(model, reference=embedder.config.features)
            images = embedder.labelled(images)
            valid = None if valid is None else embedder.labelled(valid)
        kind = config.data.captions
        if (model.text is None) != (kind is None):
            raise ValueError(
                f"model.text is {model.text}, data.captions is {kind}: a model of texts needs both, any other neither"
            )
        self.captions = None if kind is None else captions(kind)
        if self.captions is not None:
            self.captions.check(images)
        if config.autoencoder is not None:
            if codec is not None:
                raise ValueError("base has a codec of its own: leave autoencoder out")
            codec = Autoencoder.load(config.autoencoder)
            if model.codec not in (None, codec.config):
                raise ValueError("model.codec describes another autoencoder than the file does")
            model = replace(model, codec=codec.config)
        elif model.codec is not None and codec is None:
            raise ValueError("model.codec needs autoencoder, the file of a trained one")
        if model.text is not None:
            model = replace(model, text=model.text.settled())
        classes = model.asked.found(images.labels).classes
        size = images.size if model.size == (0, 0) else model.size
        model = replace(model, classes=classes, size=size)
        for part in (images, *([] if valid is None else [valid])):
            if part.channels != model.channels or part.size != size:
                raise ValueError(
                    f"the model is one of {size[0]} x {size[1]} pixels and {model.channels} channels, got {part!r}"
                )
        self.config = replace(config, model=model)
        self.images, self.valid = images, valid
        self.codec = codec or model.codec_module()
        if codec is None:
            self.codec.fit(_floats(images))
        self.stored = None if model.codec is None else _latents(self.codec, images)
        self.classes = self._rows(images)
        null = model.null()
        self.objective = Objective(
            model.process(),
            weight=EDM(),
            times=LogNormal(config.objective.time_mean, config.objective.time_std),
            null=null or None,
            drop=_drops(model, config.objective),
        )

    def _rows(self, images: Images) -> dict[str, Tensor]:
        """The class of every image by attribute, and its reference."""
        model = self.config.model
        out = model.asked.rows(images.labels)
        if model.reference:
            found = np.asarray(images.labels.get("reference", ()), dtype=np.float32)
            if found.shape != (len(images), model.reference):
                raise ValueError(
                    f"model.reference is {model.reference}: images need a label 'reference' of as many numbers each, "
                    f"got {found.shape}"
                )
            out["reference"] = torch.from_numpy(found)
        return out

    def model(self) -> Preconditioned:
        """The untrained denoiser; over a base, the base under an untrained control or with untrained terms."""
        model = self.config.model
        if self.base is not None and self.config.rank is not None:
            return with_terms(self.base, self.config.rank)
        return model.denoiser() if self.base is None else model.controlled(self.base)

    def order(self, config: TrainConfig) -> Order:
        """Images in a new order each epoch."""
        return Shuffled(len(self.images), config.batch_size, config.seed)

    def batch(self, indices: NDArray[np.int64], key: int, device: torch.device) -> Batch:
        """What is noised of these images, and their condition."""
        # a stream apart from that of the loss: flips and latents must not tell the noise
        noise, rows = Noise(sample_seeds(key, 1)[0]), torch.from_numpy(indices.copy())
        if self.stored is None:
            x = self.codec.encode(to_floats(self.images.pixels[rows]))
            flipped = noise.scalars(len(rows)) < self.config.objective.flip
            x = _flipped(x, flipped)
        else:
            flipped = None
            mean, std = (part[rows] for part in self.stored)
            x = self.codec.affine(mean + std * noise.normal(mean, Dense(len(mean))))
        cond = {k: v[rows] for k, v in self.classes.items()}
        if self.config.model.control is not None:
            hint = edges(to_floats(self.images.pixels[rows]))
            cond["edges"] = hint if flipped is None else _flipped(hint, flipped)
        cond |= self._texts(self.images[indices], key)
        return x.to(device), {k: v.to(device) for k, v in cond.items()}

    def _texts(self, images: Images, key: int) -> dict[str, Tensor]:
        """The tokens of a caption for every image, none for a model without texts."""
        text = self.config.model.text
        if self.captions is None or text is None:
            return {}
        drawn = self.captions.texts(images, key, self.config.data.detailed)
        return text.condition(drawn, len(drawn))

    def loss(self, model: nn.Module, batch: Batch, key: int) -> StepLoss:
        """The mean squared error of the normalised target."""
        cond = batch[1] or None
        loss = self.objective(model, batch[0], cond, noise=Noise(key))  # type: ignore[arg-type]
        return StepLoss(loss.mean)

    def validate(self, model: nn.Module, key: int) -> dict[str, float]:
        """The loss of up to 512 held-out images, with their conditions, always with the same noise."""
        if self.valid is None:
            return {}
        device = next(model.parameters()).device
        step = max(1, len(self.valid) // 512)
        part = self.valid[::step][:512]
        cond = self._rows(part) | self._texts(part, key)
        cond = {k: v.to(device) for k, v in cond.items()}
        if self.config.model.control is not None:
            cond["edges"] = edges(part.to_floats().pixels).to(device)
        objective = replace(self.objective, drop=0.0)
        with torch.no_grad():
            x = self.codec.encode(part.to_floats().pixels).to(device)
            loss = objective(model, x, cond or None, noise=Noise(key))  # type: ignore[arg-type]
        return {"loss": float(loss.mean)}

    def describe(self) -> dict[str, object]:
        """Everything that shapes the run but the engine's own settings."""
        c = self.config
        # where the file lies shapes nothing
        parts = {"model": c.model, "data": replace(c.data, path=None), "objective": c.objective}
        return {k: to_dict(v) for k, v in parts.items()} | {
            "images": len(self.images),
            "base": c.base,
            "rank": c.rank,
        }


def _drops(model: ModelConfig, objective: ObjectiveConfig) -> float | dict[str, float]:
    """Which share of the images loses its condition, or each entry of it: guidance by classes keeps the control."""
    if model.control is None:
        return objective.drop if model.null() else 0.0
    drops = dict.fromkeys(model.attributes, objective.drop)
    # tokens that do not count say nothing, whatever they hold
    drops |= {} if model.text is None else {"text_mask": objective.drop}
    drops |= {"reference": objective.drop} if model.reference else {}
    return drops | {model.control: objective.drop_control}


def _flipped(x: Tensor, rows: Tensor) -> Tensor:
    """Some images turned left to right."""
    return torch.where(rows[:, None, None, None], x.flip(3), x)


def _floats(images: Images, batch: int = 1024) -> Iterator[Tensor]:
    return (to_floats(part) for part in images.pixels.split(batch))


def _latents(codec: Codec, images: Images) -> tuple[Tensor, Tensor]:
    """Means and standard deviations of all latents."""
    with torch.no_grad():
        found = [codec.posterior(x) for x in _floats(images, 256)]
    means = torch.cat([mean for mean, _ in found])
    spreads = [torch.zeros_like(mean) if std is None else std for mean, std in found]
    return means, torch.cat(spreads)
