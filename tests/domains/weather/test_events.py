"""Ranks, events and fractions have the frequencies of theory, whatever the size of the ensemble."""

import math

import numpy as np
import pytest
import xarray as xr

from sciffusion.domains.weather import events, kernels, ranks
from tests.domains.weather.ensembles import coordinates, field, gaussian

SPACE = ("latitude", "longitude")


def worth(rows: int) -> float:
    """How many equal circles the circles of a Gaussian grid are worth, where each counts by its area."""
    weights = np.polynomial.legendre.leggauss(rows)[1]
    return float(weights.sum() ** 2 / (weights**2).sum())


@pytest.fixture(scope="module")
def perfect() -> tuple[xr.DataArray, xr.DataArray]:
    return gaussian(8, 40)


def test_rank_histograms_of_perfect_ensembles_are_flat_and_their_test_knows_its_error() -> None:
    values = []
    kish = worth(8)
    for seed in range(30):
        ensemble, truth = gaussian(4, 6, rows=8, columns=16, seed=seed)
        histogram = ranks.rank_histogram(ensemble, truth, seed=seed)
        values.append(ranks.flatness(histogram, cases=6 * 16 * kish))
        assert float(histogram.sum()) == pytest.approx(1)
    statistics = np.array([v.statistic for v in values])
    expected, scatter = values[0].expected, values[0].scatter
    assert abs(statistics.mean() - expected) < 3 * scatter / math.sqrt(len(values))
    assert 0.25 < np.mean([v.p_value < 0.5 for v in values]) < 0.75


def test_too_narrow_ensembles_have_outliers_and_fail_the_test_of_flatness() -> None:
    ensemble, truth = gaussian(9, 10, width=0.5)
    histogram = ranks.rank_histogram(ensemble, truth)
    outliers = ranks.outlier_fraction(histogram)
    assert outliers.attrs["expected"] == pytest.approx(0.2)
    assert outliers.item() > 0.3
    assert ranks.flatness(histogram, cases=500).p_value < 1e-6
    with pytest.raises(ValueError, match="cases must be positive"):
        ranks.flatness(histogram, cases=0)


def test_ties_are_broken_at_random_so_that_rain_that_is_mostly_zero_stays_flat() -> None:
    ensemble, truth = (x.where(x > 7, 0) for x in gaussian(4, 20))
    histogram = ranks.rank_histogram(ensemble, truth)
    np.testing.assert_allclose(histogram, 0.2, atol=0.01)
    again = ranks.rank_histogram(ensemble, truth)
    xr.testing.assert_identical(histogram, again)


def test_effective_cases_count_copies_once() -> None:
    def cases(copies: int) -> float:
        ensemble, truth = gaussian(4, 300, rows=6, columns=8)
        wide = (xr.concat([x] * copies, "longitude") for x in (ensemble, truth))
        a, b = (x.assign_coords(longitude=np.arange(8 * copies) * 1.0) for x in wide)
        return ranks.effective_cases(ranks.rank_histogram(a, b, dim=SPACE))

    assert cases(1) == pytest.approx(300 * 8 * worth(6), rel=0.15)
    assert cases(6) == pytest.approx(cases(1), rel=0.15)


def test_the_fair_brier_score_of_a_perfect_ensemble_does_not_depend_on_its_size() -> None:
    rng = np.random.default_rng(0)
    for members in (2, 5):
        x, y = rng.normal(size=(40_000, members)), rng.normal(size=40_000)
        p = 0.5 * math.erfc(1 / math.sqrt(2))  # above 1
        fair, biased = (kernels.brier(x, y, 1.0, biased=biased).mean() for biased in (False, True))
        assert fair == pytest.approx(p * (1 - p), rel=0.04)
        assert biased == pytest.approx(p * (1 - p) * (1 + 1 / members), rel=0.04)


def test_thresholds_may_differ_from_cell_to_cell(
    perfect: tuple[xr.DataArray, xr.DataArray],
) -> None:
    ensemble, truth = (x.isel(time=slice(3)) for x in perfect)
    shift = truth.isel(time=0, drop=True)
    assert events.brier(ensemble - shift, truth - shift, 0.0).item() == pytest.approx(
        events.brier(ensemble, truth, shift).item()
    )


def test_a_perfect_ensemble_is_reliable_and_its_shares_add_up(
    perfect: tuple[xr.DataArray, xr.DataArray],
) -> None:
    ensemble, truth = perfect
    # sharp: most cells are nearly certain; the mean of what is said is the mean of what comes
    diagram = events.reliability(ensemble, truth, 0.0)
    assert diagram.sizes == {"bin": 9}
    assert float(diagram.share.sum()) == pytest.approx(1)
    np.testing.assert_allclose(diagram.forecast, np.arange(9) / 8)
    said, came = ((diagram.share * diagram[x]).sum().item() for x in ("forecast", "observed"))
    assert said == pytest.approx(came, abs=0.005)
    assert float(diagram.observed.diff("bin").min()) > 0
    coarse = events.reliability(ensemble, truth, 0.0, bins=2)
    assert float(coarse.share.sum()) == pytest.approx(1)


def test_frequencies_are_shares_of_area() -> None:
    coords = coordinates(1, 32, 64)
    north = field(np.sign(coords["latitude"])[None, :, None] * np.ones((1, 32, 64)), **coords)
    assert events.frequency(north, 0.0).item() == pytest.approx(0.5)


def test_the_fractions_skill_score_agrees_with_the_package_scores() -> None:
    spatial = pytest.importorskip("scores.spatial")
    rng = np.random.default_rng(0)
    y, x = np.arange(20) * 1.0, np.arange(30) * 1.0
    truth = xr.DataArray(
        rng.normal(size=(4, 20, 30)), {"time": np.arange(4), "y": y, "x": x}, ("time", "y", "x")
    )
    member = truth.roll(x=2) + 0.3
    ours = events.fss(member.expand_dims(member=2), truth, 0.5, [1, 5])
    for box in (1, 5):
        theirs = spatial.fss_2d(
            member, truth, event_threshold=0.5, window_size=(box, box), spatial_dims=("y", "x")
        )
        assert ours.sel(box=box).item() == pytest.approx(float(theirs))


def test_the_fractions_skill_score_forgives_what_is_displaced_within_a_box() -> None:
    coords = coordinates(1, 24, 48)
    values = np.zeros((1, 24, 48))
    values[0, 10:14, 20:24] = 1
    truth = field(values, **coords)
    near = events.fss(truth.roll(longitude=4), truth, 0.5, [1, 9, 17])
    assert near[0] == 0
    assert 0.4 < near[1] < near[2] < 1
    assert events.fss(truth, truth, 0.5, [1, 9]).values == pytest.approx([1, 1])
    # across the meridian where the columns begin it is the same
    apart = events.fss(truth.roll(longitude=26), truth.roll(longitude=22), 0.5, [1, 9, 17])
    np.testing.assert_allclose(apart, near)
    with pytest.raises(ValueError, match="box must lie in 1..24"):
        events.fss(truth, truth, 0.5, [25])
