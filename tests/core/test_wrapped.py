"""Wrapped Gaussian noise on circles, against its own sum over images, a closed flow, and the flat process."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction, from_flow, from_score
from sciffusion.grid import LogSNR, Times
from sciffusion.layout import Dense
from sciffusion.noise import Noise
from sciffusion.objective import MinSNR, Objective, UniformTimes
from sciffusion.oracle import Gaussian as GaussianOracle
from sciffusion.oracle_manifold import Cardioid
from sciffusion.process import Gaussian, Joint, Process, Target, Wrapped
from sciffusion.samplers import DDIM, Heun, Multistep, Sampler
from sciffusion.schedule import VE, RectifiedFlow
from sciffusion.solver import Solver
from sciffusion.space import Torus
from sciffusion.state import State, Value
from sciffusion.testing import Knows, check_denoiser, check_process
from tests.core.cases import (
    SOLVERS,
    STOCHASTIC,
    default_dtype,
    in_every_layout,
    name,
    packed,
    padded,
    randn,
)

NOISE = VE(0.002, 3.0)
TARGETS: tuple[Target, ...] = ("x0", "eps", "v", "flow", "score")


def tensor(x: Value) -> Tensor:
    assert isinstance(x, Tensor)
    return x


def at(t: float) -> Tensor:
    return torch.tensor(t, dtype=torch.float64)


def uniform(n: int, period: float = 1.0, seed: int = 0) -> Tensor:
    return Torus(period).prior(torch.zeros(n, 1, dtype=torch.float64), Dense(n), Noise(seed))


def gap(space: Torus, x: Value, y: Value) -> float:
    return float(space.dist2(tensor(x), tensor(y)).max().sqrt())


@pytest.mark.parametrize("period", [1.0, 2 * math.pi, torch.tensor([1.0, 2.0, 0.5])], ids=name)
def test_the_process_keeps_its_contract_in_every_layout(period: float | Tensor) -> None:
    process = Wrapped(VE(0.002, 4.0), Torus(period))
    for field, layout, _ in in_every_layout((3,)):
        check_process(Joint({"x": process}), State({"x": field}, layout))
    with default_dtype(torch.float32):
        check_process(process, randn(3, 3).float())


@pytest.mark.parametrize("period", [1.0, 2 * math.pi])
def test_the_way_to_the_data_is_the_score_of_a_sum_over_many_images(period: float) -> None:
    process = Wrapped(VE(0.002 * period, 3.0 * period), Torus(period))
    x0, x_t = uniform(200, period), uniform(200, period, 1)
    for level in (0.003, 0.03, 0.1, 0.2, 0.3, 0.39, 0.41, 0.6, 1.0, 2.0):
        sigma = level * period
        t = process.schedule.time(-2 * math.log(sigma))
        moving = x_t.clone().requires_grad_()
        images = moving - x0 + period * torch.arange(-30, 31).double()
        log_p = torch.logsumexp(-0.5 * (images / sigma) ** 2, -1)
        (score,) = torch.autograd.grad(log_p.sum(), moving)
        got = process.direction(x_t, x0, t, Dense(200))
        assert torch.allclose(got, sigma**2 * score, rtol=1e-9, atol=1e-11 * period)
        assert float(got.abs().max()) < 0.5 * period


def test_the_way_to_the_data_is_the_regression_on_the_noise() -> None:
    process, n = Wrapped(NOISE, Torus()), 100_000
    x0 = Torus().project(0.2 * randn(n, 1, seed=2), Dense(n))
    for level in (0.1, 0.3, 0.6):
        t = NOISE.time(-2 * math.log(level))
        noised = process.perturb(x0, t, Noise(1))
        x_t, eps = tensor(noised.x_t), tensor(noised.eps)
        left = -level * eps - process.direction(x_t, x0, t, Dense(n))
        for k in (0, 1, 2):
            for wave in (torch.cos(2 * math.pi * k * (x_t - x0)), torch.sin(2 * math.pi * k * x_t)):
                product = left * wave
                assert abs(float(product.mean())) < 5 * float(product.std()) / math.sqrt(n) + 1e-12


@pytest.mark.parametrize(
    ("solver", "order"), [(DDIM(), 1), (Heun(), 2), (Multistep(2), 2), (Multistep(3), 3)], ids=name
)
@pytest.mark.parametrize("period", [1.0, 2 * math.pi])
def test_solvers_keep_their_order_on_circles(solver: Solver, order: int, period: float) -> None:
    oracle = Cardioid(0.7, Wrapped(VE(0.002 * period, 3.0 * period), Torus(period)))
    x, errors = uniform(7, period), []
    stop = float(oracle.schedule.time(-2 * math.log(0.02 * period)))
    start = float(oracle.schedule.time(-2 * math.log(0.5 * period)))
    want = oracle.flow(x, start, stop)
    for steps in (60, 120):
        got = Sampler(solver, steps, LogSNR(), start, stop)(oracle, x).x
        errors.append(float(Torus(period).dist2(tensor(got), want).mean().sqrt()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.3)


@pytest.mark.parametrize("solver", [DDIM(), *STOCHASTIC], ids=name)
def test_runs_from_the_prior_give_the_data(solver: Solver) -> None:
    oracle, n = Cardioid(0.8, Wrapped(NOISE, Torus())), 10_000
    start = oracle.process.prior(torch.zeros(n, 1, dtype=torch.float64), Noise(0))
    x = tensor(Sampler(solver, 100)(oracle, start, 1).x)
    for q in (0.1, 0.25, 0.5, 0.7):
        want = float(oracle.share(at(q), 0.0))
        assert float((x < q).double().mean()) == pytest.approx(want, abs=0.03)


class Around(Denoiser):
    """A denoiser of flat data, whose predictions are wrapped; noised values are unwrapped around zero."""

    def __init__(self, inner: Denoiser, process: Wrapped) -> None:
        super().__init__()
        self.inner, self.process, self.space = inner, process, process.space

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        x = tensor(x_t)
        x0 = tensor(self.inner(self.space.log(torch.zeros_like(x), x), t).x0)
        return Prediction(self.space.project(x0, Dense(len(x))), x_t, t, self.process)


@pytest.mark.parametrize("solver", SOLVERS, ids=name)
def test_where_noise_does_not_reach_around_it_is_the_flat_process(solver: Solver) -> None:
    schedule, space = VE(0.01, 600.0), Torus(1000.0)
    flat, wrapped = Gaussian(schedule), Wrapped(schedule, space)
    oracle = GaussianOracle(torch.ones(2).double(), torch.diag(torch.tensor([0.5, 2.0])), flat)
    start = float(schedule.time(-2 * math.log(5.0)))
    x = 5 * randn(6, 2)
    sampler = Sampler(solver, max(6, solver.fewest), start=start)
    want = sampler(oracle, x, 3).x
    got = sampler(Around(oracle, wrapped), space.project(x, Dense(6)), 3).x
    assert gap(space, got, space.project(tensor(want), Dense(6))) < 1e-9


def test_every_sample_may_follow_its_own_grid() -> None:
    oracle, x = Cardioid(0.7, Wrapped(NOISE, Torus())), uniform(2)
    grids = [torch.tensor([1.0, 0.8, 0.4, 0.0]), torch.tensor([1.0, 0.5, 0.1, 0.0])]
    for solver in (DDIM(), DDIM(1.0), Multistep(2)):
        each = [
            tensor(Sampler(solver, 3, Times(g))(oracle, x[i : i + 1], [i]).x)
            for i, g in enumerate(grids)
        ]
        both = tensor(Sampler(solver, 3, Times(torch.stack(grids)))(oracle, x, [0, 1]).x)
        assert gap(Torus(), both, torch.cat(each)) < 1e-9


def test_the_score_is_the_gradient_of_the_marginal_and_every_target_comes_back() -> None:
    oracle = Cardioid(0.7, Wrapped(NOISE, Torus(2.0)))
    process = oracle.process
    assert isinstance(process, Wrapped)
    x, t = uniform(9, 2.0), torch.linspace(0.3, 0.9, 9).double()
    prediction = oracle(x, t)
    for i in range(9):
        moving = x[i].clone().requires_grad_()
        (p,) = torch.autograd.grad(oracle.share(moving, float(t[i])), moving, create_graph=True)
        (gradient,) = torch.autograd.grad(p.log(), moving)
        assert torch.allclose(tensor(prediction.to("score"))[i], gradient, atol=1e-9)
    for target in TARGETS:
        said = tensor(prediction.to(target))
        back = process.read(said, x, t, Dense(9), target)
        assert gap(Torus(2.0), back, prediction.x0) < 1e-9
    score, flow = tensor(prediction.to("score")), tensor(prediction.to("flow"))
    for made in (from_score(lambda x, t: score, process), from_flow(lambda x, t: flow, process)):
        assert gap(Torus(2.0), made(x, t).x0, prediction.x0) < 1e-9
    # the flow moves along the closed one
    one, h = at(0.5), 1e-4
    ahead, behind = (oracle.flow(x, 0.5, 0.5 + s * h) for s in (1, -1))
    moved = Torus(2.0).log(behind, ahead) / (2 * h)
    assert torch.allclose(tensor(oracle(x, one).to("flow")), moved, atol=1e-5)


class Off(Denoiser):
    """The exact denoiser, off by a little that depends on the place; it keeps by how much."""

    def __init__(self, oracle: Cardioid, by: float) -> None:
        super().__init__()
        self.process: Process = oracle.process
        self.oracle, self.by = oracle, by
        self.off = torch.zeros(())

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        x0 = tensor(self.oracle(x_t, t).x0)
        self.off = self.by * torch.sin(2 * math.pi * tensor(x_t))
        return Prediction(Torus().exp(x0, self.off), x_t, t, self.process)


@pytest.mark.parametrize("target", TARGETS)
def test_the_exact_denoiser_has_the_least_loss(target: Target) -> None:
    """Being off by b adds w b^2 on average: the cross term with the error of the oracle vanishes everywhere."""
    oracle, n = Cardioid(0.8, Wrapped(NOISE, Torus())), 20_000
    x0 = oracle.flow(uniform(n, seed=5), 1.0, 0.0)
    objective = Objective(oracle.process, target, times=UniformTimes(0.4, 0.9))
    best = objective(oracle, x0, noise=Noise(0))
    sigma, rate = NOISE.sigma(best.t), NOISE.rates(best.t)[1]
    weights = {"x0": sigma**0, "score": sigma**-4, "flow": (rate / sigma) ** 2}
    for by in (0.02, -0.02):
        off = Off(oracle, by)
        added = objective(off, x0, noise=Noise(0)).per_sample - best.per_sample
        want = float((weights.get(target, sigma**-2) * off.off[:, 0] ** 2).mean())
        assert abs(float(added.mean()) - want) < 5 * float(added.std()) / math.sqrt(n)


def test_losses_and_denoisers_know_no_other_sample_nor_padding() -> None:
    process = Joint({"x": Wrapped(NOISE, Torus())})
    samples = [uniform(n, seed=n) for n in (4, 1, 3)]
    t, losses = torch.tensor([0.2, 0.5, 0.8]), []
    for x, layout in (padded(samples), packed(samples)):
        noised = process.perturb(State({"x": x}, layout), t, Noise([1, 2, 3]))
        wrong = process.prior(noised.x0, Noise([3, 2, 1]))
        prediction = Prediction(wrong, noised.x_t, t, process)
        losses.append(Objective(process, "flow", MinSNR()).compare(prediction, noised).per_sample)
    assert torch.allclose(losses[0], losses[1], rtol=1e-9)
    check_denoiser(Cardioid(0.5, Wrapped(NOISE, Torus())), uniform(4))
    knows = Knows(uniform(4), Wrapped(NOISE, Torus()))
    assert (
        float(
            Objective(knows.process, times=UniformTimes(0.0, 0.4))(
                knows, knows.x0, noise=Noise(0)
            ).mean
        )
        < 1e-9
    )


def test_combining_follows_the_shorter_way() -> None:
    process = Wrapped(NOISE, Torus())
    a, b = at(0.9)[None, None], at(0.1)[None, None]
    assert gap(Torus(), process.combine((0.5, 0.5), (a, b)), torch.zeros_like(a)) < 1e-12
    assert gap(Torus(), process.combine((2.0, -1.0), (a, b)), at(0.7)[None, None]) < 1e-12


def test_schedules_that_fade_the_data_or_end_too_early_are_refused() -> None:
    with pytest.raises(ValueError, match="leaves alpha at 1"):
        Wrapped(RectifiedFlow(), Torus())
    with pytest.raises(ValueError, match="not uniform yet; let it end at 3.14159 or more"):
        Wrapped(VE(0.01, 1.0), Torus(2 * math.pi))
    with pytest.raises(ValueError, match="not uniform yet"):
        Wrapped(VE(0.01, 0.45), Torus())
    Wrapped(VE(0.01, math.pi), Torus(2 * math.pi))
