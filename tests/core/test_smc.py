"""Particles against exact evidences and posteriors."""

from __future__ import annotations

import math
from typing import final

import pytest
import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.grid import Times
from sciffusion.inverse import (
    Each,
    Mask,
    ObservationTwist,
    Particles,
    Subsample,
    Twist,
    TwistedSMC,
    systematic,
)
from sciffusion.layout import Dense
from sciffusion.oracle import Categorical as Classes
from sciffusion.oracle import Gaussian as GaussianOracle
from sciffusion.oracle import PointCloud
from sciffusion.process import Gaussian, Joint, Jump
from sciffusion.process.jump_steps import TauLeap
from sciffusion.samplers import DDIM, Ancestral, Heun, Multistep, Sampler
from sciffusion.schedule import Cosine, RectifiedFlow
from sciffusion.solver import Solver
from sciffusion.space import Categorical, Euclidean, ZeroCoM
from sciffusion.state import State, Value, batch_of, take
from sciffusion.testing import gaussian_moments, split
from tests.core.cases import in_every_layout, name, randn

FLOW = RectifiedFlow()
ONE = torch.ones(1, dtype=torch.float64)


def tensor(x: Value) -> Tensor:
    assert isinstance(x, Tensor)
    return x


def state(x: Value) -> State:
    assert isinstance(x, State)
    return x


def normal_log(y: float, mean: float, variance: float) -> float:
    return -0.5 * ((y - mean) ** 2 / variance + math.log(2 * math.pi * variance))


def evidences(particles: Particles) -> tuple[float, float]:
    """The mean of the evidence's estimates, and its standard error."""
    z = particles.log_evidence.exp()
    return float(z.mean()), float(z.std() / len(z) ** 0.5)


def moments(particles: Particles, x: Tensor) -> tuple[Tensor, Tensor]:
    """Self-normalised over all runs of one problem, weighted by their evidences: (D,), (D, D)."""
    w = (particles.log_weights + particles.log_evidence[:, None]).flatten().softmax(0)
    mean = w @ x
    return mean, (x - mean).T @ (w[:, None] * (x - mean))


PROPOSALS: list[tuple[Solver, bool]] = [
    (Ancestral(), True),
    (DDIM(0.7), True),
    (Multistep(1, eta=1.0), True),
    (Ancestral(), False),
    (Multistep(2, eta=1.0), False),
    (DDIM(), False),
    (Heun(), False),
]


@pytest.mark.parametrize(("solver", "guided"), PROPOSALS, ids=name)
def test_the_evidence_of_the_samplers_own_law_is_unbiased(solver: Solver, guided: bool) -> None:
    """With six steps the sampler's law is not the data's; its moments are known to rounding error all the same."""
    process = Gaussian(FLOW)
    denoiser = GaussianOracle(0.7 * ONE, 0.36 * ONE[None], process)
    sampler = Sampler(solver, 6)
    mean, variance = gaussian_moments(sampler, FLOW, mean=0.7, variance=0.36)
    twist = ObservationTwist(process, Mask(torch.ones(1, 1) > 0), 2.0 * ONE[None], 0.4, 0.6)
    smc = TwistedSMC(sampler, twist, 16, guided=guided)
    out = smc(denoiser, torch.zeros(400, 1, dtype=torch.float64), 5)
    got, error = evidences(out)
    want = math.exp(normal_log(2.0, mean, variance + 0.16))
    assert abs(got - want) < 4 * error and error < 0.1 * want
    posterior = variance * 0.16 / (variance + 0.16)
    centre = (mean * 0.16 + 2.0 * variance) / (variance + 0.16)
    first, second = moments(out, tensor(out.x))
    assert abs(float(first) - centre) < 0.04 and abs(float(second) - posterior) < 0.02
    assert out.ess.shape == (7, 400) and bool(((out.ess > 0.999) & (out.ess < 16.001)).all())


def test_it_samples_a_linear_gaussian_posterior_across_fields() -> None:
    """Two fields with schedules and noise scales of their own, two correlated numbers each, one of each seen."""
    factor = randn(4, 4, seed=3)
    mean, cov = randn(4, seed=4), factor @ factor.T / 4 + 0.2 * torch.eye(4, dtype=torch.float64)
    process = Joint({"a": Gaussian(FLOW), "b": Gaussian(Cosine(), Euclidean(1.3))})
    denoiser = GaussianOracle(mean, cov, process)
    operator = Each({"a": Subsample(2, field="a"), "b": Subsample(2, field="b", offset=1)})
    runs, count = 10, 300
    like = State({k: torch.zeros(runs, 2, dtype=torch.float64) for k in "ab"}, Dense(runs))
    y = take(state(operator(like)).map(lambda v: v + 0.8), torch.zeros(runs, dtype=torch.long))
    smc = TwistedSMC(Sampler(DDIM(1.0), 150), ObservationTwist(process, operator, y, 0.5), count)
    out = smc(denoiser, like, 1)
    rows = torch.tensor([0, 3])
    seen = torch.eye(4, dtype=torch.float64)[rows]
    total = cov[rows][:, rows] + 0.25 * torch.eye(2, dtype=torch.float64)
    gain = cov @ seen.T @ torch.linalg.inv(total)
    residual = 0.8 - mean[rows]
    flat = torch.cat([state(out.x)["a"], state(out.x)["b"]], 1)
    first, second = moments(out, flat)
    assert torch.allclose(first, mean + gain @ residual, atol=0.08)
    assert torch.allclose(second, cov - gain @ seen @ cov, atol=0.1)
    want = torch.distributions.MultivariateNormal(mean[rows], total).log_prob(0.8 * torch.ones(2))
    assert abs(float(out.log_evidence.logsumexp(0) - math.log(runs) - want)) < 0.15
    drawn = torch.cat([state(out.resampled)["a"], state(out.resampled)["b"]], 1)
    assert torch.allclose(drawn.mean(0), first, atol=0.12)


@pytest.mark.parametrize("absorbing", [False, True])
@pytest.mark.parametrize("guided", [False, True])
def test_it_samples_the_posterior_of_classes(absorbing: bool, guided: bool) -> None:
    """Independent classes with a known likelihood: the posterior of each is prior times likelihood."""
    prior = torch.tensor([0.5, 0.3, 0.2])
    likelihood = torch.tensor([[0.1, 0.2, 0.9], [0.5, 0.1, 0.4]])
    for step in (None, TauLeap()):
        space = Categorical(3, absorbing)
        process = Jump(FLOW, space) if step is None else Jump(FLOW, space, step)
        denoiser = Classes(prior, process)

        def twist(x0: Value, x_t: Value, t: Tensor) -> Tensor:
            return (tensor(x0) * likelihood).sum(-1).log().sum(1)

        like = torch.zeros(200, 2, dtype=torch.long)
        steps = 6 if step is None else 30
        smc = TwistedSMC(Sampler(DDIM(1.0), steps), twist, 64, guided=guided)
        out = smc(denoiser, like, 2)
        got, error = evidences(out)
        want = float((prior * likelihood).sum(-1).prod())
        slack = 0.0 if step is None else 0.05 * want  # tau-leaping has an error of its own
        assert abs(got - want) < 4 * error + slack + 1e-6
        if guided and step is None:  # the proposal is the posterior itself: no weight ever differs
            assert float(out.ess.min()) > 63.999 and abs(got - want) < 1e-6
        hits = torch.nn.functional.one_hot(tensor(out.x), 3).double().reshape(200 * 64, 6)
        first, _ = moments(out, hits)
        exact = prior * likelihood / (prior * likelihood).sum(-1, keepdim=True)
        assert torch.allclose(first.reshape(2, 3), exact.double(), atol=0.03)


def test_guided_proposals_keep_more_particles_alive() -> None:
    process = Gaussian(FLOW)
    denoiser = GaussianOracle(torch.zeros(6).double(), torch.eye(6).double(), process)
    y = torch.full((20, 6), 1.5, dtype=torch.float64)
    twist = ObservationTwist(process, Mask(torch.ones(1, 6) > 0), y, 0.3)
    sizes, spread = [], []
    for guided in (False, True):
        smc = TwistedSMC(Sampler(Ancestral(1.0), 30), twist, 32, 0.3, guided=guided)
        out = smc(denoiser, torch.zeros(20, 6, dtype=torch.float64), 3)
        sizes.append(float(out.ess.mean()))
        spread.append(float(out.log_evidence.std()))
    assert sizes[1] > 1.5 * sizes[0] and spread[1] < 0.5 * spread[0]


@final
class Mixed(Denoiser):
    """Points in any layout, N(0, 1) in ZeroCoM; numbers N(0.3, 0.25); classes of given probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.process = Joint(
            {
                "pos": Gaussian(FLOW, ZeroCoM()),
                "cell": Gaussian(Cosine()),
                "kind": Jump(FLOW, Categorical(3, absorbing=True)),
            }
        )
        self.cloud = PointCloud(1.0, self.process, "pos")
        self.kinds = Classes(torch.tensor([0.2, 0.3, 0.5]), self.process, "kind")

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        x = state(x_t)["cell"]
        alpha, sigma = (c.to(x) for c in self.process.field("cell").clock(t))
        cell = 0.3 + 0.25 * alpha / (0.25 * alpha**2 + sigma**2) * (x - 0.3 * alpha)
        pos, kind = state(self.cloud(x_t, t).x0)["pos"], state(self.kinds(x_t, t).x0)["kind"]
        return Prediction(
            state(x_t).replace({"pos": pos, "cell": cell, "kind": kind}), x_t, t, self.process
        )


def steer(x0: Value, x_t: Value, t: Tensor) -> Tensor:
    """Wants a certain size of the cloud, of the cell and of the share of the last class."""
    s = state(x0)
    radius = s.layout("pos").reduce(s["pos"] ** 2, "mean")
    share = s.layout("kind").reduce(s["kind"][..., 2], "mean")
    return -((radius - 0.5) ** 2) - (s["cell"].mean(1) - 1) ** 2 - 3 * (share - 0.8) ** 2


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("index", [0, 1, 2], ids=["padded", "packed", "dense"])
def test_a_samples_particles_do_not_depend_on_the_batch(index: int, guided: bool) -> None:
    field, layout, _ = in_every_layout()[index]
    kind = torch.zeros(field.shape[:-1], dtype=torch.long)
    like = State(
        {
            "pos": field,
            "cell": torch.zeros(layout.batch, 2, dtype=torch.float64),
            "kind": layout.clean(kind),
        },
        {"pos": layout, "cell": Dense(layout.batch), "kind": layout},
    )
    smc = TwistedSMC(Sampler(DDIM(1.0), 8), steer, 5, 0.9, guided=guided)
    seeds = list(range(20, 20 + batch_of(like)))
    whole = smc(Mixed(), like, seeds)
    again = smc(Mixed(), like, seeds)
    assert torch.equal(whole.log_weights, again.log_weights)
    for i in range(batch_of(like)):
        alone = smc(Mixed(), take(like, torch.tensor([i])), seeds[i : i + 1])
        assert torch.allclose(alone.log_weights[0], whole.log_weights[i], atol=1e-9)
        assert torch.allclose(alone.log_evidence[0], whole.log_evidence[i], atol=1e-9)
        assert torch.allclose(alone.ess[:, 0], whole.ess[:, i], atol=1e-9)
        for k in like:
            for mine, ours in ((alone.x, whole.x), (alone.resampled, whole.resampled)):
                theirs = split(ours, k)[5 * i : 5 * i + 5]
                for a, b in zip(split(mine, k), theirs, strict=True):
                    assert torch.allclose(a, b, atol=1e-9)
    centred = layout_sum(whole.x)
    assert torch.allclose(centred, torch.zeros_like(centred), atol=1e-9)


def layout_sum(x: Value) -> Tensor:
    return state(x).layout("pos").pool(state(x)["pos"])


def test_the_same_law_is_sampled_with_and_without_guidance() -> None:
    """A twist without a closed form, on positions and classes at once: both proposals must agree."""
    like = State(
        {
            "pos": torch.zeros(200, 3, 3, dtype=torch.float64),
            "cell": torch.zeros(200, 2, dtype=torch.float64),
            "kind": torch.zeros(200, 3, dtype=torch.long),
        },
        Dense(200),
    )
    results = []
    for guided in (False, True):
        smc = TwistedSMC(Sampler(DDIM(1.0), 8), steer, 16, guided=guided)
        results.append(evidences(smc(Mixed(), like, 4)))
    (a, da), (b, db) = results
    assert abs(a - b) < 4 * math.hypot(da, db) and max(da, db) < 0.02 * a


def test_the_likelihood_of_clean_data_is_the_observations_own() -> None:
    for field, layout, samples in in_every_layout():
        x = State(
            {"x": field, "free": torch.zeros(layout.batch, 2)},
            {"x": layout, "free": Dense(layout.batch)},
        )
        process = Joint({"x": Gaussian(FLOW), "free": Gaussian(Cosine())})
        mask = torch.arange(field.numel()).reshape(field.shape) % 3 > 0
        operator = Mask(mask, "x")
        seen = x.replace({"x": torch.where(mask, field + 0.3, float("nan"))})
        y = State({"x": seen["x"]}, layout)
        got = ObservationTwist(process, operator, y, 0.5)(x, x, torch.tensor(0.0).double())
        hits = split(State({"x": mask}, layout), "x")
        for i, (own, hit) in enumerate(zip(samples, hits, strict=True)):
            assert own.numel() == hit.numel()
            assert abs(float(got[i]) - int(hit.sum()) * normal_log(0.3, 0.0, 0.25)) < 1e-9
        alpha, sigma = FLOW(torch.tensor(0.6).double())
        r2 = float(4 * sigma**2 / (sigma**2 + 4 * alpha**2))
        later = ObservationTwist(process, operator, y, 0.5, 2.0)(x, x, torch.tensor(0.6).double())
        assert abs(float(later[0]) - int(hits[0].sum()) * normal_log(0.3, 0.0, 0.25 + r2)) < 1e-9


def test_systematic_resampling_draws_floors_and_ceilings() -> None:
    w = torch.tensor([[0.1, 0.45, 0.05, 0.4], [0.25, 0.25, 0.25, 0.25]], dtype=torch.float64)
    counts = torch.zeros(2, 4)
    for u in torch.linspace(0, 0.999, 200):
        index = systematic(w.log(), u.expand(2)).reshape(2, 4)
        assert index[1].tolist() == [4, 5, 6, 7]
        hits = torch.stack([torch.bincount(row, minlength=8) for row in index])
        drawn = torch.stack([hits[0, :4], hits[1, 4:]])
        assert bool(((drawn - 4 * w).abs() < 1).all())
        counts += drawn / 200
    assert torch.allclose(counts.double(), 4 * w, atol=0.02)
    assert systematic(torch.tensor([[-math.inf, 0.0]]), torch.tensor([0.0])).tolist() == [1, 1]


def test_it_may_stop_early_and_counts_its_calls() -> None:
    process = Gaussian(FLOW)
    denoiser = GaussianOracle(0 * ONE, ONE[None], process)
    twist = ObservationTwist(process, Mask(torch.ones(1, 1) > 0), ONE[None], 0.5)
    like = torch.zeros(3, 1, dtype=torch.float64)
    assert TwistedSMC(Sampler(Ancestral(), 5), twist, 4)(denoiser, like).nfe == 5
    assert TwistedSMC(Sampler(Ancestral(), 5, stop=0.1), twist, 4)(denoiser, like).nfe == 6
    assert TwistedSMC(Sampler(Heun(), 5), twist, 4, guided=False)(denoiser, like).nfe == 9


def test_wrong_particles_are_refused() -> None:
    def none(x0: Value, x_t: Value, t: Tensor) -> Tensor:
        return torch.full((batch_of(x_t),), -math.inf)

    def narrow(x0: Value, x_t: Value, t: Tensor) -> Tensor:
        return tensor(x0)

    denoiser = GaussianOracle(0 * ONE, ONE[None], Gaussian(FLOW))
    like = torch.zeros(2, 1, dtype=torch.float64)
    run = Sampler(Ancestral(), 4)
    twists: list[tuple[Twist, str]] = [(none, "finite likelihood"), (narrow, "one number per")]
    for twist, message in twists:
        with pytest.raises(ValueError, match=message):
            TwistedSMC(run, twist, 3)(denoiser, like)
    for solver in (DDIM(), Heun(), Multistep(2, eta=1.0)):
        with pytest.raises(ValueError, match="guided proposals need"):
            TwistedSMC(Sampler(solver, 4), none, 3)
    with pytest.raises(ValueError, match="particles >= 1"):
        TwistedSMC(run, none, 0)
    with pytest.raises(ValueError, match="start from the prior"):
        TwistedSMC(Sampler(Ancestral(), 4, start=0.5), none, 2)
    with pytest.raises(ValueError, match="never goes back up"):
        TwistedSMC(Sampler(Heun(churn=4.0), 4), none, 2, guided=False)(denoiser, like)
    rows = torch.linspace(1, 0, 5, dtype=torch.float64) ** torch.arange(1, 7)[:, None]
    for guided in (True, False):
        with pytest.raises(ValueError, match="one grid for all"):
            TwistedSMC(Sampler(Ancestral(), 4, Times(rows)), none, 3, guided=guided)(denoiser, like)
    seen = ObservationTwist(Gaussian(FLOW), Mask(torch.ones(1, 1) > 0), torch.zeros(4, 1), 0.5)
    with pytest.raises(ValueError, match="no multiple"):
        TwistedSMC(run, seen, 3)(denoiser, like)
