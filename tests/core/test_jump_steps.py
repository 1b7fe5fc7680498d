"""Rules for a step of jump fields: their law written out over all sequences, their order, and what they leave alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.grid import Times, Uniform
from sciffusion.layout import Dense
from sciffusion.noise import Noise
from sciffusion.oracle import Categorical as CategoricalOracle
from sciffusion.oracle_jump import Sequences
from sciffusion.process import Confident, ExactStep, Joint, Jump, JumpStep, Process, TauLeap
from sciffusion.process.jump_steps import IndependentStep, pick, ranks
from sciffusion.samplers import DDIM, Sampler
from sciffusion.schedule import VP, Cosine, RectifiedFlow, Schedule
from sciffusion.space import Categorical
from sciffusion.state import State, Value, layout_of
from tests.core.cases import default_dtype, name, packed, padded

K = 3
MASK, FLAT = Categorical(K, absorbing=True), Categorical(K)
RULES: list[tuple[JumpStep, Categorical]] = [
    (ExactStep(), MASK),
    (ExactStep(), FLAT),
    (TauLeap(), MASK),
    (TauLeap(), FLAT),
    (Confident(), MASK),
]


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with default_dtype(torch.float64):
        yield


def table(positions: int, seed: int = 0) -> Tensor:
    """A joint law of classes that depend on each other."""
    p = torch.rand(*[K] * positions, generator=torch.Generator().manual_seed(seed)) ** 3
    return p / p.sum()


def written_out(oracle: Sequences, steps: int) -> Tensor:
    """The law of a run on a uniform grid, over all values of a sequence: no sampling, a product of matrices."""
    process, n = oracle.jump, oracle.n
    assert isinstance(process.step, IndependentStep)
    states = process.space.states
    x = torch.cartesian_prod(*[torch.arange(states)] * n)
    law = torch.full((len(x),), 1 / len(x))
    if process.space.absorbing:
        law = (x == K).all(1).to(law)
    for t, s in pairwise(torch.linspace(1, 0, steps + 1).tolist()):
        p0 = oracle(x, torch.tensor(t)).x0
        assert isinstance(p0, Tensor)
        numbers = process.step.numbers(process.schedule, t, s or None)
        p = process.step.law(process, numbers, x, p0, Dense(len(x)))
        p[law == 0] = 0.0  # what no run comes to may be what no data explain
        move = torch.stack([p[:, i][:, x[:, i]] for i in range(n)]).prod(0)
        law = law @ move
        assert float(law.sum()) == pytest.approx(1.0)
    return law


def data(oracle: Sequences) -> Tensor:
    """The law of the data over all values of a noised sequence."""
    law = torch.zeros(*[oracle.jump.space.states] * oracle.n)
    law[(slice(K),) * oracle.n] = oracle.probs.reshape(*[K] * oracle.n)
    return law.flatten()


def distance(p: Tensor, q: Tensor) -> float:
    """Total variation."""
    return 0.5 * float((p - q).abs().sum())


@pytest.mark.parametrize("positions", [2, 3])
@pytest.mark.parametrize("schedule", [RectifiedFlow(), Cosine()], ids=name)
@pytest.mark.parametrize(("step", "space"), RULES[:4], ids=name)
def test_the_law_of_the_samples_comes_to_the_data_at_first_order(
    step: JumpStep, space: Categorical, schedule: Schedule, positions: int
) -> None:
    oracle = Sequences(table(positions), Jump(schedule, space, step))
    errors = torch.tensor([distance(written_out(oracle, n), data(oracle)) for n in (16, 32, 64)])
    slopes = (errors[:-1] / errors[1:]).log2()
    assert ((slopes - 1).abs() < 0.2).all(), (errors, slopes)
    assert 1e-4 < errors[-1] < 0.03


@pytest.mark.parametrize(("step", "space"), RULES[:4], ids=name)
@pytest.mark.parametrize("steps", [1, 5])
def test_no_mask_remains_and_no_noise(step: JumpStep, space: Categorical, steps: int) -> None:
    """Classes that never occur in the data do not occur in the samples, however few the steps."""
    joint = torch.zeros(K, K)
    joint[0, 1], joint[2, 1] = 0.3, 0.7
    oracle = Sequences(joint, Jump(Cosine(), space, step))
    law = written_out(oracle, steps)
    assert float(law[data(oracle) == 0].sum()) < 1e-12


@pytest.mark.parametrize("positions", [2])
@pytest.mark.parametrize(("step", "space"), RULES[:4], ids=name)
def test_the_sampler_draws_the_law_of_its_rule(
    step: JumpStep, space: Categorical, positions: int
) -> None:
    oracle, n = Sequences(table(positions), Jump(VP(), space, step)), 20_000
    start = oracle.jump.prior(torch.zeros(n, positions, dtype=torch.long), Noise(0))
    x = Sampler(DDIM(), 4, Uniform())(oracle, start, 1).x
    assert isinstance(x, Tensor)
    law = written_out(oracle, 4)[(data(oracle) > 0)]
    counts, want = torch.bincount(oracle.index(x), minlength=len(law)), law * n
    # eight degrees of freedom; the data are further away than that
    assert float(((counts - want) ** 2 / want).sum()) < 30
    assert float((n * (law - oracle.probs) ** 2 / oracle.probs).sum()) > 60


def test_independent_elements_are_exact_in_one_step_of_the_posterior_alone() -> None:
    p = torch.tensor([0.6, 0.3, 0.1])
    for space in (MASK, FLAT):
        for steps in (1, 3):
            oracle = Sequences(p[:, None] * p, Jump(Cosine(), space))
            assert distance(written_out(oracle, steps), data(oracle)) < 1e-4
    oracle = Sequences(p[:, None] * p, Jump(Cosine(), FLAT, TauLeap()))
    assert distance(written_out(oracle, 3), data(oracle)) > 0.01


@pytest.mark.parametrize(("step", "space"), [(s, c) for s, c in RULES if c.absorbing], ids=name)
def test_a_revealed_class_is_never_changed(step: JumpStep, space: Categorical) -> None:
    process = Jump(Cosine(), space, step)
    start = torch.randint(K + 1, (40, 3), generator=torch.Generator().manual_seed(0))
    path = Sampler(DDIM(), 7)(Sequences(table(3), process), start, 1, path=True).path
    for before, after in pairwise(path):
        assert isinstance(before, Tensor) and isinstance(after, Tensor)
        assert torch.equal(after[before < K], before[before < K])
    assert isinstance(path[-1], Tensor) and int(path[-1].max()) < K


class Sure(Denoiser):
    """Says of element i that it is one of its first ``choices[i]`` classes, evenly: as sure whatever is drawn."""

    def __init__(self, process: Process, choices: Tensor, field: str | None = None) -> None:
        super().__init__()
        self.process, self.field = process, field
        self.p = (torch.arange(int(choices.max()) + 1) < choices[..., None]) / choices[..., None]

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        x = self.process.fields(x_t)[self.field]
        p = self.p.expand(*x.shape, -1).clone()
        return Prediction(self.process.rebuild(x_t, {self.field: p}), x_t, t, self.process)


def test_the_surest_element_is_revealed_first_and_one_at_a_time() -> None:
    choices = torch.tensor([4, 1, 6, 2, 3])
    process = Jump(RectifiedFlow(), Categorical(7, absorbing=True), Confident(temperature=0.0))
    start = torch.full((50, 5), 7)
    path = Sampler(DDIM(), 5, Uniform())(Sure(process, choices), start, 0, path=True).path
    for done, x in enumerate(path):
        assert isinstance(x, Tensor)
        shown = torch.zeros(5, dtype=torch.bool)
        shown[choices.argsort()[:done]] = True
        assert torch.equal(x < 7, shown.expand(50, 5))
    assert isinstance(x, Tensor) and bool((x < choices).all())


@pytest.mark.parametrize("schedule", [RectifiedFlow(), Cosine(), VP()], ids=name)
def test_confident_steps_leave_as_many_masks_as_the_process_does(schedule: Schedule) -> None:
    process = Jump(schedule, Categorical(7, absorbing=True), Confident())
    choices, grid = torch.ones(20, dtype=torch.long), torch.linspace(1, 0, 8)
    choices[0] = 6
    start = torch.full((3, 20), 7)
    path = Sampler(DDIM(), 7, Uniform())(Sure(process, choices), start, 0, path=True).path
    for t, x in zip(grid[1:-1].tolist(), path[1:-1], strict=True):
        assert isinstance(x, Tensor)
        lost = 20 * float(1 - schedule.alpha(t))
        assert (x == 7).sum(1).tolist() == [math.floor(lost + 1e-6)] * 3
    assert isinstance(path[-1], Tensor) and int(path[-1].max()) < 7


def test_a_hot_temperature_reveals_in_random_order_and_a_cool_one_by_confidence() -> None:
    choices, first = torch.tensor([1, 2, 3, 4]), {}
    for temperature in (0.5, 1e6):
        rule = Confident(temperature)
        process = Jump(RectifiedFlow(), Categorical(5, absorbing=True), rule)
        start = torch.full((8000, 4), 5)
        path = Sampler(DDIM(), 4, Uniform())(Sure(process, choices), start, 0, path=True).path
        assert isinstance(path[1], Tensor)
        first[temperature] = (path[1] < 5).double().mean(0)
    assert torch.allclose(first[1e6], torch.full((4,), 0.25), rtol=0, atol=0.02)
    # adding Gumbel noise times tau s draws an element in proportion to p^(1 / (tau s)), s = 3/4 after one step
    want = choices.double() ** (-1 / (0.5 * 0.75))
    assert torch.allclose(first[0.5], want / want.sum(), rtol=0, atol=0.02)


def test_confident_samples_of_one_class_at_a_time_follow_the_data_when_hot() -> None:
    """Random order, one element a call: the chain rule, which is exact."""
    oracle = Sequences(table(2), Jump(RectifiedFlow(), MASK, Confident(1e9)))
    n = 20_000
    start = oracle.jump.prior(torch.zeros(n, 2, dtype=torch.long), Noise(0))
    x = Sampler(DDIM(), 2, Uniform())(oracle, start, 1).x
    assert isinstance(x, Tensor)
    counts = torch.bincount(oracle.index(x), minlength=K * K)
    assert float(((counts - n * oracle.probs) ** 2 / (n * oracle.probs)).sum()) < 30


@pytest.mark.parametrize("own_grids", [False, True])
@pytest.mark.parametrize(("step", "space"), RULES, ids=name)
def test_a_sample_is_the_same_alone_and_in_a_batch(
    step: JumpStep, space: Categorical, own_grids: bool
) -> None:
    process, seeds = Jump(Cosine(), space, step), [11, 5, 8, 2]
    oracle = Sequences(table(3), process)
    rows = torch.tensor(
        [[1, 0.8, 0.3, 0.0], [1, 0.5, 0.2, 0], [1, 0.9, 0.7, 0], [1, 0.99, 0.01, 0]]
    )
    rows = rows if own_grids else rows[:1].expand(4, 4)
    start = process.prior(torch.zeros(4, 3, dtype=torch.long), Noise(seeds))
    assert isinstance(start, Tensor)
    grid = Times(rows if own_grids else rows[0])
    path = Sampler(DDIM(), 3, grid)(oracle, start, seeds, path=True).path
    for i, seed in enumerate(seeds):
        alone = Sampler(DDIM(), 3, Times(rows[i]))(oracle, start[i : i + 1], [seed], path=True).path
        for a, b in zip(path, alone, strict=True):
            assert isinstance(a, Tensor) and isinstance(b, Tensor)
            assert torch.equal(a[i : i + 1], b)


@pytest.mark.parametrize("own_grids", [False, True])
@pytest.mark.parametrize(("step", "space"), RULES, ids=name)
def test_padded_and_packed_samples_are_those_alone_and_padding_says_nothing(
    step: JumpStep, space: Categorical, own_grids: bool
) -> None:
    samples = [torch.full((n,), K if space.absorbing else n % K) for n in (5, 2, 3)]
    process, seeds = Joint({"k": Jump(Cosine(), space, step)}), [4, 7, 1]
    oracle = CategoricalOracle(torch.tensor([0.5, 0.3, 0.2]), process, "k")
    rows = torch.tensor([[1, 0.8, 0.3, 0.0], [1, 0.5, 0.2, 0], [1, 0.9, 0.7, 0]])
    rows = rows if own_grids else rows[:1].expand(3, 4)
    sampler = Sampler(DDIM(), 3, Times(rows if own_grids else rows[0]))
    (field, masked), (flat, index) = padded(samples), packed(samples)
    alone = []
    for i, x in enumerate(samples):
        one = State({"k": x[None]}, Dense(1))
        done = Sampler(DDIM(), 3, Times(rows[i]))(oracle, one, seeds[i : i + 1]).x
        assert isinstance(done, State)
        alone.append(done["k"][0])
    done = sampler(oracle, State({"k": flat}, index), seeds).x
    assert isinstance(done, State) and torch.equal(done["k"], torch.cat(alone))
    for garbage in (0, 1, K - 1):
        dirty = torch.where(masked.mask, field, garbage)
        done = sampler(oracle, State({"k": dirty}, masked), seeds).x
        assert isinstance(done, State)
        assert torch.equal(done["k"][masked.mask], torch.cat(alone))
        assert bool((done["k"][~masked.mask] == 0).all())


@pytest.mark.parametrize("garbage", [-1, 10**6, K])
@pytest.mark.parametrize(("step", "space"), RULES, ids=name)
def test_a_rule_does_not_look_at_the_padding(
    step: JumpStep, space: Categorical, garbage: int
) -> None:
    """Classes, and probabilities that are no numbers."""
    process = Jump(Cosine(), space, step)
    x, layout = padded([torch.tensor([0, 1, K]), torch.tensor([K, 2])])
    x = x if space.absorbing else x.clamp(max=K - 1)
    p0 = torch.rand(*x.shape, K, generator=torch.Generator().manual_seed(0)).softmax(-1)
    out = []
    for fill, bad in ((0, 1 / K), (garbage, math.nan)):
        dirty = torch.where(layout.mask, x, fill)
        probs = torch.where(layout.mask[..., None], p0, bad)
        numbers = step.numbers(process.schedule, 0.8, 0.3)
        new = step(process, numbers, dirty, probs, layout, Noise([3, 4]))
        assert new.shape == x.shape
        out.append(new[layout.mask])
    assert torch.equal(*out)


def test_half_of_the_numbers_in_single_precision_never_pick_a_class_of_no_weight() -> None:
    p = torch.tensor([0.0, 0.3, 0.7, 0.0], dtype=torch.float32)
    for u in (0.0, 0.5, 1 - 2.0**-24, 1 - 2.0**-53, 1.0):
        assert int(pick(p, torch.tensor(u))) in (1, 2)


def test_ranks_count_within_each_owner_from_the_highest() -> None:
    score, owner = torch.tensor([3.0, 9.0, 1.0, 5.0, 7.0]), torch.tensor([0, 1, 0, 0, 2])
    assert ranks(score, owner, 2).tolist() == [1, 0, 2, 0, 0]


@pytest.mark.parametrize("temperature", [-0.1, math.inf, math.nan])
def test_a_temperature_below_zero_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must"):
        Confident(temperature)


def test_a_rule_for_masks_is_refused_without_them() -> None:
    with pytest.raises(ValueError, match="reveals masks.*absorbing=True"):
        Jump(Cosine(), FLAT, Confident())


@pytest.mark.parametrize(
    ("joint", "message"),
    [
        (torch.ones(2, 3) / 6, "one dimension of the field's classes per position"),
        (torch.ones(K, K), "sum to 1"),
        (torch.tensor([1.5, -0.5, 0.0]), "probabilities"),
    ],
)
def test_a_table_that_is_no_law_of_the_classes_is_refused(joint: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sequences(joint, Jump(Cosine(), MASK))


def test_samples_of_another_length_than_the_table_are_refused() -> None:
    oracle = Sequences(table(2), Jump(Cosine(), MASK))
    with pytest.raises(ValueError, match="must hold 2 elements"):
        oracle(torch.zeros(1, 3, dtype=torch.long), torch.tensor(0.5))


def test_the_table_is_the_same_denoiser_in_every_layout() -> None:
    process = Joint({"k": Jump(Cosine(), FLAT)})
    oracle, t = Sequences(table(2), process, "k"), torch.tensor([0.2, 0.6])
    x = torch.tensor([[0, 2], [1, 1]])
    want = oracle(State({"k": x}, Dense(2)), t).x0
    samples = list(x)
    for field, layout in (padded(samples), packed(samples)):
        state = State({"k": field}, layout)
        got = oracle(state, t).x0
        assert isinstance(got, State) and isinstance(want, State)
        valid = layout_of(state, "k").clean(torch.ones_like(field, dtype=torch.bool))
        assert torch.equal(got["k"][valid], want["k"].flatten(0, 1))
