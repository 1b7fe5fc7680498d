"""The loop: what the denoiser is shown, what the samples are, and what a run leaves untouched."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sciffusion.denoiser import Condition, Denoiser, Preconditioned, Prediction
from sciffusion.grid import FlowTime, Karras, LogSNR, Times, Uniform
from sciffusion.layout import Dense
from sciffusion.noise import Noise
from sciffusion.oracle import Gaussian as GaussianOracle
from sciffusion.oracle import Mixture
from sciffusion.process import Gaussian, Joint, Jump
from sciffusion.samplers import (
    BDIA,
    DDIM,
    DEIS,
    Ancestral,
    Carry,
    Heun,
    Multistep,
    Sampler,
    Singlestep,
    UniPC,
)
from sciffusion.schedule import VE, VP, Cosine, Polynomial, RectifiedFlow, Schedule
from sciffusion.solver import Solver
from sciffusion.space import Categorical, Euclidean, ZeroCoM
from sciffusion.state import State, Value
from sciffusion.testing import gaussian_moments, split
from tests.core.cases import (
    DETERMINISTIC,
    SCHEDULES,
    SOLVERS,
    STOCHASTIC,
    allowed,
    dense,
    mixture,
    name,
    packed,
    padded,
    points,
    randn,
)

FLOW = RectifiedFlow()
START, STOP = float(FLOW.time(-8.0)), float(FLOW.time(6.0))
MEAN, VARIANCE = 0.7, 0.36


def gaussian(schedule: Schedule, dim: int = 1) -> GaussianOracle:
    """The exact denoiser of independent N(0.7, 0.36)."""
    eye = torch.eye(dim, dtype=torch.float64)
    return GaussianOracle(
        MEAN * torch.ones(dim, dtype=torch.float64), VARIANCE * eye, Gaussian(schedule)
    )


def tensor(x: Value) -> Tensor:
    assert isinstance(x, Tensor)
    return x


class Recorder(Denoiser):
    """Keeps what the inner denoiser saw."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__()
        self.inner, self.process = inner, inner.process
        self.seen: list[tuple[float, Value, Value | None]] = []

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        self.seen.append((float(t), x_t, previous))
        return self.inner(x_t, t)


@pytest.mark.parametrize("schedule", [FLOW, VP(), VE(), Cosine()], ids=name)
@pytest.mark.parametrize("solver", SOLVERS, ids=name)
def test_the_denoiser_is_shown_values_of_the_time_that_it_is_told(
    solver: Solver, schedule: Schedule
) -> None:
    n, start, steps = 4000, 0.8, 120 if solver.order == 1 else 30
    recorder = Recorder(gaussian(schedule))
    x0 = MEAN + math.sqrt(VARIANCE) * randn(n, 1, seed=3)
    x = recorder.process.perturb(x0, torch.tensor(start), Noise(0)).x_t
    Sampler(solver, steps, start=start)(recorder, x, 1)
    for t, seen, _ in recorder.seen:
        alpha, sigma = (float(c) for c in schedule(t))
        want, values = alpha**2 * VARIANCE + sigma**2, tensor(seen)
        assert float(values.var()) / want == pytest.approx(1, abs=0.1)
        assert abs(float(values.mean()) - alpha * MEAN) < 0.08 * math.sqrt(want)


@pytest.mark.parametrize("solver", SOLVERS, ids=name)
@pytest.mark.parametrize("start", [1.0, 0.6, 1e-4])
def test_the_first_call_is_made_at_the_time_of_the_noise(solver: Solver, start: float) -> None:
    recorder = Recorder(gaussian(FLOW))
    Sampler(solver, 4, start=start)(recorder, randn(2, 1))
    first = recorder.seen[0][0]
    # churn alone may raise the noise before the first call
    assert (
        first > start if isinstance(solver, Heun) and solver.churn and start < 1 else first == start
    )


@pytest.mark.parametrize("solver", SOLVERS, ids=name)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_short_runs_from_just_above_the_end_are_finite(solver: Solver, schedule: Schedule) -> None:
    process = Gaussian(schedule)
    denoiser = mixture(process)
    x0 = denoiser.sample(4, torch.Generator().manual_seed(0))
    for start in (1.0, 0.5, 1e-3, 1e-6):
        x = process.perturb(x0, torch.tensor(start, dtype=torch.float64), Noise(0)).x_t
        for steps in allowed(solver, 1, 2, 3):
            for grid in (LogSNR(), Karras(), Uniform()):
                end = tensor(Sampler(solver, steps, grid, start)(denoiser, x, 1).x)
                assert bool(end.isfinite().all())
    assert float((end - x0).abs().max()) < 30 * float(schedule.sigma(1e-6) / schedule.alpha(1e-6))


@pytest.mark.parametrize("schedule", [FLOW, VP(), VE(), Cosine(), Polynomial()], ids=name)
@pytest.mark.parametrize("solver", SOLVERS, ids=name)
def test_many_steps_give_the_variance_of_the_data_and_leave_no_noise(
    solver: Solver, schedule: Schedule
) -> None:
    steps = 800 if solver.order == 1 else 200
    sampler = Sampler(solver, steps)
    mean, variance = gaussian_moments(sampler, schedule, mean=MEAN, variance=VARIANCE)
    assert variance == pytest.approx(VARIANCE, rel=0.02)
    # the prior leaves out what remains of the data's mean at t = 1
    assert abs(mean - MEAN) < 1e-3 + MEAN * math.sqrt(schedule.terminal_snr)


def test_the_run_of_a_sampler_is_the_affine_map_that_predicts_its_moments() -> None:
    """What the exact moments say, a large sample shows."""
    n = 50_000
    for solver in (Heun(churn=8.0), Multistep(2, 1.0), DDIM(0.5), Multistep(3)):
        for schedule in (FLOW, VE()):
            sampler, denoiser = Sampler(solver, 5), gaussian(schedule)
            start = denoiser.process.prior(torch.zeros(n, 1, dtype=torch.float64), Noise(0))
            x = tensor(sampler(denoiser, start, 1).x)
            mean, variance = gaussian_moments(sampler, schedule, mean=MEAN, variance=VARIANCE)
            assert float(x.mean()) == pytest.approx(mean, abs=5 * math.sqrt(variance / n))
            assert float(x.var()) == pytest.approx(variance, rel=5 * math.sqrt(2 / n))


def test_the_prior_misses_the_mean_of_the_data_by_the_terminal_snr_and_no_more() -> None:
    x = torch.zeros(40_000, 1, dtype=torch.float64)
    for schedule in SCHEDULES:
        process = Gaussian(schedule)
        prior = tensor(process.prior(x, Noise(0)))
        noised = tensor(process.perturb(x + MEAN, torch.tensor(1.0), Noise(0)).x_t)
        off = abs(float((noised - prior).mean())) / float(schedule.sigma(1.0))
        assert off == pytest.approx(MEAN * math.sqrt(schedule.terminal_snr), rel=1e-6, abs=1e-12)
        assert float(prior.std()) == pytest.approx(float(schedule.sigma(1.0)), rel=0.02)


def test_a_run_from_a_noised_sample_returns_near_it() -> None:
    """Partial noising, then denoising: the start is not drawn again from the prior."""
    denoiser = gaussian(FLOW)
    x0 = MEAN + 0.6 * randn(5000, 1, seed=3)
    for start in (0.1, 0.3):
        x_t = denoiser.process.perturb(x0, torch.tensor(start), Noise(0)).x_t
        end = tensor(Sampler(Multistep(2), 40, start=start)(denoiser, x_t).x)
        assert float((end - x0).std()) < 2.5 * start / (1 - start)
        assert float(end.var()) == pytest.approx(VARIANCE, rel=0.1)


def test_stopping_early_gives_the_marginal_of_that_time() -> None:
    for schedule in (FLOW, VP()):
        sampler = Sampler(Multistep(2), 200, start=0.9, stop=0.3)
        alpha, sigma = (float(c) for c in schedule(0.3))
        mean, variance = gaussian_moments(sampler, schedule, mean=MEAN, variance=VARIANCE)
        assert variance == pytest.approx(alpha**2 * VARIANCE + sigma**2, rel=1e-3)
        assert mean == pytest.approx(alpha * MEAN, rel=1e-9)


def test_the_flow_of_a_gaussian_ends_where_the_closed_form_says() -> None:
    cov = torch.tensor([[0.5, 0.3], [0.3, 0.4]], dtype=torch.float64)
    for schedule in (FLOW, VP(), VE()):
        oracle = GaussianOracle(torch.tensor([0.5, -1.0]).double(), cov, Gaussian(schedule))
        start, stop = float(schedule.time(-6.0)), float(schedule.time(6.0))
        x = randn(8, 2)
        want = oracle.flow(x, start, stop)
        for solver in (Multistep(3), Heun()):
            got = tensor(Sampler(solver, 200, start=start, stop=stop)(oracle, x).x)
            assert float((got - want).abs().max()) < 3e-4


def joint_gaussian() -> tuple[Mixture, State]:
    """Two correlated fields, each with a schedule of its own, and a start at which both have noise."""
    process = Joint({"a": Gaussian(FLOW), "b": Gaussian(VP(1.0, 8.0))})
    cov = torch.tensor([[0.6, 0.3, -0.2], [0.3, 0.5, 0.1], [-0.2, 0.1, 0.4]], dtype=torch.float64)
    oracle = Mixture(torch.ones(1), torch.tensor([[0.4, -0.3, 0.8]]).double(), cov[None], process)
    return oracle, State({"a": randn(6, 1), "b": randn(6, 2, seed=1)}, Dense(6))


@cache
def run_of_two_fields(solver: Solver, steps: int) -> Tensor:
    oracle, x = joint_gaussian()
    end = Sampler(solver, steps, start=START, stop=STOP)(oracle, x).x
    assert isinstance(end, State)
    return torch.cat([end["a"], end["b"]], 1)


@pytest.mark.parametrize("solver", [s for s in DETERMINISTIC if s.order < 3], ids=name)
def test_correlated_fields_with_schedules_of_their_own_keep_the_order(solver: Solver) -> None:
    exact = run_of_two_fields(Multistep(3), 600)
    error = [float((run_of_two_fields(solver, n) - exact).abs().max()) for n in (60, 120)]
    assert abs(math.log2(error[0] / error[1]) - solver.order) < 0.15


def test_the_third_order_is_kept_for_correlated_fields_too() -> None:
    ends = [run_of_two_fields(Multistep(3), n) for n in (150, 300, 600)]
    change = [float((a - b).abs().max()) for a, b in zip(ends, ends[1:], strict=False)]
    assert 2.8 < math.log2(change[0] / change[1]) < 3.6


def molecule_denoiser() -> Preconditioned:
    """An untrained network over padded or packed molecules, point by point."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pos, self.kind = nn.Linear(4, 3), nn.Linear(6, 3)

        def forward(
            self, x: State, level: dict[str, Tensor], cond: Condition, previous: State | None
        ) -> dict[str, Tensor]:
            size = x.layout("pos").expand(level["pos"].to(x["pos"]), x["pos"])
            pos = torch.cat([x["pos"], size.expand_as(x["pos"][..., :1])], -1)
            return {
                "pos": self.pos(pos).tanh(),
                "kind": self.kind(torch.cat([x["kind"], x["pos"]], -1)),
            }

    torch.manual_seed(0)
    process = Joint({"pos": Gaussian(FLOW, ZeroCoM()), "kind": Jump(Cosine(), Categorical(3))})
    return Preconditioned(Net().double(), process, sigma_data={"pos": 1.0})


@pytest.mark.parametrize("solver", SOLVERS, ids=name)
def test_a_molecule_is_the_same_alone_in_any_batch_padded_or_packed(solver: Solver) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        denoiser, sampler = molecule_denoiser(), Sampler(solver, 5)
        samples, seeds = points((4, 2, 1, 6)), [5, 8, 2, 9]
        alone: dict[str, list[Tensor]] = {"pos": [], "kind": []}
        batches = [padded(samples), packed(samples)]
        batches += [packed([s]) for s in samples]
        batches += [(s[None], Dense(1)) for s in samples]
        ends = []
        for i, (field, layout) in enumerate(batches):
            here = seeds if i < 2 else [seeds[(i - 2) % 4]]
            kinds = torch.zeros_like(field[..., 0], dtype=torch.long)
            like = State({"pos": field, "kind": kinds}, layout)
            noise = Noise(here)
            end = sampler(denoiser, denoiser.process.prior(like, noise), noise).x
            ends.append({k: split(end, k) for k in ("pos", "kind")})
        for k in alone:
            want = ends[0][k]
            together = [ends[1][k], [e[k][0] for e in ends[2:6]], [e[k][0] for e in ends[6:]]]
            for other in together:
                for a, b in zip(want, other, strict=True):
                    assert (
                        torch.allclose(a, b, rtol=0, atol=1e-12)
                        if k == "pos"
                        else torch.equal(a, b)
                    )
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("solver", SOLVERS, ids=name)
def test_a_sample_does_not_depend_on_its_batch(solver: Solver) -> None:
    denoiser, sampler, seeds = mixture(), Sampler(solver, 7), [3, 1, 4]
    x = tensor(denoiser.process.prior(torch.zeros(3, 2, dtype=torch.float64), Noise(seeds)))
    together = tensor(sampler(denoiser, x, seeds).x)
    each = [tensor(sampler(denoiser, x[i : i + 1], [seeds[i]]).x) for i in range(3)]
    assert torch.allclose(together, torch.cat(each), rtol=0, atol=1e-12)
    backwards = tensor(sampler(denoiser, x.flip(0), seeds[::-1]).x)
    assert torch.allclose(together, backwards.flip(0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("solver", SOLVERS, ids=name)
def test_the_seed_decides_the_sample_and_no_global_generator_is_touched(solver: Solver) -> None:
    denoiser, sampler, x = mixture(), Sampler(solver, 5), randn(4, 2)
    torch.manual_seed(0)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
    a, b, c = (tensor(sampler(denoiser, x, seed).x) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # type: ignore[index]  # noqa: NPY002
    assert torch.equal(a, b)
    assert torch.equal(a, c) != solver.stochastic


@pytest.mark.parametrize("solver", DETERMINISTIC, ids=name)
def test_a_deterministic_run_consumes_no_noise(solver: Solver) -> None:
    noise = Noise(3)
    Sampler(solver, 5)(mixture(), randn(4, 2), noise)
    assert torch.equal(noise.scalars(3), Noise(3).scalars(3))


@pytest.mark.parametrize("solver", STOCHASTIC, ids=name)
def test_noise_is_drawn_afresh_in_every_step(solver: Solver) -> None:
    """Two runs that share a stream are independent."""
    noise, x = Noise(3), randn(4, 2)
    first, second = (tensor(Sampler(solver, 5)(mixture(), x, noise).x) for _ in range(2))
    assert float((first - second).abs().max()) > 1e-3


def test_clouds_keep_their_centre_at_the_origin_through_a_run() -> None:
    torch.manual_seed(1)

    class Drifting(nn.Module):
        def forward(
            self, x: Tensor, level: Tensor, cond: Condition, previous: Value | None
        ) -> Tensor:
            return x.sin() + 3.0

    for solver in (Multistep(2), Heun(8.0), Multistep(2, 1.0)):
        process = Gaussian(FLOW, ZeroCoM())
        denoiser = Preconditioned(Drifting(), process, sigma_data=1.0)
        x = process.prior(torch.zeros(3, 5, 3), Noise(0))
        for value in Sampler(solver, 30)(denoiser, x, path=True).path:
            assert float(tensor(value).mean(1).abs().max()) < 1e-6


@pytest.mark.parametrize("garbage", [1e6, -1e6])
def test_padding_changes_no_sample(garbage: float) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        denoiser, sampler = molecule_denoiser(), Sampler(Multistep(2, 0.5), 4)
        field, layout = padded(points((4, 2)))
        kinds = torch.zeros_like(field[..., 0], dtype=torch.long)
        x = denoiser.process.prior(State({"pos": field, "kind": kinds}, layout), Noise([0, 1]))
        assert isinstance(x, State)
        dirty = x.replace({"pos": torch.where(layout.mask[..., None], x["pos"], garbage)})
        ends = [sampler(denoiser, v, [0, 1]).x for v in (x, dirty)]
        for k in ("pos", "kind"):
            for a, b in zip(split(ends[0], k), split(ends[1], k), strict=True):
                assert torch.equal(a, b)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("solver", SOLVERS, ids=name)
def test_single_precision_follows_double_precision(solver: Solver) -> None:
    denoiser, x = mixture(), randn(16, 2)
    noise = randn(16, 2, seed=7)
    double = tensor(Sampler(solver, 20)(denoiser, x, 1).x)
    single = tensor(Sampler(solver, 20)(denoiser, x.float(), 1).x)
    assert single.dtype == torch.float32 and noise.dtype == double.dtype == torch.float64
    if not solver.stochastic:  # float32 draws other numbers
        assert float((single - double).abs().max()) < 1e-4


class Linear(Denoiser):
    """x0 = (slope x_t), with a parameter."""

    def __init__(self, process: Gaussian) -> None:
        super().__init__()
        self.process, self.slope = process, nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        return Prediction(self.slope * tensor(x_t), x_t, t, self.process)


@pytest.mark.parametrize("solver", SOLVERS, ids=name)
def test_gradients_flow_only_when_asked_for(solver: Solver) -> None:
    denoiser, x = Linear(Gaussian(FLOW)), randn(3, 2).requires_grad_()
    sampler = Sampler(solver, 4)
    plain = sampler(denoiser, x, 1, path=True)
    assert not any(tensor(v).requires_grad for v in (plain.x, *plain.path[1:]))
    end = tensor(sampler(denoiser, x, 1, grad=True).x)
    assert end.requires_grad and torch.equal(end.detach(), tensor(plain.x))
    gradients = torch.autograd.grad(end.sum(), [x, denoiser.slope])
    assert all(bool((g != 0).any()) for g in gradients)
    with torch.no_grad():
        assert not tensor(sampler(denoiser, x, 1, grad=True).x).requires_grad


def test_the_gradient_of_a_run_on_gaussian_data_is_the_slope_of_its_linear_map() -> None:
    denoiser, x = gaussian(FLOW), randn(5, 1).requires_grad_()
    for solver in (DDIM(), Heun(), Multistep(2), Multistep(2, 1.0)):
        sampler = Sampler(solver, 6)
        end = tensor(sampler(denoiser, x, 1, grad=True).x)
        (gradient,) = torch.autograd.grad(end.sum(), x)
        shifted = tensor(sampler(denoiser, x.detach() + 1.0, 1).x)
        assert torch.allclose(gradient, (shifted - end).detach(), rtol=0, atol=1e-12)
    fine = Sampler(Multistep(2), 300)
    (gradient,) = torch.autograd.grad(tensor(fine(denoiser, x, grad=True).x).sum(), x)
    assert torch.allclose(gradient, torch.full_like(x, math.sqrt(VARIANCE)), rtol=1e-3)


def test_a_run_can_be_taken_step_by_step() -> None:
    denoiser, sampler, x = mixture(), Sampler(Multistep(3, 0.5), 5), randn(4, 2)
    carries: list[Carry] = []
    whole = sampler(denoiser, x, 7, path=True, callback=carries.append)
    carry, noise = sampler.init(denoiser, x), Noise(7)
    for i in range(5):
        assert carry.done == i and torch.equal(tensor(carry.x), tensor(whole.path[i]))
        carry = sampler.step(denoiser, carry, noise)
    assert torch.equal(tensor(carry.x), tensor(whole.x)) and len(whole.path) == 6
    assert [c.done for c in carries] == [1, 2, 3, 4, 5]
    assert all(len(c.history) <= 2 for c in carries)
    with pytest.raises(ValueError, match="the run is over after 5 steps"):
        sampler.step(denoiser, carry, noise)


class Shifting(Denoiser):
    """Moves the point before it predicts there."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__()
        self.inner, self.process = inner, inner.process

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        return self.inner(tensor(x_t) + 0.3 * t.sin(), t)


@pytest.mark.parametrize("solver", [DDIM(), Multistep(2, 1.0), UniPC(2), DEIS(2), BDIA()], ids=name)
def test_a_run_goes_on_from_the_point_to_which_its_denoiser_moves(solver: Solver) -> None:
    """As if each value had been moved there by hand, the history's too."""
    denoiser, sampler, noise = mixture(), Sampler(solver, 6, Uniform(), 0.9), Noise(2)
    carry = sampler.init(denoiser, randn(4, 2))
    got = tensor(sampler(Shifting(denoiser), carry.x, 2).x)
    for (t,) in carry.plan.times:
        moved = replace(carry, x=tensor(carry.x) + 0.3 * t.sin())
        carry = sampler.step(denoiser, moved, noise)
    assert torch.allclose(got, tensor(carry.x), rtol=0, atol=1e-12)


def test_an_old_carry_can_be_continued_again() -> None:
    """Steps change nothing that they were given."""
    denoiser, sampler = mixture(), Sampler(Multistep(2), 4)
    carry = sampler.step(denoiser, sampler.init(denoiser, randn(4, 2)), Noise(0))
    kept = tensor(carry.x).clone()
    first, second = (sampler.step(denoiser, carry, Noise(0)) for _ in range(2))
    assert torch.equal(tensor(first.x), tensor(second.x)) and torch.equal(tensor(carry.x), kept)


@pytest.mark.parametrize("solver", SOLVERS, ids=name)
@pytest.mark.parametrize("steps", [1, 2, 3, 9])
def test_the_calls_are_counted_and_the_start_is_left_as_it_was(solver: Solver, steps: int) -> None:
    recorder, x, steps = Recorder(mixture()), randn(4, 2), max(steps, solver.fewest)
    solution = Sampler(solver, steps)(recorder, x.clone())
    assert solution.nfe == len(recorder.seen) and solution.path == ()
    assert torch.equal(tensor(recorder.seen[0][1]), x) or isinstance(solver, Heun)
    windows = Sampler(solver, steps).windows(recorder.process)
    assert solution.nfe == sum(len(w.nodes) for w in windows)
    if not isinstance(solver, Multistep):
        assert steps <= solution.nfe <= solver.evaluations * steps
    kept = x.clone()
    Sampler(solver, steps)(recorder, x)
    assert torch.equal(x, kept)


def test_the_third_order_starts_with_one_more_call_where_it_can() -> None:
    assert Sampler(Multistep(3), 6)(mixture(Gaussian(VP())), randn(4, 2)).nfe == 7
    assert Sampler(Multistep(3), 6, start=0.9)(mixture(), randn(4, 2)).nfe == 7
    assert Sampler(Multistep(3), 6)(mixture(), randn(4, 2)).nfe == 6  # from pure noise it cannot


def test_every_call_but_the_first_is_shown_the_prediction_before() -> None:
    for solver in (DDIM(), Heun(), Multistep(3)):
        recorder = Recorder(mixture())
        Sampler(solver, 4, start=0.9)(recorder, randn(4, 2))
        assert recorder.seen[0][2] is None
        for (t, x, _), (_, _, previous) in zip(recorder.seen, recorder.seen[1:], strict=False):
            assert previous is not None
            time = torch.tensor(t, dtype=torch.float64)
            assert torch.equal(tensor(previous), tensor(recorder.inner(x, time).x0))


def test_the_last_step_returns_the_last_prediction() -> None:
    for schedule in SCHEDULES:
        for solver in SOLVERS:
            recorder = Recorder(mixture(Gaussian(schedule)))
            end = tensor(Sampler(solver, 5)(recorder, randn(4, 2)).x)
            t, x, _ = recorder.seen[-1]
            last = tensor(recorder.inner(x, torch.tensor(t, dtype=torch.float64)).x0)
            assert torch.allclose(end, last, rtol=0, atol=1e-12)


def test_samplers_are_frozen_and_their_defaults_shared_by_none() -> None:
    sampler = Sampler(Ancestral())
    with pytest.raises(FrozenInstanceError):
        sampler.steps = 3  # type: ignore[misc]
    assert sampler == Sampler(Ancestral(), 32, FlowTime())


def test_noise_of_a_scaled_space_is_drawn_in_that_scale() -> None:
    scale = torch.tensor([0.5, 2.0], dtype=torch.float64)
    process = Gaussian(FLOW, Euclidean(scale))

    class Scaled(Denoiser):
        """The exact denoiser of N(0, scale^2)."""

        def __init__(self) -> None:
            super().__init__()
            self.process = process

        def forward(
            self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
        ) -> Prediction:
            alpha, sigma = self.process.clock(t)
            return Prediction(alpha / (alpha**2 + sigma**2) * tensor(x_t), x_t, t, self.process)

    start = process.prior(torch.zeros(20_000, 2, dtype=torch.float64), Noise(0))
    for solver in (Multistep(2), Multistep(2, 1.0), Heun(8.0)):
        x = tensor(Sampler(solver, 60)(Scaled(), start, 1).x)
        assert torch.allclose(x.std(0), scale, rtol=0.03)


def test_wrong_starts_and_grids_are_refused() -> None:
    joint, x = joint_gaussian()
    with pytest.raises(ValueError, match="got a plain tensor"):
        Sampler(DDIM(), 3)(joint, randn(2, 3))
    with pytest.raises(ValueError, match="use Joint for a state"):
        Sampler(DDIM(), 3)(mixture(), x)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        Sampler(DDIM(), 0)(mixture(), randn(2, 2))
    with pytest.raises(ValueError, match=r"at least 3 for Multistep\(order=3.*got 2"):
        Sampler(Multistep(3), 2)
    with pytest.raises(ValueError, match="x is a single number"):
        Sampler(DDIM(), 3)(mixture(), torch.tensor(0.5))
    with pytest.raises(
        ValueError, match="x is not finite: 1 of 4 numbers, the first at \\(1, 0\\)"
    ):
        Sampler(DDIM(), 3)(mixture(), torch.tensor([[0.0, 1.0], [math.nan, 0.0]]))
    with pytest.raises(ValueError, match="must be 4 numbers"):
        Sampler(DDIM(), 3, Times(torch.tensor([1.0, 0.0])))(mixture(), randn(2, 2))
    with pytest.raises(ValueError, match="2 entries for a batch of 3"):
        Sampler(Ancestral(), 3)(mixture(), randn(3, 2), [1, 2])


def test_one_size_of_molecules_needs_no_mask() -> None:
    """Dense and padded without padding are the same."""
    torch.set_default_dtype(torch.float64)
    try:
        denoiser = molecule_denoiser()
        field, layout = dense(points((3, 3)))
        other, masked = field, padded(points((3, 3)))[1]
        assert masked.mask.shape == (2, 4)
        ends = []
        for x, where in ((field, layout), (other, type(masked)(masked.mask[:, :3]))):
            like = State({"pos": x, "kind": torch.zeros(2, 3, dtype=torch.long)}, where)
            noise = Noise([1, 2])
            ends.append(
                Sampler(Heun(4.0), 3)(denoiser, denoiser.process.prior(like, noise), noise).x
            )
        assert isinstance(ends[0], State) and isinstance(ends[1], State)
        assert torch.equal(ends[0]["pos"], ends[1]["pos"])
    finally:
        torch.set_default_dtype(torch.float32)


def test_grids_of_their_own_need_a_row_a_sample_and_do_not_recur() -> None:
    times = torch.stack([g(FLOW, 6) for g in (Uniform(), Karras())])
    sampler = Sampler(DDIM(), 6, Times(times))
    with pytest.raises(ValueError, match="grid holds times for 2 samples, the batch has 3"):
        sampler(mixture(), randn(3, 2))
    rows = torch.tensor([[1, 1 - 1e-13, 0.6, 0], [1, 0.8, 0.5, 0]], dtype=torch.float64)
    with pytest.raises(ValueError, match="evaluates the denoiser more often in some samples'"):
        Sampler(Singlestep(2), 3, Times(rows))(mixture(), randn(2, 2))
    with pytest.raises(ValueError, match="recurrence needs one for all"):
        sampler.recurrent(Gaussian(FLOW), 2)
    assert [w.start for w in sampler.windows(Gaussian(FLOW))] == times[0, :-1].tolist()


def test_samples_on_grids_of_their_own_end_where_each_ends_alone() -> None:
    process = Gaussian(FLOW)
    grids = [Uniform(), Karras(), LogSNR()]
    times = torch.stack([g(FLOW, 6) for g in grids])
    x = randn(3, 2)
    for solver in (DDIM(), DDIM(1.0), Multistep(2), Multistep(3, 1.0), Heun(), Heun(4.0)):
        got = tensor(Sampler(solver, 6, Times(times))(mixture(process), x, [4, 5, 6]).x)
        for i, grid in enumerate(grids):
            alone = tensor(Sampler(solver, 6, grid)(mixture(process), x[i : i + 1], [4 + i]).x)
            assert torch.allclose(got[i : i + 1], alone, rtol=0, atol=1e-12), solver


@pytest.mark.parametrize("solver", [Multistep(2), Multistep(3, 1.0), UniPC(2)], ids=name)
def test_samples_with_less_of_a_history_than_others_end_where_each_ends_alone(
    solver: Solver,
) -> None:
    """A prediction made at pure noise counts nothing in a multistep rule, whatever the others of the batch have."""
    times = torch.tensor([[1, 1 - 1e-13, 0.6, 0.3, 0], [1, 0.8, 0.5, 0.2, 0]], dtype=torch.float64)
    x = randn(2, 2)
    got = tensor(Sampler(solver, 4, Times(times))(mixture(), x, [4, 5]).x)
    for i in range(2):
        alone = Sampler(solver, 4, Times(times[i]))(mixture(), x[i : i + 1], [4 + i]).x
        assert torch.allclose(got[i : i + 1], tensor(alone), rtol=0, atol=1e-12)
