"""Schedules: one falling curve, told in five ways."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from sciffusion.schedule import (
    VE,
    VP,
    Cosine,
    Interpolant,
    Laplace,
    Polynomial,
    RectifiedFlow,
    ScaledLinear,
    Schedule,
    SigmoidSchedule,
    SubVP,
    TrigFlow,
    ZeroTerminalSNR,
    resolution_shift,
    token_shift,
)
from sciffusion.testing import check_schedule
from tests.core.cases import CURVED, PRESERVING, SCHEDULES, default_dtype, name

T = torch.linspace(0, 1, 101, dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_log_snr_rates_sde_and_shifts_describe_the_same_curve(
    schedule: Schedule, dtype: torch.dtype
) -> None:
    with default_dtype(dtype):
        check_schedule(schedule)


@pytest.mark.parametrize(
    "schedule",
    [
        ScaledLinear(3.0, 3.0),
        SubVP(ScaledLinear()),
        VE(0.002, 80.0, rho=7.0),
        SigmoidSchedule(0.0, 3.0, 0.3),
        SigmoidSchedule(-3.0, 3.0, 0.1),
        Laplace(1.0, 1.5),
        Interpolant(lambda t: 1 - 0.9 * t, lambda t: 0.01 + t),
        CURVED.shift(3.0),
        ZeroTerminalSNR(VP(1.0, 1.0)),
        ZeroTerminalSNR(Polynomial()),
        ZeroTerminalSNR(VP().shift(3.0)),
        ZeroTerminalSNR(ScaledLinear()).shift(0.4),
    ],
    ids=lambda s: name(s)[:40],
)
def test_other_settings_describe_one_curve_too(schedule: Schedule) -> None:
    check_schedule(schedule)


@given(st.sampled_from(SCHEDULES), st.floats(-600, 600), st.floats(0.05, 20.0))
def test_every_log_snr_between_the_ends_has_its_time(
    schedule: Schedule, log_snr: float, factor: float
) -> None:
    shifted = schedule.shift(factor)
    first, last = (float(shifted.log_snr(t)) for t in (0.0, 1.0))
    assume(last < log_snr < first)
    t = shifted.time(log_snr)
    assert 0 <= float(t) <= 1
    # a time is right to a few units in the last place of 1, wherever it lies
    noisier, cleaner = ((t + d).clamp(0, 1) for d in (1e-15, -1e-15))
    tol = 1e-9 * (1 + abs(log_snr))
    assert float(shifted.log_snr(noisier)) - tol <= log_snr
    assert log_snr <= float(shifted.log_snr(cleaner)) + tol


@given(st.sampled_from(SCHEDULES), st.floats(1e-3, 0.999), st.floats(0.05, 20.0))
def test_a_time_is_found_again_by_its_log_snr(schedule: Schedule, t: float, factor: float) -> None:
    shifted = schedule.shift(factor)
    assert float(shifted.time(shifted.log_snr(t))) == pytest.approx(t, abs=1e-9)
    alpha, sigma = shifted(t)
    assert 2 * math.log(alpha / sigma) == pytest.approx(float(shifted.log_snr(t)), abs=1e-7)


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
    kept = math.exp(-(math.sqrt(0.85 * 12) + 0.85 + 12) / 3)
    assert ScaledLinear().terminal_snr == pytest.approx(kept / (1 - kept))
    assert SubVP(ScaledLinear()).terminal_snr == pytest.approx(kept / (1 - kept) ** 2)
    assert SigmoidSchedule().terminal_snr == Laplace().terminal_snr == CURVED.terminal_snr == 0.0


@pytest.mark.parametrize("factor", [0.2, 1.0, 3.0])
def test_shifting_rectified_flow_is_the_known_change_of_time(factor: float) -> None:
    shifted = RectifiedFlow().shift(factor)
    moved = factor * T / (1 + (factor - 1) * T)
    assert torch.allclose(shifted.sigma(T), moved, rtol=0, atol=1e-12)
    assert torch.allclose(shifted.alpha(T), 1 - moved, rtol=0, atol=1e-12)
    slope = factor / (1 + (factor - 1) * T) ** 2
    assert torch.allclose(shifted.rates(T)[1], slope, rtol=1e-6)
    assert torch.allclose(shifted.rates(T)[0], -slope, rtol=1e-6)


@pytest.mark.parametrize(
    "schedule",
    [
        *(Polynomial(), Polynomial(1.0), VE(), VE(0.02, 80.0, rho=3.0), VP(), SubVP()),
        Interpolant(lambda t: 1 - 0.9 * t, lambda t: 0.01 + t),
    ],
    ids=name,
)
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


def test_the_scaled_linear_schedule_is_the_limit_of_the_published_discrete_one() -> None:
    """alpha_bar, the product of 1 - beta, for betas that are linear in their roots: 0.00085 to 0.012 in 1000 steps."""
    n = 1000
    beta = torch.linspace(0.00085**0.5, 0.012**0.5, n, dtype=torch.float64) ** 2
    alpha = (1 - beta).log().cumsum(0).mul(0.5).exp()
    times = (torch.arange(n, dtype=torch.float64) + 1) / n
    assert torch.allclose(ScaledLinear().alpha(times), alpha, rtol=0.02)


def test_the_sub_vp_sde_is_the_published_one() -> None:
    """g^2 = beta (1 - exp(-2 B)), and never more noise than the variance preserving schedule of the same rate."""
    f, g = SubVP().sde(T)
    beta, integral = 0.1 + T * 19.9, 0.1 * T + 0.5 * 19.9 * T**2
    assert torch.allclose(f, -beta / 2, rtol=1e-9)
    assert torch.allclose(g**2, beta * -torch.expm1(-2 * integral), rtol=1e-6, atol=1e-10)
    assert torch.allclose(SubVP().sigma(T), VP().sigma(T) ** 2, rtol=1e-12)


def test_the_sigmoid_schedule_is_the_published_formula() -> None:
    for start, end, tau in ((-3.0, 3.0, 1.0), (0.0, 3.0, 0.3)):
        first, last, here = (
            torch.sigmoid((start + t * (end - start)) / tau)
            for t in (torch.tensor(0.0).double(), torch.tensor(1.0).double(), T)
        )
        want = (last - here) / (last - first)
        got = SigmoidSchedule(start, end, tau).alpha(T) ** 2
        assert torch.allclose(got, want, rtol=0, atol=1e-14)


def test_even_times_of_the_laplace_schedule_have_laplace_distributed_log_snrs() -> None:
    schedule = Laplace(0.7, 0.5)
    values = torch.linspace(-3, 4, 71, dtype=torch.float64)
    law = torch.distributions.Laplace(*torch.tensor([0.7, 0.5], dtype=torch.float64))
    # the share of times with a lower log-SNR is 1 - t
    assert torch.allclose(1 - schedule.time(values), law.cdf(values), rtol=0, atol=1e-12)
    assert torch.allclose(
        -1 / schedule.slope(T[1:-1]), law.log_prob(schedule.log_snr(T[1:-1])).exp()
    )


def test_plain_edm_has_sigma_in_proportion_to_time() -> None:
    schedule = VE(0.0, 80.0, rho=1.0)
    assert torch.allclose(schedule.sigma(T), 80 * T, rtol=1e-15)
    assert torch.equal(schedule.rates(T)[1], torch.full_like(T, 80.0))
    assert torch.allclose(schedule.sde(T)[1] ** 2, 2 * 80.0**2 * T, rtol=1e-12, atol=1e-7)


def test_a_large_rho_is_the_geometric_schedule() -> None:
    near, far = (float((VE(rho=r).sigma(T) / VE().sigma(T)).log().abs().max()) for r in (1e3, 1e4))
    assert far < 0.02 and near / far == pytest.approx(10, rel=0.05)


@pytest.mark.parametrize(
    ("interpolant", "closed"),
    [
        (Interpolant(lambda t: 1 - t, lambda t: t), RectifiedFlow()),
        (Interpolant(VP().alpha, VP().sigma), VP()),
        (Interpolant(VE().alpha, VE().sigma), VE()),
    ],
    ids=["flow", "vp", "ve"],
)
def test_an_interpolant_of_known_functions_is_the_known_schedule(
    interpolant: Schedule, closed: Schedule
) -> None:
    levels = closed.log_snr(T[1:-1])
    assert torch.allclose(interpolant.time(levels), T[1:-1], rtol=0, atol=1e-13)
    for factor in (1.0, 0.3, 5.0):
        pairs = zip(
            (*interpolant.shift(factor)(T[1:-1]), *interpolant.shift(factor).rates(T[1:-1])),
            (*closed.shift(factor)(T[1:-1]), *closed.shift(factor).rates(T[1:-1])),
            strict=True,
        )
        for a, b in pairs if factor == 1 or not isinstance(closed, VE) else ():
            assert torch.allclose(a, b, rtol=1e-8, atol=1e-12)


def test_the_time_of_an_interpolant_has_its_derivative_and_its_ends() -> None:
    level = torch.tensor([-3.0, 0.0, 2.0], dtype=torch.float64, requires_grad=True)
    t = CURVED.time(level)
    (rate,) = torch.autograd.grad(t.sum(), level)
    assert torch.allclose(rate, 1 / CURVED.slope(t.detach()), rtol=1e-9)
    ends = CURVED.time(torch.tensor([math.inf, -math.inf], dtype=torch.float64))
    assert ends.tolist() == [0.0, 1.0]


def nan(t: Tensor) -> Tensor:
    return torch.full_like(t, math.nan)


@pytest.mark.parametrize(
    ("data", "noise", "message"),
    [
        (lambda t: t, lambda t: 1 - t, "must fall strictly"),
        (lambda t: 1 - 0.5 * t, lambda t: t * (1.2 - t), "must fall strictly"),
        (
            lambda t: torch.ones_like(t),
            lambda t: (t - 0.5).clamp(min=0) + 0.1,
            "must fall strictly",
        ),
        (lambda t: 1 - 2 * t, lambda t: t, "data must be finite and not negative"),
        (lambda t: 1 - t, nan, "noise must be finite"),
        (lambda t: (1 - t).float(), lambda t: t, "data must return float64"),
        (lambda t: 1 - t, lambda t: t[:, None], "noise must return float64"),
    ],
)
def test_functions_that_make_no_interpolant_are_refused(
    data: object, noise: object, message: str
) -> None:
    assert callable(data) and callable(noise)
    with pytest.raises(ValueError, match=message):
        Interpolant(data, noise)


@pytest.mark.parametrize(
    "base", [VP(), VP(1.0, 1.0), ScaledLinear(), Polynomial(), VP().shift(2.0)], ids=name
)
def test_the_rescaled_schedule_ends_on_pure_noise_and_keeps_its_beginning(base: Schedule) -> None:
    schedule = ZeroTerminalSNR(base)
    assert base.terminal_snr > 0 and schedule.terminal_snr == 0.0
    assert float(schedule.alpha(0.0)) == pytest.approx(float(base.alpha(0.0)), rel=1e-12)
    first, last = base.alpha(0.0), base.alpha(1.0)
    want = (base.alpha(T) - last) * first / (first - last)
    assert torch.allclose(schedule.alpha(T), want, rtol=0, atol=1e-14)
    twice = ZeroTerminalSNR(schedule)
    for a, b in zip(twice(T), schedule(T), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)
    assert schedule.shift(3.0).terminal_snr == 0.0


@pytest.mark.parametrize("base", [VE(), RectifiedFlow(), SubVP(), CURVED], ids=name)
def test_a_schedule_off_the_circle_has_no_rescaling(base: Schedule) -> None:
    with pytest.raises(ValueError, match="base must be variance preserving"):
        ZeroTerminalSNR(base)


def test_pooling_a_finer_field_undoes_the_shift_of_its_resolution() -> None:
    """At a time of the shifted schedule the pooled fine field is as noisy as the coarse one at that time."""
    base, t = TrigFlow(), torch.tensor(0.6, dtype=torch.float64)
    for side in (2, 3):
        alpha, sigma = base.shift(resolution_shift(side**2 * 16, 16))(t)
        pooled = sigma / side  # the noise of the mean of side^2 elements
        coarse = base(t)
        assert float(pooled / alpha) == pytest.approx(float(coarse[1] / coarse[0]), rel=1e-12)
    assert resolution_shift(7, 7) == 1.0
    for a, b, c in ((4.0, 9.0, 25.0), (64.0, 16.0, 100.0)):
        there = resolution_shift(b, a) * resolution_shift(c, b)
        assert there == pytest.approx(resolution_shift(c, a))


def test_the_shift_by_tokens_is_the_published_change_of_time() -> None:
    for n, mu in ((256, 0.5), (4096, 1.15), (2176, 0.825)):
        assert token_shift(n) == pytest.approx(math.exp(mu))
        moved = math.exp(mu) / (math.exp(mu) + 1 / T[1:] - 1)
        assert torch.allclose(RectifiedFlow().shift(token_shift(n)).sigma(T[1:]), moved, atol=1e-12)


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
        (lambda: VE(-1.0, 1.0, rho=1.0), "sigma_min"),
        (lambda: VP().shift(0.0), "factor must be positive"),
        (lambda: VP().shift(-2.0), "factor must be positive"),
        (lambda: VP().shift(math.nan), "factor must be positive"),
        (lambda: ScaledLinear(0.0, 1.0), "beta_min"),
        (lambda: ScaledLinear(2.0, 1.0), "beta_min"),
        (lambda: SigmoidSchedule(3.0, -3.0), "start < end"),
        (lambda: SigmoidSchedule(tau=0.0), "tau > 0"),
        (lambda: SigmoidSchedule(tau=1e-3), "at most 500"),
        (lambda: Laplace(b=0.0), "b must be positive"),
        (lambda: VE(0.0, 80.0), "sigma_min must be positive for rho=inf"),
        (lambda: VE(0.0, 80.0, rho=0.0), "rho > 0"),
        (lambda: resolution_shift(0, 1), "n and base_n"),
        (lambda: token_shift(0), "n > 0"),
        (lambda: token_shift(5, few=10, many=10), "few < many"),
    ],
)
def test_settings_that_make_no_schedule_are_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=message):
        make()
