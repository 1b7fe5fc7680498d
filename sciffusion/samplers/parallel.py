r"""A whole run at once: Picard iteration over time.

The values :math:`x_0, \dots, x_N` at the times of a run solve :math:`x_{i+1} = \Phi_i(x_i, \hat x_0(x_i), \dots)`.
Starting from a guess of all of them, one round predicts at all times in a single batch and then carries the (cheap)
rules through from the start. After k rounds the first k values are those of the sequential run; smooth runs arrive far
earlier. A round costs as many evaluations as the run has steps, side by side: it pays where a device has room for them.
Source: Shih et al., ParaDiGMS, 2023.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from sciffusion.denoiser import Condition, Denoiser
from sciffusion.noise import Noise
from sciffusion.process import Process
from sciffusion.samplers.sampler import Plan, Sampler
from sciffusion.state import Value, batch_of, cat, layout_of, take

__all__ = ["Parallel", "Rounds"]


@final
@dataclass(frozen=True)
class Rounds:
    """The result of a parallel run: ``x``, the ``rounds`` (calls of the denoiser) and the predictions a sample took."""

    x: Value
    rounds: int
    nfe: int


@final
@dataclass(frozen=True)
class Parallel:
    """The run of a sampler, all its times at once, until no sample's value moves by more than ``tolerance``.

    With ``tolerance=0`` the end is that of the sequential run, noise included, up to rounding. A sample is finished up
    to the first time at which it still moves (root mean square over a field's valid entries; classes: any change), by
    its own values alone: batch mates change nothing. The previous prediction is not shown to the denoiser.

    Raises ``ValueError`` for a negative tolerance and, when called, for solvers with more than one evaluation a step
    and for states with a context.
    """

    sampler: Sampler
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        if self.tolerance < 0:
            raise ValueError(f"tolerance must not be negative, got {self.tolerance}")

    def __call__(
        self,
        denoiser: Denoiser,
        x: Value,
        seed: int | Sequence[int] = 0,
        *,
        cond: Condition = None,
        bind: Callable[[Denoiser, Condition], Denoiser] = Denoiser.given,
    ) -> Rounds:
        """Run from ``x``.

        Args:
            denoiser: not yet bound to its condition, which has to be laid out for every time.
            x: the start, as for the sampler.
            seed: of the noise: the sequential run's seed gives the sequential run's noise.
            cond: the condition, with one row a sample.
            bind: how the denoiser takes its condition, ``lambda d, c: CFG(d, c, null, 3.0)`` for instance.
        """
        process, batch = denoiser.process, batch_of(x)
        plan = self.sampler.init(denoiser, x).plan
        if any(len(times) != 1 for times in plan.times) or any(plan.lifted):
            raise ValueError(
                f"{self.sampler.solver} evaluates more than once a step; take a solver with one evaluation"
            )
        steps = len(plan.times)
        path, known = [x] * (steps + 1), [(x, x)] * steps
        arrived = torch.zeros(batch, dtype=torch.long)  # up to where a sample's values are final
        rounds = 0
        with torch.no_grad():
            while int(arrived.min()) < steps:
                first = int(arrived.min())
                seen = self._predict(denoiser, plan, path[first:steps], first, cond, bind)
                for i, (value, x0) in enumerate(seen, first):
                    held = i < arrived
                    old = known[i] if rounds else (value, x0)
                    known[i] = (
                        _keep(process, old[0], value, held),
                        _keep(process, old[1], x0, held),
                    )
                new = self._carry(process, plan, x, known, Noise(seed))
                far = torch.stack([_moved(process, a, b) for a, b in zip(path, new, strict=True)])
                path = [
                    _keep(process, a, b, i <= arrived)
                    for i, (a, b) in enumerate(zip(path, new, strict=True))
                ]
                later = torch.arange(steps + 1)[:, None] > arrived
                still = ((far > self.tolerance) & later).int()
                # the first value that still moved was made of predictions at values that had come to rest
                reached = torch.where(still.any(0), still.argmax(0), steps)
                arrived = torch.maximum(reached, arrived + 1).clamp(max=steps)
                rounds += 1
        return Rounds(path[-1], rounds, rounds * steps)

    @staticmethod
    def _predict(
        denoiser: Denoiser,
        plan: Plan,
        values: Sequence[Value],
        first: int,
        cond: Condition,
        bind: Callable[[Denoiser, Condition], Denoiser],
    ) -> list[tuple[Value, Value]]:
        """The evaluations at all times from ``first`` on, in one call."""
        n, batch = len(values), batch_of(values[0])
        t = torch.cat([plan.times[first + i][0].expand(batch) for i in range(n)])
        rows = torch.arange(batch).repeat(n)
        wide = pytree.tree_map(
            lambda c: c[rows.to(c.device)] if isinstance(c, Tensor) and c.ndim else c, cond
        )
        bound = denoiser if cond is None else bind(denoiser, wide)
        joined = cat(values)
        prediction = bound(joined, t)
        if prediction.x_t is not joined:
            raise ValueError(
                "the guidance moves the point at which it predicts; run its sampler step by step"
            )
        parts = [torch.arange(i * batch, (i + 1) * batch) for i in range(n)]
        return [(v, take(prediction.x0, p)) for v, p in zip(values, parts, strict=True)]

    def _carry(
        self,
        process: Process,
        plan: Plan,
        x: Value,
        known: Sequence[tuple[Value, Value]],
        noise: Noise,
    ) -> list[Value]:
        """The values that the rules make of given predictions."""
        out, history = [x], self.sampler.solver.history
        for i in range(len(known)):
            seen = [(out[j], known[j][1]) for j in range(i, max(-1, i - 1 - history), -1)]
            moves = [m[i] for m in plan.moves]
            out.append(self.sampler.advance(process, moves, 0, out[-1], seen, noise))
        return out


def _moved(process: Process, a: Value, b: Value) -> Tensor:
    """How far every sample moved, (B,): the root mean square of its worst field; infinite for a changed class."""
    parts = []
    fields = process.fields(b)
    for k, x in process.fields(a).items():
        layout, y = layout_of(a, k), fields[k]
        if not x.is_floating_point():
            parts.append(torch.where(layout.reduce((x != y).long()) > 0, math.inf, 0.0))
            continue
        parts.append(layout.reduce(layout.clean(x - y).double().square(), "mean").sqrt().cpu())
    return torch.stack([p.double() for p in parts]).amax(0)


def _keep(process: Process, old: Value, new: Value, held: Tensor) -> Value:
    """``new``, but ``old`` in the samples that are held, (B,)."""
    out, fields = {}, process.fields(new)
    for k, x in process.fields(old).items():
        y = fields[k]
        out[k] = torch.where(layout_of(new, k).expand(held.to(y.device), y), x.to(y), y)
    return process.rebuild(new, out)
