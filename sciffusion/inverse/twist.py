r"""The likelihood of an observation, seen from a noised value: what steers particles.

With the data given :math:`x_t` taken for a Gaussian of mean :math:`\hat x_0` and independent entries of variance
:math:`r_t^2 = (s^{-2}+\alpha^2/\sigma^2n^2)^{-1}` (:class:`~sciffusion.inverse.PiGDM`),

.. math:: \log\psi_t(x_t) = \log N\big(y;\,A(\hat x_0),\,\Sigma_y + r_t^2\big)

for an operator with orthonormal rows, such as a mask. At t = 0 it is the likelihood itself, which makes particles exact
whatever its quality on the way. Source: Wu et al., TDS, 2023 (equation 8 and section 3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciffusion.inverse.operators import Operator
from sciffusion.inverse.posterior import Deviation, by_field, variance
from sciffusion.inverse.vectors import check_alike, dot, fieldwise
from sciffusion.layout import Layout
from sciffusion.process import Joint, Process
from sciffusion.state import Value, batch_of, take

__all__ = ["ObservationTwist"]

_LOG_2PI = math.log(2 * math.pi)


@final
@dataclass(frozen=True, eq=False)
class ObservationTwist:
    """A Gaussian likelihood as a twist for :class:`~sciffusion.inverse.TwistedSMC`.

    ``y`` holds one observation per sample, which the sample's particles share, or one per particle (as a mask that
    differs between samples has to). Entries that the operator's ``valid`` sets to zero count nothing. ``noise_std``
    must be positive; ``sigma_data`` is the data's standard deviation s, in units of the noise's scale n. A field of y
    goes by the schedule of the process's field of that name, any other by its clock.
    """

    process: Process
    operator: Operator
    y: Value
    noise_std: Deviation
    sigma_data: float = 1.0

    def __call__(self, x0: Value, x_t: Value, t: Tensor) -> Tensor:
        """Log-likelihood of every particle, (B P,), nats. Raises ``ValueError`` if ``y`` does not fit."""
        batch = batch_of(self.y)
        copies, rest = divmod(batch_of(x0), batch)
        if rest:
            raise ValueError(
                f"{batch_of(x0)} particles are no multiple of the {batch} observations in y"
            )
        index = torch.arange(batch).repeat_interleave(copies)
        there = take(self.operator.valid(fieldwise(torch.ones_like, self.y)), index)
        y, y_hat = take(self.operator.valid(self.y), index), self.operator(x0)
        check_alike(y, y_hat, "y")
        total = fieldwise(torch.add, variance(y, self.noise_std), self._uncertainty(y_hat, t))
        terms = fieldwise(
            lambda a, b, v: (a.to(b) - b) ** 2 / v + v.log() + _LOG_2PI, y, y_hat, total
        )
        return -0.5 * dot(there, terms)

    def _uncertainty(self, y: Value, t: Tensor) -> Value:
        def field(name: str | None, v: Tensor, layout: Layout) -> Tensor:
            process = self.process
            known = not isinstance(process, Joint) or name in process.processes
            schedule = process.field(name).clock if known else process.clock
            alpha, sigma = schedule(t)
            r2 = (self.sigma_data * sigma) ** 2 / (sigma**2 + (alpha * self.sigma_data) ** 2)
            return layout.expand(r2.to(v), v)

        return by_field(field, y)
