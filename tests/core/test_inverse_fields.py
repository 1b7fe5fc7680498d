"""Laws of fields that are known or hidden: conditional and marginal laws of an exact denoiser of pairs."""

import pytest
import torch
from torch import Tensor, nn

from sciffusion.denoiser import Preconditioned
from sciffusion.grid import FlowTime
from sciffusion.guidance import Autoguidance
from sciffusion.inverse import Apart, HiddenFields, KnownFields
from sciffusion.layout import Dense
from sciffusion.noise import Noise
from sciffusion.objective import Objective
from sciffusion.oracle import Categorical as Classes
from sciffusion.process import Gaussian, Joint, Jump
from sciffusion.samplers import Heun, Sampler
from sciffusion.schedule import RectifiedFlow
from sciffusion.space import Categorical
from sciffusion.state import State
from tests.core.pairs import COVARIANCE, MEAN, Pairs, pair

YES, NO = torch.tensor(True), torch.tensor(False)


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def normal(n: int) -> State:
    noise = Noise(list(range(n)))
    a, b = (noise.normal(torch.zeros(n, 1).double(), Dense(n)) for _ in range(2))
    return pair(a, b)


def law(denoiser: KnownFields, field: str) -> tuple[float, float]:
    """Mean and variance of a field at the end of the flow, which is affine in its start."""
    start = pair(column(0, 1), column(0, 1))
    x = Sampler(Heun(), 100, FlowTime())(denoiser, start).x
    assert isinstance(x, State)
    mean, unit = x[field][:, 0].tolist()
    return mean, (unit - mean) ** 2


def test_a_known_field_leads_to_the_conditional_law_of_the_other() -> None:
    known = pair(column(99, -99), column(1.7, 1.7))  # what is not known is not looked at
    denoiser = KnownFields(Pairs(), known, {"b": YES})
    mean, variance = law(denoiser, "a")
    gain = float(COVARIANCE[0, 1] / COVARIANCE[1, 1])
    assert abs(mean - float(MEAN[0]) - gain * (1.7 - float(MEAN[1]))) < 2e-3
    assert abs(variance - float(COVARIANCE[0, 0]) + gain * float(COVARIANCE[0, 1])) < 2e-3


def test_a_hidden_field_leads_to_the_marginal_law_of_the_other() -> None:
    denoiser = KnownFields(Pairs(), pair(column(5, 5), column(5, 5)), {}, {"a": YES})
    mean, variance = law(denoiser, "b")
    assert abs(mean - float(MEAN[1])) < 2e-3
    assert abs(variance - float(COVARIANCE[1, 1])) < 2e-3


def test_hiding_fields_needs_no_batch_and_says_of_the_others_what_knowing_nothing_says() -> None:
    x, t = normal(3), torch.tensor(0.4)
    hidden, want = (
        d(x, t).x0 for d in (HiddenFields(Pairs(), ["a"]), KnownFields(Pairs(), x, {}, {"a": YES}))
    )
    assert isinstance(hidden, State) and isinstance(want, State)
    assert torch.equal(hidden["b"], want["b"])
    assert torch.equal(hidden["a"], x["a"])
    other = HiddenFields(Pairs(), ["a"])(x.replace({"a": x["a"] + 1}), t).x0
    assert isinstance(other, State)
    assert torch.equal(other["b"], want["b"])


def test_known_fields_come_back_bit_by_bit() -> None:
    known = pair(column(0.1, 0.2, 0.3), column(1, 2, 3))
    denoiser = KnownFields(Pairs(), known, {"a": torch.tensor([True, False, True])})
    x = Sampler(Heun(), 4, FlowTime())(denoiser, normal(3)).x
    assert isinstance(x, State)
    assert torch.equal(x["a"][::2], known["a"][::2])
    assert x["a"][1] != known["a"][1]
    assert not torch.isclose(x["b"], known["b"]).any()


def test_each_sample_has_times_of_its_own_and_neither_known_nor_hidden_cost_a_loss() -> None:
    inner, x = Pairs(), normal(3)
    shown = {"a": torch.tensor([True, False, False])}
    hidden = {"a": torch.tensor([False, True, False]), "b": torch.tensor([False, False, True])}
    loss = Objective(inner.process)(KnownFields(inner, x, shown, hidden), x, noise=Noise([1, 2, 3]))
    a, b = inner.seen[0]["a"].tolist(), inner.seen[0]["b"].tolist()
    assert a[:2] == [0.0, 1.0]
    assert 0 < a[2] < 1
    assert b[2] == 1.0
    assert inner.inputs[0]["a"][0] == x["a"][0]
    assert [float(inner.inputs[0][k][i]) for k, i in (("a", 1), ("b", 2))] == [0, 0]
    assert all(0 < t < 1 for t in b[:2])
    assert loss.per_field["a"].tolist()[:2] == [0, 0]
    assert loss.per_field["b"].tolist()[2] == 0
    assert float(loss.per_field["a"][2]) > 0
    assert bool((loss.per_field["b"][:2] > 0).all())


def test_what_is_hidden_changes_nothing() -> None:
    denoiser = KnownFields(Pairs(), normal(2), {}, {"a": YES})
    x = normal(2)
    spoilt = x.replace({"a": 1e6 * torch.ones_like(x["a"])})
    one, other = (denoiser(v, torch.tensor(0.4)).x0 for v in (x, spoilt))
    assert isinstance(one, State)
    assert isinstance(other, State)
    assert torch.equal(one["b"], other["b"])


def test_fields_apart_are_told_by_themselves_alone() -> None:
    x, t = normal(4), torch.tensor(0.3)
    found = Apart(Pairs())(x, t).x0
    assert isinstance(found, State)
    for i, name in enumerate(x):
        alpha, sigma = 0.7, 0.3
        gain = COVARIANCE[i, i] * alpha / (alpha**2 * COVARIANCE[i, i] + sigma**2)
        torch.testing.assert_close(found[name], MEAN[i] + gain * (x[name] - alpha * MEAN[i]))


def test_guidance_away_from_fields_apart_makes_them_agree_more() -> None:
    def correlation(scale: float) -> float:
        guided = Autoguidance(Pairs(), Apart(Pairs()), scale)
        x = Sampler(Heun(), 12, FlowTime())(guided, normal(400)).x
        assert isinstance(x, State)
        return float(torch.corrcoef(torch.cat([x["a"], x["b"]], 1).T)[0, 1])

    exact = float(COVARIANCE[0, 1] / COVARIANCE.diag().prod().sqrt())
    assert abs(correlation(1.0) - exact) < 0.06
    assert correlation(2.0) > exact + 0.1
    assert abs(correlation(0.0)) < 0.15


class Levels(nn.Module):
    """Puts out the noise levels that it is told."""

    def forward(self, x: State, log_snr: dict[str, Tensor], *_: object) -> State:
        return x.map(lambda v, level: 0 * v + level[:, None], log_snr)


def test_a_network_is_told_the_level_of_every_field() -> None:
    process = Pairs().process
    net = Preconditioned(Levels(), process, target="x0", sigma_data={"a": 1.0, "b": 1.0})
    t = {"a": torch.tensor([0.0, 0.5, 1.0]), "b": torch.tensor(0.25)}
    x0 = net(normal(3), t).x0
    assert isinstance(x0, State)
    torch.testing.assert_close(x0["a"], column(20, 0, -20))
    torch.testing.assert_close(
        x0["b"], torch.full_like(x0["b"], float(2 * torch.log(torch.tensor(3.0))))
    )
    same = net(normal(3), {k: torch.tensor(0.3) for k in "ab"}).x0
    whole = net(normal(3), torch.tensor(0.3)).x0
    assert isinstance(same, State)
    assert isinstance(whole, State)
    for name in "ab":
        assert torch.equal(same[name], whole[name])


def test_what_does_not_fit_is_refused() -> None:
    known, inner = normal(2), Pairs()
    with pytest.raises(ValueError, match="known must be a state"):
        KnownFields(inner, torch.zeros(2, 1), {})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="there is no field 'c'; the state has a, b"):
        KnownFields(inner, known, {"c": YES})
    with pytest.raises(ValueError, match="mask must be boolean"):
        KnownFields(inner, known, {"a": torch.ones(2)})
    with pytest.raises(ValueError, match=r"masks must be \(2,\)"):
        KnownFields(inner, known, {"a": torch.ones(3, dtype=torch.bool)})
    with pytest.raises(ValueError, match="both shown and hidden"):
        KnownFields(inner, known, {"a": YES}, {"a": YES})
    with pytest.raises(ValueError, match="x_t must be a state like known"):
        KnownFields(inner, known, {"a": NO})(normal(3), torch.tensor(0.5))
    square = pair(torch.zeros(2, 2), torch.zeros(2, 2))
    with pytest.raises(ValueError, match=r"t must be \(\) or \(2,\), got \(2, 2\)"):
        KnownFields(inner, square, {"a": YES})(square, torch.full((2, 2), 0.5))
    joint = Joint({"a": Gaussian(RectifiedFlow()), "b": Jump(RectifiedFlow(), Categorical(2))})
    with pytest.raises(ValueError, match="field 'b' of known holds classes"):
        KnownFields(Classes(torch.full((2,), 0.5), joint, "b"), square, {"a": YES})
    with pytest.raises(ValueError, match="x_t must be a state"):
        Apart(inner)(torch.zeros(2, 1), torch.tensor(0.5))
    with pytest.raises(ValueError, match="x_t must be a state"):
        HiddenFields(inner, ["a"])(torch.zeros(2, 1), torch.tensor(0.5))
    with pytest.raises(ValueError, match="there is no field 'c'"):
        HiddenFields(inner, ["c"])(normal(2), torch.tensor(0.5))
