"""Spectra put the variance of a field at its scales and lose none; intervals cover what they should."""

import math

import numpy as np
import pytest
import torch
import xarray as xr

from sciffusion.domains.weather import spectra
from sciffusion.domains.weather.grid import Grid
from sciffusion.domains.weather.matching import average
from sciffusion.domains.weather.significance import (
    BlockBootstrap,
    block_length,
    mean_interval,
    paired_difference,
)
from sciffusion.harmonics import Harmonics
from tests.domains.weather.ensembles import coordinates, field


def globe(kind: str) -> dict[str, np.ndarray]:
    """The coordinates of a globe without times, rows in either order."""
    if kind == "gauss":
        rows = coordinates(1, 16, 32)["latitude"]
    else:
        rows = np.linspace(90, -90, 17) if kind == "poles" else np.arange(-84.375, 90, 11.25)
    return {"latitude": rows, "longitude": np.arange(32) * 11.25 - 180}


def of_degrees(coords: dict[str, np.ndarray], power: np.ndarray, seed: int = 0) -> xr.DataArray:
    """A field whose power at degree l is ``power[l]``, exactly."""
    empty = field(np.zeros((len(coords["latitude"]), len(coords["longitude"]))), **coords)
    sphere = Grid.of(empty).sphere
    assert sphere is not None
    harmonics = Harmonics(sphere, len(power) - 1)
    a = torch.from_numpy(np.random.default_rng(seed).normal(size=len(power) ** 2))
    for l, wanted in enumerate(power):
        at = harmonics.degrees == l
        a[at] *= math.sqrt(4 * math.pi * wanted / float((a[at] ** 2).sum()))
    values = harmonics.synthesis(a).numpy()
    falling = coords["latitude"][0] > coords["latitude"][-1]
    return field(values if falling else values[::-1], **coords)


@pytest.mark.parametrize("kind", ["gauss", "poles", "middles"])
def test_the_spherical_spectrum_finds_the_power_of_each_degree_and_sums_to_the_mean_square(
    kind: str,
) -> None:
    power = 1 / (1.0 + np.arange(8))
    x = of_degrees(globe(kind), power)
    found = spectra.spherical_spectrum(x)
    np.testing.assert_allclose(found[:8], power, rtol=1e-6)
    np.testing.assert_allclose(found[8:], 0, atol=1e-12)
    if kind == "gauss":  # only there are the cells' areas the weights of the quadrature
        assert found.sum().item() == pytest.approx(average(x**2).item())
    assert found.attrs["units"] == "K^2"
    assert found.wavelength[1] == pytest.approx(2 * math.pi * 6371 / math.sqrt(2))


def test_white_noise_of_the_sphere_is_flat_per_coefficient() -> None:
    coords = globe("gauss")
    power = [
        spectra.spherical_spectrum(of_degrees(coords, 2.0 * np.arange(16) + 1, seed))
        for seed in range(3)
    ]
    for one in power:
        np.testing.assert_allclose(one / (2 * one.degree + 1), 1, rtol=1e-6)
    # what is white on the grid is not: its cells crowd at the poles
    noise = np.random.default_rng(0).normal(size=(400, 16, 32))
    x = field(noise, time=np.arange(400), **coords)
    weights = np.polynomial.legendre.leggauss(16)[1] / 2
    mean = float((weights**2).sum() / 32)  # the power of one coefficient of degree 0
    assert spectra.spherical_spectrum(x).mean("time")[0].item() == pytest.approx(mean, rel=0.2)


def test_spectra_do_not_depend_on_where_longitudes_begin_or_on_the_order_of_rows() -> None:
    coords = globe("gauss")
    x = field(np.random.default_rng(0).normal(size=(16, 32)), **coords)
    turned = x.roll(longitude=5, roll_coords=True).isel(latitude=slice(None, None, -1))
    for of in (spectra.spherical_spectrum, spectra.zonal_spectrum):
        np.testing.assert_allclose(of(turned.transpose()), of(x), rtol=1e-9)


def test_the_zonal_spectrum_finds_a_wave_and_sums_to_the_circles_length_times_its_mean_square() -> (
    None
):
    coords = globe("gauss")
    wave = 3 * np.cos(5 * np.radians(coords["longitude"]) + 1) * np.ones((16, 1))
    found = spectra.zonal_spectrum(field(wave, **coords), band=(30, 60))
    assert found.values.argmax() == 5
    assert found[5].item() == pytest.approx(found.sum().item())
    rows = coords["latitude"][(coords["latitude"] > 30) & (coords["latitude"] < 60)]
    shortest, longest = (2 * math.pi * 6371 * math.cos(math.radians(r)) for r in (60, 30))
    assert 4.5 * shortest < found[5].item() < 4.5 * longest
    assert shortest / 5 < found.wavelength[5] < longest / 5
    row = np.random.default_rng(0).normal(size=(16, 32))
    only = spectra.zonal_spectrum(field(row, **coords), band=(rows[0] - 1, rows[0] + 1))
    place = int(np.flatnonzero(coords["latitude"] == rows[0])[0])
    circle = 2 * math.pi * 6371 * math.cos(math.radians(rows[0]))
    assert only.sum().item() == pytest.approx(circle * (row[place] ** 2).mean())


def plane(values: np.ndarray, step: float = 2.0) -> xr.DataArray:
    """A projected map with steps of ``step`` km, said in m."""
    coords = {
        d: (d, 1000 * step * np.arange(n), {"units": "m"})
        for d, n in zip(("y", "x"), values.shape[-2:], strict=True)
    }
    dims = ("time", "y", "x")[-values.ndim :]
    return xr.DataArray(values, coords, dims, attrs={"units": "mm"})


def test_the_planar_spectrum_finds_a_wave_and_integrates_to_its_variance() -> None:
    y, x = np.meshgrid(np.arange(40), np.arange(60), indexing="ij")
    wave = 3 * np.cos(2 * np.pi * (0.15 * x + 0.1 * y))
    found = spectra.planar_spectrum(plane(wave))
    step = float(found.wavenumber[1] - found.wavenumber[0])
    assert found.wavenumber[found.values.argmax()].item() == pytest.approx(
        math.hypot(0.15, 0.1) / 2, abs=step
    )
    assert found.sum().item() * step == pytest.approx(4.5, rel=0.01)
    np.testing.assert_allclose(found.wavelength * found.wavenumber, 1)
    assert found.attrs["units"] == "mm^2 km"


def test_a_jump_from_edge_to_edge_of_a_region_leaves_no_power_at_small_scales() -> None:
    ramp = spectra.planar_spectrum(plane(np.arange(64.0) * np.ones((64, 1))))
    assert ramp[8:].sum() < 1e-4 * ramp.sum()


def test_the_power_of_white_noise_in_a_plane_grows_as_the_ring() -> None:
    noise = np.random.default_rng(0).normal(size=(100, 32, 32))
    found = spectra.planar_spectrum(plane(noise)).mean("time")
    # a density of dx dy in two dimensions, over rings of length 2 pi k; rings differ in what falls in by chance,
    # so count up to each
    up_to = found.cumsum() * float(found.wavenumber[0])
    circle = np.pi * (found.wavenumber + found.wavenumber[0] / 2) ** 2 * 2.0 * 2.0
    np.testing.assert_allclose(up_to[4:], circle[4:], rtol=0.05)


def test_a_region_in_degrees_has_the_steps_of_its_middle_latitude() -> None:
    coords = {"latitude": np.arange(50, 58, 0.25), "longitude": np.arange(-10, 2, 0.25)}
    wave = np.cos(2 * np.pi * np.arange(48) / 6) * np.ones((32, 1))
    found = spectra.planar_spectrum(field(wave, **coords))
    step = 6371 * math.radians(0.25) * math.cos(math.radians(53.875))
    peak = found.wavelength[found.values.argmax()].item()
    assert peak == pytest.approx(6 * step, rel=0.1)
    assert spectra.spectrum(field(wave, **coords)).identical(found)


def test_ratios_compare_members_one_by_one_so_that_their_mean_looks_too_smooth() -> None:
    coords = coordinates(30, 16, 32)
    rng = np.random.default_rng(0)
    truth = field(rng.normal(size=(30, 16, 32)), **coords)
    members = field(rng.normal(size=(4, 30, 16, 32)), member=np.arange(4), **coords)
    of = spectra.spectrum
    ratio = spectra.spectral_ratio(of(members), of(truth))
    np.testing.assert_allclose(ratio[4:], 1, atol=0.2)
    smooth = spectra.spectral_ratio(of(members.mean("member")), of(truth))
    assert smooth[4:].mean().item() == pytest.approx(0.25, rel=0.05)
    distance = spectra.log_spectral_distance(of(2 * truth), of(truth))
    assert distance.item() == pytest.approx(10 * math.log10(4))
    assert distance.attrs["units"] == "dB"


def test_what_has_no_spectrum_is_refused() -> None:
    coords = globe("gauss")
    x = field(np.random.default_rng(0).normal(size=(16, 32)), **coords)
    region = x.isel(longitude=slice(0, 16))
    with pytest.raises(ValueError, match="no globe with a quadrature"):
        spectra.spherical_spectrum(region)
    with pytest.raises(ValueError, match="close around the globe"):
        spectra.zonal_spectrum(region)
    with pytest.raises(ValueError, match="holds no row"):
        spectra.zonal_spectrum(x, band=(89, 90))
    with pytest.raises(ValueError, match="NaN or infinite"):
        spectra.spectrum(x.where(x > 0))
    with pytest.raises(ValueError, match="at least 8"):
        spectra.planar_spectrum(region.isel(latitude=slice(0, 4)))
    with pytest.raises(ValueError, match="m or km"):
        spectra.planar_spectrum(plane(np.zeros((9, 9))).drop_vars("x"))
    with pytest.raises(ValueError, match="different kinds"):
        spectra.spectral_ratio(spectra.zonal_spectrum(x), spectra.spherical_spectrum(x))
    with pytest.raises(ValueError, match="give spectra, not fields"):
        spectra.spectral_ratio(x, x)


def autoregressive(n: int, memory: float, rng: np.random.Generator) -> np.ndarray:
    """A stationary series of mean 0 and variance 1, correlated by ``memory`` from one time to the next."""
    series, kick = np.empty(n), rng.normal(size=n)
    series[0] = kick[0]
    for t in range(1, n):
        series[t] = memory * series[t - 1] + math.sqrt(1 - memory**2) * kick[t]
    return series


def test_blocks_cover_the_mean_of_a_series_with_memory_and_single_times_do_not() -> None:
    rng = np.random.default_rng(0)
    runs = [autoregressive(200, 0.7, rng) for _ in range(200)]

    def coverage(block: int | None) -> float:
        bootstrap = BlockBootstrap(replicates=200, block=block)
        return 1 - float(np.mean([mean_interval(run, bootstrap).excludes(0) for run in runs]))

    assert coverage(None) > 0.85
    assert coverage(1) < 0.7


def test_blocks_are_single_times_where_there_is_no_memory_and_grow_with_it() -> None:
    rng = np.random.default_rng(0)
    lengths = [
        np.mean([block_length(autoregressive(400, memory, rng)) for _ in range(10)])
        for memory in (0.0, 0.5, 0.9)
    ]
    assert lengths[0] < 3 < lengths[1] < lengths[2]
    assert block_length(np.ones(10)) == 1


def test_an_interval_of_independent_scores_is_that_of_the_standard_error() -> None:
    series = np.random.default_rng(0).normal(size=400)
    interval = mean_interval(series, BlockBootstrap(block=1))
    assert interval.value == pytest.approx(series.mean())
    half = 1.96 * series.std() / 20
    assert (interval.high - interval.low) / 2 == pytest.approx(half, rel=0.1)
    assert mean_interval(series, BlockBootstrap(block=1)) == interval
    assert mean_interval(series, BlockBootstrap(block=1, seed=1)) != interval


def test_paired_differences_are_sure_where_the_means_are_not() -> None:
    rng = np.random.default_rng(0)
    times = coordinates(60)["time"]
    weather = 10 * rng.normal(size=60)
    ours = xr.DataArray(weather - 0.5 + 0.5 * rng.normal(size=60), {"time": times}, ("time",))
    theirs = xr.DataArray(weather, {"time": times}, ("time",))
    difference = paired_difference(ours, theirs.isel(time=slice(None, None, -1)).sortby("time"))
    assert difference.value == pytest.approx(float((ours - theirs).mean()))
    assert difference.excludes(0)
    assert not mean_interval(ours).excludes(float(theirs.mean()))
    gappy = paired_difference(ours.where(ours.time > times[9]), theirs.isel(time=slice(0, 50)))
    assert gappy.value == pytest.approx(float((ours - theirs)[10:50].mean()))


def test_intervals_of_too_little_are_unknown_or_refused() -> None:
    assert math.isnan(mean_interval(np.ones(1)).low)
    with pytest.raises(ValueError, match="no time with a value"):
        mean_interval(np.full(3, np.nan))
    with pytest.raises(ValueError, match="one dimension"):
        mean_interval(np.ones((3, 3)))
    with pytest.raises(ValueError, match="ours holds 3 times, theirs 4"):
        paired_difference(np.ones(3), np.ones(4))
    for wrong in ({"block": 0}, {"replicates": 1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            BlockBootstrap(**wrong)
    with pytest.raises(ValueError, match="level"):
        BlockBootstrap(level=1.0)
