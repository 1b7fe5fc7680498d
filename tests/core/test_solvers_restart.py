"""Restarts: their windows, their calls, and what they repair."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.grid import Uniform
from sciffusion.layout import Dense
from sciffusion.noise import Noise
from sciffusion.oracle import Gaussian as GaussianOracle
from sciffusion.process import Gaussian, Joint, Jump
from sciffusion.samplers import (
    DDIM,
    DEIS,
    LMS,
    Heun,
    Langevin,
    Multistep,
    Restart,
    Sampler,
    SASolver,
    Singlestep,
    UniPC,
)
from sciffusion.schedule import VP, Cosine, RectifiedFlow, Schedule
from sciffusion.solver import Solver
from sciffusion.space import Categorical
from sciffusion.state import State, Value
from sciffusion.testing import Knows, gaussian_moments
from tests.core.cases import mixture, name, randn

FLOW = RectifiedFlow()
AGAIN = Restart(0.2, 0.6, steps=4, rounds=2)
SOLVED: list[Solver] = [
    DDIM(),
    DDIM(1.0),
    Heun(8.0),
    Multistep(3),
    Multistep(2, eta=0.5),
    Singlestep(2),
    UniPC(2),
    SASolver(2, 2),
    DEIS(3),
    LMS(4),
    Langevin(),
]


def test_a_run_goes_back_up_where_and_as_often_as_it_is_told() -> None:
    sampler = Sampler(DDIM(), 10, Uniform(), restarts=(AGAIN,))
    windows = sampler.windows(Gaussian(FLOW))
    assert len(windows) == 10 + 2 * 4
    lifts = [i for i, w in enumerate(windows) if w.nodes[0] != w.start]
    assert lifts == [8, 12]  # t = 0.2 is reached after 8 steps of 0.1
    for i in lifts:
        assert windows[i].start == pytest.approx(0.2) and windows[i].nodes == (0.6,)
    for a, b in pairwise(windows):
        assert a.end == b.start
    assert windows[-1].end is None and windows[15].end == pytest.approx(0.2)


def test_no_history_crosses_the_way_up() -> None:
    sampler = Sampler(Multistep(2), 10, Uniform(), restarts=(AGAIN,))
    for w in sampler.windows(Gaussian(FLOW)):
        if w.nodes[0] != w.start:
            assert w.past == ()
        assert all(p > w.nodes[0] for p in w.past)
    third = Sampler(Multistep(3), 10, Uniform(), 0.9, 0.0, (AGAIN,))
    first = [w for w in third.windows(Gaussian(FLOW)) if not w.past]
    assert len(first) == 3 and all(len(w.nodes) == 2 for w in first)  # it starts anew each time


def test_restarts_at_several_levels_come_in_the_order_of_the_run() -> None:
    both = (Restart(0.2, 0.4, 3), Restart(0.7, 0.9, 2), Restart(0.2, 0.3, 2))
    windows = Sampler(DDIM(), 10, Uniform(), restarts=both).windows(Gaussian(FLOW))
    tops = [w.nodes[0] for w in windows if w.nodes[0] != w.start]
    assert tops == [0.9, 0.4, 0.3] and len(windows) == 17


def test_a_restart_may_come_last() -> None:
    sampler = Sampler(DDIM(), 4, Uniform(), 0.9, 0.1, (Restart(0.1, 0.5, 3),))
    windows = sampler.windows(Gaussian(FLOW))
    assert len(windows) == 7 and windows[-1].end == pytest.approx(0.1)


@pytest.mark.parametrize("solver", SOLVED, ids=name)
def test_the_calls_of_a_restart_are_counted(solver: Solver) -> None:
    class Counting(Denoiser):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.calls = mixture(), 0
            self.process = self.inner.process

        def forward(
            self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
        ) -> Prediction:
            self.calls += 1
            return self.inner(x_t, t)

    denoiser, sampler = Counting(), Sampler(solver, 8, restarts=(AGAIN,))
    solution = sampler(denoiser, randn(4, 2), path=True)
    assert (
        solution.nfe
        == denoiser.calls
        == sum(len(w.nodes) for w in sampler.windows(denoiser.process))
    )
    assert len(solution.path) == 8 + 2 * 4 + 1


@pytest.mark.parametrize("schedule", [FLOW, VP(), Cosine()], ids=name)
@pytest.mark.parametrize("solver", SOLVED, ids=name)
def test_data_that_are_one_point_stay_exact_through_restarts(
    solver: Solver, schedule: Schedule
) -> None:
    """At the end, and at a noise level on the way, where the noise must be that level's."""
    x0, process = randn(3, 2), Gaussian(schedule)
    end = Sampler(solver, 6, restarts=(AGAIN,))(Knows(x0, process), randn(3, 2, seed=1), 2).x
    assert isinstance(end, Tensor) and torch.allclose(end, x0, rtol=0, atol=1e-10)
    sampler = Sampler(solver, 8, start=0.9, stop=0.1, restarts=(AGAIN,))
    mean, variance = gaussian_moments(sampler, schedule, mean=0.7, variance=0.0)
    alpha, sigma = (float(c) for c in schedule(0.1))
    assert mean == pytest.approx(0.7 * alpha, rel=1e-9)
    assert math.sqrt(variance) == pytest.approx(sigma, rel=1e-9)


@pytest.mark.parametrize("solver", [DDIM(), Multistep(2), UniPC(2)], ids=name)
def test_runs_with_restarts_converge_with_the_weak_order_of_their_solver(solver: Solver) -> None:
    """With the steps of the restarts in proportion."""
    start, stop = float(FLOW.time(-8.0)), float(FLOW.time(6.0))
    exact = float(FLOW.alpha(stop) ** 2 * 0.6 + FLOW.sigma(stop) ** 2)
    error = []
    for n in (160, 320):
        again = (Restart(float(FLOW.time(2.0)), float(FLOW.time(-2.0)), n // 4, 2),)
        sampler = Sampler(solver, n, start=start, stop=stop, restarts=again)
        error.append(abs(gaussian_moments(sampler, FLOW, variance=0.6)[1] - exact))
    assert math.log2(error[0] / error[1]) > solver.order - 0.2


def test_restarts_repair_what_went_wrong_above_them() -> None:
    """A start of a wrong spread: the noise of every round makes the run forget more of it."""
    eye = torch.eye(1, dtype=torch.float64)
    denoiser = GaussianOracle(0 * eye[0], 0.6 * eye, Gaussian(FLOW))
    wide, off = 2 * randn(4000, 1), []
    for rounds in (0, 1, 3):
        again = (Restart(0.1, 0.7, 12, rounds),) if rounds else ()
        end = Sampler(Multistep(2), 24, start=0.9, restarts=again)(denoiser, wide, 1).x
        assert isinstance(end, Tensor)
        off.append(abs(float(end.var()) - 0.6))
    assert off[1] < 0.5 * off[0] and off[2] < 0.1 * off[0]


def test_classes_are_resampled_on_the_way_up() -> None:
    """A jump field restarts as well: what was revealed is hidden again with the probability of the forward process."""
    process = Joint({"x": Gaussian(FLOW), "k": Jump(FLOW, Categorical(3, absorbing=True))})

    class Flat(Denoiser):
        def __init__(self) -> None:
            super().__init__()
            self.process = process

        def forward(
            self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
        ) -> Prediction:
            assert isinstance(x_t, State)
            seen.append(float((x_t["k"] == 3).float().mean()))
            p = torch.full((*x_t["k"].shape, 3), 1 / 3)
            return Prediction(x_t.replace({"x": 0 * x_t["x"], "k": p}), x_t, t, process)

    seen: list[float] = []
    like = State(
        {"x": torch.zeros(2000, 1), "k": torch.zeros(2000, 1, dtype=torch.long)}, Dense(2000)
    )
    sampler = Sampler(DDIM(), 10, Uniform(), restarts=(Restart(0.2, 0.6, 4),))
    sampler(Flat(), process.prior(like, Noise(0)), 1)
    assert seen[8] == pytest.approx(0.6, abs=0.05) and seen[12] == pytest.approx(0.2, abs=0.05)


@pytest.mark.parametrize("solver", [Multistep(2), SASolver(2, 2), Langevin()], ids=name)
def test_a_restarted_sample_does_not_depend_on_its_batch(solver: Solver) -> None:
    denoiser, sampler = mixture(), Sampler(solver, 6, restarts=(AGAIN,))
    seeds, x = [3, 1, 4], randn(3, 2)
    together = sampler(denoiser, x, seeds).x
    each = [sampler(denoiser, x[i : i + 1], [seeds[i]]).x for i in range(3)]
    assert isinstance(together, Tensor)
    assert torch.allclose(
        together, torch.cat([e for e in each if isinstance(e, Tensor)]), atol=1e-12
    )


def test_wrong_restarts_are_refused() -> None:
    for low, high in ((0.0, 0.5), (0.5, 0.2), (0.5, 1.1)):
        with pytest.raises(ValueError, match="need 0 < low < high <= 1"):
            Restart(low, high)
    with pytest.raises(ValueError, match="steps and rounds must be at least 1"):
        Restart(0.2, 0.5, 0)
    with pytest.raises(ValueError, match="steps must be at least 3 .* got 2"):
        Sampler(Multistep(3), 9, restarts=(Restart(0.2, 0.5, 2),))
    coarse = Sampler(DDIM(), 2, Uniform(), restarts=(Restart(0.1, 0.4),))
    with pytest.raises(ValueError, match="nearest to low = 0.1 is 0.5, not below high = 0.4"):
        coarse(mixture(), randn(2, 2))
    single = Sampler(DDIM(), 1, restarts=(Restart(0.1, 0.4),))
    with pytest.raises(ValueError, match="a run of at least 2 steps"):
        single(mixture(), randn(2, 2))


def test_a_recurrent_run_takes_every_step_but_the_last_so_many_times() -> None:
    process = Gaussian(FLOW)
    plain = Sampler(DDIM(), 5, Uniform())
    windows = plain.recurrent(process, 3).windows(process)
    spans = [(w.nodes[0], w.end) for w in windows]
    once = [(w.nodes[0], w.end) for w in plain.windows(process)]
    want = [span for span in once[:-1] for _ in range(3)] + once[-1:]
    assert len(spans) == len(want)
    for (t, s), (a, b) in zip(spans, want, strict=True):
        assert t == pytest.approx(a) and (s == b or s == pytest.approx(b))
    assert plain.recurrent(process, 1) is plain
    with pytest.raises(ValueError, match="rounds must be at least 1"):
        plain.recurrent(process, 0)
    with pytest.raises(ValueError, match="at least 2 for Multistep"):
        Sampler(Multistep(2), 5).recurrent(process, 2)


def test_a_recurrent_run_ends_on_the_law_of_the_data_as_its_steps_grow() -> None:
    """Noising back and coming down again keeps every marginal, but for the error of the steps."""
    process = Gaussian(FLOW)
    for rounds in (2, 4):
        errors = []
        for n in (50, 100, 200):
            sampler = Sampler(DDIM(1.0), n, Uniform()).recurrent(process, rounds)
            mean, variance = gaussian_moments(sampler, FLOW, mean=0.7, variance=0.6)
            assert mean == pytest.approx(0.7, abs=1e-6)
            errors.append(abs(variance - 0.6))
        assert errors[0] / errors[1] > 1.7 and errors[1] / errors[2] > 1.7 and errors[2] < 0.03
