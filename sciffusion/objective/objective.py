r"""What is minimised: noise a batch, predict, compare.

For a Gaussian field the loss of a sample is :math:`w(\lambda_t)\,\|\hat x_0 - x_0\|^2 / \mathrm{dof}` in the norm of
its space. A weight is a function of the log-SNR **in x0 space**, whatever the target: ``MinSNR`` means the same loss
for a network of any parameterisation. Without a weight, the error of the objective's ``target`` counts evenly:
:math:`\|\hat v - v\|^2`, :math:`\|\hat e - e\|^2` and so on. For a jump field it is the cross-entropy of the clean
class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor

from sciffusion.coupling import Coupling, Independent, permute
from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.noise import Noise
from sciffusion.objective.times import TimeSampler, UniformTimes
from sciffusion.objective.weights import Weight
from sciffusion.process import Noised, Process, Target
from sciffusion.state import Value, batch_of, layout_of

__all__ = ["Loss", "Objective"]


@final
@dataclass(frozen=True)
class Loss:
    """The result of an objective: ``per_sample`` (B,), ``per_field`` name -> (B,) unweighted by field, ``t`` (B,)."""

    per_sample: Tensor
    per_field: Mapping[str | None, Tensor]
    t: Tensor

    @property
    def mean(self) -> Tensor:
        """The batch mean: what is differentiated."""
        return self.per_sample.mean()


@final
@dataclass(frozen=True)
class Objective:
    """A denoising objective.

    Args:
        process: the forward process.
        target: the quantity whose error counts evenly when ``weight`` is None.
        weight: a weight in x0 space.
        times: the law of training times, measured on the process's clock.
        coupling: how data and noise are paired.
        field_weights: the weights of the fields in the sum; 1 for those that it does not name.
        null: the condition that means "no condition", shaped as one sample's (a tensor, or a mapping of tensors).
        drop: the probability with which a sample's condition is replaced by ``null``.
        self_condition: the probability that the batch is first predicted once, and that prediction shown.
    """

    process: Process
    target: Target = "flow"
    weight: Weight | None = None
    times: TimeSampler = field(default_factory=UniformTimes)
    coupling: Coupling = field(default_factory=Independent)
    field_weights: Mapping[str, float] = field(default_factory=dict)
    null: Condition = None
    drop: float = 0.0
    self_condition: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.drop <= 1 or not 0 <= self.self_condition <= 1:
            raise ValueError(
                f"drop and self_condition are probabilities, got {self.drop} and {self.self_condition}"
            )
        if self.drop and self.null is None:
            raise ValueError("drop needs null, the condition that means 'no condition'")

    def __call__(
        self, denoiser: Denoiser, x0: Value, cond: Condition = None, *, noise: Noise
    ) -> Loss:
        """The loss of a batch. All randomness comes from ``noise``."""
        self.process.check(x0)
        batch = batch_of(x0)
        t = self.times(noise, batch, self.process.clock)
        eps = self.process.draw(x0, noise)
        perm = self.coupling(x0, eps)
        noised = self.process.perturb(x0, t, noise, eps if perm is None else permute(eps, perm))
        if cond is not None and self.drop:
            cond = _drop(cond, self.null, noise.scalars(batch) < self.drop)
        previous = None
        if self.self_condition and float(noise.scalars(batch)[0]) < self.self_condition:
            with torch.no_grad():
                previous = denoiser(noised.x_t, t, cond).x0
            torch.clear_autocast_cache()  # it holds casts of the weights without their gradients
        return self.compare(denoiser(noised.x_t, t, cond, previous), noised)

    def compare(self, prediction: Prediction, noised: Noised) -> Loss:
        """The loss of a prediction."""
        t, seen = noised.t, self.process.fields(noised.x_t)
        predicted = self.process.fields(prediction.x0)
        per_field: dict[str | None, Tensor] = {}
        for name, x0 in self.process.fields(noised.x0).items():
            per_field[name] = self.process.field(name).loss_field(
                predicted[name],
                x0,
                seen[name],
                t,
                layout_of(noised.x0, name),
                self.target,
                self.weight,
            )
        total = sum(
            (self.field_weights.get(str(k), 1.0) * v for k, v in per_field.items()), torch.zeros(())
        )
        return Loss(total, per_field, t)


def _drop(cond: Condition, null: Condition, dropped: Tensor) -> Any:
    """``cond`` with the rows named by ``dropped`` (B,) replaced by the null condition."""
    if isinstance(cond, Mapping):
        return {k: _drop(v, null[k], dropped) for k, v in cond.items()}
    rows = dropped.to(cond.device).reshape(-1, *[1] * (cond.ndim - 1))
    return torch.where(rows, torch.as_tensor(null, dtype=cond.dtype, device=cond.device), cond)
