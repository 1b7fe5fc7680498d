"""How a trained model is sampled and guided unless told otherwise: settings that are stored with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import final

from sciffusion.denoiser import Condition, Denoiser
from sciffusion.grid import FlowTime
from sciffusion.guidance import CFG, Autoguidance, Interval
from sciffusion.samplers import DDIM, Multistep, Sampler

__all__ = ["Given", "Guidance", "Guide", "SamplingConfig"]

Given = Mapping[str, object]
"""What samples are asked by: attributes by name, ``{"label": 7}``, one value for all, or one for each; None: open."""


@final
@dataclass(frozen=True)
class Guide:
    """Guidance where it helps: by the absence of the condition, or by a worse model.

    ``scale`` 1 is the conditional prediction. It acts at log-SNRs from ``low`` to ``high`` only (Kynkäänniemi et al.,
    2024); outside, a step costs one call of the network instead of two. ``weak`` is a worse denoiser of the same data
    (Karras et al., Guiding a diffusion model with a bad version of itself, 2024) instead of the same one without its
    condition (Ho & Salimans, Classifier-free guidance, 2022).
    """

    scale: float = 1.0
    low: float = -math.inf
    high: float = math.inf
    weak: Denoiser | None = None

    def __call__(self, denoiser: Denoiser, cond: Condition, null: Condition) -> Denoiser:
        """The guided denoiser; where nothing is asked for, only a worse model can guide.

        ``cond`` and ``null``, its absence, hold tensors by name, a row for each sample.
        """
        asked = any(bool((cond[k] != v).any()) for k, v in null.items())
        if self.scale == 1 or (self.weak is None and not asked):
            return denoiser.given(cond or None)
        if self.weak is None:
            return Interval(CFG(denoiser, cond, null, self.scale), self.low, self.high)
        strong, weak = (model.given(cond or None) for model in (denoiser, self.weak))
        return Interval(Autoguidance(strong, weak, self.scale), self.low, self.high)


Guidance = float | Callable[[Denoiser, Condition, Condition], Denoiser]
"""A scale (1: none), a :class:`Guide`, or any other guidance of the core: a function of the denoiser, the condition and
its absence."""


@final
@dataclass(frozen=True)
class SamplingConfig:
    """How a model is sampled unless told otherwise; stored with it.

    A multistep solver of ``order`` with noise ``eta`` (0: the deterministic flow) takes ``steps`` steps, evenly in flow
    time with a ``shift`` towards high noise. ``scale``, ``low`` and ``high`` are those of :class:`Guide` (None: without
    end): a step between them costs two calls of the network, any other one.
    """

    steps: int = 18
    order: int = 2
    eta: float = 0.0
    shift: float = 1.0
    scale: float = 1.5
    low: float | None = None
    high: float | None = None

    def sampler(self, steps: int | None = None) -> Sampler:
        """The core's sampler, with another number of steps if wanted. Raises ``ValueError`` for less than one."""
        steps = self.steps if steps is None else steps
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        order = min(self.order, steps)  # a single step has no history
        return Sampler(Multistep(order, self.eta), steps, FlowTime(self.shift))

    def reversible(self, steps: int | None = None) -> Sampler:
        """A sampler whose runs can be undone."""
        return replace(self.sampler(steps), solver=DDIM())

    def guide(self, scale: float | None = None) -> Guide:
        """The guidance, with another scale if wanted."""
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        return Guide(self.scale if scale is None else float(scale), low, high)

    def guided(
        self, denoiser: Denoiser, cond: Condition, null: Condition, guidance: Guidance | None = None
    ) -> Denoiser:
        """The denoiser with a condition bound, guided (None: as told here).

        Raises ``ValueError`` for what is no guidance.
        """
        if guidance is None or isinstance(guidance, (int, float)):
            guidance = self.guide(guidance)
        if not callable(guidance):
            raise ValueError(
                f"guidance must be a scale (1: none), a Guide or another guidance of the core, got {guidance!r}"
            )
        return guidance(denoiser, cond, null)
