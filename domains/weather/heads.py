r"""Three ways to make a field out of a condition, over the same network, for an honest comparison.

``diffusion``  draws r from :math:`p(r\mid\text{cond})` in many steps; trained by denoising.
``ensemble``   draws r in one pass from noise z, :math:`r = f(\text{cond}, z)`; trained on the CRPS of every cell.
``mean``       makes :math:`E[r\mid\text{cond}]`; trained on the squared error.

The CRPS of the members :math:`r_1\dots r_K` of a case with the truth y is
:math:`\frac1K\sum|r_i - y| - \frac{1 - (1 - a)/K}{2K(K-1)}\sum_{i\ne j}|r_i - r_j|`: fair for a = 1, that is, its mean
over draws of the members does not depend on K and is least for the true distribution; slightly less than fair, as here
(a = 0.95), it has no directions in which two members may drift apart for nothing (Lang et al., AIFS-CRPS, 2024).
Trained on single cells, the ensemble's fields are coherent all the same, since few numbers of noise drive the whole map
(Alet et al., Skillful joint probabilistic weather forecasting from marginals, 2025).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from sciffusion.denoiser import Preconditioned
from sciffusion.harmonics import Harmonics
from sciffusion.layout import Dense
from sciffusion.noise import Noise
from sciffusion.objective import EDM, LogitNormal, Objective
from sciffusion.process import Gaussian
from sciffusion.samplers import Sampler
from sciffusion.space import SphereField
from sciffusion.state import layout_of

from .adapter import GridNet

__all__ = [
    "Diffusion",
    "Ensemble",
    "Head",
    "MeanField",
    "OnePass",
    "SpectralScore",
    "almost_fair_crps",
]

Cond = dict[str, Tensor]


@final
class OnePass(nn.Module):
    """A network that answers at once: no noise level, but ``latent`` numbers and ``channels`` fields of noise."""

    def __init__(self, net: GridNet, latent: int = 0, channels: int = 0) -> None:
        super().__init__()
        self.net, self.latent, self.channels = net, latent, channels

    def forward(self, cond: Cond, noise: Noise | None = None, strength: float = 1.0) -> Tensor:
        """r, (B, C, H, W), from noise of this standard deviation."""
        if noise is None:
            return self.net(None, None, cond)
        fields, scalars = cond["fields"], cond["scalars"]
        layout = Dense(len(fields))
        z = noise.normal(scalars.new_empty(len(fields), self.latent), layout)
        w = noise.normal(fields.new_empty(len(fields), self.channels, *fields.shape[-2:]), layout)
        scalars = torch.cat([scalars, strength * z], 1)
        return self.net(strength * w, None, {"fields": fields, "scalars": scalars})


class Head(ABC):
    """What a network is trained for, and how it is used."""

    @abstractmethod
    def module(self, net: GridNet) -> nn.Module:
        """The trainable model."""

    @abstractmethod
    def loss(
        self, module: nn.Module, r: Tensor, cond: Cond, noise: Noise, weights: Tensor
    ) -> Tensor:
        """The mean loss of a batch; ``weights`` broadcast to r and have mean 1."""

    @abstractmethod
    def draw(
        self,
        module: nn.Module,
        like: Tensor,
        cond: Cond,
        noise: Noise,
        sampler: Sampler,
        strength: float,
    ) -> Tensor:
        """r, like ``like``, one for each row of the condition, from noise that is multiplied by ``strength``."""


@final
@dataclass(frozen=True)
class Diffusion(Head):
    """Denoising with EDM's weight at logit-normal times; drawn by a sampler of the core."""

    process: Gaussian
    time_mean: float = 0.0
    time_std: float = 1.0

    def module(self, net: GridNet) -> Preconditioned:
        return Preconditioned(net, self.process, sigma_data=1.0)

    def loss(
        self, module: nn.Module, r: Tensor, cond: Cond, noise: Noise, weights: Tensor
    ) -> Tensor:
        # the norm of a field on the sphere weighs areas by itself
        on_sphere = isinstance(self.process.space, SphereField)
        objective = Objective(
            self.process,
            weight=EDM(),
            times=LogitNormal(self.time_mean, self.time_std),
            element_weights=None if on_sphere else weights,
        )
        return objective(module, r, cond, noise=noise).mean  # type: ignore[arg-type]

    def draw(
        self,
        module: nn.Module,
        like: Tensor,
        cond: Cond,
        noise: Noise,
        sampler: Sampler,
        strength: float,
    ) -> Tensor:
        assert isinstance(module, Preconditioned)
        start = self.process.prior(like, noise)
        assert isinstance(start, Tensor)
        x = sampler(module.given(cond), strength * start, noise).x
        assert isinstance(x, Tensor)
        return (
            x
            if not isinstance(self.process.space, SphereField)
            else self.process.space.project(x, layout_of(x))
        )


def almost_fair_crps(drawn: Tensor, truth: Tensor, fairness: float, weights: Tensor) -> Tensor:
    """The weighted mean of the CRPS of members (B, K, ...) with the truth (B, ...); see the head of the module."""
    k = drawn.shape[1]
    skill = (drawn - truth[:, None]).abs().mean(1)
    pairs = (drawn[:, :, None] - drawn[:, None]).abs().sum((1, 2))
    scores = skill - (1 - (1 - fairness) / k) / (2 * k * (k - 1)) * pairs
    return (weights.to(scores) * scores).mean()


@final
@dataclass(frozen=True, eq=False)
class SpectralScore:
    """The almost fair CRPS of spherical harmonic coefficients, each over its deviation in the training data.

    What is scored cell by cell alone may lose the smallest scales, which weigh little there (Bonev et al.,
    FourCastNet 3, 2025). ``spectrum`` are the variances of coefficients of r, (C, lmax + 1).
    """

    weight: float
    harmonics: Harmonics
    spectrum: Tensor

    def __call__(self, drawn: Tensor, truth: Tensor, fairness: float) -> Tensor:
        """``weight`` times the mean score of members (B, K, C, H, W) with the truth (B, C, H, W)."""
        std = self.spectrum.sqrt().to(drawn)[:, self.harmonics.degrees]
        one = torch.ones((), device=drawn.device)
        a, y = (self.harmonics.analysis(x).to(drawn) / std for x in (drawn, truth))
        return self.weight * almost_fair_crps(a, y, fairness, one)


@final
@dataclass(frozen=True)
class Ensemble(Head):
    """One pass from noise, trained on the almost fair CRPS of ``members`` draws, and of their coefficients."""

    members: int = 2
    latent: int = 32
    channels: int = 2
    fairness: float = 0.95
    spectral: SpectralScore | None = None

    def module(self, net: GridNet) -> OnePass:
        return OnePass(net, self.latent, self.channels)

    def loss(
        self, module: nn.Module, r: Tensor, cond: Cond, noise: Noise, weights: Tensor
    ) -> Tensor:
        k = self.members
        many = {name: v.repeat_interleave(k, 0) for name, v in cond.items()}
        drawn = module(many, noise).unflatten(0, (len(r), k)).float()
        return self.score(drawn, r, weights)

    def score(self, drawn: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
        """What is minimised, of members (B, K, C, H, W) and the truth (B, C, H, W)."""
        score = almost_fair_crps(drawn, truth, self.fairness, weights)
        if self.spectral is None:
            return score
        return score + self.spectral(drawn, truth, self.fairness)

    def draw(
        self,
        module: nn.Module,
        like: Tensor,
        cond: Cond,
        noise: Noise,
        sampler: Sampler,
        strength: float,
    ) -> Tensor:
        out: Tensor = module(cond, noise, strength)
        return out


@final
@dataclass(frozen=True)
class MeanField(Head):
    """The expectation."""

    def module(self, net: GridNet) -> OnePass:
        return OnePass(net)

    def loss(
        self, module: nn.Module, r: Tensor, cond: Cond, noise: Noise, weights: Tensor
    ) -> Tensor:
        return (weights.to(r) * (module(cond).float() - r).square()).mean()

    def draw(
        self,
        module: nn.Module,
        like: Tensor,
        cond: Cond,
        noise: Noise,
        sampler: Sampler,
        strength: float,
    ) -> Tensor:
        out: Tensor = module(cond)
        return out
