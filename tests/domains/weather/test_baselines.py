"""The simple rivals are exact where theory says what they are, and never see what they should not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import xarray as xr

from sciffusion.domains.weather.baselines.interpolation import (
    OptimalInterpolation,
    best_shrinkage,
    enlarge,
)
from sciffusion.domains.weather.baselines.statistics import (
    Climatology,
    DampedPersistence,
    LocalRidge,
    Ridge,
)

RNG = np.random.default_rng


def law(points: int = 6, seed: int = 0) -> OptimalInterpolation:
    rng = RNG(seed)
    factor = rng.standard_normal((4, points))
    return OptimalInterpolation(rng.standard_normal(points), factor, 0.1 + rng.random(points))


def covariance(x: OptimalInterpolation) -> np.ndarray:
    return x.factor.T @ x.factor + np.diag(x.own)


def conditional(
    x: OptimalInterpolation, h: np.ndarray, y: np.ndarray, noise: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance given h x + e = y, through the joint precision."""
    precision = np.linalg.inv(covariance(x)) + h.T @ np.diag(1 / noise) @ h
    cov = np.linalg.inv(precision)
    return cov @ (np.linalg.inv(covariance(x)) @ x.mean + h.T @ (y / noise)), cov


@pytest.mark.parametrize("points", [3, 6])  # fewer and more than the factor's rows
def test_optimal_interpolation_is_the_conditional_gaussian(points: int) -> None:
    x, y, noise = law(points), RNG(1).standard_normal(2), np.array([0.3, 0.7])
    where = np.array([2, 0])
    for h, given in ((np.eye(points)[where], where), (RNG(2).standard_normal((2, points)),) * 2):
        found = x.analyse(y, given, noise)
        mean, cov = conditional(x, h, y, noise)
        assert np.allclose(found.mean, mean) and np.allclose(found.variance, np.diag(cov))


def test_samples_of_the_posterior_have_its_mean_and_covariance() -> None:
    x, y, noise, where = law(), RNG(1).standard_normal(2), np.array([0.3, 0.7]), np.array([4, 1])
    found = x.analyse(y, where, noise)
    mean, cov = conditional(x, np.eye(6)[where], y, noise)
    draws = found.sample(50_000, 0)
    assert np.allclose(draws.mean(0), mean, atol=0.03)
    assert np.allclose(np.cov(draws.T), cov, atol=0.06)
    assert np.array_equal(draws, found.sample(50_000, 0))
    assert x.analyse(np.stack([y, y]), where, noise).sample(3, 0).shape == (3, 2, 6)


def test_analyses_of_many_times_are_those_of_each() -> None:
    x, ys, where = law(), RNG(1).standard_normal((5, 3)), np.array([0, 2, 5])
    many = x.analyse(ys, where, 0.5)
    for i, y in enumerate(ys):
        assert np.allclose(many.mean[i], x.analyse(y, where, 0.5).mean)


def test_exact_observations_are_met_and_worthless_ones_ignored() -> None:
    x, y, where = law(), np.array([3.0, -2.0]), np.array([1, 3])
    exact, worthless = x.analyse(y, where, 1e-10), x.analyse(y, where, 1e10)
    assert np.allclose(exact.mean[where], y, atol=1e-8) and exact.variance[where].max() < 1e-8
    assert np.allclose(worthless.mean, x.mean, atol=1e-8)
    assert np.allclose(worthless.variance, np.diag(covariance(x)))


def test_the_score_of_an_analysis_is_that_of_scoringrules() -> None:
    scoringrules = pytest.importorskip("scoringrules")
    found = law().analyse(np.array([1.0]), np.array([2]), 0.4)
    truth = RNG(3).standard_normal(6)
    want = scoringrules.crps_normal(truth, found.mean, np.sqrt(found.variance))
    assert np.allclose(found.crps(truth), want)


def test_a_fit_shrinks_the_samples_covariance_to_its_diagonal() -> None:
    fields = RNG(0).standard_normal((30, 5)) @ RNG(1).standard_normal((5, 5)) + 2.0
    sample = np.cov(fields.T)
    for share in (0.0, 0.3, 1.0):
        x = OptimalInterpolation.fit(fields, shrinkage=share)
        want = (1 - share) * sample + share * np.diag(np.diag(sample))
        assert np.allclose(covariance(x), want) and np.allclose(x.mean, fields.mean(0))


@pytest.mark.parametrize("shape", [(12, 8), (8, 12)])
def test_the_chosen_shrinkage_is_the_formula_of_schaefer_and_strimmer(
    shape: tuple[int, int],
) -> None:
    fields = RNG(4).standard_normal(shape) @ RNG(5).standard_normal((shape[1], shape[1]))
    x, n = fields - fields.mean(0), len(fields)
    products = x[:, :, None] * x[:, None, :]
    mean = products.mean(0)
    varies = n / (n - 1) ** 3 * ((products - mean) ** 2).sum(0)
    off = ~np.eye(shape[1], dtype=bool)
    want = varies[off].sum() / ((n / (n - 1) * mean) ** 2)[off].sum()
    assert best_shrinkage(fields) == pytest.approx(min(1.0, want), rel=1e-9)


def test_shrinkage_falls_with_samples_and_is_whole_without_correlation() -> None:
    root = RNG(6).standard_normal((10, 10))
    few, many = (best_shrinkage(RNG(7).standard_normal((n, 10)) @ root) for n in (10, 1000))
    assert many < few / 10
    assert best_shrinkage(RNG(8).standard_normal((30, 40))) > 0.8


# Interpolation by polynomials


def test_enlarging_keeps_linear_fields_inside_and_constants_everywhere() -> None:
    coarse = torch.arange(6.0)[:, None] + 2 * torch.arange(5.0)
    at = (torch.arange(24.0) + 0.5) / 4 - 0.5
    want = at[:, None] + 2 * at[None, :20]
    inside = enlarge(coarse, 4, "bilinear")[2:-2, 2:-2]
    assert torch.allclose(inside, want[2:-2, 2:-2], atol=1e-5)
    # torch's bicubic kernel (a = -3/4) bends lines between the middles of cells, by less than this
    inside = enlarge(coarse, 4, "bicubic")[6:-6, 6:-6]
    assert float((inside - want[6:-6, 6:-6]).abs().max()) < 0.2
    for circular in (False, True):
        for x in (
            enlarge(torch.full((2, 3, 4, 6), 7.0), 2, "bilinear", circular=circular),
            enlarge(torch.full((2, 3, 4, 6), 7.0), 2, "bicubic", circular=circular),
        ):
            assert x.shape == (2, 3, 8, 12) and torch.allclose(x, torch.tensor(7.0))


def test_circular_enlarging_turns_with_the_globe() -> None:
    x = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0))
    for turned, plain in (
        (
            enlarge(x.roll(3, -1), 4, "bicubic", circular=True),
            enlarge(x, 4, "bicubic", circular=True),
        ),
        (
            enlarge(x.roll(3, -1), 4, "bilinear", circular=True),
            enlarge(x, 4, "bilinear", circular=True),
        ),
    ):
        assert torch.allclose(turned, plain.roll(12, -1), atol=1e-6)


# Statistics


def calendar(cftime: bool = False) -> np.ndarray:
    if cftime:
        return xr.date_range(
            "2000-01-01", periods=1460, freq="6h", calendar="noleap", use_cftime=True
        ).values
    return np.arange("2000-01-01", "2001-01-01", np.timedelta64(6, "h"), dtype="datetime64[h]")


@pytest.mark.parametrize("cftime", [False, True])
def test_climatology_recovers_waves_of_the_year_and_of_the_day(cftime: bool) -> None:
    if cftime:
        pytest.importorskip("cftime")
    times = calendar(cftime)
    clock = xr.DataArray(times, dims="time").dt
    angle = 2 * np.pi * (clock.dayofyear.values - 1 + clock.hour.values / 24) / 365.2425
    truth = (
        3
        + np.cos(angle)
        - 2 * np.sin(2 * angle)
        + np.array([0.0, 1.0, 5.0, 2.0])[clock.hour.values // 6]
    )
    values = np.stack([truth, 2 * truth], 1)
    noisy = values + 0.5 * RNG(0).standard_normal(values.shape)
    found = Climatology.fit(times, values)
    assert np.allclose(found.at(times[::7]), values[::7])
    assert np.sqrt(((Climatology.fit(times, noisy).at(times) - values) ** 2).mean()) < 0.06
    assert not np.allclose(Climatology.fit(times, values, harmonics=1).at(times), values)


def test_damped_persistence_is_the_autocorrelation_of_a_red_process() -> None:
    x = np.zeros((20_000, 2))
    noise, memory = RNG(0).standard_normal(x.shape), np.array([0.9, 0.3])
    for t in range(1, len(x)):
        x[t] = memory * x[t - 1] + noise[t]
    for steps in (1, 3):
        found = DampedPersistence.fit(x, steps)
        assert np.allclose(found.factor, memory**steps, atol=0.03)
        want = np.sqrt((1 - memory ** (2 * steps)) / (1 - memory**2))
        assert np.allclose(found.spread, want, rtol=0.03)
        assert np.allclose(found(x[:4]), found.factor * x[:4])


def test_ridge_is_its_closed_form_and_its_spread_that_of_samples_left_out() -> None:
    x, y = RNG(0).standard_normal((15, 4)), RNG(1).standard_normal((15, 2))

    def closed(x: np.ndarray, y: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
        a, b = x - x.mean(0), y - y.mean(0)
        c = np.linalg.solve(a.T @ a + penalty * np.eye(4), a.T @ b)
        return c, y.mean(0) - x.mean(0) @ c

    found = Ridge.fit(x, y, penalty=0.7)
    unit = ((x - x.mean(0)) ** 2).sum() / 4
    coefficients, constant = closed(x, y, 0.7 * unit)
    assert np.allclose(found.coefficients, coefficients) and np.allclose(found.constant, constant)
    errors = []
    for i in range(15):
        rest = np.arange(15) != i
        # the penalty that the formula leaves as it was; the mean is left out too
        c, b = closed(x[rest], y[rest], 0.7 * unit)
        errors.append(y[i] - x[i] @ c - b)
    assert np.allclose(found.spread, np.sqrt(np.mean(np.square(errors), 0)))


def test_ridge_chooses_its_penalty_by_the_data() -> None:
    x = RNG(0).standard_normal((60, 40))
    c = RNG(1).standard_normal((40, 3))
    exact = Ridge.fit(x, x @ c + 1.0)
    assert np.allclose(exact(x), x @ c + 1.0, atol=1e-4)
    noise = 20 * RNG(2).standard_normal((60, 3))
    noisy, loose = Ridge.fit(x, x @ c + noise), Ridge.fit(x, x @ c + noise, penalty=1e-8)
    fresh = RNG(3).standard_normal((500, 40))
    errors = [((f(fresh) - fresh @ c) ** 2).mean() for f in (noisy, loose)]
    assert noisy.penalty > 0.1 and errors[0] < errors[1] / 2
    assert Ridge.fit(x, noise).penalty > noisy.penalty


def test_a_local_ridge_learns_a_linear_map_of_the_neighbourhood() -> None:
    coarse = RNG(0).standard_normal((20, 5, 6))
    wide = np.pad(coarse, ((0, 0), (1, 1), (1, 1)), mode="edge")
    fine = np.repeat(np.repeat(coarse, 2, 1), 2, 2)
    fine[:, :, 1::2] += 0.5 * np.repeat(
        wide[:, 1:-1, 2:], 2, 1
    )  # the right half sees its neighbour
    found = LocalRidge.fit(coarse[:15], fine[:15], reach=1)
    assert np.allclose(found(coarse[15:]), fine[15:], atol=1e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: law().analyse(np.ones(1), np.array([6]), 1.0), r"where must lie in 0\.\.5"),
        (lambda: law().analyse(np.ones(1), np.ones((1, 5)), 1.0), "where must have 6 columns"),
        (lambda: law().analyse(np.ones(3), np.array([1, 2]), 1.0), r"values must be \(\.\.\., 2\)"),
        (lambda: OptimalInterpolation.fit(np.ones((1, 3))), "with n > 1"),
        (lambda: OptimalInterpolation.fit(np.full((3, 3), np.nan)), "must be finite"),
        (lambda: OptimalInterpolation.fit(np.eye(3), shrinkage=1.5), "shrinkage must lie in"),
        (lambda: enlarge(torch.ones(2, 2), 0, "bilinear"), "factor must be at least 1"),
        (lambda: Climatology.fit(calendar(), np.ones((3, 2))), r"values must be \(1464, \.\.\.\)"),
        (lambda: Climatology.fit(calendar()[:4], np.ones((4, 2))), "at least 8 times"),
        (
            lambda: Climatology.fit(calendar()[::4], np.ones((366, 1))).at(calendar()[1:2]),
            r"times must have hours among \[0\]",
        ),
        (lambda: DampedPersistence.fit(np.ones((3, 2)), 3), r"steps must lie in 1\.\.2"),
        (lambda: Ridge.fit(np.ones((3, 2)), np.ones((4, 2))), "x and y must be"),
        (lambda: Ridge.fit(np.eye(3), np.eye(3), penalty=0.0), "penalty must be positive"),
        (lambda: LocalRidge.fit(np.ones((1, 2, 2)), np.ones((1, 4, 5))), "fine must be"),
    ],
)
def test_what_makes_no_sense_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
