"""How a model is sampled: guidance by its condition, steps and times."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from sciffusion.denoiser import Denoiser
from sciffusion.grid import FlowTime
from sciffusion.guidance import CFG, Autoguidance, Interval
from sciffusion.samplers import Multistep, Sampler

from .adapter import Condition
from .functionals import Towards

if TYPE_CHECKING:
    from .model import AudioModel

__all__ = ["Guidance", "Guide", "SamplingConfig"]


@final
@dataclass(frozen=True)
class Guide:
    """Guidance where it helps: by the condition's absence, or by a worse model.

    ``scale`` 1 is the conditional prediction. It acts at log-SNRs from ``low`` to ``high`` only; outside, a step costs
    one call instead of two. ``weak`` is a worse model of the same clips (Karras et al., 2024) instead of the same one
    without its condition (Ho & Salimans, 2022).
    """

    scale: float = 1.0
    low: float = -math.inf
    high: float = math.inf
    weak: AudioModel | None = None

    def around(self, denoiser: Denoiser, cond: Condition, null: Condition) -> Denoiser:
        """The guided denoiser."""
        if self.scale == 1 or (self.weak is None and not null):
            return denoiser.given(cond)
        if self.weak is None:
            return Interval(CFG(denoiser, cond, null, self.scale), self.low, self.high)
        worse = self.weak.denoiser.given(cond)
        return Interval(Autoguidance(denoiser.given(cond), worse, self.scale), self.low, self.high)


Guidance = float | Guide | Towards | Callable[[Denoiser, Condition, Condition], Denoiser]
"""A scale, a :class:`Guide`, :class:`.Towards` a property of the sound, or any guidance of the core: a function of the
denoiser, the condition and its absence."""


@final
@dataclass(frozen=True)
class SamplingConfig:
    """How a model is sampled unless told otherwise; stored with it.

    A multistep solver of ``order`` with noise ``eta`` (0: the deterministic flow) takes ``steps`` steps, evenly in flow
    time with a ``shift`` towards high noise; ``scale``, ``low`` and ``high`` are those of :class:`Guide`. As it stands,
    eleven of the fourteen steps are guided: 25 calls of the network.
    """

    steps: int = 14
    order: int = 2
    eta: float = 0.0
    shift: float = 3.0
    scale: float = 1.5
    low: float | None = None
    high: float | None = 0.0

    def sampler(self, steps: int | None = None) -> Sampler:
        """The core's sampler, with another number of steps if wanted."""
        steps = self.steps if steps is None else steps
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        return Sampler(Multistep(self.order, self.eta), steps, FlowTime(self.shift))

    def guide(self) -> Guide:
        """The guidance."""
        low = -math.inf if self.low is None else self.low
        return Guide(self.scale, low, math.inf if self.high is None else self.high)
