"""How a model is sampled and guided, unless told otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from sciffusion.denoiser import Denoiser
from sciffusion.grid import FlowTime
from sciffusion.guidance import CFG
from sciffusion.samplers import DDIM, Multistep, Sampler

from .adapter import Condition

__all__ = ["Given", "SamplingConfig"]

Given = Mapping[str, object]
"""Attributes by name, ``{"label": "box"}``: one value for all shapes, or one for each; None leaves one open."""


@final
@dataclass(frozen=True)
class SamplingConfig:
    """How a model is sampled unless told otherwise; stored with it.

    A deterministic multistep solver of second order takes ``steps`` steps, evenly in flow time; ``scale`` is that of
    classifier-free guidance (1: none), which calls the network twice a step.
    """

    steps: int = 24
    scale: float = 1.0

    def sampler(self, steps: int | None = None) -> Sampler:
        """The core's sampler, with another number of steps if wanted."""
        steps = self._steps(steps)
        return Sampler(Multistep(min(2, steps)), steps, FlowTime())

    def reversible(self, steps: int | None = None) -> Sampler:
        """A sampler whose runs can be undone."""
        return Sampler(DDIM(), self._steps(steps), FlowTime())

    def guided(
        self, scale: float | None, denoiser: Denoiser, cond: Condition, null: Condition
    ) -> Denoiser:
        """The denoiser with its condition bound, guided with a scale (None: the model's own)."""
        scale = self.scale if scale is None else scale
        if scale == 1 or not null or all(bool((cond[k] == v).all()) for k, v in null.items()):
            return denoiser.given(cond or None)
        return CFG(denoiser, cond, null, scale)

    def _steps(self, steps: int | None) -> int:
        steps = self.steps if steps is None else steps
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        return steps
