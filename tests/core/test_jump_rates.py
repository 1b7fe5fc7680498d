"""The rates of jump processes: Kolmogorov's equations forwards and backwards, and the posterior over short steps."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from sciffusion.layout import Dense
from sciffusion.oracle_jump import Sequences
from sciffusion.process import Jump
from sciffusion.schedule import VP, Cosine, RectifiedFlow, Schedule
from sciffusion.space import Categorical
from tests.core.cases import default_dtype, name, packed, padded

K = 3
KINDS = [Categorical(K), Categorical(K, absorbing=True)]
SCHEDULES = [RectifiedFlow(), Cosine(), VP()]


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with default_dtype(torch.float64):
        yield


def kernel(process: Jump, t: float) -> Tensor:
    """q(x_t | x_0), (states, states)."""
    keep, prior = process.schedule.alpha(t), torch.zeros(process.space.states)
    prior[K if process.space.absorbing else slice(None)] = 1.0
    return keep * torch.eye(len(prior)) + (1 - keep) * prior / prior.sum()


def table(positions: int = 2, seed: int = 0) -> Tensor:
    """A joint law of classes that depend on each other."""
    generator = torch.Generator().manual_seed(seed)
    p = torch.rand(*[K] * positions, generator=generator) ** 3
    return p / p.sum()


def every(states: int, positions: int) -> Tensor:
    """All values of a sequence, (states^positions, positions)."""
    return torch.cartesian_prod(*[torch.arange(states)] * positions)


def marginal(process: Jump, joint: Tensor, t: float) -> Tensor:
    """The law of the noised sequences, flat."""
    step = kernel(process, t)[:K]
    return torch.einsum("ab,ax,by->xy", joint, step, step).flatten()


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
@pytest.mark.parametrize("space", KINDS, ids=name)
@pytest.mark.parametrize("t", [0.05, 0.4, 0.9])
def test_the_forward_kernel_solves_the_forward_equation(
    schedule: Schedule, space: Categorical, t: float
) -> None:
    process, h = Jump(schedule, space), 1e-4
    rates = process.rates(t)
    assert torch.allclose(rates.sum(-1), torch.zeros(space.states), rtol=0, atol=1e-12)
    assert bool((rates - rates.diag().diag() >= 0).all())
    slope = (kernel(process, t + h) - kernel(process, t - h)) / (2 * h)
    assert torch.allclose(slope, kernel(process, t) @ rates, rtol=0, atol=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_the_rate_is_how_fast_the_logarithm_of_survival_falls(schedule: Schedule) -> None:
    process, h = Jump(schedule, Categorical(K)), 1e-5
    for t in (0.1, 0.5, 0.8):
        fall = schedule.alpha(t - h).log() - schedule.alpha(t + h).log()
        assert float(process.rate(t)) == pytest.approx(float(fall) / (2 * h), rel=1e-6)


def test_rates_at_many_times_are_those_at_each() -> None:
    process, times = Jump(Cosine(), Categorical(K, absorbing=True)), torch.tensor([[0.1], [0.6]])
    both = process.rates(times)
    assert both.shape == (2, 1, K + 1, K + 1)
    for t, rates in zip(times.flatten().tolist(), both.flatten(0, 1), strict=True):
        assert torch.equal(rates, process.rates(t))


def test_nothing_can_survive_where_the_rate_is_infinite() -> None:
    assert float(Jump(RectifiedFlow(), Categorical(K)).rate(1.0)) == float("inf")


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
@pytest.mark.parametrize("space", KINDS, ids=name)
@pytest.mark.parametrize("t", [0.3, 0.8])
def test_the_posterior_of_a_short_step_is_one_jump_at_the_reverse_rates(
    schedule: Schedule, space: Categorical, t: float
) -> None:
    process, x_t = Jump(schedule, space), torch.arange(space.states)[:, None]
    p0 = table()[:1].expand(space.states, K) / table()[0].sum()
    if space.absorbing:  # a revealed class is its own
        p0 = torch.cat([torch.eye(K), p0[:1]])
    p0 = p0[:, None]
    here = torch.nn.functional.one_hot(x_t, space.states)
    rates = process.reverse_rates(x_t, p0, t)
    assert torch.allclose(rates.sum(-1), torch.zeros(()), rtol=0, atol=1e-12)
    steps = torch.tensor([4e-3, 2e-3, 1e-3, 5e-4])
    rest = torch.zeros(len(steps))
    for i, h in enumerate(steps.tolist()):
        keep_t, keep_s = float(schedule.alpha(t)), float(schedule.alpha(t - h))
        exact = process.posterior(x_t, p0, keep_t, keep_s)
        rest[i] = (exact - here - h * rates).abs().max()
    if float(rest.max()) > 1e-13:  # a linear schedule's masks: no remainder at all
        assert ((rest[:-1] / rest[1:]).log2() - 2).abs().max() < 0.1, rest


@pytest.mark.parametrize("space", KINDS, ids=name)
@pytest.mark.parametrize("t", [0.2, 0.7])
def test_the_exact_reverse_rates_undo_the_forward_process(space: Categorical, t: float) -> None:
    """The law of whole sequences falls back along the rates of their elements: -dp_t/dt = p_t R_t."""
    process, joint, h = Jump(Cosine(), space), table(), 1e-4
    x, n = every(space.states, 2), space.states
    p0 = Sequences(joint, process)(x, torch.tensor(t)).x0
    assert isinstance(p0, Tensor)
    rates = process.reverse_rates(x, p0, t)
    eye = torch.eye(n)
    first = torch.einsum("abc,bd->abcd", rates[:, 0].reshape(n, n, n), eye)
    second = torch.einsum("abd,ac->abcd", rates[:, 1].reshape(n, n, n), eye)
    generator = (first + second).reshape(n * n, n * n)
    slope = (marginal(process, joint, t - h) - marginal(process, joint, t + h)) / (2 * h)
    assert torch.allclose(slope, marginal(process, joint, t) @ generator, rtol=0, atol=1e-6)


@pytest.mark.parametrize("t", [0.05, 0.7, 0.99])
def test_ratios_are_those_of_the_noised_law(t: float) -> None:
    """The concrete score: p_t(x with y in one place) / p_t(x)."""
    process, joint = Jump(RectifiedFlow(), Categorical(K)), table()
    x, p_t = every(K, 2), marginal(process, joint, t).reshape(K, K)
    p0 = Sequences(joint, process)(x, torch.tensor(t)).x0
    assert isinstance(p0, Tensor)
    keep = process.schedule.alpha(t)
    got = process.ratios(x, p0, keep, Dense(len(x))).reshape(K, K, 2, K)
    first, second = p_t.T[None].expand(K, K, K), p_t[:, None].expand(K, K, K)
    want = torch.stack([first, second], 2) / p_t[:, :, None, None]
    assert torch.allclose(got, want, rtol=1e-9)


@pytest.mark.parametrize("space", KINDS, ids=name)
def test_reverse_rates_of_a_batch_are_those_of_each_sample_in_every_layout(
    space: Categorical,
) -> None:
    generator = torch.Generator().manual_seed(1)
    process, times = Jump(Cosine(), space), torch.tensor([0.2, 0.9, 0.5])
    x = [torch.randint(space.states, (n,), generator=generator) for n in (3, 1, 2)]
    p0 = [torch.rand(len(v), K, generator=generator).softmax(-1) for v in x]
    alone = [
        process.reverse_rates(v[None], p[None], t)[0] for v, p, t in zip(x, p0, times, strict=True)
    ]
    rows, layout = packed(x)
    together = process.reverse_rates(rows, torch.cat(p0), times, layout)
    assert torch.allclose(together, torch.cat(alone), rtol=1e-12, atol=1e-12)
    each = process.reverse_rates(rows, torch.cat(p0), times[layout.index], layout)
    assert torch.equal(each, together)
    field, masked = padded(x)
    for garbage in (-1, 10**6):
        dirty = torch.where(masked.mask, field, garbage)
        probs = torch.full((*field.shape, K), float("nan"))
        probs[masked.mask] = torch.cat(p0)
        got = process.reverse_rates(dirty, probs, times, masked)[masked.mask]
        assert torch.allclose(got, together, rtol=1e-12, atol=1e-12)


def test_a_revealed_class_never_jumps_back() -> None:
    process = Jump(Cosine(), Categorical(K, absorbing=True))
    rates = process.reverse_rates(torch.tensor([[0, 2]]), torch.rand(1, 2, K), 0.5)
    assert bool((rates == 0).all())
