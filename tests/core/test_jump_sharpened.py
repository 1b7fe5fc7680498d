"""Predictions of classes made more decided."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.guidance import Sharpened
from sciffusion.layout import Dense
from sciffusion.noise import Noise
from sciffusion.oracle_jump import Sequences
from sciffusion.process import Gaussian, Joint, Jump
from sciffusion.samplers import DDIM, Sampler
from sciffusion.schedule import Cosine
from sciffusion.space import Categorical
from sciffusion.state import State, Value
from tests.core.cases import default_dtype, mixture, padded

T = torch.tensor(0.5)
P = torch.tensor([[[0.5, 0.1, 0.25, 0.15], [0.0, 0.4, 0.4, 0.2]]], dtype=torch.float64)
JUMP = Jump(Cosine(), Categorical(4, absorbing=True))


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with default_dtype(torch.float64):
        yield


class Says(Denoiser):
    """Says the same whatever it is shown, and moves the point one class on."""

    def __init__(self, p: Tensor = P) -> None:
        super().__init__()
        self.p, self.process = p, JUMP

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        assert isinstance(x_t, Tensor)
        return Prediction(self.p, x_t + 1, t, self.process)


def sharpened(temperature: float, top_p: float, p: Tensor = P) -> Tensor:
    out = Sharpened(Says(p), temperature, top_p)(torch.zeros(p.shape[:-1], dtype=torch.long), T)
    assert isinstance(out.x0, Tensor) and isinstance(out.x_t, Tensor)
    assert int(out.x_t.min()) == 1  # where the inner denoiser moved it
    return out.x0


def test_one_is_neutral() -> None:
    assert torch.equal(sharpened(1.0, 1.0), P)


@pytest.mark.parametrize("temperature", [0.3, 0.7, 2.0])
def test_temperature_raises_probabilities_to_a_power(temperature: float) -> None:
    want = P ** (1 / temperature)
    want = want / want.sum(-1, keepdim=True)
    assert torch.allclose(sharpened(temperature, 1.0), want, rtol=1e-12)


def test_zero_temperature_is_the_likeliest_class_and_the_limit_of_low_ones() -> None:
    got = sharpened(0.0, 1.0)
    assert got.argmax(-1).tolist() == [[0, 1]] and bool((got.sum(-1) == 1).all())
    assert torch.allclose(sharpened(1e-3, 1.0)[0, 0], got[0, 0], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(0.2, [0]), (0.5, [0]), (0.6, [0, 2]), (0.8, [0, 2, 3]), (0.95, [0, 1, 2, 3])],
)
def test_the_nucleus_is_the_smallest_set_that_has_the_mass(top_p: float, kept: list[int]) -> None:
    got = sharpened(1.0, top_p)[0, 0]
    want = torch.zeros(4)
    want[kept] = P[0, 0, kept] / P[0, 0, kept].sum()
    assert torch.allclose(got, want, rtol=1e-12)


def test_the_nucleus_is_that_of_the_sharpened_probabilities() -> None:
    hot = sharpened(0.5, 1.0)
    assert torch.equal(sharpened(0.5, 0.75), sharpened(1.0, 0.75, hot))
    assert (
        float(sharpened(1.0, 0.75)[0, 0, 1:].sum()) > 0
    )  # while 0.5 is too little at temperature 1
    assert float(sharpened(0.5, 0.7)[0, 0, 1:].sum()) == 0


def test_samples_at_zero_temperature_are_one_sequence_in_the_order_that_they_appear() -> None:
    table = torch.tensor([[0.4, 0.0], [0.25, 0.35]])
    process = Jump(Cosine(), Categorical(2, absorbing=True))
    start = process.prior(torch.zeros(200, 2, dtype=torch.long), Noise(0))
    x = Sampler(DDIM(), 30)(Sharpened(Sequences(table, process), 0.0), start, 1).x
    assert isinstance(x, Tensor)
    # the first position is 1 with 0.6 and the second 0 with 0.65: whichever comes first decides
    found = {tuple(row) for row in x.tolist()}
    assert found <= {(1, 1), (0, 0), (1, 0)} and {(1, 1), (0, 0)} <= found


class Both(Denoiser):
    def __init__(self) -> None:
        super().__init__()
        self.process = Joint({"x": Gaussian(Cosine()), "k": JUMP})

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        assert isinstance(x_t, State)
        p = torch.full((*x_t["k"].shape, 4), math.nan)
        p[0, :2] = P[0]
        return Prediction(x_t.replace({"k": p}), x_t, t, self.process)


def test_other_fields_are_left_alone_and_padding_stays_outside() -> None:
    k, layout = padded([torch.tensor([0, 1]), torch.tensor([2])])
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    state = State({"x": x, "k": k}, {"x": Dense(2), "k": layout})
    for temperature, top_p in ((0.5, 1.0), (0.0, 1.0), (1.0, 0.7)):
        out = Sharpened(Both(), temperature, top_p)(state, T).x0
        assert isinstance(out, State)
        assert torch.equal(out["x"], x)
        assert torch.equal(out["k"][0, :2], sharpened(temperature, top_p)[0])


def test_what_cannot_be_sharpened_is_refused() -> None:
    with pytest.raises(ValueError, match="temperature must not be negative"):
        Sharpened(Says(), -1.0)
    for top_p in (0.0, 1.5):
        with pytest.raises(ValueError, match="top_p must lie in"):
            Sharpened(Says(), 1.0, top_p)
    with pytest.raises(ValueError, match="jumps"):
        Sharpened(mixture())(torch.zeros(1, 2), T)
