"""Guidance without over-saturation."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from sciffusion.denoiser import Prediction
from sciffusion.guidance.base import Change, Guidance, edit_fields, ratio
from sciffusion.layout import Layout
from sciffusion.process import Gaussian

__all__ = ["Projected", "Rescaled"]


@final
class Projected(Change):
    r"""Adaptive projected guidance: the guiding difference without its part along the prediction.

    With :math:`d = \hat x_0^{strong} - \hat x_0^{weak}`, shortened to the norm r where it is longer, and
    :math:`d_\parallel` its projection onto :math:`\hat x_0^{strong}`:

    .. math:: \hat x_0 = \hat x_0^{strong} + (w-1)\,(d - d_\parallel + \eta\,d_\parallel)

    The parallel part is what over-saturates. Norms and projections are taken per sample and field, over valid entries;
    jump fields are guided as before. ``eta=1`` without a threshold is the wrapped guidance itself.
    Source: Sadat et al., Eliminating Oversaturation and Artifacts of High Guidance Scales, 2024. Their momentum, a
    running mean of d over the steps, is left out: a denoiser has no memory.

    Args:
        guidance: the guidance to change.
        eta: how much of the parallel part stays.
        threshold: r, the largest norm of d.

    Raises:
        ValueError: the threshold is not positive.
    """

    def __init__(self, guidance: Guidance, eta: float = 0.0, threshold: float = math.inf) -> None:
        super().__init__(guidance)
        if threshold <= 0:
            raise ValueError(f"threshold must be positive, got {threshold}; inf is none at all")
        self.eta, self.threshold = eta, threshold

    def mix(self, strong: Prediction, weak: Prediction, scale: float | Tensor) -> Prediction:
        x0 = edit_fields(self.process, self._project, weak.x0, strong.x0, like=strong.x_t)
        projected = Prediction(x0, weak.x_t, weak.t, self.process)
        return self.guidance.mix(strong, projected, scale)

    def _project(self, field: Gaussian, layout: Layout, weak: Tensor, strong: Tensor) -> Tensor:
        """The weaker prediction that has the changed difference to the stronger one."""
        d = strong - weak
        if math.isfinite(self.threshold):
            norm = layout.reduce(d**2).sqrt()
            d = d * layout.expand(self.threshold / norm.clamp(min=self.threshold), d)
        along, length = layout.reduce(d * strong), layout.reduce(strong**2)
        share = torch.where(length > 0, along / length, 0.0)
        return strong - d + (1 - self.eta) * layout.expand(share, d) * strong


@final
class Rescaled(Change):
    r"""Guidance that keeps the contrast of the stronger prediction.

    .. math:: \hat x_0 \leftarrow \phi\,\frac{\mathrm{std}(\hat x_0^{strong})}{\mathrm{std}(\hat x_0)}\,\hat x_0
              + (1-\phi)\,\hat x_0

    with the standard deviation over the valid entries of each sample, field by field. Only for fields whose entries are
    alike (pixels, amplitudes); jump fields are guided as before. Source: Lin et al., Common Diffusion Noise Schedules
    and Sample Steps are Flawed, 2023 (there on the network's output; here on x0, where over-exposure shows).

    Args:
        guidance: the guidance to change.
        phi: from 0, no rescaling, to 1.

    Raises:
        ValueError: phi leaves [0, 1].
    """

    def __init__(self, guidance: Guidance, phi: float = 0.7) -> None:
        super().__init__(guidance)
        if not 0 <= phi <= 1:
            raise ValueError(f"phi must lie in [0, 1], got {phi}")
        self.phi = phi

    def mix(self, strong: Prediction, weak: Prediction, scale: float | Tensor) -> Prediction:
        out = self.guidance.mix(strong, weak, scale)
        x0 = edit_fields(self.process, self._rescale, out.x0, strong.x0, like=strong.x_t)
        return Prediction(x0, out.x_t, out.t, self.process)

    def _rescale(self, field: Gaussian, layout: Layout, x: Tensor, strong: Tensor) -> Tensor:
        factor = ratio(layout, x, _std(layout, strong), _std(layout, x))
        return x * (self.phi * factor + (1 - self.phi))


def _std(layout: Layout, x: Tensor) -> Tensor:
    mean = layout.expand(layout.reduce(x, "mean"), x)
    return layout.reduce((x - mean) ** 2, "mean").sqrt()
