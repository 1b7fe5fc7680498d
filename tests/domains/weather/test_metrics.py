"""Scores have the expectation that theory gives them, whatever the size of the ensemble and the area of the cells."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from sciffusion.domains.weather import events, kernels, metrics, ranks
from sciffusion.domains.weather.matching import area_weights
from tests.domains.weather.ensembles import coordinates, field, gaussian

PERFECT = 1 / math.sqrt(math.pi)  # the CRPS of a standard normal forecast that is right
SPACE = ("latitude", "longitude")


@pytest.fixture(scope="module")
def perfect() -> tuple[xr.DataArray, xr.DataArray]:
    return gaussian(8, 40)


@pytest.mark.parametrize("members", [2, 3, 10])
def test_the_fair_crps_of_a_perfect_ensemble_does_not_depend_on_its_size(members: int) -> None:
    ensemble, truth = gaussian(members, 120, seed=members)
    assert metrics.crps(ensemble, truth).item() == pytest.approx(PERFECT, rel=0.015)
    biased = metrics.crps(ensemble, truth, biased=True).item()
    assert biased == pytest.approx(PERFECT * (1 + 1 / members), rel=0.015)


@pytest.mark.parametrize("members", [2, 5])
def test_the_fair_crps_is_least_at_the_right_width_and_the_biased_one_at_a_smaller(
    members: int,
) -> None:
    widths = [0.5, 0.7, 0.85, 1.0, 1.2]
    pairs = [gaussian(members, 100, width=width) for width in widths]
    fair = [metrics.crps(*pair).item() for pair in pairs]
    biased = [metrics.crps(*pair, biased=True).item() for pair in pairs]
    assert widths[int(np.argmin(fair))] == 1.0
    assert widths[int(np.argmin(biased))] < 1.0


def test_the_sorted_form_of_the_crps_equals_the_double_sum() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 7)) + 1e6, rng.normal(size=20) + 1e6
    error = abs(x - y[:, None]).mean(1)
    gaps = abs(x[:, :, None] - x[:, None]).sum((1, 2))
    np.testing.assert_allclose(kernels.crps(x, y), error - gaps / (2 * 7 * 6), rtol=1e-7)
    np.testing.assert_allclose(
        kernels.crps(x, y, biased=True), error - gaps / (2 * 7 * 7), rtol=1e-7
    )


def test_scores_agree_with_scoringrules_whose_default_estimator_is_biased() -> None:
    scoringrules = pytest.importorskip("scoringrules")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4000, 4)), rng.normal(size=4000)
    fair = scoringrules.crps_ensemble(y, x, estimator="fair", backend="numpy")
    np.testing.assert_allclose(kernels.crps(x, y), fair, atol=1e-12)
    default = scoringrules.crps_ensemble(y, x, backend="numpy")
    np.testing.assert_allclose(kernels.crps(x, y, biased=True), default, atol=1e-12)
    assert abs(fair.mean() - PERFECT) < 0.02  # the default is off by a quarter at 4 members
    assert default.mean() == pytest.approx(PERFECT * 1.25, abs=0.02)


def test_scores_agree_with_the_package_scores_whose_default_method_is_biased(
    perfect: tuple[xr.DataArray, xr.DataArray],
) -> None:
    probability = pytest.importorskip("scores.probability")
    ensemble, truth = (x.isel(time=slice(3)) for x in perfect)
    weights = area_weights(truth)
    for method, biased in (("fair", False), ("ecdf", True)):
        theirs = probability.crps_for_ensemble(
            ensemble, truth, "member", method=method, weights=weights.broadcast_like(truth)
        )
        ours = metrics.crps(ensemble, truth, biased=biased)
        assert ours.item() == pytest.approx(float(theirs) / float(weights.mean()), rel=1e-9)
    theirs = probability.brier_score_for_ensemble(
        ensemble, truth, "member", 2.0, preserve_dims="all"
    )
    ours = events.brier(ensemble, truth, 2.0, dim=())
    np.testing.assert_allclose(ours, theirs.squeeze("threshold").transpose(*ours.dims), atol=1e-12)


def test_errors_and_spread_of_a_perfect_ensemble_are_those_of_theory(
    perfect: tuple[xr.DataArray, xr.DataArray],
) -> None:
    ensemble, truth = perfect
    deviation = math.sqrt(1 + 1 / 8)  # of the mean of 8 members from the truth
    assert metrics.rmse(ensemble, truth).item() == pytest.approx(deviation, rel=0.015)
    assert metrics.debiased_rmse(ensemble, truth).item() == pytest.approx(1, rel=0.015)
    assert metrics.mae(ensemble, truth).item() == pytest.approx(
        deviation * math.sqrt(2 / math.pi), rel=0.015
    )
    assert metrics.spread(ensemble, truth).item() == pytest.approx(1, rel=0.01)
    assert metrics.spread_skill(ensemble, truth).item() == pytest.approx(1, rel=0.015)
    assert metrics.bias(ensemble, truth + 0.5).item() == pytest.approx(-0.5, abs=0.02)


@pytest.mark.parametrize("width", [0.5, 2.0])
def test_spread_over_skill_tells_the_width_of_an_ensemble_of_any_size(width: float) -> None:
    # mean square error 1 + width^2 / M; the factor makes it right at width 1 for every M
    ensemble, truth = gaussian(4, 40, width=width)
    right = math.sqrt(5 / 4) * width / math.sqrt(1 + width**2 / 4)
    assert metrics.spread_skill(ensemble, truth).item() == pytest.approx(right, rel=0.02)


def test_members_correlated_with_each_other_but_not_with_the_truth_are_underdispersed() -> None:
    # members share half their variance: the spread is 1/2, the error of the mean 1 + 1/2 + 1/(2M)
    ensemble, truth = gaussian(6, 40, width=math.sqrt(0.5))
    shared = math.sqrt(0.5) * np.random.default_rng(9).normal(size=truth.shape)
    ratio = metrics.spread_skill(ensemble + truth.copy(data=shared), truth).item()
    assert ratio == pytest.approx(math.sqrt(7 / 6 * 0.5 / (1.5 + 0.5 / 6)), rel=0.02)


def test_roots_are_taken_of_the_mean_over_times_not_before(
    perfect: tuple[xr.DataArray, xr.DataArray],
) -> None:
    ensemble, truth = perfect
    each_time = metrics.rmse(ensemble, truth, dim=SPACE)
    assert each_time.dims == ("time",)
    total = metrics.rmse(ensemble, truth).item()
    assert total == pytest.approx(float((each_time**2).mean()) ** 0.5)
    assert total > float(each_time.mean())


def test_the_order_of_latitudes_longitudes_and_dimensions_changes_no_score(
    perfect: tuple[xr.DataArray, xr.DataArray],
) -> None:
    ensemble, truth = (x.isel(time=slice(3)) for x in perfect)
    turned = ensemble.isel(latitude=slice(None, None, -1)).transpose("longitude", ..., "member")
    rolled = truth.roll(longitude=7, roll_coords=True)
    for score in (metrics.crps, metrics.spread_skill, metrics.energy_score):
        assert score(turned, rolled).item() == pytest.approx(
            score(ensemble, truth).item(), rel=1e-12
        )


def test_leads_and_levels_stay_and_every_time_and_lead_is_scored_alone() -> None:
    ensemble, truth = gaussian(3, 12, rows=8, columns=16)
    leads = np.array([0, 24, 48], "timedelta64[h]").astype("timedelta64[ns]")
    forecast = xr.concat(
        [
            ensemble.shift(time=-k).isel(time=slice(8)) for k in range(3)
        ],  # the ensemble at its valid time
        xr.IndexVariable("prediction_timedelta", leads),
    )
    score = metrics.crps(forecast, truth, dim=SPACE)
    assert dict(score.sizes) == {"prediction_timedelta": 3, "time": 8}
    direct = metrics.crps(ensemble, truth, dim=SPACE)
    for k in range(3):
        np.testing.assert_allclose(score.isel(prediction_timedelta=k), direct[k : k + 8])
    assert score.attrs["units"] == "K"


def test_missing_cells_are_skipped_in_every_term(
    perfect: tuple[xr.DataArray, xr.DataArray],
) -> None:
    ensemble, truth = (x.isel(time=slice(4)) for x in perfect)
    sea = truth.longitude < 180
    part = ensemble.where(sea, drop=True), truth.where(sea, drop=True)
    scores: list[Callable[..., xr.DataArray]] = [
        *(metrics.crps, metrics.mae, metrics.rmse, metrics.debiased_rmse, metrics.spread),
        *(metrics.spread_skill, metrics.energy_score),
        lambda a, b: events.brier(a, b, 1.0),
        lambda a, b: events.reliability(a, b, 1.0, bins=4)["observed"],
    ]
    for score in scores:
        expected = score(*part)
        for masked in ((ensemble, truth.where(sea)), (ensemble.where(sea), truth)):
            np.testing.assert_allclose(score(*masked), expected, rtol=1e-9)
    counts = ranks.rank_histogram(ensemble, truth.where(sea))
    assert float(counts.sum()) == pytest.approx(1)


def test_a_member_that_failed_is_an_error_not_a_gap(
    perfect: tuple[xr.DataArray, xr.DataArray],
) -> None:
    ensemble, truth = (x.isel(time=slice(2)) for x in perfect)
    with pytest.raises(ValueError, match=r"members \[2\] of the ensemble are NaN"):
        metrics.crps(ensemble.where(ensemble.member != 2), truth)
    with pytest.raises(ValueError, match="infinite"):
        metrics.rmse(ensemble.where(ensemble < 5, np.inf), truth)


def test_lazy_data_are_scored_lazily_and_alike(
    perfect: tuple[xr.DataArray, xr.DataArray],
) -> None:
    ensemble, truth = (x.isel(time=slice(6)) for x in perfect)
    lazy = ensemble.chunk(time=2, member=3), truth.chunk(time=2)
    for score in (metrics.crps, metrics.spread_skill, metrics.energy_score, ranks.rank_histogram):
        found = score(*lazy)
        assert found.chunks is not None
        np.testing.assert_allclose(found, score(ensemble, truth), rtol=1e-12)


def test_datasets_are_scored_variable_by_variable(
    perfect: tuple[xr.DataArray, xr.DataArray],
) -> None:
    ensemble, truth = (x.isel(time=slice(3)) for x in perfect)
    both = [x.to_dataset().assign(double=2 * x) for x in (ensemble, truth)]
    found = metrics.crps(*both)
    assert found["double"].item() == pytest.approx(2 * found["t2m"].item())
    with pytest.raises(ValueError, match=r"no variable \['double'\]"):
        metrics.crps(both[0], both[1].drop_vars("double"))
    with pytest.raises(ValueError, match="the ensemble is a DataArray, the truth a Dataset"):
        metrics.crps(ensemble, both[1])  # type: ignore[type-var]


def test_one_forecast_without_members_has_errors_but_no_fair_score(
    perfect: tuple[xr.DataArray, xr.DataArray],
) -> None:
    ensemble, truth = perfect
    single = ensemble.mean("member")
    assert metrics.mae(single, truth).item() == pytest.approx(metrics.mae(ensemble, truth).item())
    with pytest.raises(ValueError, match="at least 2 members"):
        metrics.crps(single, truth)
    with pytest.raises(ValueError, match="at least 2 members"):
        metrics.spread(single, truth)


def test_the_energy_score_of_gaussians_is_that_of_theory_and_agrees_with_scoringrules() -> None:
    scoringrules = pytest.importorskip("scoringrules")
    rng = np.random.default_rng(0)
    size = 5
    x, y = rng.normal(size=(4000, size, 6)), rng.normal(size=(4000, size))
    ours = kernels.energy(x, y, np.ones(size)) * math.sqrt(size)
    # half the mean distance of two draws: the mean of a chi distribution times root 2, halved
    distance = 2 * math.gamma((size + 1) / 2) / math.gamma(size / 2)
    assert ours.mean() == pytest.approx(distance / 2, rel=0.02)
    theirs = scoringrules.es_ensemble(y, x, m_axis=-1, v_axis=-2, backend="numpy")
    biased = kernels.energy(x, y, np.ones(size), biased=True) * math.sqrt(size)
    np.testing.assert_allclose(biased, theirs, rtol=1e-9)


def test_the_energy_score_in_one_cell_is_the_crps(
    perfect: tuple[xr.DataArray, xr.DataArray],
) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 5)), rng.normal(size=30)
    np.testing.assert_allclose(
        kernels.energy(x[:, None], y[:, None], np.ones(1)), kernels.crps(x, y), atol=1e-12
    )


def test_the_energy_score_sees_patterns_that_scores_of_cells_do_not() -> None:
    # members shuffled cell by cell: every cell keeps its distribution, the pattern is lost
    rng = np.random.default_rng(0)
    coords = coordinates(60, 8, 16)
    shape = (60, 8, 16)
    large = rng.normal(size=(9, 60, 1, 1)) * np.ones(shape)
    right = field(large[:8], member=np.arange(8), **coords)
    truth = field(large[8], **coords)
    shuffled = right.copy(data=rng.permuted(right.values, axis=0))
    assert metrics.crps(shuffled, truth).item() == pytest.approx(metrics.crps(right, truth).item())
    assert (
        metrics.energy_score(shuffled, truth).item()
        > 1.1 * metrics.energy_score(right, truth).item()
    )
