"""Operators: what they observe, and that the derivative and its transpose belong together."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from sciffusion.inverse import (
    STFT,
    Blur,
    CoarseGrain,
    Each,
    FieldOperator,
    Fourier,
    Function,
    Linearised,
    Mask,
    Operator,
    Subsample,
)
from sciffusion.inverse.vectors import conjugate_gradient, dot
from sciffusion.layout import Dense
from sciffusion.state import State, Value
from tests.core.cases import in_every_layout, name, randn

CHECKER = (torch.arange(4)[:, None] + torch.arange(6)) % 2 == 0
KEEP = torch.arange(4 * 4).reshape(4, 4) % 3 == 0
GRID: list[FieldOperator] = [
    Mask(CHECKER[None, None]),
    Subsample(2, (-2, -1), 1),
    Subsample(3),
    CoarseGrain(2),
    CoarseGrain(3, (-1,)),
    Blur(randn(3, 2, seed=1)),
    Blur(randn(2, 3, seed=1), (-1, -2)),
    Blur(randn(3, 4, seed=1), boundary="zero"),
    Blur(randn(5, seed=2), (-1,), "zero"),
    Fourier(KEEP),
    STFT(4, 2),
    STFT(4, 1, (0, 2)),
]


def tensor(x: Value) -> Tensor:
    assert isinstance(x, Tensor)
    return x


def square(x: Value) -> Value:
    return tensor(x) ** 2 + tensor(x).roll(1, -1).sin()


@pytest.mark.parametrize("operator", [*GRID, Function(square)], ids=name)
def test_the_derivative_and_its_transpose_are_adjoint(operator: Operator) -> None:
    x = randn(3, 2, 4, 6).requires_grad_()
    local = Linearised(operator, x)
    u, y = randn(3, 2, 4, 6, seed=1), tensor(local.value)
    v = randn(*y.shape, seed=2)
    forward = local.forward(u)
    assert torch.allclose(dot(forward, v), dot(u, local.transpose(v)), rtol=1e-12)
    h = 1e-6
    slope = (tensor(operator(x + h * u)) - tensor(operator(x - h * u))) / (2 * h)
    assert torch.allclose(tensor(forward), slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("operator", GRID, ids=name)
def test_linear_operators_are_linear_and_act_on_each_sample(operator: FieldOperator) -> None:
    a, b = randn(3, 2, 4, 6), randn(3, 2, 4, 6, seed=1)
    both = operator(2 * a - b)
    assert torch.allclose(tensor(both), 2 * tensor(operator(a)) - tensor(operator(b)), atol=1e-12)
    each = torch.cat([tensor(operator(row[None])) for row in a])
    assert torch.equal(tensor(operator(a)), each)


def test_operators_observe_what_they_say() -> None:
    x = randn(2, 3, 4, 6)
    assert torch.equal(tensor(Subsample(2, (-2, -1), 1)(x)), x[..., 1::2, 1::2])
    blocks = x.unfold(-2, 2, 2).unfold(-2, 2, 2).mean((-1, -2))
    assert torch.allclose(tensor(CoarseGrain(2)(x)), blocks)
    spectrum = torch.fft.rfftn(x, dim=(-2, -1), norm="ortho")[..., KEEP]
    assert torch.equal(tensor(Fourier(KEEP)(x)), torch.view_as_real(spectrum))
    window = torch.hann_window(4, dtype=x.dtype)
    stft = torch.stft(
        x.reshape(-1, 6), 4, 2, window=window, center=False, normalized=True, return_complex=True
    )
    assert torch.allclose(
        tensor(STFT(4, 2)(x)).reshape(-1, 3, 2, 2), torch.view_as_real(stft), atol=1e-12
    )


@pytest.mark.parametrize("boundary", ["periodic", "zero"])
def test_a_blur_is_the_convolution_with_its_kernel(boundary: str) -> None:
    x, k = randn(2, 3, 5, 7), randn(3, 4, seed=1)
    want = torch.zeros_like(x)
    for i in range(3):
        for j in range(4):
            up, left = 1 - i, 2 - j  # y_i = sum_j k_j x_{i - j + c}
            moved = x.roll((-up, -left), (-2, -1))
            if boundary == "zero":
                rows, columns = torch.arange(5) + up, torch.arange(7) + left
                inside = ((rows >= 0) & (rows < 5))[:, None] & ((columns >= 0) & (columns < 7))
                moved = moved * inside
            want += k[i, j] * moved
    got = Blur(k, (-2, -1), boundary)(x)  # type: ignore[arg-type]
    assert torch.allclose(tensor(got), want, atol=1e-12)
    turned = Blur(k.T, (-1, -2), boundary)(x)  # type: ignore[arg-type]
    assert torch.allclose(tensor(turned), want, atol=1e-12)


def test_a_mask_keeps_each_layout_and_ignores_what_it_hides() -> None:
    for field, layout, _ in in_every_layout():
        mask = torch.rand(field.shape, generator=torch.Generator().manual_seed(3)) < 0.5
        operator = Mask(mask, "x")
        y = operator(State({"x": field, "other": field}, layout))
        assert isinstance(y, State) and list(y) == ["x"] and y.layout("x") is layout
        assert torch.equal(y["x"], layout.clean(field.masked_fill(~mask, 0)))
        dirty = State({"x": torch.where(mask, y["x"], float("nan"))}, layout)
        clean = operator.valid(dirty)
        assert isinstance(clean, State) and torch.equal(clean["x"], y["x"])


def test_several_fields_are_observed_by_name() -> None:
    x = State({"a": randn(2, 4), "b": randn(2, 6, seed=1)}, Dense(2))
    both = Each({"b": Subsample(2, field="b"), "a": Mask(torch.ones(1, 4) > 0, "a")})
    y = both(x)
    assert isinstance(y, State) and list(y) == ["b", "a"] and y["b"].shape == (2, 3)
    with pytest.raises(ValueError, match="under their fields' names"):
        Each({"a": Subsample(2, field="b")})
    with pytest.raises(ValueError, match="field must name one of"):
        Subsample(2)(x)


def test_wrong_operators_are_refused() -> None:
    with pytest.raises(ValueError, match="boolean"):
        Mask(torch.ones(2, 3))
    with pytest.raises(ValueError, match="does not fit"):
        Mask(torch.ones(3) > 0)(randn(3, 3))
    with pytest.raises(ValueError, match="negative axes"):
        Blur(torch.ones(3), (1,))
    with pytest.raises(ValueError, match="longer than the field"):
        Blur(torch.ones(9), (-1,))(randn(2, 5))
    with pytest.raises(ValueError, match="does not divide"):
        CoarseGrain(2, (-1,))(randn(2, 5))
    with pytest.raises(ValueError, match="keep has shape"):
        Fourier(torch.ones(4) > 0, (-1,))(randn(2, 5))
    with pytest.raises(ValueError, match="stride"):
        Subsample(2, offset=2)
    field, layout, _ = in_every_layout()[0]
    with pytest.raises(ValueError, match="needs a dense field"):
        CoarseGrain(1, (-1,), "x")(State({"x": field}, layout))


def test_conjugate_gradients_solve_each_sample_by_itself() -> None:
    root = randn(4, 5, 5)
    matrix = root @ root.mT + 0.1 * torch.eye(5)
    matrix[3] = 1e6 * torch.eye(5)  # solved at once, while the others go on
    b = randn(4, 5, seed=1)
    b[1], b[2] = 1e3 * b[1], 0.0

    def apply(m: Tensor, v: Value) -> Value:
        return (m @ tensor(v)[:, :, None])[:, :, 0]

    got = tensor(conjugate_gradient(partial(apply, matrix), b, 30, 1e-13))
    assert torch.allclose(got, torch.linalg.solve(matrix, b), rtol=1e-9)
    for iters, tol in ((1, 1e-6), (3, 1e-6), (30, 1e-6), (30, 0.05)):
        whole = tensor(conjugate_gradient(partial(apply, matrix), b, iters, tol))
        for i in range(4):
            own = partial(apply, matrix[i : i + 1])
            alone = conjugate_gradient(own, b[i : i + 1], iters, tol)
            assert torch.allclose(whole[i], tensor(alone)[0], rtol=1e-12)
