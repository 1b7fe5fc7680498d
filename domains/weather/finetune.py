r"""Training on a model's own forecasts: the loss of several steps, each made from what the step before made.

A model that saw true states alone meets states of its own making when it forecasts, and its ensembles grow more slowly
than their errors. Here every member goes its own way for ``steps`` steps, gradients flow through all of them, and each
step's states are compared with the truth: by the almost fair CRPS for ensembles, by the squared error for means.
"""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sciffusion.noise import Noise

from .frame import Frame
from .heads import Ensemble, Head, MeanField
from .times import shift

__all__ = ["rollout_loss"]


def rollout_loss(
    head: Head,
    module: nn.Module,
    frame: Frame,
    inputs: Tensor,
    targets: Tensor,
    times: NDArray[Any],
    noise: Noise,
    weights: Tensor,
) -> Tensor:
    """The mean loss over the steps.

    Args:
        head: an ensemble or a mean.
        module: what it trains.
        frame: of the model.
        inputs: encoded, (B, I, C, H, W).
        targets: encoded, those of all steps in order of time, (B, R*T, C, H, W).
        times: of the first step, (B,).
        noise: of the members.
        weights: as the head's loss takes them.

    Raises ``ValueError`` for a head that draws in many steps.
    """
    if not isinstance(head, Ensemble | MeanField):
        raise ValueError(
            "a diffusion cannot be trained on its forecasts: set objective.rollout to 1"
        )
    k = head.members if isinstance(head, Ensemble) else 1
    hours, made = frame.config.inputs, frame.config.targets
    states = inputs.repeat_interleave(k, 0)
    total = inputs.new_zeros(())
    count = targets.shape[1] // len(made)
    for step in range(count):
        now = shift(times, made[-1] * step).repeat(k)
        base = frame.base(states, now, frame.grid)
        cond = frame.condition(states, now, frame.grid)
        r = module(cond, noise) if isinstance(head, Ensemble) else module(cond)
        new = frame.targets(r.float(), base)
        truth = targets[:, step * len(made) : (step + 1) * len(made)]
        drawn = (new / frame.spread.to(new)).flatten(1, 2).unflatten(0, (len(inputs), k))
        y = (truth / frame.spread.to(new)).flatten(1, 2)
        if isinstance(head, Ensemble):
            total = total + head.score(drawn, y, weights)
        else:
            total = total + (weights.to(y) * (drawn[:, 0] - y).square()).mean()
        known = dict(zip(hours, states.unbind(1), strict=True))
        known |= dict(zip(made, new.unbind(1), strict=True))
        states = torch.stack([known[h + made[-1]] for h in hours], 1)
    return total / count
