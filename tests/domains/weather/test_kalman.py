"""Ensemble filters are the Kalman filter where that is exact, and follow the Lorenz-96 model as well as is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from sciffusion.domains.weather.baselines.kalman import (
    ETKF,
    LETKF,
    Analyses,
    EnsembleFilter,
    StochasticEnKF,
    ThreeDVar,
    cycle,
    gaspari_cohn,
)
from sciffusion.domains.weather.simulators.lorenz96 import Lorenz96

RNG = np.random.default_rng


def problem(members: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """An ensemble of 5 correlated numbers, a matrix of 3 observations, those, and their variances."""
    rng = RNG(seed)
    ensemble = rng.standard_normal((members, 5)) @ rng.standard_normal((5, 5)) + 3.0
    return ensemble, rng.standard_normal((3, 5)), rng.standard_normal(3), np.array([0.5, 1.0, 2.0])


def kalman(
    mean: np.ndarray, cov: np.ndarray, h: np.ndarray, y: np.ndarray, variance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The textbook's update."""
    gain = cov @ h.T @ np.linalg.inv(h @ cov @ h.T + np.diag(variance))
    return mean + gain @ (y - h @ mean), (np.eye(len(mean)) - gain @ h) @ cov


@pytest.mark.parametrize("members", [3, 8, 30])
@pytest.mark.parametrize("rotate", [False, True])
def test_an_etkf_analysis_is_the_kalman_update_of_the_ensembles_moments(
    members: int, rotate: bool
) -> None:
    ensemble, h, y, variance = problem(members)
    mean, cov = kalman(ensemble.mean(0), np.cov(ensemble.T), h, y, variance)
    found = ETKF(rotate=rotate).analyse(ensemble, ensemble @ h.T, y, variance, RNG(1))
    assert np.allclose(found.mean(0), mean, atol=1e-10)
    assert np.allclose(np.cov(found.T), cov, atol=1e-10)


def test_a_cycled_etkf_with_a_linear_model_is_the_kalman_filter() -> None:
    ensemble, h, _, variance = problem(9)
    model = 0.6 * RNG(5).standard_normal((5, 5))
    ys = RNG(6).standard_normal((12, 3))
    found = cycle(ETKF(), ensemble, lambda e: e @ model.T, lambda e: e @ h.T, ys, variance)
    mean, cov = ensemble.mean(0), np.cov(ensemble.T)
    for y, got in zip(ys, found.ensembles, strict=True):
        mean, cov = kalman(model @ mean, model @ cov @ model.T, h, y, variance)
        assert np.allclose(got.mean(0), mean, atol=1e-8)
        assert np.allclose(np.cov(got.T), cov, atol=1e-8)


def test_an_letkf_that_sees_far_is_the_etkf() -> None:
    ensemble, h, y, variance = problem(8)
    args = ensemble, ensemble @ h.T, y, variance
    far = LETKF(np.zeros((5, 3)), 1.0, inflation=1.1)
    assert np.allclose(far.analyse(*args, RNG(0)), ETKF(1.1).analyse(*args, RNG(0)), atol=1e-10)


def test_an_letkf_leaves_alone_what_no_observation_is_near() -> None:
    ensemble, _, _, _ = problem(8)
    distance = np.abs(np.arange(5.0)[:, None] - np.array([0.0]))
    found = LETKF(distance, 1.0).analyse(ensemble, ensemble[:, :1], np.zeros(1), np.ones(1), RNG(0))
    assert np.allclose(found[:, 2:], ensemble[:, 2:])
    assert not np.allclose(found[:, :2], ensemble[:, :2])


def test_local_weights_count_like_larger_errors() -> None:
    ensemble, h, y, variance = problem(8)
    distance = np.full((5, 3), 1.0)
    found = LETKF(distance, 1.0).analyse(ensemble, ensemble @ h.T, y, variance, RNG(0))
    want = ETKF().analyse(ensemble, ensemble @ h.T, y, variance * 24 / 5, RNG(0))
    assert np.allclose(found, want, atol=1e-10)


def test_the_stochastic_filter_tends_to_the_kalman_filter() -> None:
    ensemble, h, y, variance = problem(40_000)
    mean, cov = kalman(ensemble.mean(0), np.cov(ensemble.T), h, y, variance)
    found = StochasticEnKF().analyse(ensemble, ensemble @ h.T, y, variance, RNG(0))
    assert np.allclose(found.mean(0), mean, atol=1e-8)  # its errors have no mean
    scale = np.sqrt(np.diag(cov))
    assert np.abs((np.cov(found.T) - cov) / np.outer(scale, scale)).max() < 0.05


def test_3d_var_with_the_true_covariance_is_the_kalman_update() -> None:
    ensemble, h, y, variance = problem(8)
    cov = np.cov(ensemble.T)
    found = ThreeDVar(cov, h).analyse(ensemble[:1], ensemble[:1] @ h.T, y, variance, RNG(0))
    assert np.allclose(found[0], kalman(ensemble[0], cov, h, y, variance)[0])


def test_inflation_multiplies_the_deviations_and_keeps_the_mean() -> None:
    ensemble, h, y, variance = problem(6)
    for plain, wide in ((ETKF(), ETKF(1.5)), (StochasticEnKF(), StochasticEnKF(1.5))):
        a, b = (f.analyse(ensemble, ensemble @ h.T, y, variance, RNG(0)) for f in (plain, wide))
        assert np.allclose(a.mean(0), b.mean(0))
        assert np.allclose(1.5 * (a - a.mean(0)), b - b.mean(0))


def test_the_bell_of_gaspari_and_cohn_is_smooth_and_of_compact_support() -> None:
    r = np.linspace(0, 3, 3001)
    bell = gaspari_cohn(r, 1.0)
    assert bell[0] == 1 and gaspari_cohn(np.array(4.0), 4.0) == pytest.approx(5 / 24)
    assert (bell[r >= 2] == 0).all() and (np.diff(bell) <= 1e-12).all()
    assert np.abs(np.diff(bell, 2)).max() < 1e-5  # no kink at 1 nor at 2
    ring = np.abs(np.arange(40) - np.arange(40)[:, None])
    assert np.linalg.eigvalsh(gaspari_cohn(np.minimum(ring, 40 - ring), 4.0)).min() > -1e-12


# Lorenz-96 as in the comparisons of Sakov & Oke, 2008: all 40 numbers seen every 0.05, with errors of variance 1


def twin(
    method: EnsembleFilter, members: int, steps: int = 500, seed: int = 0
) -> tuple[Analyses, np.ndarray]:
    model = Lorenz96()
    truth = model.trajectory(model.start(3, range(1)), steps, skip=400)[0].numpy()
    ys = truth[1:] + RNG(1).standard_normal(truth[1:].shape)
    start = truth[0] + RNG(2).standard_normal((members, 40))
    found = cycle(
        method,
        start,
        lambda e: model.advance(torch.from_numpy(e)).numpy(),
        lambda e: e,
        ys,
        1.0,
        seed=seed,
    )
    return found, truth[1:]


def ring() -> np.ndarray:
    away = np.abs(np.arange(40)[:, None] - np.arange(40))
    return np.minimum(away, 40 - away)


@pytest.mark.parametrize(
    ("method", "members", "best", "worst"),
    [
        (ETKF(1.01, rotate=True), 40, 0.15, 0.22),
        (LETKF(ring(), 7.0, 1.04, rotate=True), 7, 0.17, 0.28),
        (StochasticEnKF(1.06), 40, 0.18, 0.27),
    ],
)
def test_filters_follow_lorenz_96_as_well_as_is_known_and_know_how_well(
    method: EnsembleFilter, members: int, best: float, worst: float
) -> None:
    found, truth = twin(method, members)
    rmse, spread = found.rmse(truth)[150:].mean(), found.spread[150:].mean()
    assert best < rmse < worst
    assert 0.75 < spread / rmse < 1.4


def test_3d_var_follows_lorenz_96_worse_than_an_ensemble_and_better_than_the_observations() -> None:
    model = Lorenz96()
    past = model.trajectory(model.start(9, range(20)), 500, skip=200)[:, ::20].reshape(-1, 40)
    method = ThreeDVar(0.02 * np.cov(past.numpy().T), np.eye(40))
    found, truth = twin(method, 1)
    assert 0.33 < found.rmse(truth)[150:].mean() < 0.5


def test_a_cycle_repeats_itself_by_the_seed() -> None:
    for method in (ETKF(1.02, rotate=True), StochasticEnKF(1.05)):
        first, again, other = (twin(method, 10, 20, seed)[0].ensembles for seed in (0, 0, 1))
        assert np.array_equal(first, again) and not np.allclose(first, other)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: twin(ETKF(), 1, 3), "ensemble must have at least 2 members"),
        (lambda: twin(LETKF(np.zeros((3, 3)), 1.0), 4, 3), r"distance must be \(40, 40\)"),
        (
            lambda: cycle(ETKF(), np.ones((3, 2)), lambda e: e, lambda e: e, np.ones((2, 4)), 1.0),
            r"observations must be \(T, 2\)",
        ),
        (
            lambda: cycle(ETKF(), np.ones((3, 2)), lambda e: e, lambda e: e, np.ones((2, 2)), 0.0),
            "variance must be positive",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
