r"""A grid fitted to a denoiser: where few steps do the least harm.

A reference run in many steps along log-SNR records what the denoiser says on its way. The error that one step from time
:math:`t_i` to :math:`t_j` would make against it costs no further call, so the best of all grids on the reference's
times, by the sum of its steps' errors, is found exactly by dynamic programming (GITS, Chen et al., 2024). From that
grid, or a formula's that does better, the times move, one at a time, wherever that brings the end of a run with the
solver itself nearer to the end of the reference (the aim of Tong et al., LD3, 2024, without gradients). Sabour et al.,
Align your steps, 2024, showed what fitted grids are worth in few steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.grid.spacing import FlowTime, Karras, LogSNR
from sciffusion.grid.times import Times
from sciffusion.noise import Noise
from sciffusion.process import Gaussian, Noised, Process
from sciffusion.samplers import Multistep, Sampler
from sciffusion.samplers.ddim import ddim_rule
from sciffusion.schedule import Schedule
from sciffusion.solver import Level, Solver
from sciffusion.state import Value, layout_of

__all__ = ["optimise"]


@final
class _Recorder(Denoiser):
    """Keeps every value and its prediction."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__()
        self.inner, self.process = inner, inner.process
        self.seen: list[Prediction] = []

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        self.seen.append(self.inner(x_t, t, cond, previous))
        return self.seen[-1]


def optimise(
    denoiser: Denoiser,
    x0: Value,
    steps: int,
    solver: Solver | None = None,
    *,
    start: float = 1.0,
    stop: float = 0.0,
    candidates: int = 64,
    rounds: int = 16,
    window: LogSNR | None = None,
    seed: int | Sequence[int] = 0,
) -> Times:
    """Fit a grid of ``steps`` steps to a denoiser.

    Args:
        denoiser: with its condition bound; its fields all Gaussian.
        x0: clean samples, a tensor or a state; noised to ``start``, they begin the runs that are compared. Tens will
            do for a plain problem: few times are fitted.
        steps: of the grid.
        solver: the solver that will run on it, without noise of its own. Default: ``Multistep(2)``.
        start: first time.
        stop: last time.
        candidates: steps of the reference.
        rounds: sweeps over the inner times, two runs for each in each; 0 takes the best of the grids to start with.
        window: the log-SNRs between which times are sought. Default: those of ``LogSNR()``.
        seed: of the noise, or one for each sample.

    The fit takes ``candidates + (2 rounds (steps - 1) + 5) steps`` calls of the denoiser (a solver of two evaluations
    a step: twice as many), all on the whole of ``x0``.

    Raises ``ValueError`` if a field is not Gaussian, the solver is stochastic, or ``steps`` does not lie between 1 and
    ``candidates``.
    """
    solver, window, process = solver or Multistep(2), window or LogSNR(), denoiser.process
    if not 1 <= steps <= candidates:
        raise ValueError(f"steps must lie between 1 and candidates ({candidates}), got {steps}")
    if solver.stochastic:
        raise ValueError(
            f"solver must draw no noise on its way, {solver} does; fit its noiseless form"
        )
    for name in process.fields(x0):
        if not isinstance(process.field(name), Gaussian):
            raise ValueError(f"every field must be Gaussian, the field {name!r} is not")
    times = window(process.clock, candidates, start, stop)
    with torch.no_grad():
        noised = process.perturb(x0, times[0], Noise(seed))
        recorder = _Recorder(denoiser)
        end = Sampler(Multistep(2), candidates, Times(times), start, stop)(recorder, noised.x_t).x
        path = [(p.x_t, p.x0) for p in recorder.seen] + [(end, end)]
        ruler = _Ruler(noised, process, times, clean=stop == 0)

        def error(times: Tensor) -> float:
            run = Sampler(solver, steps, Times(times), start, stop)(denoiser, noised.x_t)
            return ruler.distance(run.x, end, -1)

        starts = [times[_shortest(_step_errors(path, ruler), steps)]]
        for grid in (FlowTime(), Karras(low=window.low, high=window.high), window):
            starts.append(grid(process.clock, steps, start, stop))
        return Times(_descend(error, min(starts, key=error), window, process.clock, rounds))


@final
class _Ruler:
    """Distances between values of the reference's times, in units of what a field's numbers are there."""

    def __init__(self, noised: Noised, process: Process, times: Tensor, *, clean: bool) -> None:
        self.process = process
        self.levels: dict[str | None, list[Level]] = {}
        self.scales: dict[str | None, list[float]] = {}
        for name, x0 in process.fields(noised.x0).items():
            alpha, sigma = process.field(name).schedule(times)
            levels = [Level(a, s) for a, s in zip(alpha.tolist(), sigma.tolist(), strict=True)]
            # a run down to 0 ends on clean data, whatever the schedule says
            self.levels[name] = [*levels[:-1], Level(1.0, 0.0) if clean else levels[-1]]
            layout = layout_of(noised.x0, name)
            data, noise = (
                float(layout.reduce(v.double() ** 2, "mean").mean())
                for v in (x0, process.fields(noised.eps)[name])
            )
            self.scales[name] = [
                max(v.alpha**2 * data + v.sigma**2 * noise, 1e-30) for v in self.levels[name]
            ]

    def distance(self, x: Value, y: Value, j: int) -> float:
        """The mean over samples of the distance of two values at the j-th time."""
        others, square = self.process.fields(y), torch.zeros(())
        for name, v in self.process.fields(x).items():
            layout = layout_of(x, name)
            off = (v - others[name]).double() ** 2
            square = square + layout.reduce(off, "mean").cpu() / self.scales[name][j]
        return float(square.sqrt().mean())

    def step(self, path: Sequence[tuple[Value, Value]], i: int, j: int) -> Value:
        """Where a first-order step leads from the i-th value of the reference to the j-th time."""
        x, x0 = (self.process.fields(v) for v in path[i])
        out = {}
        for name, levels in self.levels.items():
            rule = ddim_rule(levels[i], levels[j])
            out[name] = rule.base * x[name] + rule.x0[0] * x0[name]
        return self.process.rebuild(path[i][0], out)


def _step_errors(path: Sequence[tuple[Value, Value]], ruler: _Ruler) -> NDArray[np.float64]:
    """What one step from the i-th to the j-th time adds to a run's error; infinite for steps back."""
    errors = np.full((len(path), len(path)), np.inf)
    for i in range(len(path)):
        for j in range(i + 1, len(path)):
            errors[i, j] = ruler.distance(ruler.step(path, i, j), path[j][0], j)
    return errors


def _shortest(errors: NDArray[np.float64], steps: int) -> list[int]:
    """The path of that many steps from the first to the last point with the least sum of errors."""
    best, came = np.full(len(errors), np.inf), []
    best[0] = 0.0
    for _ in range(steps):
        through = best[:, None] + errors
        came.append(through.argmin(0))
        best = through.min(0)
    path = [len(errors) - 1]
    for back in reversed(came):
        path.append(int(back[path[-1]]))
    return path[::-1]


def _descend(
    error: Callable[[Tensor], float], times: Tensor, window: LogSNR, clock: Schedule, rounds: int
) -> Tensor:
    """Move the inner times, one by one, by ever smaller parts of the way to their neighbours, wherever it helps."""
    place = clock.log_snr(times).clamp(window.low, window.high)
    least, part = error(times), 0.5
    for _ in range(rounds if len(times) > 2 else 0):
        moved = False
        for i in range(1, len(times) - 1):
            for neighbour in (i - 1, i + 1):
                trial = times.clone()
                level = place[i] + part * (place[neighbour] - place[i])
                trial[i] = clock.time(level)
                if not bool((trial.diff() < 0).all()):
                    continue
                found = error(trial)
                if found < least:
                    least, times, moved = found, trial, True
                    place[i] = level
        part = part if moved else part / 2
    return times
