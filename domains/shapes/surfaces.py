r"""Points drawn uniformly by area from surfaces that have an equation.

A superquadric with semi-axes :math:`a, b, c` and exponents :math:`e_1, e_2` is the surface :math:`f = 1` of

.. math:: f(x, y, z) = \left(|x/a|^{2/e_2} + |y/b|^{2/e_2}\right)^{e_2/e_1} + |z/c|^{2/e_1}

(Barr 1981): an ellipsoid for :math:`e_1 = e_2 = 1`, nearly a box for small ones, an octahedron for 2, and convex in
between.

A ray in a uniform direction u meets the surface with a = b = c = 1 at :math:`r = f(u)^{-e_1/2}`, where an element of
solid angle sees the area :math:`r^3/h`, h being the distance of the tangent plane from the centre. By Euler's theorem
:math:`h = (2/e_1)/|\nabla f|`. Stretching by the semi-axes multiplies an area with normal n by
:math:`abc\,|(n_x/a, n_y/b, n_z/c)|`. Points are kept with a probability proportional to the product (rejection), so
that what is kept is exactly uniform by area. The bound: a convex surface inside the cube that holds the octahedron has
:math:`r \le \sqrt 3` and :math:`h \ge 1/\sqrt 3`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

__all__ = ["PRIMITIVES", "TUBE", "Superquadric", "primitive"]

Floats = NDArray[np.floating[Any]]


@final
@dataclass(frozen=True)
class Superquadric:
    """A superquadric about the origin; see the module.

    Raises ``ValueError`` unless all semi-axes are positive, and both exponents lie above 0.05 and at most at 2 (beyond,
    it is not convex).
    """

    axes: tuple[float, float, float] = (1.0, 1.0, 1.0)
    exponents: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        if len(self.axes) != 3 or min(self.axes) <= 0:
            raise ValueError(f"axes must be three positive lengths, got {self.axes}")
        if len(self.exponents) != 2 or not all(0.05 <= e <= 2 for e in self.exponents):
            raise ValueError(f"exponents must be two numbers from 0.05 to 2, got {self.exponents}")

    def value(self, points: Floats) -> Floats:
        """f at points (n, 3), (n,): 1 on the surface, less inside."""
        (e1, e2), p = self.exponents, np.abs(np.asarray(points, dtype=float) / self.axes)
        flat: Floats = (p[:, :2] ** (2 / e2)).sum(1)
        return np.asarray(flat ** (e2 / e1) + p[:, 2] ** (2 / e1))

    def sample(self, n: int, rng: np.random.Generator) -> Floats:
        """``n`` points uniform by area, (n, 3)."""
        (e1, e2), axes = self.exponents, np.array(self.axes)
        unit = Superquadric((1.0, 1.0, 1.0), self.exponents)
        most = 9 / axes.min()
        kept: list[Floats] = []
        while sum(map(len, kept)) < n:
            u = rng.normal(size=(4 * n + 64, 3))
            u /= np.linalg.norm(u, axis=1, keepdims=True)
            p = u * (unit.value(u) ** (-e1 / 2))[:, None]
            size = np.abs(p)
            flat = (size[:, :2] ** (2 / e2)).sum(1, keepdims=True)
            gradient = np.sign(p) * np.concatenate(
                [
                    2 / e1 * flat ** (e2 / e1 - 1) * size[:, :2] ** (2 / e2 - 1),
                    2 / e1 * size[:, 2:] ** (2 / e1 - 1),
                ],
                axis=1,
            )
            # r^3 / h times |A^-1 n|, in which the length of the gradient cancels
            weight = (p**2).sum(1) ** 1.5 * np.linalg.norm(gradient / axes, axis=1) * e1 / 2
            kept.append((p * axes)[rng.random(len(p)) * most < weight])
        return np.concatenate(kept)[:n]


def _box(n: int, rng: np.random.Generator, size: Floats) -> Floats:
    a, b, c = size
    areas = np.array([b * c, a * c, a * b])
    across = rng.choice(3, n, p=areas / areas.sum())
    points = rng.uniform(-1, 1, (n, 3))
    points[np.arange(n), across] = rng.choice([-1.0, 1.0], n)
    return np.asarray(points * size)


def _sphere(n: int, rng: np.random.Generator, size: Floats) -> Floats:
    u = rng.normal(size=(n, 3))
    return np.asarray(size[0] * u / np.linalg.norm(u, axis=1, keepdims=True))


def _cylinder(n: int, rng: np.random.Generator, size: Floats) -> Floats:
    r, _, h = size
    angle, cap = rng.uniform(0, 2 * np.pi, n), rng.random(n) < r / (r + 2 * h)
    radius = np.where(cap, r * np.sqrt(rng.random(n)), r)
    z = np.where(cap, h * rng.choice([-1.0, 1.0], n), rng.uniform(-h, h, n))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], 1)


def _cone(n: int, rng: np.random.Generator, size: Floats) -> Floats:
    r, _, h = size
    slant = np.hypot(r, 2 * h)
    angle, base = rng.uniform(0, 2 * np.pi, n), rng.random(n) < r / (r + slant)
    share = np.sqrt(rng.random(n))  # of the radius, in the base as on the side
    z = np.where(base, -h, h - 2 * h * share)
    return np.stack([r * share * np.cos(angle), r * share * np.sin(angle), z], 1)


def _torus(n: int, rng: np.random.Generator, size: Floats) -> Floats:
    big, small = size[0], size[0] * TUBE
    kept: list[Floats] = []
    while sum(map(len, kept)) < n:  # the area grows with the distance from the axis
        angle = rng.uniform(0, 2 * np.pi, 2 * n + 64)
        kept.append(angle[rng.random(len(angle)) * (big + small) < big + small * np.cos(angle)])
    tube, turn = np.concatenate(kept)[:n], rng.uniform(0, 2 * np.pi, n)
    radius = big + small * np.cos(tube)
    return np.stack([radius * np.cos(turn), radius * np.sin(turn), small * np.sin(tube)], 1)


TUBE = 0.35
"""The radius of a torus's tube, over that of its ring."""

PRIMITIVES = {
    "box": _box,
    "cone": _cone,
    "cylinder": _cylinder,
    "sphere": _sphere,
    "torus": _torus,
}


def primitive(kind: str, n: int, size: Floats, rng: np.random.Generator) -> Floats:
    """``n`` points (n, 3) uniform by area on a closed primitive about the origin.

    ``size`` (3,): the half edges of a box; the radius of a sphere, or of a torus's ring (its tube has 0.35 of it); of a
    cone and a cylinder radius first, half height last. Raises ``ValueError`` for another kind or sizes that are not
    positive.
    """
    size = np.asarray(size, dtype=float)
    if kind not in PRIMITIVES:
        raise ValueError(f"kind must be one of {', '.join(PRIMITIVES)}, got {kind!r}")
    if size.shape != (3,) or size.min() <= 0:
        raise ValueError(f"size must be three positive lengths, got {size}")
    return PRIMITIVES[kind](n, rng, size)
