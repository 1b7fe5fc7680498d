"""Points lie on their surfaces, and as densely everywhere.

For points uniform by area on a closed surface with outward normals n, Gauss's theorem says that the means of
``n_x x``, ``n_y y`` and ``n_z z`` are all volume over area.
"""

from collections.abc import Callable

import numpy as np
import pytest

from sciffusion.domains.shapes import Superquadric, primitive, primitives, superquadrics
from sciffusion.domains.shapes.data import SUPERQUADRICS

N = 20_000
SIZE = np.array([0.6, 1.3, 0.9])
Implicit = Callable[[np.ndarray], np.ndarray]


def radius(p: np.ndarray) -> np.ndarray:
    return np.hypot(p[:, 0], p[:, 1])


IMPLICIT: dict[str, Implicit] = {
    "box": lambda p: (np.abs(p) - SIZE).max(1),
    "cone": lambda p: np.maximum(-p[:, 2] - 0.9, radius(p) - 0.6 * (0.9 - p[:, 2]) / 1.8),
    "cylinder": lambda p: np.maximum(radius(p) - 0.6, np.abs(p[:, 2]) - 0.9),
    "sphere": lambda p: np.linalg.norm(p, axis=1) - 0.6,
    "torus": lambda p: np.hypot(radius(p) - 0.6, p[:, 2]) - 0.6 * 0.35,
}


def ratios(surface: Implicit, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The three means that should be volume over area, and the standard errors of their differences."""
    steps = 1e-6 * np.eye(3)
    normal = np.stack([surface(p + s) - surface(p - s) for s in steps], 1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    each = normal * p
    return each.mean(0), (each - np.roll(each, 1, axis=1)).std(0) / np.sqrt(len(p))


def assert_uniform(surface: Implicit, p: np.ndarray) -> None:
    means, errors = ratios(surface, p)
    assert (np.abs(means - np.roll(means, 1)) < 4 * errors + 1e-6).all(), (means, errors)


@pytest.mark.parametrize("kind", SUPERQUADRICS)
def test_superquadrics_satisfy_their_equation_and_are_uniform_by_area(kind: str) -> None:
    shape = Superquadric((0.6, 1.3, 0.9), SUPERQUADRICS[kind])
    p = shape.sample(N, np.random.default_rng(0))
    np.testing.assert_allclose(shape.value(p), 1, rtol=1e-9)
    assert_uniform(shape.value, p)


def test_the_law_of_gauss_tells_points_that_are_not_uniform() -> None:
    shape = Superquadric((0.6, 1.3, 0.9))
    u = np.random.default_rng(0).normal(size=(N, 3))
    p = u / np.linalg.norm(u, axis=1, keepdims=True) * shape.axes
    with pytest.raises(AssertionError):
        assert_uniform(shape.value, p)


def test_the_area_of_a_spheroid_is_that_of_the_textbook() -> None:
    a, c = 1.2, 0.7
    p = Superquadric((a, a, c)).sample(N, np.random.default_rng(1))
    means, errors = ratios(Superquadric((a, a, c)).value, p)
    e = np.sqrt(1 - c**2 / a**2)
    area = 2 * np.pi * a**2 * (1 + (1 - e**2) / e * np.arctanh(e))
    assert means.mean() == pytest.approx(4 / 3 * np.pi * a**2 * c / area, abs=4 * errors.max())


@pytest.mark.parametrize("kind", IMPLICIT)
def test_primitives_lie_on_their_surfaces_and_are_uniform_by_area(kind: str) -> None:
    p = primitive(kind, N, SIZE, np.random.default_rng(0))
    np.testing.assert_allclose(IMPLICIT[kind](p), 0, atol=1e-12)
    assert_uniform(IMPLICIT[kind], p)


@pytest.mark.parametrize("make", [superquadrics, primitives])
def test_shape_i_depends_on_the_seed_and_on_i_alone(make: Callable) -> None:
    few, many = make(3, seed=5, points=7), make(6, seed=5, points=7)
    assert (few.points == many[:3].points).all()
    assert not (make(3, seed=6, points=7).points == few.points).any()
    np.testing.assert_allclose([x.mean(0).abs().max() for x in few.parts()], 0, atol=1e-6)


def test_wrong_surfaces_are_told() -> None:
    with pytest.raises(ValueError, match="axes must be three positive lengths"):
        Superquadric((1.0, -1.0, 1.0))
    with pytest.raises(ValueError, match="exponents must be two numbers"):
        Superquadric(exponents=(3.0, 1.0))
    with pytest.raises(ValueError, match="kind must be one of box"):
        primitive("cube", 3, SIZE, np.random.default_rng(0))
    with pytest.raises(ValueError, match="n and points must be at least 1"):
        superquadrics(0)
