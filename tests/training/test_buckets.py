"""Batches by size: every sample once an epoch, a pure function of seed, epoch and step."""

import pickle
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sciffusion.training import SizeBuckets

SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=80)


def epoch(buckets: SizeBuckets, number: int = 0) -> list[list[int]]:
    return [buckets.batch(number, step).tolist() for step in range(buckets.steps_per_epoch)]


@given(SIZES, st.integers(1, 9), st.integers(0, 3), st.integers(1, 20))
def test_every_sample_comes_once_an_epoch_in_batches_of_the_allowed_length(
    sizes: list[int], batch_size: int, max_padding: int, min_bucket: int
) -> None:
    buckets = SizeBuckets(sizes, batch_size, seed=1, max_padding=max_padding, min_bucket=min_bucket)
    for number in (0, 3):
        batches = epoch(buckets, number)
        assert sorted(m for batch in batches for m in batch) == list(range(len(sizes)))
        assert all(1 <= len(batch) <= batch_size for batch in batches)


@given(SIZES, st.integers(1, 9), st.integers(0, 3))
def test_sizes_in_a_batch_differ_by_no_more_than_the_padding(
    sizes: list[int], batch_size: int, max_padding: int
) -> None:
    buckets = SizeBuckets(sizes, batch_size, seed=1, max_padding=max_padding)
    for batch in epoch(buckets):
        in_batch = [sizes[m] for m in batch]
        assert max(in_batch) - min(in_batch) <= max_padding


@given(SIZES, st.integers(2, 20))
def test_rare_sizes_share_a_bucket_so_that_no_batch_is_tiny(
    sizes: list[int], min_bucket: int
) -> None:
    buckets = SizeBuckets(sizes, min_bucket, seed=1, min_bucket=min_bucket)
    if len(sizes) >= min_bucket:
        # a bucket of n >= b molecules is cut evenly into ceil(n/b) batches, each over half of b
        assert all(len(batch) >= min_bucket / 2 for batch in epoch(buckets))


def test_batches_are_a_pure_function_of_seed_epoch_and_step() -> None:
    sizes = np.random.default_rng(0).integers(3, 9, 500)
    first, second = (SizeBuckets(sizes, 16, seed=5) for _ in range(2))
    in_order = {(e, s): first.batch(e, s) for e in range(3) for s in range(first.steps_per_epoch)}
    asked = list(in_order)
    random.Random(0).shuffle(asked)
    for key in asked:
        np.testing.assert_array_equal(second.batch(*key), in_order[key])
    again = pickle.loads(pickle.dumps(second))
    np.testing.assert_array_equal(again.batch(2, 7), in_order[2, 7])


def test_epochs_and_seeds_differ_in_the_batches_and_in_their_order() -> None:
    sizes = np.repeat([4, 5, 6], 100)
    runs = [
        epoch(SizeBuckets(sizes, 10, seed=seed), e) for seed, e in ((0, 0), (0, 1), (1, 0), (1, 1))
    ]
    members = [{frozenset(batch) for batch in run} for run in runs]
    orders = [tuple(sizes[batch[0]] for batch in run) for run in runs]
    for a in range(4):
        for b in range(a):
            assert members[a] != members[b] and orders[a] != orders[b]
    assert orders[0] != tuple(sorted(orders[0]))  # sizes come mixed, not from small to large


def test_the_processes_that_share_a_batch_hold_it_once_between_them() -> None:
    buckets = SizeBuckets(np.repeat([4, 5], 50), 16, seed=0)
    for step in range(buckets.steps_per_epoch):
        whole = buckets.batch(0, step)
        for world in (1, 2, 3):
            parts = [whole[rank::world] for rank in range(world)]
            assert sorted(np.concatenate(parts)) == sorted(whole)


def test_shuffling_within_a_size_is_uniform() -> None:
    first = np.array([SizeBuckets([2] * 4, 2, seed=0).batch(e, 0) for e in range(3000)])
    counts = np.bincount(first.ravel(), minlength=4) / 3000
    np.testing.assert_allclose(counts, 0.5, atol=5 * (0.25 / 3000) ** 0.5)


def test_a_caller_cannot_change_a_batch_for_the_next() -> None:
    buckets = SizeBuckets([2] * 8, 4, seed=0)
    with pytest.raises(ValueError, match="read-only"):
        buckets.batch(0, 0)[0] = 7


@pytest.mark.parametrize(
    ("sizes", "settings"),
    [
        ([], {}),
        ([0, 2], {}),
        ([[1]], {}),
        ([2], {"batch_size": 0}),
        ([2], {"max_padding": -1}),
        ([2], {"min_bucket": 0}),
    ],
)
def test_settings_out_of_range_are_refused(sizes: list[int], settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        SizeBuckets(sizes, **({"batch_size": 2, "seed": 0} | settings))


def test_a_step_beyond_the_epoch_is_refused() -> None:
    with pytest.raises(IndexError, match="step must lie in 0..1, got 2"):
        SizeBuckets([2] * 4, 2, seed=0).batch(0, 2)
