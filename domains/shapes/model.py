"""A trained model of shapes: what it was taught, one file, and the verbs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciffusion.denoiser import Denoiser, Preconditioned
from sciffusion.described import described
from sciffusion.noise import Noise, sample_seeds
from sciffusion.progress import track
from sciffusion.samplers import Sampler
from sciffusion.sampling import Condition, Given, Guidance, SamplingConfig
from sciffusion.state import State, Value
from sciffusion.training import ModelFile, write_model

from . import verbs
from .adapter import SAMPLING, ModelConfig, shape_state
from .container import Shapes
from .task import ShapeTask

__all__ = ["ShapeModel"]


@final
@dataclass(frozen=True, eq=False, repr=False)
class ShapeModel:
    """A trained model of shapes.

    ``denoiser`` is an ordinary denoiser of the core, of states as :func:`.adapter.shape_state` makes them: everything
    there (samplers, guidance, inverse problems, likelihoods) takes it.

    All verbs draw what is random for shape i from the seed and i alone: neither the number of shapes, nor the batches
    in which they are computed, nor the sizes of the others change it, up to rounding.
    """

    config: ModelConfig
    denoiser: Preconditioned
    sampling: SamplingConfig = SAMPLING
    info: Mapping[str, Any] | None = None

    complete = verbs.complete
    interpolate = verbs.interpolate

    def __repr__(self) -> str:
        return described(self, self.denoiser, asked=self.attributes)

    @property
    def attributes(self) -> tuple[str, ...]:
        """What shapes may be asked by."""
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
        points: int | Sequence[int] | None = None,
        guidance: Guidance | None = None,
        seed: int = 0,
        steps: int | None = None,
        sampler: Sampler | None = None,
        batch_size: int = 64,
        progress: bool = True,
    ) -> Shapes:
        """Draw new shapes, each about its own centre, in the unit of the training data.

        Args:
            n: how many.
            given: attributes by name, ``{"label": "box"}``: one value for all shapes, or one for each; None leaves it
                open. What is not named takes all its classes in turn.
            points: how many points, for all shapes or for each; None: as many as shapes of the training data have.
            guidance: a scale (1: none); None: the model's own.
            seed: of everything random.
            steps: solver steps (None: the model's own number); a guided step calls the network twice.
            sampler: any sampler of the core, instead of the model's own.
            batch_size: shapes that are denoised together.
            progress: show a bar on a terminal.

        Raises:
            ValueError: n, steps or a batch below 1, fewer than 2 points, or an attribute, a value or a number of values
                that do not fit.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        cond = self.condition({**self.config.asked.in_turn(n), **(given or {})}, n)
        sampler = sampler or self.sampling.sampler(steps)
        seeds, parts = sample_seeds(seed, n), []
        sizes = self._sizes(points, seeds)
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        pieces = [slice(i, i + batch_size) for i in range(0, n, batch_size)]
        for rows in track(pieces, show=progress and len(pieces) > 1):
            mask = torch.arange(int(sizes[rows].max())) < torch.from_numpy(sizes[rows])[:, None]
            noise = Noise(seeds[rows])
            blank = shape_state(torch.zeros(*mask.shape, 3), mask, self.device)
            start = self.denoiser.process.prior(blank, noise)
            denoiser = self.guided({k: v[rows] for k, v in cond.items()}, guidance)
            labels = {k: v[rows] for k, v in self.labels(cond).items()}
            parts.append(self.decode(sampler(denoiser, start, noise).x, mask, labels))
        return Shapes.joined(parts)

    def condition(self, given: Given, n: int) -> dict[str, Tensor]:
        """What is asked of n shapes as the network's condition; what is not named stays open.

        Raises ``ValueError`` for an attribute, a value or a number of values that do not fit.
        """
        return {k: v.to(self.device) for k, v in self.config.asked.condition(given, n).items()}

    def guided(self, cond: Condition, guidance: Guidance | None = None) -> Denoiser:
        """The denoiser with a condition bound, guided (None: as the model is sampled)."""
        empty = self.config.asked.sizes
        null = {k: torch.full_like(v, empty[k]) for k, v in cond.items()}
        return self.sampling.guided(self.denoiser, cond, null, guidance)

    def encode(self, shapes: Shapes) -> State:
        """Shapes as the model sees them: padded, centred, of about unit variance."""
        x, mask = shapes.padded()
        return shape_state(x / self.unit, mask, self.device)

    def decode(
        self, x: Value, mask: Tensor, labels: Mapping[str, NDArray[Any]] | None = None
    ) -> Shapes:
        """Shapes of what a sampler ended on."""
        assert type(x) is State
        return Shapes.from_padded(x["points"].cpu() * self.unit, mask.cpu(), labels)

    def labels(self, cond: Condition) -> dict[str, NDArray[Any]]:
        """The values of the attributes, empty where left open."""
        return self.config.asked.labels(cond)

    @property
    def unit(self) -> float:
        """The length, in the unit of the training data, that 1 stands for in a state."""
        assert self.config.scale is not None
        return self.config.scale

    def to(self, device: str | torch.device) -> ShapeModel:
        """The same model on another device; samples are the same up to rounding."""
        return replace(self, denoiser=self.denoiser.to(device))

    def _sizes(self, points: int | Sequence[int] | None, seeds: Sequence[int]) -> NDArray[np.int64]:
        n, known = len(seeds), np.array(self.config.sizes)
        if points is None:
            drawn = Noise([sample_seeds(s, 1)[0] for s in seeds]).scalars(n).numpy()
            sizes = known[(drawn * len(known)).astype(int)]
        else:
            sizes = np.full(n, points) if np.ndim(points) == 0 else np.array(points)
        if len(sizes) != n or int(sizes.min()) < 2:
            raise ValueError(
                f"points must be at least 2, one number for all shapes or one for each of the {n}, got {points}"
            )
        return np.asarray(sizes, dtype=np.int64)

    def save(self, path: str | Path) -> Path:
        """Write the model to one safetensors file, weights rounded to float16."""
        meta = {"model": self.config, "sampling": self.sampling, "info": dict(self.info or {})}
        return write_model(path, "shapes", meta, {"": self.denoiser.state_dict()})

    @classmethod
    def from_file(cls, path: str | Path) -> ShapeModel:
        """Read what :meth:`save` wrote. Raises ``ValueError`` for a file of another kind."""
        file = ModelFile.read(path, "shapes", "a model of shapes")
        config = file.config(ModelConfig, "model")
        denoiser = config.denoiser()
        denoiser.load_state_dict(file.tensors)
        sampling = file.config(SamplingConfig, "sampling")
        return cls(config, denoiser.eval(), sampling, file.meta["info"])

    @classmethod
    def from_training(
        cls, task: ShapeTask, weights: Mapping[str, Tensor], info: Mapping[str, Any] | None = None
    ) -> ShapeModel:
        """The model that a training task and its (averaged) weights make."""
        denoiser = task.model()
        denoiser.load_state_dict(dict(weights))
        return cls(task.config.model, denoiser.eval(), task.config.sampling, info)
