"""Laws that hold for any shapes, dtypes, layouts, seeds, schedules and solvers, on cases drawn at random.

And what is refused, each with its message.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import get_args

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sciffusion.denoiser import Condition, Denoiser, Preconditioned, Prediction
from sciffusion.grid import FlowTime, Grid, LogSNR, Times, Uniform
from sciffusion.guidance import CFG
from sciffusion.layout import Dense, Layout, Masked, Packed
from sciffusion.likelihood import log_likelihood
from sciffusion.noise import Noise
from sciffusion.objective import LogitNormal, MinSNR, Objective, UniformTimes, Weight
from sciffusion.oracle import Gaussian as Exact
from sciffusion.process import Gaussian, Joint, Process, Target
from sciffusion.samplers import (
    DDIM,
    DEIS,
    LMS,
    Heun,
    Multistep,
    Restart,
    Sampler,
    SASolver,
    Singlestep,
    UniPC,
    invert,
)
from sciffusion.samplers.adaptive import Adaptive
from sciffusion.schedule import VP, Cosine, RectifiedFlow, Schedule
from sciffusion.solver import Solver
from sciffusion.state import State, Value, batch_of, cat, layout_of, take
from sciffusion.testing import Knows, spoil
from tests.core.cases import SCHEDULES, SOLVERS, dense, packed, padded, randn

KINDS = ("tensor", "dense", "masked", "packed")
TARGETS: tuple[Target, ...] = get_args(Target)
GRIDS: tuple[Grid, ...] = (FlowTime(), LogSNR(), Uniform())
FLOW = Gaussian(RectifiedFlow())


def law(examples: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The same cases every time, and no limit on a slow machine."""
    return settings(max_examples=examples, derandomize=True, deadline=None)


@dataclass(frozen=True)
class Batch:
    """A batch drawn at random: how it is laid out, and every sample's own fields."""

    kind: str
    samples: tuple[dict[str, Tensor], ...]

    def value(self, which: Sequence[int] | None = None) -> Value:
        """Some of the samples, in this order; padding holds NaN."""
        chosen = self.samples if which is None else [self.samples[i] for i in which]
        points = [s["points"] for s in chosen]
        if self.kind == "tensor":
            return torch.stack(points)
        lay = {"dense": dense, "masked": padded, "packed": packed}[self.kind]
        field, layout = lay(points)
        whole = torch.stack([s["whole"] for s in chosen])
        fields = {"points": field, "whole": whole}
        return State(fields, {"points": layout, "whole": Dense(len(chosen))})

    def process(self, schedule: Schedule, other: Schedule) -> Process:
        """One process for a tensor; one for each field of a state, with schedules of their own."""
        if self.kind == "tensor":
            return Gaussian(schedule)
        return Joint({"points": Gaussian(schedule), "whole": Gaussian(other)})

    @property
    def tolerance(self) -> float:
        """What rounding may change."""
        return 1e-9 if self.samples[0]["points"].dtype == torch.float64 else 2e-3


@st.composite
def batches(draw: st.DrawFn, kinds: Sequence[str] = KINDS) -> Batch:
    """One to four samples of ranks 0 to 3, of one size or ragged, in single or double precision."""
    kind = draw(st.sampled_from(kinds))
    n = draw(st.integers(1, 4))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    features = draw(st.lists(st.integers(1, 3), max_size=2))
    sizes = draw(st.lists(st.integers(1, 4), min_size=n, max_size=n))
    if kind in ("tensor", "dense"):
        sizes = sizes[:1] * n
    single = kind == "tensor" and draw(st.booleans()) and not features
    seed = draw(st.integers(0, 1000))
    samples = []
    for i, size in enumerate(sizes):
        shape = () if single else (size, *features)
        fields = {"points": randn(*shape, seed=seed + i, dtype=dtype)}
        fields["whole"] = randn(2, seed=seed - i - 1 + 5000, dtype=dtype)
        samples.append(fields)
    return Batch(kind, tuple(samples))


seeds = st.integers(0, 2**63 - 1)
schedules = st.sampled_from(SCHEDULES)
solvers = st.sampled_from(SOLVERS)
more = st.integers(0, 2)


class Mixing(Denoiser):
    """A smooth function of all points of a sample and of the time, and of no other sample."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        self.process = process

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        t, out = torch.as_tensor(t), {}
        mixed = torch.zeros(batch_of(x_t), dtype=torch.float64)
        for k, x in self.process.fields(x_t).items():
            mixed = mixed + layout_of(x_t, k).reduce(x.double(), "mean").tanh()
        for k, x in self.process.fields(x_t).items():
            layout = layout_of(x_t, k)
            slope = layout.expand((1 - 0.5 * t).to(x), x)
            out[k] = torch.tanh(0.5 * slope * x + layout.expand(0.2 * mixed.to(x), x))
        return Prediction(self.process.rebuild(x_t, out), x_t, t, self.process)


def fields(x: Value) -> dict[str | None, Tensor]:
    return {k: x[k] for k in x} if isinstance(x, State) else {None: x}


def parts(x: Value) -> list[list[Tensor]]:
    """Every sample's own fields, without padding."""
    columns = []
    for k, v in fields(x).items():
        layout = layout_of(x, k)
        if isinstance(layout, Masked):
            columns.append([row[m] for row, m in zip(v, layout.mask, strict=True)])
        elif isinstance(layout, Packed):
            columns.append([v[layout.index == i] for i in range(layout.batch)])
        else:
            columns.append(list(v))
    return [list(sample) for sample in zip(*columns, strict=True)]


def assert_same(got: Value, want: Value, tol: float = 0.0) -> None:
    """Equal samples, whatever lies in the padding."""
    a, b = parts(got), parts(want)
    assert len(a) == len(b)
    for left, right in zip(a, b, strict=True):
        for u, v in zip(left, right, strict=True):
            assert u.shape == v.shape and u.dtype == v.dtype
            assert torch.allclose(u, v, rtol=tol, atol=tol), f"{u} is not {v}"


def run(
    solver: Solver, grid: Grid, extra: int, process: Process, x: Value, seed: Sequence[int]
) -> Value:
    """Some steps from the prior."""
    noise = Noise(seed)
    sampler = Sampler(solver, solver.fewest + extra, grid)
    return sampler(Mixing(process), process.prior(x, noise), noise).x


# --- samplers --------------------------------------------------------------------------------


@law(60)
@given(batches(), solvers, schedules, schedules, st.sampled_from(GRIDS), more, seeds)
def test_a_sample_has_the_shape_and_dtype_of_its_start_and_is_finite(
    batch: Batch,
    solver: Solver,
    first: Schedule,
    second: Schedule,
    grid: Grid,
    extra: int,
    seed: int,
) -> None:
    process, like = batch.process(first, second), batch.value()
    start = process.prior(like, Noise(seed))
    before = {k: v.clone() for k, v in fields(start).items()}
    sampler = Sampler(solver, solver.fewest + extra, grid)
    out = sampler(Mixing(process), start, seed, path=True)
    assert isinstance(out.x, State) == isinstance(like, State)
    assert len(out.path) == sampler.steps + 1
    assert out.nfe == sum(len(w.nodes) for w in sampler.windows(process))
    for value in (*out.path, out.x):
        for k, v in fields(value).items():
            assert v.shape == fields(like)[k].shape and v.dtype == fields(like)[k].dtype
            assert bool(layout_of(value, k).clean(v).isfinite().all())
    for k, v in fields(start).items():
        assert torch.equal(v, before[k]), "the start is left as it was"


@law(40)
@given(batches(), solvers, schedules, schedules, st.sampled_from(GRIDS), more, st.data())
def test_a_sample_depends_on_its_seed_and_not_on_its_batch_or_its_place(
    batch: Batch,
    solver: Solver,
    first: Schedule,
    second: Schedule,
    grid: Grid,
    extra: int,
    data: st.DataObject,
) -> None:
    process, n = batch.process(first, second), len(batch.samples)
    seed = data.draw(st.lists(seeds, min_size=n, max_size=n), label="seeds")
    order = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=5), label="order")
    whole = run(solver, grid, extra, process, batch.value(), seed)
    other = run(solver, grid, extra, process, batch.value(order), [seed[i] for i in order])
    assert_same(other, take(whole, torch.tensor(order)), batch.tolerance)
    alone = run(solver, grid, extra, process, batch.value([order[0]]), [seed[order[0]]])
    assert_same(alone, take(whole, torch.tensor(order[:1])), batch.tolerance)
    assert_same(run(solver, grid, extra, process, batch.value(), seed), whole)


@law(25)
@given(batches(["masked"]), solvers, schedules, st.sampled_from([1e6, -1e6, math.nan, math.inf]))
def test_what_lies_in_the_padding_changes_nothing(
    batch: Batch, solver: Solver, schedule: Schedule, garbage: float
) -> None:
    process, n = batch.process(schedule, schedule), len(batch.samples)
    sampler, start = Sampler(solver, solver.fewest + 1), process.prior(batch.value(), Noise(1))
    clean = sampler(Mixing(process), spoil(start, 0.0), list(range(n))).x
    dirty = sampler(Mixing(process), spoil(start, garbage), list(range(n))).x
    assert_same(dirty, clean)


@law(25)
@given(batches(["masked"]), solvers, schedules, schedules)
def test_padded_and_packed_samples_are_the_same(
    batch: Batch, solver: Solver, first: Schedule, second: Schedule
) -> None:
    process, seed = batch.process(first, second), list(range(len(batch.samples)))
    twin = Batch("packed", batch.samples)
    left = run(solver, FlowTime(), 1, process, batch.value(), seed)
    right = run(solver, FlowTime(), 1, process, twin.value(), seed)
    assert_same(left, right, batch.tolerance)


@pytest.mark.parametrize("pure", ["clock", "field"])
@pytest.mark.parametrize(
    "solver",
    [
        *(Multistep(3), Singlestep(2), Singlestep(3), DEIS(3), DEIS(4), LMS(4), Heun()),
        *(Multistep(3, 1.0), Singlestep(2, 1.0), Singlestep(3, 0.5), SASolver(3, 0)),
    ],
    ids=str,
)
def test_fields_may_start_from_pure_noise_beside_fields_that_do_not(
    solver: Solver, pure: str
) -> None:
    # a step from pure noise is evaluated once, any other first step perhaps more often: by the clock
    curves = {"pure": Cosine(), "not": VP()}
    process = Joint(
        {k: Gaussian(c) for k, c in curves.items()}, clock="pure" if pure == "clock" else "not"
    )
    n = 4000 if solver.stochastic else 3
    x0 = State({k: torch.full((n, 5), 0.7, dtype=torch.float64) for k in curves}, Dense(n))
    noised = process.perturb(x0, torch.ones((), dtype=torch.float64), Noise(0))
    sampler = Sampler(solver, solver.fewest + 2, Uniform())
    out = sampler(Knows(x0, process), noised.x_t, 1, path=True)
    assert_same(out.x, x0, 1e-9)
    times = sampler.grid(process.clock, sampler.steps)
    for t, value in zip(times[1:-1], out.path[1:-1], strict=True):
        for k, v in fields(value).items():
            alpha, sigma = process.field(k).clock(t)
            rest = (v - alpha * fields(x0)[k]) / sigma
            if solver.stochastic:
                assert abs(float(rest.var()) - 1) < 5 * (2 / rest.numel()) ** 0.5
            else:
                assert torch.allclose(rest, fields(noised.eps)[k], rtol=1e-9, atol=1e-9)


# --- processes -------------------------------------------------------------------------------


@law(60)
@given(batches(), schedules, schedules, st.floats(0, 1), st.booleans(), seeds)
def test_noised_data_are_alpha_x0_plus_sigma_eps(
    batch: Batch, first: Schedule, second: Schedule, time: float, each: bool, seed: int
) -> None:
    process, x0 = batch.process(first, second), batch.value()
    n = batch_of(x0)
    t = torch.tensor(time, dtype=torch.float64)
    t = t * torch.linspace(0.1, 1, n, dtype=torch.float64) if each else t
    noised = process.perturb(x0, t, Noise(seed))
    assert_same(noised.x0, x0)
    for k, v in fields(noised.x_t).items():
        layout, clock = layout_of(x0, k), process.field(k).clock
        alpha, sigma = (layout.expand(c.to(v), v) for c in clock(t))
        want = alpha * fields(x0)[k] + sigma * fields(noised.eps)[k]
        assert v.dtype == fields(x0)[k].dtype
        assert torch.allclose(layout.clean(v), layout.clean(want), rtol=1e-5, atol=1e-6)
    again = process.perturb(x0, t, Noise(seed + 1), noised.eps)
    assert_same(again.x_t, noised.x_t)


@law(15)
@given(schedules, st.floats(0, 1), st.floats(-3, 3), st.integers(0, 1000))
def test_noised_data_have_the_moments_of_the_schedule(
    schedule: Schedule, time: float, mean: float, seed: int
) -> None:
    n, t = 20_000, torch.tensor(time, dtype=torch.float64)
    x0 = torch.full((4, n // 4), mean, dtype=torch.float64)
    x_t = Gaussian(schedule).perturb(x0, t, Noise(seed)).x_t
    assert isinstance(x_t, Tensor)
    alpha, sigma = (float(c) for c in schedule(t))
    assert abs(float(x_t.mean()) - alpha * mean) <= 5 * sigma * n**-0.5 + 1e-9
    assert abs(float(x_t.var()) - sigma**2) <= 5 * sigma**2 * (2 / n) ** 0.5 + 1e-9


@law(60)
@given(batches(), schedules, st.floats(-6, 6), st.sampled_from(list(product(TARGETS, TARGETS))))
def test_every_target_turns_into_every_other_and_back(
    batch: Batch, schedule: Schedule, log_snr: float, pair: tuple[Target, Target]
) -> None:
    src, dst = pair
    batch = Batch(batch.kind, tuple({k: v.double() for k, v in s.items()} for s in batch.samples))
    process, x = Gaussian(schedule), batch.value()
    t = schedule.time(torch.tensor(log_snr, dtype=torch.float64))
    assume(0 < float(t) < 1 and abs(float(schedule.log_snr(t)) - log_snr) < 1e-6)
    for k, v in fields(x).items():
        layout = layout_of(x, k)
        x_t, value = layout.clean(2 * v + 1), layout.clean(v)
        there = process.convert(value, x_t, t, layout, src=src, dst=dst)
        back = process.convert(there, x_t, t, layout, src=dst, dst=src)
        assert torch.allclose(back, value, rtol=1e-7, atol=1e-7)
        around = process.convert(there, x_t, t, layout, src=dst, dst="eps")
        straight = process.convert(value, x_t, t, layout, src=src, dst="eps")
        size = 1 + float(straight.abs().max())
        assert torch.allclose(around, straight, rtol=1e-7, atol=1e-7 * size)


# --- objectives ------------------------------------------------------------------------------


@law(40)
@given(
    batches(),
    schedules,
    schedules,
    st.sampled_from(TARGETS),
    st.sampled_from([None, MinSNR()]),
    st.data(),
)
def test_the_loss_of_a_sample_does_not_depend_on_its_mates(
    batch: Batch,
    first: Schedule,
    second: Schedule,
    target: Target,
    weight: Weight | None,
    data: st.DataObject,
) -> None:
    process, n = batch.process(first, second), len(batch.samples)
    times = data.draw(st.sampled_from([UniformTimes(0.1, 0.9), LogitNormal()]), label="times")
    objective = Objective(process, target, weight, times)
    seed = data.draw(st.lists(seeds, min_size=n, max_size=n), label="seeds")
    denoiser = Mixing(process)
    whole = objective(denoiser, batch.value(), noise=Noise(seed))
    assert whole.per_sample.shape == whole.t.shape == (n,)
    assert bool(whole.per_sample.isfinite().all()) and bool((whole.per_sample >= 0).all())
    assert torch.allclose(whole.per_sample, sum(whole.per_field.values(), torch.zeros(n)))
    for i in range(n):
        alone = objective(denoiser, batch.value([i]), noise=Noise([seed[i]]))
        assert torch.equal(alone.t, whole.t[i : i + 1])
        tol = max(batch.tolerance, 1e-6)
        assert torch.allclose(alone.per_sample, whole.per_sample[i : i + 1], rtol=tol, atol=tol)


# --- states and noise ------------------------------------------------------------------------


@law(60)
@given(batches(), st.data())
def test_taking_and_joining_samples_undo_each_other(batch: Batch, data: st.DataObject) -> None:
    x, n = batch.value(), len(batch.samples)
    index = st.lists(st.integers(0, n - 1), min_size=1, max_size=6)
    some = data.draw(index, label="index")
    taken = take(x, torch.tensor(some))
    assert batch_of(taken) == len(some)
    assert_same(taken, batch.value(some))
    assert_same(cat([take(x, torch.tensor([i])) for i in some]), taken)
    cut = data.draw(st.integers(1, len(some)), label="cut")
    joined = cat([taken, x])
    assert_same(take(joined, torch.arange(len(some))), taken)
    assert_same(take(joined, torch.arange(len(some), len(some) + n)), x)
    twice = take(taken, torch.arange(cut))
    assert_same(twice, take(x, torch.tensor(some[:cut])))
    assert_same(cat([x]), x)


@law(60)
@given(batches(), st.data())
def test_noise_belongs_to_the_seed_of_its_sample(batch: Batch, data: st.DataObject) -> None:
    x, n = batch.value(), len(batch.samples)
    seed = data.draw(st.lists(seeds, min_size=n, max_size=n, unique=True), label="seeds")
    order = data.draw(st.permutations(range(n)), label="order")
    there, back = Noise(seed), Noise([seed[i] for i in order])
    for draw in ("normal", "uniform", "integers", "normal"):
        got, other = (
            _drawn(draw, x, there),
            _drawn(draw, batch.value(order), back),
        )
        assert_same(other, take(got, torch.tensor(order)))
        for k, v in fields(got).items():
            assert torch.equal(v, layout_of(x, k).clean(v)), "nothing outside the samples"
            assert v.shape == fields(x)[k].shape
            if draw == "uniform":
                assert bool(((v >= 0) & (v < 1)).all())
            if draw == "integers":
                assert bool(((v >= 0) & (v < 7)).all()) and not v.is_floating_point()


def _drawn(draw: str, x: Value, noise: Noise) -> Value:
    def one(k: str | None, v: Tensor) -> Tensor:
        layout = layout_of(x, k)
        if draw == "integers":
            return noise.integers(7, v, layout)
        return noise.normal(v, layout) if draw == "normal" else noise.uniform(v, layout)

    out = {k: one(k, v) for k, v in fields(x).items()}
    if not isinstance(x, State):
        return out[None]
    return x.replace({str(k): v for k, v in out.items()})


@law(20)
@given(
    seeds,
    st.lists(st.integers(1, 2**12 - 1), min_size=3, max_size=3, unique=True),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_a_brownian_path_does_not_care_by_which_steps_it_is_walked(
    seed: int, ticks: list[int], dtype: torch.dtype
) -> None:
    high, middle, low = (k / 2**12 for k in sorted(ticks, reverse=True))
    x, layout = torch.zeros(2, 3, dtype=dtype), Dense(2)

    def step(a: float, b: float) -> Tensor:
        noise = Noise([seed, seed + 1 if seed < 2**62 else seed - 1], brownian=True)
        return noise.between(a, b).normal(x, layout) * (a - b) ** 0.5

    both = step(high, middle) + step(middle, low)
    tol = 1e-9 if dtype == torch.float64 else 1e-4
    assert torch.allclose(step(high, low), both, rtol=tol, atol=tol)


# --- what is refused -------------------------------------------------------------------------


class Net(nn.Module):
    """A network that adds its condition."""

    def forward(self, x: Tensor, log_snr: Tensor, cond: Tensor, previous: object) -> Tensor:
        return x + cond


def network() -> Preconditioned:
    return Preconditioned(Net(), FLOW, sigma_data=1.0)


def exact() -> Exact:
    return Exact(torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64), FLOW)


@law(20)
@given(st.integers(2, 6), st.integers(2, 6))
def test_a_condition_of_another_batch_is_refused(batch: int, rows: int) -> None:
    assume(batch != rows)
    x, cond = randn(batch, 3), randn(rows, 3)
    t = torch.full((batch,), 0.5, dtype=torch.float64)
    names = rf"cond holds a tensor of shape \({rows}, 3\) for a batch of {batch}"
    with pytest.raises(ValueError, match=names):
        network()(x, t, cond)
    with pytest.raises(ValueError, match=names):
        network().given({"other": torch.zeros(batch), "c": cond})(x, t)
    with pytest.raises(ValueError, match=names):
        Sampler(DDIM(), 2)(network().given(cond), x)
    with pytest.raises(ValueError, match=rf"cond has shape \({rows}, 3\) for a batch of {batch}"):
        Objective(FLOW)(network(), x, cond, noise=Noise(0))
    with pytest.raises(ValueError, match="cond"):
        CFG(network(), cond, torch.zeros(3), 2.0)(x, t)


@law(20)
@given(
    batches(), st.sampled_from([math.nan, math.inf, -math.inf]), st.integers(0, 3), st.integers(0)
)
def test_data_that_are_not_finite_are_refused_with_their_place(
    batch: Batch, wrong: float, which: int, where: int
) -> None:
    sample = batch.samples[which % len(batch.samples)]["points"]
    sample.view(-1)[where % sample.numel()] = wrong
    x, process = batch.value(), batch.process(FLOW.schedule, FLOW.schedule)
    field = "x" if batch.kind == "tensor" else "the field 'points'"
    size = fields(x)[None if batch.kind == "tensor" else "points"].numel()
    names = rf"{field} is not finite: 1 of {size} numbers, the first at \(.*\); clean the data"
    denoiser = Mixing(process)
    with pytest.raises(ValueError, match=names):
        Sampler(DDIM(), 2)(denoiser, x)
    with pytest.raises(ValueError, match=names):
        Objective(process)(denoiser, x, noise=Noise(0))
    with pytest.raises(ValueError, match=names):
        Adaptive()(denoiser, x)
    with pytest.raises(ValueError, match=names):
        invert(Sampler(DDIM(), 2), denoiser, x)
    with pytest.raises(ValueError, match=names):
        log_likelihood(denoiser, x)


@law(20)
@given(
    batches(),
    st.one_of(st.floats(max_value=-1e-6), st.floats(min_value=1 + 1e-6), st.just(math.nan)),
)
def test_times_outside_the_unit_interval_are_refused(batch: Batch, time: float) -> None:
    process, x = batch.process(FLOW.schedule, FLOW.schedule), batch.value()
    names = r"t must lie in \[0, 1\], 0 being data and 1 the prior"
    each = torch.full((batch_of(x),), 0.5, dtype=torch.float64)
    each[-1] = time
    for t in (torch.tensor(time, dtype=torch.float64), each):
        with pytest.raises(ValueError, match=names):
            process.perturb(x, t, Noise(0))
        if isinstance(x, Tensor) and x.ndim == 2:
            with pytest.raises(ValueError, match=names):
                network()(x, t, torch.zeros_like(x))


@law(20)
@given(batches(), st.integers(1, 3))
def test_a_wrong_number_of_times_is_refused(batch: Batch, extra: int) -> None:
    x = batch.value()
    n = batch_of(x) + extra
    assume(all(n not in v.shape[:1] for v in fields(x).values()))
    names = rf"c has shape \({n},\), which is neither \(\), nor one number per sample"
    with pytest.raises(ValueError, match=names):
        batch.process(FLOW.schedule, FLOW.schedule).perturb(x, torch.full((n,), 0.5), Noise(0))


@law(20)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.booleans())
def test_times_that_do_not_fall_are_refused(times: list[float], rows: bool) -> None:
    assume(any(a <= b for a, b in zip(times, times[1:], strict=False)))
    grid = torch.tensor(times, dtype=torch.float64)
    good = torch.linspace(1, 0, len(times), dtype=torch.float64)
    with pytest.raises(ValueError, match="times must fall strictly, from noise to data, got .*fl"):
        Times(torch.stack([good, grid]) if rows else grid)


def test_other_times_that_no_run_can_follow_are_refused() -> None:
    x, cases = randn(2, 3), [([1.0, math.nan, 0.0], "times must be finite")]
    cases += [([999.0, 500.0, 0.0], r"times must lie in \[0, 1\].*divide integer time steps")]
    cases += [([1.0], r"times must be of shape \(steps \+ 1,\)")]
    for times, names in cases:
        with pytest.raises(ValueError, match=names):
            Times(torch.tensor(times))
    short = Times(torch.tensor([1.0, 0.5, 0.0]))
    with pytest.raises(ValueError, match=r"times must be 4 numbers from 1.0 to 0.0, got"):
        Sampler(DDIM(), 3, short)(exact(), x)
    rows = Times(torch.linspace(1, 0, 3).expand(3, 3))
    with pytest.raises(ValueError, match="grid holds times for 3 samples, the batch has 2"):
        Sampler(DDIM(), 2, rows)(exact(), x)
    for start, stop in ((0.0, 0.0), (0.2, 0.5), (1.5, 0.0), (1.0, -0.1), (math.nan, 0.0)):
        with pytest.raises(ValueError, match=r"need 0 <= stop < start <= 1, got start="):
            Sampler(DDIM(), 2, start=start, stop=stop)(exact(), x)


@law(20)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=5))
def test_samples_without_a_point_are_refused(sizes: list[int]) -> None:
    assume(0 in sizes)
    mask = torch.tensor([[i < n for i in range(4)] for n in sizes])
    with pytest.raises(ValueError, match="mask leaves a sample without any point; drop empty"):
        Masked(mask)
    index = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    with pytest.raises(
        ValueError, match=rf"index must name every sample from 0 to {len(sizes) - 1}"
    ):
        Packed(index, len(sizes))


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: Masked(torch.ones(2, 3)), "mask must be boolean of shape .B, N., got torch.float"),
        (lambda: Masked(torch.ones(3, dtype=torch.bool)), "mask must be boolean of shape"),
        (lambda: Packed(torch.tensor([1, 0]), 2), "index must be sorted"),
        (lambda: Packed(torch.tensor([0.0, 1.0]), 2), "index must be a vector of integers"),
        (lambda: Packed(torch.tensor([0, 2]), 2), "index must name every sample from 0 to 1"),
    ],
)
def test_layouts_that_are_none_are_refused(make: Callable[[], Layout], names: str) -> None:
    with pytest.raises(ValueError, match=names):
        make()


@pytest.mark.parametrize(
    "solver", [*SOLVERS, UniPC(3), DEIS(4), Singlestep(3)], ids=lambda s: str(s)[:40]
)
def test_too_few_steps_are_refused(solver: Solver) -> None:
    few = solver.fewest - 1
    for steps in (few, 0, -3):
        with pytest.raises(
            ValueError, match=rf"steps must be at least {solver.fewest} for .*{steps}"
        ):
            Sampler(solver, steps)
    assert Sampler(solver, solver.fewest).steps == solver.fewest


def test_too_few_steps_of_a_restart_are_refused() -> None:
    with pytest.raises(ValueError, match="steps must be at least 3 for Multistep.*got 2"):
        Sampler(Multistep(3), 10, restarts=(Restart(0.2, 0.5, steps=2),))


@law(20)
@given(batches(), st.integers(1, 3))
def test_a_wrong_number_of_seeds_is_refused(batch: Batch, extra: int) -> None:
    process, x = batch.process(FLOW.schedule, FLOW.schedule), batch.value()
    n = batch_of(x)
    names = f"seed has {n + extra} entries for a batch of {n}; give one a sample"
    with pytest.raises(ValueError, match=names):
        process.prior(x, Noise(range(n + extra)))
    with pytest.raises(ValueError, match=names):
        Sampler(DDIM(1.0), 2)(Mixing(process), spoil(x, 0.0), range(n + extra))


def test_values_of_another_kind_are_refused() -> None:
    joint = Joint({"a": FLOW, "b": FLOW})
    state = State({"a": randn(2, 3)}, Dense(2))
    with pytest.raises(ValueError, match="Gaussian noises a plain tensor; use Joint for a state"):
        Sampler(DDIM(), 2)(Mixing(FLOW), state)
    with pytest.raises(
        ValueError, match=r"x must be a state with the fields \['a', 'b'\], got \['a"
    ):
        Sampler(DDIM(), 2)(Mixing(joint), state)
    with pytest.raises(ValueError, match="x must be a state with the fields .*got a plain tensor"):
        Sampler(DDIM(), 2)(Mixing(joint), randn(2, 3))
    with pytest.raises(ValueError, match="x holds no sample"):
        Sampler(DDIM(), 2)(exact(), torch.zeros(0, 3))
