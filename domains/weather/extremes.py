r"""Rare weather on purpose, with weights that keep return periods honest.

For a functional f of physical fields, particles are drawn from the prior tilted by :math:`e^{\lambda f(x)}`, where
large values are common, and weighted back. With the particles' own weights W and the estimate of the evidence
:math:`Z = E_p[e^{\lambda f}]` that comes with them (:class:`~sciffusion.inverse.TwistedSMC`),

.. math:: \hat P(f > c) = \hat Z\sum_i W_i\,e^{-\lambda f(x_i)}\,1[f(x_i) > c]

is unbiased for the probability under the sampler's own law, with any number of particles, steps and any tilt. What the
tilt decides is the error, which independent replicas show. The tilted law is centred near c where
:math:`\lambda \approx (c - E f)/\mathrm{Var} f`.

The sampler's own law is not quite the model's: a first-order solver gets variances a little wrong, and tails feel that.
Of Gaussian data with unit variance, 64 steps of ``Ancestral()`` find 0.68 of the probability beyond three deviations,
of ``Ancestral(1.0)`` 1.00; where the variance is 0.2, that is 1.19, and 1.05 in 256 steps. Whether the model's tail is
the weather's is another question.
Source: Ragone, Wouters & Bouchet, PNAS 115, 2018 (tilting heat waves); Wu et al., TDS, 2023 (the particles).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import final

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sciffusion.denoiser import Denoiser
from sciffusion.inverse import TwistedSMC
from sciffusion.noise import Noise, sample_seeds
from sciffusion.samplers import Ancestral, Sampler
from sciffusion.state import Value

from .observed import Units

__all__ = ["Extremes", "Tail", "Tilted", "Weighted", "box_mean", "tilt_for", "tilted"]


@final
@dataclass(frozen=True)
class Extremes:
    """How to draw tilted weather.

    Attributes:
        sampler: stochastic, one evaluation a step; its law is what probabilities are of. Take enough steps.
        particles: P in each replica, which resample among each other.
        replicas: R independent runs, whose spread is the standard error.
        together: replicas that go through the denoiser at once.
        ess: resample where the effective sample size falls below this part of P.

    Raises ``ValueError`` for fewer than two replicas.
    """

    sampler: Sampler = field(default_factory=lambda: Sampler(Ancestral(1.0), 128))
    particles: int = 32
    replicas: int = 8
    together: int = 8
    ess: float = 0.5

    def __post_init__(self) -> None:
        if self.replicas < 2 or self.together < 1:
            raise ValueError(
                f"replicas must be at least 2, their spread is the error; got {self.replicas} "
                f"({self.together} together)"
            )


@final
@dataclass(frozen=True)
class Tail:
    """A probability with its standard error, and the effective number of particles beyond the threshold."""

    threshold: float
    probability: float
    error: float
    ess: float

    def return_period(self, every: float = 1.0) -> tuple[float, float, float]:
        """The mean time between exceedances in units of ``every``, and that for the probability plus and minus 1 error.

        ``every`` is the time that one sample stands for: a winter, a day. States closer in time than their memory are
        no independent trials: give the functional the maximum over a block. Infinite where the probability is zero.
        """
        p, e = self.probability, self.error
        middle, low, high = (every / q if q > 0 else math.inf for q in (p, p + e, p - e))
        return middle, low, high


@final
@dataclass(frozen=True, eq=False)
class Weighted:
    r"""What a functional is of particles that were drawn on purpose, and their weights back to the prior.

    Attributes:
        values: f of each, (R, P), float64.
        log_weights: (R, P): the mean over R of the sum over P of :math:`e^{\log w} g(x)` is unbiased for E[g].
    """

    values: Tensor
    log_weights: Tensor

    @classmethod
    def of(cls, ds: xr.Dataset) -> Weighted:
        """Those of a dataset that :meth:`.model.WeatherModel.extremes` made.

        Raises ``ValueError`` for members without value, weight and replica, or if some of a replica were left out.
        """
        if missing := [k for k in ("value", "weight", "replica") if k not in ds.coords]:
            raise ValueError(f"ds has no coordinates {missing}; extremes() makes them")
        each = np.bincount(ds.replica.values)
        if (each != each[0]).any() or len(each) < 2:
            raise ValueError(
                f"the replicas of ds have {each.tolist()} members; keep all of at least two"
            )
        value, weight = (
            torch.from_numpy(np.asarray(ds[k].values, dtype=np.float64)).reshape(len(each), -1)
            for k in ("value", "weight")
        )
        return cls(value, (weight * len(each)).log())

    def expectation(self, g: Tensor, *, normalised: bool = False) -> tuple[float, float]:
        """The prior's mean of a quantity g (R, P) and its standard error.

        ``normalised`` divides by the mean weight: exact for constants and biased as 1 / R, better where g varies over
        the bulk of the prior, worse for tails, which the tilted particles cover and the bulk they may not.
        """
        weights = self.log_weights.exp()
        each, count = (weights * g.to(weights)).sum(1), len(weights)
        mean = each.mean()
        if normalised:
            total = weights.sum(1)
            mean = each.sum() / total.sum()
            each = (each - mean * total) / total.mean()
        return float(mean), float(each.std() / count**0.5)

    def tail(self, threshold: float) -> Tail:
        """The prior's probability that f exceeds the threshold."""
        beyond = self.values > threshold
        probability, error = self.expectation(beyond)
        log = self.log_weights[beyond]
        size = float((2 * log.logsumexp(0) - (2 * log).logsumexp(0)).exp()) if len(log) else 0.0
        return Tail(threshold, probability, error, size)

    def return_level(self, probability: float) -> float:
        """The value that f exceeds with this probability, from the weighted particles.

        Raises ``ValueError`` for a probability that no particle's weight resolves, or that the tilted particles do not
        reach up to.
        """
        order = self.values.flatten().argsort(descending=True)
        weights = self.log_weights.flatten()[order].exp() / len(self.values)
        above = weights.cumsum(0)
        if not float(above[0]) <= probability <= float(above[-1]):
            raise ValueError(
                f"probability must lie in {float(above[0]):.3g}..{float(above[-1]):.3g}, which these particles resolve"
            )
        return float(self.values.flatten()[order][int(torch.searchsorted(above, probability))])


@final
@dataclass(frozen=True, eq=False)
class Tilted:
    """Weather drawn on purpose, with weights back to the prior.

    Attributes:
        fields: (R, P, C, H, W) or (R, P, K, C, H, W), physical.
        weighted: what the functional is of them, and their weights.
        ess: the least effective size of any replica on the way, before resampling; far below P the tilt is too hard.
    """

    fields: Tensor
    weighted: Weighted
    ess: float


def tilted(
    prior: Denoiser,
    units: Units,
    functional: Callable[[Tensor], Tensor],
    tilt: float,
    shape: tuple[int, ...],
    settings: Extremes | None = None,
    seed: int = 0,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tilted:
    r"""Draw from :math:`p(x)\,e^{\lambda f(x)}`.

    Args:
        prior: of normalised fields (B, C, H, W) or windows (B, K, C, H, W), its condition bound.
        units: restores physical fields.
        functional: f, physical fields to (B,), differentiable; :func:`box_mean` for instance.
        tilt: :math:`\lambda`, per unit of f: negative towards small values (then take tails of -f), 0 draws plainly.
        shape: of one sample, (C, H, W) or (K, C, H, W).

    Replica r depends on ``seed`` and r alone. Raises ``ValueError`` for a tilt that is not finite, or under which no
    particle has a finite weight.
    """
    settings = settings or Extremes()
    if not math.isfinite(tilt):
        raise ValueError(f"tilt must be finite, got {tilt}")

    def twist(x0: Value, x_t: Value, t: Tensor) -> Tensor:
        assert isinstance(x0, Tensor)
        return tilt * functional(units.restore(x0)).double()

    smc = TwistedSMC(settings.sampler, twist, settings.particles, settings.ess)
    seeds = sample_seeds(seed, settings.replicas)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    least = math.inf
    for at in range(0, settings.replicas, settings.together):
        own = seeds[at : at + settings.together]
        like = torch.empty(len(own), *shape, dtype=dtype, device=device)
        drawn = smc(prior, like, own)
        assert isinstance(drawn.x, Tensor)
        fields = units.restore(drawn.x)
        with torch.no_grad():
            value = functional(fields).double().cpu().reshape(len(own), -1)
        log = drawn.log_weights + drawn.log_evidence[:, None] - tilt * value
        parts.append((fields.unflatten(0, value.shape), value, log))
        least = min(least, float(drawn.ess.min()))
    fields, values, logs = (torch.cat(part) for part in zip(*parts, strict=True))
    return Tilted(fields, Weighted(values, logs), least)


def tilt_for(
    prior: Denoiser,
    units: Units,
    functional: Callable[[Tensor], Tensor],
    threshold: float,
    shape: tuple[int, ...],
    sampler: Sampler,
    seed: int = 0,
    *,
    samples: int = 64,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> float:
    r"""The tilt that would centre a Gaussian f on the threshold, :math:`(c-m)/s^2`, from plain samples of the prior."""
    like = torch.empty(samples, *shape, dtype=dtype, device=device)
    noise = Noise(sample_seeds(seed, samples))
    x = sampler(prior, prior.process.prior(like, noise), noise).x
    assert isinstance(x, Tensor)
    with torch.no_grad():
        value = functional(units.restore(x)).double()
    return float((threshold - value.mean()) / value.var())


def box_mean(area: Tensor, box: Tensor, channel: int) -> Callable[[Tensor], Tensor]:
    """The functional that takes a channel's mean over a box, weighted by area.

    ``area`` is (H, 1) or (H, W), a grid's ``area``; ``box`` a boolean mask (H, W). Windows (B, K, C, H, W) are averaged
    over time as well. Raises ``ValueError`` for an empty box.
    """
    if box.dtype != torch.bool or not bool(box.any()):
        raise ValueError("box must be a boolean mask (H, W) with at least one cell")
    weights = area * box
    weights = weights / weights.sum()

    def functional(fields: Tensor) -> Tensor:
        mean = (fields.select(-3, channel) * weights.to(fields)).sum((-2, -1))
        return mean if mean.ndim == 1 else mean.flatten(1).mean(1)

    return functional
