"""The contract of a solver, and its order, measured without a Monte Carlo error.

On Gaussian data the exact denoiser is affine, so a whole run is an affine map of its start and of every noise that it
draws. Carrying the coefficients of that map along gives the mean and variance of the result to rounding error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from sciffusion.grid import Grid, LogSNR
from sciffusion.process import Gaussian
from sciffusion.samplers import Sampler
from sciffusion.schedule import VE, VP, Cosine, RectifiedFlow, Schedule, TrigFlow
from sciffusion.solver import Rule, Solver, Window
from sciffusion.testing.claims import claim

__all__ = ["check_solver", "gaussian_moments", "measured_order"]

_SCHEDULES: tuple[Schedule, ...] = (RectifiedFlow(), VP(), Cosine(), VE(), TrigFlow())


def gaussian_moments(
    sampler: Sampler, schedule: Schedule, *, mean: float = 0.0, variance: float = 1.0
) -> tuple[float, float]:
    """Mean and variance of what a sampler makes of N(mean, variance) with the exact denoiser.

    It starts from the exact marginal at ``sampler.start``, or, at 1, from the prior.
    """
    alpha, sigma = (float(c) for c in schedule(sampler.start))
    at_prior = sampler.start == 1.0
    first = 0.0 if at_prior else alpha * mean
    spread = sigma if at_prior else math.sqrt(alpha**2 * variance + sigma**2)
    x = torch.tensor([first, spread], dtype=torch.float64)
    windows = sampler.windows(Gaussian(schedule))
    *_, (_, _, x) = _trace(sampler.solver, windows, schedule, x, mean, variance)
    return float(x[0]), float(x[1:].square().sum())


def _trace(
    solver: Solver,
    windows: Sequence[Window],
    schedule: Schedule,
    x: Tensor,
    mean: float,
    variance: float,
) -> Iterator[tuple[int, int, Tensor]]:
    """The value after every stage of every step: its coefficients of 1 and of every standard normal drawn so far."""
    known: list[tuple[Tensor, Tensor]] = []
    nodes = [t for w in windows for t in w.nodes]
    levels = iter(
        zip(*(c.tolist() for c in schedule(torch.tensor(nodes, dtype=torch.float64))), strict=True)
    )
    for i, (lift, rules) in enumerate(Gaussian(schedule).compile(solver, windows)):
        base = x if lift is None else _apply(lift, x, [])
        x = base
        for stage, rule in enumerate(rules):
            a, s = next(levels)
            gain = a * variance / (a**2 * variance + s**2)
            prediction = gain * x
            prediction[0] += (1 - gain * a) * mean
            known = [(x, prediction), *known[:5]]
            x = _apply(rule, base, known)
            yield i, stage, x


def _apply(rule: Rule, base: Tensor, known: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    parts = [base * rule.base, *(b * p for b, (_, p) in zip(rule.x0, known, strict=False))]
    parts += [c * x for c, (x, _) in zip(rule.values, known, strict=False)]
    out = torch.zeros(max(len(p) for p in parts) + (float(rule.noise) > 0), dtype=torch.float64)
    for p in parts:
        out[: len(p)] += p
    if rule.noise > 0:
        out[-1] = rule.noise
    return out


def measured_order(
    solver: Solver,
    *,
    steps: int = 160,
    variance: float = 0.6,
    schedule: Schedule | None = None,
    grid: Grid | None = None,
) -> float:
    r"""The order of convergence of a solver's variance on Gaussian data: the slope from ``steps`` to twice as many.

    Measured between the log-SNR -8 and 6, by default in equal steps of it. Deterministic solvers show their order as
    integrators, stochastic ones their weak order.
    """
    schedule = schedule or TrigFlow()
    grid = grid or LogSNR()
    start, stop = float(schedule.time(-8.0)), float(schedule.time(6.0))
    alpha, sigma = (float(c) for c in schedule(stop))
    exact = alpha**2 * variance + sigma**2
    errors = [
        abs(
            gaussian_moments(Sampler(solver, n, grid, start, stop), schedule, variance=variance)[1]
            - exact
        )
        for n in (steps, 2 * steps)
    ]
    return math.log2(errors[0] / errors[1])


def check_solver(
    solver: Solver, *, steps: Sequence[int] = (1, 2, 3, 10), exact_for: float | None = 0.0
) -> None:
    """Check a solver's coefficients on five schedules, from the prior and from times close to the data.

    Args:
        solver: the solver.
        steps: numbers of steps to try; those below ``solver.fewest`` count as that.
        exact_for: the standard deviation of the Gaussian data whose marginals the solver keeps exactly, after every
            stage of every step. 0, data that are one point, is what almost all solvers do; None: no data.

    Raises:
        AssertionError: unless every step has one rule per evaluation, finite coefficients, results on data that are one
            point with the right mean and, for the data of ``exact_for``, the right variance, after every stage, and
            ends on the data without noise; only a ``stochastic`` solver draws noise; the number of evaluations is as
            declared in all but the first and last step; and the measured order
            (:class:`~sciffusion.solver.Solver`) is at least the declared one less 0.2.
    """
    claim(solver.order >= 1 and solver.history >= 0 and solver.evaluations >= 1, "declared numbers")
    draws = False
    for schedule in _SCHEDULES:
        process = Gaussian(schedule)
        for start in (1.0, 0.5, 1e-3):
            for n in sorted({max(n, solver.fewest) for n in steps}):
                windows = Sampler(solver, n, start=start).windows(process)
                moves = process.compile(solver, windows)
                for i, (window, (lift, rules)) in enumerate(zip(windows, moves, strict=True)):
                    law = f"{solver}, {schedule}, step {i} of {n} from t = {start}"
                    _check_step(solver, window, rules, law, inner=0 < i < n - 1)
                    draws = draws or lift is not None or any(rule.noise > 0 for rule in rules)
                law = f"{solver}, {schedule}, {n} steps from t = {start}"
                _check_marginals(solver, windows, schedule, exact_for, law)
    claim(
        draws == solver.stochastic, f"{solver}: stochastic says {solver.stochastic}, noise: {draws}"
    )
    n = 160 if solver.order < 3 else 320  # higher orders show on finer grids only
    order, declared = (
        measured_order(solver, steps=n),
        min(solver.order, 2) if draws else solver.order,
    )
    claim(order >= declared - 0.2, f"{solver}: measured order {order:.2f} of {declared}")


def _check_step(
    solver: Solver, window: Window, rules: Sequence[Rule], law: str, *, inner: bool
) -> None:
    claim(len(rules) == len(window.nodes), f"{law}: one rule per evaluation")
    if inner:
        claim(len(rules) == solver.evaluations, f"{law}: evaluations as declared")
    claim(window.nodes[0] >= window.start, f"{law}: a step may begin higher, not lower")
    for rule in rules:
        finite = all(math.isfinite(c) for c in (rule.base, *rule.x0, *rule.values, rule.noise))
        claim(finite and rule.noise >= 0, f"{law}: finite coefficients, got {rule}")
    if window.end is None:
        claim(rules[-1].noise == 0, f"{law}: no noise in the last step")


def _check_marginals(
    solver: Solver,
    windows: Sequence[Window],
    schedule: Schedule,
    exact_for: float | None,
    law: str,
) -> None:
    """Carry one point and Gaussian data along: the mean and the spread of every stage are those of its level."""
    spread = exact_for or 0.0
    alpha, sigma = (float(c) for c in schedule(windows[0].start))
    x = torch.tensor([alpha, math.hypot(alpha * spread, sigma)], dtype=torch.float64)
    for i, stage, value in _trace(solver, windows, schedule, x, 1.0, spread**2):
        window = windows[i]
        t = (*window.nodes[1:], window.end)[stage]
        a, s = (1.0, 0.0) if t is None else (float(c) for c in schedule(t))
        size = max(1.0, sigma)
        claim(
            abs(float(value[0]) - a) < 1e-9 * size,
            f"{law}, step {i}: a constant prediction is followed exactly",
        )
        if exact_for is None or (t is None and spread):  # the last step draws no noise
            continue
        claim(
            abs(float(value[1:].square().sum().sqrt()) - math.hypot(a * spread, s)) < 1e-9 * size,
            f"{law}, step {i}: the noise level is met",
        )
