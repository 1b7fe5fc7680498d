"""The order of the data is a pure function."""

from __future__ import annotations

import numpy as np
import pytest

from sciffusion.training import Shuffled
from sciffusion.training.loop import step_key

SIZES = [(1, 1), (7, 3), (37, 8), (64, 8), (65, 8), (5, 100)]


@pytest.mark.parametrize(("n", "batch_size"), SIZES)
def test_an_epoch_visits_every_sample_exactly_once(n: int, batch_size: int) -> None:
    order = Shuffled(n, batch_size, seed=3)
    batches = [order.batch(2, s) for s in range(order.steps_per_epoch)]
    assert sorted(np.concatenate(batches)) == list(range(n))


@pytest.mark.parametrize(("n", "batch_size"), SIZES)
def test_batches_are_as_few_and_as_equal_as_possible(n: int, batch_size: int) -> None:
    order = Shuffled(n, batch_size, seed=3)
    sizes = [len(order.batch(0, s)) for s in range(order.steps_per_epoch)]
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == -(-n // batch_size)


def test_a_batch_depends_on_seed_epoch_and_step_alone() -> None:
    first, second = Shuffled(100, 10, seed=5), Shuffled(100, 10, seed=5)
    late = second.batch(3, 7)
    for epoch in range(3):
        first.batch(epoch, 0)
    np.random.seed(0)  # noqa: NPY002 - the law is that the global state has no say
    assert np.array_equal(first.batch(3, 7), late)


def test_epochs_and_seeds_give_different_orders() -> None:
    seen = {tuple(Shuffled(50, 50, seed=s).batch(e, 0)) for s in range(4) for e in range(4)}
    assert len(seen) == 16


def test_each_position_receives_each_sample_equally_often() -> None:
    n, epochs = 5, 4000
    counts = np.zeros((n, n))
    for epoch in range(epochs):
        counts[np.arange(n), Shuffled(n, n, seed=0).batch(epoch, 0)] += 1
    # chi-square with (n-1)^2 = 16 degrees of freedom: mean 16, deviation 5.7
    assert ((counts - epochs / n) ** 2 / (epochs / n)).sum() < 16 + 5 * 5.7


def test_an_order_cannot_be_changed_through_a_batch() -> None:
    with pytest.raises(ValueError, match="read-only"):
        Shuffled(10, 5, seed=0).batch(0, 0)[0] = 1


def test_a_step_outside_the_epoch_is_refused() -> None:
    with pytest.raises(IndexError, match=r"0\.\.4"):
        Shuffled(37, 8, seed=0).batch(0, 5)


def test_keys_differ_between_seeds_steps_and_parts() -> None:
    keys = {step_key(s, k, p) for s in range(5) for k in range(20) for p in range(5)}
    assert len(keys) == 500
    assert all(0 <= k < 2**63 for k in keys)
