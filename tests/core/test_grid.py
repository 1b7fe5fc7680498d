"""Grids: strictly falling times with the right ends, for every schedule and number of steps."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sciffusion.grid import Beta, FlowTime, Grid, Karras, LogSNR, Power, Times, Uniform
from sciffusion.schedule import VE, Laplace, Learned, RectifiedFlow, Schedule
from sciffusion.testing import check_grid
from tests.core.cases import SCHEDULES, name

GRIDS: list[Grid] = [
    Uniform(),
    Power(),
    Power(3.0),
    LogSNR(),
    LogSNR(-4.0, 4.0),
    Karras(),
    Karras(1.0),
    Beta(),
    Beta(2.0, 0.7),
    FlowTime(),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_grids_keep_their_contract_on_every_schedule(schedule: Schedule) -> None:
    for grid in GRIDS:
        check_grid(grid, schedule)


@given(
    st.sampled_from(GRIDS),
    st.sampled_from(SCHEDULES),
    st.integers(1, 257),
    st.floats(1e-4, 1.0),
    st.floats(0.0, 1.0),
)
def test_every_grid_falls_strictly_between_any_two_times(
    grid: Grid, schedule: Schedule, steps: int, start: float, part: float
) -> None:
    stop = 0.99 * part * start
    check_grid(grid, schedule, (steps,), start=start, stop=stop)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
@pytest.mark.parametrize(("start", "stop"), [(1e-6, 0.0), (1.0, 0.9999), (1e-3, 9e-4)])
def test_grids_fall_strictly_where_the_whole_span_lies_outside_their_window(
    schedule: Schedule, start: float, stop: float
) -> None:
    for grid in GRIDS:
        check_grid(grid, schedule, (1, 2, 3, 17), start=start, stop=stop)


def test_the_uniform_grid_has_equal_steps_in_time() -> None:
    assert torch.equal(
        Uniform()(RectifiedFlow(), 4), torch.tensor([1, 0.75, 0.5, 0.25, 0], dtype=torch.float64)
    )


def test_the_power_grid_has_equal_steps_in_the_root_of_time() -> None:
    root = Power(3.0)(RectifiedFlow(), 8, 0.9, 0.1) ** (1 / 3)
    assert torch.allclose(root.diff(), root.diff()[:1], rtol=0, atol=1e-14)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_the_log_snr_grid_has_equal_steps_in_log_snr(schedule: Schedule) -> None:
    lam = schedule.log_snr(LogSNR()(schedule, 10))
    steps = lam[1:-1].diff()
    assert torch.allclose(steps, steps[:1], rtol=1e-6)
    low = max(float(schedule.log_snr(1.0)), -8.0)
    high = min(float(schedule.log_snr(0.0)), 12.0)
    assert float(steps[0]) == pytest.approx((high - low) / 10, rel=1e-6)


def test_the_karras_grid_has_equal_steps_in_the_root_of_sigma() -> None:
    schedule = VE(0.02, 40.0)
    root = schedule.sigma(Karras()(schedule, 12)) ** (1 / 7)
    assert torch.allclose(root.diff(), root.diff()[:1], rtol=1e-9)
    assert float(root[0] ** 7) == pytest.approx(40.0) and float(root[-1] ** 7) == pytest.approx(
        0.02
    )


def test_equal_steps_in_the_root_of_sigma_are_equal_steps_in_time_where_that_root_is_linear() -> (
    None
):
    ends = {"sigma_min": 0.02, "sigma_max": 40.0}
    karras = Karras(7.0)(VE(**ends), 12)
    uniform = Uniform()(VE(**ends, rho=7.0), 12)
    sigmas = VE(**ends).sigma(karras), VE(**ends, rho=7.0).sigma(uniform)
    assert torch.allclose(*sigmas, rtol=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_the_flow_time_grid_has_equal_steps_in_the_time_of_rectified_flow(
    schedule: Schedule,
) -> None:
    alpha, sigma = schedule(FlowTime()(schedule, 9, 0.95, 0.05))
    part = (sigma / (alpha + sigma)).diff()
    assert torch.allclose(part, part[:1], rtol=1e-9)
    flow = RectifiedFlow()
    assert torch.allclose(FlowTime()(flow, 9), Uniform()(flow, 9), rtol=0, atol=1e-14)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_a_shift_multiplies_noise_over_signal_of_equal_steps_between_the_same_ends(
    schedule: Schedule,
) -> None:
    alpha, sigma = schedule(FlowTime(3.0)(schedule, 9, 0.95, 0.05))
    ratio = sigma / alpha / 3
    part = (ratio / (1 + ratio)).diff()
    assert torch.allclose(part, part[:1], rtol=1e-9)
    ends = FlowTime(3.0)(schedule, 9, 0.95, 0.05)[[0, -1]]
    assert ends.tolist() == [0.95, 0.05]


def test_the_quadratic_grid_is_the_power_grid_of_two() -> None:
    n = 10
    quadratic = (1 - torch.arange(n + 1, dtype=torch.float64) / n) ** 2
    assert torch.allclose(Power(2.0)(RectifiedFlow(), n), quadratic, rtol=0, atol=1e-15)


def test_the_exponential_grid_is_the_log_snr_grid() -> None:
    schedule, n = VE(0.02, 40.0), 9
    sigma = torch.linspace(math.log(40.0), math.log(0.02), n + 1, dtype=torch.float64).exp()
    assert torch.allclose(schedule.sigma(LogSNR()(schedule, n)), sigma, rtol=1e-12)


def test_the_beta_grid_has_equal_steps_in_its_distribution_function() -> None:
    special = pytest.importorskip("scipy.special")
    for a, b in ((0.6, 0.6), (2.0, 0.7)):
        times = Beta(a, b)(RectifiedFlow(), 12, 0.9, 0.1)
        shares = torch.as_tensor(special.betainc(a, b, (times - 0.1) / 0.8))
        assert torch.allclose(shares.diff(), torch.full((12,), -1 / 12).double(), rtol=1e-6)
    assert torch.allclose(Beta(1.0, 1.0)(VE(), 7), Uniform()(VE(), 7), rtol=0, atol=1e-14)


@given(
    st.sampled_from(GRIDS),
    st.sampled_from([*SCHEDULES, Laplace(0.0, 0.1), Laplace(3.0, 0.02), VE().shift(1e6)]),
    st.integers(-1, 600),
    st.floats(-0.1, 1.1),
    st.floats(-0.1, 1.1) | st.just(math.nan),
)
def test_a_grid_falls_strictly_or_says_why_it_cannot(
    grid: Grid, schedule: Schedule, steps: int, start: float, stop: float
) -> None:
    try:
        times = grid(schedule, steps, start, stop)
    except ValueError as error:
        said = str(error)
        assert "steps must be" in said or "0 <= stop" in said or "not fall strictly" in said
    else:
        assert times.shape == (steps + 1,) and times.dtype == torch.float64
        assert bool((times.diff() < 0).all())
        assert float(times[0]) == start and float(times[-1]) == stop


def test_high_noise_that_floats_cannot_resolve_is_refused() -> None:
    with pytest.raises(ValueError, match="window of log-SNR that floats"):
        LogSNR()(Laplace(0.0, 0.1), 40)
    check_grid(LogSNR(-2.0, 12.0), Laplace(0.0, 0.1))


def test_times_of_a_learned_schedule_are_numbers() -> None:
    for grid in GRIDS:
        assert not grid(Learned(), 6).requires_grad
    check_grid(Karras(), Learned(), (1, 5, 40))


def test_your_own_times_are_taken_as_they_are() -> None:
    times = torch.tensor([1.0, 0.3, 0.2, 0.0], dtype=torch.float64)
    assert torch.equal(Times(times)(RectifiedFlow(), 3), times)
    check_grid(Times(times), RectifiedFlow(), (3,))
    before = times.clone()
    Times(times)(RectifiedFlow(), 3).mul_(0)
    assert torch.equal(times, before)


def test_every_sample_may_have_times_of_its_own() -> None:
    rows = [[1.0, 0.3, 0.2, 0.0], [1.0, 0.9, 0.5, 0.0]]
    times = torch.tensor(rows, dtype=torch.float64)
    assert torch.equal(Times(times)(RectifiedFlow(), 3), times)
    check_grid(Times(times), RectifiedFlow(), (3,))
    for row in rows:  # the same rows alone, the last dimension still the times
        assert torch.equal(
            Times(torch.tensor([row]).double())(VE(), 3), torch.tensor([row]).double()
        )


def test_ends_that_float32_rounds_are_put_right() -> None:
    times = Times(torch.tensor([0.9, 0.3, 0.1]))(RectifiedFlow(), 2, 0.9, 0.1)
    assert times[0] == 0.9 and times[-1] == 0.1 and times.dtype == torch.float64
    with pytest.raises(ValueError, match="from 0.9 to 0.1"):
        Times(torch.tensor([0.9, 0.3, 0.1], dtype=torch.float64) + 1e-9)(VE(), 2, 0.9, 0.1)


@pytest.mark.parametrize(
    ("times", "steps"),
    [([1.0, 0.5, 0.0], 3), ([0.9, 0.5, 0.0], 2), ([1.0, 0.5, 0.1], 2), ([[1.0, 0.0]], 3)],
)
def test_times_that_are_not_those_of_the_run_are_refused(times: list[float], steps: int) -> None:
    with pytest.raises(ValueError, match=f"must be {steps + 1} numbers from 1.0 to 0.0"):
        Times(torch.tensor(times))(RectifiedFlow(), steps)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([1.0, 0.5, 0.5, 0.0], "fall strictly"),
        ([1.0, 0.2, 0.6, 0.0], "fall strictly"),
        ([0.0, 0.5, 1.0], "flip rising times"),
        ([[1.0, 0.5, 0.0], [1.0, 1.0, 0.0]], "fall strictly"),
        ([1.0, math.nan, 0.0], "finite"),
        ([[1.0, 0.5, 0.0], [1.0, math.inf, 0.0]], "finite"),
        ([1000.0, 500.0, 0.0], "divide integer time steps"),
        ([1.0, 0.5, -0.1], "lie in"),
        ([1.0], "at least one step"),
        ([[[1.0, 0.0]]], "shape"),
        (1.0, "shape"),
        ([[], []], "at least one step"),
    ],
)
def test_times_that_are_no_grid_are_refused(times: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"times must .*{message}"):
        Times(torch.tensor(times))


def test_steps_and_spans_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        Uniform()(RectifiedFlow(), 0)
    for start, stop in ((0.0, 0.0), (0.2, 0.4), (1.1, 0.0), (1.0, -0.1)):
        with pytest.raises(ValueError, match="0 <= stop < start <= 1"):
            Uniform()(RectifiedFlow(), 4, start, stop)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Power(0.0), "power must be positive"),
        (lambda: FlowTime(0.0), "shift must be positive"),
        (lambda: Karras(-7.0), "rho must be positive"),
        (lambda: Karras(7.0, 3.0, 2.0), "low < high"),
        (lambda: LogSNR(2.0, 2.0), "low < high"),
        (lambda: Beta(0.0, 1.0), "a and b must be positive"),
        (lambda: Beta(1.0, math.nan), "a and b must be positive"),
    ],
)
def test_settings_that_make_no_grid_are_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=message):
        make()
