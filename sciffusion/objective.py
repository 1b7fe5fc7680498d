r"""What is minimised: noise a batch, predict, compare.

For a Gaussian field the loss of a sample is :math:`w(\lambda_t)\,\|\hat x_0 - x_0\|^2 / \mathrm{dof}` in the norm of
its space. A weight is a function of the log-SNR **in x0 space**, whatever the target: ``MinSNR`` means the same loss
for a network of any parameterisation. Without a weight, the error of the objective's ``target`` counts evenly:
:math:`\|\hat v - v\|^2`, :math:`\|\hat e - e\|^2` and so on. For a jump field it is the cross-entropy of the clean
class.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor

from sciffusion.coupling import Coupling, Independent, permute
from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.noise import Noise
from sciffusion.process import Gaussian, Noised, Process, Target
from sciffusion.schedule import Schedule
from sciffusion.state import Value, batch_of, layout_of

__all__ = [
    "EDM",
    "LogNormal",
    "LogitNormal",
    "Loss",
    "MinSNR",
    "Objective",
    "Sigmoid",
    "TimeSampler",
    "UniformTimes",
    "Weight",
]


class Weight(ABC):
    """The weight of a squared error of x0, as a function of the log-SNR."""

    @abstractmethod
    def __call__(self, log_snr: Tensor) -> Tensor:
        """Weights, float64, like ``log_snr``."""


@final
@dataclass(frozen=True)
class EDM(Weight):
    r""":math:`w = \mathrm{SNR} + 1/s^2`: unit weight on the preconditioned network's output (Karras et al., 2022)."""

    sigma_data: float = 1.0

    def __post_init__(self) -> None:
        if self.sigma_data <= 0:
            raise ValueError(f"sigma_data must be positive, got {self.sigma_data}")

    def __call__(self, log_snr: Tensor) -> Tensor:
        return log_snr.exp() + 1 / self.sigma_data**2


@final
@dataclass(frozen=True)
class MinSNR(Weight):
    r""":math:`w = \min(\mathrm{SNR}, \gamma)` (Hang et al., 2023). Finite at zero and infinite SNR."""

    gamma: float = 5.0

    def __post_init__(self) -> None:
        if self.gamma <= 0:
            raise ValueError(f"gamma must be positive, got {self.gamma}")

    def __call__(self, log_snr: Tensor) -> Tensor:
        return log_snr.clamp(max=math.log(self.gamma)).exp()


@final
@dataclass(frozen=True)
class Sigmoid(Weight):
    r""":math:`w = \mathrm{SNR}\cdot\mathrm{sigmoid}(b - \lambda)`, a sigmoid weight on the error of eps.

    Source: Kingma & Gao, 2023; Hoogeboom et al., 2024. Tends to :math:`e^b` at infinite SNR and to the SNR at zero.
    """

    bias: float = 0.0

    def __call__(self, log_snr: Tensor) -> Tensor:
        return torch.exp(-torch.nn.functional.softplus(-log_snr + self.bias) + self.bias)


class TimeSampler(ABC):
    """The law of training times."""

    @abstractmethod
    def __call__(self, noise: Noise, batch: int, clock: Schedule) -> Tensor:
        """Times (B,), float64, inside (0, 1)."""


_EDGE = 1e-5
"""Training times keep this distance from 0 and 1, where some targets have no finite conversion."""


@final
@dataclass(frozen=True)
class UniformTimes(TimeSampler):
    """Times uniform on [low, high]."""

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 1:
            raise ValueError(f"need 0 <= low < high <= 1, got {self.low} and {self.high}")

    def __call__(self, noise: Noise, batch: int, clock: Schedule) -> Tensor:
        return (self.low + (self.high - self.low) * noise.scalars(batch)).clamp(_EDGE, 1 - _EDGE)


@final
@dataclass(frozen=True)
class LogitNormal(TimeSampler):
    """logit(t) ~ N(mean, std^2); a negative mean looks more at little noise (Esser et al., SD3, 2024)."""

    mean: float = 0.0
    std: float = 1.0

    def __call__(self, noise: Noise, batch: int, clock: Schedule) -> Tensor:
        z = self.mean + self.std * noise.scalars(batch, normal=True)
        return torch.sigmoid(z).clamp(_EDGE, 1 - _EDGE)


@final
@dataclass(frozen=True)
class LogNormal(TimeSampler):
    r""":math:`\log(\sigma/\alpha) \sim N(\mathrm{mean}, \mathrm{std}^2)` (Karras et al., 2022: -1.2 and 1.2)."""

    mean: float = -1.2
    std: float = 1.2

    def __call__(self, noise: Noise, batch: int, clock: Schedule) -> Tensor:
        z = self.mean + self.std * noise.scalars(batch, normal=True)
        return clock.time(-2 * z).clamp(_EDGE, 1 - _EDGE)


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
        t, predicted = noised.t, self.process.fields(prediction.x0)
        per_field: dict[str | None, Tensor] = {}
        for name, x0 in self.process.fields(noised.x0).items():
            process, layout, x0_hat = (
                self.process.field(name),
                layout_of(noised.x0, name),
                predicted[name],
            )
            if isinstance(process, Gaussian):
                error = process.space.norm2(layout.clean(x0_hat - x0), layout)
                weight = self._weight(process, t).to(error)
                per_field[name] = weight * error / process.space.dof(x0, layout).clamp(min=1)
            else:
                log_p = x0_hat.gather(-1, x0[..., None])[..., 0].clamp(min=1e-12).log()
                per_field[name] = -layout.reduce(layout.clean(log_p), "mean")
        total = sum(
            (self.field_weights.get(str(k), 1.0) * v for k, v in per_field.items()), torch.zeros(())
        )
        return Loss(total, per_field, t)

    def _weight(self, process: Gaussian, t: Tensor) -> Tensor:
        if self.weight is None:
            return process.target_weight(self.target, t)
        return self.weight(process.schedule.log_snr(t))


def _drop(cond: Condition, null: Condition, dropped: Tensor) -> Any:
    """``cond`` with the rows named by ``dropped`` (B,) replaced by the null condition."""
    if isinstance(cond, Mapping):
        return {k: _drop(v, null[k], dropped) for k, v in cond.items()}
    rows = dropped.to(cond.device).reshape(-1, *[1] * (cond.ndim - 1))
    return torch.where(rows, torch.as_tensor(null, dtype=cond.dtype, device=cond.device), cond)
