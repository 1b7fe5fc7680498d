"""The first of two stages: which image a text could mean, as a vector (the prior of DALL-E 2, Ramesh et al. 2022).

A text leaves much open that an image must decide. The prior is a diffusion model of embeddings of images given a text;
a decoder, an ordinary model of images with ``reference``, then draws what the vector says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from sciffusion.denoiser import Preconditioned
from sciffusion.noise import Noise, sample_seeds
from sciffusion.process import Gaussian
from sciffusion.sampling import Guidance, SamplingConfig
from sciffusion.schedule.named import SCHEDULES
from sciffusion.space import Euclidean
from sciffusion.training import ModelFile, write_model

from .networks import ImageNet, PatchesConfig
from .texts import TextConfig

__all__ = ["Prior", "PriorConfig", "PriorNet"]


@final
@dataclass(frozen=True)
class PriorConfig:
    """A transformer on one token, the vector of ``features`` numbers, that attends to a text."""

    features: int = 64
    text: TextConfig = TextConfig()
    width: int = 128
    depth: int = 4
    heads: int = 4
    embedding: int = 128
    schedule: Literal["rectified-flow", "cosine", "trig-flow", "edm"] = "rectified-flow"

    def null(self) -> dict[str, float]:
        """The condition that says nothing."""
        return {"text": 0.0, "text_mask": 0.0}

    def process(self) -> Gaussian:
        """The forward process of vectors (B, E)."""
        return Gaussian(SCHEDULES[self.schedule], Euclidean())

    def denoiser(self) -> Preconditioned:
        """Network and process as a denoiser, freshly initialised; references have unit variance."""
        return Preconditioned(PriorNet(self), self.process(), sigma_data=1.0)


@final
class PriorNet(nn.Module):
    """The network of images on a single point whose channels are the vector, called as denoisers call it."""

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        shape = PatchesConfig(
            patch=1,
            width=config.width,
            depth=config.depth,
            heads=config.heads,
            embedding=config.embedding,
        )
        self.net = ImageNet(shape, config.features, {}, config.text.width)

    def forward(
        self,
        x: Tensor,
        log_snr: Tensor,
        cond: Mapping[str, Tensor] | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        """The network's output (B, E) from vectors, log-SNRs (B,) and a text."""
        y: Tensor = self.net(x[:, :, None, None], log_snr, cond)
        return y[:, :, 0, 0]


@final
@dataclass(frozen=True, eq=False)
class Prior:
    """A trained prior: references, as :meth:`.Embedder.references` makes them, of images that a text could mean."""

    config: PriorConfig
    denoiser: Preconditioned
    sampling: SamplingConfig = SamplingConfig()
    info: Mapping[str, Any] | None = None

    @torch.no_grad()
    def sample(
        self,
        n: int,
        text: object = None,
        *,
        guidance: Guidance | None = None,
        seed: int = 0,
        steps: int | None = None,
    ) -> Tensor:
        """References (N, E) for one text for all, or one for each; None says nothing.

        Vector i depends on the seed, i and its text alone. Raises ``ValueError`` for n or steps below 1, and texts that
        do not fit.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        cond = self.config.text.condition(text, n)
        null = {k: torch.zeros_like(v) for k, v in cond.items()}
        noise = Noise(sample_seeds(seed, n))
        start = self.denoiser.process.prior(torch.zeros(n, self.config.features), noise)
        denoiser = self.sampling.guided(self.denoiser, cond, null, guidance)
        made = self.sampling.sampler(steps)(denoiser, start, noise).x
        assert isinstance(made, Tensor)
        return made

    def save(self, path: str | Path) -> Path:
        """Write settings and weights, rounded to float16, to one safetensors file."""
        meta = {"model": self.config, "sampling": self.sampling, "info": dict(self.info or {})}
        return write_model(path, "image-prior", meta, {"net": self.denoiser.state_dict()})

    @classmethod
    def from_file(cls, path: str | Path) -> Prior:
        """Read what :meth:`save` wrote. Raises ``ValueError`` for a file of another kind."""
        file = ModelFile.read(path, "image-prior", "a prior of embeddings of images")
        config = file.config(PriorConfig, "model")
        denoiser = config.denoiser()
        denoiser.load_state_dict(file.part("net"))
        sampling = file.config(SamplingConfig, "sampling")
        return cls(config, denoiser.eval(), sampling, file.meta["info"])
