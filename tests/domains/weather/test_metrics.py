"""Scores have the expectation that theory gives them, whatever the size of the ensemble and the area of the cells."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from sciffusion.domains.weather import events, kernels, metrics, ranks
from sciffusion.domains.weather.evaluation import evaluate
from sciffusion.domains.weather.matching import area_weights, average
from sciffusion.domains.weather.report import Report
from tests.domains.weather.ensembles import coordinates, field, gaussian

PERFECT = 1 / math.sqrt(math.pi)  # the CRPS of a standard normal forecast that is right
SPACE = ("latitude", "longitude")


def worth(rows: int) -> float:
    """How many equal circles the circles of a Gaussian grid are worth, where each counts by its area."""
    weights = np.polynomial.legendre.leggauss(rows)[1]
    return float(weights.sum() ** 2 / (weights**2).sum())


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


def test_means_weigh_cells_by_area_exactly_even_at_poles() -> None:
    # sin^2(latitude) averages to 1/3 over the sphere
    for latitude in (np.linspace(90, -90, 91), np.linspace(-89, 89, 90)):
        x = field(
            np.sin(np.radians(latitude))[:, None] ** 2 * np.ones(12),
            latitude=latitude,
            longitude=np.arange(12) * 30.0,
        )
        assert average(x).item() == pytest.approx(1 / 3, abs=2e-4)
        weights = area_weights(x)
        assert float(weights.mean()) == pytest.approx(1)
        np.testing.assert_allclose(weights, weights[::-1])
    assert area_weights(x)[0] < area_weights(x)[1] < area_weights(x)[45]


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.isel(latitude=slice(0, 12)), "lacks 4 of the 16 entries of 'latitude'"),
        (lambda x: x.assign_coords(longitude=x.longitude - 180), "entries of 'longitude'"),
        (lambda x: x.isel(time=slice(1, None)), "lacks 1 of the 3 entries of 'time'"),
        (lambda x: x.isel(time=0), "must be the same but for the members"),
        (lambda x: x.expand_dims("member"), "select one of its members"),
        (lambda x: x.assign_attrs(units="degC"), r"in 'K', its truth in 'degC'.*x - 273.15"),
        (lambda x: x.isel(time=[0, 1, 1, 2]), "2001-01-02 00:00:00 more than once"),
        (lambda x: x.sel(longitude=slice(0, 90)), "entries of 'longitude'"),
        (lambda x: x.rename(longitude="x", latitude="y"), "must be the same but for the members"),
    ],
)
def test_a_truth_that_does_not_fit_is_refused(
    change: Callable[[xr.DataArray], xr.DataArray],
    message: str,
    perfect: tuple[xr.DataArray, xr.DataArray],
) -> None:
    ensemble, truth = (x.isel(time=slice(3)) for x in perfect)
    with pytest.raises(ValueError, match=message):
        metrics.crps(ensemble, change(truth))


def test_fields_without_a_place_or_in_no_order_are_refused(
    perfect: tuple[xr.DataArray, xr.DataArray],
) -> None:
    ensemble, truth = (x.isel(time=slice(3)) for x in perfect)
    shuffled = np.random.default_rng(0).permutation(16)
    with pytest.raises(ValueError, match="neither rises nor falls"):
        metrics.crps(*(x.isel(latitude=shuffled) for x in (ensemble, truth)))
    with pytest.raises(ValueError, match="has no latitude"):
        metrics.crps(*(x.drop_vars("latitude").rename(latitude="row") for x in (ensemble, truth)))
    with pytest.raises(ValueError, match=r"dim names \['level'\]"):
        metrics.crps(ensemble, truth, dim=("level",))


def test_valid_times_are_found_in_any_calendar_and_missing_ones_are_named() -> None:
    ensemble, truth = gaussian(3, 6, rows=8, columns=16)
    days = xr.date_range("2001-02-26", periods=6, calendar="noleap", use_cftime=True)
    leads = xr.IndexVariable(
        "lead", np.array([0, 2]) * np.timedelta64(1, "D").astype("timedelta64[ns]")
    )
    forecast = xr.concat(
        [ensemble[:, :4], ensemble[:, 2:].assign_coords(time=ensemble.time[:4])], leads
    )
    expected = metrics.crps(forecast, truth)
    other = forecast.assign_coords(time=days[:4]), truth.assign_coords(time=days)
    np.testing.assert_allclose(metrics.crps(*other), expected)
    report = evaluate(other[0].to_dataset(), other[1].to_dataset(), n_boot=10)
    assert report["t2m +48 h", "crps"].value == pytest.approx(expected[1].item())
    with pytest.raises(ValueError, match="lacks 1 valid times at lead 48 h"):
        metrics.crps(forecast, truth.isel(time=slice(5)))


def test_a_truth_in_single_precision_or_with_more_times_fits(
    perfect: tuple[xr.DataArray, xr.DataArray],
) -> None:
    ensemble, truth = perfect
    rounded = truth.assign_coords(latitude=truth.latitude.astype(np.float32))
    part = ensemble.isel(time=slice(5, 8))
    expected = metrics.crps(part, truth.isel(time=slice(5, 8))).item()
    assert metrics.crps(part, rounded).item() == pytest.approx(expected)


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


def test_an_evaluation_says_what_the_single_scores_say_and_how_sure(
    perfect: tuple[xr.DataArray, xr.DataArray],
) -> None:
    ensemble, truth = perfect
    report = evaluate(ensemble.to_dataset(), truth.to_dataset(), n_boot=300)
    for name in ("crps", "mae", "rmse", "debiased_rmse", "spread", "spread_skill", "bias"):
        score = report["t2m", name]
        assert score.value == pytest.approx(getattr(metrics, name)(ensemble, truth).item())
        assert score.low < score.value < score.high
    assert report["t2m", "crps"].low < PERFECT < report["t2m", "crps"].high
    assert report["t2m", "outliers"].value == pytest.approx(2 / 9, abs=0.01)
    assert report["t2m", "crps"].unit == "K"
    assert report.about["members"] == 8
    assert "CRPS" in str(report)
    assert "t2m" in report._repr_html_()


def test_an_evaluation_reads_lazy_data_in_pieces_and_comes_to_the_same(
    perfect: tuple[xr.DataArray, xr.DataArray], monkeypatch: pytest.MonkeyPatch
) -> None:
    ensemble, truth = (x.isel(time=slice(7)).to_dataset() for x in perfect)
    whole = evaluate(ensemble, truth, n_boot=50)
    monkeypatch.setattr("sciffusion.domains.weather.evaluation._MEMORY", 2 * 8 * 8 * 16 * 32)
    pieces = evaluate(ensemble.chunk(time=3), truth.chunk(time=2), n_boot=50)
    for name, score in whole.rows[0].scores.items():
        assert pieces["t2m", name].value == pytest.approx(score.value, rel=1e-10)
        assert pieces["t2m", name].high == pytest.approx(score.high, rel=1e-10)


def test_an_evaluation_has_a_row_for_each_level_and_lead_and_survives_a_file(
    tmp_path: Path, perfect: tuple[xr.DataArray, xr.DataArray]
) -> None:
    ensemble, truth = (x.isel(time=slice(8)) for x in perfect)
    leads = xr.IndexVariable("lead", [0, 24], {"units": "hours"})
    levels = xr.IndexVariable("level", [500, 850])
    forecast = xr.concat(
        [ensemble.isel(time=slice(6)), ensemble.shift(time=-1).isel(time=slice(6))], leads
    )
    deep = [xr.concat([x, x + 1], levels).to_dataset() for x in (forecast, truth)]
    report = evaluate(*deep, n_boot=20)
    assert [row.label for row in report.rows] == [
        *("t2m:500 +0 h", "t2m:500 +24 h", "t2m:850 +0 h", "t2m:850 +24 h")
    ]
    direct = metrics.crps(deep[0], deep[1])["t2m"]
    assert report["t2m:850 +24 h", "crps"].value == pytest.approx(
        direct.sel(level=850, lead=24).item()
    )
    report.save(tmp_path / "report.json")
    assert Report.load(tmp_path / "report.json") == report
    with pytest.raises(KeyError, match="4 rows 't2m'"):
        report["t2m", "crps"]
    with pytest.raises(KeyError, match="Did you mean 'crps'"):
        report["t2m:500 +0 h", "crp"]


def test_an_evaluation_of_a_masked_field_or_a_single_forecast_leaves_out_what_has_no_meaning(
    perfect: tuple[xr.DataArray, xr.DataArray],
) -> None:
    ensemble, truth = (x.isel(time=slice(3)) for x in perfect)
    masked = evaluate(
        ensemble.to_dataset(), truth.where(truth.longitude < 90).to_dataset(), n_boot=20
    )
    assert "power_low" not in masked.rows[0].scores
    assert masked.about["missing_cells"] == "75.0 %"
    single = evaluate(
        ensemble.mean("member").isel(time=0).to_dataset(), truth.isel(time=0).to_dataset()
    )
    assert list(single.rows[0].scores) == ["mae", "rmse", "bias", "power_low", "power_high"]
    assert math.isnan(single["t2m", "mae"].low)
    assert (
        Report.from_json(single.to_json()).rows[0].scores["mae"].value == single["t2m", "mae"].value
    )
