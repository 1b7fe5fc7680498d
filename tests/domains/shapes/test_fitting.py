"""Fitting surfaces: points on one are found to be, points beside it to be as far off as they are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from sciffusion.domains.shapes import Shapes, evaluate, primitive, primitives, superquadrics
from sciffusion.domains.shapes.data import SUPERQUADRICS
from sciffusion.domains.shapes.fitting import Surface, fit, solids, superquadric_surfaces

SUPER = superquadric_surfaces(SUPERQUADRICS)


@pytest.mark.parametrize(
    ("data", "surfaces"),
    [
        (superquadrics(20, seed=3, points=40), SUPER),
        (primitives(20, seed=3, points=60), solids()),
    ],
)
def test_points_on_a_surface_are_on_it_and_of_its_class(
    data: Shapes, surfaces: Mapping[str, Surface]
) -> None:
    found = fit(data, surfaces)
    assert found.label.tolist() == data.labels["label"].tolist()
    assert found.distance.max() < 1e-4


def test_points_beside_a_sphere_are_as_far_off_as_they_are() -> None:
    rng = np.random.default_rng(0)
    rays = rng.normal(size=(400, 3))
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    signs = rng.choice([-1.0, 1.0], (400, 1))
    for off in (0.02, 0.1):
        found = fit(Shapes.of([2 * rays * (1 + off * signs) + 0.5]), SUPER)
        assert found.label.tolist() == ["ellipsoid"]
        assert found.distance[0] == pytest.approx(2 * off, rel=0.05)
        assert found.size[0] == pytest.approx(2, rel=0.02)


def test_distances_from_primitives_are_the_true_ones() -> None:
    """Against the nearest of very many points of the surface."""
    rng = np.random.default_rng(1)
    size, points = np.array([0.9, 0.6, 1.2]), rng.normal(size=(30, 3))
    for kind, off in solids().items():
        surface = primitive(kind, 100_000, size, rng)
        near = np.array([np.linalg.norm(surface - p, axis=1).min() for p in points])
        np.testing.assert_allclose(off(points, size), near, atol=0.03)
        assert off(surface, size).max() < 1e-9


def test_reports_tell_what_is_not_of_its_class_and_what_is_noisy() -> None:
    data = superquadrics(10, seed=1, points=40)
    worse = Shapes(data.points + 0.05 * torch.randn(data.points.shape), data.sizes, data.labels)
    swapped = data.labelled(label=np.roll(data.labels["label"], 1))
    good, noisy, wrong = (evaluate(x).metrics for x in (data, worse, swapped))
    assert good["as_asked"].value == 1
    assert wrong["as_asked"].value == 0
    assert good["off_surface"].value < 1e-4 < 0.01 < noisy["off_surface"].value < 0.06
    other = Shapes(data.points, data.sizes, {"label": np.array(["chair"] * 10)})
    assert "as_asked" not in evaluate(other).metrics


def test_too_few_points_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 7 points, got 6"):
        fit(superquadrics(2, points=6), SUPER)
