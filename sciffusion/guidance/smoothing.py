"""Energies, weighted, and averaged over what a noised value may have been."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciffusion.guidance.gradient import SigmaData, white_variance
from sciffusion.noise import Noise
from sciffusion.process import Gaussian, Process
from sciffusion.state import Value, batch_of, layout_of

__all__ = ["Smoothing", "potential"]


@final
@dataclass(frozen=True, eq=False)
class Smoothing:
    r"""Monte-Carlo smoothing of an energy: :math:`-\log\tfrac1n\sum_i e^{-wE(\hat x_0+\delta_i)}`.

    The draws stand for :math:`p(x_0\mid x_t)`, of which :math:`\hat x_0` is only the mean. Their standard deviation is
    ``spread`` times that of white data given their noised value, :math:`P_t^{1/2}` with
    :math:`P_t = (s^{-2} + \alpha_t^2/(n\sigma_t)^2)^{-1}`, s = ``sigma_data`` and the noise's scale n. Jump fields are
    not drawn. A denoiser is a function: the same draws, made from ``seed``, serve every call, every time and every
    sample, so the guided field is as smooth in time as the plain one, and no sample depends on its batch.
    Source: Song et al., Loss-Guided Diffusion Models, 2023; Ye et al., TFG, 2024.

    Args:
        samples: n, evaluations of the energy.
        sigma_data: s, of the data: a number or one per field.
        spread: 1 is the posterior's own width.
        seed: of the draws.

    Raises:
        ValueError: fewer than one sample, or a spread that is not positive.
    """

    samples: int
    sigma_data: SigmaData
    spread: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples must be at least 1, got {self.samples}")
        if self.spread <= 0:
            raise ValueError(
                f"spread must be positive, got {self.spread}; leave smoothing out instead"
            )

    def __call__(
        self, energy: Callable[[Value], Tensor], process: Process, x0: Value, t: Tensor
    ) -> Tensor:
        """The smoothed energy at ``x0``, (B,)."""
        noise, each = Noise([self.seed] * batch_of(x0)), []
        widths = {
            k: self._width(field, k, v, x0, t)
            for k, v in process.fields(x0).items()
            if isinstance(field := process.field(k), Gaussian)
        }
        for _ in range(self.samples):
            drawn = dict(process.fields(x0))
            for k, width in widths.items():
                field, v = process.field(k), drawn[k]
                assert isinstance(field, Gaussian)
                drawn[k] = v + width * field.space.prior(v.detach(), layout_of(x0, k), noise)
            each.append(-energy(process.rebuild(x0, drawn)))
        return math.log(self.samples) - torch.stack(each).logsumexp(0)

    def _width(self, field: Gaussian, name: str | None, x: Tensor, x0: Value, t: Tensor) -> Tensor:
        layout = layout_of(x0, name)
        variance = white_variance(field, name, self.sigma_data, x.detach(), t, layout)
        scale = field.space.noise_scale(x, layout)
        return self.spread * variance.sqrt() / (scale.to(x) if isinstance(scale, Tensor) else scale)


def potential(
    fn: Callable[[Value], Tensor],
    weight: float | Tensor,
    smoothing: Smoothing | None,
    process: Process,
    x0: Value,
    t: Tensor,
) -> Tensor:
    """The energies of clean values times ``weight``, smoothed if asked, (B,)."""

    def weighted(x: Value) -> Tensor:
        energy = fn(x)
        return energy * (weight.to(energy) if isinstance(weight, Tensor) else weight)

    return weighted(x0) if smoothing is None else smoothing(weighted, process, x0, t)
