r"""DPM-Solver++ 2M and UniPC with the weights of their papers, for the same trajectory as in other libraries.

:class:`~sciffusion.samplers.Multistep` and :class:`~sciffusion.samplers.UniPC` integrate the polynomial through the
predictions exactly. The papers' own formulas replace some of these integrals by simpler numbers of the same order: with
:math:`\Delta = \alpha_s(1 - e^{-h})`, a step of 2M is

.. math:: x_s = \frac{\sigma_s}{\sigma_t}x_t + \Delta\,\hat x_0 + \frac{\Delta}{2r}(\hat x_0 - \hat x_0^{(-1)}),

r being the last step's length by this one's, in :math:`\log(\alpha/\sigma)`; UniPC solves for weights whose sum is that
of a chosen function B(h). The results differ by terms of the order of the method's error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch

from sciffusion.samplers.ddim import ddim_rule, ddim_rules
from sciffusion.samplers.exponential import PURE_NOISE, endless, moments
from sciffusion.solver import Level, Rule, Solver

__all__ = ["DPMSolver2M", "UniPCB"]


@final
@dataclass(frozen=True)
class DPMSolver2M(Solver):
    """DPM-Solver++ 2M as published: second order, one evaluation a step. Source: Lu et al., DPM-Solver++, 2022."""

    order = 2
    history = 1

    @property
    def stochastic(self) -> bool:
        return False

    def rules(self, nodes: Sequence[Level], past: Sequence[Level], end: Level) -> tuple[Rule, ...]:
        t, plain = nodes[0], ddim_rule(nodes[0], end)
        if endless(t, end) or not past or past[0].alpha < PURE_NOISE:
            return ddim_rules(nodes, end)
        ratio = (t.half_log_snr - past[0].half_log_snr) / (end.half_log_snr - t.half_log_snr)
        (whole,) = plain.x0
        return (Rule(plain.base, (whole + whole / (2 * ratio), -whole / (2 * ratio))),)


@final
@dataclass(frozen=True)
class UniPCB(Solver):
    """UniPC-p as published, p = 1, 2 or 3: one evaluation a step, predictor and corrector.

    ``b`` is their function B(h): ``"bh1"`` is h, ``"bh2"`` is :math:`e^h - 1`. As there, the predictor of order 2 and
    the corrector of order 1 take the weight 1/2. The order is p + 1, but at most 3. Raises ``ValueError`` for other
    arguments. Source: Zhao et al., UniPC, 2023.
    """

    p: int = 2
    b: Literal["bh1", "bh2"] = "bh2"

    def __post_init__(self) -> None:
        if self.p not in (1, 2, 3) or self.b not in ("bh1", "bh2"):
            raise ValueError(
                f"p must be 1, 2 or 3 and b 'bh1' or 'bh2', got {self.p} and {self.b!r}"
            )

    @property
    def order(self) -> int:  # type: ignore[override]
        """One above the predictor's."""
        return min(self.p + 1, 3)

    @property
    def history(self) -> int:  # type: ignore[override]
        """What the last step's corrector used."""
        return self.p

    @property
    def fewest(self) -> int:  # type: ignore[override]
        """As many steps as predictions in its polynomial."""
        return self.p

    @property
    def stochastic(self) -> bool:
        return False

    def rules(self, nodes: Sequence[Level], past: Sequence[Level], end: Level) -> tuple[Rule, ...]:
        t, plain = nodes[0], ddim_rule(nodes[0], end)
        known = [p for p in past if p.alpha >= PURE_NOISE]
        onwards = [float(plain.x0[0])]
        if not endless(t, end):
            onwards = self._predict(t, known[: self.p - 1], end)
        if not known:
            return (Rule(plain.base, tuple(onwards)),)
        start, before = known[0], known[1 : self.p]
        old = [0.0, *self._predict(start, before, t)]
        new = self._correct(start, before, t)
        parts = zip(*(_padded(x, 1 + self.p) for x in (onwards, new, old)), strict=True)
        return (Rule(plain.base, tuple(a + plain.base * (b - c) for a, b, c in parts)),)

    def _predict(self, t: Level, past: Sequence[Level], end: Level) -> list[float]:
        """Weights of the predictions at ``t`` and at ``past`` in the step to ``end``."""
        if not past:
            return [float(ddim_rule(t, end).x0[0])]
        return self._weights(t, past, end, [0.5] if len(past) == 1 else None)

    def _correct(self, t: Level, past: Sequence[Level], end: Level) -> list[float]:
        """Weights of the predictions at ``end``, at ``t`` and at ``past`` in the corrected step to ``end``."""
        here, *rest = self._weights(t, [*past, end], end, None if past else [0.5])
        return [rest[-1], here, *rest[:-1]]

    def _weights(
        self, t: Level, others: Sequence[Level], end: Level, rhos: list[float] | None
    ) -> list[float]:
        h = end.half_log_snr - t.half_log_snr
        whole = float(ddim_rule(t, end).x0[0])  # alpha (1 - exp(-h))
        scale = whole if self.b == "bh2" else end.alpha * h
        at = [(o.half_log_snr - t.half_log_snr) / h for o in others]
        if rhos is None:
            matrix = torch.tensor([[r**k for r in at] for k in range(len(at))], dtype=torch.float64)
            right = [end.alpha * h * m / scale for m in moments(h, len(at) + 1)[1:]]
            rhos = torch.linalg.solve(matrix, torch.tensor(right, dtype=torch.float64)).tolist()
        each = [scale * rho / r for rho, r in zip(rhos, at, strict=True)]
        return [whole - sum(each), *each]


def _padded(x0: Sequence[float], n: int) -> list[float]:
    return [*x0, *[0.0] * (n - len(x0))]
