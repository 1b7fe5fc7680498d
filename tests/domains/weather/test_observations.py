"""Instruments: what is exact, what closes around the globe and over the poles, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor

from sciffusion.domains.weather.grid import Grid
from sciffusion.domains.weather.observations import Coarse, Custom, Instrument, Masked, Points
from sciffusion.inverse import Linearised
from sciffusion.layout import Dense
from sciffusion.state import State


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def steps(first: float, last: float, n: int) -> Tensor:
    return torch.linspace(first, last, n, dtype=torch.float64)


GLOBE = Grid(steps(75, -75, 6), steps(0, 330, 12))  # rows half a spacing off the poles
WITH_POLES = Grid(steps(90, -90, 7), steps(-180, 150, 12))
ODD = Grid(steps(60, -60, 3), steps(0, 288, 5))
REGION = Grid(steps(58, 50, 5), steps(-10, 2, 7))
DATELINE = Grid(steps(10, -10, 5), steps(170, 190, 5))
LINE = Grid(steps(0, 0, 1), steps(0, 351, 40))  # one circle, as Lorenz-96 has it


@pytest.mark.parametrize("grid", [GLOBE, WITH_POLES, ODD, REGION, DATELINE, LINE])
@pytest.mark.parametrize("turn", [-360.0, 0.0, 360.0])
def test_points_on_the_grid_are_exact_by_any_count_of_longitudes(grid: Grid, turn: float) -> None:
    lat, lon = (x.flatten() for x in torch.meshgrid(grid.lat, grid.lon + turn, indexing="ij"))
    x = randn(2, 3, *grid.shape)
    for channel in range(3):
        seen = Points(grid, lat.float(), lon.float(), channel)(x)
        assert torch.allclose(seen, x[:, channel].flatten(1), atol=1e-4)
        assert torch.equal(Points(grid, lat, lon - turn, channel)(x), x[:, channel].flatten(1))


def test_points_are_exact_on_functions_linear_in_latitude_and_longitude() -> None:
    lat, lon = torch.tensor([50.3, 55.55, 58.0]), torch.tensor([-9.9, 1.7, 352.25])
    plane = 3 + 2 * REGION.lat[:, None] - 0.7 * REGION.lon
    y = Points(REGION, lat, lon, 0)(plane[None, None])
    west = torch.where(lon > 180, lon - 360, lon)
    assert torch.allclose(y[0], 3 + 2 * lat.double() - 0.7 * west.double(), atol=1e-5)


def test_each_point_sees_its_own_channel() -> None:
    x = randn(1, 3, *GLOBE.shape)
    y = Points(GLOBE, [75, 75, 75], [0, 0, 0], [2, 0, 1])(x)
    assert torch.equal(y, x[:, [2, 0, 1], 0, 0])


def test_turning_the_globe_turns_what_is_seen() -> None:
    lat, lon = [40.0, -81.0, 12.0], torch.tensor([3.0, 170.0, 355.0])
    x = randn(1, 1, *GLOBE.shape)
    turned = Points(GLOBE, lat, lon + 60, 0)(x.roll(2, -1))
    assert torch.allclose(turned, Points(GLOBE, lat, lon, 0)(x))


@pytest.mark.parametrize("grid", [GLOBE, ODD])
@pytest.mark.parametrize("pole", [90.0, -90.0])
def test_a_smooth_scalar_has_one_value_at_the_pole(grid: Grid, pole: float) -> None:
    """cos(lat) cos(lon) is linear in the plane through the pole: zero there from every meridian."""
    row = torch.cos(torch.deg2rad(grid.lat))[:, None] * torch.cos(torch.deg2rad(grid.lon))
    y = Points(grid, [pole] * 3, [0.0, 77.0, 200.0], 0)((5 + row)[None, None])
    # an odd number of meridians has none opposite: interpolation between two is off by their curvature
    assert torch.allclose(y, torch.full_like(y, 5.0), atol=1e-9 if grid is GLOBE else 0.1)


def test_a_uniform_wind_over_the_pole_is_seen_as_such_only_as_a_vector() -> None:
    """A wind (U, 0) of the plane has the components u = -U sin(lon), v = U cos(lon), up to signs."""
    angle = torch.deg2rad(GLOBE.lon).expand(GLOBE.shape)
    wind = torch.stack([-angle.sin(), -angle.cos()])[None]
    lat, lon = [90.0, 86.0], [30.0, 30.0]
    for channel, want in ((0, -math.sin(math.radians(30))), (1, -math.cos(math.radians(30)))):
        y = Points(GLOBE, lat, lon, channel, vectors=[True, True])(wind)
        assert torch.allclose(y, torch.full_like(y, want))
    plain = Points(GLOBE, [90.0], [30.0], 0)(wind)
    assert abs(float(plain)) < 1e-9


@pytest.mark.parametrize(
    ("grid", "lat", "lon", "where"),
    [
        (REGION, 49.9, 0.0, r"\(49.9, 0\)"),
        (REGION, 55.0, 2.1, r"\(55, 2.1\)"),
        (REGION, 55.0, -10.1, r"\(55, -10.1\)"),
        (DATELINE, 0.0, -169.0, r"\(0, -169\)"),
        (GLOBE, 91.0, 0.0, r"\(91, 0\)"),
        (LINE, 1.0, 0.0, r"\(1, 0\)"),
    ],
)
def test_a_point_outside_is_refused_by_its_coordinates(
    grid: Grid, lat: float, lon: float, where: str
) -> None:
    with pytest.raises(ValueError, match=where + ".*outside the grid, which spans"):
        Points(grid, [float(grid.lat[0]), lat], [float(grid.lon[0]), lon], 0)


def test_points_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(nan, 3\).*no finite position"):
        Points(GLOBE, [float("nan")], [3.0], 0)
    with pytest.raises(ValueError, match="as many"):
        Points(GLOBE, [1.0, 2.0], [3.0], 0)
    with pytest.raises(ValueError, match="channel must not be negative"):
        Points(GLOBE, [1.0], [3.0], -1)
    with pytest.raises(ValueError, match="channel 2 is observed, the fields have 2"):
        Points(GLOBE, [1.0], [3.0], 2)(randn(1, 2, *GLOBE.shape))
    with pytest.raises(ValueError, match="for this grid"):
        Points(GLOBE, [1.0], [3.0], 0)(randn(1, 2, 4, 4))
    with pytest.raises(ValueError, match=r"sees fields \(B, C, H, W\)"):
        Points(GLOBE, [1.0], [3.0], 0)(randn(2, 4, 4))
    with pytest.raises(ValueError, match="got State"):
        Points(GLOBE, [1.0], [3.0], 0)(State({"x": randn(1, 1, 4, 4)}, Dense(1)))


def test_cells_without_data_give_their_weight_to_the_others() -> None:
    x = torch.ones(1, 1, *REGION.shape, dtype=torch.float64)
    x[..., 0] = float("nan")
    known = ~x[0, 0].isnan()
    y = Points(REGION, [55.3, 51.0], [-9.5, -3.3], 0, known=known)(x)
    assert torch.allclose(y, torch.ones_like(y))
    assert torch.allclose(Points(REGION, [55.3], [-9.5], 0, known=known[None])(x), y[:, :1])
    with pytest.raises(ValueError, match=r"\(55, -10\) have no data"):
        Points(REGION, [55.0], [-10.0], 0, known=known)


def test_a_gap_beside_a_point_on_the_grid_is_not_read() -> None:
    x = torch.full((1, 1, *REGION.shape), float("nan"))
    x[0, 0, 2, 3] = 7.0
    assert float(Points(REGION, REGION.lat[2:3], REGION.lon[3:4], 0)(x)) == 7.0


def test_coarse_cells_hold_the_mean_over_their_area() -> None:
    """Of a function of latitude with a known integral; and the mean of all boxes is the mean of the globe."""
    fine = Grid(steps(89.5, -89.5, 180), steps(0, 350, 36))
    y = Coarse(fine, (90, 18))(
        torch.sin(torch.deg2rad(fine.lat))[:, None].expand(fine.shape)[None, None]
    )
    assert torch.allclose(y[0, 0], torch.tensor([[0.5], [-0.5]], dtype=torch.float64), atol=1e-4)
    x = randn(2, 3, *GLOBE.shape)
    whole, boxes = Coarse(GLOBE, (6, 12))(x), Coarse(GLOBE, (1, 3))(x)
    assert torch.allclose(whole[..., 0, 0], (x * GLOBE.area).mean((-2, -1)))
    assert torch.allclose((boxes * GLOBE.area).mean((-2, -1)), whole[..., 0, 0])
    assert torch.equal(Coarse(GLOBE, 3, [2, 0])(x), Coarse(GLOBE, 3)(x)[:, [2, 0]])
    with pytest.raises(ValueError, match="does not divide the grid"):
        Coarse(GLOBE, 5)


def test_a_swath_lists_the_cells_under_it() -> None:
    x, mask = randn(2, 2, 4, 5), randn(2, 4, 5, seed=1) > 0
    assert torch.equal(Masked(mask)(x), x[:, mask])
    assert torch.equal(Masked(mask[0])(x), x[:, mask[:1].expand(2, -1, -1)])
    with pytest.raises(ValueError, match="mask must be boolean"):
        Masked(mask.double())
    with pytest.raises(ValueError, match="mask must be boolean.*with 0 cells"):
        Masked(mask & False)
    with pytest.raises(ValueError, match="does not fit"):
        Masked(mask[:, :3])(x)


def test_functions_see_channels_by_name() -> None:
    def speed(f: Mapping[str, Tensor]) -> Tensor:
        return (f["u"] ** 2 + f["v"] ** 2).sqrt()

    x = randn(2, 3, 4, 5)
    wind = Custom(speed, ["t", "u", "v"])
    assert torch.equal(wind(x), x[:, 1:].norm(dim=1))
    window = randn(2, 6, 3, 4, 5)
    assert wind(window).shape == (2, 6, 4, 5)
    with pytest.raises(ValueError, match="names has 3 entries, the fields have 2"):
        wind(x[:, :2])
    with pytest.raises(ValueError, match="every channel once"):
        Custom(speed, ["u", "u"])
    with pytest.raises(ValueError, match="2 rows, one per sample"):
        Custom(lambda f: f["u"].mean(), ["t", "u", "v"])(x)


LINEAR: list[Instrument] = [
    Points(GLOBE, [12.0, 89.0, -90.0], [3.0, -100.0, 7.0], [0, 1, 2], vectors=[False, True, True]),
    Coarse(GLOBE, 3),
    Coarse(GLOBE, (2, 4), [1]),
    Masked(randn(3, 6, 12) > 1),
    Custom(lambda f: (f["a"] - f["b"]).mean((-2, -1)), ["a", "b", "c"], linear=True),
]


def kinds(instruments: Sequence[Instrument]) -> list[str]:
    return [type(i).__name__ for i in instruments]


@pytest.mark.parametrize("instrument", LINEAR, ids=kinds(LINEAR))
def test_the_transpose_is_the_transpose(instrument: Instrument) -> None:
    """<A x, y> = <x, A^T y>; and A is linear, sample by sample."""
    x = randn(3, 3, *GLOBE.shape).requires_grad_()
    local = Linearised(instrument, x)
    u, y = randn(3, 3, *GLOBE.shape, seed=1), randn(*instrument(x).shape, seed=2)
    seen, back = local.forward(u), local.transpose(y)
    assert isinstance(seen, Tensor) and isinstance(back, Tensor)
    assert torch.allclose((seen * y).reshape(3, -1).sum(1), (u * back).flatten(1).sum(1))
    with torch.no_grad():
        assert torch.allclose(instrument(x + 2 * u), instrument(x) + 2 * instrument(u))
        alone = torch.cat([instrument(row[None]) for row in x])
        assert torch.equal(alone, instrument(x))
