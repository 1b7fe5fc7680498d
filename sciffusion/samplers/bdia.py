r"""BDIA: a two-step method that can be undone exactly.

A step of DDIM with the prediction :math:`\hat x_0` made at :math:`(x_t, t)` may be taken both ways, down to s and up to
the previous time r. BDIA steps over t by both,

.. math:: x_s = \mathrm{DDIM}_{t\to s}(x_t) + g\,\bigl[x_r - \mathrm{DDIM}_{t\to r}(x_t)\bigr],\qquad
   g = \gamma\sqrt{\frac{\alpha_s^2+\sigma_s^2}{\alpha_r^2+\sigma_r^2}},

(:math:`g=\gamma` on the paper's variance preserving schedules; so scaled, the curve does not matter) in which
:math:`x_r` appears linearly and outside the network: from :math:`(x_s, x_t)` it comes back to rounding error, whatever
the denoiser. Source: Zhang et al., Exact diffusion inversion via bidirectional integration approximation, 2023.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from sciffusion.samplers.ddim import ddim_rule
from sciffusion.solver import Level, Rule, Solver

__all__ = ["BDIA"]


@final
@dataclass(frozen=True)
class BDIA(Solver):
    r"""Exactly invertible sampling (:func:`~sciffusion.samplers.invert`): one evaluation a step, for editing.

    At :math:`\gamma = 1` errors are neither damped nor amplified either way; the order is 2 where neighbouring steps
    are about equally long, and 1 in general. A smaller one damps them downwards and amplifies them on the way back.
    Raises ``ValueError`` unless 0 < gamma <= 1.
    """

    gamma: float = 1.0
    order = 1
    history = 1
    fewest = 2

    def __post_init__(self) -> None:
        if not 0 < self.gamma <= 1:
            raise ValueError(f"gamma must be positive and at most 1, got {self.gamma}")

    @property
    def stochastic(self) -> bool:
        return False

    def rules(self, nodes: Sequence[Level], past: Sequence[Level], end: Level) -> tuple[Rule, ...]:
        down = ddim_rule(nodes[0], end)
        if not past:
            return (down,)
        up = ddim_rule(nodes[0], past[0])
        g = self.gamma * math.hypot(end.alpha, end.sigma)
        g /= math.hypot(past[0].alpha, past[0].sigma)
        return (Rule(down.base - g * up.base, (down.x0[0] - g * up.x0[0],), 0.0, (0.0, g)),)
