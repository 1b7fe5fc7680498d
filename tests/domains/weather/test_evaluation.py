"""One call says what the single scores say, for every row, with intervals."""

import math
from pathlib import Path

import pytest
import torch
import xarray as xr

from sciffusion.domains.weather import metrics
from sciffusion.domains.weather.evaluation import evaluate
from sciffusion.domains.weather.grid import Grid
from sciffusion.domains.weather.report import Report
from sciffusion.harmonics import Harmonics
from tests.domains.weather.ensembles import gaussian

PERFECT = 1 / math.sqrt(math.pi)  # the CRPS of a standard normal forecast that is right


@pytest.fixture(scope="module")
def perfect() -> tuple[xr.DataArray, xr.DataArray]:
    return gaussian(8, 40)


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


def test_scales_that_the_data_do_not_resolve_count_nothing_once_they_are_named() -> None:
    ensemble, truth = gaussian(4, 6)
    harmonics = Harmonics(sphere, 5) if (sphere := Grid.of(truth).sphere) else None
    assert harmonics is not None

    def smooth(x: xr.DataArray) -> xr.DataArray:
        """Degrees up to 5 alone."""
        low = harmonics.synthesis(harmonics.analysis(torch.from_numpy(x.values.copy())))
        return x.copy(data=low.numpy())

    members = smooth(ensemble.transpose(..., "latitude", "longitude"))
    truth = truth.transpose(..., "latitude", "longitude")
    spectral = (smooth(truth) + 1e-4 * truth).to_dataset(name="t2m")
    blamed, spared = (
        evaluate(members.to_dataset(name="t2m"), spectral, n_boot=20, lmax=l) for l in (None, 5)
    )
    assert blamed["t2m", "power_low"].value < 1e-9
    assert 0.5 < spared["t2m", "power_low"].value < 1 < spared["t2m", "power_high"].value < 2
    assert spared["t2m", "crps"] == blamed["t2m", "crps"]
    assert spared.about["resolved"] == "degrees 1 to 5" and "resolved" in str(spared)
    assert Report.from_json(spared.to_json()) == spared
    for lmax in (0, 99):
        with pytest.raises(ValueError, match=f"lmax {lmax}: the grid has degrees 1 to"):
            evaluate(members.to_dataset(name="t2m"), spectral, lmax=lmax)
    region = [x.isel(latitude=slice(2, 12), longitude=slice(0, 12)) for x in (members, truth)]
    with pytest.raises(ValueError, match="no spherical harmonics"):
        evaluate(*(x.to_dataset(name="t2m") for x in region), lmax=5)
