r"""Single-step exponential integrators in log-SNR: DPM-Solver++ 2S and 3S, and their stochastic forms.

A step of order p evaluates the denoiser at :math:`\ell_t + \frac{i}{p} h`, i = 0..p-1, and each stage goes on from the
one before: with the polynomial through all predictions so far, the exact solution of
:mod:`~sciffusion.samplers.exponential` over the whole step less the part that the last stage has covered,

.. math:: x_s = \kappa\,x_i + I[\ell_t,\ell_s] - \kappa\,I_{i}[\ell_t,\ell_i]
   + \sigma_s\sqrt{1-e^{-2\eta^2(\ell_s-\ell_i)}}\;\xi,\qquad
   \kappa=\frac{\sigma_s}{\sigma_i}e^{-\eta^2(\ell_s-\ell_i)},

so that the noise of a stage is part of the step, as SEEDS has it: one Brownian motion. Source: Lu et al.,
DPM-Solver++, 2022 (2S, 3S: :math:`\eta=0`); Gonzalez et al., SEEDS, 2023 (:math:`\eta=1`, the data-prediction form).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import final

from sciffusion.samplers.ddim import ddim_rules
from sciffusion.samplers.exponential import (
    PURE_NOISE,
    Eta,
    check_eta,
    endless,
    eta_between,
    exponential_rule,
)
from sciffusion.schedule import Schedule
from sciffusion.solver import Level, Rule, Solver

__all__ = ["Singlestep"]


@final
@dataclass(frozen=True)
class Singlestep(Solver):
    """Single-step solver of order 2 or 3, with as many evaluations a step; DPM-Solver++ S, and SEEDS with ``eta=1``.

    It has no history: choose it where predictions change abruptly from step to step, as with a guidance that is
    switched on and off. Steps from pure noise and to clean data are first order with one evaluation. With noise the
    weak order is 2. Raises ``ValueError`` for another order or a negative ``eta``.
    """

    order: int = 2
    eta: Eta = 0.0

    def __post_init__(self) -> None:
        if self.order not in (2, 3):
            raise ValueError(
                f"order must be 2 or 3, got {self.order}; order 1 is DDIM or Multistep(1)"
            )
        check_eta(self.eta)

    @property
    def evaluations(self) -> int:  # type: ignore[override]
        """One per order."""
        return self.order

    @property
    def stochastic(self) -> bool:
        return callable(self.eta) or self.eta > 0

    def nodes(
        self, clock: Schedule, t: float, s: float | None, steps: int, past: Sequence[float]
    ) -> tuple[float, ...]:
        if s is None or float(clock.alpha(t)) < PURE_NOISE:
            return (t,)
        begin, end = float(clock.log_snr(t)), float(clock.log_snr(s))
        inner = (begin + (end - begin) * i / self.order for i in range(1, self.order))
        return (t, *(float(clock.time(level)) for level in inner))

    def rules(self, nodes: Sequence[Level], past: Sequence[Level], end: Level) -> tuple[Rule, ...]:
        t = nodes[0]
        eta = eta_between(self.eta, t, end)
        if endless(t, end):
            return ddim_rules(nodes, end, min(eta, 1.0))
        ends = (*nodes[1:], end)
        out = [exponential_rule(t, [t], ends[0], eta)]
        covered = out[0].x0
        for i, (here, there) in enumerate(pairwise(ends), start=1):
            whole = exponential_rule(t, list(reversed(nodes[: i + 1])), there, eta).x0
            rest = exponential_rule(here, [here], there, eta)
            x0 = (whole[0], *(w - rest.base * c for w, c in zip(whole[1:], covered, strict=True)))
            out.append(Rule(0.0, x0, rest.noise, (rest.base,)))
            covered = whole
        return tuple(out)
