"""Guidance that a network has learnt: one call, which is told the scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor

from sciffusion.denoiser import Denoiser, Prediction
from sciffusion.guidance.base import Scale, refuse, scale_at
from sciffusion.state import State, Value, batch_of

__all__ = ["Embedded"]


@final
class Embedded(Denoiser):
    """A denoiser whose network is told the guidance scale, as a further entry of its condition.

    It does in one call what :class:`~sciffusion.guidance.CFG` does in two, once it has learnt to
    (:class:`~sciffusion.objective.DistilledGuidance`); scales outside those of its training it does not know. A network
    embeds the scale by :class:`~sciffusion.networks.GuidanceScale`. Source: Meng et al., 2023 (in FLUX.1-dev, 2024).

    Args:
        denoiser: reads the scale, (B,), from ``cond["guidance"]``.
        cond: the condition, a mapping.
        scale: a number, one per sample (B,), or a function of the log-SNR.

    Raises ``ValueError`` for a condition that is no mapping, or has that entry already.
    """

    def __init__(self, denoiser: Denoiser, cond: Mapping[str, Any], scale: Scale) -> None:
        super().__init__()
        if not isinstance(cond, Mapping) or isinstance(cond, State) or "guidance" in cond:
            raise ValueError(
                "cond must be a mapping, to which the entry 'guidance' is added, got "
                f"{sorted(cond) if isinstance(cond, Mapping) else type(cond).__name__}"
            )
        self.denoiser, self.cond, self.scale = denoiser, dict(cond), scale
        self.process = denoiser.process

    def forward(
        self, x_t: Value, t: Tensor, cond: Any = None, previous: Value | None = None
    ) -> Prediction:
        refuse(cond)
        t, batch = torch.as_tensor(t), batch_of(x_t)
        scale = torch.as_tensor(scale_at(self.scale, self.process.clock, t))
        if scale.shape not in ((), (batch,)):
            raise ValueError(
                f"scale must be one number, or one for each of {batch} samples, got {tuple(scale.shape)}"
            )
        where = next(iter(self.process.fields(x_t).values())).device
        told = self.cond | {"guidance": scale.to(where, torch.float32).expand(batch)}
        return self.denoiser(x_t, t, told, previous)
