"""Grids: strictly falling times with the right ends, for every schedule and number of steps."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sciffusion.grid import Grid, Karras, LogSNR, Power, Times, Uniform
from sciffusion.schedule import VE, RectifiedFlow, Schedule
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


def test_your_own_times_are_taken_as_they_are() -> None:
    times = torch.tensor([1.0, 0.3, 0.2, 0.0], dtype=torch.float64)
    assert torch.equal(Times(times)(RectifiedFlow(), 3), times)
    check_grid(Times(times), RectifiedFlow(), (3,))
    before = times.clone()
    Times(times)(RectifiedFlow(), 3).mul_(0)
    assert torch.equal(times, before)


@pytest.mark.parametrize(
    ("times", "steps", "message"),
    [
        ([1.0, 0.5, 0.0], 3, "must be 4 numbers"),
        ([0.9, 0.5, 0.0], 2, "from 1.0 to 0.0"),
        ([1.0, 0.5, 0.1], 2, "from 1.0 to 0.0"),
        ([1.0, 0.5, 0.5, 0.0], 3, "does not fall strictly"),
        ([1.0, 0.2, 0.6, 0.0], 3, "does not fall strictly"),
        ([1.0, math.nan, 0.0], 2, "does not fall strictly"),
    ],
)
def test_times_that_are_no_grid_are_refused(times: list[float], steps: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Times(torch.tensor(times))(RectifiedFlow(), steps)


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
        (lambda: Karras(-7.0), "rho must be positive"),
        (lambda: Karras(7.0, 3.0, 2.0), "low < high"),
        (lambda: LogSNR(2.0, 2.0), "low < high"),
    ],
)
def test_settings_that_make_no_grid_are_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=message):
        make()
