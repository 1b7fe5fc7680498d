"""The average of weights against its closed form, and the ways in which averages go wrong."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sciffusion.ema import EMA, Constant, Power, Profile, WarmUp


class Net(nn.Module):
    running: Tensor
    scratch: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 3)
        self.second = nn.Linear(3, 1)
        self.register_buffer("running", torch.zeros(2))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)


def fill(model: nn.Module, value: float) -> None:
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(value)


def values(ema: EMA) -> set[float]:
    return {v for n, t in ema.state_dict().items() if n != "running" for v in t.flatten().tolist()}


def on_a_ramp(profile: Profile, steps: int) -> float:
    """Average of theta_k = k for k = 0..steps."""
    model = nn.Linear(1, 1, bias=False).double()
    fill(model, 0.0)
    ema = EMA(model, profile)
    for k in range(1, steps + 1):
        fill(model, float(k))
        ema.update(model)
    return float(ema.state_dict()["weight"])


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.99])
def test_a_constant_profile_averages_a_ramp_to_its_closed_form(decay: float) -> None:
    n = 200
    expected = n - decay * (1 - decay**n) / (1 - decay)
    assert on_a_ramp(Constant(value=decay), n) == pytest.approx(expected, rel=1e-12)


def test_a_warm_up_forgets_the_initial_weights_and_then_has_its_constant_decay() -> None:
    profile = WarmUp(value=0.99)
    decays = [profile.decay(n) for n in range(1, 2001)]
    assert decays[0] == pytest.approx(2 / 11)
    assert decays == sorted(decays)
    assert decays[-1] == 0.99
    assert on_a_ramp(profile, 2000) == pytest.approx(2000 - 0.99 / 0.01, abs=0.01)


@pytest.mark.parametrize("sigma_rel", [0.05, 0.1, 0.2])
def test_a_power_profile_has_the_width_that_it_names(sigma_rel: float) -> None:
    n = 4000
    decays = np.array([Power(sigma_rel=sigma_rel).decay(k) for k in range(1, n + 1)])
    after = np.append(np.cumprod(decays[::-1])[::-1][1:], 1.0)
    weights = (1 - decays) * after
    k = np.arange(1, n + 1) / n
    mean = (weights * k).sum()
    assert weights.sum() == pytest.approx(1.0)  # the initial weights are gone
    assert np.sqrt((weights * (k - mean) ** 2).sum()) == pytest.approx(sigma_rel, rel=0.01)


@pytest.mark.parametrize("sigma_rel", [0.05, 0.2])
def test_a_power_profile_averages_a_ramp_like_its_power_law(sigma_rel: float) -> None:
    n, gamma = 4000, Power(sigma_rel=sigma_rel).gamma
    expected = n * (gamma + 1) / (gamma + 2)
    assert on_a_ramp(Power(sigma_rel=sigma_rel), n) == pytest.approx(expected, rel=1e-3)


def test_a_power_profile_forgets_the_initial_weights_at_its_first_update() -> None:
    model = Net()
    fill(model, 5.0)
    ema = EMA(model, Power())
    fill(model, 7.0)
    ema.update(model)
    assert values(ema) == {7.0}


def test_averages_go_by_name_when_parameters_come_in_another_order() -> None:
    model, shuffled = Net(), Net()
    shuffled.first, shuffled.second = model.first, model.second
    del shuffled._modules["first"], shuffled._modules["second"]
    shuffled.second, shuffled.first = model.second, model.first
    assert [n for n, _ in shuffled.named_parameters()] != [n for n, _ in model.named_parameters()]
    ema = EMA(model, Constant(value=0.5))
    with torch.no_grad():
        for i, (_, p) in enumerate(sorted(model.named_parameters())):
            p.fill_(float(i))
    before = {n: t.clone() for n, t in ema.state_dict().items()}
    ema.update(shuffled)
    for name, p in model.named_parameters():
        assert torch.allclose(ema.state_dict()[name], 0.5 * (before[name] + p))


def test_another_model_is_refused_by_name() -> None:
    ema = EMA(Net(), Constant())
    with pytest.raises(ValueError, match=r"missing.*first\.bias"):
        ema.update(nn.Linear(2, 3))


def test_buffers_are_copied_and_not_averaged() -> None:
    model = Net()
    ema = EMA(model, Constant(value=0.9))
    model.running.fill_(7.0)
    ema.update(model)
    assert ema.state_dict()["running"].tolist() == [7.0, 7.0]
    assert "scratch" not in ema.state_dict()


def test_the_average_is_no_view_of_the_model() -> None:
    model = Net()
    fill(model, 1.0)
    ema = EMA(model, Constant())
    fill(model, 2.0)
    model.running.fill_(3.0)
    assert values(ema) == {1.0}
    assert ema.state_dict()["running"].tolist() == [0.0, 0.0]


def test_swapped_gives_the_average_and_restores_the_model_after_an_exception() -> None:
    model = Net()
    fill(model, 1.0)
    ema = EMA(model, Constant(value=0.5))
    fill(model, 3.0)
    ema.update(model)
    model.running.fill_(9.0)
    kept = copy.deepcopy(model.state_dict())
    with pytest.raises(KeyboardInterrupt), ema.swapped(model):
        assert {v for p in model.parameters() for v in p.flatten().tolist()} == {2.0}
        assert model.running.tolist() == [0.0, 0.0]
        raise KeyboardInterrupt
    for name, value in model.state_dict().items():
        assert torch.equal(value, kept[name]), name
    assert values(ema) == {2.0}


def test_an_update_inside_swapped_is_refused_and_allowed_after_it() -> None:
    model = Net()
    ema = EMA(model, Constant())
    with ema.swapped(model), pytest.raises(RuntimeError, match="inside swapped"):
        ema.update(model)
    ema.update(model)


def test_swapped_keeps_parameters_in_place_for_the_optimizer() -> None:
    model = Net()
    ema = EMA(model, Constant())
    before = [p.data_ptr() for p in model.parameters()]
    with ema.swapped(model):
        assert [p.data_ptr() for p in model.parameters()] == before
    assert [p.data_ptr() for p in model.parameters()] == before


def test_a_restored_average_continues_exactly() -> None:
    torch.manual_seed(0)
    model = Net()
    first = EMA(model, Power())
    walk = [torch.randn(1).item() for _ in range(8)]
    for value in walk[:4]:
        fill(model, value)
        first.update(model)
    second = EMA(Net(), Power())
    stored = {n: t.clone() for n, t in first.state_dict().items()}
    second.load_state_dict(stored, first.updates)
    for value in walk[4:]:
        fill(model, value)
        first.update(model)
        second.update(model)
    for name, average in first.state_dict().items():
        assert torch.equal(average, second.state_dict()[name])


def test_a_state_of_other_shapes_is_refused_by_name() -> None:
    ema = EMA(Net(), Constant())
    bad = dict(ema.state_dict()) | {"first.weight": torch.zeros(3, 3)}
    with pytest.raises(ValueError, match=r"first\.weight has shape \(3, 3\)"):
        ema.load_state_dict(bad, 1)


def test_tied_parameters_survive_swapping() -> None:
    model = Net()
    other = nn.Sequential(model.first, nn.Linear(3, 3), model.first)
    fill(other, 1.0)
    ema = EMA(other, Constant(value=0.5))
    fill(other, 3.0)
    ema.update(other)
    with ema.swapped(other):
        assert model.first.weight[0, 0].item() == 2.0
    assert model.first.weight[0, 0].item() == 3.0


def test_averages_of_half_precision_weights_are_kept_in_float32() -> None:
    model = nn.Linear(2, 2).to(torch.bfloat16)
    fill(model, 1.0)
    ema = EMA(model, Constant(value=0.999))
    fill(model, 2.0)
    for _ in range(100):
        ema.update(model)
    average = ema.state_dict()["weight"]
    assert average.dtype == torch.float32
    assert float(average[0, 0]) == pytest.approx(2 - 0.999**100, rel=1e-5)
    with ema.swapped(model):
        assert model.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("value", [-0.1, 1.0, 1.5])
def test_decays_outside_the_unit_interval_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"value must lie in \[0, 1\)"):
        Constant(value=value)
    with pytest.raises(ValueError, match=r"value must lie in \[0, 1\)"):
        WarmUp(value=value)
