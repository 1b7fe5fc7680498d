"""Dense, padded and packed batches say the same as a loop over their samples."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sciffusion.layout import Dense, Layout, Masked, Packed
from sciffusion.testing import check_layout
from tests.core.cases import dense, in_every_layout, packed, padded, points, randn

HOW: list[Literal["sum", "mean"]] = ["sum", "mean"]
SHAPES = [(4, 3), (4, 4), (4,), (4, 4, 4), (1, 1), (3, 2, 4, 5)]


@pytest.mark.parametrize("features", [(), (1,), (3,), (4, 2)])
def test_every_layout_agrees_with_a_loop_over_its_samples(features: tuple[int, ...]) -> None:
    for field, layout, samples in in_every_layout(features):
        check_layout(layout, field, samples)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6))
def test_layouts_agree_with_a_loop_for_samples_of_any_size(sizes: list[int]) -> None:
    samples = points(sizes)
    for field, layout in (padded(samples), packed(samples)):
        check_layout(layout, field, samples)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_number_per_sample_scales_its_own_sample_whatever_the_shape(
    shape: tuple[int, ...],
) -> None:
    x, c, layout = randn(*shape), randn(shape[0], seed=1), Dense(shape[0])
    want = torch.stack([ci * xi for ci, xi in zip(c, x, strict=True)])
    assert torch.equal(layout.expand(c, x) * x, want)
    for how in HOW:
        loop = torch.stack([getattr(xi, how)() for xi in x])
        assert torch.allclose(layout.reduce(x, how), loop, rtol=0, atol=1e-12)
    assert layout.count(x).tolist() == [xi.numel() for xi in x]


def test_a_number_per_sample_never_lands_on_the_points_of_a_square_batch() -> None:
    samples, c = points((4, 4, 4, 4), (4,)), randn(4, seed=9)
    want = [ci * s for ci, s in zip(c, samples, strict=True)]
    for make in (dense, packed):
        field, layout = make(samples)
        assert torch.equal(layout.expand(c, field) * field, make(want)[0])
    field, masked = padded(samples)
    assert torch.equal((masked.expand(c, field) * field)[masked.mask], torch.cat(want))


def test_a_number_per_element_stays_with_its_element() -> None:
    for field, layout, _ in in_every_layout():
        per_point = torch.arange(field[..., 0].numel(), dtype=field.dtype).reshape(field.shape[:-1])
        assert torch.equal(
            layout.clean(layout.expand(per_point, field) * field),
            layout.clean(per_point[..., None] * field),
        )


@pytest.mark.parametrize("garbage", [1e6, -1e6, float("nan"), float("inf")])
def test_what_lies_outside_the_samples_reaches_no_sum(garbage: float) -> None:
    samples = points()
    field, layout = padded(samples)
    dirty = torch.where(layout.mask[..., None], field, garbage)
    for how in HOW:
        assert torch.equal(layout.reduce(dirty, how), layout.reduce(field.nan_to_num(0.0), how))
    assert bool((layout.clean(dirty)[~layout.mask] == 0).all())


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_assembling_the_parts_of_a_field_returns_the_field(sizes: list[int]) -> None:
    samples = points(sizes, (2,))
    for field, layout in (padded(samples), packed(samples)):
        assert layout.parts(field) == [tuple(s.shape) for s in samples]
        built = layout.assemble(samples, field)
        assert torch.equal(built, layout.clean(field))
    field, even = dense([samples[0]] * 3)
    assert torch.equal(even.assemble([samples[0]] * 3, field), field)


def test_a_mean_over_integers_is_their_mean_and_one_over_nothing_zero() -> None:
    classes = torch.tensor([[1, 2], [3, 4]])
    assert Dense(2).reduce(classes, "mean").tolist() == [1.5, 3.5]
    assert Dense(2).reduce(torch.zeros(2, 0), "mean").tolist() == [0.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.bfloat16, torch.float16])
def test_narrow_numbers_are_summed_alike_in_every_layout(dtype: torch.dtype) -> None:
    """A thousand ones are a thousand: not True, not 232, and not the 256 at which bfloat16 stops counting."""
    index = torch.repeat_interleave(torch.arange(2), 1000)
    ones = torch.ones(2000, dtype=dtype)
    for field, layout in (
        (ones, Packed(index, 2)),
        (ones.reshape(2, 1000), Dense(2)),
        (ones.reshape(2, 1000), Masked(torch.ones(2, 1000, dtype=torch.bool))),
    ):
        assert layout.reduce(field).tolist() == [1000, 1000]
        assert layout.reduce(field).is_floating_point() == dtype.is_floating_point


@pytest.mark.parametrize(
    ("index", "size", "message"),
    [
        (torch.tensor([0, 1, 0]), 2, "sorted"),
        (torch.tensor([0, 2]), 3, "at least once"),
        (torch.tensor([0, 1, 2]), 2, "at least once"),
        (torch.tensor([0, 1]), 3, "at least once"),
        (torch.tensor([0.0, 1.0]), 2, "integers"),
        (torch.tensor([[0, 1]]), 2, "vector"),
    ],
)
def test_a_packed_index_that_is_no_partition_is_refused(
    index: Tensor, size: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Packed(index, size)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(2, 3), "boolean"),
        (torch.ones(3, dtype=torch.bool), "boolean of shape"),
        (torch.tensor([[True], [False]]), "without any point"),
    ],
)
def test_a_mask_that_is_no_mask_is_refused(mask: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Masked(mask)


def test_a_number_of_another_shape_is_refused() -> None:
    for field, layout, samples in in_every_layout():
        for shape in ((len(samples) + 20,), (len(samples), 99)):
            with pytest.raises(ValueError, match="neither"):
                layout.expand(torch.zeros(shape), field)


def test_a_sample_is_itself_in_each_layout() -> None:
    """Pooling and spreading give each point the sum over its own sample, in every layout."""
    samples = points()
    layouts: list[tuple[Tensor, Layout]] = [padded(samples), packed(samples)]
    rows = []
    for field, layout in layouts:
        spread = layout.spread(layout.pool(field), field).expand(field.shape)
        rows.append(spread[layout.mask] if isinstance(layout, Masked) else spread)
    assert torch.allclose(rows[0], rows[1], rtol=0, atol=1e-12)
