"""Fitted grids: less error in the same few steps, for any value and layout."""

from __future__ import annotations

from functools import cache
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.grid import FlowTime, Grid, Karras, LogSNR, Power, Uniform
from sciffusion.grid.optimise import _shortest, optimise
from sciffusion.layout import Dense
from sciffusion.noise import Noise
from sciffusion.process import Gaussian, Joint, Jump, Process
from sciffusion.samplers import DDIM, Heun, Multistep, Sampler
from sciffusion.schedule import VE, VP, Cosine, RectifiedFlow, TrigFlow
from sciffusion.solver import Solver
from sciffusion.space import Categorical, ZeroCoM
from sciffusion.state import State, Value, layout_of
from sciffusion.testing import check_grid
from tests.core.cases import mixture, packed, padded, points, randn, rng

# the second and third are Karras' with the windows that serve this very case best
STANDARD: list[Grid] = [
    *(Karras(), Karras(low=-5, high=5), Karras(low=-5, high=6)),
    *(LogSNR(), Uniform(), Power()),
]


@cache
def held_out() -> tuple[Tensor, Tensor]:
    """Starts that no fit has seen, and where the exact flow leads from them."""
    oracle = mixture(Gaussian(VP()))
    x0 = oracle.sample(300, rng(7))
    noised = oracle.process.perturb(x0, torch.tensor(1.0, dtype=torch.float64), Noise(99))
    end = Sampler(Multistep(3), 300, Karras(low=-12))(oracle, noised.x_t).x
    assert isinstance(noised.x_t, Tensor) and isinstance(end, Tensor)
    return noised.x_t, end


def error(solver: Solver, steps: int, grid: Grid) -> float:
    """The mean distance from the end of the exact flow."""
    start, end = held_out()
    x = Sampler(solver, steps, grid)(mixture(Gaussian(VP())), start).x
    assert isinstance(x, Tensor)
    return float((x - end).norm(dim=1).mean())


@pytest.mark.parametrize("steps", [5, 6, 8, 10])
@pytest.mark.parametrize(("solver", "share"), [(DDIM(), 0.6), (Multistep(2), 0.4)])
def test_a_fitted_grid_errs_far_less_than_the_grids_of_formulas(
    solver: Solver, share: float, steps: int
) -> None:
    oracle = mixture(Gaussian(VP()))
    grid = optimise(oracle, oracle.sample(64, rng(1)), steps, solver, rounds=7)
    check_grid(grid, VP(), (steps,))
    fitted = error(solver, steps, grid)
    assert fitted < share * error(solver, steps, Karras())
    assert fitted < 0.95 * min(error(solver, steps, other) for other in STANDARD)
    assert fitted < 1.02 * error(solver, steps, FlowTime())  # the best formula of all here


def fit_error(grid: Grid, solver: Solver, steps: int) -> float:
    """The error of a grid on the very samples of the fit."""
    oracle = mixture(Gaussian(RectifiedFlow()))
    x0 = oracle.sample(32, rng(1))
    start = oracle.process.perturb(x0, torch.tensor(1.0, dtype=torch.float64), Noise(0)).x_t
    ends = [Sampler(*run)(oracle, start).x for run in ((solver, steps, grid), (Multistep(2), 64))]
    return float((ends[0] - ends[1]).norm(dim=1).mean())  # type: ignore[operator]


@pytest.mark.parametrize("solver", [DDIM(), Heun(), Multistep(3)])
def test_no_round_of_the_fit_raises_its_error(solver: Solver) -> None:
    oracle = mixture(Gaussian(RectifiedFlow()))
    x0 = oracle.sample(32, rng(1))
    found = [fit_error(optimise(oracle, x0, 5, solver, rounds=r), solver, 5) for r in (0, 1, 4)]
    assert found[0] >= found[1] >= found[2] and found[2] < found[0]
    for other in (FlowTime(), Karras(), LogSNR()):
        assert found[0] <= fit_error(other, solver, 5) + 1e-12


@settings(max_examples=30)
@given(st.integers(3, 8), st.integers(1, 6), st.integers(0, 1000))
def test_the_dynamic_programme_finds_the_best_of_all_paths(n: int, steps: int, seed: int) -> None:
    steps = min(steps, n - 1)
    errors = np.random.default_rng(seed).random((n, n))
    errors[np.tril_indices(n)] = np.inf
    path = _shortest(errors, steps)
    assert path[0] == 0 and path[-1] == n - 1 and len(path) == steps + 1

    def total(path: list[int]) -> float:
        return float(sum(errors[a, b] for a, b in zip(path[:-1], path[1:], strict=True)))

    every = [[0, *inner, n - 1] for inner in combinations(range(1, n - 1), steps - 1)]
    assert total(path) == pytest.approx(min(map(total, every)))


def test_a_fit_draws_from_no_global_generator_and_repeats_itself() -> None:
    oracle = mixture()
    x0 = oracle.sample(16, rng(3))
    state = torch.get_rng_state()
    grids = [optimise(oracle, x0, 4, rounds=2, candidates=24, seed=s) for s in (5, 5, 6)]
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(grids[0].times, grids[1].times)
    assert not torch.equal(grids[0].times, grids[2].times)


@pytest.mark.parametrize("solver", [DDIM(), Multistep(2)])
def test_the_levels_of_a_fitted_grid_do_not_depend_on_the_schedule(solver: Solver) -> None:
    """On schedules that both end on pure noise, runs differ by a factor alone."""
    levels = []
    for schedule in (RectifiedFlow(), TrigFlow()):
        oracle = mixture(Gaussian(schedule))
        grid = optimise(oracle, oracle.sample(16, rng(1)), 5, solver, rounds=4)
        levels.append(schedule.log_snr(grid.times[1:-1]))
    assert torch.allclose(levels[0], levels[1], rtol=0, atol=1e-6)


def test_a_fit_keeps_to_its_span_and_its_window() -> None:
    oracle, window = mixture(), LogSNR(-3.0, 4.0)
    x0 = oracle.sample(16, rng(1))
    grid = optimise(oracle, x0, 5, start=0.8, stop=0.1, rounds=3, candidates=20)
    check_grid(grid, RectifiedFlow(), (5,), start=0.8, stop=0.1)
    inner = optimise(oracle, x0, 5, window=window, rounds=3, candidates=20).times[1:-1]
    levels = RectifiedFlow().log_snr(inner)
    assert float(levels.min()) >= -3.0 - 1e-9 and float(levels.max()) <= 4.0 + 1e-9
    assert optimise(oracle, x0, 1, DDIM(), candidates=8).times.tolist() == [1.0, 0.0]
    full = optimise(oracle, x0, 6, candidates=6, rounds=0)
    assert full.times.shape == (7,)


class Shrinks(Denoiser):
    """The exact denoiser of independent normal numbers of some variance, in any layout."""

    def __init__(self, process: Process, variance: float = 0.3) -> None:
        super().__init__()
        self.process, self.variance = process, variance

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        out = {}
        for k, x in self.process.fields(x_t).items():
            process, layout = self.process.field(k), layout_of(x_t, k)
            assert isinstance(process, Gaussian)
            alpha, sigma = (layout.expand(c, x) for c in process.schedule(t))
            gain = alpha * self.variance / (alpha**2 * self.variance + sigma**2)
            out[k] = process.space.project((gain * x + 0.2 * torch.sin(3 * x)).to(x), layout)
        return Prediction(self.process.rebuild(x_t, out), x_t, t, self.process)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_fit_to_states_is_the_same_padded_or_packed(dtype: torch.dtype) -> None:
    process = Joint({"pos": Gaussian(Cosine(), ZeroCoM()), "kind": Gaussian(RectifiedFlow())})
    pos, kind = points(dtype=dtype), points(features=(2,), dtype=dtype)
    found = []
    for lay in (padded, packed):
        (a, layout), (b, _) = lay(pos), lay(kind)
        state = State({"pos": a, "kind": b}, layout)
        grid = optimise(
            Shrinks(process), state, 4, DDIM(), rounds=2, candidates=16, seed=[1, 2, 3, 4]
        )
        check_grid(grid, Cosine(), (4,))
        found.append(grid.times)
    assert torch.allclose(found[0], found[1], rtol=0, atol=1e-9)


def test_a_fit_helps_two_correlated_fields_on_schedules_of_their_own() -> None:
    process = Joint({"a": Gaussian(VE()), "b": Gaussian(Cosine())})
    oracle = mixture(process)

    def state(flat: Tensor) -> State:
        return State({"a": flat[:, :1], "b": flat[:, 1:]}, Dense(len(flat)))

    grid = optimise(oracle, state(oracle.sample(64, rng(1))), 6, DDIM(), rounds=6, candidates=48)
    one = torch.tensor(1.0, dtype=torch.float64)
    start = process.perturb(state(oracle.sample(200, rng(4))), one, Noise(8)).x_t
    end = Sampler(Multistep(2), 200)(oracle, start).x
    errors = []
    for other in (grid, Karras(), LogSNR()):
        x = Sampler(DDIM(), 6, other)(oracle, start).x
        errors.append(
            sum(float((process.fields(x)[k] - v).norm()) for k, v in process.fields(end).items())
        )
    assert errors[0] < 0.8 * min(errors[1:])


def test_what_cannot_be_fitted_is_refused() -> None:
    oracle, x0 = mixture(), randn(4, 2)
    for steps in (0, 17):
        with pytest.raises(ValueError, match="steps must lie between 1 and candidates"):
            optimise(oracle, x0, steps, candidates=16)
    with pytest.raises(ValueError, match="solver must draw no noise"):
        optimise(oracle, x0, 4, DDIM(1.0))
    classes = Jump(Cosine(), Categorical(3))
    with pytest.raises(ValueError, match="every field must be Gaussian, the field 'c'"):
        state = State({"c": torch.zeros(2, 3, dtype=torch.long)}, Dense(2))
        optimise(Shrinks(Joint({"c": classes})), state, 4)
