r"""Several instruments at several times of a window, seen through normalised states, and how well members fit them.

The check is SDA's: if members x are drawn from :math:`p(x\mid y)`, then :math:`A(x) - y` is distributed as the noise of
the observations, so its deviation over theirs is 1 on average. Less means that members follow the noise, more that
they ignore the observations. Source: Rozet & Louppe, Score-based Data Assimilation, 2023.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, final

import torch
from torch import Tensor

from sciffusion.inverse import Operator
from sciffusion.state import Value

__all__ = ["Misfit", "Observations", "Report", "Units", "misfits"]


class Units(Protocol):
    """Whatever turns normalised states (..., C, H, W) into physical ones, such as :class:`.scales.Scales`.

    ``affine``: whether :meth:`restore` is a linear map and a constant, which saves work.
    """

    @property
    def affine(self) -> bool:
        """See above."""

    def restore(self, z: Tensor, /) -> Tensor:
        """Physical fields, differentiably."""


@final
@dataclass(frozen=True, eq=False)
class Report:
    """What one instrument reported at one time of a window.

    Attributes:
        instrument: an :class:`.observations.Instrument`.
        values: the observations without the batch, in physical units. NaN is a missing one, which counts nothing.
        std: standard deviation of their errors, in the same units: a number, or a tensor that broadcasts to values.
        step: the state of the window that is seen; None shows the instrument the whole window (B, K, C, H, W).
        name: the kind of observation under which :func:`misfits` lists it.

    Raises ``ValueError`` for infinite values, if all are missing, and for deviations that are not positive.
    """

    instrument: Operator
    values: Tensor
    std: float | Tensor
    step: int | None = 0
    name: str = "observations"

    def __post_init__(self) -> None:
        if bool(self.values.isinf().any()) or not bool(self.present.any()):
            raise ValueError(
                f"values of {self.name!r} are infinite or all missing; NaN marks a missing one"
            )
        deviation = torch.as_tensor(self.std)[..., None].flatten()
        if not bool((deviation.isfinite() & (deviation > 0)).all()):
            raise ValueError(
                f"std of {self.name!r} must be positive and finite: an observation without error is none"
            )

    @property
    def present(self) -> Tensor:
        """Which of the values, in order, are there: (N,), boolean."""
        return ~self.values.flatten().isnan()

    @property
    def missing(self) -> int:
        """How many values are NaN."""
        return int((~self.present).sum())


@final
class Observations(Operator):
    """All reports about a window of normalised states, (B, K, C, H, W) to (B, N), in physical units.

    ``y`` and ``std`` are (1, N). Raises ``ValueError`` for no report; when called, for a step outside the window and
    for values of another shape than their instrument gives.
    """

    linear = False  # the units' offset: A(x + y) is not A(x) + A(y)

    def __init__(self, reports: Sequence[Report], units: Units) -> None:
        if not reports:
            raise ValueError("reports is empty; without observations draw from the prior")
        self.reports, self.units = tuple(reports), units
        self.y = torch.cat([r.values.flatten()[r.present] for r in reports])[None]
        each = [torch.as_tensor(r.std).to(r.values).expand(r.values.shape) for r in reports]
        self.std = torch.cat([s.flatten()[r.present] for s, r in zip(each, reports, strict=True)])[
            None
        ]

    def __call__(self, x: Value) -> Tensor:
        assert isinstance(x, Tensor)
        return self.see(self.units.restore(x))

    def see(self, fields: Tensor) -> Tensor:
        """Observe a window of physical fields, (B, K, C, H, W)."""
        return torch.cat([self._one(report, fields) for report in self.reports], 1)

    @property
    def affine(self) -> bool:
        """Whether all of it is a linear map and a constant."""
        return self.units.affine and all(r.instrument.linear for r in self.reports)

    def sizes(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """What is observed of the mean state, and how much that changes where all is one deviation more, (1, N) each.

        Where the change is nothing (of a difference, a gradient) it is the deviation of the observation's error.
        """
        with torch.no_grad():
            ones = torch.ones_like(like[:1])
            mean = self(0 * ones)
            change = (self(ones) - mean).abs()
            return mean, torch.where(change > 0, change, self.std.to(change))

    @staticmethod
    def _one(report: Report, fields: Tensor) -> Tensor:
        if report.step is not None and not 0 <= report.step < fields.shape[1]:
            raise ValueError(
                f"step {report.step} of {report.name!r} is outside the window of {fields.shape[1]} states"
            )
        y = report.instrument(fields if report.step is None else fields[:, report.step])
        assert isinstance(y, Tensor)
        if y.shape[1:] != report.values.shape:
            raise ValueError(
                f"values of {report.name!r} are {tuple(report.values.shape)}, their instrument gives "
                f"{tuple(y.shape[1:])}"
            )
        flat = y.reshape(len(y), -1)
        return flat[:, report.present.to(y.device)] if report.missing else flat


@final
@dataclass(frozen=True)
class Misfit:
    """How members fit one kind of observation: ``count`` of them, and the mean and root mean square of A(x) - y.

    ``noise`` is the root mean square of the deviations that the observations claim; ``ratio`` is the root mean square
    of (A(x) - y) / std: 1 for members of the posterior, on average over observations.
    """

    name: str
    count: int
    bias: float
    deviation: float
    noise: float
    ratio: float

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.count} observations, A(x) - y {self.bias:+.3g} +- {self.deviation:.3g}, "
            f"claimed {self.noise:.3g}, ratio {self.ratio:.3f}"
        )


def misfits(reports: Sequence[Report], members: Tensor) -> tuple[Misfit, ...]:
    """The check for every kind of observation, from physical members (M, K, C, H, W)."""
    out = []
    for name in dict.fromkeys(r.name for r in reports):
        seen = Observations([r for r in reports if r.name == name], _Physical())
        error = (seen.see(members) - seen.y.to(members)).double()
        std = seen.std.double().to(error)
        deviation, ratio = (e.square().mean().sqrt() for e in (error, error / std))
        out.append(
            Misfit(
                name,
                error.shape[1],
                float(error.mean()),
                float(deviation),
                math.sqrt(float(std.square().mean())),
                float(ratio),
            )
        )
    return tuple(out)


@final
class _Physical:
    affine = True

    def restore(self, z: Tensor, /) -> Tensor:
        return z
