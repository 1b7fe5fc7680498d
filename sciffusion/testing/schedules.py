"""The contracts of schedules and of grids."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sciffusion.grid import Grid
from sciffusion.schedule import Schedule
from sciffusion.testing.claims import claim, claim_equal

__all__ = ["check_grid", "check_schedule"]


def _simpson(y: Tensor, h: float) -> Tensor:
    """Integrals up to every second of the points, which lie h/2 apart."""
    return ((y[:-2:2] + 4 * y[1::2] + y[2::2]) * (h / 6)).cumsum(0)


def check_schedule(schedule: Schedule) -> None:
    """Check that a schedule's methods describe one and the same falling curve.

    Raises:
        AssertionError: unless results are float64 and shaped like the times; the log-SNR is that of alpha and sigma,
            and falls strictly from t = 0 to 1; ``time`` inverts it to 1e-9, ``at`` finds the same points; ``rates``
            and ``slope`` are the derivatives; the SDE (f, g), integrated numerically, has the marginals (alpha, sigma);
            and ``shift`` moves the log-SNR by a constant (of (alpha, sigma) too), composes by multiplication and has 1
            as its identity.
    """
    for shape in ((), (3,), (2, 3)):
        t = torch.full(shape, 0.4)
        parts = (*schedule(t), schedule.log_snr(t), *schedule.rates(t), schedule.slope(t))
        for part in (*parts, *schedule.sde(t), schedule.time(t), *schedule.at(t)):
            claim(part.shape == shape and part.dtype == torch.float64, "float64, shaped like t")
    t = torch.linspace(0, 1, 513, dtype=torch.float64)
    alpha, sigma = schedule(t)
    log_snr = schedule.log_snr(t)
    claim(((alpha >= 0) & (sigma >= 0)).all(), "alpha and sigma are not negative")
    claim((log_snr.diff() < 0).all(), "log_snr falls strictly")
    claim_equal(log_snr, 2 * (alpha / sigma).log(), "log_snr is log(alpha^2/sigma^2)", tol=1e-9)
    claim(
        math.isclose(
            schedule.terminal_snr, float((alpha[-1] / sigma[-1]).detach() ** 2), abs_tol=1e-300
        ),
        "terminal_snr is the SNR at t = 1",
    )
    finite = log_snr.isfinite()
    claim(finite[1:-1].all(), "log_snr is finite between the ends")
    claim_equal(schedule.time(log_snr), t, "time inverts log_snr", tol=1e-9)
    for found, point in zip(schedule.at(log_snr), (alpha, sigma), strict=True):
        claim_equal(found, point, "at finds the point of a log_snr", tol=1e-9)

    inner, h = t[4:-4], 1e-6
    after, before = schedule(inner + h), schedule(inner - h)
    for name, rate, a, b in zip(
        ("alpha", "sigma"), schedule.rates(inner), after, before, strict=True
    ):
        claim_equal(rate, (a - b) / (2 * h), f"rates hold the derivative of {name}", tol=1e-5)
    change = (schedule.log_snr(inner + h) - schedule.log_snr(inner - h)) / (2 * h)
    claim_equal(schedule.slope(inner), change, "slope is the derivative of log_snr", tol=1e-5)

    fine = torch.linspace(0.01, 0.99, 8001, dtype=torch.float64)
    f, g = schedule.sde(fine)
    a, s = (c / schedule.alpha(fine[0]) for c in schedule(fine))
    step = float(fine[2] - fine[0])
    claim_equal(_simpson(f, step).exp(), a[2::2], "the SDE's drift gives alpha", tol=1e-6)
    added = _simpson((g / a) ** 2, step) / float(schedule.alpha(fine[0]).detach()) ** 2
    ratio = (s / a) ** 2
    claim_equal(added, ratio[2::2] - ratio[0], "the SDE's diffusion gives sigma", tol=1e-6)

    same = schedule.shift(1.0)
    twice, once = schedule.shift(4.0).shift(0.75), schedule.shift(3.0)
    for factor, shifted in ((1.0, same), (3.0, twice), (3.0, once), (0.25, schedule.shift(0.25))):
        law = f"shift by {factor}"
        moved = log_snr - 2 * math.log(factor)
        claim_equal(shifted.log_snr(t), moved, f"{law} adds a constant to log_snr", tol=1e-9)
        claim_equal(shifted.time(moved), t, f"{law} keeps time the inverse", tol=1e-9)
        a, s = shifted(t)
        claim_equal(2 * (a / s).log(), moved, f"{law} is one of alpha and sigma", tol=1e-9)
    for one, other in zip((*same(t), *twice(t)), (*schedule(t), *once(t)), strict=True):
        claim_equal(one, other, "shifts compose by multiplication", tol=1e-9)


def check_grid(
    grid: Grid,
    schedule: Schedule,
    steps: Sequence[int] = (1, 2, 3, 10, 64, 257),
    *,
    start: float = 1.0,
    stop: float = 0.0,
) -> None:
    """Check that a grid falls strictly from ``start`` to ``stop`` in every number of ``steps``.

    Raises:
        AssertionError: unless the times are float64, steps + 1 in number (of every sample, where each has its own),
            strictly falling, exact at both ends, the same when asked twice, and no steps or a reversed span raise
            ``ValueError``.
    """
    for n in steps:
        times = grid(schedule, n, start, stop)
        law = f"{grid} in {n} steps from {start} to {stop}"
        claim(times.ndim in (1, 2) and times.shape[-1] == n + 1, f"{law}: n + 1 times")
        claim(times.dtype == torch.float64, f"{law}: float64")
        claim((times.diff() < 0).all(), f"{law} falls strictly: {times.tolist()}")
        claim(((times[..., 0] == start) & (times[..., -1] == stop)).all(), f"{law} has its ends")
        claim_equal(grid(schedule, n, start, stop), times, f"{law} is a pure function")
    for n, a, b in ((0, start, stop), (steps[0], stop, start), (steps[0], start, start)):
        try:
            grid(schedule, n, a, b)
        except ValueError:
            continue
        raise AssertionError(f"{grid} must refuse {n} steps from {a} to {b}")
