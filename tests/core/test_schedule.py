"""Schedules: one falling curve, told in five ways."""

from __future__ import annotations

import math

import pytest
import torch

from sciffusion.schedule import VE, VP, Cosine, Polynomial, RectifiedFlow, Schedule, TrigFlow
from sciffusion.testing import check_schedule
from tests.core.cases import PRESERVING, SCHEDULES, default_dtype, name

T = torch.linspace(0, 1, 101, dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_log_snr_rates_sde_and_shifts_describe_the_same_curve(
    schedule: Schedule, dtype: torch.dtype
) -> None:
    with default_dtype(dtype):
        check_schedule(schedule)


@pytest.mark.parametrize("schedule", PRESERVING, ids=name)
@pytest.mark.parametrize("factor", [1.0, 0.1, 7.0])
def test_variance_preserving_schedules_stay_on_the_unit_circle(
    schedule: Schedule, factor: float
) -> None:
    alpha, sigma = schedule.shift(factor)(T)
    assert torch.allclose(alpha**2 + sigma**2, torch.ones_like(T), rtol=0, atol=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_a_point_found_by_its_log_snr_is_the_point_of_that_time(schedule: Schedule) -> None:
    for got, want in zip(schedule.at(schedule.log_snr(T)), schedule(T), strict=True):
        assert torch.allclose(got, want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_data_are_clean_at_0_and_the_terminal_snr_is_the_snr_at_1(schedule: Schedule) -> None:
    assert float(schedule.log_snr(0.0)) > 8
    alpha, sigma = schedule(1.0)
    assert schedule.terminal_snr == pytest.approx(float((alpha / sigma) ** 2), rel=1e-12)


def test_terminal_snrs_are_those_of_the_formulas() -> None:
    assert RectifiedFlow().terminal_snr == TrigFlow().terminal_snr == 0.0
    assert Cosine().terminal_snr < 1e-30
    assert Polynomial().terminal_snr == pytest.approx(1e-5 / (1 - 1e-5))
    assert VP().terminal_snr == pytest.approx(1 / math.expm1(0.5 * (0.1 + 20)))
    assert VE().terminal_snr == pytest.approx(80.0**-2)
    assert VE().shift(2).terminal_snr == pytest.approx(160.0**-2)


@pytest.mark.parametrize("factor", [0.2, 1.0, 3.0])
def test_shifting_rectified_flow_is_the_known_change_of_time(factor: float) -> None:
    shifted = RectifiedFlow().shift(factor)
    moved = factor * T / (1 + (factor - 1) * T)
    assert torch.allclose(shifted.sigma(T), moved, rtol=0, atol=1e-12)
    assert torch.allclose(shifted.alpha(T), 1 - moved, rtol=0, atol=1e-12)
    slope = factor / (1 + (factor - 1) * T) ** 2
    assert torch.allclose(shifted.rates(T)[1], slope, rtol=1e-6)
    assert torch.allclose(shifted.rates(T)[0], -slope, rtol=1e-6)


@pytest.mark.parametrize("schedule", [Polynomial(), Polynomial(1.0), VE(), VP()], ids=name)
def test_a_shift_carries_a_curve_on_beyond_its_own_ends(schedule: Schedule) -> None:
    for factor in (0.01, 100.0):
        moved = schedule.log_snr(T) - 2 * math.log(factor)
        assert torch.allclose(schedule.shift(factor).log_snr(T), moved, rtol=0, atol=1e-9)
        alpha, sigma = schedule.shift(factor)(T)
        assert torch.allclose(2 * (alpha / sigma).log(), moved, rtol=0, atol=1e-9)


def test_shifts_compose_to_equal_schedules() -> None:
    assert VP().shift(2.0).shift(3.0) == VP().shift(6.0)
    assert VP().shift(2.0).shift(3.0).base == VP()  # type: ignore[attr-defined]


def test_trig_flow_is_the_cosine_schedule_without_offset() -> None:
    for a, b in zip(TrigFlow()(T), Cosine(0.0)(T), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-15)


def test_the_cosine_schedule_is_the_published_formula() -> None:
    f = torch.cos((T + 0.008) / 1.008 * math.pi / 2) ** 2
    assert torch.allclose(Cosine().alpha(T) ** 2, f / f[0], rtol=0, atol=1e-14)


def test_the_polynomial_schedule_is_the_published_formula() -> None:
    want = (1 - 2e-5) * (1 - T**2) ** 2 + 1e-5
    assert torch.allclose(Polynomial(2.0).alpha(T) ** 2, want, rtol=0, atol=1e-14)


def test_the_diffusion_of_a_variance_preserving_sde_is_the_root_of_its_rate() -> None:
    f, g = VP().sde(T)
    beta = 0.1 + T * 19.9
    assert torch.allclose(f, -beta / 2, rtol=1e-9)
    assert torch.allclose(g, beta.sqrt(), rtol=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_rates_and_sde_are_finite_wherever_they_exist(schedule: Schedule) -> None:
    for part in (*schedule.rates(T[1:-1]), *schedule.sde(T[:-1])):
        assert bool(part.isfinite().all())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VP(0.0, 1.0), "beta_min"),
        (lambda: VP(2.0, 1.0), "beta_min"),
        (lambda: Cosine(-0.1), "s must lie"),
        (lambda: Cosine(1.0), "s must lie"),
        (lambda: Polynomial(0.0), "power"),
        (lambda: Polynomial(2.0, 0.5), "precision"),
        (lambda: VE(1.0, 1.0), "sigma_min"),
        (lambda: VE(0.0, 1.0), "sigma_min"),
        (lambda: VP().shift(0.0), "factor must be positive"),
        (lambda: VP().shift(-2.0), "factor must be positive"),
    ],
)
def test_settings_that_make_no_schedule_are_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=message):
        make()
