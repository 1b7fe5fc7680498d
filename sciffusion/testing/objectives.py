"""The contracts of what an objective is made of: weights, laws of times, couplings; and of divergences."""

from __future__ import annotations

import torch
from torch import Tensor

from sciffusion.coupling import Coupling
from sciffusion.denoiser import Condition
from sciffusion.layout import Dense
from sciffusion.likelihood import Divergence
from sciffusion.likelihood.divergence import Probes
from sciffusion.noise import Noise
from sciffusion.objective import TimeSampler, Weight
from sciffusion.process import Gaussian, Process
from sciffusion.schedule import Schedule
from sciffusion.state import Value, batch_of, layout_of
from sciffusion.testing.claims import claim, claim_equal

__all__ = ["check_coupling", "check_divergence", "check_times", "check_weight"]


def check_weight(weight: Weight, schedule: Schedule) -> None:
    """Check a weight on a schedule.

    Raises:
        AssertionError: unless weights are float64, of the shape of the times, finite and not negative between the ends,
            and the same for one time and for many.
    """
    t = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    w = weight(schedule, t)
    claim(w.shape == t.shape and w.dtype == torch.float64, "float64 weights, shaped like t")
    claim(w.isfinite().all() and (w >= 0).all(), "weights are finite and not negative")
    claim_equal(weight(schedule, t[7]), w[7], "a time alone weighs as among others", tol=1e-12)
    claim_equal(
        weight(schedule, t.reshape(9, 11)), w.reshape(9, 11), "any shape of times", tol=1e-12
    )


def check_times(times: TimeSampler, schedule: Schedule, *, draws: int = 4000) -> None:
    """Check a law of training times on a schedule.

    Raises:
        AssertionError: unless times are float64 inside (0, 1), drawn from the given noise alone; the quantile function
            rises; the density is that of the quantiles; and the draws have that law (Kolmogorov and Smirnov's
            distance, at a chance of one in a million).
    """
    u = torch.linspace(0.02, 0.98, 193, dtype=torch.float64)
    q = times.quantile(u, schedule)
    claim(((q > 0) & (q < 1)).all() and (q.diff() > 0).all(), "quantiles rise inside (0, 1)")
    h = 1e-6
    slope = (times.quantile(u + h, schedule) - times.quantile(u - h, schedule)) / (2 * h)
    claim_equal(times.density(q, schedule) * slope, torch.ones_like(u), "the density", tol=1e-3)
    state = torch.get_rng_state()
    t = times(Noise(5), draws, schedule)
    claim(torch.equal(state, torch.get_rng_state()), "no draw from the global generator")
    claim(t.shape == (draws,) and t.dtype == torch.float64, "one float64 time a sample")
    claim(((t > 0) & (t < 1)).all(), "times inside (0, 1)")
    claim_equal(times(Noise(5), draws, schedule), t, "the same seed gives the same times")
    levels = torch.linspace(0.02, 0.98, 49, dtype=torch.float64)
    seen = torch.searchsorted(t.sort().values, times.quantile(levels, schedule)) / draws
    far = float((seen - levels).abs().max())
    claim(far < 2.7 / draws**0.5, f"draws follow the quantiles: {far:.3f}")


def check_coupling(
    coupling: Coupling, x0: Value, cond: Condition, process: Process, *, least: bool = True
) -> None:
    """Check a coupling on a batch of clean samples, with noise from the process.

    Raises:
        AssertionError: unless the noise keeps its kind, shapes and total norm (it is moved, not changed), the data and
            the noise it was given are left as they were, nothing is drawn from the global generator; and, where
            ``least``, noise and data do not lie farther apart than before.
    """
    eps = process.draw(x0, Noise(list(range(batch_of(x0)))))
    before = {k: v.clone() for k, v in process.fields(eps).items()}
    clean = {k: v.clone() for k, v in process.fields(x0).items()}
    state = torch.get_rng_state()
    paired = coupling(x0, eps, cond, process)
    claim(torch.equal(state, torch.get_rng_state()), "no draw from the global generator")
    near = far = torch.zeros((), dtype=torch.float64)
    for k, e in process.fields(paired).items():
        layout = layout_of(x0, k)
        claim_equal(process.fields(eps)[k], before[k], f"the noise {k} is left as it was")
        claim(
            torch.equal(process.fields(x0)[k].nan_to_num(), clean[k].nan_to_num()),
            f"the data {k} are left as they were",
        )
        claim(e.shape == before[k].shape and e.dtype == before[k].dtype, f"{k}: kind and shape")
        if not isinstance(process.field(k), Gaussian):
            continue
        one, other = (
            layout.reduce(layout.clean(v).double().square()).sum() for v in (e, before[k])
        )
        claim_equal(one, other, f"{k}: the noise is moved, not changed", tol=1e-6)
        x = layout.clean(clean[k])
        near = near + layout.clean(e - x).double().square().sum()
        far = far + layout.clean(before[k] - x).double().square().sum()
    if least:
        claim(near <= far * (1 + 1e-9), f"data and noise lie no farther apart: {near}, {far}")


def check_divergence(divergence: Divergence, *, repeats: int = 2000) -> None:
    """Check a divergence on a linear map of three numbers.

    Raises:
        AssertionError: unless its mean over seeds is the trace (within five standard errors), and a sample's estimate
            depends on its own seed alone.
    """
    matrix = torch.tensor([[0.7, 0.4, 0.0], [-0.3, 1.1, 0.5], [0.2, 0.0, -0.4]]).double()
    like = torch.zeros(repeats, 3, dtype=torch.float64)

    def estimates(x: Tensor, seeds: list[int]) -> Tensor:
        probes = Probes([x], [Dense(len(x))])
        drawn = divergence.draw(probes, Noise(seeds))
        return divergence.trace(lambda v: [v[0] @ matrix], probes, drawn)

    got = estimates(like, list(range(repeats)))
    claim(got.shape == (repeats,), "one trace a sample")
    off, se = float(got.mean() - matrix.trace()), float(got.std()) / repeats**0.5
    claim(abs(off) <= 5 * se + 1e-9, f"the mean is the trace: off by {off:.3g} for {se:.3g}")
    alone = estimates(like[3:5], [3, 4])
    claim_equal(alone, got[3:5], "an estimate depends on its own seed", tol=1e-9)
