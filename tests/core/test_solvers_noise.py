"""Stochastic solvers: their weak order, the distribution that they sample, and the dynamics that they converge to."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.grid import LogSNR, Uniform
from sciffusion.noise import Noise
from sciffusion.oracle import Gaussian as GaussianOracle
from sciffusion.process import Gaussian
from sciffusion.samplers import (
    DDIM,
    ERSDE,
    Ancestral,
    EulerMaruyama,
    Heun,
    Langevin,
    Multistep,
    Sampler,
    SASolver,
    Singlestep,
)
from sciffusion.schedule import VP, RectifiedFlow
from sciffusion.solver import Level, Solver
from sciffusion.state import Value
from sciffusion.testing import gaussian_moments
from tests.core.cases import mixture, name, randn, rng

FLOW = RectifiedFlow()
START, STOP = float(FLOW.time(-8.0)), float(FLOW.time(6.0))


def rising(log_snr: float) -> float:
    """Much noise at high noise levels and little near the data."""
    return 1 / (1 + math.exp(log_snr))


@pytest.mark.parametrize("grid", [LogSNR(), Uniform()], ids=name)
@pytest.mark.parametrize(
    ("solver", "order"),
    [
        (EulerMaruyama(), 1),
        (Ancestral(1.0), 1),
        (DDIM(rising), 1),
        (Multistep(2, eta=rising), 2),
        (Singlestep(2, eta=1.0), 2),
        (Singlestep(3, eta=0.5), 2),
        (SASolver(1, 1, eta=1.0), 2),
        (SASolver(2, 2, eta=1.0), 2),
        (SASolver(3, 3, eta=0.5), 2),
        (ERSDE(1), 1),
        (ERSDE(2), 2),
        (ERSDE(3), 2),
        (Langevin(), 1),
        (Langevin(2, rate=0.5, eta=1.0), 1),
    ],
    ids=lambda case: type(case).__name__,
)
def test_the_variance_converges_at_least_with_the_weak_order(
    solver: Solver, order: int, grid: LogSNR | Uniform
) -> None:
    """The output's variance is known exactly: every noise on the way goes through a linear map."""
    error = []
    for steps in (240, 480):
        sampler = Sampler(solver, steps, grid, START, STOP)
        mean, variance = gaussian_moments(sampler, FLOW, mean=0.7, variance=0.6)
        error.append(abs(variance - float(FLOW.alpha(STOP) ** 2 * 0.6 + FLOW.sigma(STOP) ** 2)))
        assert abs(mean - 0.7 * float(FLOW.alpha(STOP))) < 1e-10
    assert math.log2(error[0] / error[1]) > order - 0.2


class Fast(Denoiser):
    """The mixture of the other tests with its matrices computed once a call instead of once a sample."""

    def __init__(self) -> None:
        super().__init__()
        self.exact = mixture()
        self.process = self.exact.process

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        assert isinstance(x_t, Tensor)
        alpha, sigma = (float(c) for c in self.process.clock(t))
        logs, means = [], []
        for w, m, c in zip(self.exact.weights, self.exact.means, self.exact.covs, strict=True):
            total = alpha**2 * c + sigma**2 * torch.eye(2, dtype=torch.float64)
            inverse = total.inverse().float()
            centred = x_t - alpha * m.float()
            solved = centred @ inverse
            logs.append(w.log() - 0.5 * total.logdet() - 0.5 * (centred * solved).sum(1))
            means.append(m.float() + alpha * solved @ c.float())
        p = torch.stack(logs, 1).softmax(1).to(x_t)
        x0 = (p[:, :, None] * torch.stack(means, 1)).sum(1)
        return Prediction(x0, x_t, t, self.process)


def statistics(x: Tensor) -> Tensor:
    """For every mode its weight and its first and second moments, each sample counted by its responsibilities."""
    exact, x = mixture(), x.double()
    logs = []
    for w, m, c in zip(exact.weights, exact.means, exact.covs, strict=True):
        density = torch.distributions.MultivariateNormal(m, c)
        logs.append(w.log() + density.log_prob(x))
    p = torch.stack(logs, 1).softmax(1)
    terms = torch.cat([torch.ones(len(x), 1), x, x**2, x.prod(1, keepdim=True)], 1)
    return (p[:, :, None] * terms[:, None, :]).flatten(1)


def of_eta(eta: float) -> list[Solver]:
    return [
        DDIM(eta),
        Multistep(2, eta),
        Multistep(3, eta),
        Singlestep(2, eta),
        Singlestep(3, eta),
        SASolver(2, 2, eta),
        SASolver(3, 1, eta),
        Langevin(1, 1.0, eta),
        Heun(8 * eta),
        ERSDE(2, lambda rho: eta**2 * math.log(rho)),
    ]


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_the_weights_and_covariances_of_a_mixture_are_reproduced(eta: float) -> None:
    n, denoiser = 3000, Fast()
    want = statistics(denoiser.exact.sample(100_000, rng(1)))
    start = denoiser.process.prior(torch.zeros(n, 2), Noise(2))
    others: list[Solver] = [Ancestral(), ERSDE(3), Multistep(2, eta=rising)] if eta == 1 else []
    for solver in [*of_eta(eta), *others]:
        steps = 160 if solver.order == 1 else 40
        end = Sampler(solver, steps)(denoiser, start, 3).x
        assert isinstance(end, Tensor)
        got = statistics(end)
        z = (got.mean(0) - want.mean(0)) / (want.std(0) / math.sqrt(n))
        assert float(z.abs().max()) < 5, solver


def gain(solver: Solver, steps: int) -> float:
    """What remains of the start at the end, for Gaussian data: the slope of the affine map of a run."""
    eye = torch.eye(1, dtype=torch.float64)
    denoiser = GaussianOracle(0 * eye[0], 0.6 * eye, Gaussian(FLOW))
    sampler = Sampler(solver, steps, LogSNR(), START, STOP)
    ends = [sampler(denoiser, x * eye, 4).x for x in (0.0, 1.0)]
    assert isinstance(ends[0], Tensor) and isinstance(ends[1], Tensor)
    return float(ends[1] - ends[0])


@pytest.mark.parametrize(
    ("solver", "eta"),
    [
        (Langevin(1, 1.0), 1.0),
        (Langevin(3, 0.25), math.sqrt(0.75)),
        (Langevin(1, 0.5, eta=0.5), None),
        (Singlestep(2, 0.8), 0.8),
        (SASolver(2, 2, 0.8), 0.8),
        (EulerMaruyama(0.8), 0.8),
        (ERSDE(2, lambda rho: 0.64 * math.log(rho)), 0.8),
    ],
    ids=str,
)
def test_solvers_of_one_amount_of_noise_follow_one_process(
    solver: Solver, eta: float | None
) -> None:
    """Not only the end's distribution, but how it depends on the start; n corrections count as rate times n."""
    if eta is None:
        assert gain(solver, 200) < gain(Langevin(1, 0.5), 200)
        return
    exact = gain(Multistep(2, eta), 400)
    errors = [abs(gain(solver, n) - exact) / exact for n in (100, 200)]
    assert errors[1] < max(1e-4, 0.7 * errors[0]) and errors[1] < 0.25


def test_the_two_variances_of_ddpm_are_those_of_one_point_and_of_unit_data() -> None:
    """Of the paper: beta (1 - abar_s)/(1 - abar_t), and beta."""
    schedule = VP()
    for t, s in ((0.9, 0.85), (0.5, 0.2), (0.1, 0.05)):
        (a_t, s_t), (a_s, s_s) = schedule(t), schedule(s)
        beta = float(1 - (a_t / a_s) ** 2)
        begin, end = Level(float(a_t), float(s_t)), Level(float(a_s), float(s_s))
        (small,) = Ancestral().rules([begin], [], end)
        (large,) = Ancestral(sigma_data=1.0).rules([begin], [], end)
        assert float(small.noise) ** 2 == pytest.approx(beta * float((s_s / s_t) ** 2), rel=1e-9)
        assert float(large.noise) ** 2 == pytest.approx(beta, rel=1e-9)


@pytest.mark.parametrize("spread", [0.3, 1.0, 2.0])
def test_ancestral_steps_are_exact_on_gaussian_data_of_their_spread(spread: float) -> None:
    for schedule in (FLOW, VP()):
        for steps in (1, 3):
            sampler = Sampler(Ancestral(spread), steps, start=0.8, stop=0.2)
            got = gaussian_moments(sampler, schedule, mean=0.4, variance=spread**2)
            alpha, sigma = (float(c) for c in schedule(0.2))
            assert got[0] == pytest.approx(0.4 * alpha, rel=1e-9)
            assert got[1] == pytest.approx(alpha**2 * spread**2 + sigma**2, rel=1e-9)


def test_langevin_keeps_the_noise_level_and_moves_by_its_rate_alone() -> None:
    """A correction keeps e^-tau of the noise, however large the batch and its norms."""
    t, s = Level(0.6, 0.8), Level(0.8, 0.6)
    length = s.half_log_snr - t.half_log_snr
    _, first, second = Langevin(2, rate=0.5).rules([t, s, s], [], s)
    assert first == second and first.base == 0
    (kept,) = first.values
    assert kept == pytest.approx(math.exp(-0.5 * length))
    assert math.hypot(kept * s.sigma, first.noise) == pytest.approx(s.sigma)
    _, still = Langevin(rate=1e-12).rules([t, s], [], s)
    assert still.values[0] == pytest.approx(1) and still.noise < 1e-5
    _, long = Langevin().rules([Level(1e-8, 1.0), s], [], s)
    assert long.values[0] == pytest.approx(math.exp(-1))


def test_langevin_repairs_samples_of_a_wrong_spread() -> None:
    """The predictor cannot know that a start is too wide; the corrector finds the marginal again."""
    eye = torch.eye(1, dtype=torch.float64)
    denoiser = GaussianOracle(0 * eye[0], 0.6 * eye, Gaussian(FLOW))
    wide = 2 * randn(4000, 1)
    spreads = []
    for solver in (DDIM(), Langevin(3, rate=2.0)):
        end = Sampler(solver, 60, start=0.5)(denoiser, wide, 1).x
        assert isinstance(end, Tensor)
        spreads.append(abs(float(end.var()) - 0.6))
    assert spreads[1] < 0.2 * spreads[0]
