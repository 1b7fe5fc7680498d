"""Laws of paddings: what lies beyond an edge is what the continued field has there."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sciffusion.networks import Circular, SpherePadding, Zeros
from sciffusion.networks.convolution import Conv

from .networks import close, draw

ON_POLES = SpherePadding(pole_rows=(True, True))
BETWEEN = SpherePadding()


def grid(height: int, width: int, n: int, on_poles: bool) -> tuple[Tensor, Tensor]:
    """Latitudes, running on beyond both poles, and longitudes of a grid with n more points on every side."""
    rows = torch.arange(-n, height + n, dtype=torch.float64)
    rows = rows / (height - 1) if on_poles else (rows + 0.5) / height
    columns = torch.arange(-n, width + n, dtype=torch.float64) / width
    return (math.pi * (0.5 - rows))[:, None], 2 * math.pi * columns


def point(lat: Tensor, lon: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin() + 0 * lon


def harmonics(lat: Tensor, lon: Tensor) -> Tensor:
    """Spherical harmonics of degrees 1 to 4, as polynomials of the place in space."""
    x, y, z = point(lat, lon)
    return torch.stack([x, z, x * y + z * x, (7 * z**2 - 3) * z * x, x * (x**2 - 3 * y**2)])


def rotation(lat: Tensor, lon: Tensor) -> Tensor:
    """Eastward and northward wind of a solid rotation about an axis in the plane of the equator."""
    x, y, z = point(lat, lon)
    wind = (0 * x, -z, y)  # (1, 0, 0) x (x, y, z)
    zero = 0 * z
    east = (-lon.sin() + zero, lon.cos() + zero, zero)
    north = (-lat.sin() * lon.cos(), -lat.sin() * lon.sin(), lat.cos() + zero)
    parts = [sum(a * b for a, b in zip(wind, frame, strict=True)) for frame in (east, north)]
    return torch.stack([p for p in parts if isinstance(p, Tensor)])


def inner(x: Tensor, n: int) -> Tensor:
    return x[..., n:-n, n:-n]


@pytest.mark.parametrize("padding", [BETWEEN, ON_POLES], ids=["between", "on the poles"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_smooth_functions_on_the_sphere_go_on_beyond_the_poles(
    padding: SpherePadding, n: int
) -> None:
    whole = harmonics(*grid(9, 16, n, padding is ON_POLES))[None]
    close(padding(inner(whole, n), n), whole)


def test_one_grid_may_lie_on_one_pole_and_beside_the_other() -> None:
    on, beside = harmonics(*grid(9, 16, 2, True)), harmonics(*grid(9, 16, 2, False))
    mixed = torch.cat((inner(on, 2)[:, :5], inner(beside, 2)[:, 5:]), 1)[None]
    padded = SpherePadding(pole_rows=(True, False))(mixed, 2)
    close(padded[0, :, :7], on[:, :7])
    close(padded[0, :, 7:], beside[:, 7:])


@pytest.mark.parametrize("padding", [BETWEEN, ON_POLES], ids=["between", "on the poles"])
def test_components_of_winds_turn_around_beyond_the_poles(padding: SpherePadding) -> None:
    whole = rotation(*grid(9, 16, 2, padding is ON_POLES))[None]
    signs = torch.tensor([-1.0, -1.0], dtype=torch.float64)
    close(padding(inner(whole, 2), 2, signs), whole)
    assert (padding(inner(whole, 2), 2) - whole).abs().max() > 0.1


def test_with_an_odd_number_of_columns_the_error_falls_with_the_square_of_their_distance() -> None:
    error = []
    for width in (15, 31, 61):
        whole = harmonics(*grid(8, width, 1, False))[None]
        error.append(float((BETWEEN(inner(whole, 1), 1) - whole).abs().max()))
    assert error[0] / error[1] > 3.5
    assert error[1] / error[2] > 3.5


def test_every_second_row_is_padded_like_the_grid_of_every_second_row() -> None:
    x = draw(2, 3, 9, 16)
    coarse = ON_POLES.halved(x.shape[2:])
    close(coarse(x[..., ::2, ::2], 1), ON_POLES(x, 2)[..., ::2, ::2])
    # of an even number of rows the last one, on the pole, is left out
    assert ON_POLES.halved((8, 16)).pole_rows == (True, False)


def test_a_region_repeats_its_edges() -> None:
    x = draw(2, 3, 5, 6)
    padding = SpherePadding(False, (False, False))
    assert torch.equal(padding(x, 2), F.pad(x, (2, 2, 2, 2), mode="replicate"))


def test_circles_continue_with_their_other_end_and_open_axes_with_zeros() -> None:
    x = draw(2, 3, 5, 6)
    both = F.pad(x, (2, 2, 2, 2), mode="circular")
    assert torch.equal(Circular((-1, -2))(x, 2), both)
    columns = F.pad(F.pad(x, (2, 2, 0, 0), mode="circular"), (0, 0, 2, 2))
    assert torch.equal(Circular()(x, 2), columns)
    assert torch.equal(Zeros()(x, 2), F.pad(x, (2, 2, 2, 2)))
    assert torch.equal(Circular()(x[:, :, 0, :1], 2), x[:, :, 0, :1].expand(2, 3, 5))


def test_levels_above_rows_and_columns_end_in_zeros() -> None:
    x = draw(1, 2, 3, 4, 8)
    padded = BETWEEN(x, 1)
    assert torch.equal(padded[:, :, [0, -1]], torch.zeros(1, 2, 2, 6, 10).double())
    close(padded[0, :, 1:-1], BETWEEN(x[0], 1))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [Zeros(), Circular(), BETWEEN, ON_POLES], ids=str)
def test_a_convolution_looks_at_the_padded_field(
    padding: Zeros | Circular | SpherePadding, stride: int
) -> None:
    conv, x = Conv(3, 4, 2, stride=stride).double(), draw(2, 3, 7, 8)
    close(conv(x, padding), F.conv2d(padding(x, 1), conv.weight, conv.bias, stride))


def test_impossible_paddings_are_refused() -> None:
    with pytest.raises(ValueError, match="only if its longitude is circular"):
        SpherePadding(circular=False)
    with pytest.raises(ValueError, match="pole_rows .* need poles"):
        SpherePadding(poles=(True, False), pole_rows=(False, True))
    with pytest.raises(ValueError, match="counts from the end"):
        Circular((1,))
    with pytest.raises(ValueError, match="do not exist in 1 dimension"):
        Circular((-2,))(draw(1, 1, 4), 1)
    with pytest.raises(ValueError, match="rows and columns, not 1 dimension"):
        SpherePadding()(draw(1, 1, 4), 1)
