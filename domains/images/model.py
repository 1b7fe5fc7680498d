"""A trained model of images: what it was taught, one file, and the verbs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from sciffusion.codec import Codec
from sciffusion.denoiser import Denoiser, Preconditioned
from sciffusion.described import described
from sciffusion.noise import Noise, sample_seeds
from sciffusion.samplers import Sampler
from sciffusion.sampling import Condition, Given, Guidance, SamplingConfig
from sciffusion.training import write_model

from . import verbs
from .adapter import ModelConfig, read_parts
from .classify import classify
from .container import Images
from .control import edges
from .lora import Adapter
from .task import ImageTask
from .texts import told
from .verbs import batches

__all__ = ["ImageModel"]


@final
@dataclass(frozen=True, eq=False, repr=False)
class ImageModel:
    """A trained model of images.

    ``denoiser`` is an ordinary denoiser of the core, of tensors (B, C, H, W) that ``codec`` encodes: everything there
    (samplers, guidance, inverse problems, likelihoods) takes it.

    All verbs draw what is random for image i from the seed and i alone: neither the number of images nor the batches in
    which they are computed change it, up to rounding.
    """

    config: ModelConfig
    denoiser: Preconditioned
    codec: Codec
    sampling: SamplingConfig = SamplingConfig()
    info: Mapping[str, Any] | None = None

    inpaint = verbs.inpaint
    outpaint = verbs.outpaint
    edit = verbs.edit
    variation = verbs.variation
    invert = verbs.invert
    restore = verbs.restore
    interpolate = verbs.interpolate
    classify = classify

    def __repr__(self) -> str:
        return described(
            self, self.denoiser, " x ".join(map(str, self.config.size)), asked=self.attributes
        )

    @property
    def attributes(self) -> tuple[str, ...]:
        """What images may be asked by."""
        told = {"text": self.config.text is not None, "reference": bool(self.config.reference)}
        return (*self.config.attributes, *(k for k, is_ in told.items() if is_))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.denoiser.parameters()).device

    def sample(
        self,
        n: int = 16,
        *,
        given: Given | None = None,
        guidance: Guidance | None = None,
        size: tuple[int, int] | None = None,
        seed: int = 0,
        steps: int | None = None,
        sampler: Sampler | None = None,
        batch_size: int = 256,
        progress: bool = True,
    ) -> Images:
        """Draw new images.

        Args:
            n: how many.
            given: attributes by name, ``{"label": "Sneaker"}``: one value for all images, or one for each; a value is a
                class or its number, None leaves it open. What is not named takes all its classes in turn. A model of
                texts takes ``{"text": "a red square left of a blue circle"}``, a model of references ``reference``, a
                vector for all images, (E,), or one for each, (N, E).
            guidance: a scale (1: none), or any guidance of the core; None: the model's own.
            size: height and width; None: as in training. Others are new to the network.
            seed: of everything random.
            steps: solver steps (None: the model's own number); a guided step calls the network twice.
            sampler: any sampler of the core, instead of the model's own.
            batch_size: images that are denoised together.
            progress: show a bar on a terminal.

        Raises:
            ValueError: n, steps or a size below 1, or an attribute, a value or a number of values that do not fit.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        size = size or self.config.size
        if min(size) < 1:
            raise ValueError(f"size must be positive, got {size}")
        cond = self.condition(self._spread(given or {}, n), n)
        sampler = sampler or self.sampling.sampler(steps)
        seeds, parts = sample_seeds(seed, n), []
        for rows in batches(n, batch_size, progress):
            noise = Noise(seeds[rows])
            blank = torch.zeros(len(seeds[rows]), *self.config.shape(size), device=self.device)
            denoiser = self.guided({k: v[rows] for k, v in cond.items()}, guidance)
            start = self.denoiser.process.prior(blank, noise)
            made = sampler(denoiser, start, noise).x
            assert isinstance(made, Tensor)
            parts.append(made)
        labels = self.labels(cond)
        if self.config.text is not None:
            labels["text"] = np.array(told((given or {}).get("text"), n))
        return self.decode(torch.cat(parts), size, labels)

    def condition(self, given: Given, n: int) -> dict[str, Tensor]:
        """What is asked of n images as the network's condition; what is not named stays open.

        Raises ``ValueError`` for an attribute, a value or a number of values that do not fit.
        """
        config = self.config
        also = [k for k in (*self.attributes, config.control) if k and k not in config.attributes]
        cond = config.asked.condition(given, n, also)
        if config.text is not None:
            cond |= config.text.condition(given.get("text"), n)
        if config.reference:
            cond["reference"] = _reference(given.get("reference"), n, config.reference)
        if config.control is not None:
            cond[config.control] = self._hint(given.get(config.control), n)
        return {k: v.to(self.device) for k, v in cond.items()}

    def controlled(self) -> ImageModel:
        """The same model under control of edges, which change nothing before the control is trained.

        Train it by a recipe whose ``base`` is this model's file; then ``given={"edges": ...}`` steers: images, whose
        edges are to be kept, or a picture (N, 1, H, W) of edge strengths from 0 to 1. Raises ``ValueError`` for a model
        that is under control already.
        """
        if self.config.control is not None:
            raise ValueError("this model is under control already")
        config = replace(self.config, control="edges")
        return replace(self, config=config, denoiser=config.controlled(self.denoiser).eval())

    def adapted(self, adapter: Adapter | str | Path, scale: float = 1.0) -> ImageModel:
        """The model with what an adapter (LoRA), or one in a file, taught another copy of it.

        ``scale`` says how much of it: 0 is this model, 1 what was learned. Train one by a recipe whose ``base`` is this
        model's file and that has a ``rank``. Raises ``ValueError`` for an adapter of another network.
        """
        if not isinstance(adapter, Adapter):
            adapter = Adapter.load(adapter)
        return replace(self, denoiser=adapter.into(self.denoiser, scale).eval())

    def _hint(self, value: object, n: int) -> Tensor:
        """The edges of n images; zero where none are known."""
        if value is None:
            return torch.zeros(n, 1, *self.config.size)
        hint = edges(value.to_floats().pixels) if isinstance(value, Images) else value
        if not isinstance(hint, Tensor) or hint.ndim != 4 or hint.shape[1] != 1:
            raise ValueError(
                "edges must be Images, or a tensor (N, 1, H, W) of edge strengths from 0 to 1"
            )
        if len(hint) not in (1, n):
            raise ValueError(f"edges hold {len(hint)} pictures for {n} images")
        low, high = hint.aminmax()
        if not (low >= 0 and high <= 1):
            raise ValueError(f"edges run from 0 to 1, got {float(low):.4g} to {float(high):.4g}")
        return hint.expand(n, *hint.shape[1:]).float()

    def guided(self, cond: Condition, guidance: Guidance | None = None) -> Denoiser:
        """The denoiser with a condition bound, guided (None: as the model is sampled).

        A control is no part of what guidance strengthens: it acts in both predictions.
        """
        empty = self.config.null()
        null = {k: torch.full_like(v, empty[k]) for k, v in cond.items()}
        if self.config.control is not None:
            null[self.config.control] = cond[self.config.control]
        return self.sampling.guided(self.denoiser, cond, null, guidance)

    @torch.no_grad()
    def encode(self, images: Images) -> Tensor:
        """Images as the model sees them, (B, C, H, W) of about unit variance; of an autoencoder the mean.

        Raises ``ValueError`` for images with other channels.
        """
        if images.channels != self.config.channels:
            kinds = {1: "grey", 3: "RGB"}
            raise ValueError(
                f"this model knows {kinds[self.config.channels]} images, got {images!r}; read them with "
                f"grey={self.config.channels == 1}"
            )
        return self.codec.encode(images.to_floats().pixels.to(self.device))

    @torch.no_grad()
    def decode(
        self, x: Tensor, size: tuple[int, int], labels: Mapping[str, Any] | None = None
    ) -> Images:
        """Images of a size of what the model made; values beyond 0 and 1 are cut off."""
        pixels = torch.cat([self.codec.decode(part) for part in x.split(256)])
        pixels = pixels[:, :, : size[0], : size[1]].clamp(0, 1)
        return Images(pixels.float().cpu().contiguous(), dict(labels or {}))

    def labels(self, cond: Condition) -> dict[str, np.ndarray[Any, Any]]:
        """The values of the attributes, empty where left open."""
        return self.config.asked.labels(cond)

    def _spread(self, given: Given, n: int) -> Given:
        """What is given, and of every other attribute its classes in turn."""
        return {**self.config.asked.in_turn(n), **given}

    def to(self, device: str | torch.device) -> ImageModel:
        """The same model on another device; samples are the same up to rounding."""
        return replace(self, denoiser=self.denoiser.to(device), codec=self.codec.to(device))

    def save(self, path: str | Path) -> Path:
        """Write the model to one safetensors file, weights rounded to float16."""
        meta = {"model": self.config, "sampling": self.sampling, "info": dict(self.info or {})}
        codec = self.codec.state_dict()
        exact = {k: v for k, v in codec.items() if k.startswith("affine.")}
        rounded = {k: v for k, v in codec.items() if k not in exact}
        parts = {"net": self.denoiser.state_dict(), "codec": rounded}
        return write_model(path, "images", meta, parts, {"codec": exact})

    @classmethod
    def from_file(cls, path: str | Path) -> ImageModel:
        """Read what :meth:`save` wrote. Raises ``ValueError`` for a file of another kind."""
        file, config, denoiser, codec = read_parts(path)
        sampling = file.config(SamplingConfig, "sampling")
        return cls(config, denoiser, codec, sampling, file.meta["info"])

    @classmethod
    def from_training(
        cls, task: ImageTask, weights: Mapping[str, Tensor], info: Mapping[str, Any] | None = None
    ) -> ImageModel:
        """The model that a training task and its (averaged) weights make."""
        denoiser = task.model()
        denoiser.load_state_dict(dict(weights))
        return cls(
            task.config.model, denoiser.eval(), task.codec.eval(), task.config.sampling, info
        )


def _reference(value: object, n: int, width: int) -> Tensor:
    """The references of n images, zero where there are none."""
    if value is None:
        return torch.zeros(n, width)
    found = torch.as_tensor(value, dtype=torch.float32)
    if found.shape not in ((width,), (n, width)):
        raise ValueError(
            f"reference must be ({width},) or ({n}, {width}), got {tuple(found.shape)}"
        )
    return found.expand(n, width)
