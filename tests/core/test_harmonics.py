"""The spherical harmonic transform: its basis, its quadratures, and fields that come back as they were."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sciffusion.harmonics import Harmonics, SphereGrid
from tests.core.cases import randn

LMAX = 8
GRIDS = {
    "gauss": SphereGrid.gauss(LMAX + 1, 2 * LMAX + 1),
    "gauss, wide": SphereGrid.gauss(12, 24),
    "poles": SphereGrid.regular(2 * LMAX + 1, 20, poles=True),
    "poles, even": SphereGrid.regular(2 * LMAX + 2, 17, poles=True),
    "no poles": SphereGrid.regular(2 * LMAX + 1, 18, poles=False),
    "no poles, even": SphereGrid.regular(2 * LMAX + 2, 17, poles=False),
}
EACH = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
SIZE = (LMAX + 1) ** 2


@EACH
def test_a_band_limited_field_comes_back_as_it_was(grid: SphereGrid) -> None:
    harmonics, a = Harmonics(grid, LMAX), randn(2, 3, SIZE)
    x = harmonics.synthesis(a)
    assert x.shape == (2, 3, *grid.shape) and x.dtype == torch.float64
    assert torch.allclose(harmonics.analysis(x), a, rtol=0, atol=1e-13)


@EACH
def test_the_quadrature_is_exact_up_to_its_degree(grid: SphereGrid) -> None:
    x = torch.cos(grid.colatitudes)
    for p in range(grid.degree + 1):
        want = 2 / (p + 1) if p % 2 == 0 else 0.0
        assert float((grid.weights * x**p).sum()) == pytest.approx(want, abs=1e-14)
    assert float(grid.area.sum()) * grid.nlon == pytest.approx(4 * math.pi, rel=1e-14)
    assert bool((grid.colatitudes.diff() > 0).all())


@EACH
def test_the_basis_is_that_of_the_textbooks(grid: SphereGrid) -> None:
    special = pytest.importorskip("scipy.special")
    if not hasattr(special, "sph_harm_y"):
        pytest.skip("this SciPy is older than sph_harm_y")
    basis = Harmonics(grid, LMAX).synthesis(torch.eye(SIZE)).numpy()
    theta = grid.colatitudes.numpy()[:, None]
    phi = 2 * np.pi * np.arange(grid.nlon) / grid.nlon
    for l in range(LMAX + 1):
        for m in range(-l, l + 1):
            y = special.sph_harm_y(l, abs(m), theta, phi)
            sign = math.sqrt(2) * (-1) ** m  # SciPy's phase is that of Condon and Shortley
            want = y.real if m == 0 else sign * (y.real if m > 0 else y.imag)
            assert np.abs(basis[l * l + l + m] - want).max() < 1e-13, (l, m)


def test_a_high_degree_agrees_with_ducc() -> None:
    sht = pytest.importorskip("ducc0").sht
    lmax = 90
    grid = SphereGrid.gauss(lmax + 1, 2 * lmax + 2)
    harmonics, a = Harmonics(grid, lmax), randn((lmax + 1) ** 2)
    packed = []  # a(l, m) for m = 0, 1 ...: complex, of which the real harmonics are the parts
    for m in range(lmax + 1):
        l = torch.arange(m, lmax + 1)
        cosine, sine = a[l * l + l + m], a[l * l + l - m]
        packed.append(cosine + 0j if m == 0 else (-1) ** m * (cosine - 1j * sine) / math.sqrt(2))
    alm = torch.cat(packed).numpy()[None]
    want = sht.synthesis_2d(
        alm=alm, spin=0, lmax=lmax, geometry="GL", ntheta=lmax + 1, nphi=2 * lmax + 2
    )
    assert np.abs(harmonics.synthesis(a).numpy() - want[0]).max() < 1e-11


@EACH
def test_the_adjoint_is_the_transpose_and_the_gram_matrix_its_own(grid: SphereGrid) -> None:
    harmonics = Harmonics(grid, LMAX)
    matrix = harmonics.synthesis(torch.eye(SIZE)).reshape(SIZE, -1)
    x = randn(*grid.shape)
    assert torch.allclose(harmonics.adjoint(x), matrix @ x.flatten(), rtol=0, atol=1e-12)
    want = float(torch.linalg.slogdet(matrix @ matrix.T).logabsdet)
    assert harmonics.log_det_gram() == pytest.approx(want, abs=1e-10)


def test_a_rotation_about_the_axis_turns_cosines_into_sines_and_keeps_the_power() -> None:
    harmonics = Harmonics(SphereGrid.gauss(9, 18), 8)
    a = randn(SIZE)
    b = harmonics.analysis(harmonics.synthesis(a).roll(5, -1))
    angle = 2 * math.pi * 5 / 18
    for l in range(9):
        for m in range(1, l + 1):
            p, q = l * l + l + m, l * l + l - m
            turn = math.cos(m * angle), math.sin(m * angle)
            assert float(b[p]) == pytest.approx(float(a[p] * turn[0] - a[q] * turn[1]), abs=1e-13)
            assert float(b[q]) == pytest.approx(float(a[p] * turn[1] + a[q] * turn[0]), abs=1e-13)


def test_a_high_degree_loses_no_digits() -> None:
    harmonics = Harmonics(SphereGrid.gauss(161, 322), 160)
    a = randn(161**2)
    assert float((harmonics.analysis(harmonics.synthesis(a)) - a).abs().max()) < 1e-11


def test_grids_that_cannot_carry_the_degree_are_refused() -> None:
    for grid in (SphereGrid.gauss(8, 17), SphereGrid.gauss(9, 16), SphereGrid.gauss(9, 15)):
        with pytest.raises(ValueError, match=r"resolves lmax = 7, not 8"):
            Harmonics(grid, 8)
    with pytest.raises(ValueError, match="lower lmax or refine"):
        Harmonics(SphereGrid.regular(16, 17, poles=True), 8)
    with pytest.raises(ValueError, match="lmax must lie"):
        Harmonics(SphereGrid.gauss(9, 17), -1)
    with pytest.raises(ValueError, match="at least 2"):
        SphereGrid.regular(1, 4, poles=False)


@EACH
def test_the_gradient_is_that_of_the_field_poles_included(grid: SphereGrid) -> None:
    harmonics = Harmonics(grid, LMAX)
    theta = grid.colatitudes[:, None]
    phi = 2 * math.pi * torch.arange(grid.nlon, dtype=torch.float64) / grid.nlon
    # x = sin(theta) cos(phi), z = cos(theta), and their product
    x, z = torch.sin(theta) * torch.cos(phi), torch.cos(theta) + 0 * phi
    x_east, x_north = -torch.sin(phi) + 0 * theta, -torch.cos(theta) * torch.cos(phi)
    z_north = torch.sin(theta) + 0 * phi
    east, north = harmonics.gradient(harmonics.analysis(torch.stack([x, z, x * z])))
    assert torch.allclose(east, torch.stack([x_east, 0 * z, x_east * z]), rtol=0, atol=1e-12)
    want = torch.stack([x_north, z_north, x_north * z + x * z_north])
    assert torch.allclose(north, want, rtol=0, atol=1e-12)


@EACH
def test_the_gradients_of_harmonics_are_orthogonal_with_norm_l_l_plus_1(grid: SphereGrid) -> None:
    harmonics = Harmonics(grid, LMAX)
    slopes = torch.stack(harmonics.gradient(torch.eye(SIZE)))
    gram = torch.einsum("daij,dbij,i->ab", slopes, slopes, grid.area[:, 0])  # Green's identity
    l = harmonics.degrees.double()
    assert torch.allclose(gram, torch.diag(l * (l + 1)), rtol=0, atol=1e-11)


def test_a_harmonics_works_in_the_precision_that_is_asked_for() -> None:
    grid, a = SphereGrid.gauss(12, 24), randn(2, SIZE)
    exact, single = Harmonics(grid, LMAX), Harmonics(grid, LMAX, torch.float32)
    x = single.synthesis(a)
    assert x.dtype == single.analysis(x).dtype == torch.float32
    assert torch.allclose(x.double(), exact.synthesis(a), rtol=0, atol=1e-5)
    for ours, theirs in zip(single.gradient(a), exact.gradient(a), strict=True):
        assert ours.dtype == torch.float32
        assert torch.allclose(ours.double(), theirs, rtol=0, atol=1e-4)
    assert torch.allclose(single.analysis(x).double(), a, rtol=0, atol=1e-5)
