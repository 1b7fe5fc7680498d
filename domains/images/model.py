"""A trained model of images: what it was taught, one file, and the verbs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from sciffusion.codec import Codec
from sciffusion.config import parse, to_dict
from sciffusion.denoiser import Denoiser, Preconditioned
from sciffusion.guidance import Autoguidance
from sciffusion.noise import Noise, sample_seeds
from sciffusion.samplers import Sampler
from sciffusion.training import export

from . import verbs
from .adapter import Condition, ModelConfig, read_parts
from .container import Images
from .control import edges
from .sampling import Given, Guidance, SamplingConfig
from .task import ImageTask

__all__ = ["ImageModel"]


@final
@dataclass(frozen=True, eq=False)
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

    @property
    def attributes(self) -> tuple[str, ...]:
        """What images may be asked by."""
        return self.config.attributes

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
                class or its number, None leaves it open. What is not named takes all its classes in turn.
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
        for rows in self.track(n, batch_size, progress):
            noise = Noise(seeds[rows])
            blank = torch.zeros(len(seeds[rows]), *self.config.shape(size), device=self.device)
            denoiser = self.guided({k: v[rows] for k, v in cond.items()}, guidance)
            start = self.denoiser.process.prior(blank, noise)
            made = sampler(denoiser, start, noise).x
            assert isinstance(made, Tensor)
            parts.append(made)
        return self.decode(torch.cat(parts), size, self.labels(cond))

    def inpaint(
        self,
        images: Images,
        mask: Tensor,
        *,
        given: Given | None = None,
        guidance: Guidance | None = None,
        seed: int = 0,
        steps: int | None = None,
        rounds: int = 5,
    ) -> Images:
        """Make the unknown anew: ``mask`` is True where a pixel is known and stays, bit by bit.

        See :func:`.verbs.inpaint`.
        """
        return verbs.inpaint(
            self, images, mask, given, guidance, seed=seed, steps=steps, rounds=rounds
        )

    def outpaint(
        self,
        images: Images,
        margins: tuple[int, int, int, int],
        *,
        given: Given | None = None,
        guidance: Guidance | None = None,
        seed: int = 0,
        steps: int | None = None,
        rounds: int = 5,
    ) -> Images:
        """Continue images beyond their edges: ``margins`` pixels at the top, bottom, left and right."""
        return verbs.outpaint(
            self, images, margins, given, guidance, seed=seed, steps=steps, rounds=rounds
        )

    def edit(
        self,
        images: Images,
        strength: float = 0.6,
        *,
        given: Given | None = None,
        guidance: Guidance | None = None,
        seed: int = 0,
        steps: int | None = None,
    ) -> Images:
        """Noise images part of the way and denoise them again, as another class if one is given (SDEdit).

        Strength 0 gives the images back, bit by bit, 1 forgets them. See :func:`.verbs.edit`.
        """
        return verbs.edit(self, images, strength, given, guidance, seed=seed, steps=steps)

    def variation(
        self,
        images: Images,
        n: int = 4,
        strength: float = 0.5,
        *,
        given: Given | None = None,
        guidance: Guidance | None = None,
        seed: int = 0,
        steps: int | None = None,
    ) -> Images:
        """``n`` images like each of these, one after the other; label ``source`` says of which."""
        return verbs.variation(self, images, n, strength, given, guidance, seed=seed, steps=steps)

    def invert(
        self,
        images: Images,
        *,
        given: Given | None = None,
        steps: int | None = None,
        iterations: int = 5,
    ) -> Tensor:
        """The noise of which the deterministic sampler makes these images, (B, C, H, W); see :func:`.verbs.invert`."""
        return verbs.invert(self, images, given, steps=steps, iterations=iterations)

    def restore(
        self,
        noise: Tensor,
        *,
        given: Given | None = None,
        steps: int | None = None,
        size: tuple[int, int] | None = None,
    ) -> Images:
        """The images that the deterministic sampler makes of noise, such as :meth:`invert` found.

        See :func:`.verbs.restore`.
        """
        return verbs.restore(self, noise, given, steps=steps, size=size)

    def interpolate(
        self,
        a: Images,
        b: Images,
        n: int = 8,
        *,
        given: Given | None = None,
        steps: int | None = None,
        iterations: int = 5,
    ) -> Images:
        """``n`` images on the way from one to another, both ends included, through their noise."""
        return verbs.interpolate(self, a, b, n, given, steps=steps, iterations=iterations)

    def condition(self, given: Given, n: int) -> dict[str, Tensor]:
        """What is asked of n images as the network's condition; what is not named stays open.

        Raises ``ValueError`` for an attribute, a value or a number of values that do not fit.
        """
        config = self.config
        labels = {k: v for k, v in given.items() if k != config.control}
        cond = config.asked.condition(labels, n)
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
        return hint.expand(n, *hint.shape[1:]).float()

    def guided(self, cond: Condition, guidance: Guidance | None = None) -> Denoiser:
        """The denoiser with a condition bound, guided (None: as the model is sampled)."""
        empty = self.config.null()
        null = {k: torch.full_like(v, empty[k]) for k, v in cond.items()}
        scale = self.sampling.scale if guidance is None else guidance
        if all(bool((v == empty[k]).all()) for k, v in cond.items()):
            scale = 1.0  # nothing is asked for
        if isinstance(scale, (int, float)):
            return self.sampling.guided(float(scale), self.denoiser, cond, null)
        return scale(self.denoiser, cond, null)

    def autoguided(self, weak: ImageModel, scale: float) -> Guidance:
        """Guidance by a worse model of the same images (Karras et al., 2024), for the argument ``guidance``."""

        def around(denoiser: Denoiser, cond: Condition, null: Condition) -> Denoiser:
            return Autoguidance(denoiser.given(cond), weak.denoiser.given(cond), scale)

        return around

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

    @staticmethod
    def track(n: int, batch_size: int, progress: bool = True) -> Iterator[slice]:
        """The rows of each batch, with a bar on a terminal."""
        from rich.console import Console
        from rich.progress import track

        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        rows = [slice(i, min(i + batch_size, n)) for i in range(0, n, batch_size)]
        console = Console(stderr=True)
        shown = progress and console.is_terminal and len(rows) > 1
        yield from track(rows, "sampling", console=console, disable=not shown)

    def to(self, device: str | torch.device) -> ImageModel:
        """The same model on another device; samples are the same up to rounding."""
        return replace(self, denoiser=self.denoiser.to(device), codec=self.codec.to(device))

    def save(self, path: str | Path) -> Path:
        """Write the model to one safetensors file, weights rounded to float16."""
        meta = {
            "kind": "images",
            "model": to_dict(self.config),
            "sampling": to_dict(self.sampling),
            "info": dict(self.info or {}),
        }
        codec = {f"codec.{k}": v for k, v in self.codec.state_dict().items()}
        exact = {k: v for k, v in codec.items() if k.startswith("codec.affine.")}
        weights = {f"net.{k}": v for k, v in self.denoiser.state_dict().items()}
        weights |= {k: v for k, v in codec.items() if k not in exact}
        export(weights, path, meta, torch.float16, exact=exact)
        return Path(path)

    @classmethod
    def from_file(cls, path: str | Path) -> ImageModel:
        """Read what :meth:`save` wrote. Raises ``ValueError`` for a file of another kind."""
        config, denoiser, codec, fields = read_parts(path)
        sampling = parse(SamplingConfig, fields["sampling"], source=str(path))
        return cls(config, denoiser, codec, sampling, fields["info"])

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
