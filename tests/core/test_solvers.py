"""Solvers: their order of convergence and the cases in which they are exact."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciffusion.grid import Grid, Karras, LogSNR, Times, Uniform
from sciffusion.process import Gaussian
from sciffusion.samplers import (
    BDIA,
    DDIM,
    DEIS,
    ERSDE,
    LMS,
    Ancestral,
    EulerMaruyama,
    Heun,
    Langevin,
    Multistep,
    Sampler,
    SASolver,
    Singlestep,
    UniPC,
)
from sciffusion.schedule import VE, VP, Cosine, Polynomial, RectifiedFlow, Schedule, TrigFlow
from sciffusion.solver import Level, Solver
from sciffusion.testing import Knows, check_solver, gaussian_moments, measured_order
from tests.core.cases import (
    DETERMINISTIC,
    SCHEDULES,
    SOLVERS,
    STOCHASTIC,
    allowed,
    mixture,
    name,
    randn,
)

FLOW = RectifiedFlow()
START, STOP = float(FLOW.time(-8.0)), float(FLOW.time(6.0))


def alternating(steps: int) -> Times:
    """Steps in log-SNR of the lengths 1, 3, 1, 3 ..."""
    lengths = torch.tensor([1.0, 3.0], dtype=torch.float64).repeat(steps // 2).cumsum(0)
    times = FLOW.time(-8 + 14 * torch.cat([torch.zeros(1), lengths / lengths[-1]]))
    times[0], times[-1] = START, STOP
    return Times(times)


def grid_of(kind: str, steps: int) -> Grid:
    grids = {"log-snr": LogSNR(), "karras": Karras(low=-8, high=6), "flow time": Uniform()}
    return alternating(steps) if kind == "alternating" else grids[kind]


GRIDS = ["log-snr", "karras", "flow time", "alternating"]


@pytest.mark.parametrize("solver", SOLVERS, ids=name)
def test_solvers_keep_their_contract(solver: Solver) -> None:
    check_solver(solver)


@cache
def exact_end() -> Tensor:
    """Where the probability flow of the mixture leads, by an eighth-order Runge-Kutta method of SciPy."""
    integrate = pytest.importorskip("scipy.integrate")
    denoiser, x = mixture(), randn(16, 2)

    def slope(log_sigma: float, y: NDArray[np.float64]) -> NDArray[np.float64]:
        # y = x/alpha falls by dy/dlog(sigma/alpha) = y - x0
        t = FLOW.time(-2 * log_sigma)
        value = torch.as_tensor(y).reshape(x.shape)
        x0 = denoiser(value * FLOW.alpha(t), t).x0
        assert isinstance(x0, Tensor)
        return np.asarray((value - x0).flatten())

    y0 = (x / FLOW.alpha(START)).flatten().numpy()
    run = integrate.solve_ivp(slope, (4.0, -3.0), y0, method="DOP853", rtol=1e-12, atol=1e-13)
    return torch.tensor(run.y[:, -1]).reshape(x.shape) * FLOW.alpha(STOP)


@pytest.mark.parametrize("kind", GRIDS)
@pytest.mark.parametrize("solver", DETERMINISTIC, ids=name)
def test_the_error_on_a_correlated_mixture_falls_with_the_declared_order(
    solver: Solver, kind: str
) -> None:
    n, tol = (320, 0.15) if solver.order == 3 else (80, 0.1)
    error = []
    for steps in (n, 2 * n):
        x = Sampler(solver, steps, grid_of(kind, steps), START, STOP)(mixture(), randn(16, 2)).x
        assert isinstance(x, Tensor)
        error.append(float((x - exact_end()).abs().max()))
    assert abs(math.log2(error[0] / error[1]) - solver.order) < tol


@pytest.mark.parametrize("kind", GRIDS)
@pytest.mark.parametrize("solver", DETERMINISTIC, ids=name)
def test_the_error_on_a_gaussian_falls_with_the_declared_order(solver: Solver, kind: str) -> None:
    n, variances = (600, [0.3]) if solver.order == 3 else (160, [0.3, 2.5])
    for variance in variances:
        exact = float(FLOW.alpha(STOP) ** 2 * variance + FLOW.sigma(STOP) ** 2)
        error = []
        for steps in (n, 2 * n):
            sampler = Sampler(solver, steps, grid_of(kind, steps), START, STOP)
            error.append(abs(gaussian_moments(sampler, FLOW, variance=variance)[1] - exact))
        assert abs(math.log2(error[0] / error[1]) - solver.order) < 0.15


@pytest.mark.parametrize("kind", GRIDS)
@pytest.mark.parametrize(
    ("solver", "order"),
    [
        (DDIM(0.5), 1),
        (DDIM(1.0), 1),
        (Ancestral(), 1),
        (Multistep(1, eta=1.0), 1),
        (Multistep(2, eta=0.5), 2),
        (Multistep(2, eta=1.0), 2),
        (Multistep(3, eta=1.0), 2),
        (Heun(churn=8.0), 2),
    ],
    ids=name,
)
def test_the_variance_converges_with_the_weak_order(solver: Solver, order: int, kind: str) -> None:
    """The output's variance is known exactly: every noise on the way goes through a linear map."""
    error, n = [], 600 if solver.order == 3 else 320
    for steps in (n, 2 * n):
        sampler = Sampler(solver, steps, grid_of(kind, steps), START, STOP)
        mean, variance = gaussian_moments(sampler, FLOW, mean=0.7, variance=0.6)
        error.append(abs(variance - float(FLOW.alpha(STOP) ** 2 * 0.6 + FLOW.sigma(STOP) ** 2)))
        assert abs(mean - 0.7 * float(FLOW.alpha(STOP))) < 1e-10
    assert abs(math.log2(error[0] / error[1]) - order) < 0.15


def test_the_measured_order_of_a_solver_does_not_depend_on_the_schedule() -> None:
    orders = [measured_order(Multistep(2), schedule=s) for s in (FLOW, VP(), VE(), Cosine())]
    assert max(orders) - min(orders) < 0.02


@pytest.mark.parametrize("ratio", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_one_step_errs_by_one_order_more_whatever_the_ratio_of_the_steps(
    order: int, ratio: float
) -> None:
    """With an exact history: a global error cannot tell a ratio from its inverse, for the terms cancel in the sum."""
    schedule, variance, half = TrigFlow(), 0.6, 0.4

    def level(half_log_snr: float) -> Level:
        alpha, sigma = schedule(schedule.time(2 * half_log_snr))
        return Level(float(alpha), float(sigma))

    def flow(at: Level) -> float:
        return math.sqrt(at.alpha**2 * variance + at.sigma**2)

    def x0(at: Level) -> float:
        return at.alpha * variance / flow(at)  # of the solution that passes through flow(at)

    errors = []
    for h in (0.02, 0.01):
        t, end = level(half), level(half + h)
        past, at = [], half
        for _ in range(order - 1):
            at -= h * ratio
            past.append(level(at))
        (rule,) = Multistep(order).rules([t], past, end)
        values = [x0(p) for p in (t, *past)]
        x = float(rule.base) * flow(t) + math.fsum(
            float(b) * v for b, v in zip(rule.x0, values, strict=True)
        )
        errors.append(abs(x - flow(end)))
    assert abs(math.log2(errors[0] / errors[1]) - (order + 1)) < 0.1


@pytest.mark.parametrize("h", [0.05, 0.3, 1.7, 6.0])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_predictions_that_are_a_polynomial_in_log_snr_are_integrated_exactly(
    order: int, eta: float, h: float
) -> None:
    r"""x_s = sigma_s/sigma_t exp(-eta^2 h) x_t + rate alpha_s int exp(-rate (l_s - l)) x0(l) dl, for any h."""
    schedule, now = TrigFlow(), -1.3

    def level(half_log_snr: float) -> Level:
        alpha, sigma = schedule(schedule.time(2 * half_log_snr))
        return Level(float(alpha), float(sigma))

    def x0(half_log_snr: Tensor) -> Tensor:
        u = half_log_snr - now
        return torch.stack([torch.ones_like(u), u, u**2])[:order].sum(0)

    known = [now, now - 0.7 * h, now - 1.9 * h][:order]
    t, *past = [level(l) for l in known]
    (rule,) = Multistep(order, eta).rules([t], past, level(now + h))
    rate = 1 + eta**2
    fine = torch.linspace(now, now + h, 20001, dtype=torch.float64)
    integral = torch.trapezoid(torch.exp(-rate * (now + h - fine)) * x0(fine), fine)
    want = rate * level(now + h).alpha * float(integral)
    got = float((torch.tensor(rule.x0).double() * x0(torch.tensor(known).double())).sum())
    assert got == pytest.approx(want, rel=1e-6, abs=1e-6)
    base = level(now + h).sigma / t.sigma * math.exp(-(eta**2) * h)
    assert rule.base == pytest.approx(base, rel=1e-9)


def random_times(n: int) -> Tensor:
    inner = torch.rand(n - 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return torch.cat([torch.tensor([1.0, 0.0]), inner]).double().sort(descending=True).values


def test_ddim_is_eulers_method_in_the_time_of_rectified_flow() -> None:
    times, denoiser = random_times(9), mixture()
    x = randn(16, 2)
    got = Sampler(DDIM(), 9, Times(times))(denoiser, x).x
    for t, s in zip(times[:-1], times[1:], strict=True):
        flow = denoiser(x, t).to("flow")
        assert isinstance(flow, Tensor)
        x = x + (s - t) * flow
    assert isinstance(got, Tensor) and float((got - x).abs().max()) < 1e-12


def test_ddim_is_eulers_method_in_the_noise_level_of_edm() -> None:
    schedule = VE()
    times, denoiser = random_times(9), mixture(Gaussian(schedule))
    x = 80 * randn(16, 2)
    got = Sampler(DDIM(), 9, Times(times))(denoiser, x).x
    sigmas = [*schedule.sigma(times[:-1]).tolist(), 0.0]
    for t, sigma, following in zip(times[:-1], sigmas[:-1], sigmas[1:], strict=True):
        x0 = denoiser(x, t).x0
        assert isinstance(x0, Tensor)
        x = x + (following - sigma) * (x - x0) / sigma
    assert isinstance(got, Tensor) and float((got - x).abs().max()) < 1e-12


def test_the_curve_does_not_matter_to_ddim() -> None:
    """On the same noise levels, the runs on two schedules end on the same data."""
    ends = []
    for schedule in (FLOW, Cosine(0.0), VE(1e-3, 50.0)):
        times = schedule.time(torch.linspace(-7.0, 7.0, 12, dtype=torch.float64))
        alpha, _ = schedule(times[0])
        x = alpha * (0.3 + math.exp(3.5) * randn(16, 2))
        grid = Times(torch.cat([times[:-1], torch.zeros(1)]))
        sampler = Sampler(Multistep(2), 11, grid, float(times[0]))
        end = sampler(mixture(Gaussian(schedule)), x).x
        assert isinstance(end, Tensor)
        ends.append(end)
    assert torch.allclose(ends[0], ends[1], rtol=0, atol=1e-10)
    assert torch.allclose(ends[0], ends[2], rtol=0, atol=1e-10)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_data_that_are_one_point_are_reached_exactly_in_any_number_of_steps(
    schedule: Schedule,
) -> None:
    x0 = randn(3, 2)
    process = Gaussian(schedule)
    for solver in SOLVERS:
        for steps in allowed(solver, 1, 2, 5):
            x = Sampler(solver, steps)(Knows(x0, process), randn(3, 2, seed=1)).x
            assert isinstance(x, Tensor) and torch.allclose(x, x0, rtol=0, atol=1e-10), solver


@pytest.mark.parametrize("factor", [1.0, 5.0, 30.0])
def test_heun_is_exact_on_one_point_from_almost_pure_noise(factor: float) -> None:
    """Just above pure noise the rule is another one; its end must not depend on the branch."""
    process = Gaussian(Polynomial().shift(factor))
    x0, sampler = randn(3, 2), Sampler(Heun(), 4, start=1.0, stop=0.5)
    alpha, sigma = process.schedule(1.0)
    noise = randn(3, 2, seed=1)
    end = sampler(Knows(x0, process), alpha * x0 + sigma * noise).x
    a, s = process.schedule(0.5)
    assert isinstance(end, Tensor)
    assert torch.allclose(end, a * x0 + s * noise, rtol=0, atol=1e-12)


@pytest.mark.parametrize("schedule", [FLOW, VP(), VE(), Cosine(), Polynomial()], ids=name)
def test_ancestral_sampling_is_the_first_order_solver_of_the_sde(schedule: Schedule) -> None:
    denoiser, x = mixture(Gaussian(schedule)), randn(16, 2)
    ends = [Sampler(s, 12)(denoiser, x, 5).x for s in (Ancestral(), Multistep(1, 1.0), DDIM(1.0))]
    assert all(isinstance(e, Tensor) for e in ends)
    for other in ends[1:]:
        assert float((ends[0] - other).abs().max()) < 1e-11  # type: ignore[operator]


def test_the_deterministic_first_order_solvers_are_one() -> None:
    denoiser, x = mixture(), randn(16, 2)
    a, b = (Sampler(s, 12)(denoiser, x).x for s in (DDIM(), Multistep(1)))
    assert isinstance(a, Tensor) and isinstance(b, Tensor)
    assert float((a - b).abs().max()) < 1e-12


@pytest.mark.parametrize("solver", [*DETERMINISTIC, *STOCHASTIC], ids=name)
@pytest.mark.parametrize("schedule", [FLOW, VP(), Cosine(), VE()], ids=name)
def test_the_error_falls_with_every_finer_grid(solver: Solver, schedule: Schedule) -> None:
    """From the prior to the data, the last step included; 256 steps are no special number."""
    variance, errors = 0.6, []
    for steps in (7, 12, 25, 50, 100, 128, 250, 256, 257):
        moments = gaussian_moments(Sampler(solver, steps, LogSNR()), schedule, variance=variance)
        errors.append(abs(moments[1] - variance))
    floor = math.exp(-8) + 2 * schedule.terminal_snr  # what the grid and the schedule cut off
    assert errors[-1] < 0.04
    for coarse, fine in zip(errors[:-1], errors[1:], strict=True):
        assert fine < coarse + floor


@pytest.mark.parametrize(("churn", "steps"), [(0.5, 10), (4.0, 10), (8.0, 10), (8.0, 1)])
def test_churn_raises_the_noise_by_edms_factor_which_is_bounded(churn: float, steps: int) -> None:
    schedule, t = VP(), 0.4
    lifted, end = Heun(churn).nodes(schedule, t, 0.3, steps, ())
    raised = 0.5 * float(schedule.log_snr(t) - schedule.log_snr(lifted))
    assert math.isclose(math.exp(raised), 1 + min(churn / steps, math.sqrt(2) - 1), rel_tol=1e-9)
    assert end == 0.3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DDIM(-0.1), "eta must lie between"),
        (lambda: DDIM(1.1), "eta must lie between"),
        (lambda: Heun(-1.0), "churn must not be negative"),
        (lambda: Multistep(4), "order must be 1, 2 or 3"),
        (lambda: Multistep(2, -0.5), "eta must not be negative"),
        (lambda: Ancestral(-1.0), "sigma_data must not be negative"),
        (lambda: EulerMaruyama(-1.0), "eta must not be negative"),
        (lambda: Singlestep(1), "order must be 2 or 3.*order 1 is DDIM"),
        (lambda: Singlestep(2, eta=-1.0), "eta must not be negative"),
        (lambda: UniPC(4), "p must be 1, 2 or 3"),
        (lambda: SASolver(0, 1), "predictor must be 1, 2 or 3"),
        (lambda: SASolver(1, 4), "corrector 0 .none., 1, 2 or 3"),
        (lambda: SASolver(2, 2, -0.1), "eta must not be negative"),
        (lambda: DEIS(5), "order must be 1, 2, 3 or 4"),
        (lambda: LMS(0), "order must be 1, 2, 3 or 4"),
        (lambda: ERSDE(4), "order must be 1, 2 or 3"),
        (lambda: Langevin(0), "corrections must be at least 1.*use DDIM"),
        (lambda: Langevin(rate=0.0), "rate must be positive"),
        (lambda: Langevin(eta=2.0), "eta must lie between"),
        (lambda: BDIA(0.0), "gamma must be positive"),
        (lambda: BDIA(1.5), "gamma must be positive and at most 1"),
        (lambda: Sampler(LMS(4), 3), "steps must be at least 4"),
        (lambda: Sampler(BDIA(), 1), "steps must be at least 2"),
        (lambda: Sampler(ERSDE(1, lambda rho: -rho), 4)(mixture(), randn(2, 2)), "must not fall"),
        (lambda: Sampler(DDIM(lambda l: 2.0), 4)(mixture(), randn(2, 2)), "eta must lie between"),
        (lambda: Sampler(Multistep(1, lambda l: -1.0), 4)(mixture(), randn(2, 2)), "not be negat"),
    ],
)
def test_settings_that_make_no_solver_are_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=message):
        make()


def test_unknown_keywords_are_refused() -> None:
    for call in (
        lambda: DDIM(etha=0.5),  # type: ignore[call-arg]
        lambda: Sampler(DDIM(), step=3),  # type: ignore[call-arg]
        lambda: Sampler(DDIM(), 3)(mixture(), randn(2, 2), time_steps=5),  # type: ignore[call-arg]
    ):
        with pytest.raises(TypeError, match="unexpected keyword"):
            call()
