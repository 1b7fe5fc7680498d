"""Grids: areas add up, quadratures integrate, and every order of coordinates means the same grid."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from sciffusion.domains.weather.grid import Grid


def line(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def regular(height: int, width: int, *, poles: bool) -> Grid:
    step = 180 / (height - 1 if poles else height)
    lat = 90 - step * (torch.arange(height, dtype=torch.float64) + (0 if poles else 0.5))
    return Grid(lat, torch.arange(width, dtype=torch.float64) * (360 / width))


def gaussian(height: int, width: int) -> Grid:
    nodes = np.degrees(np.arcsin(np.polynomial.legendre.leggauss(height)[0]))[::-1]
    return Grid(
        torch.from_numpy(nodes.copy()), torch.arange(width, dtype=torch.float64) * (360 / width)
    )


def dataset(lat: object, lon: object, **attrs: str) -> xr.Dataset:
    coords = {"lat": ("lat", np.asarray(lat), attrs), "lon": ("lon", np.asarray(lon))}
    return xr.Dataset(coords=coords)


def mean_of(grid: Grid, values: Tensor) -> float:
    return float((grid.area[:, 0] * values).mean())


@pytest.mark.parametrize("n", [2, 3, 8, 33, 64])
def test_gaussian_areas_integrate_even_powers_of_the_sine_of_latitude_exactly(n: int) -> None:
    grid = gaussian(n, 4)
    sine = torch.sin(torch.deg2rad(grid.lat))
    assert grid.gaussian
    for power in range(0, min(2 * n - 1, 12), 2):
        assert mean_of(grid, sine**power) == pytest.approx(1 / (power + 1), abs=1e-13)


@pytest.mark.parametrize("poles", [True, False])
def test_areas_of_regular_grids_integrate_with_second_order(poles: bool) -> None:
    errors = []
    for height in (19, 37, 73):
        grid = regular(height + (not poles), 4, poles=poles)
        # the mean of sin^2 over the sphere; area is scaled by its own mean, so the sum is the test
        sine = torch.sin(torch.deg2rad(grid.lat))
        errors.append(abs(float((grid.area[:, 0] * sine**2).sum() / grid.area.sum()) - 1 / 3))
    rates = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (rates > 1.8).all()


@pytest.mark.parametrize("height", [9, 18, 181])
def test_cells_of_a_globe_tile_it_and_pole_points_have_half_cells(height: int) -> None:
    grid = regular(height, 4, poles=True)
    assert grid.bounds[0] == 90 and grid.bounds[-1] == -90
    assert float(grid.area.mean()) == pytest.approx(1)
    d = torch.deg2rad(line(180 / (height - 1)))
    share = float(grid.area[0] / grid.area.sum())
    assert share == pytest.approx(float((1 - torch.cos(d / 2)) / 2), rel=1e-12)
    assert grid.pole_rows == (True, True) and grid.poles == (True, True)


def test_areas_are_what_the_cells_cover_on_a_region() -> None:
    grid = Grid(line(60, 50, 45), line(0, 1, 2))
    edges = np.sin(np.deg2rad([65, 55, 47.5, 42.5]))
    want = -np.diff(edges)
    np.testing.assert_allclose(grid.area[:, 0], want / want.mean(), rtol=1e-12)


def test_equal_rows_would_weigh_the_poles_wrongly() -> None:
    grid = regular(19, 4, poles=True)
    assert float(grid.area[0]) == pytest.approx(float(grid.area[1]) / 8, rel=0.02)


@pytest.mark.parametrize(
    "grid", [gaussian(32, 64), regular(19, 36, poles=True), regular(18, 36, poles=False)]
)
def test_a_globe_has_a_quadrature_on_its_own_latitudes(grid: Grid) -> None:
    sphere = grid.sphere
    assert sphere is not None and sphere.shape == grid.shape
    np.testing.assert_allclose(90 - np.degrees(sphere.colatitudes.numpy()), grid.lat, atol=1e-9)
    sine = torch.sin(torch.deg2rad(grid.lat))
    assert float((sphere.weights * sine**2).sum()) == pytest.approx(2 / 3, abs=1e-12)


def test_rounded_gaussian_latitudes_are_recognised_and_regular_ones_are_not() -> None:
    grid = gaussian(48, 96)
    assert Grid((grid.lat * 100).round() / 100, grid.lon).gaussian
    assert not Grid(grid.lat * 0.999, grid.lon).gaussian
    for height in (2, 3, 48, 640):
        assert not regular(height, 4, poles=False).gaussian


@pytest.mark.parametrize("row", [0, -1])
def test_poles_are_continued_only_where_rows_come_near(row: int) -> None:
    globe = regular(36, 72, poles=False)
    assert globe.poles == (True, True) and globe.pole_rows == (False, False)
    band = globe.subset(slice(4, None) if row == 0 else slice(0, -4), slice(None))
    assert band.circular and band.poles == ((False, True) if row == 0 else (True, False))
    sector = globe.subset(slice(None), slice(0, 36))
    assert not sector.circular and sector.poles == (False, False) and sector.sphere is None


def test_a_globe_without_one_pole_row_still_continues_over_that_pole() -> None:
    cropped = regular(121, 240, poles=True).subset(slice(0, 120), slice(None))
    assert cropped.poles == (True, True) and cropped.pole_rows == (True, False)


@pytest.mark.parametrize("factor", [1, 2, 4])
@pytest.mark.parametrize("gauss", [True, False])
def test_coarse_cells_have_the_area_of_the_fine_ones_in_them(factor: int, gauss: bool) -> None:
    fine = gaussian(32, 64) if gauss else regular(32, 64, poles=False)
    coarse = fine.coarsen(factor)
    assert coarse.shape == (32 // factor, 64 // factor) and coarse.circular
    want = fine.area.unflatten(0, (-1, factor)).mean(1)
    np.testing.assert_allclose(coarse.area, want, rtol=1e-9)
    if not gauss:
        np.testing.assert_allclose(coarse.area, regular(*coarse.shape, poles=False).area, rtol=1e-9)


def test_coarsening_that_does_not_divide_the_grid_is_refused_with_what_does() -> None:
    with pytest.raises(ValueError, match=r"factor 5 does not divide .*: \[2, 4, 8, 16, 32\]"):
        gaussian(32, 64).coarsen(5)
    with pytest.raises(ValueError, match="crop it"):
        regular(33, 49, poles=True).coarsen(2)


def test_a_subset_keeps_the_proportions_of_areas() -> None:
    grid = gaussian(32, 64)
    part = grid.subset(slice(0, 5), slice(3, 9))
    assert part.shape == (5, 6)
    np.testing.assert_allclose(part.area / part.area[0], (grid.area / grid.area[0])[:5], rtol=1e-9)
    with pytest.raises(ValueError, match="rows"):
        grid.subset(slice(0, 5, 2), slice(None))
    with pytest.raises(ValueError, match="columns"):
        grid.subset(slice(0, 5), slice(9, 9))


LAT = np.linspace(60, 50, 5)
GLOBE = np.arange(0, 360, 5.0)


@pytest.mark.parametrize("lat", [LAT, LAT[::-1]])
@pytest.mark.parametrize(
    "lon",
    [
        GLOBE,
        (GLOBE + 180) % 360 - 180,
        np.sort((GLOBE + 180) % 360 - 180),
        np.roll(GLOBE, 17),
        GLOBE[::-1],
        GLOBE + 720,
        GLOBE.astype(np.float32),
        np.random.default_rng(0).permutation(GLOBE),
    ],
)
def test_a_globe_is_the_same_grid_in_every_order(lat: np.ndarray, lon: np.ndarray) -> None:
    grid = Grid.of(dataset(lat, lon))
    np.testing.assert_array_equal(grid.lat, LAT)
    np.testing.assert_array_equal(grid.lon, GLOBE)
    assert grid.circular


@pytest.mark.parametrize(
    ("lon", "want"),
    [
        ([-10, -5, 0, 5], [-10, -5, 0, 5]),
        ([350, 355, 0, 5], [-10, -5, 0, 5]),
        ([0, 5, 350, 355], [-10, -5, 0, 5]),
        ([170, 175, -180, -175], [170, 175, 180, 185]),
        ([-180, -175, 170, 175], [170, 175, 180, 185]),
        ([170, 175, 180, 185], [170, 175, 180, 185]),
        ([180, 185, 190], [-180, -175, -170]),
        ([230, 240, 250], [-130, -120, -110]),
        ([5, 0, -5], [-5, 0, 5]),
    ],
)
def test_a_region_is_continuous_from_its_western_edge(lon: list[float], want: list[float]) -> None:
    grid = Grid.of(dataset(LAT, [float(x) for x in lon]))
    assert grid.lon.tolist() == want and not grid.circular


@pytest.mark.parametrize(
    ("lat", "lon"),
    [
        ({"standard_name": "latitude"}, {"standard_name": "longitude"}),
        ({"units": "degrees_north"}, {"units": "degrees_east"}),
        ({"units": "degreesN"}, {"units": "degree_E"}),
        ({"axis": "Y", "units": "degrees"}, {"axis": "X", "units": "degrees"}),
    ],
)
def test_axes_are_found_by_attributes_whatever_their_names(
    lat: dict[str, str], lon: dict[str, str]
) -> None:
    ds = xr.Dataset(coords={"y": ("y", LAT, lat), "x": ("x", GLOBE, lon)})
    assert Grid.of(ds).shape == (5, 72)


@pytest.mark.parametrize("names", [("lat", "lon"), ("Latitude", "Longitude"), ("nav_lat", "long")])
def test_axes_are_found_by_name(names: tuple[str, str]) -> None:
    ds = xr.Dataset(coords={names[0]: LAT, names[1]: GLOBE})
    assert Grid.of(ds).shape == (5, 72)


def test_coordinates_beside_dimensions_of_other_names_serve() -> None:
    ds = xr.Dataset(coords={"lat": ("y", LAT), "lon": ("x", GLOBE)})
    assert Grid.of(ds).shape == (5, 72)


def wrong(lat: object = LAT, lon: object = GLOBE) -> xr.Dataset:
    return dataset(lat, lon)


@pytest.mark.parametrize(
    ("ds", "message"),
    [
        (wrong(lat=[50, 60, 55]), "neither rises nor falls.*sortby"),
        (wrong(lat=[50, 50, 55]), r"\[50.0\] more than once"),
        (wrong(lat=[50, 100]), "within 90"),
        (wrong(lat=[50, np.nan]), "not finite"),
        (wrong(lat=[50]), "needs at least 2"),
        (wrong(lon=[0, 1, 3]), "unequal steps, from 1 to 2"),
        (wrong(lon=np.arange(0, 361, 5.0)), "same meridian twice, 0 and 360.*isel"),
        (wrong(lon=[0, 1, 0]), "same meridian twice"),
        (wrong().drop_vars("lat"), "no latitude"),
        (wrong().isel(lat=0), "single latitude"),
        (xr.Dataset(coords={"y": ("y", LAT, {"units": "km"}), "x": GLOBE}), "no latitude"),
        (dataset(LAT, GLOBE, standard_name="grid_latitude"), "no latitude"),
        (dataset(LAT, GLOBE, units="radians"), "no latitude"),
        (wrong().assign_coords(latitude=("latitude", LAT)), "several latitude"),
        (
            xr.Dataset(coords={"lat": (("y", "x"), np.ones((2, 2))), "lon": GLOBE}),
            "two-dimensional",
        ),
    ],
)
def test_axes_in_disorder_are_refused(ds: xr.Dataset, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Grid.of(ds)


def test_coordinates_that_make_no_grid_are_refused() -> None:
    with pytest.raises(ValueError, match="lat must fall"):
        Grid(line(0, 1), line(0, 1))
    with pytest.raises(ValueError, match="lon must rise"):
        Grid(line(1, 0), line(1, 0))
    with pytest.raises(ValueError, match="more than once"):
        Grid(line(1, 0), torch.arange(37, dtype=torch.float64) * 10)
    with pytest.raises(ValueError, match="float64"):
        Grid(torch.tensor([1.0, 0.0]), line(0, 1))
    with pytest.raises(ValueError, match="edges"):
        Grid(line(1, 0), line(0, 1), line(1, 0))


def test_grids_are_the_same_whatever_the_count_of_longitude() -> None:
    grid = Grid(line(1, 0), line(-10, -5, 0))
    assert grid.same(Grid(line(1, 0), line(350, 355, 360)))
    assert not grid.same(Grid(line(1, 0), line(-9, -4, 1)))
    assert not grid.same(Grid(line(1, 0.5), line(-10, -5, 0)))
    assert not grid.same(Grid(line(1, 0), line(-10, -5)))


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("speedy_t21_12h", (32, 64, True, (True, True), True)),
        ("sst_anomaly_t30_1979_2013", (48, 96, True, (True, True), True)),
        ("era5_t2m_uk_201903", (33, 49, False, (False, False), False)),
        ("era5_eda_members_3deg", (61, 120, True, (True, True), False)),
        ("mrms_conus_20190610", (1750, 3500, False, (False, False), False)),
    ],
)
def test_real_files_are_the_grids_that_they_are(
    file: str,
    kind: tuple[int, int, bool, tuple[bool, bool], bool],
    shared_data: Callable[[str], Path],
) -> None:
    with xr.open_dataset(shared_data(f"weather/{file}.nc")) as ds:
        grid = Grid.of(ds)
    assert (*grid.shape, grid.circular, grid.poles, grid.gaussian) == kind
