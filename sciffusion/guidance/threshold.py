"""Predictions kept within the range of the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.layout import Layout
from sciffusion.process import Gaussian
from sciffusion.state import Value, layout_of

__all__ = ["DynamicThreshold"]

Limits = tuple[float, float]


@final
class DynamicThreshold(Denoiser):
    r"""Predictions compressed into the range of the data, sample by sample.

    With the range mapped to [-1, 1] and :math:`s = \max(1, Q_p|\hat x_0|)` the quantile of a sample's own magnitudes,

    .. math:: \hat x_0 \leftarrow \mathrm{clip}(\hat x_0, -s, s) / s.

    Only for data with a known range, such as pixels: fields of the weather, latents and coordinates have none.
    Source: Saharia et al., Imagen, 2022 (who guide strongly and threshold what comes out).

    Args:
        denoiser: guided already, usually.
        limits: the range of the data, (low, high), or by field; fields that it does not name are left alone.
        quantile: p.

    Raises:
        ValueError: low is not below high, or the quantile leaves (0, 1], or limits name a field without a range.
    """

    def __init__(
        self, denoiser: Denoiser, limits: Limits | Mapping[str, Limits], quantile: float = 0.995
    ) -> None:
        super().__init__()
        if not 0 < quantile <= 1:
            raise ValueError(f"quantile must lie in (0, 1], got {quantile}")
        self.limits = dict(limits) if isinstance(limits, Mapping) else {None: limits}
        for name, (low, high) in self.limits.items():
            if not low < high:
                raise ValueError(f"limits of {name}: {low} must be below {high}")
            if not isinstance(denoiser.process.field(name), Gaussian):
                raise ValueError(f"limits: the field {name!r} is not Gaussian and has no range")
        self.denoiser, self.quantile, self.process = denoiser, quantile, denoiser.process

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        out = self.denoiser(x_t, t, cond, previous)
        fields = dict(self.process.fields(out.x0))
        for name, (low, high) in self.limits.items():
            x, layout = fields[name], layout_of(x_t, name)
            middle, half = (low + high) / 2, (high - low) / 2
            unit = (x - middle) / half
            s = layout.expand(_quantile(layout, unit.abs(), self.quantile).clamp(min=1), x)
            fields[name] = layout.clean(
                torch.maximum(torch.minimum(unit, s), -s) / s * half + middle
            )
        return Prediction(self.process.rebuild(out.x0, fields), out.x_t, t, self.process)


def _quantile(layout: Layout, x: Tensor, p: float) -> Tensor:
    """The quantile of each sample's valid entries, interpolated linearly, (B,)."""
    owner = layout.expand(torch.arange(1, layout.batch + 1, device=x.device), x).expand(x.shape)
    owner, flat = layout.clean(owner).flatten(), x.flatten()
    order = flat.argsort()
    order = order[owner[order].argsort(stable=True)]  # by sample, then by size; no sample first
    counts = layout.count(x).to(x.device)
    first = counts.cumsum(0) - counts + (len(flat) - counts.sum())
    place = p * (counts - 1)
    below = place.floor().long()
    above = torch.minimum(below + 1, counts - 1)
    ranked = flat[order]
    return torch.lerp(ranked[first + below], ranked[first + above], (place - below).to(x.dtype))
