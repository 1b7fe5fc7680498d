"""Pictures show the numbers that they were given, in one range of colours, and name the units."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import URLError

import matplotlib.pyplot
import numpy as np
import pytest
import xarray as xr
from IPython.core.formatters import PNGFormatter
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from PIL import Image

from sciffusion.domains.weather import maps, plots, ranks, spectra
from sciffusion.domains.weather.report import Report, Row, Score
from tests.domains.weather.ensembles import gaussian


@pytest.fixture(autouse=True)
def _plain_axes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without cartopy, whether it is installed or not."""
    monkeypatch.setattr(maps, "find_spec", lambda name: None)


@pytest.fixture(scope="module")
def pair() -> tuple[xr.DataArray, xr.DataArray]:
    """Rows run north, columns from 0 to 360."""
    ensemble, truth = gaussian(4, 5)
    return ensemble, truth


def panels(figure: Figure) -> list[Any]:
    """The axes, of whichever kind their artists are."""
    return list(figure.axes)


def frames(path: Path) -> tuple[int, int]:
    """How many pictures a film has, and how wide they are."""
    film: Any = Image.open(path)
    with film:
        return film.n_frames, film.size[0]


def meshes(figure: Figure) -> list[Any]:
    """The coloured cells of the visible maps, not of the colour bar."""
    panels = [p for p in figure.axes if p.get_visible() and p.get_label() != "<colorbar>"]
    return [c for p in panels for c in p.collections if isinstance(c, QuadMesh)]


def test_a_map_shows_every_value_at_its_latitude_with_a_title_and_units(
    pair: tuple[xr.DataArray, xr.DataArray],
) -> None:
    field = pair[1].isel(time=1)
    figure = maps.field_map(field.assign_attrs(long_name="2 m temperature"))
    (mesh,) = meshes(figure)
    assert mesh.get_clim() == (field.min().item(), field.max().item())
    corners = mesh.get_coordinates()
    middle = (corners[:-1, :-1, 1] + corners[1:, 1:, 1]) / 2
    row = int(np.abs(middle[:, 0] - field.latitude[3].item()).argmin())
    np.testing.assert_allclose(mesh.get_array()[row], field.isel(latitude=3))
    assert figure.axes[0].get_title() == "2 m temperature (K), 2001-01-02 00:00"
    assert figure.axes[1].get_ylabel() == "K"
    assert PNGFormatter()(figure) is not None


def test_an_anomaly_has_diverging_colours_with_white_at_zero(
    pair: tuple[xr.DataArray, xr.DataArray],
) -> None:
    (mesh,) = meshes(maps.field_map(pair[1].isel(time=0) + 3, anomaly=True))
    low, high = mesh.get_clim()
    assert low == -high
    assert min(mesh.to_rgba(0.0)[:3]) > 0.9
    cold, warm = mesh.to_rgba(low), mesh.to_rgba(high)
    assert cold[2] > cold[0]
    assert warm[0] > warm[2]


def test_missing_cells_have_no_colour_and_limits_may_be_given(
    pair: tuple[xr.DataArray, xr.DataArray],
) -> None:
    field = pair[1].isel(time=0)
    figure = maps.field_map(field.where(field > 0), limits=(1, 2), title="sea")
    (mesh,) = meshes(figure)
    assert np.ma.getmaskarray(mesh.get_array()).sum() == (field <= 0).sum().item()
    assert mesh.get_clim() == (1, 2)
    assert figure.axes[0].get_title() == "sea"
    with pytest.raises(ValueError, match="no finite value"):
        maps.field_map(field.where(False))
    with pytest.raises(ValueError, match=r"select one entry of \['time'\]"):
        maps.field_map(pair[1])


def test_projected_maps_have_their_own_coordinates() -> None:
    coords = {"y": ("y", np.arange(4) * 2.0, {"units": "km"}), "x": ("x", np.arange(6) * 2.0)}
    field = xr.DataArray(np.arange(24.0).reshape(4, 6), coords, ("y", "x"), name="rain")
    figure = maps.field_map(field)
    (mesh,) = meshes(figure)
    np.testing.assert_allclose(mesh.get_array(), field)
    assert figure.axes[0].get_ylabel() == "y (km)"
    assert mesh.get_coordinates()[0, 0].tolist() == [-1, -1]


def test_stamps_hold_truth_mean_and_members_in_the_same_colours(
    pair: tuple[xr.DataArray, xr.DataArray],
) -> None:
    ensemble, truth = (x.isel(time=0) for x in pair)
    figure = maps.stamps(ensemble, truth, members=3)
    drawn = meshes(figure)
    titles = [p.get_title() for p in figure.axes if p.get_visible()][:5]
    assert titles == ["truth", "ensemble mean", "member 0", "member 1", "member 2"]
    assert len({mesh.get_clim() for mesh in drawn}) == 1
    low, high = drawn[0].get_clim()
    assert low == min(x.min().item() for x in (truth, ensemble[:3], ensemble.mean("member")))
    np.testing.assert_allclose(
        np.sort(drawn[1].get_array().ravel()), np.sort(ensemble.mean("member").values.ravel())
    )
    assert len(meshes(maps.stamps(ensemble))) == 5
    with pytest.raises(ValueError, match="no dimension 'member'"):
        maps.stamps(truth)


def test_spectra_are_drawn_without_the_mean_beside_the_truth_and_over_it(
    pair: tuple[xr.DataArray, xr.DataArray],
) -> None:
    ours, theirs = (spectra.spectrum(x) for x in pair)
    figure = plots.spectrum_plot({"ours": ours}, theirs)
    upper, lower = panels(figure)
    black, line = upper.get_lines()
    np.testing.assert_allclose(black.get_ydata(), theirs.mean("time")[1:])
    np.testing.assert_allclose(line.get_xdata(), theirs.degree[1:])
    ratio = spectra.spectral_ratio(ours, theirs)[1:]
    np.testing.assert_allclose(lower.get_lines()[0].get_ydata(), ratio)
    assert upper.get_xscale() == upper.get_yscale() == "log"
    assert upper.get_ylabel() == "power (K^2)"
    assert [t.get_text() for t in upper.get_legend().get_texts()] == ["truth", "ours"]
    (above,) = upper.child_axes
    assert above.get_xlabel() == "wavelength (km)"
    figure.draw_without_rendering()
    ends = theirs.wavelength[[-1, 1]].values
    np.testing.assert_allclose(sorted(above.get_xlim()), ends)
    assert len(plots.spectrum_plot({"ours": ours}, theirs, ratio=False).axes) == 1
    with pytest.raises(ValueError, match="spectra is empty"):
        plots.spectrum_plot({}, theirs)
    with pytest.raises(ValueError, match="has also the dimensions"):
        plots.spectrum_plot({"ours": ours.expand_dims(level=2)}, theirs)


def test_a_rank_histogram_is_drawn_over_flat_with_the_band_of_its_sampling_error(
    pair: tuple[xr.DataArray, xr.DataArray],
) -> None:
    histogram = ranks.rank_histogram(*pair)
    figure = plots.rank_plot({"ours": histogram}, cases=400)
    (panel,) = panels(figure)
    band, stairs = panel.patches
    np.testing.assert_allclose(stairs.get_data().values, 5 * histogram)
    low, high = band.get_y(), band.get_y() + band.get_height()
    assert high - 1 == pytest.approx(1 - low)
    assert high - 1 == pytest.approx(1.96 * (0.2 * 0.8 / 400) ** 0.5 / 0.2, rel=1e-3)
    assert "right: 0.400" in panel.get_legend().get_texts()[1].get_text()
    with pytest.raises(ValueError, match="'rank' alone"):
        plots.rank_plot({"ours": histogram.expand_dims(lead=2)})


def scored(scale: float) -> Report:
    """A report of two leads with made-up figures."""
    rows = []
    for lead in (24.0, 48.0):
        names = {"rmse": lead * scale, "spread": lead * scale / 2}
        scores = {n: Score(v, 0.9 * v, 1.1 * v, "m", n) for n, v in names.items()}
        rows.append(Row("z", "500", lead, scores))
    return Report(tuple(rows), {})


def test_skill_is_drawn_against_lead_with_intervals_error_solid_and_spread_dashed() -> None:
    figure = plots.skill({"a": scored(1), "b": scored(2)}, "z:500")
    (panel,) = panels(figure)
    lines = panel.get_lines()
    assert [line.get_label() for line in lines] == ["a rmse", "a spread", "b rmse", "b spread"]
    assert [line.get_linestyle() for line in lines] == ["-", "--", "-", "--"]
    np.testing.assert_allclose(lines[2].get_xdata(), [24, 48])
    np.testing.assert_allclose(lines[2].get_ydata(), [48, 96])
    edges = panel.collections[2].get_paths()[0].vertices[:, 1]
    assert (edges.min(), edges.max()) == pytest.approx((0.9 * 48, 1.1 * 96))
    assert panel.get_xlabel() == "lead time (h)"
    assert panel.get_ylabel() == "rmse, spread (m)"
    assert panel.get_ylim()[0] == 0
    with pytest.raises(ValueError, match="'z' has no lead times"):
        plots.skill(scored(1), "z")
    with pytest.raises(ValueError, match="scores names 'crps'"):
        plots.skill(scored(1), "z:500", scores=("crps",))


def test_a_film_has_a_frame_for_each_time_and_a_panel_for_each_member(
    tmp_path: Path, pair: tuple[xr.DataArray, xr.DataArray]
) -> None:
    ensemble, truth = pair
    small = ensemble.isel(time=slice(0, 3), member=slice(2))
    path = maps.animation(small, tmp_path / "film.gif", dpi=40)
    count, width = frames(path)
    assert count == 3
    count, narrow = frames(maps.animation(truth[:2], tmp_path / "one.gif", dpi=40))
    assert count == 2
    assert narrow < width
    with pytest.raises(ValueError, match="must end in .gif"):
        maps.animation(small, tmp_path / "film.mp4")
    with pytest.raises(ValueError, match="over must name"):
        maps.animation(truth[0], tmp_path / "film.gif")


def test_pictures_leave_pyplot_alone(pair: tuple[xr.DataArray, xr.DataArray]) -> None:
    before = matplotlib.pyplot.get_fignums()
    maps.field_map(pair[1].isel(time=0))
    plots.rank_plot({"ours": ranks.rank_histogram(*pair)})
    assert matplotlib.pyplot.get_fignums() == before
    assert "cartopy" not in sys.modules


@pytest.mark.parametrize("online", [True, False])
def test_a_map_goes_without_the_coastlines_that_cannot_be_fetched(
    online: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []

    def natural_earth(scale: str, category: str, name: str) -> str:
        if not online:
            raise URLError("no network")
        return f"{category}/{name}"

    class Panel:
        def coastlines(self, scale: str, lw: float) -> None:
            drawn.append(scale)

    reader = ModuleType("cartopy.io.shapereader")
    reader.natural_earth = natural_earth  # type: ignore[attr-defined]
    for name in ("cartopy", "cartopy.io"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "cartopy.io.shapereader", reader)
    if online:
        maps._coasts(Panel(), "110m")
    else:
        with pytest.warns(UserWarning, match="no coastlines.*no network"):
            maps._coasts(Panel(), "110m")
    assert drawn == ["110m"] * online
