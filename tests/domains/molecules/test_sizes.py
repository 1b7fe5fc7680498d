"""Size priors are probability distributions, give back the data they were fitted on, and sample it."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sciffusion.domains.molecules.sizes import ConditionalSizePrior, JointSizePrior, SizePrior

SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=60)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def correlated(n: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Sizes and a property that grows with them."""
    rng = np.random.default_rng(0)
    sizes = rng.binomial(20, 0.6, n) + 3
    return sizes, 2.0 * sizes + rng.normal(0, 3, n)


@given(SIZES)
def test_a_prior_is_the_histogram_of_the_data(sizes: list[int]) -> None:
    prior = SizePrior.fit(sizes)
    assert sum(prior.probabilities) == pytest.approx(1)
    for size in range(35):
        expected = sizes.count(size) / len(sizes)
        assert prior.log_prob([size]).exp().item() == pytest.approx(expected)
    assert SizePrior.from_dict(json.loads(json.dumps(prior.to_dict()))) == prior


def test_samples_have_the_frequencies_of_the_prior_and_follow_the_seed() -> None:
    prior = SizePrior((3, 9, 29), (0.2, 0.7, 0.1))
    n = 40_000
    drawn = prior.sample(n, generator())
    for size, p in zip(prior.sizes, prior.probabilities, strict=True):
        assert abs((drawn == size).double().mean().item() - p) < 5 * (p * (1 - p) / n) ** 0.5
    assert set(drawn.tolist()) == {3, 9, 29}
    assert torch.equal(prior.sample(9, generator(3)), prior.sample(9, generator(3)))
    assert prior.log_prob(drawn).isfinite().all()


@given(SIZES, st.integers(1, 8), st.floats(0, 1), st.integers(0, 2**31), st.booleans())
def test_the_conditional_prior_is_normalised_and_averages_to_the_marginal(
    sizes: list[int], bins: int, smoothing: float, seed: int, ties: bool
) -> None:
    y = np.random.default_rng(seed).normal(size=len(sizes))
    y = y.round() if ties else y  # many equal values leave fewer bins
    prior = ConditionalSizePrior.fit(sizes, y, bins=bins, smoothing=smoothing)
    rows = np.array(prior.probabilities)
    np.testing.assert_allclose(rows.sum(1), 1)
    np.testing.assert_allclose(np.array(prior.weights) @ rows, prior.marginal.probabilities)
    assert prior.marginal == SizePrior.fit(sizes)
    assert len(rows) <= bins and len(prior.edges) == len(rows) - 1


def test_without_smoothing_the_conditional_prior_is_the_histogram_of_its_bin() -> None:
    sizes, y = correlated()
    prior = ConditionalSizePrior.fit(sizes, y, bins=8, smoothing=0)
    inside = (y >= prior.edges[2]) & (y < prior.edges[3])
    assert 0.1 < inside.mean() < 0.15
    here = prior.at((prior.edges[2] + prior.edges[3]) / 2)
    expected = [(sizes[inside] == size).mean() for size in here.sizes]
    np.testing.assert_allclose(here.probabilities, expected)


def test_a_wanted_value_moves_the_sizes_and_one_beyond_the_data_takes_the_outer_bin() -> None:
    sizes, y = correlated()
    prior = ConditionalSizePrior.fit(sizes, y)
    low, high = (prior.sample(torch.full((2000,), v), generator()) for v in (-1e9, 1e9))
    order = np.argsort(y)
    bottom, top = sizes[order[:200]].mean(), sizes[order[-200:]].mean()  # a twentieth each
    assert low.double().mean().item() == pytest.approx(bottom, abs=0.3)
    assert high.double().mean().item() == pytest.approx(top, abs=0.3)
    assert min(min(row) for row in prior.probabilities) > 0  # smoothing: nothing is impossible
    assert ConditionalSizePrior.from_dict(json.loads(json.dumps(prior.to_dict()))) == prior


def test_sampling_many_values_agrees_with_sampling_each() -> None:
    sizes, y = correlated()
    prior = ConditionalSizePrior.fit(sizes, y, bins=5)
    wanted = torch.tensor([y.min(), y.max()]).repeat_interleave(20_000)
    drawn = prior.sample(wanted, generator())
    for part, value in ((drawn[:20_000], y.min()), (drawn[20_000:], y.max())):
        here = prior.at(float(value))
        expected = np.dot(here.sizes, here.probabilities)
        assert part.double().mean().item() == pytest.approx(expected, abs=0.1)


def test_joint_samples_have_the_joint_distribution_of_the_data() -> None:
    sizes, y = correlated(20_000)
    prior = JointSizePrior.fit(sizes, y)
    drawn, values = prior.sample(20_000, generator())
    for size in (14, 15, 16):
        mine, its = values[drawn == size].numpy(), y[sizes == size]
        assert len(mine) == pytest.approx(len(its), rel=0.1)
        assert mine.mean() == pytest.approx(its.mean(), abs=0.3)
        assert mine.std() == pytest.approx(its.std(), rel=0.1)
        assert its.min() <= mine.min() and mine.max() <= its.max()


def test_every_joint_sample_lies_in_a_bin_that_the_data_occupy() -> None:
    prior = JointSizePrior.fit([4, 4, 4, 7], [0.0, 0.1, 1.0, 5.0], bins=10)
    sizes, y = prior.sample(2000, generator())
    four = y[sizes == 4]
    occupied = (four <= 0.2) | (four >= 0.9)
    assert occupied.all() and four.max() > 0.9 and four.min() < 0.1
    assert (y[sizes == 7] == 5.0).all()  # a single value is itself
    again = JointSizePrior.from_dict(json.loads(json.dumps(prior.to_dict())))
    assert again == prior
    with pytest.raises(ValueError, match="no molecule of 5 atoms was seen"):
        prior.sample_given(torch.tensor([5]))


@pytest.mark.parametrize(
    ("sizes", "y"),
    [([], []), ([0, 1], [1, 2]), ([1.5], [1]), ([1, 2], [1]), ([1, 2], [1, np.nan])],
)
def test_data_that_make_no_sense_are_refused(sizes: list[int], y: list[float]) -> None:
    for prior in (ConditionalSizePrior, JointSizePrior):
        with pytest.raises(ValueError, match="sizes must|y must"):
            prior.fit(sizes, y)


def test_probabilities_that_are_none_are_refused() -> None:
    for sizes, p in (((1, 2), (0.5, 0.6)), ((2, 1), (0.5, 0.5)), ((1,), (0.5, 0.5)), ((), ())):
        with pytest.raises(ValueError, match=r"sizes|probabilities"):
            SizePrior(sizes, p)
