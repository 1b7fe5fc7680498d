r"""How particles are proposed: where a step leads with the twist's gradient, and what that costs in weight.

A step of a stochastic solver with one evaluation draws from :math:`N(Ax_t + B\hat x_0, C^2LL^T)`, one of a jump field
from the posterior of every element. A proposal is the same step from another prediction, so the ratio of the two laws
is known in closed form. Fields with other processes, and jump fields that step by another rule than ``ExactStep``,
propose by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sciffusion.denoiser import Denoiser, Prediction
from sciffusion.inverse.local import detached, evaluate, gaussian_fields
from sciffusion.process import FieldProcess, Gaussian, Jump, Process
from sciffusion.process.jump_steps import ExactStep
from sciffusion.space import GaussianSpace
from sciffusion.state import Value, batch_of, layout_of

__all__ = ["Twist", "judge", "log_ratio", "propose"]

Twist = Callable[[Value, Value, Tensor], Tensor]
"""``twist(x0, x_t, t)``: the log-likelihood of every particle, (B P,), from the prediction of x0 (jump fields as
probabilities). At the end it is called with the clean value for both, and must be the likelihood that is wanted."""


def judge(twist: Twist, x0: Value, x_t: Value, t: Tensor) -> Tensor:
    """The twist, float64 on the CPU. Raises ``ValueError`` unless it is one number per particle."""
    out = twist(x0, x_t, t)
    if out.shape != (batch_of(x_t),):
        raise ValueError(
            f"twist must return one number per particle, ({batch_of(x_t)},), got {tuple(out.shape)}"
        )
    return out.double().cpu()


def propose(
    denoiser: Denoiser,
    twist: Twist,
    x_t: Value,
    t: Tensor,
    previous: Value | None,
    moves: Sequence[Any],
) -> tuple[Prediction, Prediction, Tensor]:
    """The denoiser's own prediction, the one moved by the twist's gradient, and the twist.

    ``moves`` are the fields' compiled moves of the step that follows.
    """
    process = denoiser.process
    local = evaluate(denoiser, x_t, t, None, previous)
    moving = gaussian_fields(process, x_t)
    fields = dict(process.fields(local.x0))
    jumps = {k: v for k, v in fields.items() if _tilts(process.field(k))}
    with torch.enable_grad():
        fields |= {k: v.detach().requires_grad_() for k, v in jumps.items()}
        value = judge(twist, process.rebuild(local.x0, fields), local.x_t, t)
        inputs = {k: process.fields(local.x_t)[k] for k in moving} | {k: fields[k] for k in jumps}
    grads: dict[str | None, Tensor] = {k: torch.zeros_like(v) for k, v in inputs.items()}
    if value.requires_grad:
        found = torch.autograd.grad(
            value,
            list(inputs.values()),
            torch.ones_like(value),
            allow_unused=True,
            materialize_grads=True,
        )
        grads = dict(zip(inputs, found, strict=True))
    own = replace(
        local.prediction,
        x0=detached(local.prediction.x0),
        x_t=detached(local.prediction.x_t),
    )
    by_field = dict(zip(process.fields(x_t), moves, strict=True))
    by = local.displacement(
        process.rebuild(x_t, {**process.fields(x_t), **{k: grads[k] for k in moving}})
    )
    x0 = dict(process.fields(own.x0))
    for k in moving:
        # a step without noise is certain of its end and has no density
        if _rule(by_field[k]).noise:
            x0[k] = x0[k] + process.fields(by)[k]
    for k in jumps:
        x0[k] = _tilted(x0[k], grads[k])
    proposed = replace(own, x0=process.rebuild(own.x0, x0))
    return own, proposed, value.detach()


def log_ratio(
    process: Process, moves: Sequence[Any], own: Prediction, proposed: Prediction, x: Value
) -> Tensor:
    """log K(x) / Q(x) of every particle, for the step that drew x from Q, (B P,)."""
    total = torch.zeros(batch_of(x), dtype=torch.float64)
    at, after = process.fields(own.x_t), process.fields(x)
    mine, theirs = process.fields(own.x0), process.fields(proposed.x0)
    for (name, v), move in zip(after.items(), moves, strict=True):
        field, layout = process.field(name), layout_of(x, name)
        if isinstance(field, Jump):
            numbers = move[1][0][1]
            if not _tilts(field) or numbers is None:
                continue
            keep_t, keep_s = numbers
            laws = [
                field.posterior(at[name], p[name], keep_t, keep_s, layout) for p in (mine, theirs)
            ]
            logs = [p.gather(-1, v[..., None])[..., 0].double() for p in laws]
            logs = [p.clamp(min=1e-300).log() for p in logs]
            total = total + layout.reduce(layout.clean(logs[0] - logs[1])).cpu()
        elif isinstance(field, Gaussian):
            rule = _rule(move)
            if not rule.noise:
                continue
            assert isinstance(field.space, GaussianSpace)
            b = rule.x0[0]
            drawn = v - (rule.base + sum(rule.values)) * at[name] - b * theirs[name]
            shift = b * (theirs[name] - mine[name])
            # |e + shift|^2 - |e|^2 without the difference of two large numbers
            product = shift * field.space.precision(2 * drawn + shift, layout)
            excess = layout.reduce(layout.clean(product)).double().cpu()
            total = total - excess / (2 * rule.noise**2)
    return total


def _tilted(p: Tensor, g: Tensor) -> Tensor:
    """Class probabilities after a step along the gradient of a log-likelihood; none becomes zero or less."""
    by = g - (p * g).sum(-1, keepdim=True)
    # 1 + by, continued smoothly by an exponential below 0.1
    factor = torch.where(by > -0.9, 1 + by, 0.1 * ((by + 0.9) / 0.1).clamp(max=0).exp())
    out = p * factor
    return out / out.sum(-1, keepdim=True)


def _tilts(process: FieldProcess) -> bool:
    """Whether a jump field draws every element from a posterior that a proposal can tilt."""
    return isinstance(process, Jump) and isinstance(process.step, ExactStep)


def _rule(move: Any) -> Any:
    """The only rule in a Gaussian field's move."""
    return move[1][0]
