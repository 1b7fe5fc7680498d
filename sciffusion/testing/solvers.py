"""The contract of a solver, and its order, measured without a Monte Carlo error.

On Gaussian data the exact denoiser is affine, so a whole run is an affine map of its start and of every noise that it
draws. Carrying the coefficients of that map along gives the mean and variance of the result to rounding error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sciffusion.grid import Grid, LogSNR
from sciffusion.process import Gaussian
from sciffusion.samplers import Sampler
from sciffusion.schedule import VE, VP, Cosine, RectifiedFlow, Schedule, TrigFlow
from sciffusion.solver import Level, Rule, Solver
from sciffusion.testing.claims import claim

__all__ = ["check_solver", "gaussian_moments", "measured_order"]

SCHEDULES: tuple[Schedule, ...] = (RectifiedFlow(), VP(), Cosine(), VE(), TrigFlow())


def gaussian_moments(
    sampler: Sampler, schedule: Schedule, *, mean: float = 0.0, variance: float = 1.0
) -> tuple[float, float]:
    """Mean and variance of what a sampler makes of N(mean, variance) with the exact denoiser.

    It starts from the exact marginal at ``sampler.start``, or, at 1, from the prior.
    """
    process = Gaussian(schedule)
    windows = sampler.windows(process)
    alpha, sigma = (float(c) for c in schedule(sampler.start))
    at_prior = sampler.start == 1.0
    first = 0.0 if at_prior else alpha * mean
    spread = sigma if at_prior else math.sqrt(alpha**2 * variance + sigma**2)
    # coefficients of 1, of the start's standard normal, and of every standard normal drawn since
    x = torch.tensor([first, spread], dtype=torch.float64)
    known: list[tuple[Tensor, Tensor]] = []
    nodes = [t for w in windows for t in w.nodes]
    levels = iter(
        zip(*(c.tolist() for c in schedule(torch.tensor(nodes, dtype=torch.float64))), strict=True)
    )
    for lift, rules in process.compile(sampler.solver, windows):
        base = x if lift is None else _apply(lift, x, [])
        current = base
        for rule in rules:
            a, s = next(levels)
            gain = a * variance / (a**2 * variance + s**2)
            prediction = gain * current
            prediction[0] += (1 - gain * a) * mean
            known = [(current, prediction), *known[:5]]
            current = _apply(rule, base, known)
        x = current
    return float(x[0]), float(x[1:].square().sum())


def _apply(rule: Rule, base: Tensor, known: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    parts = [base * rule.base, *(b * p for b, (_, p) in zip(rule.x0, known, strict=False))]
    parts += [c * x for c, (x, _) in zip(rule.values, known, strict=False)]
    out = torch.zeros(max(len(p) for p in parts) + (rule.noise > 0), dtype=torch.float64)
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


def _check_rule(rule: Rule, base: Level, target: Level, law: str) -> None:
    """Data that are one point stay exact: the mean and the spread of the noise are those of the target."""
    finite = all(math.isfinite(c) for c in (rule.base, *rule.x0, rule.noise))
    claim(finite and rule.noise >= 0, f"{law}: finite coefficients, got {rule}")
    mean = rule.base * base.alpha + math.fsum(rule.x0)
    size = max(1.0, *(abs(b) for b in rule.x0), abs(rule.base))
    claim(
        abs(mean - target.alpha) < 1e-9 * size, f"{law}: a constant prediction is followed exactly"
    )
    spread = math.hypot(rule.base * base.sigma, rule.noise)
    claim(
        abs(spread - target.sigma) < 1e-9 * max(1.0, base.sigma), f"{law}: the noise level is met"
    )


def check_solver(solver: Solver, *, steps: Sequence[int] = (1, 2, 3, 10)) -> None:
    """Check a solver's coefficients on five schedules, from the prior and from times close to the data.

    Raises:
        AssertionError: unless every step has one rule per evaluation, finite coefficients, exact results for a constant
            prediction (mean and noise level, after every stage), and ends on the data without noise; only a
            ``stochastic`` solver draws noise; the number of evaluations is as declared in all but the first and last
            step; and the measured order (:class:`~sciffusion.solver.Solver`) is at least the declared one less 0.2.
    """
    claim(solver.order >= 1 and solver.history >= 0 and solver.evaluations >= 1, "declared numbers")
    draws = False
    for schedule in SCHEDULES:
        process = Gaussian(schedule)
        for start in (1.0, 0.5, 1e-3):
            for n in (max(n, solver.fewest) for n in steps):
                windows = Sampler(solver, n, start=start).windows(process)
                moves = process.compile(solver, windows)
                for i, (window, (lift, rules)) in enumerate(zip(windows, moves, strict=True)):
                    law = f"{solver}, {schedule}, step {i} of {n} from t = {start}"
                    claim(len(rules) == len(window.nodes), f"{law}: one rule per evaluation")
                    if 0 < i < n - 1:
                        claim(len(rules) == solver.evaluations, f"{law}: evaluations as declared")
                    claim(
                        window.nodes[0] >= window.start,
                        f"{law}: a step may begin higher, not lower",
                    )
                    levels = [Level(*(float(c) for c in schedule(t))) for t in window.nodes]
                    clean = Level(1.0, 0.0)
                    end = (
                        Level(*(float(c) for c in schedule(window.end)))
                        if window.end is not None
                        else clean
                    )
                    for rule, target in zip(rules, (*levels[1:], end), strict=True):
                        _check_rule(rule, levels[0], target, law)
                        draws = draws or rule.noise > 0
                    if window.end is None:
                        claim(rules[-1].noise == 0, f"{law}: no noise in the last step")
                    draws = draws or lift is not None
    claim(
        draws == solver.stochastic, f"{solver}: stochastic says {solver.stochastic}, noise: {draws}"
    )
    order, declared = measured_order(solver), min(solver.order, 2) if draws else solver.order
    claim(order >= declared - 0.2, f"{solver}: measured order {order:.2f} of {declared}")
