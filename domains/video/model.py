"""A trained model of films: what it was taught, one file, and what every verb stands on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from sciffusion.denoiser import Denoiser, Preconditioned
from sciffusion.described import described
from sciffusion.layout import Dense
from sciffusion.noise import Noise, sample_seeds
from sciffusion.pixels import to_floats
from sciffusion.progress import track
from sciffusion.samplers import Sampler
from sciffusion.sampling import Condition, Guidance, SamplingConfig
from sciffusion.training import ModelFile, write_model

from . import verbs
from .adapter import ModelConfig
from .autoencoder import FilmCodec
from .film import Film, Films
from .task import VideoTask

__all__ = ["SAMPLING", "VideoModel"]

SAMPLING = SamplingConfig(steps=16, shift=3.0, scale=3.0)
"""How a model of films is sampled unless told otherwise: 32 calls, for every step is guided."""

_LABELS = 8
"""Numbers that every film's stream begins with: they draw the attributes that nobody asked for."""


@final
@dataclass(frozen=True, eq=False, repr=False)
class VideoModel:
    """A trained model of films.

    ``denoiser`` is an ordinary denoiser of the core, of plain tensors (B, T, C, H, W) that ``codec`` encodes:
    everything there (samplers, guidance, inverse problems, likelihoods) takes it. ``shares`` are the shares of the
    classes of every attribute in the training data, ``rate`` the frames a second of its films.
    """

    config: ModelConfig
    denoiser: Preconditioned
    codec: FilmCodec
    shares: Mapping[str, Tensor]
    rate: float = 8.0
    sampling: SamplingConfig = SAMPLING
    info: Mapping[str, Any] | None = None

    animate = verbs.animate
    extend = verbs.extend
    interpolate_time = verbs.interpolate_time
    inpaint = verbs.inpaint

    def __repr__(self) -> str:
        return described(
            self, self.denoiser, " x ".join(map(str, self.config.shape)), asked=self.attributes
        )

    @property
    def attributes(self) -> tuple[str, ...]:
        """What films may be asked by."""
        return self.config.attributes

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.denoiser.parameters()).device

    def sample(
        self,
        n: int = 4,
        given: Mapping[str, object] | None = None,
        *,
        frames: int | None = None,
        size: tuple[int, int] | None = None,
        guidance: Guidance | None = None,
        seed: int = 0,
        steps: int | None = None,
        sampler: Sampler | None = None,
        batch_size: int = 32,
        progress: bool = True,
    ) -> Films:
        """Draw new films, as bytes.

        Film i depends on ``seed``, i and what is asked of it alone (up to rounding): not on ``n`` nor ``batch_size``.

        Args:
            n: how many.
            given: attributes by name, ``{"digit": 7}``: one value for all films, or a list with one for each. What is
                not named is drawn as in the training data; None leaves an attribute open.
            frames: of every film (None: the model's own number).
            size: height and width (None: the model's own).
            guidance: a scale (1: none), or any guidance of the core; None: the model's own.
            seed: of everything random.
            steps: solver steps for each film (None: the model's own number); a guided step calls the network twice.
            sampler: any sampler of the core, instead of the model's own.
            batch_size: films that are denoised together.
            progress: show a bar on a terminal.

        Raises:
            ValueError: n, frames or a side below 1, a length that the model's autoencoder cannot encode, an attribute
                or value that the model does not know, or another number of values than films.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        count = self.config.shape[0] if frames is None else frames
        size = self.config.shape[1:] if size is None else size
        if min(count, *size) < 1:
            raise ValueError(f"frames and size must be positive, got {count} and {size}")
        shape = self.codec.shape((count, *size))
        seeds = sample_seeds(seed, n)
        cond = self.condition(given or {}, n, Noise(seeds))
        sampler = sampler or self.sampling.sampler(steps)
        parts = []
        for rows in track(torch.arange(n).split(batch_size), show=progress):
            noise = Noise([seeds[i] for i in rows.tolist()])
            noise.uniform(torch.zeros(len(rows), _LABELS), Dense(len(rows)))  # those that chose
            like = torch.zeros(len(rows), *shape, device=self.device)
            denoiser = self.guided({k: v[rows.to(self.device)] for k, v in cond.items()}, guidance)
            parts.append(self.run(denoiser, like, noise, sampler, size).cpu())
        x = (torch.cat(parts) * 255).round().to(torch.uint8)
        return Films.of(x, self.rate, self.labels(cond))

    def run(
        self,
        denoiser: Denoiser,
        like: Tensor,
        noise: Noise,
        sampler: Sampler,
        size: tuple[int, int],
    ) -> Tensor:
        """Films (B, T, C, H, W) of a height and width, 0 to 1, from noise like this tensor, as the model sees them."""
        x = sampler(denoiser, denoiser.process.prior(like, noise), noise).x
        assert isinstance(x, Tensor)
        return self.codec.films(x, size)

    def condition(
        self, given: Mapping[str, object], n: int, noise: Noise | None = None
    ) -> dict[str, Tensor]:
        """What is asked of n films as the network's condition.

        What is not named is drawn as in the training data by ``noise``, which has a stream for each film; without it,
        it stays open. For the other arguments and the errors see :meth:`sample`.
        """
        asked = self.config.asked
        cond = asked.condition({}, n)
        if noise is not None:
            u = noise.uniform(torch.zeros(n, _LABELS), Dense(n))
            for i, name in enumerate(self.attributes):
                edges = self.shares[name].cpu().double().cumsum(0)
                drawn = torch.searchsorted(edges, u[:, i].double(), right=True)
                cond[name] = drawn.clamp(max=len(edges) - 1)
        told = asked.condition(given, n)
        cond |= {name: told[name] for name in given}
        return {k: v.to(self.device) for k, v in cond.items()}

    def guided(self, cond: Condition, guidance: Guidance | None = None) -> Denoiser:
        """The denoiser with a condition bound, guided (None: as the model is sampled)."""
        return self.around(self.denoiser, cond, guidance)

    def around(
        self, denoiser: Denoiser, cond: Condition, guidance: Guidance | None = None
    ) -> Denoiser:
        """The same of another denoiser that wraps the model's."""
        empty = self.config.asked.sizes
        null = {k: torch.full_like(v, empty[k]) for k, v in cond.items()}
        return self.sampling.guided(denoiser, cond, null, guidance)

    def encode(self, films: Sequence[Film]) -> Tensor:
        """Films of one shape as the model sees them, (N, T, C, H, W).

        Raises ``ValueError`` for films of other channels than the model's, that differ in shape or type, or are of a
        length that the model's autoencoder cannot encode.
        """
        return self.codec.latents(self.pixels(films))

    def pixels(self, films: Sequence[Film]) -> Tensor:
        """Films of one shape, (N, T, C, H, W), 0 to 1; for the errors see :meth:`encode`."""
        x = Films(list(films)).stack()
        if x.shape[2] != self.config.channels:
            raise ValueError(
                f"the model knows films of {self.config.channels} channels, these have {x.shape[2]}"
            )
        return to_floats(x).to(self.device)

    def labels(self, cond: Condition) -> dict[str, np.ndarray[Any, Any]]:
        """The values of the attributes, empty where left open."""
        return self.config.asked.labels(cond)

    def to(self, device: str | torch.device) -> VideoModel:
        """The same model on another device; samples are the same up to rounding."""
        return replace(self, denoiser=self.denoiser.to(device), codec=self.codec.to(device))

    def save(self, path: str | Path) -> Path:
        """Write everything to one safetensors file, weights rounded to float16."""
        meta = {
            "model": self.config,
            "sampling": self.sampling,
            "rate": self.rate,
            "info": dict(self.info or {}),
        }
        codec, affine = self.codec.tensors()
        parts = {"net": self.denoiser.state_dict(), "codec": codec}
        return write_model(path, "video", meta, parts, {"codec": affine, "shares": self.shares})

    @classmethod
    def from_file(cls, path: str | Path) -> VideoModel:
        """Read what :meth:`save` wrote. Raises ``ValueError`` for a file of another kind."""
        file = ModelFile.read(path, "video", "a model of films")
        config = file.config(ModelConfig, "model")
        denoiser, codec = config.denoiser(), config.codec_module()
        denoiser.load_state_dict(file.part("net"))
        codec.load_state_dict(file.part("codec"))
        return cls(
            config,
            denoiser.eval(),
            codec.eval(),
            file.part("shares"),
            float(file.meta["rate"]),
            file.config(SamplingConfig, "sampling"),
            file.meta["info"],
        )

    @classmethod
    def from_training(
        cls, task: VideoTask, weights: Mapping[str, Tensor], info: Mapping[str, Any] | None = None
    ) -> VideoModel:
        """The model that a training task and its (averaged) weights make."""
        denoiser = task.model()
        denoiser.load_state_dict(dict(weights))
        counts = {
            name: torch.bincount(rows, minlength=len(classes)).float()
            for (name, rows), classes in zip(
                task.rows.items(), task.config.model.classes, strict=True
            )
        }
        shares = {name: count / count.sum() for name, count in counts.items()}
        return cls(task.config.model, denoiser.eval(), task.codec, shares, info=info)
