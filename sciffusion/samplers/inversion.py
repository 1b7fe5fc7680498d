r"""From data to the noise that a deterministic sampler makes them of, and back.

A step of DDIM, :math:`x_s = A x_t + B\,\hat x_0(x_t, t)`, is undone by the fixed point of

.. math:: x_t \leftarrow x_t + \frac{x_s - A x_t - B\,\hat x_0(x_t,t)}{A + B\,\alpha_t/(\alpha_t^2+\sigma_t^2)},

whose denominator is the step's slope for data of unit variance; one iteration is the usual, approximate inversion of
DDIM (Song et al., 2021; Mokady et al., 2023), and more make it exact (Pan et al., AIDI, 2023). Steps of
:class:`~sciffusion.samplers.BDIA` are undone by algebra, whatever the denoiser: given the last two values, and the
denoiser at the latter of them, the value before is

.. math:: x_r = (x_s - E x_t - F\,\hat x_0(x_t, t))/g .
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from sciffusion.denoiser import Denoiser
from sciffusion.noise import Noise
from sciffusion.process import Gaussian, Process
from sciffusion.samplers.bdia import BDIA
from sciffusion.samplers.ddim import DDIM
from sciffusion.samplers.sampler import Plan, Sampler, Solution
from sciffusion.solver import Rule, times
from sciffusion.state import Value, layout_of

__all__ = ["invert", "revert"]


def invert(sampler: Sampler, denoiser: Denoiser, x0: Value, *, iterations: int = 1) -> Solution:
    """The run of ``sampler`` backwards, from its end ``x0`` to its start.

    Args:
        sampler: with the solver ``DDIM()`` or :class:`~sciffusion.samplers.BDIA`, without restarts.
        denoiser: with its condition bound; every field Gaussian. It must neither move the values that it is given nor
            read the prediction before.
        x0: the run's end, data where it stops at 0.
        iterations: of the fixed point: for every step of DDIM, and for the last step of BDIA's run, which has no value
            before it. BDIA's run down is the inverse of its run up with any number of them.

    Returns:
        ``x`` the start, and ``path`` all values on the way up, ``x0`` first. :func:`revert` takes it.

    Raises:
        ValueError: for another solver, restarts, a field that is not Gaussian, or no iteration.
    """
    _check(sampler, denoiser.process, x0)
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    plain = replace(sampler, solver=DDIM()).plan(denoiser.process, x0)
    nfe, n = 0, len(plain.times)
    with torch.no_grad():
        if isinstance(sampler.solver, DDIM):
            path = [x0]
            for i in reversed(range(n)):
                path.append(_undo_ddim(denoiser, plain, i, path[-1], iterations))
                nfe += iterations
            return Solution(path[-1], nfe, tuple(path))
        path = [x0, _undo_ddim(denoiser, plain, n - 1, x0, iterations)]
        plan = sampler.plan(denoiser.process, x0)
        for i in reversed(range(1, n)):
            path.append(_undo_bdia(denoiser, plan, i, path[-1], path[-2]))
    return Solution(path[-1], iterations + n - 1, tuple(path))


def revert(sampler: Sampler, denoiser: Denoiser, inverted: Solution) -> Solution:
    """The run down from what :func:`invert` found; of BDIA from its last two values, hence exact to rounding errors.

    Raises ``ValueError`` for what :func:`invert` refuses.
    """
    _check(sampler, denoiser.process, inverted.x)
    if isinstance(sampler.solver, DDIM):
        return sampler(denoiser, inverted.x)
    start, second = inverted.path[-1], inverted.path[-2]
    noise = Noise(0)
    with torch.no_grad():
        carry = replace(sampler.init(denoiser, start), x=second, done=1, history=((start, start),))
        while carry.done < len(carry.plan.times):
            carry = sampler.step(denoiser, carry, noise)
    return Solution(carry.x, carry.done - 1)


def _check(sampler: Sampler, process: Process, x: Value) -> None:
    solver = sampler.solver
    if sampler.restarts or solver.stochastic or not isinstance(solver, DDIM | BDIA):
        raise ValueError(
            f"only runs of DDIM() or BDIA(), without restarts, can be undone, got {sampler}"
        )
    process.check(x)
    for name in process.fields(x):
        if not isinstance(process.field(name), Gaussian):
            raise ValueError(f"the field {name!r} is not Gaussian: its steps cannot be undone")


def _rules(process: Process, plan: Plan, step: int, like: Value) -> Mapping[str | None, Rule]:
    moves = (m[step] for m in plan.moves)
    return {k: move[1][0] for k, move in zip(process.fields(like), moves, strict=True)}


def _undo_ddim(denoiser: Denoiser, plan: Plan, step: int, x_s: Value, iterations: int) -> Value:
    process, t = denoiser.process, plan.times[step][0]
    rules = _rules(process, plan, step, x_s)
    slopes: dict[str | None, Tensor] = {}
    fields: dict[str | None, Tensor] = {}
    for k, x in process.fields(x_s).items():
        (alpha, sigma), (b,) = process.field(k).clock(t), rules[k].x0
        slopes[k] = 1 / (rules[k].base + b * alpha / (alpha**2 + sigma**2))
        a, s = process.field(k).clock(plan.ends[step])
        size = torch.where(plan.ends[step] == 0, 1.0, a**2 + s**2)
        # the same point among values as large as data of unit variance have
        growth = ((alpha**2 + sigma**2) / size).sqrt()
        fields[k] = times(growth, x, layout_of(x_s, k))
    target, guess = process.fields(x_s), process.rebuild(x_s, fields)
    for _ in range(iterations):
        x0 = process.fields(denoiser(guess, t).x0)
        for k, x in process.fields(guess).items():
            layout, rule = layout_of(x_s, k), rules[k]
            missing = target[k] - times(rule.base, x, layout) - times(rule.x0[0], x0[k], layout)
            fields[k] = x + times(slopes[k], missing, layout)
        guess = process.rebuild(x_s, fields)
    return guess


def _undo_bdia(denoiser: Denoiser, plan: Plan, step: int, x_t: Value, x_s: Value) -> Value:
    process = denoiser.process
    rules = _rules(process, plan, step, x_t)
    x0, target = process.fields(denoiser(x_t, plan.times[step][0]).x0), process.fields(x_s)
    out = {}
    for k, x in process.fields(x_t).items():
        layout, rule = layout_of(x_t, k), rules[k]
        rest = target[k] - times(rule.base, x, layout) - times(rule.x0[0], x0[k], layout)
        out[k] = times(1 / rule.values[1], rest, layout)
    return process.rebuild(x_t, out)
