"""Predictions of classes made more decided than the denoiser is: temperature, and a nucleus."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.process import Jump
from sciffusion.state import Value

__all__ = ["Sharpened"]


@final
class Sharpened(Denoiser):
    r"""The probabilities of classes raised to :math:`1/\tau`, then cut to their nucleus.

    .. math:: p_c \leftarrow p_c^{1/\tau} / \textstyle\sum_{c'} p_{c'}^{1/\tau}

    The nucleus is the smallest set of classes, likeliest first, whose probabilities sum to ``top_p``; the others get
    none. Temperature 0 is the likeliest class alone, the first of equals. Samples are then less varied than the data,
    whose law they follow no longer. All jump fields are sharpened, other fields left alone.
    Source: Holtzman et al., The curious case of neural text degeneration, 2020 (the nucleus).

    Raises:
        ValueError: the temperature is negative, ``top_p`` leaves (0, 1], or no field of the process jumps.
    """

    def __init__(self, denoiser: Denoiser, temperature: float = 1.0, top_p: float = 1.0) -> None:
        super().__init__()
        if not 0 <= temperature < float("inf"):
            raise ValueError(f"temperature must not be negative, got {temperature}; 1 is neutral")
        if not 0 < top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], got {top_p}; 1 keeps every class")
        self.denoiser, self.process = denoiser, denoiser.process
        self.temperature, self.top_p = temperature, top_p

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        out = self.denoiser(x_t, t, cond, previous)
        fields = dict(self.process.fields(out.x0))
        jumps = [k for k in fields if isinstance(self.process.field(k), Jump)]
        if not jumps:
            raise ValueError(
                f"no field of {list(fields)} jumps, so there are no classes to sharpen"
            )
        for k in jumps:
            fields[k] = self._sharpen(fields[k])
        return Prediction(self.process.rebuild(out.x0, fields), out.x_t, t, self.process)

    def _sharpen(self, p: Tensor) -> Tensor:
        if self.temperature == 0:
            return torch.zeros_like(p).scatter(-1, p.argmax(-1, keepdim=True), 1.0)
        if self.temperature != 1:
            p = (p.log() / self.temperature).softmax(-1)
        if self.top_p == 1:
            return p
        ranked, order = p.sort(dim=-1, descending=True, stable=True)
        before = (
            ranked.cumsum(-1) - ranked
        )  # the mass of what is likelier; the first class always stays
        kept = torch.where(before < self.top_p, ranked, torch.zeros_like(ranked))
        kept = kept / kept.sum(-1, keepdim=True)
        return torch.zeros_like(p).scatter(-1, order, kept)
