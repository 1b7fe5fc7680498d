"""The loop from noise to data.

A sampler is a solver, a number of steps and a grid, all frozen. ``init`` and ``step`` keep everything that changes in
an explicit carry, so a run can be stopped, looked at, or taken apart; ``__call__`` is the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, final

import torch
from torch import Tensor

from sciffusion.denoiser import Denoiser, Prediction
from sciffusion.grid import FlowTime, Grid
from sciffusion.layout import Dense
from sciffusion.noise import Noise
from sciffusion.process import Process
from sciffusion.samplers.restart import Restart, legs
from sciffusion.solver import Rule, Solver, Window
from sciffusion.state import State, Value, batch_of, layout_of

__all__ = ["Carry", "Plan", "Sampler", "Solution"]


@final
@dataclass(frozen=True)
class Plan:
    """All that is known of a run before it starts, step by step.

    ``times``: of the evaluations, and ``ends``: of the steps, () or (B,); ``moves``: of every field, as its process
    compiled them; ``lifted``: whether a step first raises the noise.
    """

    times: Sequence[Sequence[Tensor]]
    ends: Sequence[Tensor]
    moves: Sequence[Sequence[Any]]
    lifted: Sequence[bool]


@final
@dataclass(frozen=True)
class Carry:
    """Where a run stands: the value, the number of steps done, and the evaluations (value, x0), latest first."""

    x: Value
    done: int
    history: tuple[tuple[Value, Value], ...]
    plan: Plan


@final
@dataclass(frozen=True)
class Solution:
    """The result of a run: ``x``, the denoiser calls ``nfe``, and ``path`` (every value, start included) if asked."""

    x: Value
    nfe: int
    path: tuple[Value, ...] = ()


@final
@dataclass(frozen=True)
class Sampler:
    """A solver on a grid of ``steps`` steps from time ``start`` to ``stop``.

    A run that stops at 0 ends on clean data: its last step leads to (alpha, sigma) = (1, 0) even where the schedule
    keeps some noise at t = 0. The run continues from the ``x_t`` of every prediction, which guidance may have moved.
    ``restarts`` send it back up on the way (:class:`~sciffusion.samplers.Restart`), each with steps of its own. Raises
    ``ValueError`` for fewer steps than the solver needs to be of its order.
    """

    solver: Solver
    steps: int = 32
    grid: Grid = field(default_factory=FlowTime)
    start: float = 1.0
    stop: float = 0.0
    restarts: tuple[Restart, ...] = ()

    def __post_init__(self) -> None:
        fewest = min((self.steps, *(r.steps for r in self.restarts)))
        if fewest < self.solver.fewest:
            raise ValueError(
                f"steps must be at least {self.solver.fewest} for {self.solver}, got {fewest}; "
                "take more steps, or a solver of a lower order"
            )

    def windows(self, process: Process) -> list[Window]:
        """The times of every step, by the process's clock; of the first sample where every one has its own grid."""
        times = self.grid(process.clock, self.steps, self.start, self.stop)
        return self._windows(process, times.reshape(-1, times.shape[-1])[0].tolist())

    def _windows(self, process: Process, times: Sequence[float]) -> list[Window]:
        out: list[Window] = []
        past: tuple[float, ...] = ()
        for begin, leg in legs(self.restarts, process.clock, times):
            at = begin
            if at != leg[0]:  # what was predicted before a restart belongs to another path
                past = ()
            for t, s in pairwise(leg):
                end = None if s == 0 else s
                nodes = self.solver.nodes(process.clock, t, end, self.steps, past)
                out.append(Window(at, nodes, past, end))
                at, past = s, (*reversed(nodes), *past)[: self.solver.history]
        return out

    def recurrent(self, process: Process, rounds: int) -> Sampler:
        """This sampler with every step but the last taken ``rounds`` times, noised back to its start in between.

        A guided step then has as many chances to agree with its guidance: the recurrence of universal guidance
        (Bansal et al., 2023), FreeDoM (Yu et al., 2023) and TFG (Ye et al., 2024). The cost grows as fast.

        Raises ``ValueError`` for fewer than one round, for multistep solvers, which have no history in a single step,
        and for a grid with times of its own for every sample.
        """
        if rounds < 1:
            raise ValueError(f"rounds must be at least 1, got {rounds}")
        if rounds == 1:
            return self
        grid = self.grid(process.clock, self.steps, self.start, self.stop)
        if grid.ndim != 1:
            raise ValueError(
                "grid gives every sample times of its own; recurrence needs one for all"
            )
        times = grid.tolist()
        again = (Restart(s, t, 1, rounds - 1) for t, s in pairwise(times) if s > 0)
        return replace(self, restarts=(*self.restarts, *again))

    def plan(self, process: Process, x: Value) -> Plan:
        """Compute every coefficient of a run from ``x``."""
        times = self.grid(process.clock, self.steps, self.start, self.stop)
        if times.ndim == 1:
            windows = self._windows(process, times.tolist())
            moves = [process.field(k).compile(self.solver, windows) for k in process.fields(x)]
            ahead = iter(torch.tensor([t for w in windows for t in w.nodes], dtype=torch.float64))
            nodes = [[next(ahead) for _ in w.nodes] for w in windows]
            ends = list(torch.tensor([w.end or 0.0 for w in windows], dtype=torch.float64))
            return Plan(nodes, ends, moves, [w.nodes[0] != w.start for w in windows])
        if len(times) != batch_of(x):
            raise ValueError(
                f"grid holds times for {len(times)} samples, the batch has {batch_of(x)}; give one row a sample"
            )
        each = [self._windows(process, row) for row in times.tolist()]
        steps = list(zip(*each, strict=True))
        if any(len({len(w.nodes) for w in step}) != 1 for step in steps):
            raise ValueError(
                f"{self.solver} evaluates the denoiser more often in some samples' grids than in others'; "
                "use a solver with one evaluation a step"
            )
        moves = []
        for k in process.fields(x):
            rows = [process.field(k).compile(self.solver, windows) for windows in each]
            moves.append([_abreast(step) for step in zip(*rows, strict=True)])
        nodes = [
            list(torch.tensor([w.nodes for w in step], dtype=torch.float64).T) for step in steps
        ]
        lifted = [any(w.nodes[0] != w.start for w in step) for step in steps]
        ends = [torch.tensor([w.end or 0.0 for w in step], dtype=torch.float64) for step in steps]
        return Plan(nodes, ends, moves, lifted)

    def init(self, denoiser: Denoiser, x: Value) -> Carry:
        """Begin at ``x``, a value at time ``start``. Every coefficient of the run is computed here."""
        denoiser.process.check(x)
        with torch.no_grad():  # levels of a learned schedule are numbers too
            plan = self.plan(denoiser.process, x)
        return Carry(x, 0, (), plan)

    def step(self, denoiser: Denoiser, carry: Carry, noise: Noise) -> Carry:
        """One step. Raises ``ValueError`` when the run is over."""
        i, plan, process = carry.done, carry.plan, denoiser.process
        if i >= len(plan.times):
            raise ValueError(
                f"the run is over after {len(plan.times)} steps; start another with init"
            )
        moves = [m[i] for m in plan.moves]
        base = current = carry.x
        if plan.lifted[i]:
            lifted = {
                k: process.field(k).lift(move, v, layout_of(base, k), noise)
                for (k, v), move in zip(process.fields(base).items(), moves, strict=True)
            }
            base = current = process.rebuild(base, lifted)
        known = carry.history
        for stage, t in enumerate(plan.times[i]):
            prediction: Prediction = denoiser(current, t, None, known[0][1] if known else None)
            known = ((prediction.x_t, prediction.x0), *known)
            if stage == 0:
                base = prediction.x_t
            later = [*plan.times[i][stage + 1 :], plan.ends[i]]
            drawn = noise.between(t, later[0]) if noise.brownian else noise
            current = self.advance(process, moves, stage, base, known, drawn)
        keep = max(1, self.solver.history)
        return Carry(current, i + 1, known[:keep], plan)

    @staticmethod
    def advance(
        process: Process,
        moves: Sequence[Any],
        stage: int,
        base: Value,
        known: Sequence[tuple[Value, Value]],
        noise: Noise,
    ) -> Value:
        """Carry out one stage of a step: the fields' ``moves``, with the evaluations ``known``, latest first."""
        if type(base) is not State:  # the same, without the dictionaries of fields
            seen, said = zip(*known, strict=True)
            layout = Dense(base.shape[0])
            return process.field(None).advance(moves[0], stage, base, seen, said, layout, noise)
        values = [process.fields(x) for x, _ in known]
        preds = [process.fields(x0) for _, x0 in known]
        out = {}
        for (k, x), move in zip(process.fields(base).items(), moves, strict=True):
            at, x0 = [v[k] for v in values], [p[k] for p in preds]
            out[k] = process.field(k).advance(move, stage, x, at, x0, layout_of(base, k), noise)
        return process.rebuild(base, out)

    def __call__(
        self,
        denoiser: Denoiser,
        x: Value,
        seed: int | Sequence[int] | Noise = 0,
        *,
        path: bool = False,
        grad: bool = False,
        callback: Callable[[Carry], None] | None = None,
    ) -> Solution:
        """Run from ``x`` at time ``start`` to ``stop``.

        Args:
            denoiser: with its condition bound.
            x: the start, ``process.prior(like, noise)`` at time 1 or a value noised to ``start``.
            seed: of the noise drawn on the way: an integer, one integer per sample, or a running stream.
            path: keep every value on the way.
            grad: let gradients flow through the run, to ``x`` and the denoiser (memory then grows with the steps). The
                coefficients of the steps are numbers, those of a learned schedule too.
            callback: called with the carry after every step.
        """
        noise = seed if isinstance(seed, Noise) else Noise(seed)
        with torch.set_grad_enabled(grad and torch.is_grad_enabled()):
            carry, values, nfe = self.init(denoiser, x), [x], 0
            for times in carry.plan.times:
                carry = self.step(denoiser, carry, noise)
                nfe += len(times)
                if path:
                    values.append(carry.x)
                if callback is not None:
                    callback(carry)
        return Solution(carry.x, nfe, tuple(values) if path else ())


def _abreast(moves: Sequence[Any]) -> Any:
    """The moves of samples on different grids as one move, whose numbers are tensors (B,)."""
    if all(m is None for m in moves):
        return None
    if any(isinstance(m, Rule) for m in moves):
        rules = [Rule(1.0, ()) if m is None else m for m in moves]
        return Rule(
            _abreast([r.base for r in rules]),
            _abreast(_padded([r.x0 for r in rules])),
            _abreast([r.noise for r in rules]),
            _abreast(_padded([r.values for r in rules])),
        )
    if isinstance(moves[0], tuple):
        return tuple(_abreast(parts) for parts in zip(*moves, strict=True))
    return torch.tensor(moves, dtype=torch.float64)


def _padded(rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Rules may use fewer predictions near pure noise: the missing ones count nothing."""
    longest = max(len(row) for row in rows)
    return [row + (0.0,) * (longest - len(row)) for row in rows]
