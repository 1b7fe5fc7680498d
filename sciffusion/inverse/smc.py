r"""Particles that sample a posterior: twisted diffusion sampling and Feynman-Kac steering.

A stochastic sampler draws :math:`x_s\sim K(x_s\mid x_t)`. With an approximate log-likelihood :math:`\log\psi_t`
(the *twist*), particles are moved by a proposal :math:`Q`, weighted by

.. math:: w_s = w_t\,\frac{K(x_s\mid x_t)}{Q(x_s\mid x_t)}\,\frac{\psi_s(x_s)}{\psi_t(x_t)},

and resampled where few of them carry the weight. As their number grows they sample the law of the sampler's output
times :math:`\psi_0`, whatever the twist was on the way, and the product of mean weights is an unbiased estimate of the
evidence :math:`E[\psi_0(x_0)]`.

Guided proposals move the prediction of a Gaussian field by :math:`(\sigma^2/\alpha)\,\Sigma\nabla\log\psi_t`, so that K
and Q, both :math:`N(Ax_t + B\hat x_0, C^2LL^T)`, differ in their means; a jump field's probabilities p become
:math:`p\,(1 + g - \sum pg)`, :math:`g = \partial\log\psi_t/\partial p`, the posterior itself where the likelihood is a
mean over the classes of an element. Sources: Wu et al., TDS, 2023; Singhal et al., Feynman-Kac steering, 2025
(``guided=False``: Q = K); Douc & Cappé, 2005 (systematic resampling).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.inverse.proposals import Twist, judge, log_ratio, propose
from sciffusion.inverse.resampling import Weights, systematic
from sciffusion.noise import Noise, sample_seeds
from sciffusion.samplers import Carry, Sampler
from sciffusion.state import Value, batch_of, take

__all__ = ["Particles", "TwistedSMC"]


@final
@dataclass(frozen=True)
class Particles:
    """Weighted samples of a posterior, P for each of B: all particles of a sample lie next to each other.

    Attributes:
        x: the particles, a batch of B P.
        log_weights: (B, P), normalised.
        log_evidence: (B,), nats; its exponential is an unbiased estimate of the evidence.
        ess: the effective sample size before every step and at the end, (steps + 1, B), between 1 and P.
        nfe: calls of the denoiser, each with all particles.
        resampled: the particles without weights, drawn by them: a batch of B P, with repetitions.
    """

    x: Value
    log_weights: Tensor
    log_evidence: Tensor
    ess: Tensor
    nfe: int
    resampled: Value


@final
@dataclass(frozen=True)
class TwistedSMC:
    """A sampler with particles, steered by a twist.

    Guided proposals (TDS) need gradients of the twist and a stochastic solver with one evaluation a step that looks at
    no earlier one: ``Ancestral``, ``DDIM(eta)``, ``Multistep(1, eta)``. With ``guided=False`` the sampler proposes by
    itself; twist and denoiser then need no gradients, and any solver without churn serves, though particles that were
    resampled only part again if it draws noise.

    Args:
        sampler: from time 1.
        twist: the log-likelihood, such as :class:`~sciffusion.inverse.ObservationTwist`.
        particles: P, per sample.
        ess: resample where the effective sample size falls below this part of P; 0 never, 1 always.
        guided: propose with the twist's gradient.

    Raises:
        ValueError: for a solver that does not serve, fewer than 1 particle, or ``ess`` outside [0, 1].
    """

    sampler: Sampler
    twist: Twist
    particles: int
    ess: float = 0.5
    guided: bool = True

    def __post_init__(self) -> None:
        solver = self.sampler.solver
        if self.particles < 1 or not 0 <= self.ess <= 1:
            raise ValueError(
                f"need particles >= 1 and ess in [0, 1], got {self.particles} and {self.ess}"
            )
        if self.sampler.start != 1:
            raise ValueError(f"particles start from the prior at 1, not {self.sampler.start}")
        if self.guided and (solver.history or solver.evaluations > 1 or not solver.stochastic):
            raise ValueError(
                f"guided proposals need a stochastic solver with one evaluation a step and no history, got {solver}; "
                "take Ancestral() or guided=False"
            )

    def __call__(self, denoiser: Denoiser, like: Value, seed: int | Sequence[int] = 0) -> Particles:
        """Sample a posterior for each sample of ``like``, which gives shapes only, as ``Process.prior`` takes it.

        ``seed``: one integer, or one per sample of ``like``. Raises ``ValueError`` if all particles of a sample get
        zero likelihood, and for a grid with times of its own for every particle.
        """
        batch, count, process = batch_of(like), self.particles, denoiser.process
        noise, choice = _streams(seed, count)
        copies = torch.arange(batch).repeat_interleave(count)
        with torch.no_grad():
            carry = self.sampler.init(denoiser, process.prior(take(like, copies), noise))
            if any(carry.plan.lifted):
                raise ValueError(
                    f"particles need a run that never goes back up, without churn and restarts; got {self.sampler}"
                )
            if any(t.ndim for times in carry.plan.times for t in times):
                raise ValueError(
                    "particles need one grid for all, but the sampler's gives every sample times of its own"
                )
            weights, calls = Weights(batch, count), 0
            # log K/Q of the step before, and the twist at its beginning
            paths = before = torch.zeros(batch * count, dtype=torch.float64)
            for i, times in enumerate(carry.plan.times):
                moves = [m[i] for m in carry.plan.moves]
                own, proposed, twist = self._look(denoiser, carry, times[0], moves)
                weights.add(paths + twist - before)
                # drawn at every step: no sample's numbers depend on the others' luck
                u = choice.scalars(batch)
                if weights.ess[-1].min() < self.ess * count:
                    index = weights.resample(u, self.ess)
                    carry = replace(
                        carry,
                        x=take(carry.x, index),
                        history=tuple((take(a, index), take(b, index)) for a, b in carry.history),
                    )
                    own, proposed = _taken(own, index), _taken(proposed, index)
                    twist = twist[index]
                once = _Once(denoiser, proposed)
                done = self.sampler.step(once, carry, noise)
                calls += 1 + once.calls
                if self.guided:
                    paths = log_ratio(process, moves, own, proposed, done.x)
                carry, before = done, twist
            final, extra = self._final(denoiser, carry)
            weights.add(paths + final - before)
            index = systematic(weights.log, choice.scalars(batch))
            return Particles(
                carry.x,
                weights.log,
                weights.evidence,
                torch.stack(weights.ess),
                calls + extra,
                take(carry.x, index),
            )

    def _look(
        self, denoiser: Denoiser, carry: Carry, t: Tensor, moves: Sequence[Any]
    ) -> tuple[Prediction, Prediction, Tensor]:
        """The denoiser's prediction, the proposal's, and the twist."""
        previous = carry.history[0][1] if carry.history else None
        if self.guided:
            return propose(denoiser, self.twist, carry.x, t, previous, moves)
        own = denoiser(carry.x, t, None, previous)
        return own, own, judge(self.twist, own.x0, own.x_t, t)

    def _final(self, denoiser: Denoiser, carry: Carry) -> tuple[Tensor, int]:
        """The twist at the end, and the calls of the denoiser that it took."""
        t = torch.tensor(self.sampler.stop, dtype=torch.float64)
        if self.sampler.stop > 0:
            previous = carry.history[0][1] if carry.history else None
            prediction = denoiser(carry.x, t, None, previous)
            return judge(self.twist, prediction.x0, carry.x, t), 1
        process = denoiser.process
        clean = {}
        for k, v in process.fields(carry.x).items():
            clean[k] = process.field(k).certain(v)
        return judge(self.twist, process.rebuild(carry.x, clean), carry.x, t), 0


def _streams(seed: int | Sequence[int], count: int) -> tuple[Noise, Noise]:
    """The particles' noise, and the numbers for resampling."""
    if isinstance(seed, int | np.integer):
        noise = Noise(int(seed))
        return noise, noise
    each = [s for one in seed for s in sample_seeds(int(one), count)]
    return Noise(each), Noise(list(seed))


def _taken(prediction: Prediction, index: Tensor) -> Prediction:
    return replace(prediction, x0=take(prediction.x0, index), x_t=take(prediction.x_t, index))


@final
class _Once(Denoiser):
    """A prediction that was made already; a second evaluation within the step asks the denoiser."""

    def __init__(self, denoiser: Denoiser, prediction: Prediction) -> None:
        super().__init__()
        self.denoiser, self.process = denoiser, denoiser.process
        self.prediction: Prediction | None = prediction
        self.calls = 0

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        if self.prediction is not None:
            made, self.prediction = self.prediction, None
            return made
        self.calls += 1
        return self.denoiser(x_t, t, cond, previous)
