"""Distances of shapes and of their sets, on sets whose answers are known."""

from itertools import permutations

import numpy as np
import pytest
import torch

from sciffusion.domains.shapes import Shapes, evaluate, superquadrics
from sciffusion.domains.shapes.metrics import chamfer, compare, distances, earth_mover


def cloud(n: int, seed: int) -> torch.Tensor:
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))


def blobs(n: int, seed: int, spread: float = 1.0) -> Shapes:
    """Shapes of one law: a common set of points, scaled."""
    scale = 1 + spread * torch.rand(n, generator=torch.Generator().manual_seed(seed))
    return Shapes.of([s * cloud(6, 99) for s in scale])


def figures(real: Shapes, made: Shapes, kind: str = "chamfer") -> dict[str, float]:
    d = distances(real)[kind], distances(made)[kind], distances(real, made)[kind]
    return {k: v.value for k, v in compare(*d).items()}


def test_chamfer_is_that_of_all_pairs_and_zero_for_permuted_points() -> None:
    x, y = cloud(5, 0), cloud(7, 1)
    pairs = ((x[:, None] - y[None]) ** 2).sum(-1).double()
    assert chamfer(x, y) == pytest.approx(
        float(pairs.min(1)[0].mean() + pairs.min(0)[0].mean()), rel=1e-6
    )
    assert chamfer(x, x.flip(0)) == 0


def test_the_earth_movers_distance_is_the_best_of_all_permutations() -> None:
    x, y = cloud(5, 2), cloud(5, 3)
    best = min(float((x - y[list(p)]).norm(dim=1).mean()) for p in permutations(range(5)))
    assert earth_mover(x, y) == pytest.approx(best, rel=1e-5)


def test_moving_a_set_costs_the_way() -> None:
    x, way = cloud(6, 4), torch.tensor([30.0, 40.0, 0.0])
    assert earth_mover(x, (x + way).flip(0)) == pytest.approx(50, rel=1e-6)
    with pytest.raises(ValueError, match="sets of equal size, got 6 and 5"):
        earth_mover(x, x[:5])


@pytest.mark.parametrize("kind", ["chamfer", "emd"])
def test_copies_far_sets_and_collapsed_sets_have_the_values_of_the_definition(kind: str) -> None:
    real = blobs(8, 0)
    assert figures(real, real[::-1], kind) == {"1nna": 0, "coverage": 1, "mmd": 0}
    far = Shapes(real.points * 100, real.sizes)
    assert figures(real, far, kind)["1nna"] == 1
    collapsed = real[[3] * 8]
    found = figures(real, collapsed, kind)
    assert found["coverage"] == 1 / 8
    # a real one's nearest is collapsed only for the neighbours of the third; all copies have each other
    assert found["1nna"] > 0.5
    mean = distances(real, real[[3]])[kind].mean()
    assert found["mmd"] == pytest.approx(mean)


def test_a_table_of_distances_has_the_figures_counted_by_hand() -> None:
    between = np.array([[1.0, 1, 9], [2, 3, 5], [3, 4, 8]])  # rows: real ones
    real = np.array([[0.0, 4, 2], [4, 0, 6], [2, 6, 0]])
    made = np.array([[0.0, 0.5, 7], [0.5, 0, 6], [7, 6, 0]])
    found = {k: v.value for k, v in compare(real, made, between).items()}
    # nearest: real to made, made, real; made to made, made, real
    assert found == {"1nna": 3 / 6, "coverage": 2 / 3, "mmd": 2}


def test_sets_of_one_law_are_told_apart_half_of_the_time() -> None:
    found = figures(blobs(60, 1), blobs(60, 2))
    assert found["1nna"] == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(120))


def test_intervals_hold_the_value_and_matrices_must_fit() -> None:
    real, made = blobs(10, 1), blobs(10, 2)
    d = distances(real)["emd"], distances(made)["emd"], distances(real, made)["emd"]
    for one in compare(*d).values():
        assert one.low <= one.value <= one.high
    with pytest.raises(ValueError, match="take as many shapes of each kind"):
        compare(d[0], d[1][:5, :5], d[2])


def test_a_report_has_the_real_datas_value_beside_each_figure() -> None:
    real, made = superquadrics(12, seed=1, points=24), superquadrics(6, seed=2, points=30)
    report = evaluate(made, real)
    assert set(report.metrics) == set(report.ceiling)
    assert report.about["points"] == 24
    shrunk = evaluate(Shapes(made.points / 50, made.sizes), real)
    assert shrunk["1nna_emd"].value == 1 > report["1nna_emd"].value
    # mean over reference shapes of the distance of the nearest made one: that of the real halves is lower
    assert shrunk["mmd_chamfer"].value > report.ceiling["mmd_chamfer"].value
    assert set(evaluate(Shapes(made.points, made.sizes)).metrics) == {"radius", "spacing"}


def test_a_report_does_not_depend_on_the_order_of_points() -> None:
    real, made = superquadrics(8, seed=1, points=16), superquadrics(4, seed=2, points=16)
    turned = Shapes.of([x.flip(0) for x in made.parts()], made.labels)
    a, b = evaluate(made, real), evaluate(turned, real)
    for name, metric in a.metrics.items():
        assert metric.value == pytest.approx(b[name].value, rel=1e-6, abs=1e-6)


def test_radius_and_spacing_are_those_of_a_square() -> None:
    square = Shapes.of([[[0, 0, 0], [2, 0, 0], [2, 2, 0], [0, 2, 0]]])
    report = square.report()
    assert report["radius"].value == pytest.approx(2**0.5)
    assert report["spacing"].value == pytest.approx(2)


def test_what_cannot_be_compared_is_told() -> None:
    real = superquadrics(4, points=8)
    with pytest.raises(ValueError, match="at least 2 shapes and 4 real ones, got 1 and 4"):
        evaluate(real[:1], real)
    with pytest.raises(ValueError, match="points must lie between 1 and 8"):
        evaluate(real, real, points=9)
    with pytest.raises(ValueError, match="one number of points"):
        distances(superquadrics(2, points=8), superquadrics(2, points=9))
