"""Distances of sets of features against closed forms, by other routes, and under their symmetries."""

import numpy as np
import pytest
import torch

from sciffusion.bootstrap import Bootstrap
from sciffusion.metrics import Moments, Neighbours, compare, frechet, kernel_distance

RNG = np.random.default_rng(0)
REAL, MADE = RNG.standard_normal((60, 5)), 0.3 + 1.4 * RNG.standard_normal((50, 5))


def test_the_frechet_distance_of_gaussians_that_commute_is_the_closed_form() -> None:
    a = Moments(np.array([1.0, 0.0]), np.diag([4.0, 1.0]))
    b = Moments(np.array([0.0, 2.0]), np.diag([1.0, 9.0]))
    assert a.distance(b) == pytest.approx(1 + 4 + (2 - 1) ** 2 + (1 - 3) ** 2)


def test_the_frechet_distance_is_that_of_the_unsymmetric_root() -> None:
    sx, sy = np.cov(REAL.T), np.cov(MADE.T)
    root = np.sqrt(np.linalg.eigvals(sx @ sy).astype(complex)).real.sum()
    wanted = ((REAL.mean(0) - MADE.mean(0)) ** 2).sum() + np.trace(sx) + np.trace(sy) - 2 * root
    assert frechet(REAL, MADE) == pytest.approx(wanted, rel=1e-9)
    assert frechet(MADE, REAL) == pytest.approx(wanted, rel=1e-9)


def test_distances_vanish_for_equal_moments_and_do_not_see_rotations() -> None:
    turn = np.linalg.qr(RNG.standard_normal((5, 5)))[0]
    assert frechet(REAL, REAL[::-1]) < 1e-9
    assert frechet(REAL @ turn, MADE @ turn) == pytest.approx(frechet(REAL, MADE))
    assert kernel_distance(REAL @ turn, MADE @ turn) == pytest.approx(kernel_distance(REAL, MADE))
    flat = np.c_[REAL, np.zeros(60)], np.c_[MADE, np.zeros(50)]  # a covariance without an inverse
    assert frechet(*flat) == pytest.approx(frechet(REAL, MADE))


def test_counting_a_sample_twice_is_as_having_it_twice() -> None:
    counts = RNG.integers(0, 3, 60).astype(float)
    repeated = np.repeat(REAL, counts.astype(int), axis=0)
    one, two = Moments.of(REAL, counts), Moments.of(repeated)
    np.testing.assert_allclose(one.mean, two.mean)
    np.testing.assert_allclose(one.covariance, two.covariance)


def test_the_kernel_distance_is_the_sum_over_pairs() -> None:
    def k(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / 5 + 1) ** 3)

    def within(z: np.ndarray) -> float:
        return float(
            np.mean([k(z[i], z[j]) for i in range(len(z)) for j in range(len(z)) if i != j])
        )

    between = np.mean([k(x, y) for x in REAL for y in MADE])
    wanted = within(REAL) + within(MADE) - 2 * between
    assert kernel_distance(REAL, MADE) == pytest.approx(wanted)


def test_the_kernel_distance_of_one_law_is_zero_on_average() -> None:
    values = [
        kernel_distance(*np.random.default_rng(s).standard_normal((2, 20, 3))) for s in range(400)
    ]
    assert abs(np.mean(values)) < 4 * np.std(values) / 20
    biased = [frechet(*np.random.default_rng(s).standard_normal((2, 20, 3))) for s in range(20)]
    assert min(biased) > 0


def test_neighbours_are_those_of_a_loop_over_all_samples() -> None:
    k, near = 3, Neighbours.of(REAL, MADE, 3)

    def radius(z: np.ndarray, i: int) -> float:
        return float(np.sort(np.linalg.norm(z - z[i], axis=1))[k])

    balls = np.array([radius(REAL, i) for i in range(60)])
    others = np.array([radius(MADE, j) for j in range(50)])
    apart = np.linalg.norm(REAL[:, None] - MADE[None], axis=2)
    assert near.faithful.tolist() == (apart <= balls[:, None]).any(0).astype(float).tolist()
    assert near.crowd.tolist() == pytest.approx((apart <= balls[:, None]).sum(0) / k)
    assert near.reached.tolist() == (apart <= others).any(1).astype(float).tolist()
    assert near.covered.tolist() == (apart.min(1) <= balls).astype(float).tolist()


def test_lost_modes_lower_coverage_and_recall_while_precision_stays() -> None:
    rng = np.random.default_rng(3)
    two = np.concatenate([rng.standard_normal((100, 2)), 20 + rng.standard_normal((100, 2))])
    near = Neighbours.of(two, rng.standard_normal((100, 2)))
    assert near.faithful.mean() > 0.9
    assert near.reached.mean() < 0.6 and near.covered.mean() < 0.6
    assert near.crowd.mean() == pytest.approx(1, abs=0.25)
    far = Neighbours.of(two, 100 + rng.standard_normal((100, 2)))
    assert far.faithful.mean() == far.covered.mean() == far.crowd.mean() == 0


def test_intervals_hold_the_values_and_shrink_with_more_samples() -> None:
    rng = np.random.default_rng(4)
    real, made = rng.standard_normal((400, 4)), 0.2 + rng.standard_normal((400, 4))
    few, many = (compare(real[:n], made[:n], bootstrap=Bootstrap(60)) for n in (50, 400))
    assert list(many) == [
        "frechet",
        "kernel_distance",
        "precision",
        "recall",
        "density",
        "coverage",
    ]
    for name, found in many.items():
        assert found.low <= found.value <= found.high
        assert found.high - found.low < few[name].high - few[name].low
    assert many["frechet"].value == pytest.approx(frechet(real, made))
    assert many["kernel_distance"].value == pytest.approx(kernel_distance(real, made))
    assert compare(real, made, bootstrap=Bootstrap(60))["frechet"] == many["frechet"]


def test_intervals_of_the_frechet_distance_contain_that_of_the_laws_about_as_often_as_said() -> (
    None
):
    # one dimension, means 0 and 1, equal variance: the distance of the laws is 1
    hits = 0
    for seed in range(60):
        x, y = np.random.default_rng(seed).standard_normal((2, 100, 1))
        found = compare(x, y + 1, bootstrap=Bootstrap(80, seed=seed))["frechet"]
        hits += found.low <= 1 <= found.high
    assert hits >= 51


def test_features_may_be_tensors_and_what_is_wrong_with_them_is_said() -> None:
    assert frechet(torch.tensor(REAL), torch.tensor(MADE)) == pytest.approx(frechet(REAL, MADE))
    with pytest.raises(
        ValueError, match="must be \\(N, D\\) with at least two rows, got \\(1, 5\\)"
    ):
        frechet(REAL, MADE[:1])
    with pytest.raises(ValueError, match="features of one width, got 5 and 4"):
        kernel_distance(REAL, MADE[:, :4])
    with pytest.raises(ValueError, match="the second features hold NaN"):
        frechet(REAL, np.where(MADE > 1, np.nan, MADE))
    with pytest.raises(ValueError, match="below the number of samples, 50, got 50"):
        Neighbours.of(REAL, MADE, 50)
    for wrong in ({"replicates": 0}, {"level": 1.0}, {"level": 95}):
        with pytest.raises(ValueError, match="replicates must be at least 1 and level between"):
            Bootstrap(**wrong)
