"""The evidence lower bound of jump processes: an equality for exact denoisers, in nats."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.layout import Dense, Layout
from sciffusion.likelihood import jump_nelbo
from sciffusion.noise import Noise
from sciffusion.objective import EDM, Likelihood, LogUniform, Objective
from sciffusion.oracle import Categorical as Independent
from sciffusion.oracle_jump import Sequences
from sciffusion.process import Gaussian, Joint, Jump
from sciffusion.schedule import VP, Cosine, RectifiedFlow, Schedule
from sciffusion.space import Categorical
from sciffusion.state import State, Value
from tests.core.cases import default_dtype, name, packed, padded

K = 3
PROBS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
KINDS = [Categorical(K), Categorical(K, absorbing=True)]


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with default_dtype(torch.float64):
        yield


def table(positions: int = 2, seed: int = 0) -> Tensor:
    p = torch.rand(*[K] * positions, generator=torch.Generator().manual_seed(seed)) ** 3
    return p / p.sum()


def noised(space: Categorical, x: Tensor, x0: Tensor, keep: float) -> Tensor:
    """q(x | x0) of whole sequences, (...)."""
    arrived = (x == K).double() if space.absorbing else torch.full(x.shape, 1 / K)
    return (keep * (x == x0).double() + (1 - keep) * arrived).prod(-1)


@pytest.mark.parametrize("space", KINDS, ids=name)
def test_the_bound_of_the_exact_denoiser_is_the_likelihood_itself(space: Categorical) -> None:
    """Summed over all noised sequences, integrated over the survival: no Monte Carlo."""
    process = Jump(RectifiedFlow(), space)
    oracle, states = Sequences(table(), process), torch.arange(space.states)
    x = torch.cartesian_prod(states, states)
    nodes, weights = np.polynomial.legendre.leggauss(24)
    for x0 in oracle.sequences:
        total, clean = torch.zeros(()), x0.expand(len(x), 2)
        for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
            w = (
                0.5 + 0.5 * node
            )  # the integrand grows like log(1 - keep) near the data: 1 - keep = w^4 smooths it
            t, width = w**4, 0.5 * weight * 4 * w**3
            p0 = oracle(x, torch.tensor(t)).x0
            assert isinstance(p0, Tensor)
            rate = process.bound_rate(p0, clean, x, torch.tensor(1 - t), Dense(len(x)))
            total += width * (noised(space, x, clean, 1 - t) * rate.sum(1)).nansum()
        assert float(total) == pytest.approx(-float(oracle.log_prob(x0[None])), abs=1e-7)


@pytest.mark.parametrize("space", KINDS, ids=name)
def test_a_wrong_denoiser_pays_for_it(space: Categorical) -> None:
    """The mean bound over the data exceeds their entropy unless the denoiser is right."""
    process = Jump(RectifiedFlow(), space)
    right, wrong = Sequences(table(), process), Sequences(table(seed=1), process)
    exact = jump_nelbo(right, right.sequences, 0, draws=128)
    other = jump_nelbo(wrong, right.sequences, 0, draws=128)
    assert float(right.probs @ other) > float(right.probs @ exact) + 0.1


@pytest.mark.parametrize("space", KINDS, ids=name)
def test_the_integrand_compares_the_rates_of_prediction_and_data(space: Categorical) -> None:
    """Campbell's and SEDD's form, written out: sum over y of r - r* + r* log(r*/r)."""
    process, generator = Jump(Cosine(), space), torch.Generator().manual_seed(0)
    x0 = torch.randint(K, (4, 5), generator=generator)
    x = torch.randint(space.states, (4, 5), generator=generator)
    if space.absorbing:  # what is no mask is the datum
        x = torch.where(x == K, x, x0)
    p0, t = torch.rand(4, 5, K, generator=generator).softmax(-1), torch.linspace(0.1, 0.9, 4)
    known = torch.nn.functional.one_hot(x0, K).double()
    got, want = (process.reverse_rates(x, p, t) for p in (p0, known))
    off = torch.nn.functional.one_hot(x, space.states) == 0
    terms = got - want + torch.special.xlogy(want, want / got)
    want_loss = torch.where(off & (got > 0), terms, 0.0).sum((1, 2)) / 5
    loss = process.loss_field(p0, x0, x, t, Dense(4), "x0", Likelihood())
    assert torch.allclose(loss, want_loss, rtol=1e-9)


def test_a_masked_bound_is_the_weighted_cross_entropy_of_what_is_masked() -> None:
    schedule, t = Cosine(), torch.tensor([0.3, 0.8])
    process = Jump(schedule, Categorical(K, absorbing=True))
    p0 = torch.rand(2, 3, K, generator=torch.Generator().manual_seed(0)).softmax(-1)
    x0, x = torch.tensor([[0, 1, 2], [2, 2, 1]]), torch.tensor([[K, 1, K], [2, K, K]])
    log_p = p0.gather(-1, x0[..., None])[..., 0].log()
    weight = -schedule.rates(t)[0] / (1 - schedule.alpha(t))
    want = -weight * (log_p * (x == K)).sum(1) / 3
    loss = process.loss_field(p0, x0, x, t, Dense(2), "x0", Likelihood())
    assert torch.allclose(loss, want, rtol=1e-12)


@pytest.mark.parametrize("space", KINDS, ids=name)
def test_the_mean_loss_of_the_likelihood_objective_is_the_likelihood(space: Categorical) -> None:
    process = Jump(Cosine(), space)
    oracle = Independent(PROBS, process)
    x0 = torch.tensor([0, 1, 2, 1]).expand(60_000, 4)
    want = -float(PROBS.log()[x0[0]].mean())
    loss = Objective(process, weight=Likelihood())(oracle, x0, noise=Noise(0)).per_sample
    # even times have no finite variance, so no standard error says how near this must be
    assert float(loss.mean()) == pytest.approx(want, rel=0.04)


def test_weights_of_squared_errors_leave_the_cross_entropy_alone() -> None:
    process = Jump(Cosine(), Categorical(K))
    p0, x0, t = torch.full((2, 3, K), 1 / K), torch.zeros(2, 3, dtype=torch.long), torch.rand(2)
    plain = process.loss_field(p0, x0, x0, t, Dense(2), "x0", None)
    assert torch.equal(plain, process.loss_field(p0, x0, x0, t, Dense(2), "x0", EDM()))


@pytest.mark.parametrize("space", KINDS, ids=name)
@pytest.mark.parametrize("keep", [0.0, 1e-9, 1e-4, 0.5, 1 - 1e-6])
def test_the_integrand_and_its_gradient_are_finite_in_single_precision(
    space: Categorical, keep: float
) -> None:
    process = Jump(RectifiedFlow(), space)
    logits = torch.tensor([[[40.0, 0.0, -40.0]]], dtype=torch.float32, requires_grad=True)
    for x0 in range(K):
        for x in range(space.states):
            p0, clean = logits.softmax(-1), torch.tensor([[x0]])
            rate = process.bound_rate(p0, clean, torch.tensor([[x]]), torch.tensor(keep), Dense(1))
            (grad,) = torch.autograd.grad(rate.sum(), logits)
            assert bool(rate.isfinite().all()) and bool(grad.isfinite().all())
            assert float(rate.detach()) > -1e-3


@pytest.mark.parametrize("space", KINDS, ids=name)
@pytest.mark.parametrize("keep", [1e-7, 1e-5, 1e-3, 0.3])
def test_the_integrand_keeps_its_digits_in_single_precision(
    space: Categorical, keep: float
) -> None:
    process, x = Jump(RectifiedFlow(), space), torch.tensor([[space.states - 1]])
    p0, x0 = torch.tensor([[[0.6, 0.3, 0.1]]]), torch.tensor([[0]])
    exact, single = (
        process.bound_rate(p0.to(dtype), x0, x, torch.tensor(keep), Dense(1))
        for dtype in (torch.float64, torch.float32)
    )
    assert float(single) == pytest.approx(float(exact), rel=1e-3, abs=1e-4)


def state(parts: list[Tensor], layout: str) -> State:
    x, where = padded(parts) if layout == "masked" else packed(parts)
    return State({"k": x}, where)


@pytest.mark.parametrize("space", KINDS, ids=name)
@pytest.mark.parametrize("layout", ["masked", "packed"])
def test_the_estimate_for_independent_classes_is_their_likelihood_within_its_error(
    space: Categorical, layout: str
) -> None:
    """In the mean of many estimates: a hundredth of a nat at most."""
    joint, copies = Joint({"k": Jump(RectifiedFlow(), space)}), 50
    oracle = Independent(PROBS, joint, "k")
    kinds = [torch.tensor([0, 1]), torch.tensor([1])]
    got = jump_nelbo(oracle, state(kinds * copies, layout), 0, draws=512).reshape(copies, 2)
    want = torch.stack([-PROBS.log()[x].sum() for x in kinds])
    error = (got - want).pow(2).mean(0).sqrt() / copies**0.5
    assert float(error.max()) < 0.01
    assert bool(((got.mean(0) - want).abs() <= 4 * error + 1e-12).all())


@pytest.mark.parametrize("space", KINDS, ids=name)
@pytest.mark.parametrize("schedule", [RectifiedFlow(), VP()], ids=name)
def test_the_estimate_falls_to_the_likelihood_faster_than_plain_monte_carlo(
    space: Categorical, schedule: Schedule
) -> None:
    oracle = Sequences(table(), Jump(schedule, space))
    x0 = oracle.sequences.repeat(12, 1)
    errors = [
        float((jump_nelbo(oracle, x0, 3, draws=n) + oracle.log_prob(x0)).pow(2).mean().sqrt())
        for n in (16, 256)
    ]
    assert errors[1] < errors[0] / 5  # plain Monte Carlo: a quarter
    assert errors[1] < 0.1


def test_the_estimate_of_a_sample_does_not_depend_on_its_batch() -> None:
    joint = Joint({"k": Jump(Cosine(), Categorical(K))})
    oracle = Independent(PROBS, joint, "k")
    kinds, seeds = [torch.tensor([0, 2, 1]), torch.tensor([1]), torch.tensor([2, 2])], [5, 1, 9]
    alone = torch.cat(
        [
            jump_nelbo(oracle, state([x], "packed"), [seed], draws=70)
            for x, seed in zip(kinds, seeds, strict=True)
        ]
    )
    for layout in ("masked", "packed"):
        together = jump_nelbo(oracle, state(kinds, layout), seeds, draws=70)
        assert torch.allclose(together, alone, rtol=1e-12)


def test_no_global_random_numbers_are_used() -> None:
    oracle = Independent(PROBS, Jump(Cosine(), Categorical(K)))
    before = torch.get_rng_state()
    jump_nelbo(oracle, torch.zeros(2, 3, dtype=torch.long), 0, draws=4)
    assert torch.equal(torch.get_rng_state(), before)


class Both(Denoiser):
    """Exact for two fields of independent classes."""

    def __init__(self, process: Joint) -> None:
        super().__init__()
        self.process = process
        self.parts = {k: Independent(PROBS, process, k) for k in ("a", "b")}

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        fields: dict[str | None, Tensor] = {}
        for k, oracle in self.parts.items():
            fields[k] = self.process.fields(oracle(x_t, t).x0)[k]
        return Prediction(self.process.rebuild(x_t, fields), x_t, t, self.process)


def test_fields_with_and_without_masks_are_bounded_together() -> None:
    process = Joint({"a": Jump(Cosine(), KINDS[0]), "b": Jump(Cosine(), KINDS[1])})
    a, b, copies = torch.tensor([[0, 2]]), torch.tensor([[1]]), 200
    x0 = State({"a": a.repeat(copies, 1), "b": b.repeat(copies, 1)}, Dense(copies))
    want = -float(PROBS.log()[[0, 2, 1]].sum())
    got = jump_nelbo(Both(process), x0, 0, draws=128)
    assert float(got.mean()) == pytest.approx(want, abs=0.01)


def test_more_elements_than_there_are_sobol_dimensions() -> None:
    process = Jump(Cosine(), Categorical(K, absorbing=True))
    x0 = torch.zeros(1, 22_000, dtype=torch.long)
    got = jump_nelbo(Independent(PROBS, process), x0, 0, draws=2)
    assert float(got) == pytest.approx(-22_000 * float(PROBS[0].log()), rel=1e-9)


def test_what_cannot_be_bounded_is_refused() -> None:
    jump = Jump(Cosine(), Categorical(K))
    x0 = torch.zeros(2, 3, dtype=torch.long)
    with pytest.raises(ValueError, match="draws must be at least 1"):
        jump_nelbo(Independent(PROBS, jump), x0, draws=0)
    mixed = Joint({"a": jump, "b": Gaussian(Cosine())})
    value = State({"a": x0, "b": torch.zeros(2, 3)}, Dense(2))
    with pytest.raises(ValueError, match="does not jump"):
        jump_nelbo(Independent(PROBS, mixed, "a"), value)
    apart = Joint({"a": jump, "b": Jump(VP(), Categorical(K))})
    with pytest.raises(ValueError, match="different schedules"):
        jump_nelbo(Both(apart), State({"a": x0, "b": x0}, Dense(2)))
    with pytest.raises(ValueError, match=r"holds 0\.\.2"):
        jump_nelbo(Independent(PROBS, jump), x0 + K)


@pytest.mark.parametrize("space", KINDS, ids=name)
def test_garbage_outside_the_samples_changes_no_bound(space: Categorical) -> None:
    process, layout = Jump(Cosine(), space), padded([torch.tensor([0, 1]), torch.tensor([2])])[1]
    x0 = torch.tensor([[0, 1, 0], [2, 0, 0]])
    p0 = torch.rand(2, 3, K, generator=torch.Generator().manual_seed(0)).softmax(-1)
    x_t, t = torch.full_like(x0, space.states - 1), torch.tensor([0.2, 0.6])

    def loss(layout: Layout, p0: Tensor, x_t: Tensor) -> Tensor:
        return process.loss_field(p0, x0, x_t, t, layout, "x0", Likelihood())

    clean = loss(layout, p0, x_t)
    outside = ~layout.mask
    for garbage in (float("nan"), 1e6):
        dirty = p0.masked_fill(outside[..., None], garbage)
        assert torch.equal(loss(layout, dirty, x_t.masked_fill(outside, 10**6)), clean)


@pytest.mark.parametrize("space", KINDS, ids=name)
def test_the_likelihood_objective_estimates_the_bound_within_its_standard_error(
    space: Categorical,
) -> None:
    """Times even in their logarithm give every draw a finite variance."""
    process, copies = Jump(RectifiedFlow(), space), 3000
    oracle = Sequences(table(), process)
    objective = Objective(process, weight=Likelihood(), times=LogUniform(1e-4, 1e4))
    x0 = oracle.sequences.repeat_interleave(copies, 0)
    loss = objective(oracle, x0, noise=Noise(0)).per_sample.reshape(-1, copies) * oracle.n
    error = loss.std(1) / copies**0.5
    assert float((oracle.probs * error).pow(2).sum().sqrt()) < 0.05
    assert bool(((loss.mean(1) + oracle.log_prob(oracle.sequences)).abs() < 4 * error).all())


@pytest.mark.parametrize("space", KINDS, ids=name)
@pytest.mark.parametrize("layout", ["masked", "packed"])
def test_the_estimate_for_classes_that_depend_on_each_other_is_their_likelihood(
    space: Categorical, layout: str
) -> None:
    joint, copies = Joint({"k": Jump(Cosine(), space)}), 30
    oracle = Sequences(table(), joint, "k")
    x0 = oracle.sequences
    got = jump_nelbo(oracle, state(list(x0) * copies, layout), 0, draws=128)
    got = got.reshape(copies, len(x0))
    error = got.std(0) / copies**0.5
    assert float(error.max()) < 0.05
    assert bool(((got.mean(0) + oracle.log_prob(x0)).abs() < 4.5 * error).all())


class Tempered(Denoiser):
    """The probabilities of another denoiser to a power: those of no data at all."""

    def __init__(self, inner: Denoiser, power: float) -> None:
        super().__init__()
        self.inner, self.power, self.process = inner, power, inner.process

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        p = self.inner(x_t, t).x0
        assert isinstance(p, Tensor)
        p = p**self.power
        return Prediction(p / p.sum(-1, keepdim=True), x_t, t, self.process)


@pytest.mark.parametrize("space", KINDS, ids=name)
@pytest.mark.parametrize("power", [0.5, 2.0])
def test_a_denoiser_of_wrong_confidence_pays_for_it_in_the_mean(
    space: Categorical, power: float
) -> None:
    oracle = Sequences(table(), Jump(RectifiedFlow(), space))
    bound = jump_nelbo(Tempered(oracle, power), oracle.sequences.repeat(8, 1), 0, draws=128)
    entropy = -float(oracle.probs @ oracle.probs.log())
    mean = float(oracle.probs @ bound.reshape(8, -1).mean(0))
    assert mean > entropy + 0.05
