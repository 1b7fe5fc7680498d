r"""The probability flow with error control, for every sample by itself.

The flow :math:`dx/dt = \dot\alpha\hat x_0 + \dot\sigma\hat e` is integrated in the log-SNR :math:`\lambda` of the
process's clock, :math:`dx/d\lambda = (dx/dt)/\dot\lambda`, in which the solutions are smooth: by
:func:`~sciffusion.integrate.integrate`, Dormand and Prince's pair of orders 5 and 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciffusion.denoiser import Denoiser
from sciffusion.integrate import integrate
from sciffusion.process import Gaussian, Process
from sciffusion.samplers.ddim import ddim_rule
from sciffusion.samplers.sampler import Solution
from sciffusion.solver import Level
from sciffusion.state import Value, batch_of, layout_of

__all__ = ["Adaptive", "Flow", "log_snr_span"]


@final
class Flow:
    """The probability flow of a denoiser as an equation in the log-SNR of its clock, over lists of fields.

    Raises ``ValueError`` for a field that is not Gaussian and, when called, for guidance that moves the point at which
    it predicts.
    """

    def __init__(self, denoiser: Denoiser, like: Value) -> None:
        process = denoiser.process
        for name in process.fields(like):
            if not isinstance(process.field(name), Gaussian):
                raise ValueError(
                    f"the field {name!r} has no probability flow ({type(process.field(name)).__name__}); "
                    "only Gaussian fields have one"
                )
        self.denoiser, self.process, self.like = denoiser, process, like
        self.names = list(process.fields(like))
        self.layouts = [layout_of(like, name) for name in self.names]

    def value(self, fields: Sequence[Tensor]) -> Value:
        """The fields as a tensor or state."""
        return self.process.rebuild(self.like, dict(zip(self.names, fields, strict=True)))

    def __call__(self, log_snr: Tensor, fields: Sequence[Tensor]) -> list[Tensor]:
        """dx/dlambda at the log-SNR (B,), for every field."""
        clock = self.process.clock
        t = clock.time(log_snr).clamp(0, 1)
        alpha, sigma = clock(t)
        a, s = clock.rates(t)
        speed = 1 / (2 * (a / alpha - s / sigma))
        value = self.value(fields)
        prediction = self.denoiser(value, t)
        if prediction.x_t is not value:
            raise ValueError(
                "the guidance moves the point at which it predicts, which has no probability flow; run a Sampler"
            )
        flow = self.process.fields(prediction.to("flow"))
        return [
            layout.clean(layout.expand(speed.to(flow[k]), flow[k]) * flow[k])
            for k, layout in zip(self.names, self.layouts, strict=True)
        ]


def log_snr_span(
    process: Process, like: Value, start: float, stop: float, low: float, high: float
) -> tuple[float, float]:
    """The clock's log-SNR where the way from ``start`` to ``stop`` enters and leaves [low, high].

    The first is not below the second if none of the way lies in there. A field of ``like`` on another schedule is
    followed to the log-SNR ``high + 20`` at most: at its clean data it has no noise to predict.
    """
    clock = process.clock
    with torch.no_grad():
        first, last = max(float(clock.log_snr(start)), low), min(float(clock.log_snr(stop)), high)
        for schedule in (process.field(name).clock for name in process.fields(like)):
            if schedule is not clock:
                clean = schedule.time(high + 20).clamp(0, 1)
                last = min(last, float(clock.log_snr(clean)))
    return first, last


@final
@dataclass(frozen=True)
class Adaptive:
    r"""Sample by the probability flow to a tolerance; fifth order, six calls a step.

    Every sample has its own steps, so its result does not depend on the batch; a call serves all that still run. Use it
    for a reference, for likelihoods, or where the number of steps a sample needs is unknown. Beyond the log-SNR ``low``
    and ``high`` the flow is followed by one first-order step. Called like :class:`~sciffusion.samplers.Sampler`;
    nothing is random. Raises ``ValueError`` unless 0 <= stop < start <= 1 and low < high, for fields that are not
    Gaussian, for tolerances that are not positive, and for guidance that moves the point at which it predicts.
    Source: Song et al., 2021, with per-sample control.
    """

    rtol: float = 1e-5
    atol: float = 1e-6
    start: float = 1.0
    stop: float = 0.0
    low: float = -14.0
    high: float = 14.0

    def __post_init__(self) -> None:
        if not 0 <= self.stop < self.start <= 1:
            raise ValueError(
                f"need 0 <= stop < start <= 1, got start={self.start} and stop={self.stop}"
            )
        if not self.low < self.high:
            raise ValueError(f"need low < high, got {self.low} and {self.high}")

    def __call__(self, denoiser: Denoiser, x: Value) -> Solution:
        """Run from ``x`` at time ``start`` to ``stop``."""
        process, clock, batch = denoiser.process, denoiser.process.clock, batch_of(x)
        process.check(x)
        calls, flow = 0, Flow(denoiser, x)
        with torch.no_grad():
            first, last = log_snr_span(process, x, self.start, self.stop, self.low, self.high)
            if first >= last:
                return Solution(_jump(denoiser, x, self.start, self.stop), 1)
            begin, end = (
                torch.full((batch,), v, dtype=torch.float64, device=_device(process, x))
                for v in (first, last)
            )
            if float(clock.log_snr(self.start)) < first:
                x, calls = _jump(denoiser, x, self.start, float(clock.time(first))), 1
            fields, more = integrate(
                flow,
                [process.fields(x)[k] for k in flow.names],
                flow.layouts,
                begin,
                end,
                rtol=self.rtol,
                atol=self.atol,
            )
            x, calls = flow.value(fields), calls + more
            if self.stop == 0 or float(clock.log_snr(self.stop)) > last:
                t = float(clock.time(last).clamp(0, 1))
                x, calls = _jump(denoiser, x, t, self.stop), calls + 1
        return Solution(x, calls)


def _device(process: Process, x: Value) -> torch.device:
    return next(iter(process.fields(x).values())).device


def _jump(denoiser: Denoiser, x: Value, t: float, s: float) -> Value:
    """One first-order step of every field; to time 0, it leads to clean data."""
    process = denoiser.process
    predicted = denoiser(x, torch.tensor(t, dtype=torch.float64)).x0
    if s == 0:
        return predicted
    x0, out = process.fields(predicted), {}
    for k, v in process.fields(x).items():
        a, b = (Level(*(float(c) for c in process.field(k).clock(u))) for u in (t, s))
        rule = ddim_rule(a, b)
        out[k] = rule.base * v + rule.x0[0] * x0[k]
    return process.rebuild(x, out)
