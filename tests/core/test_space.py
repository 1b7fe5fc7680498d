"""Priors: their subspace, their moments and their densities."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sciffusion.layout import Dense
from sciffusion.noise import Noise
from sciffusion.space import Categorical, Euclidean, Space, ZeroCoM
from sciffusion.testing import check_space
from tests.core.cases import in_every_layout, name, packed, padded, points, randn

SPACES: list[Space] = [
    Euclidean(),
    Euclidean(0.3),
    Euclidean(torch.tensor([0.5, 1.0, 2.0])),
    ZeroCoM(),
    ZeroCoM(2.0),
]


@pytest.mark.parametrize("space", SPACES, ids=name)
def test_gaussian_spaces_keep_their_contract_in_every_layout(space: Space) -> None:
    for field, layout, _ in in_every_layout():
        check_space(space, field, layout)


@pytest.mark.parametrize("space", [Categorical(3), Categorical(5, absorbing=True)], ids=name)
def test_categorical_spaces_keep_their_contract_in_every_layout(space: Space) -> None:
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
