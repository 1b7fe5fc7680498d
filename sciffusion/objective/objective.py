r"""What is minimised: noise a batch, predict, compare.

Every field's process says what its loss is. For a Gaussian field that of a sample is
:math:`w(t)\,\|\hat x_0 - x_0\|^2 / \mathrm{dof}` in the norm of its space. The weight is **in x0 space**, whatever
the target: ``MinSNR`` means the same loss for a network of any parameterisation. Without a weight, the error of the
objective's ``target`` counts evenly: :math:`\|\hat v - v\|^2`, :math:`\|\hat e - e\|^2` and so on. For a jump field the
loss is the cross-entropy of the clean class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from sciffusion.coupling import Coupling, Independent
from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.noise import Noise
from sciffusion.objective.condition import check_entries, drop_condition, drop_entries
from sciffusion.objective.times import TimeSampler, UniformTimes
from sciffusion.objective.uncertainty import Uncertainty
from sciffusion.objective.weights import Weight
from sciffusion.process import FieldProcess, Noised, Process, Target
from sciffusion.state import Value, batch_of, layout_of

__all__ = ["Loss", "Objective"]


@final
@dataclass(frozen=True)
class Loss:
    """The result of an objective.

    ``per_sample`` (B,) is what is minimised; ``per_field``, name -> (B,), the losses of the fields before
    ``field_weights`` and ``uncertainty``; ``t`` (B,) the times.
    """

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
        weight: a weight in x0 space. One that is an integrand over time (:class:`~sciffusion.objective.Likelihood`) has
            every loss divided by the density of its time.
        times: the law of training times, measured on the process's clock.
        coupling: how data and noise are paired. It sees the conditions before any is dropped.
        field_weights: the weights of a state's fields in the sum; 1 for those that it does not name.
        element_weights: weights of the squared errors of a field's elements (cell areas, variables, a land mask): a
            tensor that broadcasts to the field, or one for each field by name. Their mean is not divided out.
        null: the condition that means "no condition", shaped as one sample's (a tensor, or a mapping of tensors).
        drop: the probability with which a sample's condition is replaced by ``null``. A mapping of probabilities drops
            entries of the condition each by itself; those that it does not name are kept. So guidance may later leave
            out one entry and keep another.
        self_condition: the probability that the batch is first predicted once, and that prediction shown. One number
            decides for the batch: with one noise stream per sample, that of the first.
        uncertainty: a learned log-variance that balances the noise levels; its parameters are trained along.

    Raises ``ValueError`` for probabilities outside [0, 1], ``drop`` without ``null``, field weights that are negative
    or name no field, and an uncertainty beside an integrand.
    """

    process: Process
    target: Target = "flow"
    weight: Weight | None = None
    times: TimeSampler = field(default_factory=UniformTimes)
    coupling: Coupling = field(default_factory=Independent)
    field_weights: Mapping[str, float] = field(default_factory=dict)
    element_weights: Tensor | Mapping[str, Tensor] | None = None
    null: Condition = None
    drop: float | Mapping[str, float] = 0.0
    self_condition: float = 0.0
    uncertainty: Uncertainty | None = None

    def __post_init__(self) -> None:
        entries = self.drop if isinstance(self.drop, Mapping) else None
        shares = [self.drop] if entries is None else entries.values()
        if not all(0 <= p <= 1 for p in (*shares, self.self_condition)):
            raise ValueError(
                f"drop and self_condition are probabilities, got {self.drop} and {self.self_condition}"
            )
        if self.drop and self.null is None:
            raise ValueError("drop needs null, the condition that means 'no condition'")
        if entries and (
            not isinstance(self.null, Mapping) or not entries.keys() <= self.null.keys()
        ):
            raise ValueError(f"drop names {list(entries)}, but null does not have them all")
        if self.uncertainty is not None and self.weight is not None and self.weight.integrand:
            raise ValueError(
                f"uncertainty rescales every noise level, so {self.weight} would be no integral any more; leave one out"
            )
        for name, weight in self.field_weights.items():
            if not weight >= 0:
                raise ValueError(f"field_weights must not be negative, got {weight} for {name!r}")
            if isinstance(self.process, FieldProcess):
                raise ValueError(
                    f"field_weights names {name!r}, but the process has no named field"
                )
            try:
                self.process.field(name)
            except ValueError as error:
                raise ValueError(f"field_weights names {name!r}: {error}") from error
        for field_name, weights in self._element_weights.items():
            if not bool((weights >= 0).all()):
                raise ValueError(f"element_weights of {field_name!r} must not be negative or NaN")
            if not self.process.field(field_name).scaled:
                raise ValueError(
                    f"element_weights weigh squared errors; the field {field_name!r} has none"
                )

    @property
    def _element_weights(self) -> Mapping[str | None, Tensor]:
        weights = self.element_weights
        if weights is None:
            return {}
        return {None: weights} if isinstance(weights, Tensor) else dict(weights.items())

    def __call__(
        self, denoiser: Denoiser, x0: Value, cond: Condition = None, *, noise: Noise
    ) -> Loss:
        """The loss of a batch. All randomness comes from ``noise``.

        Raises ``ValueError`` if ``x0`` is not what the process noises, or not finite, and if ``cond`` does not have one
        entry per sample.
        """
        noised = self.noised(x0, cond, noise)
        batch, t = batch_of(x0), noised.t
        if cond is not None and self.drop:
            cond = self._dropped(cond, noise, batch)
        previous = None
        if self.self_condition and float(noise.scalars(batch)[0]) < self.self_condition:
            with torch.no_grad():
                previous = denoiser(noised.x_t, t, cond).x0
            torch.clear_autocast_cache()  # it holds casts of the weights without their gradients
        loss = self.compare(denoiser(noised.x_t, t, cond, previous), noised)
        if self.weight is None or not self.weight.integrand:
            return loss
        share = 1 / self.times.density(t, self.process.clock).to(loss.per_sample)
        return Loss(share * loss.per_sample, {k: share * v for k, v in loss.per_field.items()}, t)

    def _dropped(self, cond: Condition, noise: Noise, batch: int) -> Condition:
        """The condition as the network is shown it."""
        if isinstance(self.drop, Mapping):
            rows = {name: noise.scalars(batch) < p for name, p in self.drop.items()}
            return drop_entries(cond, self.null, rows)
        return drop_condition(cond, self.null, noise.scalars(batch) < self.drop)

    def noised(self, x0: Value, cond: Condition, noise: Noise) -> Noised:
        """A batch at times of the law, with its coupling. Raises ``ValueError`` as the call does."""
        self.process.check(x0)
        batch = batch_of(x0)
        check_entries(cond, batch)
        t = self.times(noise, batch, self.process.clock)
        eps = self.coupling(x0, self.process.draw(x0, noise), cond, self.process)
        return self.process.perturb(x0, t, noise, eps)

    def compare(self, prediction: Prediction, noised: Noised) -> Loss:
        """The loss of a prediction, at the times of ``noised`` (not divided by the density of any law)."""
        t, seen = noised.t, self.process.fields(noised.x_t)
        predicted = self.process.fields(prediction.x0)
        per_field: dict[str | None, Tensor] = {}
        total = torch.zeros(())
        for name, x0 in self.process.fields(noised.x0).items():
            process, layout = self.process.field(name), layout_of(noised.x0, name)
            x0_hat = predicted[name]
            if name in self._element_weights:
                x0_hat = x0 + self._element_weights[name].sqrt().to(x0) * (x0_hat - x0)
            loss = process.loss_field(x0_hat, x0, seen[name], t, layout, self.target, self.weight)
            per_field[name] = loss
            if self.uncertainty is not None:
                loss = self.uncertainty(name, loss, process.clock.log_snr(t).to(loss.device))
            total = total + self.field_weights.get(str(name), 1.0) * loss
        return Loss(total, per_field, t)
