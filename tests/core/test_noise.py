"""Seeds: the same sample in any batch, and no hand on the global generators."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sciffusion import oracle
from sciffusion.layout import Dense, Layout
from sciffusion.noise import Noise, sample_seeds
from sciffusion.process import Gaussian
from sciffusion.samplers import DDIM, Heun, Multistep, Sampler
from sciffusion.schedule import RectifiedFlow
from sciffusion.solver import Solver
from sciffusion.space import Euclidean
from tests.core.cases import packed, padded, points

Draw = Callable[[Noise, Tensor, Layout], Tensor]
DRAWS: dict[str, Draw] = {
    "normal": lambda noise, x, layout: noise.normal(x, layout),
    "uniform": lambda noise, x, layout: noise.uniform(x, layout),
    "integers": lambda noise, x, layout: noise.integers(7, x, layout),
}


@pytest.mark.parametrize("kind", DRAWS)
def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(kind: str) -> None:
    x, layout, draw = torch.zeros(3, 8), Dense(3), DRAWS[kind]
    assert torch.equal(draw(Noise(5), x, layout), draw(Noise(5), x, layout))
    assert not torch.equal(draw(Noise(5), x, layout), draw(Noise(6), x, layout))
    stream = Noise(5)
    assert not torch.equal(draw(stream, x, layout), draw(stream, x, layout))


@pytest.mark.parametrize("kind", DRAWS)
def test_a_sample_is_the_same_alone_in_any_batch_padded_or_packed(kind: str) -> None:
    samples, seeds, draw = points(), [3, 9, 4, 11], DRAWS[kind]
    alone = [
        draw(Noise([seed]), s[None], Dense(1))[0] for seed, s in zip(seeds, samples, strict=True)
    ]
    field, masked = padded(samples)
    rows, index = packed(samples)
    assert torch.equal(draw(Noise(seeds), rows, index), torch.cat(alone))
    drawn = draw(Noise(seeds), field, masked)
    assert torch.equal(drawn[masked.mask], torch.cat(alone))
    assert bool((drawn[~masked.mask] == 0).all())
    back, reverse = packed(samples[::-1])
    assert torch.equal(draw(Noise(seeds[::-1]), back, reverse), torch.cat(alone[::-1]))


@pytest.mark.parametrize("kind", DRAWS)
def test_one_stream_for_all_leaves_zeros_outside_the_samples(kind: str) -> None:
    field, layout = padded(points())
    drawn = DRAWS[kind](Noise(3), field, layout)
    assert bool((drawn[~layout.mask] == 0).all()) and bool((drawn[layout.mask] != 0).any())


def test_numbers_for_a_sample_are_its_own() -> None:
    both, alone = Noise([1, 2]), Noise([2])
    for normal in (False, True):
        assert both.scalars(2, normal=normal)[1] == alone.scalars(1, normal=normal)[0]
    assert Noise([1, 2]).scalars(2).dtype == torch.float64


def test_no_global_generator_is_read_or_moved() -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - the very generator that must stay untouched
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
    first = [draw(Noise([1, 2]), torch.zeros(2, 5), Dense(2)) for draw in DRAWS.values()]
    assert sample_seeds(3, 4) == sample_seeds(3, 4)
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # type: ignore[index]  # noqa: NPY002
    torch.manual_seed(99)
    again = [draw(Noise([1, 2]), torch.zeros(2, 5), Dense(2)) for draw in DRAWS.values()]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@given(st.integers(0, 2**63 - 1), st.integers(1, 20), st.integers(1, 20))
def test_the_ith_derived_seed_does_not_depend_on_how_many_there_are(
    seed: int, few: int, many: int
) -> None:
    few, many = sorted((few, many))
    seeds = sample_seeds(seed, many)
    assert seeds[:few] == sample_seeds(seed, few)
    assert len(set(seeds)) == many and all(0 <= s < 2**63 for s in seeds)


def test_draws_have_the_distribution_that_they_claim() -> None:
    n = 40_000
    x, layout = torch.zeros(4, n // 4, dtype=torch.float64), Dense(4)
    for noise in (Noise(0), Noise([0, 1, 2, 3])):
        z, u, k = (
            DRAWS[kind](noise, x, layout).flatten() for kind in ("normal", "uniform", "integers")
        )
        for got, want, error in (
            (z.mean(), 0.0, n**-0.5),
            (z.square().mean(), 1.0, (2 / n) ** 0.5),
            (u.mean(), 0.5, (12 * n) ** -0.5),
            (u.square().mean(), 1 / 3, (4 / 45 / n) ** 0.5),
        ):
            assert abs(float(got) - want) < 5 * error
        assert 0 <= float(u.min()) and float(u.max()) < 1
        counts = torch.bincount(k.long(), minlength=7).double()
        assert len(counts) == 7
        assert (
            float(((counts - n / 7) ** 2 / (n / 7)).sum()) < 30
        )  # chi^2 with 6 degrees of freedom


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_draws_have_the_dtype_of_the_field(dtype: torch.dtype) -> None:
    x = torch.zeros(2, 3, dtype=dtype)
    for noise in (Noise(0), Noise([0, 1])):
        assert noise.normal(x, Dense(2)).dtype == dtype
    assert Noise(0).integers(3, x.long(), Dense(2)).dtype == torch.long


def test_a_wrong_number_of_seeds_is_refused() -> None:
    with pytest.raises(ValueError, match="3 entries for a batch of 2"):
        Noise([1, 2, 3]).normal(torch.zeros(2, 1), Dense(2))
    with pytest.raises(ValueError, match="empty"):
        Noise([])


def test_seeds_may_come_from_numpy_and_torch() -> None:
    x, layout = torch.zeros(2, 3), Dense(2)
    want = Noise([4, 5]).normal(x, layout)
    assert torch.equal(Noise(np.array([4, 5])).normal(x, layout), want)  # type: ignore[arg-type]
    assert torch.equal(Noise(torch.tensor([4, 5])).normal(x, layout), want)  # type: ignore[arg-type]
    assert torch.equal(Noise(np.int64(4)).normal(x, layout), Noise(4).normal(x, layout))  # type: ignore[arg-type]


@pytest.mark.parametrize("solver", [Multistep(2), Multistep(2, 1.0), DDIM(0.5), Heun(4.0)])
@pytest.mark.parametrize("brownian", [False, True])
def test_the_temperature_scales_how_far_samples_of_a_gaussian_scatter(
    solver: Solver, brownian: bool
) -> None:
    mean, cov = torch.tensor([2.0, -1.0]), torch.tensor([[1.0, 0.6], [0.6, 0.5]])
    process = Gaussian(RectifiedFlow(), Euclidean())
    denoiser = oracle.Gaussian(mean, cov, process)

    def drawn(temperature: float) -> Tensor:
        noise = Noise(range(5), brownian=brownian, temperature=temperature)
        start = process.prior(torch.zeros(5, 2), noise)
        x = Sampler(solver, 12)(denoiser, start, noise).x
        assert isinstance(x, Tensor)
        return x

    hot, cool, cold = drawn(1.0), drawn(0.3), drawn(0.0)
    torch.testing.assert_close(cold, cold[:1].expand(5, -1))
    torch.testing.assert_close(cool - cold, 0.3 * (hot - cold), rtol=1e-3, atol=1e-4)
    assert float((hot - cold).std()) > 0.3


def test_what_is_no_seed_is_refused_and_a_negative_one_serves_everywhere() -> None:
    for wrong in (1.5, torch.tensor(3), "a"):
        with pytest.raises(ValueError, match="seed must be one integer, or one for each sample"):
            Noise(wrong)  # type: ignore[arg-type]
    for no_seed in (1.5, "a", [3]):
        with pytest.raises(ValueError, match="seed must be one integer, got"):
            sample_seeds(no_seed, 2)  # type: ignore[arg-type]
    assert sample_seeds(np.int64(-7), 2) == sample_seeds(-7, 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seed must fit into 64 bits"):
        Noise([1, 2**70])
    x, layout = torch.zeros(2, 3), Dense(2)
    one, other = (Noise(s, brownian=True).between(0.9, 0.5).normal(x, layout) for s in (-1, 1))
    assert not torch.equal(one, other)
    assert len(set(sample_seeds(-1, 3) + sample_seeds(1, 3))) == 6


def test_uniform_numbers_have_no_temperature() -> None:
    x, layout = torch.zeros(3, 8), Dense(3)
    cold, plain = Noise(5, temperature=0.0), Noise(5)
    assert torch.equal(cold.uniform(x, layout), plain.uniform(x, layout))
    assert not bool(cold.normal(x, layout).any()) and not bool(cold.scalars(3, normal=True).any())
    with pytest.raises(ValueError, match="temperature must not be negative, got -0.1"):
        Noise(5, temperature=-0.1)
