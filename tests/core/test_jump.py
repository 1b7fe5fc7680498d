"""Jump processes against Bayes' rule, written out over all classes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import final

import pytest
import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.grid import Times
from sciffusion.layout import Dense
from sciffusion.noise import Noise
from sciffusion.oracle import Categorical as CategoricalOracle
from sciffusion.process import Gaussian, Joint, Jump
from sciffusion.samplers import DDIM, Heun, Multistep, Restart, Sampler
from sciffusion.schedule import VE, VP, Cosine, Polynomial, RectifiedFlow, Schedule
from sciffusion.solver import Level, Rule, Solver
from sciffusion.space import Categorical
from sciffusion.state import State, Value
from tests.core.cases import SOLVERS, allowed, name, packed, padded

K = 3
PROBS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
KINDS = [Categorical(K), Categorical(K, absorbing=True)]


def forward(space: Categorical, keep: float) -> Tensor:
    """q(x_t | x_0), (states, states); a mask stays a mask."""
    prior = torch.zeros(space.states, dtype=torch.float64)
    if space.absorbing:
        prior[K] = 1.0
    else:
        prior[:] = 1 / K
    return keep * torch.eye(space.states, dtype=torch.float64) + (1 - keep) * prior


def chi2(counts: Tensor, probs: Tensor) -> float:
    want = probs * counts.sum()
    return float(((counts - want) ** 2 / want)[probs > 0].sum())


@pytest.mark.parametrize("space", KINDS, ids=name)
@pytest.mark.parametrize("t", [0.0, 0.2, 0.7, 1.0])
def test_noised_classes_have_the_marginals_of_the_process(space: Categorical, t: float) -> None:
    n, process = 30_000, Jump(RectifiedFlow(), space)
    for x0 in range(K):
        x_t = process.perturb(torch.full((3, n), x0), torch.tensor(t), Noise(x0)).x_t
        assert isinstance(x_t, Tensor)
        counts = torch.bincount(x_t.flatten(), minlength=space.states).double()
        probs = forward(space, 1 - t)[x0]
        assert counts[probs == 0].sum() == 0
        assert chi2(counts, probs) < 25  # at most three degrees of freedom


@pytest.mark.parametrize("space", KINDS, ids=name)
@pytest.mark.parametrize(
    ("keep_t", "keep_s"), [(0.1, 0.4), (0.0, 0.5), (0.3, 1.0), (0.0, 1.0), (0.6, 0.61)]
)
def test_the_posterior_is_bayes_rule_over_the_joint(
    space: Categorical, keep_t: float, keep_s: float
) -> None:
    p0 = torch.tensor([[0.7, 0.1, 0.2], [0.2, 0.2, 0.6]], dtype=torch.float64)
    to_s, to_t = forward(space, keep_s)[:K], forward(space, keep_t)[:K]
    s_to_t = forward(space, keep_t / keep_s)
    process = Jump(RectifiedFlow(), space)
    for x_t in range(space.states):
        possible = to_t[:, x_t] > 0
        for p in p0 if bool(possible.any()) else []:
            # p(x_s | x_t) = sum_x0 p(x0 | x_t) q(x_s | x0) q(x_t | x_s) / q(x_t | x0), where q(x_t | x0) > 0
            given = p * possible / (p * possible).sum()
            joint = to_s * s_to_t[:, x_t] / to_t[:, x_t].clamp(min=1e-300)[:, None]
            want = (given[:, None] * joint).sum(0)
            got = process.posterior(torch.tensor([x_t]), given[None], keep_t, keep_s)[0]
            assert torch.allclose(got, want, rtol=0, atol=1e-10)


@pytest.mark.parametrize("space", KINDS, ids=name)
@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_sampling_the_exact_posterior_gives_the_data_at_any_number_of_steps(
    space: Categorical, steps: int
) -> None:
    process = Jump(Cosine(), space)
    oracle = CategoricalOracle(PROBS, process)
    start = process.prior(torch.zeros(2, 10_000, dtype=torch.long), Noise(0))
    x = Sampler(DDIM(), steps)(oracle, start, 1).x
    assert isinstance(x, Tensor) and int(x.max()) < K
    assert chi2(torch.bincount(x.flatten(), minlength=K).double(), PROBS) < 20


@pytest.mark.parametrize("solver", SOLVERS, ids=name)
def test_no_mask_remains_whatever_the_solver(solver: Solver) -> None:
    process = Jump(RectifiedFlow(), Categorical(K, absorbing=True))
    oracle = CategoricalOracle(PROBS, process)
    start = process.prior(torch.zeros(2, 4000, dtype=torch.long), Noise(0))
    for steps in allowed(solver, 1, 2, 3, 8):
        x = Sampler(solver, steps)(oracle, start, 1).x
        assert isinstance(x, Tensor) and int(x.max()) < K
        assert chi2(torch.bincount(x.flatten(), minlength=K).double(), PROBS) < 20


def test_padded_and_packed_classes_are_the_same_sample() -> None:
    samples = [torch.zeros(n, dtype=torch.long) for n in (5, 2, 3)]
    process = Jump(Cosine(), Categorical(K))
    oracle, sampler, seeds = CategoricalOracle(PROBS, process, "k"), Sampler(DDIM(), 6), [4, 7, 1]
    joint = Joint({"k": process})
    oracle.process = joint
    (field, masked), (rows, index) = padded(samples), packed(samples)
    out = []
    for x, layout in ((field, masked), (rows, index)):
        start = joint.prior(State({"k": x}, layout), Noise(seeds))
        done = sampler(oracle, start, seeds).x
        assert isinstance(done, State)
        out.append(done["k"])
    assert torch.equal(out[0][masked.mask], out[1])
    assert bool((out[0][~masked.mask] == 0).all())


class Recorder(Denoiser):
    """Keeps what the inner denoiser saw."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__()
        self.inner, self.process = inner, inner.process
        self.seen: list[tuple[float, Value]] = []

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        self.seen.append((float(t.flatten()[0]), x_t))
        return self.inner(x_t, t)


@pytest.mark.parametrize("space", KINDS, ids=name)
@pytest.mark.parametrize("solver", SOLVERS, ids=name)
def test_the_classes_shown_are_noised_to_the_time_that_is_told(
    solver: Solver, space: Categorical
) -> None:
    process = Jump(RectifiedFlow(), space)
    recorder, n = Recorder(CategoricalOracle(PROBS, process)), 20_000
    x0 = torch.multinomial(
        PROBS, 2 * n, replacement=True, generator=torch.Generator().manual_seed(0)
    )
    start = process.perturb(x0.reshape(2, n), torch.tensor(0.9), Noise(0)).x_t
    Sampler(solver, 3, start=0.9)(recorder, start, 1)
    assert recorder.seen[0][0] >= 0.9
    for t, x in recorder.seen:
        assert isinstance(x, Tensor)
        probs = PROBS @ forward(space, 1 - t)[:K]
        counts = torch.bincount(x.flatten(), minlength=space.states).double()
        assert chi2(counts, probs) < 25, (t, counts, probs)


@final
class Zigzag(Solver):
    """Evaluates at the start of a step, below its end, above it again, and at that same time once more."""

    order = 1
    evaluations = 4

    @property
    def stochastic(self) -> bool:
        return True

    def nodes(
        self, clock: Schedule, t: float, s: float | None, steps: int, past: Sequence[float]
    ) -> tuple[float, ...]:
        low, high = 0.5 * (s or 0.1), 0.6 * t + 0.4 * (s or 0.1)
        return t, low, high, high

    def rules(self, nodes: Sequence[Level], past: Sequence[Level], end: Level) -> tuple[Rule, ...]:
        return (Rule(1.0, ()),) * 4


@pytest.mark.parametrize("own_grids", [False, True])
@pytest.mark.parametrize("space", KINDS, ids=name)
@pytest.mark.parametrize("way", ["restart", "zigzag"])
def test_classes_that_are_noised_again_on_the_way_have_the_law_of_their_time(
    space: Categorical, way: str, own_grids: bool
) -> None:
    process, n = Jump(RectifiedFlow(), space), 20_000
    recorder = Recorder(CategoricalOracle(PROBS, process))
    times = torch.tensor([0.9, 0.7, 0.4, 0.0], dtype=torch.float64)
    grid = Times(times.expand(2, -1) if own_grids else times)
    restarts = (Restart(0.4, 0.8, 2),) if way == "restart" else ()
    solver = Zigzag() if way == "zigzag" else DDIM()
    sampler = Sampler(solver, 3, grid, start=0.9, restarts=restarts)
    x0 = torch.multinomial(
        PROBS, 2 * n, replacement=True, generator=torch.Generator().manual_seed(0)
    )
    start = process.perturb(x0.reshape(2, n), torch.tensor(0.9), Noise(0)).x_t
    done = sampler(recorder, start, 1).x
    assert isinstance(done, Tensor)
    seen = [*recorder.seen, (0.0, done)]
    told = [t for t, _ in seen]
    assert any(b > a for a, b in pairwise(told))
    for t, x in seen:
        assert isinstance(x, Tensor)
        probs = PROBS @ forward(space, 1 - t)[:K]
        counts = torch.bincount(x.flatten(), minlength=space.states).double()
        assert chi2(counts, probs) < 25, (t, counts, probs)


class Molecules(Denoiser):
    """The exact denoiser of one point whose class k has the probability PROBS[k], and whose place is N(k, 0.1)."""

    variance = 0.1

    def __init__(self, process: Joint) -> None:
        super().__init__()
        self.process = process

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        assert isinstance(x_t, State)
        pos, kind = x_t["pos"], x_t["kind"]
        alpha, sigma = self.process.field("pos").schedule(t)
        jump = self.process.field("kind")
        assert isinstance(jump, Jump)
        keep = float(jump.schedule.alpha(t))
        centre, spread = torch.arange(K, dtype=torch.float64), alpha**2 * self.variance + sigma**2
        off = pos - alpha * centre  # (B, K)
        log_p = -0.5 * off**2 / spread + (PROBS * forward(jump.space, keep)[:K].T[kind[:, 0]]).log()
        p = log_p.softmax(-1)
        x0 = (p * (centre + alpha * self.variance / spread * off)).sum(-1, keepdim=True)
        return Prediction(x_t.replace({"pos": x0, "kind": p[:, None]}), x_t, t, self.process)


@pytest.mark.parametrize("space", KINDS, ids=name)
@pytest.mark.parametrize("solver", [DDIM(), Multistep(2), Heun()], ids=name)
def test_a_class_and_a_place_that_depend_on_each_other_are_sampled_together(
    space: Categorical, solver: Solver
) -> None:
    process = Joint({"pos": Gaussian(RectifiedFlow()), "kind": Jump(Cosine(), space)})
    n = 8000
    like = State(
        {
            "pos": torch.zeros(n, 1, dtype=torch.float64),
            "kind": torch.zeros(n, 1, dtype=torch.long),
        },
        Dense(n),
    )
    x = Sampler(solver, 60)(Molecules(process), process.prior(like, Noise(0)), 1).x
    assert isinstance(x, State)
    kinds, pos = x["kind"][:, 0], x["pos"][:, 0]
    assert chi2(torch.bincount(kinds, minlength=K).double(), PROBS) < 40
    for k in range(K):
        here = pos[kinds == k]
        assert abs(float(here.mean()) - k) < 0.05
        assert float(here.var()) == pytest.approx(0.1, rel=0.2)


def test_a_mask_in_the_data_and_classes_out_of_range_are_refused() -> None:
    process = Jump(RectifiedFlow(), Categorical(K, absorbing=True))
    with pytest.raises(ValueError, match=r"holds 0\.\.2"):
        process.perturb(torch.tensor([[0, K]]), torch.tensor(0.5), Noise(0))
    molecule = State({"kind": torch.zeros(1, 2)}, Dense(1))
    with pytest.raises(ValueError, match=r"field 'kind': a categorical field holds integers"):
        Joint({"kind": process}).perturb(molecule, torch.tensor(0.5), Noise(0))


def test_padding_may_hold_any_integer() -> None:
    field, layout = padded([torch.tensor([0, 1]), torch.tensor([2])])
    joint = Joint({"k": Jump(RectifiedFlow(), Categorical(K))})
    clean = joint.perturb(State({"k": field}, layout), torch.tensor(0.5), Noise(0))
    for garbage in (-1, 10**6):
        dirty = State({"k": torch.where(layout.mask, field, garbage)}, layout)
        noised = joint.perturb(dirty, torch.tensor(0.5), Noise(0))
        assert isinstance(noised.x_t, State) and isinstance(clean.x_t, State)
        assert torch.equal(noised.x_t["k"], clean.x_t["k"])


def test_a_network_is_shown_the_same_whatever_the_padding_holds() -> None:
    field, layout = padded([torch.tensor([0, 1]), torch.tensor([2])])
    for space in KINDS:
        process = Jump(RectifiedFlow(), space)
        shown = [
            process.show(torch.where(layout.mask, field, fill), torch.tensor(0.5), layout, 1.0)[0]
            for fill in (0, -1, 10**6)
        ]
        assert torch.equal(shown[0], shown[1]) and torch.equal(shown[0], shown[2])
        assert bool((shown[0][~layout.mask] == 0).all())


@pytest.mark.parametrize(
    "schedule",
    [RectifiedFlow(), Cosine(), VP(), Polynomial(), RectifiedFlow().shift(2.0)],
    ids=name,
)
def test_the_time_of_a_survival_is_found(schedule: Schedule) -> None:
    process = Jump(schedule, Categorical(K))
    times = torch.tensor([[1e-4, 0.2], [0.5, 0.999]], dtype=torch.float64)
    assert torch.allclose(process.time(schedule.alpha(times)), times, rtol=1e-9, atol=1e-9)
    ends = process.time(torch.tensor([1.5, -0.5]))
    assert ends.tolist() == [0.0, 1.0]


def test_schedules_that_keep_the_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="alpha falls from 1 to 0"):
        Jump(VE(), Categorical(K))


def test_a_mask_is_shown_to_a_network_as_no_class() -> None:
    process = Jump(RectifiedFlow(), Categorical(K, absorbing=True))
    shown = process.one_hot(torch.tensor([1, K]), torch.float64)
    assert shown.tolist() == [[0, 1, 0], [0, 0, 0]]


def test_the_rate_of_loss_is_that_of_the_schedule() -> None:
    """Two noisings in a row, to s and then to t, are one noising to t."""
    space = Categorical(K)
    process, layout = Jump(Cosine(), space), Dense(1)
    s, t = float(Cosine().alpha(0.3)), float(Cosine().alpha(0.7))
    both = forward(space, s) @ forward(space, t / s)
    assert torch.allclose(both, forward(space, t), rtol=0, atol=1e-12)
    x = torch.zeros(1, 60_000, dtype=torch.long)
    x_s, _, _ = process.perturb_field(x, torch.tensor(0.3), layout, Noise(0), None)
    lifted = process.lift((t / s, ()), x_s, layout, Noise(1))
    assert chi2(torch.bincount(lifted.flatten(), minlength=K).double(), forward(space, t)[0]) < 20
