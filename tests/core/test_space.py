"""Priors: their subspace, their moments and their densities."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sciffusion.denoiser import Preconditioned
from sciffusion.layout import Dense, Masked
from sciffusion.noise import Noise, sample_seeds
from sciffusion.process import Gaussian
from sciffusion.schedule import RectifiedFlow
from sciffusion.space import (
    BySize,
    Categorical,
    Chain,
    Euclidean,
    GaussianSpace,
    LinearSpace,
    StudentT,
    ZeroCoM,
)
from sciffusion.space.student import _chi_square
from sciffusion.testing import check_space
from tests.core.cases import (
    SPACES,
    dense,
    in_every_layout,
    kind,
    name,
    packed,
    padded,
    points,
    randn,
)

EACH = pytest.mark.parametrize(("space", "features"), SPACES, ids=kind)


@EACH
def test_linear_spaces_keep_their_contract_in_every_layout(
    space: LinearSpace, features: tuple[int, ...]
) -> None:
    for field, layout, _ in in_every_layout(features):
        check_space(space, field, layout)


@EACH
def test_single_precision_is_kept_and_costs_no_more_than_its_digits(
    space: LinearSpace, features: tuple[int, ...]
) -> None:
    for field, layout, samples in in_every_layout(features, torch.float32):
        seeds = sample_seeds(1, len(samples))
        e = space.prior(field, layout, Noise(seeds))
        for operation in (space.covariance, space.precision, space.project, space.log_prior):
            got, want = operation(e, layout), operation(e.double(), layout)
            assert got.dtype == torch.float32 and want.dtype == torch.float64
            if got.ndim > 1:
                got, want = layout.clean(got), layout.clean(want)
            assert float((got - want).abs().max()) < 2e-5 * (1 + float(want.abs().max()))
        p = space.precision(e, layout)
        assert torch.allclose(space.covariance(p, layout), e, rtol=0, atol=2e-4)


@EACH
def test_a_batch_is_its_samples_one_by_one_in_any_layout(
    space: LinearSpace, features: tuple[int, ...]
) -> None:
    samples, seeds = points((4, 1, 3), features), [5, 3, 8]
    alone = [
        space.prior(x[None], Dense(1), Noise([s])) for x, s in zip(samples, seeds, strict=True)
    ]
    for field, layout in (padded(samples), packed(samples)):
        prior = space.prior(field, layout, Noise(seeds))
        together = layout.assemble([x[0] for x in alone], field)
        assert torch.allclose(prior, together, rtol=0, atol=1e-13)
        for operation in (space.covariance, space.precision):
            got = layout.clean(operation(together, layout))
            want = layout.assemble([operation(x, Dense(1))[0] for x in alone], field)
            assert torch.allclose(got, want, rtol=1e-11, atol=1e-12)
        numbers = [space.log_prior, space.norm2]
        for number in numbers:
            each = torch.cat([number(x, Dense(1)) for x in alone])
            assert torch.allclose(number(together, layout), each, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("space", [Categorical(3), Categorical(5, absorbing=True)], ids=name)
def test_categorical_spaces_keep_their_contract_in_every_layout(space: Categorical) -> None:
    for field, layout, _ in in_every_layout(()):
        check_space(space, torch.zeros_like(field, dtype=torch.long), layout)


def orthonormal_basis(n: int) -> Tensor:
    """Of the vectors in R^n that sum to zero, (n, n-1)."""
    return torch.linalg.qr(torch.eye(n, dtype=torch.float64)[:, 1:] - 1 / n)[0]


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_the_norm_of_white_noise_without_its_mean_is_dof_times_the_variance(scale: float) -> None:
    space, sizes = ZeroCoM(scale), [5, 1, 2, 9]
    field, layout = packed([torch.zeros(4000 * n, 3).reshape(n, -1) for n in sizes])
    x = space.prior(field.double(), layout, Noise(0))  # 4000 clouds in 3 dimensions side by side
    norm = layout.reduce(x.square()) / 4000
    for n, got in zip(sizes, norm.tolist(), strict=True):
        want = 3 * (n - 1) * scale**2
        assert abs(got - want) < 5 * scale**2 * math.sqrt(2 * 3 * max(n - 1, 0) / 4000) + 1e-12
    clouds = torch.zeros(sum(sizes), 3)
    assert space.dof(clouds, layout).tolist() == [3 * (n - 1) for n in sizes]


def test_the_density_on_the_subspace_is_that_of_an_orthonormal_basis() -> None:
    space, samples = ZeroCoM(1.7), points((4, 2, 1, 6))
    for field, layout in (padded(samples), packed(samples)):
        x = space.project(field, layout)
        for i, s in enumerate(samples):
            basis = orthonormal_basis(len(s))
            free = (basis.T @ (s - s.mean(0))).flatten()
            scale = torch.tensor(1.7, dtype=torch.float64)
            want = torch.distributions.Normal(0.0, scale).log_prob(free).sum()
            assert float(space.log_prior(x, layout)[i]) == pytest.approx(float(want), abs=1e-10)
            assert float(space.norm2(x, layout)[i]) == pytest.approx(
                float(free.square().sum()) / 1.7**2, abs=1e-10
            )


def test_a_single_point_has_no_freedom_and_no_density() -> None:
    x, layout = packed([randn(1, 3)])
    space = ZeroCoM()
    assert space.dof(x, layout).tolist() == [0]
    assert torch.equal(space.prior(x, layout, Noise(0)), torch.zeros(1, 3, dtype=torch.float64))
    assert float(space.log_prior(space.project(x, layout), layout)) == 0.0


def test_projection_removes_the_mean_of_each_sample_and_nothing_else() -> None:
    for field, layout, samples in in_every_layout():
        x = ZeroCoM().project(field, layout)
        got = layout.parts(x)
        assert got == [tuple(s.shape) for s in samples]
        want = layout.assemble([s - s.mean(0) for s in samples], field)
        assert torch.allclose(layout.clean(x), want, rtol=0, atol=1e-12)


def test_the_euclidean_density_is_a_product_of_normals() -> None:
    scale = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    for s in (torch.tensor(0.7, dtype=torch.float64), scale):
        space = Euclidean(float(s) if s.ndim == 0 else s)
        for field, layout, samples in in_every_layout():
            want = [torch.distributions.Normal(0.0, s).log_prob(x).sum() for x in samples]
            got = space.log_prior(layout.clean(field), layout)
            assert torch.allclose(got, torch.stack(want), rtol=0, atol=1e-10)


def test_a_scale_per_channel_of_an_image_scales_that_channel() -> None:
    scale = torch.tensor([0.5, 3.0]).reshape(2, 1, 1)
    x = Euclidean(scale).prior(torch.zeros(50, 2, 16, 16), Dense(50), Noise(0))
    assert torch.allclose(x.std((0, 2, 3)), scale.flatten(), rtol=0.03)


def test_the_categorical_prior_is_uniform_or_the_mask() -> None:
    x = torch.zeros(2, 3, dtype=torch.long)
    uniform, masked = Categorical(4), Categorical(4, absorbing=True)
    assert (uniform.states, masked.states) == (4, 5)
    assert torch.equal(masked.prior(x, Dense(2), Noise(0)), torch.full((2, 3), 4))
    assert uniform.log_prior(x, Dense(2)).tolist() == pytest.approx([-3 * math.log(4)] * 2)
    assert masked.log_prior(torch.tensor([[4, 4, 4], [4, 0, 4]]), Dense(2)).tolist() == [
        0,
        -math.inf,
    ]
    assert uniform.dof(x, Dense(2)).tolist() == [9, 9]


def test_bad_scales_classes_and_class_fields_are_refused() -> None:
    for make in (Euclidean, ZeroCoM):
        with pytest.raises(ValueError, match="scale must be positive"):
            make(0.0)
    with pytest.raises(ValueError, match="scale must be positive"):
        Euclidean(torch.tensor([1.0, -1.0]))
    with pytest.raises(ValueError, match="at least 2"):
        Categorical(1)
    with pytest.raises(ValueError, match="holds integers"):
        Categorical(3).check(torch.zeros(2))
    for bad in (-1, 3):
        with pytest.raises(ValueError, match=r"holds 0\.\.2, got values"):
            Categorical(3).check(torch.tensor([0, bad]))


def test_a_scale_by_size_is_that_scale_for_each_sample() -> None:
    scale = BySize(2.0, -1 / 3)
    for make in (Euclidean, ZeroCoM):
        for field, layout, samples in in_every_layout():
            got, x = make(scale), make(1.0).project(field, layout)
            draw = layout.clean(got.prior(field, layout, Noise(4)))
            for i, s in enumerate(samples):
                fixed = make(2.0 * len(s) ** (-1 / 3))
                for law in ("log_prior", "norm2"):
                    a, b = (getattr(space, law)(x, layout)[i] for space in (got, fixed))
                    assert float(a) == pytest.approx(float(b), rel=1e-12, abs=1e-12)
                owner = layout.expand(torch.arange(len(samples)), field).expand(field.shape) == i
                other = layout.clean(fixed.prior(field, layout, Noise(4)))
                assert torch.allclose(draw[owner], other[owner], rtol=1e-12)


class _Sees(torch.nn.Module):
    """A network that keeps what it is given."""

    def forward(self, x: Tensor, *rest: object) -> Tensor:
        self.seen = x
        return torch.zeros_like(x)


@EACH
def test_a_network_sees_unit_variance_whatever_the_noise(
    space: LinearSpace, features: tuple[int, ...]
) -> None:
    """At t = 1 nothing but noise is left; a projection may only take some of it away."""
    net, n = _Sees(), 4000
    process = Gaussian(RectifiedFlow(), space)
    denoiser = Preconditioned(net, process, sigma_data=0.5)
    like = torch.zeros(n, 3, *features, dtype=torch.float64)
    for t in (torch.tensor(1.0), torch.ones(n)):
        denoiser(space.prior(like, Dense(n), Noise(0)), t)
        kept = int(space.dof(like, Dense(n))[0]) / like[0].numel()
        variance = float(net.seen.square().mean())
        assert kept - 0.1 < variance < 1.1
        assert net.seen.dtype == torch.float64


def laplacian(n: int) -> Tensor:
    """Of the path graph."""
    bonds = torch.eye(n, dtype=torch.float64).diff(dim=0)
    return bonds.T @ bonds


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_a_chain_is_the_harmonic_energy_of_its_bonds(n: int) -> None:
    space, x = Chain(0.5), randn(1, n, 2)
    energy = x.diff(dim=1).square().sum() / (2 * 0.25)
    assert float(space.norm2(x, Dense(1))) / 2 == pytest.approx(float(energy), abs=1e-12)
    units = torch.eye(n, dtype=torch.float64)[..., None]
    got = space.precision(units, Dense(n))[..., 0]
    assert torch.allclose(got, laplacian(n) / 0.25, rtol=0, atol=1e-13)
    want = torch.linalg.pinv(laplacian(n)) * 0.25
    assert torch.allclose(space.covariance(units, Dense(n))[..., 0], want, rtol=0, atol=1e-12)
    # the modes of the chain: cosines, with the eigenvalues 4 sin^2(pi k / 2N)
    for k in range(1, n):
        mode = torch.cos(math.pi * k * (torch.arange(n).double() + 0.5) / n)[None, :, None]
        stiffness = 4 * math.sin(math.pi * k / (2 * n)) ** 2 / 0.25
        assert torch.allclose(space.precision(mode, Dense(1)), stiffness * mode, rtol=0, atol=1e-12)


def test_the_bonds_of_a_chain_are_independent_normals() -> None:
    x = Chain(0.7).prior(torch.zeros(20_000, 5, 1), Dense(20_000), Noise(0))
    assert float(x.mean(1).abs().max()) < 1e-6
    bonds = x.diff(dim=1)[..., 0]
    moments = bonds.T @ bonds / len(bonds)
    assert torch.allclose(moments, 0.49 * torch.eye(4), rtol=0, atol=5 * 0.49 * (2 / 20_000) ** 0.5)


def test_a_chain_runs_over_the_gaps_of_its_mask() -> None:
    mask = torch.tensor(
        [[False, True, True, False, True, True], [True, False, False, True, True, True]]
    )
    layout, whole = Masked(mask), torch.full((2, 6, 3), math.nan, dtype=torch.float64)
    samples = [randn(4, 3), randn(4, 3, seed=1)]
    whole[mask] = torch.cat(samples)
    x, rows = dense(samples)
    space = Chain(1.3)
    for operation in (space.covariance, space.precision, space.project):
        want = operation(x, rows).flatten(0, 1)
        assert torch.allclose(operation(whole, layout)[mask], want, rtol=0, atol=1e-13)
    assert torch.allclose(space.log_prior(whole, layout), space.log_prior(x, rows), rtol=1e-12)


def test_a_chain_needs_points_with_features() -> None:
    for x, layout in (packed(points(features=())), dense([randn(3), randn(3)])):
        with pytest.raises(ValueError, match="points need features"):
            Chain().precision(x, layout)


@pytest.mark.parametrize("nu", [2.1, 3.0, 7.5, 40.0, 300.0])
def test_the_density_and_the_tails_of_student_noise_are_the_textbooks(nu: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    space, samples = StudentT(nu, 0.7), points((4, 2, 1, 6))
    for field, layout in (padded(samples), packed(samples)):
        got = space.log_prior(field, layout)
        for x, density in zip(samples, got, strict=True):
            d = x.numel()
            want = stats.multivariate_t(torch.zeros(d).numpy(), 0.49 * torch.eye(d).numpy(), nu)
            assert float(density) == pytest.approx(
                float(want.logpdf(x.flatten().numpy())), rel=1e-6
            )
    x = space.prior(torch.zeros(20_000, 1, dtype=torch.float64), Dense(20_000), Noise(0))
    u = torch.from_numpy(stats.t.cdf(x[:, 0].numpy() / 0.7, nu)).sort().values
    off = u - (torch.arange(20_000) + 0.5) / 20_000
    assert float(off.abs().max()) < 2.2 / 20_000**0.5  # Kolmogorov & Smirnov, 1e-4


@pytest.mark.parametrize("nu", [2.1, 3.0, 12.5, 50.0, 300.0])
def test_the_quantiles_of_the_mixing_chi_square_are_exact_far_into_both_tails(nu: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    tail = torch.tensor([1e-15, 1e-9, 1e-4, 0.1, 0.49], dtype=torch.float64)
    u = torch.cat([tail, 1 - tail])
    want = torch.from_numpy(stats.chi2.ppf(u.numpy(), nu))
    assert torch.allclose(_chi_square(u, nu), want, rtol=1e-8, atol=0)
    ends = _chi_square(torch.tensor([0.0, 1.0], dtype=torch.float64), nu)
    assert bool((ends > 0).all()) and bool(ends.isfinite().all())


def test_student_noise_is_as_heavy_in_all_numbers_of_a_sample_at_once() -> None:
    x = StudentT(3.0).prior(torch.zeros(400, 300), Dense(400), Noise(0))
    size = x.square().mean(1).log()
    assert float(size.std()) > 0.5  # of independent numbers it would be about 0.1
    normal = x / size.exp().sqrt()[:, None]
    assert abs(float(normal.pow(4).mean()) - 3) < 0.1


def test_the_gradient_of_the_student_density_is_bounded() -> None:
    space, x = StudentT(4.0, 0.5), randn(3, 2, 2).requires_grad_()
    (got,) = torch.autograd.grad(space.log_prior(x, Dense(3)).sum(), x)
    square = x.detach().square().sum((1, 2), keepdim=True) / 0.25
    assert torch.allclose(got, -(4 + 4) / (4 + square) * x.detach() / 0.25, rtol=1e-12)


def test_spaces_that_are_none_are_refused() -> None:
    for nu in (2.0, -1.0, 301.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="nu must lie above 2"):
            StudentT(nu)
    for make in (lambda: StudentT(5.0, 0.0), lambda: Chain(-1.0), lambda: BySize(0.0)):
        with pytest.raises(ValueError, match="scale must be positive"):
            make()
    assert not issubclass(StudentT, GaussianSpace)
