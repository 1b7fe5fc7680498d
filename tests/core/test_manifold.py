"""Tori, spheres and rotations: geodesics, their inverses, uniform priors, and what rounding does at both ends."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sciffusion.layout import Dense, Layout
from sciffusion.noise import Noise
from sciffusion.space import SO3, Manifold, Sphere, Torus
from sciffusion.testing import check_space
from tests.core.cases import default_dtype, in_every_layout, name, randn

PERIODS = torch.tensor([1.0, 2.0, 0.5])
CASES: list[tuple[Manifold, tuple[int, ...]]] = [
    (Torus(), (3,)),
    (Torus(2 * math.pi), ()),
    (Torus(PERIODS), (3,)),
    (Sphere(), (2,)),
    (Sphere(), (3,)),
    (Sphere(), (7,)),
    (SO3(), (3, 3)),
]
DTYPES = [torch.float32, torch.float64]
SPHERES = [torch.Size((d,)) for d in (2, 3, 7)]


def uniform(
    space: Manifold,
    shape: tuple[int, ...],
    n: int = 500,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    return space.prior(torch.zeros(n, *shape, dtype=dtype), Dense(n), Noise(seed))


def off(space: Manifold, x: Tensor, y: Tensor) -> float:
    return float(space.dist2(x, y).max().sqrt())


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
@pytest.mark.parametrize(("space", "shape"), CASES, ids=name)
def test_manifolds_keep_their_contract_in_every_layout(
    space: Manifold, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    with default_dtype(dtype):
        for field, layout, _ in in_every_layout(shape, dtype):
            check_space(space, field, layout)


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
@pytest.mark.parametrize("gap", [0.0, 1e-30, 1e-12, 1e-8, 1e-7, 1e-5, 1e-3])
@pytest.mark.parametrize(("space", "shape"), CASES, ids=name)
def test_exp_undoes_log_beside_the_point_and_beside_what_is_farthest(
    space: Manifold, shape: tuple[int, ...], gap: float, dtype: torch.dtype
) -> None:
    tol = 50 * torch.finfo(dtype).eps
    x = uniform(space, shape, dtype=dtype)
    step = space.to_tangent(x, randn(*x.shape, seed=1, dtype=dtype))
    length = space.length2(step).sqrt()
    for far in (0.0, 1.0):
        reach = (
            math.pi
            if not isinstance(space, Torus)
            else 0.5 * float(torch.as_tensor(space.period).min())
        )
        size = (far * reach + (-gap if far else gap)) / length
        v = step * size.reshape(size.shape + (1,) * space.point_dims)
        y = space.exp(x, v)
        log = space.log(x, y)
        assert bool(log.isfinite().all())
        assert off(space, space.exp(x, log), y) < tol
        longest = reach if far else gap
        assert float(space.length2(log).max().sqrt()) < longest + 4 * tol
        assert float((space.to_tangent(x, log) - log).abs().max()) < tol


@pytest.mark.parametrize("dtype", DTYPES, ids=name)
@pytest.mark.parametrize(("space", "shape"), CASES, ids=name)
def test_the_distance_of_a_point_from_itself_is_exactly_zero_with_a_gradient(
    space: Manifold, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    x = uniform(space, shape, dtype=dtype)
    for y in (x, x * (1 + 4 * torch.finfo(dtype).eps)):  # slightly more than a unit vector too
        moving = x.clone().requires_grad_()
        d = space.dist2(moving, y)
        assert float(d.detach().max()) <= (0 if y is x else (40 * torch.finfo(dtype).eps) ** 2)
        (gradient,) = torch.autograd.grad(d.sum(), moving)
        assert bool(gradient.isfinite().all())
        assert float(gradient.abs().max()) < 1e-5
    v = torch.zeros_like(x, requires_grad=True)
    (gradient,) = torch.autograd.grad(space.exp(x, v).sum(), v)
    assert bool(gradient.isfinite().all()) and float(gradient.abs().max()) > 0


@pytest.mark.parametrize(("space", "shape"), CASES, ids=name)
def test_derivatives_are_those_of_finite_differences(
    space: Manifold, shape: tuple[int, ...]
) -> None:
    x, y = uniform(space, shape, 8), uniform(space, shape, 8, seed=1)
    v = space.to_tangent(x, randn(*x.shape, seed=2))
    for f in (
        lambda u: space.exp(x, space.to_tangent(x, u)),
        lambda u: space.log(x, space.exp(y, space.to_tangent(y, 0.1 * u))),
        lambda u: space.log(x, space.exp(x, space.to_tangent(x, 0 * u + 1e-9 * v))),
    ):
        assert torch.autograd.gradcheck(f, v.clone().requires_grad_(), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(("space", "shape"), CASES, ids=name)
def test_a_geodesic_is_its_own_shortest_way_at_constant_speed(
    space: Manifold, shape: tuple[int, ...]
) -> None:
    x, y = uniform(space, shape), uniform(space, shape, seed=1)
    v = space.log(x, y)
    whole = space.dist2(x, y).sqrt()
    for part in (0.1, 0.5, 0.9):
        z = space.exp(x, part * v)
        assert torch.allclose(space.dist2(x, z).sqrt(), part * whole, atol=1e-12)
        assert torch.allclose(space.dist2(z, y).sqrt(), (1 - part) * whole, atol=1e-12)
        # the velocity is carried along: from z the same geodesic goes on to y
        assert torch.allclose(space.transport(x, z, v), space.log(z, y) / (1 - part), atol=1e-7)
    assert torch.allclose(space.dist2(y, x), whole**2, atol=1e-12)


@pytest.mark.parametrize(("space", "shape"), CASES, ids=name)
def test_transport_keeps_inner_products_and_undoes_itself(
    space: Manifold, shape: tuple[int, ...]
) -> None:
    x, y = uniform(space, shape), uniform(space, shape, seed=1)
    a, b = (space.to_tangent(x, randn(*x.shape, seed=s)) for s in (2, 3))
    c, d = space.transport(x, y, a), space.transport(x, y, b)
    assert torch.allclose(space.to_tangent(y, c), c, atol=1e-10)
    for moved, kept in ((c, a), (c + d, a + b)):
        assert torch.allclose(space.length2(moved), space.length2(kept), rtol=1e-8)
    assert torch.allclose(space.transport(y, x, c), a, atol=1e-7)


def test_transport_on_the_sphere_is_the_limit_of_small_projections() -> None:
    space = Sphere()
    x, y = uniform(space, (4,), 20), uniform(space, (4,), 20, seed=1)
    v = w = space.to_tangent(x, randn(20, 4, seed=2))
    log, n = space.log(x, y), 4000
    for i in range(n):
        w = space.to_tangent(space.exp(x, (i + 1) / n * log), w)
    assert torch.allclose(w, space.transport(x, y, v), atol=2e-3)


def test_transport_on_rotations_is_the_limit_of_half_of_both_translations() -> None:
    """Schild's ladder: the diagonals of a small geodesic parallelogram halve each other."""
    space = SO3()
    x, y = uniform(space, (3, 3), 20), uniform(space, (3, 3), 20, seed=1)
    v = space.to_tangent(x, randn(20, 3, 3, seed=2))
    log, n, small = space.log(x, y), 200, 1e-2
    at, w = x, small * v
    for i in range(n):
        ahead = space.exp(x, (i + 1) / n * log)
        side = space.exp(at, w)
        middle = space.exp(side, 0.5 * space.log(side, ahead))
        w = space.log(ahead, space.exp(at, 2 * space.log(at, middle)))
        at = ahead
    assert torch.allclose(w / small, space.transport(x, y, v), atol=2e-2)


@pytest.mark.parametrize(("space", "shape"), CASES, ids=name)
def test_uniform_points_have_the_spread_and_the_density_that_are_told(
    space: Manifold, shape: tuple[int, ...]
) -> None:
    n = 40_000
    x, y = uniform(space, shape, n), uniform(space, shape, n, seed=1)
    d2 = space.dist2(x, y)
    dim = space.dof(x, Dense(n))[0] / d2[0].numel()
    scale = torch.as_tensor(space.noise_scale(x, Dense(n)), dtype=torch.float64)
    got = d2.mean(0) / dim
    assert torch.allclose(got, scale.square().expand(got.shape), rtol=0.03)
    # the mean of 1/J over uniform points is the volume of the ball of shortest geodesics over that of the space
    log_j = space.log_jacobian(space.log(x, y))
    if not isinstance(space, Sphere):  # on spheres the mean square is infinite
        ball = 8 * math.pi**2 if isinstance(space, SO3) else 1.0
        want = 4 / 3 * math.pi**4 / ball if isinstance(space, SO3) else 1.0
        assert float((-log_j).exp().mean()) == pytest.approx(want, rel=0.02)
    beyond = 1.01 * space.log(x, y) / d2.sqrt().reshape(d2.shape + (1,) * space.point_dims)
    reach = 0.5 * torch.as_tensor(space.period) if isinstance(space, Torus) else math.pi
    assert bool((space.log_jacobian(reach * beyond) == -math.inf).all())


def test_the_jacobian_is_the_determinant_of_the_derivative() -> None:
    for space, shape in ((Sphere(), (3,)), (Sphere(), (5,)), (SO3(), (3, 3))):
        x = uniform(space, shape, 1)
        v = 0.6 * space.log(x, uniform(space, shape, 1, seed=1))
        y = space.exp(x, v)
        jac = torch.func.jacrev(lambda u, x=x, space=space: space.exp(x, u))(v)
        d = x.numel()
        jac = jac.reshape(d, d)
        # orthonormal bases of both tangent spaces: the singular values between them
        at, to = (
            torch.linalg.svd(
                torch.stack(
                    [
                        space.to_tangent(p, e.reshape(p.shape)).flatten()
                        for e in torch.eye(d).double()
                    ]
                )
            )
            for p in (x, y)
        )
        dim = int(at[1].round().sum())
        inner = to[2][:dim] @ jac @ at[2][:dim].T
        want = torch.linalg.det(inner).abs().log()
        assert float(space.log_jacobian(v)) == pytest.approx(float(want), abs=1e-8)


@pytest.mark.parametrize("shape", SPHERES, ids=name)
def test_distances_on_the_sphere_are_angles_and_turn_with_it(shape: tuple[int, ...]) -> None:
    space, d = Sphere(), shape[0]
    x, y = uniform(space, shape), uniform(space, shape, seed=1)
    want = (x * y).sum(-1).clamp(-1, 1).arccos()
    assert torch.allclose(space.dist2(x, y).sqrt(), want, atol=1e-7)
    turn = torch.linalg.qr(randn(d, d, seed=3))[0]
    assert torch.allclose(space.log(x @ turn, y @ turn), space.log(x, y) @ turn, atol=1e-10)
    v = space.to_tangent(x, randn(*x.shape, seed=4))
    assert torch.allclose(space.exp(x @ turn, v @ turn), space.exp(x, v) @ turn, atol=1e-12)


def test_antipodes_are_half_a_great_circle_apart() -> None:
    for dtype in DTYPES:
        for d in (2, 3, 7):
            x = torch.cat([uniform(Sphere(), (d,), dtype=dtype), torch.eye(d, dtype=dtype)])
            log = Sphere().log(x, -x)
            tol = 20 * torch.finfo(dtype).eps
            assert torch.allclose(log.norm(dim=-1), torch.tensor(math.pi, dtype=dtype), atol=tol)
            assert off(Sphere(), Sphere().exp(x, log), -x) < tol
            assert float((log * x).sum(-1).abs().max()) < tol


def test_rotations_multiply_from_both_sides_without_changing_distances() -> None:
    space = SO3()
    x, y, a, b = (uniform(space, (3, 3), seed=s) for s in range(4))
    log = space.log(x, y)
    assert torch.allclose(space.log(a @ x @ b, a @ y @ b), a @ log @ b, atol=1e-7)
    angle = ((torch.einsum("nij,nij->n", x, y) - 1) / 2).clamp(-1, 1).arccos()
    assert torch.allclose(space.dist2(x, y).sqrt(), angle, atol=1e-7)


def test_vectors_quaternions_and_matrices_say_the_same() -> None:
    for dtype in DTYPES:
        tol = 20 * torch.finfo(dtype).eps
        axes = torch.cat(
            [
                torch.nn.functional.normalize(randn(50, 3, dtype=dtype), dim=-1),
                torch.eye(3, dtype=dtype),
            ]
        )
        for angle in (0.0, 1e-12, 1e-5, 1.0, 3.0, math.pi - 1e-5, math.pi):
            r = SO3.from_vector(angle * axes)
            assert torch.allclose(r, torch.linalg.matrix_exp(_cross(angle * axes)), atol=tol)
            assert torch.allclose(SO3.from_vector(SO3.to_vector(r)), r, atol=tol)
            q = SO3.to_quaternion(r)
            assert bool((q[:, 0] >= 0).all())
            assert torch.allclose(SO3.from_quaternion(-2 * q), r, atol=tol)
            if angle < 3.1:
                assert torch.allclose(SO3.to_vector(r), angle * axes, atol=tol)


def _cross(w: Tensor) -> Tensor:
    return torch.stack([torch.linalg.cross(w, e.expand_as(w)) for e in torch.eye(3).to(w)], -1)


def test_uniform_rotations_are_those_of_haar() -> None:
    """Their entries have the moments of a uniform frame; the angle has the density (1 - cos r) / pi."""
    x = uniform(SO3(), (3, 3), 40_000)
    assert torch.allclose(x @ x.mT, torch.eye(3).double(), atol=1e-12)
    assert torch.allclose(torch.linalg.det(x), torch.ones(1).double(), atol=1e-12)
    assert float(x.mean(0).abs().max()) < 0.02
    assert torch.allclose(x.square().mean(0), torch.full((3, 3), 1 / 3).double(), atol=0.01)
    angle = SO3.to_vector(x).norm(dim=-1)
    for r in (1.0, 2.0, 3.0):
        assert float((angle < r).double().mean()) == pytest.approx(
            (r - math.sin(r)) / math.pi, abs=0.01
        )


def test_the_nearest_rotation_is_nearer_than_all_others_and_has_a_derivative() -> None:
    space, m = SO3(), randn(200, 3, 3, seed=5)
    near = space.project(m, Dense(200))
    for seed in range(20):
        other = uniform(space, (3, 3), 200, seed)
        closer = space.exp(near, 0.1 * space.log(near, other))
        for r in (other, closer):
            assert bool(((m - near).norm(dim=(1, 2)) <= (m - r).norm(dim=(1, 2))).all())
    rotation = uniform(space, (3, 3), 3)
    for start in (rotation, rotation + 0.2 * randn(3, 3, 3, seed=6)):
        x, u = start.clone().requires_grad_(), randn(3, 3, 3, seed=7)
        (got,) = torch.autograd.grad((space.project(x, Dense(3)) * u).sum(), x)
        eps, d = 1e-6, randn(3, 3, 3, seed=8)
        ahead, back = (space.project(start + s * eps * d, Dense(3)) for s in (1, -1))
        want = ((ahead - back) / (2 * eps) * u).sum()
        assert float((got * d).sum()) == pytest.approx(float(want), abs=1e-7)


def test_numbers_on_the_torus_lie_below_the_period() -> None:
    for dtype in DTYPES:
        for period in (1.0, 2 * math.pi, 0.1):
            space = Torus(period)
            x = torch.tensor([[-1e-30, -1e-9, 0.0, period, -period, 7.3 * period]], dtype=dtype)
            for y in (space.project(x, Dense(1)), space.exp(torch.zeros_like(x), x)):
                assert bool(((y >= 0) & (y < torch.tensor(period, dtype=dtype))).all())
                assert torch.equal(space.project(y, Dense(1)), y)
            assert off(space, space.project(x, Dense(1)), x) < 20 * torch.finfo(dtype).eps


def test_what_lies_outside_of_samples_stays_clean() -> None:
    for space, shape in CASES:
        for field, layout, _ in in_every_layout(shape):
            for x in (space.project(field, layout), space.prior(field, layout, Noise(0))):
                assert bool(x.isfinite().all())
                assert torch.equal(layout.clean(x), x)
                for out in (space.exp(x, x), space.log(x, x), space.transport(x, x, x)):
                    assert bool(out.isfinite().all())


def test_degrees_of_freedom_and_volumes_are_those_of_the_points() -> None:
    def field(*shape: int) -> tuple[Tensor, Layout]:
        return torch.zeros(2, *shape, dtype=torch.float64), Dense(2)

    for space, shape, dof, volume in (
        (Torus(2.0), (5, 3), 15, 15 * math.log(2)),
        (Torus(PERIODS), (5, 3), 15, 0.0),
        (Sphere(), (5, 2), 5, 5 * math.log(2 * math.pi)),
        (Sphere(), (3,), 2, math.log(4 * math.pi)),
        (Sphere(), (5, 4), 15, 5 * math.log(2 * math.pi**2)),
        (SO3(), (5, 3, 3), 15, 5 * math.log(8 * math.pi**2)),
    ):
        x, layout = field(*shape)
        assert space.dof(x, layout).tolist() == [dof, dof]
        assert space.log_prior(x, layout).tolist() == pytest.approx([-volume] * 2)


def test_wrong_periods_and_shapes_are_refused() -> None:
    for period in (0.0, -1.0, math.inf, torch.tensor([1.0, 0.0])):
        with pytest.raises(ValueError, match="period must be positive"):
            Torus(period)
    with pytest.raises(ValueError, match="at least two numbers"):
        Sphere().dof(torch.zeros(2, 1), Dense(2))
    with pytest.raises(ValueError, match="3 x 3 matrix"):
        SO3().dof(torch.zeros(2, 3, 4), Dense(2))
