"""Guidance distillation: a student learns to make in one call what guidance makes in two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import torch

from sciffusion.denoiser import Denoiser
from sciffusion.guidance import CFG, Embedded
from sciffusion.noise import Noise
from sciffusion.objective.condition import drop_condition
from sciffusion.objective.objective import Loss, Objective
from sciffusion.process import Jump
from sciffusion.state import Value, batch_of

__all__ = ["DistilledGuidance"]


@final
@dataclass(frozen=True)
class DistilledGuidance:
    r"""An objective whose aim is not the data but a teacher's guided prediction.

    A scale w is drawn for every sample, and the student, told of it (:class:`~sciffusion.guidance.Embedded`), is
    compared with :math:`\hat x_0^u + w(\hat x_0^c - \hat x_0^u)` of the teacher at the same noised value. Start from
    the teacher's weights: a network that gets a :class:`~sciffusion.networks.GuidanceScale` keeps what it knows.
    Source: Meng et al., On Distillation of Guided Diffusion Models, 2023 (its first stage).

    Args:
        objective: noises the data and compares; its ``null`` is the condition "no condition". It drops none, for a
            student at w = 0 is unconditional anyway.
        teacher: a denoiser trained with dropped conditions; it learns nothing.
        low, high: scales are uniform between these.

    Raises ``ValueError`` for an objective without ``null``, or that drops conditions, shows predictions or weighs times
    as an integrand, and unless 0 <= low < high.
    """

    objective: Objective
    teacher: Denoiser
    low: float = 1.0
    high: float = 8.0

    def __post_init__(self) -> None:
        o = self.objective
        if o.null is None or o.drop or o.self_condition:
            raise ValueError(
                f"objective needs null, and neither drop nor self_condition, got {o.null}, {o.drop}, {o.self_condition}"
            )
        if o.weight is not None and o.weight.integrand:
            raise ValueError(f"{o.weight} is an integrand of the data's likelihood: use another")
        if not 0 <= self.low < self.high:
            raise ValueError(f"need 0 <= low < high, got {self.low} and {self.high}")

    def __call__(
        self, student: Denoiser, x0: Value, cond: Mapping[str, Any], *, noise: Noise
    ) -> Loss:
        """The loss of a batch. All randomness comes from ``noise``.

        Raises ``ValueError`` as :class:`~sciffusion.objective.Objective` does, for a condition that is no mapping, and
        for a field of classes, whose loss knows clean classes only.
        """
        process = self.objective.process
        for name in process.fields(x0):
            if isinstance(process.field(name), Jump):
                raise ValueError(
                    f"the field {name!r} of x0 holds classes: a guided prediction of them is no aim"
                )
        noised = self.objective.noised(x0, cond, noise)
        batch = batch_of(x0)
        w = self.low + (self.high - self.low) * noise.scalars(batch)
        null = drop_condition(cond, self.objective.null, torch.ones(batch, dtype=torch.bool))
        told = Embedded(student, cond, w)
        with torch.no_grad():
            aim = CFG(self.teacher, cond, null, w)(noised.x_t, noised.t).x0
        return self.objective.compare(told(noised.x_t, noised.t), replace(noised, x0=aim))
