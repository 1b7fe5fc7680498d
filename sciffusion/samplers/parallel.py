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
from sciffusion.state import State, Value, batch_of, cat, layout_of, take

__all__ = ["Parallel", "Rounds"]


@final
@dataclass(frozen=True)
class Rounds:
    """The result of a parallel run: ``x``, its ``rounds`` (calls of the denoiser), and ``nfe`` predictions a sample."""

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

    Raises ``ValueError`` for a negative tolerance and, when called, for runs with more than one evaluation a step or
    that raise the noise on their way, for states with a context, for conditions without one row a sample, and for
    guidance that moves the point at which it predicts.
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
            cond: the condition, with one row a sample, or one for all.
            bind: how the denoiser takes its condition, ``lambda d, c: CFG(d, c, null, 3.0)`` for instance.
        """
        process, batch = denoiser.process, batch_of(x)
        plan = self.sampler.init(denoiser, x).plan
        if any(len(times) != 1 for times in plan.times) or any(plan.lifted):
            raise ValueError(
                f"{self.sampler} evaluates more than once in a step, or raises the noise on its way; "
                "take a solver with one evaluation, without churn and restarts"
            )
        steps = len(plan.times)
        path = [x] * (steps + 1)
        known: list[Value] = []
        arrived = torch.zeros(batch, dtype=torch.long)  # up to where a sample's values are final
        rounds = nfe = 0
        with torch.no_grad():
            while int(arrived.min()) < steps:
                first = int(arrived.min())
                seen = self._predict(denoiser, plan, path[first:steps], first, cond, bind)
                kept = zip(range(first, steps), known[first:] or seen, seen, strict=True)
                known[first:] = [_keep(process, old, x0, i < arrived) for i, old, x0 in kept]
                new = self._carry(process, plan, x, known, Noise(seed))
                far = torch.stack([_moved(process, a, b) for a, b in zip(path, new, strict=True)])
                path, still = new, (far > self.tolerance).int()
                # the first value that still moved was made of predictions at values that had come to rest
                reached = torch.where(still.any(0), still.argmax(0), steps)
                arrived = torch.maximum(reached, arrived + 1).clamp(max=steps)
                rounds, nfe = rounds + 1, nfe + len(seen)
        return Rounds(path[-1], rounds, nfe)

    @staticmethod
    def _predict(
        denoiser: Denoiser,
        plan: Plan,
        values: Sequence[Value],
        first: int,
        cond: Condition,
        bind: Callable[[Denoiser, Condition], Denoiser],
    ) -> list[Value]:
        """The predictions at all times from ``first`` on, in one call."""
        n, batch = len(values), batch_of(values[0])
        t = torch.cat([plan.times[first + i][0].expand(batch) for i in range(n)])
        wide = pytree.tree_map(
            lambda c: _repeated(c, batch, n), cond, is_leaf=lambda c: type(c) is State
        )
        bound = denoiser if cond is None else bind(denoiser, wide)
        joined = cat(values)
        prediction = bound(joined, t)
        if prediction.x_t is not joined:
            raise ValueError(
                "the guidance moves the point at which it predicts; run its sampler step by step"
            )
        parts = [torch.arange(i * batch, (i + 1) * batch) for i in range(n)]
        return [take(prediction.x0, p) for p in parts]

    def _carry(
        self,
        process: Process,
        plan: Plan,
        x: Value,
        known: Sequence[Value],
        noise: Noise,
    ) -> list[Value]:
        """The values that the rules make of given predictions."""
        out, history = [x], self.sampler.solver.history
        for i in range(len(known)):
            seen = [(out[j], known[j]) for j in range(i, max(-1, i - 1 - history), -1)]
            moves = [m[i] for m in plan.moves]
            out.append(self.sampler.advance(process, moves, 0, out[-1], seen, noise))
        return out


def _repeated(cond: Condition, batch: int, times: int) -> Condition:
    """A tensor (or state) of a condition, its ``batch`` rows repeated ``times`` times."""
    if type(cond) is State:
        return take(cond, torch.arange(batch).repeat(times))
    if not isinstance(cond, Tensor) or cond.ndim == 0 or len(cond) == 1:
        return cond
    if len(cond) != batch:
        raise ValueError(
            f"cond holds a tensor of shape {tuple(cond.shape)} for a batch of {batch}; "
            "give one row a sample, or one for all"
        )
    return cond.repeat(times, *[1] * (cond.ndim - 1))


def _moved(process: Process, a: Value, b: Value) -> Tensor:
    """How far every sample moved, (B,): the root mean square of its worst field; infinite for a changed class."""
    parts = []
    fields = process.fields(b)
    for k, x in process.fields(a).items():
        layout, y = layout_of(a, k), fields[k]
        if x.is_floating_point():
            parts.append(layout.reduce((x - y).double().square(), "mean").sqrt())
        else:
            parts.append(torch.where(layout.reduce((x != y).double()) > 0, math.inf, 0.0).double())
    return torch.stack([p.cpu() for p in parts]).amax(0)


def _keep(process: Process, old: Value, new: Value, held: Tensor) -> Value:
    """``new``, but ``old`` in the samples that are held, (B,)."""
    out, fields = {}, process.fields(new)
    for k, x in process.fields(old).items():
        y = fields[k]
        out[k] = torch.where(layout_of(new, k).expand(held.to(y.device), y), x.to(y), y)
    return process.rebuild(new, out)
