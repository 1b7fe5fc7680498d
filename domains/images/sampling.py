"""How a model is sampled and guided, unless told otherwise."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import final

from sciffusion.denoiser import Denoiser
from sciffusion.grid import FlowTime
from sciffusion.guidance import CFG, Interval
from sciffusion.samplers import DDIM, Multistep, Sampler

from .adapter import Condition

__all__ = ["Given", "Guidance", "SamplingConfig"]

Guidance = float | Callable[[Denoiser, Condition, Condition], Denoiser]
"""A scale (1: none), or any guidance of the core: a function of the denoiser, the condition and its absence."""

Given = Mapping[str, object]
"""Attributes by name, ``{"label": 7}``: one value for all images, or one for each; None leaves one open."""


@final
@dataclass(frozen=True)
class SamplingConfig:
    """How a model is sampled unless told otherwise; stored with it.

    A multistep solver of ``order`` with noise ``eta`` (0: the deterministic flow) takes ``steps`` steps, evenly in
    flow time with a ``shift`` towards high noise. Guidance of ``scale`` acts at log-SNRs from ``low`` to ``high`` only
    (None: without end); a step outside costs one call of the network, one inside two.
    """

    steps: int = 18
    order: int = 2
    eta: float = 0.0
    shift: float = 1.0
    scale: float = 1.5
    low: float | None = None
    high: float | None = None

    def sampler(self, steps: int | None = None) -> Sampler:
        """The core's sampler, with another number of steps if wanted."""
        steps = self.steps if steps is None else steps
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        order = min(self.order, steps)  # a single step has no history
        return Sampler(Multistep(order, self.eta), steps, FlowTime(self.shift))

    def reversible(self, steps: int | None = None) -> Sampler:
        """A sampler whose runs can be undone."""
        return replace(self.sampler(steps), solver=DDIM())

    def guided(
        self, scale: float, denoiser: Denoiser, cond: Condition, null: Condition
    ) -> Denoiser:
        """The denoiser, guided with a scale where guidance acts."""
        if scale == 1 or not null:
            return denoiser.given(cond)
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        return Interval(CFG(denoiser, cond, null, scale), low, high)
