"""First-hitting sampling: exact in law after one call a mask, sample by sample, in every layout."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.layout import Dense
from sciffusion.noise import Noise
from sciffusion.oracle import Categorical as CategoricalOracle
from sciffusion.oracle_jump import Sequences
from sciffusion.process import Gaussian, Joint, Jump
from sciffusion.samplers import FirstHitting
from sciffusion.schedule import VP, Cosine, RectifiedFlow, Schedule
from sciffusion.space import Categorical
from sciffusion.state import State, Value
from tests.core.cases import default_dtype, name, packed, padded

K = 3
MASK = Categorical(K, absorbing=True)
PROBS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with default_dtype(torch.float64):
        yield


def table(positions: int, seed: int = 0) -> Tensor:
    """A joint law of classes that depend on each other."""
    p = torch.rand(*[K] * positions, generator=torch.Generator().manual_seed(seed)) ** 3
    return p / p.sum()


def chi2(oracle: Sequences, x: Value, want: Tensor) -> float:
    assert isinstance(x, Tensor)
    counts = torch.bincount(oracle.index(x), minlength=len(want))
    return float(((counts - len(x) * want) ** 2 / (len(x) * want)).sum())


@pytest.mark.parametrize("schedule", [RectifiedFlow(), Cosine(), VP()], ids=name)
@pytest.mark.parametrize("positions", [1, 2, 3])
def test_samples_follow_the_data_after_as_many_calls_as_masks(
    schedule: Schedule, positions: int
) -> None:
    oracle, n = Sequences(table(positions), Jump(schedule, MASK)), 20_000
    done = FirstHitting()(oracle, torch.full((n, positions), K), 1)
    assert done.nfe == positions
    freedom = K**positions - 1
    assert chi2(oracle, done.x, oracle.probs) < freedom + 5 * (2 * freedom) ** 0.5


def test_masks_lifted_together_are_drawn_as_if_independent() -> None:
    """All in one call: the law is the product of the marginals, far from the data."""
    oracle, n = Sequences(table(2), Jump(Cosine(), MASK)), 20_000
    done = FirstHitting(together=2)(oracle, torch.full((n, 2), K), 1)
    assert done.nfe == 1
    joint = oracle.probs.reshape(K, K)
    product = (joint.sum(1, keepdim=True) * joint.sum(0)).flatten()
    assert chi2(oracle, done.x, product) < 8 + 5 * 4
    assert chi2(oracle, done.x, oracle.probs) > 200


@pytest.mark.parametrize(("together", "calls"), [(1, 5), (2, 3), (3, 2), (5, 1), (9, 1)])
def test_the_calls_are_the_masks_of_the_fullest_sample_shared_out(
    together: int, calls: int
) -> None:
    oracle = CategoricalOracle(PROBS, Jump(Cosine(), MASK))
    start = torch.tensor([[0, K, 1, 2, K], [K, K, K, K, K], [0, 0, 1, 1, 2]])
    done = FirstHitting(together)(oracle, start, 0, path=True)
    assert done.nfe == calls and len(done.path) == calls + 1
    for before, after in pairwise(done.path):
        assert isinstance(before, Tensor) and isinstance(after, Tensor)
        left = (before == K).sum(1)
        assert torch.equal((after == K).sum(1), (left - together).clamp(min=0))
        assert torch.equal(after[before < K], before[before < K])


def test_nothing_is_called_when_nothing_is_masked() -> None:
    start = torch.tensor([[0, 1], [2, 2]])
    done = FirstHitting()(CategoricalOracle(PROBS, Jump(Cosine(), MASK)), start, 0)
    assert done.nfe == 0 and torch.equal(torch.as_tensor(done.x), start)


def test_what_is_known_is_completed_by_the_conditional_law() -> None:
    oracle, n = Sequences(table(3), Jump(Cosine(), MASK)), 20_000
    start = torch.tensor([K, 1, K]).expand(n, 3)
    x = FirstHitting()(oracle, start, 3).x
    assert isinstance(x, Tensor) and bool((x[:, 1] == 1).all())
    want = oracle.probs.reshape(K, K, K)[:, 1].flatten()
    counts = torch.bincount(x[:, 0] * K + x[:, 2], minlength=K * K)
    want = n * want / want.sum()
    assert float(((counts - want) ** 2 / want).sum()) < 8 + 5 * 4


class Clocked(Denoiser):
    """Keeps the times and values that the inner denoiser saw."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__()
        self.inner, self.process = inner, inner.process
        self.times: list[Tensor] = []
        self.previous: list[Value | None] = []

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        self.times.append(t)
        self.previous.append(previous)
        return self.inner(x_t, t)


@pytest.mark.parametrize("start", [1.0, 0.6])
@pytest.mark.parametrize("schedule", [RectifiedFlow(), VP()], ids=name)
def test_each_mask_is_lifted_when_its_process_would(schedule: Schedule, start: float) -> None:
    """The survival lost at the events is that lost at the start times ordered uniform numbers."""
    n = 4000
    denoiser = Clocked(CategoricalOracle(PROBS, Jump(schedule, MASK)))
    FirstHitting(start=start)(denoiser, torch.full((n, 3), K), 2)
    times = torch.stack(denoiser.times)  # (3, n)
    assert bool((times.diff(dim=0) <= 0).all()) and float(times.max()) <= start
    lost = (1 - schedule.alpha(times)) / (1 - schedule.alpha(start))
    # the l-th largest of three uniform numbers: means 3/4, 2/4, 1/4, variances of Beta laws
    assert torch.allclose(lost.mean(1), torch.tensor([0.75, 0.5, 0.25]), rtol=0, atol=0.015)
    want = torch.tensor([3.0, 4.0, 3.0]) / 80
    assert torch.allclose(lost.var(1), want, rtol=0.1)


def test_a_sample_that_is_done_waits_and_the_last_prediction_is_handed_on() -> None:
    denoiser = Clocked(CategoricalOracle(PROBS, Jump(Cosine(), MASK)))
    start, seen = torch.tensor([[K, 0, 0], [K, K, K], [0, 0, 0]]), []
    FirstHitting(start=0.8)(denoiser, start, 0, callback=lambda x, t: seen.append((x, t)))
    times = torch.stack(denoiser.times)
    assert torch.equal(times, torch.stack([t for _, t in seen]))
    assert times[0, 0] == times[1, 0] == times[2, 0] < 0.8
    assert bool((times[:, 1].diff() < 0).all())
    assert times[:, 2].tolist() == [0.8] * 3
    assert [p is None for p in denoiser.previous] == [True, False, False]


def test_a_sample_is_the_same_alone_and_in_a_batch() -> None:
    oracle, seeds = Sequences(table(3), Jump(Cosine(), MASK)), [5, 9, 1]
    start = torch.tensor([[K, K, K], [0, K, K], [K, 1, 2]])
    together = FirstHitting()(oracle, start, seeds).x
    assert isinstance(together, Tensor)
    for i, seed in enumerate(seeds):
        alone = FirstHitting()(oracle, start[i : i + 1], [seed]).x
        assert isinstance(alone, Tensor) and torch.equal(alone[0], together[i])


@pytest.mark.parametrize("together", [1, 2])
@pytest.mark.parametrize("fill", [-1, 0, K, 10**6])
def test_padded_and_packed_samples_are_those_alone_whatever_the_padding_holds(
    fill: int, together: int
) -> None:
    samples = [torch.full((4,), K), torch.tensor([K, 1]), torch.full((3,), K)]
    process, seeds = Joint({"k": Jump(Cosine(), MASK)}), [4, 7, 1]
    oracle, sampler = Anything(process), FirstHitting(together)
    alone = []
    for x, seed in zip(samples, seeds, strict=True):
        done = sampler(oracle, State({"k": x[None]}, Dense(1)), [seed]).x
        assert isinstance(done, State)
        alone.append(done["k"][0])
    (field, masked), (rows, index) = padded(samples), packed(samples)
    done = sampler(oracle, State({"k": rows}, index), seeds).x
    assert isinstance(done, State) and torch.equal(done["k"], torch.cat(alone))
    dirty = State({"k": torch.where(masked.mask, field, fill)}, masked)
    result = sampler(oracle, dirty, seeds)
    assert isinstance(result.x, State)
    assert result.nfe == -(-4 // together)
    assert torch.equal(result.x["k"][masked.mask], torch.cat(alone))
    assert bool((result.x["k"][~masked.mask] == 0).all())


class Anything(Denoiser):
    """The same probabilities everywhere, and no numbers in the padding of any field."""

    def __init__(self, process: Joint) -> None:
        super().__init__()
        self.process = process

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        assert isinstance(x_t, State)
        out = {}
        for k, x in x_t.items():
            valid = x_t.layout(k).clean(torch.ones_like(x, dtype=torch.bool))
            out[k] = torch.where(valid[..., None], PROBS, torch.nan)
        return Prediction(x_t.replace(out), x_t, t, self.process)


def test_fields_of_a_state_are_lifted_in_the_order_of_their_times() -> None:
    """Two masked fields with schedules of their own: one mask of a sample a call, of whichever field."""
    process, n = Joint({"a": Jump(RectifiedFlow(), MASK), "b": Jump(VP(), MASK)}), 5000
    state = State({"a": torch.full((n, 2), K), "b": torch.full((n, 1), K)}, Dense(n))
    done = FirstHitting()(Anything(process), state, 0, path=True)
    assert done.nfe == 3
    for i, x in enumerate(done.path):
        assert isinstance(x, State)
        left = (x["a"] == K).sum(1) + (x["b"] == K).sum(1)
        assert left.tolist() == [3 - i] * n
    first = done.path[1]
    assert isinstance(first, State)
    jump, lost = process.field("b"), (torch.arange(1000) + 0.5) / 1000
    assert isinstance(jump, Jump)
    # b comes first where both masks of a, whose times are uniform, lie below its own
    want = float((jump.time(1 - lost) ** 2).mean())
    assert float((first["b"] < K).double().mean()) == pytest.approx(want, abs=0.025)
    assert abs(want - 1 / 3) > 0.1
    result = done.x
    assert isinstance(result, State) and int(max(result["a"].max(), result["b"].max())) < K


@pytest.mark.parametrize("other", [Gaussian(RectifiedFlow()), Jump(Cosine(), Categorical(K))])
def test_a_field_without_masks_is_refused_by_name(other: Gaussian | Jump) -> None:
    process = Joint({"k": Jump(Cosine(), MASK), "other": other})
    x = torch.zeros(2, 2, dtype=torch.long if isinstance(other, Jump) else torch.float64)
    state = State({"k": torch.full((2, 2), K), "other": x}, Dense(2))
    with pytest.raises(ValueError, match="field 'other' has no masks to lift.*use Sampler"):
        FirstHitting()(Anything(process), state, 0)


def test_uniform_classes_are_refused() -> None:
    oracle = CategoricalOracle(PROBS, Jump(Cosine(), Categorical(K)))
    with pytest.raises(ValueError, match="no masks to lift"):
        FirstHitting()(oracle, torch.zeros(2, 2, dtype=torch.long), 0)


@pytest.mark.parametrize("together", [0, -1])
def test_lifting_none_at_a_time_is_refused(together: int) -> None:
    with pytest.raises(ValueError, match="together must be at least 1"):
        FirstHitting(together)


@pytest.mark.parametrize("start", [0.0, -0.5, 1.5, float("nan")])
def test_a_start_outside_the_times_is_refused(start: float) -> None:
    with pytest.raises(ValueError, match=r"start must lie in \(0, 1\]"):
        FirstHitting(start=start)


def test_as_many_seeds_as_samples_are_wanted() -> None:
    oracle = CategoricalOracle(PROBS, Jump(Cosine(), MASK))
    with pytest.raises(ValueError, match="seed has 2 entries for a batch of 3"):
        FirstHitting()(oracle, torch.full((3, 2), K), [1, 2])


def test_the_samples_do_not_depend_on_a_running_generator() -> None:
    oracle, start = CategoricalOracle(PROBS, Jump(Cosine(), MASK)), torch.full((5, 4), K)
    first = FirstHitting()(oracle, start, 3).x
    torch.rand(7)
    assert torch.equal(
        torch.as_tensor(first), torch.as_tensor(FirstHitting()(oracle, start, Noise(3)).x)
    )
