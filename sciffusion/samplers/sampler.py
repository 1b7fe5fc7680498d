"""The loop from noise to data.

A sampler is a solver, a number of steps and a grid, all frozen. ``init`` and ``step`` keep everything that changes in
an explicit carry, so a run can be stopped, looked at, or taken apart; ``__call__`` is the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch

from sciffusion.denoiser import Denoiser, Prediction
from sciffusion.grid import Grid, LogSNR
from sciffusion.noise import Noise
from sciffusion.process import Process
from sciffusion.solver import Solver, Window
from sciffusion.state import Value, layout_of

__all__ = ["Carry", "Sampler", "Solution"]


@final
@dataclass(frozen=True)
class Carry:
    """Where a run stands: the value, the number of steps done, and the predictions of x0, latest first."""

    x: Value
    done: int
    history: tuple[Value, ...]
    table: Any


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
    keeps some noise at t = 0.
    """

    solver: Solver
    steps: int = 32
    grid: Grid = field(default_factory=LogSNR)
    start: float = 1.0
    stop: float = 0.0

    def windows(self, process: Process) -> list[Window]:
        """The times of every step, by the process's clock."""
        times = self.grid(process.clock, self.steps, self.start, self.stop).tolist()
        out: list[Window] = []
        past: tuple[float, ...] = ()
        for t, s in zip(times[:-1], times[1:], strict=True):
            end = None if s == 0 else s
            nodes = self.solver.nodes(process.clock, t, end, self.steps, past)
            out.append(Window(t, nodes, past, end))
            past = (*reversed(nodes), *past)[: self.solver.history]
        return out

    def init(self, denoiser: Denoiser, x: Value) -> Carry:
        """Begin at ``x``, a value at time ``start``. Every coefficient of the run is computed here."""
        process = denoiser.process
        process.check(x)
        windows = self.windows(process)
        ahead = iter(torch.tensor([t for w in windows for t in w.nodes], dtype=torch.float64))
        times = [[next(ahead) for _ in w.nodes] for w in windows]
        moves = {k: process.field(k).compile(self.solver, windows) for k in process.fields(x)}
        lifted = [w.nodes[0] != w.start for w in windows]
        return Carry(x, 0, (), (times, moves, lifted))

    def step(self, denoiser: Denoiser, carry: Carry, noise: Noise) -> Carry:
        """One step. Raises ``ValueError`` when the run is over."""
        i, (times, moves, lifted) = carry.done, carry.table
        if i >= len(times):
            raise ValueError(f"the run is over after {len(times)} steps; start another with init")
        process = denoiser.process
        base = current = carry.x
        if lifted[i]:
            base = current = process.rebuild(
                base,
                {
                    k: process.field(k).lift(moves[k][i], v, layout_of(base, k), noise)
                    for k, v in process.fields(base).items()
                },
            )
        known = carry.history
        for stage, t in enumerate(times[i]):
            prediction: Prediction = denoiser(current, t, None, known[0] if known else None)
            known = (prediction.x0, *known)
            current = self._advance(
                process, [m[i] for m in moves.values()], stage, base, current, known, noise
            )
        keep = max(1, self.solver.history)
        return Carry(current, i + 1, known[:keep], carry.table)

    @staticmethod
    def _advance(
        process: Process,
        moves: Sequence[Any],
        stage: int,
        base: Value,
        current: Value,
        known: Sequence[Value],
        noise: Noise,
    ) -> Value:
        bases, preds = process.fields(base), [process.fields(v) for v in known]
        out = {}
        for (k, x), move in zip(process.fields(current).items(), moves, strict=True):
            x0 = [p[k] for p in preds]
            out[k] = process.field(k).advance(
                move, stage, bases[k], x, x0, layout_of(base, k), noise
            )
        return process.rebuild(current, out)

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
            grad: let gradients flow through the run (memory then grows with the steps).
            callback: called with the carry after every step.
        """
        noise = seed if isinstance(seed, Noise) else Noise(seed)
        with torch.set_grad_enabled(grad and torch.is_grad_enabled()):
            carry, values, nfe = self.init(denoiser, x), [x], 0
            for times in carry.table[0]:
                carry = self.step(denoiser, carry, noise)
                nfe += len(times)
                if path:
                    values.append(carry.x)
                if callback is not None:
                    callback(carry)
        return Solution(carry.x, nfe, tuple(values) if path else ())
