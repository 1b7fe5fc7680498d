"""Noise on grids: stationary on periodic ones, isotropic on spheres."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sciffusion.harmonics import Harmonics, SphereGrid
from sciffusion.layout import Dense
from sciffusion.noise import Noise
from sciffusion.space import Coloured, Euclidean, GaussianSpace, SphereField
from tests.core.cases import packed, padded, points, randn

SPHERE = Harmonics(SphereGrid.regular(17, 20, poles=False), 8)


def red(k: Tensor) -> Tensor:
    return 1 / (0.05 + k) ** 2


def matrix(space: GaussianSpace, shape: tuple[int, ...]) -> Tensor:
    """The covariance of one field."""
    n = math.prod(shape)
    units = torch.eye(n, dtype=torch.float64).reshape(n, *shape)
    return space.covariance(units, Dense(n)).reshape(n, n)


@pytest.mark.parametrize("shape", [(7,), (8,), (4, 5), (3, 4, 6)])
def test_white_is_a_colour(shape: tuple[int, ...]) -> None:
    white = Coloured(torch.ones_like, dims=len(shape), scale=0.7)
    x = randn(5, 2, *shape)
    for operation in ("prior", "log_prior", "covariance", "precision", "norm2", "dof"):
        got, want = (
            getattr(s, operation)(x, Dense(5), *[Noise(3)] * (operation == "prior"))
            for s in (white, Euclidean(0.7))
        )
        assert torch.allclose(got, want, rtol=1e-12, atol=1e-12), operation
    assert white.noise_scale(x, Dense(5)) == pytest.approx(0.7)


def test_the_covariance_of_coloured_noise_depends_on_the_distance_alone() -> None:
    cov = matrix(Coloured(red), (4, 6)).reshape(4, 6, 4, 6)
    for shift in ((1, 0), (0, 1), (2, 5)):
        assert torch.allclose(cov.roll((*shift, *shift), (0, 1, 2, 3)), cov, rtol=0, atol=1e-12)
    assert torch.allclose(cov[0, 0], cov[0, 0].flip(0, 1).roll((1, 1), (0, 1)), rtol=0, atol=1e-12)
    assert float(cov[0, 0, 0, 1]) > float(cov[0, 0, 0, 3]) > 0


def test_each_mode_of_coloured_noise_has_the_power_that_was_asked_for() -> None:
    # a single real wave of wavenumber 2/8 along the second axis: its variance is amplified by that mode's power
    space = Coloured(red)
    wave = torch.cos(2 * math.pi * 2 / 8 * torch.arange(8.0).double()).expand(6, 8)[None]
    got = space.covariance(wave, Dense(1))
    assert torch.allclose(got, wave * red(torch.tensor(0.25).double()), rtol=0, atol=1e-12)


def test_a_scale_is_the_deviation_of_every_entry_on_every_grid() -> None:
    space = Coloured(red, scale=1.3)
    for shape in ((4, 6), (9, 5)):
        assert torch.allclose(matrix(space, shape).diagonal(), torch.tensor(1.69).double())


def test_channels_have_colours_of_their_own() -> None:
    space = Coloured(lambda k: torch.stack([torch.ones_like(k), red(k)]), scale=2.0)
    x = randn(3, 2, 4, 5)
    alone = [Coloured(s, scale=2.0) for s in (torch.ones_like, red)]
    got = space.precision(x, Dense(3))
    for i, one in enumerate(alone):
        assert torch.allclose(got[:, i], one.precision(x[:, i], Dense(3)), rtol=1e-12)
    want = sum(one.log_prior(x[:, i], Dense(3)) for i, one in enumerate(alone))
    assert torch.allclose(space.log_prior(x, Dense(3)), torch.as_tensor(want), rtol=1e-12)
    scale = Coloured(lambda k: torch.stack([k + 1, red(k)])).noise_scale(x, Dense(3))
    assert isinstance(scale, Tensor) and scale.shape == (2, 1, 1)


def test_modes_without_power_are_no_part_of_the_space() -> None:
    space = Coloured(lambda k: torch.where(k > 0, k, torch.inf) ** -2)  # a power law has no mean
    x = space.prior(randn(3, 4, 6), Dense(3), Noise(0))
    assert float(x.mean((1, 2)).abs().max()) < 1e-14
    assert space.dof(x, Dense(3)).tolist() == [23] * 3
    moved = space.project(x + 5.0, Dense(3))
    assert torch.allclose(moved, x, rtol=0, atol=1e-13)


def test_fitting_finds_the_spectrum_that_made_the_data() -> None:
    truth = Coloured(lambda k: torch.stack([red(k), 3 * torch.ones_like(k)]))
    like = torch.zeros(1500, 2, 8, 6, dtype=torch.float64)
    data = truth.prior(like, Dense(1500), Noise(0))
    found = Coloured.fit(data + 7.0)
    got, want = (torch.as_tensor(x.noise_scale(data, Dense(1500))) for x in (found, truth))
    assert torch.allclose(got, want, rtol=0.02)
    assert isinstance(found.spectrum, Tensor) and found.spectrum.shape == (2, 8, 6)
    # the shell 1/8 holds the wavenumbers 1/8, 1/6 and 0.208, whose power it averages; white noise stays white
    assert torch.allclose(found.spectrum[1], torch.full((8, 6), 3.0).double(), rtol=0.15)
    along = found.spectrum[0, :5, 0]
    assert bool((along.diff() < 0).all()) and float(
        along[0] / red(torch.tensor(0.0))
    ) == pytest.approx(1, abs=0.2)


def test_fitting_leaves_out_what_the_data_do_not_have() -> None:
    data = torch.sin(2 * math.pi * torch.arange(8) / 8 + randn(50, 1)).float()
    space = Coloured.fit(data, dims=1)
    assert space.dof(data, Dense(50)).tolist() == [2] * 50
    assert torch.allclose(space.project(data, Dense(50)), data, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Coloured(red, dims=4), "dims must be"),
        (lambda: Coloured(red, scale=-1.0), "scale must be positive"),
        (lambda: Coloured.fit(torch.zeros(1, 4, 4)), "B > 1"),
        (lambda: Coloured.fit(torch.zeros(4, 4)), "B > 1"),
        (lambda: use(Coloured(lambda k: k**-2)), "give 0 to a mode"),
        (lambda: use(Coloured(lambda k: 0.1 - k)), "not negative"),
        (lambda: use(Coloured(torch.zeros_like)), "not all zero"),
        (lambda: use(Coloured(torch.ones(5, 4))), "spectrum must be"),
        (lambda: use(Coloured(torch.arange(20.0).reshape(4, 5))), "same for k and -k"),
        (lambda: use(Coloured(torch.ones(3, 4, 5))), r"must end in the dimensions \(3, 4, 5\)"),
    ],
)
def test_what_is_no_spectrum_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def use(space: GaussianSpace) -> Tensor:
    return space.prior(torch.zeros(2, 2, 4, 5), Dense(2), Noise(0))


def test_an_axis_of_points_is_no_grid() -> None:
    for x, layout in (padded(points(features=(4,))), packed(points(features=(4,)))):
        with pytest.raises(ValueError, match="after . of its batch"):
            Coloured(red).prior(x, layout, Noise(0))
    x, layout = packed(points((3, 2), (4, 5)))
    assert Coloured(red).dof(x, layout).tolist() == [60, 40]


SPECTRUM = 1 / (1 + torch.arange(9.0)) ** 2


def test_the_covariance_on_a_sphere_depends_on_the_angle_alone() -> None:
    space = SphereField(SPHERE, SPECTRUM)
    grid = SPHERE.grid
    theta, phi = grid.colatitudes, 2 * math.pi * torch.arange(grid.nlon) / grid.nlon
    place = torch.stack(
        [
            theta.sin()[:, None] * phi.cos(),
            theta.sin()[:, None] * phi.sin(),
            theta.cos()[:, None].expand(-1, grid.nlon),
        ],
        -1,
    ).reshape(-1, 3)
    cosine, want = (place @ place.T).clamp(-1, 1), torch.zeros(())
    before, legendre = torch.zeros_like(cosine), torch.ones_like(cosine)
    for l in range(9):  # the addition theorem: sum_l (2l+1)/(4 pi) C_l P_l(cos angle)
        want = want + (2 * l + 1) / (4 * math.pi) * SPECTRUM[l].double() * legendre
        after = ((2 * l + 1) * cosine * legendre - l * before) / (l + 1)
        before, legendre = legendre, after
    got = matrix(space, grid.shape)
    assert torch.allclose(got, want, rtol=0, atol=1e-6)  # single precision of SPECTRUM's sum
    scale = space.noise_scale(torch.zeros(1, *grid.shape), Dense(1))
    assert scale == pytest.approx(float(got[0, 0]) ** 0.5, rel=1e-9)


def test_projection_on_a_sphere_cuts_off_higher_degrees() -> None:
    fine = Harmonics(SphereGrid.gauss(24, 40), 16)
    coarse = SphereField(Harmonics(fine.grid, 5), SPECTRUM[:6])
    a = randn(3, 17**2)
    got = fine.analysis(coarse.project(fine.synthesis(a), Dense(3)))
    assert torch.allclose(got, a * (fine.degrees <= 5), rtol=0, atol=1e-12)


def test_a_draw_is_the_same_field_on_every_grid() -> None:
    shapes, values = [SphereGrid.gauss(9, 20), SphereGrid.regular(17, 40, poles=True)], []
    for grid in shapes:
        space = SphereField(Harmonics(grid, 8), SPECTRUM)
        x = space.prior(torch.zeros(2, *grid.shape, dtype=torch.float64), Dense(2), Noise([1, 2]))
        values.append(space.harmonics.analysis(x))
    assert torch.allclose(values[0], values[1], rtol=0, atol=1e-12)


def test_fitting_finds_the_angular_spectrum_that_made_the_data() -> None:
    spectra = torch.stack([SPECTRUM, 0.1 * torch.ones(9)])
    truth = SphereField(SPHERE, spectra)
    like = torch.zeros(600, 2, *SPHERE.grid.shape)
    climate = 5 + randn(2, *SPHERE.grid.shape)
    data = truth.prior(like, Dense(600), Noise(0)) + climate
    found = SphereField.fit(data, SPHERE).spectrum
    # each C_l is a chi square of (2l+1) * 599 degrees of freedom
    error = (found / spectra - 1) * ((2 * torch.arange(9) + 1) * 599 / 2).sqrt()
    assert float(error.abs().max()) < 4.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SphereField(SPHERE, torch.ones(8)), r"\(9,\)"),
        (lambda: SphereField(SPHERE, torch.zeros(9)), "positive"),
        (lambda: SphereField.fit(torch.ones(1, 17, 20), SPHERE), "B > 1"),
        (lambda: use(SphereField(SPHERE, torch.ones(9))), r"must end in the dimensions \(17, 20\)"),
    ],
)
def test_what_is_no_angular_spectrum_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
