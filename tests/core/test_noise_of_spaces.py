"""Every noise in a process run end to end: on exact denoisers solvers keep their order, and samples their law."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction, from_score
from sciffusion.grid import LogSNR
from sciffusion.layout import Dense
from sciffusion.noise import Noise
from sciffusion.objective import Objective
from sciffusion.oracle import Gaussian, PointCloud
from sciffusion.process import Gaussian as GaussianProcess
from sciffusion.process import Joint
from sciffusion.samplers import DDIM, Ancestral, Heun, Multistep, Sampler
from sciffusion.schedule import VP, RectifiedFlow
from sciffusion.solver import Solver
from sciffusion.space import BySize, Chain, Coloured, GaussianSpace, LinearSpace, StudentT, ZeroCoM
from sciffusion.state import State, Value
from sciffusion.testing import check_denoiser, check_process
from tests.core.cases import SPACES, in_every_layout, kind, randn

FLOW = RectifiedFlow()
START, STOP = float(FLOW.time(-8.0)), float(FLOW.time(6.0))
EACH = pytest.mark.parametrize(("space", "features"), SPACES, ids=kind)
NORMAL = pytest.mark.parametrize(
    ("space", "features"), [c for c in SPACES if isinstance(c[0], GaussianSpace)], ids=kind
)


def tensor(x: Value) -> Tensor:
    assert isinstance(x, Tensor)
    return x


def truth(space: GaussianSpace, shape: tuple[int, ...]) -> Gaussian:
    """Data with a mean and a correlated covariance of their own, in the space."""
    d = math.prod(shape)
    inside = space.project(torch.eye(d, dtype=torch.float64).reshape(d, *shape), Dense(d))
    inside = inside.reshape(d, d)  # row by row: a projection along the space's own angle
    factor = (torch.eye(d) + randn(d, d, seed=5) / d**0.5) @ inside * 0.7
    mean = randn(d, seed=6) @ inside
    return Gaussian(mean, factor.T @ factor, GaussianProcess(FLOW, space))


@NORMAL
@pytest.mark.parametrize("solver", [DDIM(), Multistep(2)], ids=kind)
def test_solvers_converge_with_their_order_to_the_exact_flow_under_any_noise(
    solver: Solver, space: GaussianSpace, features: tuple[int, ...]
) -> None:
    shape = (2, *features)
    oracle = truth(space, shape)
    x = space.prior(torch.zeros(3, *shape, dtype=torch.float64), Dense(3), Noise(0))
    exact, error = oracle.flow(x, START, STOP), []
    for steps in (60, 120):
        out = Sampler(solver, steps, LogSNR(), START, STOP)(oracle, x).x
        error.append(float((tensor(out) - exact).abs().max()))
        inside = space.project(tensor(out), Dense(3))
        assert torch.allclose(inside, tensor(out), rtol=0, atol=1e-9)
    assert abs(math.log2(error[0] / error[1]) - solver.order) < 0.2


@EACH
def test_processes_keep_their_contract_under_any_noise(
    space: LinearSpace, features: tuple[int, ...]
) -> None:
    for field, layout, _ in in_every_layout(features):
        check_process(Joint({"x": GaussianProcess(FLOW, space)}), State({"x": field}, layout))
    field = randn(3, 2, *features)
    check_process(GaussianProcess(VP(), space), field)


@pytest.mark.parametrize(
    ("space", "shape"),
    [
        (Coloured(lambda k: 1 / (0.1 + k), dims=1), (5,)),
        (Chain(0.8), (4, 1)),
        (ZeroCoM(BySize(2.0, -1 / 3)), (4, 1)),
    ],
    ids=kind,
)
@pytest.mark.parametrize("solver", [DDIM(1.0), Multistep(2, eta=1.0), Heun(churn=8.0)], ids=kind)
def test_noise_drawn_on_the_way_has_the_covariance_of_the_space(
    solver: Solver, space: GaussianSpace, shape: tuple[int, ...]
) -> None:
    oracle, n = truth(space, shape), 6000
    like = torch.zeros(n, *shape, dtype=torch.float64)
    start = oracle.process.prior(like, Noise(1))
    x = tensor(Sampler(solver, 60)(oracle, start, 2).x).flatten(1)
    size = oracle.cov.diagonal().max()
    assert torch.allclose(x.mean(0), oracle.mean, rtol=0, atol=5 * float(size / n) ** 0.5)
    off = torch.cov(x.T) - oracle.cov
    # the error of sampling, and that of 60 steps: second order in the variance for two of the solvers
    assert float(off.abs().max() / size) < 5 * (2 / n) ** 0.5 + 0.03


@NORMAL
def test_a_score_is_a_denoiser_under_any_noise(
    space: GaussianSpace, features: tuple[int, ...]
) -> None:
    shape = (2, *features)
    oracle, t = truth(space, shape), torch.tensor(0.4, dtype=torch.float64)
    x = space.project(randn(3, *shape), Dense(3))
    again = from_score(lambda v, t: tensor(oracle(v, t).to("score")), oracle.mixture.process)  # type: ignore[arg-type]
    assert torch.allclose(tensor(again(x, t).x0), tensor(oracle(x, t).x0), rtol=0, atol=1e-9)
    y = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(oracle.log_prob(y, t).sum(), y)
    # any covector that agrees on the space gives the same displacement: so may the gradient of a classifier
    got, want = (
        space.covariance(v, Dense(3)) for v in (tensor(oracle(x, t).to("score")), gradient)
    )
    assert torch.allclose(got, want, rtol=1e-8, atol=1e-8)


@EACH
def test_a_denoiser_that_knows_its_data_has_no_loss_under_any_noise(
    space: LinearSpace, features: tuple[int, ...]
) -> None:
    process, x0 = GaussianProcess(FLOW, space), randn(4, 2, *features)
    x0 = space.project(x0, Dense(4))
    noised = process.perturb(x0, torch.full((4,), 0.5), Noise(0))
    for target in ("x0", "eps", "v", "flow"):
        objective = Objective(process, target=target)
        exact = objective.compare(Prediction(x0, noised.x_t, noised.t, process), noised)
        assert float(exact.mean) < 1e-18
        # an error that is a draw of the noise costs 1 per degree of freedom
        e = space.prior(x0, Dense(4), Noise(9))
        off = Objective(process, target="x0").compare(
            Prediction(x0 + e, noised.x_t, noised.t, process), noised
        )
        want = space.norm2(e, Dense(4)) / space.dof(e, Dense(4))
        assert torch.allclose(off.per_sample, want, rtol=1e-9)


@pytest.mark.parametrize("scale", [1.0, BySize(1.5, -1 / 3)], ids=kind)
def test_point_clouds_of_any_sizes_follow_their_exact_flow(scale: float | BySize) -> None:
    process = Joint({"x": GaussianProcess(FLOW, ZeroCoM(scale))})
    oracle = PointCloud(0.6, process, "x")
    for field, layout, _ in in_every_layout():
        state = State({"x": layout.clean(field)}, layout)
        check_denoiser(oracle, state)
        start = process.prior(state, Noise(0))
        error = []
        for steps in (80, 160):
            x = Sampler(Multistep(2), steps, LogSNR(), START, STOP)(oracle, start).x
            exact = oracle.flow(start, START, STOP)
            assert isinstance(x, State) and isinstance(exact, State)
            error.append(float((x["x"] - exact["x"]).abs().max()))
        assert abs(math.log2(error[0] / error[1]) - 2) < 0.15


class _Few(Denoiser):
    """The exact denoiser of a few points on a line under Student noise: their mean, by the density of the noise."""

    def __init__(self, points: Tensor, space: StudentT) -> None:
        super().__init__()
        self.points, self.space, self.process = points, space, GaussianProcess(FLOW, space)

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        x = tensor(x_t)
        alpha, sigma = self.process.clock(t)
        e = (x - alpha * self.points) / sigma
        log_p = self.space.log_prior(e.reshape(-1, 1), Dense(e.numel())).reshape(e.shape)
        return Prediction(log_p.softmax(1) @ self.points[:, None], x_t, t, self.process)


POINTS, HEAVY = torch.tensor([-1.0, 0.2, 1.5], dtype=torch.float64), StudentT(4.0, 0.8)


@pytest.mark.parametrize("solver", [DDIM(), Multistep(2), Heun()], ids=kind)
def test_deterministic_solvers_carry_heavy_tails_along_their_exact_flow(solver: Solver) -> None:
    """On a line the flow keeps every quantile, and the marginals' distribution functions are known."""
    stats, optimize = pytest.importorskip("scipy.stats"), pytest.importorskip("scipy.optimize")
    start, stop = 0.95, 0.3

    def cdf(x: float, t: float) -> float:
        alpha, sigma = (float(c) for c in FLOW(t))
        return float(stats.t.cdf((x - alpha * POINTS.numpy()) / (0.8 * sigma), 4.0).mean())

    oracle, x = _Few(POINTS, HEAVY), torch.linspace(-6, 6, 9, dtype=torch.float64)[:, None]
    quantiles = [cdf(float(v), start) for v in x]
    exact = [
        optimize.brentq(lambda y, q=q: cdf(y, stop) - q, -60, 60, xtol=1e-13) for q in quantiles
    ]
    error = []
    for steps in (100, 200):
        out = tensor(Sampler(solver, steps, LogSNR(), start, stop)(oracle, x).x)
        error.append(float((out[:, 0] - torch.tensor(exact).double()).abs().max()))
    assert abs(math.log2(error[0] / error[1]) - solver.order) < 0.15


@pytest.mark.parametrize("solver", [Ancestral(), DDIM(0.5), Heun(churn=3.0)], ids=kind)
def test_stochastic_solvers_refuse_heavy_tails(solver: Solver) -> None:
    with pytest.raises(ValueError, match="stochastic solver .* needs Gaussian noise, and StudentT"):
        Sampler(solver, 5)(_Few(POINTS, HEAVY), randn(2, 1))


def test_scores_of_heavy_tails_are_refused() -> None:
    process, x = GaussianProcess(FLOW, HEAVY), randn(2, 1)
    for src, dst in (("score", "x0"), ("x0", "score")):
        with pytest.raises(ValueError, match="a score needs Gaussian noise"):
            process.convert(x, x, torch.tensor(0.5), Dense(2), src=src, dst=dst)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a score needs Gaussian noise"):
        process.target_weight("score", torch.tensor(0.5))
    with pytest.raises(ValueError, match="Gaussian noise"):
        Gaussian(torch.zeros(1), torch.eye(1), process)(x, torch.tensor(0.5))
