"""Posterior denoisers against exact conditional laws of Gaussian data."""

from __future__ import annotations

from typing import final

import pytest
import torch
from torch import Tensor, nn

from sciffusion.denoiser import Condition, Denoiser, Preconditioned, Prediction
from sciffusion.inverse import (
    DPS,
    MMPS,
    SDA,
    CoarseGrain,
    Each,
    Function,
    Mask,
    Method,
    PiGDM,
    Posterior,
    Subsample,
)
from sciffusion.layout import Dense
from sciffusion.oracle import Categorical as Classes
from sciffusion.oracle import Gaussian as GaussianOracle
from sciffusion.oracle import PointCloud
from sciffusion.process import Gaussian, Joint, Jump, Process
from sciffusion.samplers import DDIM, Ancestral, Multistep, Sampler
from sciffusion.schedule import VE, VP, Cosine, RectifiedFlow, Schedule, TrigFlow
from sciffusion.space import Categorical, Euclidean, ZeroCoM
from sciffusion.state import State, Value, batch_of, cat, take
from sciffusion.testing import split, spoil
from tests.core.cases import in_every_layout, name, randn

FLOW = RectifiedFlow()
D = 5
MEAN = randn(D, seed=11)
FACTOR = randn(D, D, seed=12)
COV = FACTOR @ FACTOR.T / D + 0.1 * torch.eye(D, dtype=torch.float64)
METHODS: list[Method] = [MMPS(8, 1e-12), PiGDM(0.8), SDA(0.3), DPS(0.5)]
TIMES = (1.0, 0.999, 0.7, 0.2, 1e-3)


def at(t: float) -> Tensor:
    return torch.tensor(t, dtype=torch.float64)


def tensor(x: Value) -> Tensor:
    assert isinstance(x, Tensor)
    return x


def state(x: Value) -> State:
    assert isinstance(x, State)
    return x


def exact(
    mean: Tensor,
    cov: Tensor,
    alpha: Tensor,
    noise: Tensor,
    observe: Tensor,
    variance: Tensor,
    x: Tensor,
    y: Tensor,
) -> Tensor:
    """E[x0 | x_t, y] of flat samples: both are linear observations of x0. ``noise`` is sigma^2 L L^T."""
    h = torch.cat([torch.diag(alpha), observe])
    r = torch.block_diag(noise, torch.diag(variance))
    gain = cov @ h.T @ torch.linalg.inv(h @ cov @ h.T + r)
    return mean + (torch.cat([x, y], 1) - mean @ h.T) @ gain.T


@pytest.mark.parametrize("t", TIMES)
@pytest.mark.parametrize("schedule", [FLOW, VP(), Cosine(), VE(), TrigFlow()], ids=name)
def test_moment_matching_is_exact_for_gaussian_data_at_every_time(
    schedule: Schedule, t: float
) -> None:
    denoiser = GaussianOracle(MEAN, COV, Gaussian(schedule))
    seen = torch.tensor([[True, False, True, False, True]])
    x, y = randn(4, D), randn(4, D, seed=1)
    y[:, 1] = float("nan")  # missing, and nobody asks
    alpha, sigma = schedule(at(t))
    std = torch.tensor([0.3, 0.1, 0.2, 0.1, 0.5], dtype=torch.float64)
    want = exact(
        MEAN,
        COV,
        alpha.expand(D),
        sigma**2 * torch.eye(D),
        torch.eye(D, dtype=torch.float64)[seen[0]],
        std[seen[0]] ** 2,
        x,
        y[:, seen[0]],
    )
    got = Posterior(denoiser, Mask(seen), y, std, MMPS(8, 1e-12))(x, at(t))
    assert torch.allclose(tensor(got.x0), want, rtol=1e-6, atol=1e-6)
    assert got.x_t is x and not tensor(got.x0).requires_grad


@pytest.mark.parametrize("t", TIMES)
def test_moment_matching_is_exact_across_fields_with_schedules_and_noises_of_their_own(
    t: float,
) -> None:
    scale = torch.tensor([0.5, 2.0], dtype=torch.float64)
    process = Joint(
        {
            "a": Gaussian(FLOW, Euclidean(scale)),
            "b": Gaussian(Cosine().shift(0.4), Euclidean(1.5)),
        }
    )
    denoiser = GaussianOracle(MEAN, COV, process)
    x = State({"a": randn(3, 2), "b": randn(3, 3, seed=1)}, Dense(3))
    weights = randn(2, 3, seed=5)

    def mixed(v: Value) -> Value:
        return state(v)["a"] + state(v)["b"] @ weights.T

    y = randn(3, 2, seed=6)
    (a1, s1), (a2, s2) = (process.field(k).clock(at(t)) for k in ("a", "b"))
    alpha = torch.cat([a1.expand(2), a2.expand(3)])
    noise = torch.diag(torch.cat([(s1 * scale) ** 2, ((1.5 * s2) ** 2).expand(3)]))
    observe = torch.cat([torch.eye(2, dtype=torch.float64), weights], 1)
    flat = torch.cat([x["a"], x["b"]], 1)
    want = exact(
        MEAN, COV, alpha, noise, observe, torch.full((2,), 0.2**2, dtype=torch.float64), flat, y
    )
    for linear in (True, False):
        method = MMPS(6, 1e-13)
        got = state(Posterior(denoiser, Function(mixed, linear), y, 0.2, method)(x, at(t)).x0)
        assert torch.allclose(torch.cat([got["a"], got["b"]], 1), want, rtol=1e-6, atol=1e-6)
    both = Each(
        {"a": Mask(torch.tensor([[True, False]]), "a"), "b": CoarseGrain(3, (-1,), field="b")}
    )
    seen = State({"a": randn(3, 2, seed=7), "b": randn(3, 1, seed=8)}, Dense(3))
    observe = torch.zeros(2, D, dtype=torch.float64)
    observe[0, 0], observe[1, 2:] = 1.0, 1 / 3
    want = exact(
        MEAN,
        COV,
        alpha,
        noise,
        observe,
        torch.tensor([0.09, 0.01], dtype=torch.float64),
        flat,
        torch.stack([seen["a"][:, 0], seen["b"][:, 0]], 1),
    )
    got = state(Posterior(denoiser, both, seen, {"a": 0.3, "b": 0.1}, MMPS(6, 1e-13))(x, at(t)).x0)
    assert torch.allclose(torch.cat([got["a"], got["b"]], 1), want, rtol=1e-6, atol=1e-6)


@final
class Exchangeable(Denoiser):
    """Exact for points that share a latent: covariance a I + b 11^T among the points of a sample, any layout."""

    def __init__(self, process: Process, a: float = 0.3, b: float = 0.4, mean: float = 0.6) -> None:
        super().__init__()
        self.process, self.a, self.b, self.mean = process, a, b, mean

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        out = {}
        for k, x in state(x_t).items():
            layout, field = state(x_t).layout(k), self.process.field(k)
            assert isinstance(field, Gaussian)
            n = layout.points(x).to(x)
            alpha, sigma = (c.to(x).expand(layout.batch) for c in field.schedule(t))
            z = x - layout.expand(alpha, x) * self.mean
            common = layout.spread(layout.pool(z) / n[:, None], x)
            wide = self.a + self.b * n
            own = layout.expand(alpha * self.a / (alpha**2 * self.a + sigma**2), x)
            shared = layout.expand(alpha * wide / (alpha**2 * wide + sigma**2), x)
            out[k] = self.mean + own * (z - common) + shared * common
        return Prediction(state(x_t).replace(out), x_t, t, self.process)


def ragged(layout_index: int) -> tuple[State, list[tuple[Tensor, Tensor]], Joint]:
    """A state of two fields, the parts of its samples, and a process with a schedule for each field."""
    field, layout, samples = in_every_layout()[layout_index]
    cells = randn(len(samples), 2, 3, seed=9)
    x = State({"pos": field, "cell": cells}, {"pos": layout, "cell": Dense(len(samples))})
    process = Joint({"pos": Gaussian(FLOW), "cell": Gaussian(Cosine())})
    return x, list(zip(samples, cells, strict=True)), process


@pytest.mark.parametrize("layout", [0, 1, 2], ids=["padded", "packed", "dense"])
@pytest.mark.parametrize("t", [1.0, 0.5, 0.02])
def test_moment_matching_is_exact_for_clouds_of_any_size(layout: int, t: float) -> None:
    x, samples, process = ragged(layout)
    denoiser = Exchangeable(process)
    mask = torch.zeros(*x["pos"].shape[:-1], 1, dtype=torch.bool)
    mask.view(-1)[::2] = True
    operator = Each({"pos": Mask(mask, "pos"), "cell": Mask(torch.ones(1, 1, 3) > 0, "cell")})
    y = state(operator(x.map(lambda v: 0.7 * v + 0.3)))
    got = state(Posterior(denoiser, operator, y, 0.25, MMPS(40, 1e-13))(x, at(t)).x0)
    whole = x.replace({"pos": mask.expand(x["pos"].shape).double()})
    for k in x:
        alpha, sigma = process.field(k).clock(at(t))
        parts = zip(split(got, k), split(x, k), split(y, k), split(whole, k), strict=True)
        for mine, x_t, seen, hit in parts:
            n = x_t.numel() // 3
            hits = hit.reshape(n, 3)[:, 0] > 0.5 if k == "pos" else torch.ones(n) > 0
            eye = torch.eye(n, dtype=torch.float64)
            want = exact(
                torch.full((n,), 0.6, dtype=torch.float64),
                0.3 * eye + 0.4,
                alpha.expand(n),
                sigma**2 * eye,
                eye[hits],
                torch.full((int(hits.sum()),), 0.25**2, dtype=torch.float64),
                x_t.reshape(n, 3).T,
                seen.reshape(n, 3)[hits].T,
            )
            assert torch.allclose(mine.reshape(n, 3).T, want, rtol=1e-6, atol=1e-6)


def test_moment_matching_stays_in_the_subspace_of_the_noise() -> None:
    field, layout, _ = in_every_layout()[1]
    space = ZeroCoM(0.7)
    denoiser = PointCloud(1.3, Joint({"x": Gaussian(FLOW, space)}), "x")
    x = State({"x": space.project(field, layout)}, layout)
    mask = torch.arange(len(field))[:, None] % 2 == 0
    posterior = Posterior(denoiser, Mask(mask, "x"), x, 0.1, MMPS(30, 1e-13))
    got = state(posterior(x, at(0.6)).x0)["x"]
    assert torch.allclose(layout.pool(got), torch.zeros(4, 3, dtype=torch.float64), atol=1e-12)
    alpha, sigma = 0.4, 0.6
    whole = x.replace({"x": mask.expand(field.shape)})
    parts = (split(v, "x") for v in (x.replace({"x": got}), x, whole))
    for mine, own, hit in zip(*parts, strict=True):
        n = own.numel() // 3
        centre = torch.eye(n, dtype=torch.float64) - 1 / n
        cov, hits = 1.3**2 * centre, hit.reshape(n, 3)[:, 0]
        h = torch.cat([alpha * centre, torch.eye(n, dtype=torch.float64)[hits]])
        r = torch.block_diag(
            (0.7 * sigma) ** 2 * centre, 0.1**2 * torch.eye(int(hits.sum()), dtype=torch.float64)
        )
        seen = torch.cat([own.reshape(n, 3), own.reshape(n, 3)[hits]])
        want = cov @ h.T @ torch.linalg.pinv(h @ cov @ h.T + r) @ seen
        assert torch.allclose(mine.reshape(n, 3), want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("t", TIMES)
def test_pseudo_inverse_guidance_is_exact_for_independent_data(t: float) -> None:
    process = Joint({"x": Gaussian(Cosine(), Euclidean(0.6))})
    cov = 0.8**2 * torch.eye(6, dtype=torch.float64)
    mean = randn(6, seed=3)
    denoiser = GaussianOracle(mean, cov, process)
    x = State({"x": randn(3, 6)}, Dense(3))
    operator = CoarseGrain(2, (-1,), field="x")
    observe = torch.eye(3, dtype=torch.float64).repeat_interleave(2, 1) / 2
    alpha, sigma = Cosine()(at(t))
    noise = (0.6 * sigma) ** 2 * torch.eye(6)
    for std in (0.0, 0.2):
        y = State({"x": randn(3, 3, seed=4)}, Dense(3))
        posterior = Posterior(denoiser, operator, y, std, PiGDM({"x": 0.8}))
        want = exact(
            mean,
            cov,
            alpha.expand(6),
            noise,
            observe,
            torch.full((3,), std**2, dtype=torch.float64),
            x["x"],
            y["x"],
        )
        assert torch.allclose(state(posterior(x, at(t)).x0)["x"], want, rtol=1e-6, atol=1e-6)


def test_data_assimilation_weighs_by_the_stated_variance() -> None:
    denoiser = GaussianOracle(MEAN, COV, Gaussian(FLOW))
    x, y, t = randn(3, D), randn(3, D, seed=1), torch.tensor([0.3, 0.6, 0.9]).double()
    got = tensor(Posterior(denoiser, Mask(torch.ones(1, D) > 0), y, 0.2, SDA(0.4))(x, t).x0)
    prior = tensor(denoiser(x, t).x0)
    for i, (alpha, sigma) in enumerate(zip(*FLOW(t), strict=True)):
        eye = torch.eye(D, dtype=torch.float64)
        gain = alpha * COV @ torch.linalg.inv(alpha**2 * COV + sigma**2 * eye)
        cov = sigma**2 / alpha * gain  # of x0 given x_t
        want = prior[i] + cov @ (y[i] - prior[i]) / (0.2**2 + 0.4 * sigma**2 / alpha**2)
        assert torch.allclose(got[i], want, rtol=1e-10)


def test_dps_moves_the_point_along_the_gradient_of_the_norm() -> None:
    denoiser = GaussianOracle(MEAN, COV, Gaussian(FLOW))
    x, y = randn(3, D), randn(3, D, seed=1)
    prediction = Posterior(denoiser, Subsample(2), y[:, ::2], 0.2, DPS(0.7))(x, at(0.4))
    assert torch.equal(tensor(prediction.x0), tensor(denoiser(x, at(0.4)).x0))

    def norm(x_t: Tensor) -> Tensor:
        return (y[:, ::2] - tensor(denoiser(x_t, at(0.4)).x0)[:, ::2]).norm(dim=1)

    h = 1e-6
    for i in range(D):
        e = torch.eye(D, dtype=torch.float64)[i] * h
        slope = (norm(x + e) - norm(x - e)) / (2 * h)
        moved = (tensor(prediction.x_t) - x)[:, i]
        assert torch.allclose(moved, -0.7 * slope, rtol=1e-6, atol=1e-8)
    sure = Posterior(denoiser, Subsample(2), tensor(denoiser(x, at(0.4)).x0)[:, ::2], 0.2, DPS())
    assert torch.equal(tensor(sure(x, at(0.4)).x_t), x)  # no residual, no direction, no NaN


@pytest.mark.parametrize("method", METHODS, ids=name)
def test_neither_batch_mates_nor_padding_change_a_sample(method: Method) -> None:
    for index in range(3):
        x, _, process = ragged(index)
        denoiser = Exchangeable(process)

        def operator(v: Value) -> Mask:
            shape = (*state(v)["pos"].shape[:-1], 1)
            return Mask(torch.ones(shape) > 0, "pos")

        y = state(operator(x)(x.map(lambda v: v + 0.5)))
        for t in (0.8, 0.3):
            whole = Posterior(denoiser, operator(x), y, 0.3, method)(x, at(t))
            each = []
            for i in range(batch_of(x)):
                one, seen = take(x, torch.tensor([i])), take(y, torch.tensor([i]))
                each.append(Posterior(denoiser, operator(one), seen, 0.3, method)(one, at(t)))
            alone = Prediction(
                cat([p.x0 for p in each]), cat([p.x_t for p in each]), at(t), process
            )
            dirty = [
                Posterior(denoiser, operator(x), y, 0.3, method)(spoil(x, g), at(t))
                for g in (1e6, float("nan"))
            ]
            for other in (alone, *dirty):
                for k in x:
                    for a, b in ((whole.x0, other.x0), (whole.x_t, other.x_t)):
                        got, want = torch.cat(split(a, k)), torch.cat(split(b, k))
                        assert torch.allclose(got, want, rtol=1e-9, atol=1e-9)


def test_one_observation_serves_a_batch_and_each_sample_may_have_its_own_time() -> None:
    denoiser = GaussianOracle(MEAN, COV, Gaussian(FLOW))
    x, y = randn(3, D), randn(1, D, seed=1)
    t = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    for method in METHODS:
        together = Posterior(denoiser, Mask(torch.ones(1, D) > 0), y, 0.3, method)(x, t)
        for i in range(3):
            one = Posterior(denoiser, Mask(torch.ones(1, D) > 0), y, 0.3, method)
            alone = one(x[i : i + 1], t[i])
            assert torch.allclose(tensor(alone.x0)[0], tensor(together.x0)[i], atol=1e-9)
            assert torch.allclose(tensor(alone.x_t)[0], tensor(together.x_t)[i], atol=1e-9)


def test_samples_have_the_moments_of_the_posterior() -> None:
    """Deterministic: a run on Gaussian data is an affine map, whose matrix a batch of unit vectors reads off."""
    denoiser = GaussianOracle(MEAN, COV, Gaussian(FLOW))
    seen = torch.tensor([[True, False, True, False, False]])
    y = randn(1, D, seed=2)
    start = torch.cat([torch.zeros(1, D), torch.eye(D)]).double()
    run = Sampler(Multistep(2), 200)
    ends = run(Posterior(denoiser, Mask(seen), y, 0.3, MMPS(4, 1e-12)), start).x
    mean, root = tensor(ends)[0], tensor(ends)[1:] - tensor(ends)[0]
    observe = torch.eye(D, dtype=torch.float64)[seen[0]]
    gain = (
        COV
        @ observe.T
        @ torch.linalg.inv(observe @ COV @ observe.T + 0.09 * torch.eye(2, dtype=torch.float64))
    )
    assert torch.allclose(mean, MEAN + gain @ (y[0, seen[0]] - MEAN[seen[0]]), atol=2e-3)
    assert torch.allclose(root.T @ root, COV - gain @ observe @ COV, atol=2e-3)


def spread(method: Method, solver: DDIM | Ancestral, steps: int) -> tuple[float, float]:
    """Mean and standard deviation of posterior samples of N(0, 1) seen as y = 1 with noise 0.5."""
    one = torch.ones(1, dtype=torch.float64)
    denoiser = GaussianOracle(0 * one, one[None], Gaussian(VP()))
    guided = Posterior(denoiser, Mask(torch.ones(1, 1) > 0), one[None], 0.5, method)
    x = Sampler(solver, steps)(guided, randn(2000, 1), seed=1).x
    return float(tensor(x).mean()), float(tensor(x).std())


def test_only_a_modelled_covariance_gives_the_posteriors_spread() -> None:
    mean, std = 0.8, 0.2**0.5
    for method in (MMPS(1), PiGDM()):
        got = spread(method, Ancestral(), 200)
        assert abs(got[0] - mean) < 0.04 and abs(got[1] - std) < 0.02
    assert spread(SDA(0.0), Ancestral(), 200)[1] < 0.85 * std
    assert spread(DPS(0.1), Ancestral(), 200)[1] < 0.5 * std


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.SiLU(), nn.Linear(16, 3)).double()

    def forward(self, x: Tensor, log_snr: Tensor, cond: object, previous: object) -> Tensor:
        return self.layers(torch.cat([x, log_snr[:, None].to(x) / 10], 1))


@pytest.mark.parametrize("method", METHODS, ids=name)
def test_gradients_lead_out_only_where_the_caller_wants_them(method: Method) -> None:
    net = Net()
    denoiser = Preconditioned(net, Gaussian(FLOW), sigma_data=1.0)
    posterior = Posterior(
        denoiser, Mask(torch.tensor([[True, False, True]])), randn(2, 3), 0.1, method
    )
    x = randn(2, 3, seed=1)
    with torch.no_grad():
        quiet = posterior(x, at(0.5))
    assert not tensor(quiet.x0).requires_grad and not tensor(quiet.x_t).requires_grad
    assert all(p.grad is None for p in net.parameters())
    x.requires_grad_()

    def objective(v: Tensor) -> Tensor:
        p = posterior(v, at(0.5))
        return (tensor(p.x0) ** 2).sum() + (tensor(p.x_t) ** 3).sum()

    assert torch.autograd.gradcheck(objective, (x,), atol=1e-5, rtol=1e-4)
    torch.autograd.grad(objective(x), list(net.parameters()), allow_unused=True)
    curved = Function(lambda v: tensor(v)[:, :2] ** 2 + tensor(v)[:, 1:])
    posterior = Posterior(denoiser, curved, randn(2, 2), 0.1, method)
    assert torch.autograd.gradcheck(objective, (x,), atol=1e-5, rtol=1e-4)


def test_jump_fields_pass_through() -> None:
    process = Joint({"x": Gaussian(FLOW), "k": Jump(FLOW, Categorical(3))})

    class Both(Denoiser):
        def __init__(self) -> None:
            super().__init__()
            self.process = process

        def forward(
            self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
        ) -> Prediction:
            x, k = state(x_t)["x"], state(x_t)["k"]
            p = torch.stack([x, -x, 0 * x], -1).softmax(-1)
            return Prediction(state(x_t).replace({"x": x / 2 + 0 * k, "k": p}), x_t, t, process)

    x = State({"x": randn(2, 4), "k": torch.arange(8).reshape(2, 4) % 3}, Dense(2))

    def fn(v: Value) -> Value:
        return state(v)["x"] * state(v)["k"][..., 0]

    for method in METHODS:
        got = Posterior(Both(), Function(fn), randn(2, 4), 0.2, method)(x, at(0.5))
        assert torch.equal(state(got.x0)["k"], state(Both()(x, at(0.5)).x0)["k"])
        assert not state(got.x0)["k"].requires_grad
        assert not torch.equal(state(got.x_t)["x"] + state(got.x0)["x"], 1.5 * x["x"])


def test_it_works_in_single_precision_from_pure_noise() -> None:
    denoiser = GaussianOracle(MEAN, COV, Gaussian(FLOW))
    y = randn(2, D, seed=1)
    x = randn(2, D)
    for method in METHODS:
        make = [
            Posterior(denoiser, Mask(torch.ones(1, D) > 0), v, 0.3, method) for v in (y, y.float())
        ]
        ends = [Sampler(DDIM(), 20)(p, v).x for p, v in zip(make, (x, x.float()), strict=True)]
        assert tensor(ends[1]).dtype == torch.float32
        assert torch.allclose(tensor(ends[0]).float(), tensor(ends[1]), atol=5e-3)


def test_wrong_problems_are_refused() -> None:
    denoiser = GaussianOracle(MEAN, COV, Gaussian(FLOW))
    y, whole = randn(2, D), Mask(torch.ones(1, D) > 0)
    with pytest.raises(ValueError, match="noise_std must not be negative"):
        Posterior(denoiser, whole, y, -0.1, MMPS())
    with pytest.raises(ValueError, match="names no deviation"):
        Posterior(
            denoiser, Mask(torch.ones(1, D) > 0, "x"), State({"x": y}, Dense(2)), {"z": 1.0}, MMPS()
        )
    with pytest.raises(ValueError, match="y has the shape"):
        Posterior(denoiser, Subsample(2), y, 0.1, MMPS())(y, at(0.5))
    with pytest.raises(ValueError, match="gamma"):
        SDA(-1.0)
    jumps = Jump(FLOW, Categorical(3))
    classes = Classes(torch.tensor([0.2, 0.3, 0.5]), jumps)
    with pytest.raises(ValueError, match="TwistedSMC"):
        Posterior(classes, whole, y, 0.1, MMPS())(torch.zeros(2, D, dtype=torch.long), at(0.5))
