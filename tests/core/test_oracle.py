"""The exact denoisers, against closed forms, integrals and regressions on finite samples."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sciffusion.layout import Dense
from sciffusion.noise import Noise
from sciffusion.oracle import Categorical, Gaussian, Mixture, PointCloud
from sciffusion.process import Gaussian as GaussianProcess
from sciffusion.process import Joint, Jump
from sciffusion.schedule import VE, VP, Cosine, RectifiedFlow, Schedule
from sciffusion.space import BySize, Euclidean, GaussianSpace, ZeroCoM
from sciffusion.space import Categorical as CategoricalSpace
from sciffusion.state import State, Value
from tests.core.cases import SCHEDULES, in_every_layout, mixture, name, packed, padded, randn

FLOW = RectifiedFlow()
MEAN = torch.tensor([0.5, -1.0], dtype=torch.float64)
COV = torch.tensor([[0.5, 0.3], [0.3, 0.4]], dtype=torch.float64)
EYE = torch.eye(2, dtype=torch.float64)
TIMES = (0.05, 0.4, 0.8, 0.99)


def at(t: float) -> Tensor:
    return torch.tensor(t, dtype=torch.float64)


def tensor(x: Value) -> Tensor:
    assert isinstance(x, Tensor)
    return x


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_the_posterior_mean_of_a_gaussian_is_the_closed_form(schedule: Schedule) -> None:
    oracle, x, eye = Gaussian(MEAN, COV, GaussianProcess(schedule)), randn(6, 2), EYE
    for t in TIMES:
        alpha, sigma = schedule(t)
        gain = alpha * COV @ torch.linalg.inv(alpha**2 * COV + sigma**2 * eye)
        want = MEAN + (x - alpha * MEAN) @ gain.T
        assert torch.allclose(tensor(oracle(x, at(t)).x0), want, rtol=1e-9)


@pytest.mark.parametrize("schedule", [FLOW, VP(), VE()], ids=name)
def test_the_posterior_mean_of_a_mixture_is_the_integral(schedule: Schedule) -> None:
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    means, spread = torch.tensor([-1.0, 0.8]).double(), torch.tensor([0.2, 0.5]).double()
    oracle = Mixture(weights, means[:, None], spread[:, None, None] ** 2, GaussianProcess(schedule))
    grid = torch.linspace(-5, 5, 20001, dtype=torch.float64)
    prior = (weights * torch.distributions.Normal(means, spread).log_prob(grid[:, None]).exp()).sum(
        1
    )
    for t in (0.2, 0.5, 0.9):
        alpha, sigma = schedule(t)
        for value in (-1.3, 0.1, 2.0):
            x = alpha * value
            posterior = prior * torch.distributions.Normal(alpha * grid, sigma).log_prob(x).exp()
            want = (grid * posterior).sum() / posterior.sum()
            got = tensor(oracle(x.reshape(1, 1), at(t)).x0)
            assert float(got) == pytest.approx(float(want), abs=1e-7)


def test_the_posterior_mean_over_points_is_their_weighted_mean() -> None:
    points, schedule = randn(30, 2, seed=4), Cosine()
    n = len(points)
    weights, covs = (
        torch.full((n,), 1 / n, dtype=torch.float64),
        torch.zeros(n, 2, 2, dtype=torch.float64),
    )
    oracle, x = Mixture(weights, points, covs, GaussianProcess(schedule)), randn(5, 2)
    for t in TIMES:
        alpha, sigma = schedule(t)
        distance = torch.cdist(x, alpha * points) ** 2
        want = (-distance / (2 * sigma**2)).softmax(1) @ points
        got = tensor(oracle(x, at(t)).x0)
        assert torch.allclose(got, want, rtol=0, atol=1e-9)


@pytest.mark.parametrize("schedule", [FLOW, VP(), VE(0.01, 10.0)], ids=name)
def test_the_oracle_is_what_a_regression_on_samples_finds(schedule: Schedule) -> None:
    """Noise drawn data, keep those that land near x, average: Nadaraya and Watson."""
    oracle = mixture(GaussianProcess(schedule))
    x0 = oracle.sample(400_000, torch.Generator().manual_seed(0))
    for t, value in ((0.5, (0.3, 0.2)), (0.7, (-0.5, 0.4))):
        alpha, sigma = (float(c) for c in schedule(t))
        time = torch.tensor(t, dtype=torch.float64)
        x_t = tensor(oracle.process.perturb(x0, time, Noise(1)).x_t)
        x = alpha * torch.tensor([value], dtype=torch.float64)
        near = ((x_t - x).norm(dim=1) < 0.1 * math.hypot(alpha, sigma)).nonzero()[:, 0]
        error = x0[near].std(0) / len(near) ** 0.5
        want = tensor(oracle(x_t[near], time).x0).mean(0)  # at the very values that were kept
        assert len(near) > 300 and bool(((x0[near].mean(0) - want).abs() < 4.5 * error).all())


def test_the_score_of_a_mixture_is_the_gradient_of_its_log_density() -> None:
    for schedule in (FLOW, VP(), VE()):
        oracle, x = mixture(GaussianProcess(schedule)), randn(6, 2).requires_grad_()
        for t in TIMES:
            alpha, sigma = schedule(t)
            covs = alpha**2 * oracle.covs + sigma**2 * EYE
            modes = torch.distributions.MultivariateNormal(alpha * oracle.means, covs)
            log_p = (modes.log_prob(x[:, None]) + oracle.weights.log()).logsumexp(1).sum()
            (want,) = torch.autograd.grad(log_p, x)
            with torch.no_grad():
                got = tensor(oracle(x, at(t)).to("score"))
            assert torch.allclose(got, want, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_the_closed_flow_is_the_integral_of_the_predicted_flow(schedule: Schedule) -> None:
    oracle, x, h = Gaussian(MEAN, COV, GaussianProcess(schedule)), randn(6, 2), 1e-5
    assert torch.allclose(oracle.flow(x, 0.7, 0.7), x)
    there = oracle.flow(oracle.flow(x, 0.7, 0.4), 0.4, 0.2)
    assert torch.allclose(there, oracle.flow(x, 0.7, 0.2), rtol=1e-9)
    slope = (oracle.flow(x, 0.5, 0.5 + h) - oracle.flow(x, 0.5, 0.5 - h)) / (2 * h)
    flow = tensor(oracle(x, at(0.5)).to("flow"))
    assert torch.allclose(slope, flow, rtol=1e-5, atol=1e-6)


def test_the_flow_carries_the_marginal_of_one_time_to_that_of_another() -> None:
    schedule = VP()
    oracle = Gaussian(MEAN, COV, GaussianProcess(schedule))

    def marginal(t: float) -> tuple[Tensor, Tensor]:
        alpha, sigma = schedule(t)
        return alpha * MEAN, alpha**2 * COV + sigma**2 * EYE

    (m_t, c_t), (m_s, c_s) = marginal(0.8), marginal(0.1)
    end = oracle.flow(m_t + torch.cat([torch.zeros(1, 2), torch.linalg.cholesky(c_t).T]), 0.8, 0.1)
    columns = (end[1:] - end[0]).T
    assert torch.allclose(end[0], m_s) and torch.allclose(columns @ columns.T, c_s)


def test_a_time_for_each_sample_is_a_loop_over_the_samples() -> None:
    oracle, x, t = mixture(), randn(3, 2), torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    want = torch.cat([tensor(oracle(x[i : i + 1], t[i]).x0) for i in range(3)])
    assert torch.allclose(tensor(oracle(x, t).x0), want, rtol=0, atol=1e-14)


def test_fields_with_schedules_of_their_own_are_one_correlated_gaussian() -> None:
    process = Joint({"a": GaussianProcess(FLOW), "b": GaussianProcess(VE())})
    oracle = Gaussian(MEAN, COV, process)
    x = State({"a": randn(4, 1), "b": randn(4, 1, seed=1)}, Dense(4))
    t = torch.tensor(0.3, dtype=torch.float64)
    alpha = torch.stack([FLOW.alpha(t), VE().alpha(t)])
    sigma = torch.stack([FLOW.sigma(t), VE().sigma(t)])
    marginal = alpha[:, None] * COV * alpha + torch.diag(sigma**2)
    off = torch.cat([x["a"], x["b"]], 1) - alpha * MEAN
    want = MEAN + off @ (COV * alpha @ torch.linalg.inv(marginal)).T
    got = oracle(x, t).x0
    assert isinstance(got, State)
    assert torch.allclose(torch.cat([got["a"], got["b"]], 1), want, rtol=1e-10)


def test_samples_of_a_mixture_have_its_moments() -> None:
    oracle = mixture()
    x = oracle.sample(100_000, torch.Generator().manual_seed(0))
    w, m = oracle.weights[:, None], oracle.means
    mean = (w * m).sum(0)
    second = (w[..., None] * (oracle.covs + m[:, :, None] * m[:, None, :])).sum(0)
    assert torch.allclose(x.mean(0), mean, rtol=0, atol=0.02)
    assert torch.allclose(x.T @ x / len(x), second, rtol=0, atol=0.03)


def test_the_prediction_has_the_dtype_and_shape_of_the_value() -> None:
    x = torch.zeros(3, 2, 1)
    x0 = tensor(mixture()(x, torch.tensor(0.5)).x0)
    assert x0.dtype == torch.float32 and x0.shape == x.shape


@pytest.mark.parametrize("absorbing", [False, True])
def test_the_posterior_of_classes_is_bayes_rule(absorbing: bool) -> None:
    probs = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    process = Jump(Cosine(), CategoricalSpace(3, absorbing))
    times = torch.tensor([0.2, 0.7], dtype=torch.float64)
    states = torch.arange(3 + absorbing).repeat(2, 1)
    p0 = tensor(Categorical(probs, process)(states, times).x0)
    for t, row in zip(times, p0, strict=True):
        keep = float(Cosine().alpha(t))
        for state, got in enumerate(row):
            if absorbing:
                likelihood = torch.ones(3).double() if state == 3 else torch.eye(3).double()[state]
            else:
                likelihood = keep * torch.eye(3).double()[state] + (1 - keep) / 3
            want = probs * likelihood / (probs * likelihood).sum()
            assert torch.allclose(got.double(), want, rtol=0, atol=1e-6)


def test_what_is_no_law_of_the_classes_is_refused() -> None:
    process = Jump(FLOW, CategoricalSpace(3))
    for probs in (torch.full((2,), 0.5), torch.full((3,), 0.5), torch.tensor([1.5, -0.5, 0.0])):
        with pytest.raises(ValueError, match="probs must be 3 probabilities that sum to 1"):
            Categorical(probs, process)
    with pytest.raises(ValueError, match="process must jump in the field None"):
        Categorical(torch.full((3,), 1 / 3), GaussianProcess(FLOW))


def test_the_posterior_of_packed_classes_uses_the_time_of_their_sample() -> None:
    probs = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    joint = Joint({"k": Jump(FLOW, CategoricalSpace(3))})
    x, layout = packed([torch.tensor([0, 1]), torch.tensor([2])])
    times = torch.tensor([0.2, 0.7], dtype=torch.float64)
    p0 = Categorical(probs, joint, "k")(State({"k": x}, layout), times).x0
    plain = Categorical(probs, Jump(FLOW, CategoricalSpace(3)))
    want = [plain(x[None, :2], times[0]).x0, plain(x[None, 2:], times[1]).x0]
    assert isinstance(p0, State)
    assert torch.allclose(p0["k"], torch.cat([tensor(w)[0] for w in want]))


@pytest.mark.parametrize(
    ("weights", "means", "covs", "message"),
    [
        ([1.0], (2, 1), (2, 1, 1), "need weights"),
        ([0.5, 0.5], (2, 2), (2, 1, 1), "need weights"),
        ([0.5, 0.6], (2, 1), (2, 1, 1), "sum to 1"),
        ([1.5, -0.5], (2, 1), (2, 1, 1), "positive"),
    ],
)
def test_what_is_no_mixture_is_refused(
    weights: list[float], means: tuple[int, ...], covs: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Mixture(torch.tensor(weights), torch.zeros(means), torch.ones(covs), GaussianProcess(FLOW))


NOISES: list[GaussianSpace] = [
    Euclidean(0.7),
    Euclidean(torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)),
    ZeroCoM(1.3),
]


def spread_data(space: GaussianSpace, n: int = 4, d: int = 3) -> tuple[Tensor, Tensor]:
    """A mean and a correlated covariance of n points in d dimensions, in the space."""
    keep = space.project(torch.eye(n * d, dtype=torch.float64).reshape(-1, n, d), Dense(n * d))
    keep = keep.reshape(n * d, n * d)
    factor = randn(n * d, n * d, seed=5) / 3 + torch.eye(n * d)
    return keep @ randn(n * d, seed=6), keep @ factor @ factor.T @ keep


@pytest.mark.parametrize("space", NOISES, ids=name)
def test_the_score_under_any_noise_is_the_gradient_of_the_exact_density(
    space: GaussianSpace,
) -> None:
    oracle = Gaussian(*spread_data(space), GaussianProcess(VP(), space))
    x = space.project(randn(5, 4, 3), Dense(5)).requires_grad_()
    for t in TIMES:
        (want,) = torch.autograd.grad(oracle.log_prob(x, t).sum(), x)
        with torch.no_grad():
            got = tensor(oracle(x, at(t)).to("score"))
        assert torch.allclose(space.project(got, Dense(5)), want, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("space", NOISES, ids=name)
def test_the_closed_flow_under_any_noise_is_the_integral_of_the_predicted_flow(
    space: GaussianSpace,
) -> None:
    oracle = Gaussian(*spread_data(space), GaussianProcess(FLOW, space))
    x, h = space.project(randn(5, 4, 3), Dense(5)), 1e-5
    there = oracle.flow(oracle.flow(x, 0.7, 0.4), 0.4, 0.2)
    assert torch.allclose(there, oracle.flow(x, 0.7, 0.2), rtol=1e-9)
    slope = (oracle.flow(x, 0.5, 0.5 + h) - oracle.flow(x, 0.5, 0.5 - h)) / (2 * h)
    assert torch.allclose(slope, tensor(oracle(x, at(0.5)).to("flow")), rtol=1e-5, atol=1e-6)


def test_a_density_without_a_time_is_that_of_the_data() -> None:
    oracle, x = mixture(), randn(5, 2)
    modes = torch.distributions.MultivariateNormal(oracle.means, oracle.covs)
    want = (modes.log_prob(x[:, None]) + oracle.weights.log()).logsumexp(1)
    assert torch.allclose(oracle.log_prob(x), want, rtol=1e-12)
    assert torch.allclose(oracle.log_prob(x, 1e-12), want, rtol=1e-9)


def test_a_time_for_each_element_is_a_time_for_each_of_independent_coordinates() -> None:
    means, covs = torch.tensor([0.5, -1.0]).double(), torch.tensor([0.5, 0.4]).double()
    oracle, x = Gaussian(means, torch.diag(covs), GaussianProcess(FLOW)), randn(3, 2)
    t = torch.tensor([[0.2, 0.5], [0.9, 0.1], [0.3, 0.3]], dtype=torch.float64)
    got = tensor(oracle(x, t).x0)
    for i in range(2):
        alone = Gaussian(means[i : i + 1], covs[i].reshape(1, 1), GaussianProcess(FLOW))
        assert torch.allclose(got[:, i : i + 1], tensor(alone(x[:, i : i + 1], t[:, i]).x0))


def test_fields_that_the_dense_oracle_cannot_know_are_refused() -> None:
    x, layout = packed([randn(2, 1), randn(1, 1)])
    state = State({"a": x}, layout)
    joint = Joint({"a": GaussianProcess(FLOW)})
    with pytest.raises(ValueError, match="dense fields with Gaussian noise; field 'a'"):
        Gaussian(MEAN, COV, joint)(state, at(0.5))


@pytest.mark.parametrize("scale", [1.0, 0.7, BySize(1.5, -1 / 3)], ids=name)
def test_the_point_cloud_is_the_gaussian_with_its_covariance_in_every_layout(
    scale: float | BySize,
) -> None:
    space, schedule = ZeroCoM(scale), VP()
    for field, layout, samples in in_every_layout():
        process = Joint({"x": GaussianProcess(schedule, space)})
        oracle = PointCloud(1.4, process, "x")
        state = State({"x": field}, layout)
        t = torch.linspace(0.1, 0.9, len(samples), dtype=torch.float64)
        got = oracle(state, t).x0
        assert isinstance(got, State)
        density, clean = oracle.log_prob(state, t), oracle.log_prob(state)
        parts = []
        for i, x in enumerate(samples):
            d = x.numel()
            units = torch.eye(d, dtype=torch.float64).reshape(d, *x.shape)
            cov = ZeroCoM(1.4).covariance(units, Dense(d)).reshape(d, d)
            mean = torch.zeros(d, dtype=torch.float64)
            one = Gaussian(mean, cov, GaussianProcess(schedule, space))
            parts.append((x - x.mean(0)) * 0 if len(x) == 1 else tensor(one(x[None], t[i]).x0)[0])
            if len(x) == 1:
                assert float(density[i]) == float(clean[i]) == 0.0
                continue
            assert float(density[i]) == pytest.approx(float(one.log_prob(x[None], t[i])), rel=1e-9)
            want = oracle.data.log_prior((x - x.mean(0))[None], Dense(1))
            assert float(clean[i]) == pytest.approx(float(want), rel=1e-9)
        want = layout.clean(layout.assemble(parts, field))
        assert torch.allclose(layout.clean(got["x"]), want, rtol=1e-9, atol=1e-12)


def test_the_flow_of_a_point_cloud_is_that_of_the_gaussian_and_leaves_other_fields() -> None:
    space, samples = ZeroCoM(BySize(0.8, -1 / 3)), [randn(4, 3), randn(4, 3, seed=1)]
    x, layout = padded(samples)
    process = Joint({"x": GaussianProcess(FLOW, space), "y": GaussianProcess(FLOW)})
    state = State({"x": x, "y": x}, layout)
    got = PointCloud(1.4, process, "x").flow(state, 0.8, 0.2)
    assert isinstance(got, State) and got["y"] is x
    units = torch.eye(12, dtype=torch.float64).reshape(12, 4, 3)
    cov = ZeroCoM(1.4).covariance(units, Dense(12)).reshape(12, 12)
    one = Gaussian(torch.zeros(12, dtype=torch.float64), cov, GaussianProcess(FLOW, space))
    want = one.flow(torch.stack(samples), 0.8, 0.2)
    assert torch.allclose(got["x"][layout.mask], want.flatten(0, 1), rtol=0, atol=1e-12)


def test_a_point_cloud_in_another_space_or_with_a_time_for_each_point_is_refused() -> None:
    with pytest.raises(ValueError, match="Gaussian in ZeroCoM"):
        PointCloud(1.0, GaussianProcess(FLOW))
    with pytest.raises(ValueError, match="one for each of 2 clouds"):
        PointCloud(1.0, GaussianProcess(FLOW, ZeroCoM()))(randn(2, 3, 3), torch.rand(2, 3))
