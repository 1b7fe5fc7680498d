r"""Several denoisers, each for the noise levels that it was trained for.

What is asked of a network at high noise, the plan of a sample, and at low noise, its details, has little in common. Two
networks that share the noise levels hold twice the parameters, at the cost of one per call. Source: Balaji et al.,
eDiff-I, 2022; Wan2.2, 2025.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.state import Value

__all__ = ["TimeExperts"]


@final
class TimeExperts(Denoiser):
    """The denoiser of its noise level makes each prediction; the others are not called.

    An expert may be guided by itself, with a scale of its own: ``TimeExperts([CFG(plan, cond, null, 4.0), CFG(details,
    cond, null, 3.0)], [-2.0])``; or all of them by one: ``CFG(TimeExperts([plan, details], [-2.0]), cond, null, 4.0)``.
    Train each one with the times of its levels: ``Objective(process, times=Between(law, high=-2.0))``.

    A batch whose samples, or elements, stand on both sides of a boundary is seen whole by every expert that it needs.

    Args:
        experts: denoisers of one process, from the noisiest levels to the cleanest.
        boundaries: rising log-SNRs on the clock of the process, one fewer than experts. At a boundary itself the
            noisier one acts, as above it: with ``float(process.clock.log_snr(t))`` times from ``t`` on are its own.

    Raises:
        ValueError: numbers that do not fit, boundaries that do not rise, or experts on different clocks.
    """

    def __init__(self, experts: Sequence[Denoiser], boundaries: Sequence[float]) -> None:
        super().__init__()
        if len(experts) != len(boundaries) + 1 or not boundaries:
            raise ValueError(
                f"{len(experts)} experts need {len(experts) - 1} boundaries (and two experts at least), got "
                f"{len(boundaries)}"
            )
        if not all(a < b for a, b in pairwise(boundaries)):
            raise ValueError(
                f"boundaries must rise, from the noisiest to the cleanest, got {list(boundaries)}"
            )
        self.process = experts[0].process
        if any(e.process.clock != self.process.clock for e in experts):
            raise ValueError(
                "experts must be of one process; their clocks differ: "
                f"{[str(e.process.clock) for e in experts]}"
            )
        self.experts, self.boundaries = nn.ModuleList(experts), tuple(map(float, boundaries))

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        t = torch.as_tensor(t)
        level = self.process.clock.log_snr(t).double()
        whose = torch.bucketize(level, level.new_tensor(self.boundaries))
        first, *others = whose.unique().tolist()
        found: Prediction = self.experts[first](x_t, t, cond, previous)
        x0, at = found.x0, found.x_t
        for i in others:
            found = self.experts[i](x_t, t, cond, previous)
            x0 = self.process.choose(whose == i, found.x0, x0)
            at = self.process.choose(whose == i, found.x_t, at)
        return Prediction(x0, at, t, self.process)
