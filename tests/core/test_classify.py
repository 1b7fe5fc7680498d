"""A conditional denoiser as a classifier: for exact denoisers its posterior is Bayes' own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor

from sciffusion import oracle
from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.inverse import HiddenFields
from sciffusion.layout import Dense
from sciffusion.likelihood import log_posterior
from sciffusion.noise import Noise, sample_seeds
from sciffusion.process import Gaussian, Joint, Jump
from sciffusion.schedule import VE, RectifiedFlow, Schedule
from sciffusion.space import Categorical, Euclidean, ZeroCoM
from sciffusion.state import State, Value, batch_of
from tests.core.cases import mixture, name, packed, padded, points, randn, rng
from tests.core.pairs import Pairs, pair

FLOW = RectifiedFlow()
LABELS = [{"label": torch.tensor(c)} for c in range(3)]


class Classes(Denoiser):
    """The exact denoiser of each of several classes; ``cond`` tells which, (B,)."""

    def __init__(self, laws: Sequence[Denoiser]) -> None:
        super().__init__()
        self.laws, self.process = list(laws), laws[0].process
        self.told: list[list[int]] = []

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        label = cond["label"]
        assert label.shape == (batch_of(x_t),)
        self.told.append(label.tolist())
        made = [self.process.fields(law(x_t, t).x0) for law in self.laws]
        out = {}
        for k, x in self.process.fields(x_t).items():
            layout = x_t.layout(k) if type(x_t) is State and k is not None else Dense(len(label))
            out[k] = torch.zeros_like(x)
            for c, fields in enumerate(made):
                out[k] = torch.where(layout.expand(label == c, x), fields[k], out[k])
        return Prediction(self.process.rebuild(x_t, out), x_t, t, self.process)


def classes(schedule: Schedule = FLOW) -> Classes:
    """Three overlapping mixtures."""
    process = Gaussian(schedule, Euclidean(0.8))
    return Classes([mixture(process, shift=0.4 * c) for c in range(3)])


def bayes(laws: Classes, x: Tensor, t: float | None = None) -> Tensor:
    """The log-densities of every class, (B, K)."""
    return torch.stack(
        [law.log_prob(x, t) for law in laws.laws if isinstance(law, oracle.Mixture)], 1
    )


@pytest.mark.parametrize("schedule", [FLOW, VE(1e-4, 1e3)], ids=name)
def test_of_exact_denoisers_the_posterior_is_that_of_bayes(schedule: Schedule) -> None:
    laws, repeats = classes(schedule), 400
    x = mixture(shift=0.3).sample(3, rng())
    prior = torch.tensor([0.2, 0.5, 0.3]).double().log()
    got = log_posterior(
        laws,
        x.repeat_interleave(repeats, 0),
        LABELS,
        log_prior=prior,
        draws=20,
        rounds=1,
        batch_size=3600,
    )
    assert torch.allclose(got.exp().sum(1), torch.ones(len(got)).double())
    # the differences of the bounds are unbiased, their softmax is not
    got, want = (v[:, 1:] - v[:, :1] for v in (got, bayes(laws, x) + prior))
    got = got.reshape(3, repeats, 2)
    error, se = got.mean(1) - want, got.std(1) / math.sqrt(repeats)
    assert bool((error.abs() < 4 * se + 1e-3).all())
    assert float(se.max()) < 0.05
    assert float(want.abs().max()) > 1


def test_with_more_draws_it_converges() -> None:
    laws, x = classes(), mixture().sample(24, rng(1))
    want = bayes(laws, x).log_softmax(1)
    few, many = (log_posterior(laws, x, LABELS, draws=n, rounds=2) for n in (4, 64))
    errors = [float((got - want).square().mean().sqrt()) for got in (few, many)]
    assert errors[1] < 0.12
    assert errors[1] < errors[0] / 2


def test_up_to_a_noise_level_it_is_that_of_data_blurred_as_much() -> None:
    laws, x, repeats = classes(), mixture().sample(2, rng(2)), 400
    t = float(FLOW.time(1.0))
    x_t = laws.process.perturb(x.repeat_interleave(4000, 0), torch.tensor(t), Noise(0)).x_t
    assert isinstance(x_t, Tensor)
    drawn = bayes(laws, x_t, t).reshape(2, 4000, 3)
    drawn = drawn - drawn[..., :1]
    want, spread = drawn.mean(1), drawn.std(1) / math.sqrt(4000)
    got = log_posterior(
        laws, x.repeat_interleave(repeats, 0), LABELS, draws=16, rounds=1, high=1.0, batch_size=3000
    )
    got = (got - got[:, :1]).reshape(2, repeats, 3)
    se = (spread**2 + got.var(1) / repeats).sqrt()
    assert bool(((got.mean(1) - want).abs() <= 4 * se + 1e-3).all())
    clean = bayes(laws, x)
    assert float((want - (clean - clean[:, :1])).abs().max()) > 10 * float(se.max())


def test_classes_of_a_sample_share_their_noise() -> None:
    """Two classes that are the same are equally likely, to the last bit, from a single draw."""
    same = [LABELS[1], {"label": torch.ones(5, dtype=torch.long)}, LABELS[0]]
    with pytest.raises(ValueError, match="class 1 differs from class 0"):
        log_posterior(classes(), randn(5, 2), same)
    same = [{"label": torch.full((5,), c)} for c in (1, 1, 0)]
    got = log_posterior(classes(), randn(5, 2), same, draws=1, rounds=1)
    assert torch.equal(got[:, 0], got[:, 1])
    assert not torch.equal(got[:, 0], got[:, 2])


def test_a_sample_has_its_posterior_in_any_batch_and_order() -> None:
    laws, x = classes(), mixture().sample(5, rng(3))
    settings = {"draws": 2, "rounds": 3, "margin": 0.5}
    whole = log_posterior(laws, x, LABELS, 7, **settings)  # type: ignore[arg-type]
    assert torch.equal(log_posterior(laws, x[:2], LABELS, 7, **settings), whole[:2])  # type: ignore[arg-type]
    seeds = sample_seeds(7, 5)
    alone = log_posterior(laws, x[3:4], LABELS, seeds[3:4], batch_size=1, **settings)  # type: ignore[arg-type]
    assert torch.allclose(alone, whole[3:4], rtol=0, atol=1e-12)
    again = log_posterior(laws, x, LABELS, 8, **settings)  # type: ignore[arg-type]
    assert not torch.equal(again, whole)


def test_classes_may_come_in_any_order_and_each_sample_with_its_own() -> None:
    laws, x = classes(), mixture().sample(4, rng(4))
    whole = log_posterior(laws, x, LABELS, draws=2, margin=1.0)
    turned = log_posterior(laws, x, [LABELS[c] for c in (2, 0, 1)], draws=2, margin=1.0)
    assert torch.allclose(turned, whole[:, [2, 0, 1]], rtol=0, atol=1e-12)
    # the first class of sample i is i modulo 3
    own = [{"label": (torch.arange(4) + c) % 3} for c in range(3)]
    mixed = log_posterior(laws, x, own, draws=2, margin=1.0)
    for i in range(4):
        order = [(i + c) % 3 for c in range(3)]
        assert torch.allclose(mixed[i], whole[i, order], rtol=0, atol=1e-12)


def test_what_lies_far_behind_is_given_up_and_changes_nothing_for_the_others() -> None:
    process = Gaussian(FLOW)
    laws = Classes(
        [
            oracle.Gaussian(m + torch.zeros(2).double(), torch.eye(2).double(), process)
            for m in (0.0, 0.3, 9.0)
        ]
    )
    x = 0.1 * randn(4, 2)
    full = log_posterior(laws, x, LABELS, draws=8, rounds=3)
    calls, laws.told = sum(map(len, laws.told)), []
    short = log_posterior(laws, x, LABELS, draws=8, rounds=3, margin=15.0)
    assert sum(map(len, laws.told)) == calls * 7 // 9
    assert [len(told) for told in laws.told] == [12] * 16 + [8] * 32
    assert torch.allclose(short[:, :2], full[:, :2], rtol=0, atol=1e-9)
    # its distance from the best stays what it was in the one round that it took part in
    first = log_posterior(laws, x, LABELS, draws=8, rounds=1)
    best = short.argmax(1, keepdim=True)
    far, once = (p[:, 2:] - p.gather(1, best) for p in (short, first))
    assert torch.allclose(far, once, rtol=0, atol=1e-9)
    assert bool((far < -15).all())


def test_a_class_that_is_ruled_out_costs_nothing() -> None:
    laws, x = classes(), mixture().sample(3, rng(5))
    prior = torch.tensor([0.0, -math.inf, 0.0])
    got = log_posterior(laws, x, LABELS, log_prior=prior, draws=2)
    assert bool((got[:, 1] == -math.inf).all())
    assert not any(1 in told for told in laws.told)
    two = log_posterior(laws, x, [LABELS[0], LABELS[2]], draws=2)
    assert torch.allclose(got[:, [0, 2]], two, rtol=0, atol=1e-12)
    certain = torch.tensor([[0, -math.inf], [-math.inf, 0], [-math.inf, 0]])
    got = log_posterior(laws, x, LABELS[:2], log_prior=certain, draws=1)
    assert torch.equal(got, certain.double())


def test_one_class_is_certain_with_or_without_a_condition() -> None:
    assert torch.equal(
        log_posterior(classes(), randn(3, 2), LABELS[:1], draws=1), torch.zeros(3, 1).double()
    )
    assert torch.equal(
        log_posterior(mixture(), randn(3, 2), [None], draws=1), torch.zeros(3, 1).double()
    )


def test_data_of_single_precision_have_the_posterior_of_double() -> None:
    laws, x = classes(), mixture().sample(6, rng(6))
    got = log_posterior(laws, x.float(), LABELS, draws=160, rounds=1)
    assert got.dtype == torch.float64
    assert torch.allclose(got.exp(), bayes(laws, x).softmax(1), rtol=0, atol=0.06)
    assert torch.equal(got, log_posterior(laws, x.float(), LABELS, draws=160, rounds=1))


def test_clouds_of_points_are_told_apart_packed_and_padded() -> None:
    process, repeats = Joint({"pos": Gaussian(FLOW, ZeroCoM())}), 100
    scales = (0.9, 1.2, 1.5)
    laws = Classes([oracle.PointCloud(s, process, "pos") for s in scales])
    got = []
    for field, layout in (packed(points() * repeats), padded(points() * repeats)):
        x = State({"pos": field}, layout)
        p = log_posterior(laws, x, LABELS, draws=16, rounds=1, low=-7.0, batch_size=1200)
        got.append((p - p[:, :1]).reshape(repeats, -1, 3)[..., 1:])
        law = [oracle.PointCloud(s, process, "pos").log_prob(x)[: len(points())] for s in scales]
        want = torch.stack([law[1] - law[0], law[2] - law[0]], 1)
        error, se = got[-1].mean(0) - want, got[-1].std(0) / math.sqrt(repeats)
        assert bool((error.abs() < 4 * se + 2e-3).all())
        assert float(se.max()) < 0.15
    assert torch.allclose(got[0], got[1], rtol=0, atol=1e-6)


def test_one_field_of_a_state_tells_the_class_with_the_others_hidden() -> None:
    class Labelled(Denoiser):
        """Pairs whose second field is moved by the class."""

        def __init__(self) -> None:
            super().__init__()
            self.pairs = Pairs()
            self.process = self.pairs.process

        def forward(
            self,
            x_t: Value,
            t: Tensor | Mapping[str, Tensor],
            cond: Condition = None,
            previous: Value | None = None,
        ) -> Prediction:
            assert isinstance(x_t, State) and isinstance(t, Mapping)
            shift = cond["label"][:, None].double()
            x0 = self.pairs(x_t.replace({"b": x_t["b"] - (1 - t["b"])[:, None] * shift}), t).x0
            assert isinstance(x0, State)
            return Prediction(x0.replace({"b": x0["b"] + shift}), x_t, t["b"], self.process)

    x = pair(randn(4, 1), randn(4, 1, seed=1))
    got = log_posterior(HiddenFields(Labelled(), ["a"]), x, LABELS[:2], draws=128, rounds=1)
    law = torch.distributions.Normal(torch.tensor([-1.0, 0.0]).double(), math.sqrt(1.5))
    want = law.log_prob(x["b"]).softmax(1)
    assert torch.allclose(got.exp(), want, rtol=0, atol=0.03)
    moved = log_posterior(
        HiddenFields(Labelled(), ["a"]),
        x.replace({"a": x["a"] + 9}),
        LABELS[:2],
        draws=128,
        rounds=1,
    )
    assert torch.allclose(moved, got, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"conditions": []}, "conditions is empty"),
        ({"draws": 0}, "must be at least 1 and margin positive, got 0, 4, 64, inf"),
        ({"margin": 0.0}, "margin positive"),
        ({"conditions": [LABELS[0], {"digit": torch.tensor(1)}]}, "class 1 differs from class 0"),
        ({"conditions": [LABELS[0], None]}, "class 1 differs from class 0"),
        (
            {"conditions": [{"label": torch.tensor([1, 2])}]},
            r"a tensor of shape \(2,\) for a batch of 3",
        ),
        ({"conditions": [{"label": "seven"}]}, "must hold tensors, got a str"),
        ({"conditions": [pair(randn(3, 1), randn(3, 1))]}, "must hold tensors, got a State"),
        ({"log_prior": torch.zeros(2)}, r"log_prior must be \(3,\) or \(3, 3\), got \(2,\)"),
        ({"log_prior": torch.full((3,), -math.inf)}, "log_prior must be finite for a class"),
        ({"log_prior": torch.tensor([0, 0, math.nan])}, "and never NaN"),
        ({"seed": [1, 2]}, "seed has 2 entries for 3 samples"),
        ({"low": 30.0}, "lies between low=30.0 and high=10.0"),
        ({"x0": torch.full((3, 2), math.nan)}, "x is not finite"),
        ({"denoiser": mixture().given(None)}, "cond is bound already"),
        (
            {
                "denoiser": oracle.Categorical(torch.full((3,), 1 / 3), Jump(FLOW, Categorical(3))),
                "x0": torch.zeros(3, 4, dtype=torch.long),
            },
            "its noise is not Gaussian",
        ),
    ],
)
def test_what_cannot_be_told_apart_is_refused(arguments: dict[str, object], message: str) -> None:
    known = {"denoiser": classes(), "x0": randn(3, 2), "conditions": LABELS}
    with pytest.raises(ValueError, match=message):
        log_posterior(**known | arguments)  # type: ignore[arg-type]


def test_a_broken_network_is_no_classifier() -> None:
    class Broken(Denoiser):
        process = Gaussian(FLOW)

        def forward(
            self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
        ) -> Prediction:
            assert isinstance(x_t, Tensor)
            return Prediction(math.nan * x_t, x_t, t, self.process)

    with pytest.raises(RuntimeError, match="predictions are not finite"):
        log_posterior(Broken(), randn(2, 2), LABELS, draws=1)
