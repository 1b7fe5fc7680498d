"""Changes of guidance: each against its paper's formula, written out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from sciffusion.denoiser import Condition, Denoiser, Preconditioned, Prediction
from sciffusion.guidance import (
    CFG,
    Autoguidance,
    CFGPlusPlus,
    CFGZeroStar,
    DynamicThreshold,
    Interval,
    Perturbed,
    Projected,
    Rescaled,
)
from sciffusion.process import Gaussian, Joint, Process
from sciffusion.samplers import DDIM, Sampler
from sciffusion.schedule import VP, Cosine, Polynomial, RectifiedFlow, Schedule
from sciffusion.state import State, Value
from sciffusion.testing import check_denoiser, split
from tests.core.cases import in_every_layout, name, randn
from tests.core.guided import NONE, Labelled, tensor

T = torch.tensor(0.4, dtype=torch.float64)
COND = torch.tensor([0, 1, 2])


class Says(Denoiser):
    """A denoiser that says its condition."""

    def __init__(self, schedule: Schedule | None = None) -> None:
        super().__init__()
        self.process: Process = Gaussian(schedule or RectifiedFlow())

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        return Prediction(cond, x_t, t, self.process)


@pytest.mark.parametrize("schedule", [VP(), RectifiedFlow(), Cosine().shift(2.0)], ids=name)
@pytest.mark.parametrize("lam", [0.0, 0.4, 1.0])
def test_cfg_plus_plus_is_its_algorithm_under_every_schedule(
    schedule: Schedule, lam: float
) -> None:
    """Denoise with the guided prediction, noise again with the unconditional noise."""
    denoiser, sampler = Labelled(Gaussian(schedule)), Sampler(DDIM(), 6, stop=0.01)
    x = start = randn(3, 2)
    for w in sampler.windows(denoiser.process):
        t = torch.tensor(w.start, dtype=torch.float64)
        (alpha, sigma), (alpha_s, sigma_s) = schedule(t), schedule(w.end or 0.0)
        u, c = (tensor(denoiser(x, t, y).x0) for y in (NONE, COND))
        x = alpha_s * (u + lam * (c - u)) + sigma_s * (x - alpha * u) / sigma
    got = sampler(CFGPlusPlus(CFG(denoiser, COND, NONE, lam)), start).x
    assert torch.allclose(tensor(got), x, rtol=1e-9, atol=1e-9)


def test_the_moved_point_implies_the_unconditional_noise() -> None:
    denoiser, x = Labelled(Gaussian(VP())), randn(3, 2)
    moved = CFGPlusPlus(CFG(denoiser, COND, NONE, 0.7))(x, T)
    want = tensor(denoiser(x, T, NONE).to("eps"))
    assert torch.allclose(tensor(moved.to("eps")), want, atol=1e-9)
    for scale in (-0.1, 1.1):
        with pytest.raises(ValueError, match=r"scale must lie in \[0, 1\]"):
            CFGPlusPlus(CFG(denoiser, COND, NONE, scale))


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_projection_keeps_the_share_eta_of_the_parallel_part(eta: float) -> None:
    c, u = randn(3, 4, 2), randn(3, 4, 2, seed=1)
    got = tensor(Projected(CFG(Says(), c, u, 3.0), eta)(randn(3, 4, 2), T).x0)
    for g, a, b in zip(got, c, u, strict=True):
        change, unit = (g - a) / 2, a / a.norm()
        assert torch.allclose((change * unit).sum(), eta * ((a - b) * unit).sum())
        across = (a - b) - ((a - b) * unit).sum() * unit
        assert torch.allclose(change - (change * unit).sum() * unit, across)


def test_a_threshold_shortens_what_is_longer_and_nothing_else() -> None:
    c = randn(3, 5)
    u = c - torch.tensor([[0.1], [1.0], [10.0]]) * torch.nn.functional.normalize(randn(3, 5), dim=1)
    got = tensor(Projected(CFG(Says(), c, u, 2.0), 1.0, threshold=2.0)(randn(3, 5), T).x0)
    want = torch.tensor([0.1, 1.0, 2.0], dtype=torch.float64)
    assert torch.allclose((got - c).norm(dim=1), want)
    with pytest.raises(ValueError, match="threshold must be positive"):
        Projected(CFG(Says(), c, u, 2.0), threshold=0.0)


def test_a_prediction_of_zero_has_no_direction_to_project_on() -> None:
    c, u = torch.zeros(2, 3), torch.ones(2, 3)
    assert torch.equal(tensor(Projected(CFG(Says(), c, u, 3.0))(c, T).x0), -2 * u)


@pytest.mark.parametrize("phi", [0.0, 0.7, 1.0])
def test_rescaling_goes_towards_the_contrast_of_the_condition(phi: float) -> None:
    c, u = randn(3, 4, 2), randn(3, 4, 2, seed=1)
    plain, got = c + 6 * (c - u), tensor(Rescaled(CFG(Says(), c, u, 7.0), phi)(c, T).x0)
    for g, p, a in zip(got, plain, c, strict=True):
        assert torch.allclose(g.std(), phi * a.std() + (1 - phi) * p.std())
        assert torch.allclose(g / g.norm(), p / p.norm())
    with pytest.raises(ValueError, match="phi must lie"):
        Rescaled(CFG(Says(), c, u, 7.0), 1.5)


def test_a_constant_prediction_has_no_contrast_to_restore() -> None:
    one = torch.ones(2, 3)
    assert torch.equal(tensor(Rescaled(CFG(Says(), one, 0 * one, 3.0), 1.0)(one, T).x0), 3 * one)


def test_a_weak_flow_of_any_scale_does_no_harm() -> None:
    """The optimal factor undoes it: what is left is the condition, at every guidance scale."""
    denoiser, x = Says(), randn(3, 4)
    convert = Gaussian(RectifiedFlow()).convert
    layout = in_every_layout()[2][1]
    c = randn(3, 4, seed=1)
    flow = convert(c, x, T, layout, src="x0", dst="flow")
    factors = torch.tensor([[0.2], [1.0], [-3.0]])
    u = convert(flow * factors, x, T, layout, src="flow", dst="x0")
    for scale in (0.0, 2.0, 7.0):
        got = tensor(CFGZeroStar(CFG(denoiser, c, u, scale))(x, T).x0)
        assert torch.allclose(got, c, atol=1e-9)


@pytest.mark.parametrize("schedule", [RectifiedFlow(), VP()], ids=name)
def test_zero_star_is_its_formula_in_velocities(schedule: Schedule) -> None:
    denoiser, x, w = Labelled(Gaussian(schedule)), randn(3, 2), 4.0
    got = tensor(CFGZeroStar(CFG(denoiser, COND, NONE, w))(x, T).to("flow"))
    c, u = (tensor(denoiser(x, T, y).to("flow")) for y in (COND, NONE))
    s = (c * u).sum(1, keepdim=True) / (u * u).sum(1, keepdim=True)
    assert torch.allclose(got, s * u + w * (c - s * u), rtol=1e-8, atol=1e-8)


def test_the_first_steps_may_stand_still() -> None:
    denoiser, x = Labelled(Gaussian(RectifiedFlow())), randn(3, 2)
    for scale in (1.0, 3.0):
        zero = CFGZeroStar(CFG(denoiser, COND, NONE, scale), zero_below=-3.0)
        values = [tensor(v) for v in Sampler(DDIM(), 8)(zero, x, path=True).path]
        levels = [
            RectifiedFlow().log_snr(w.start) for w in Sampler(DDIM(), 8).windows(zero.process)
        ]
        still = sum(bool(level < -3) for level in levels)
        assert 0 < still < 8 and torch.allclose(values[still], x, atol=1e-12)
        assert not torch.allclose(values[still + 1], x, atol=1e-3)


def test_standing_still_has_a_limit_where_both_rates_vanish() -> None:
    denoiser, x = Labelled(Gaussian(Polynomial())), randn(3, 2)
    zero = CFGZeroStar(CFG(denoiser, COND, NONE, 3.0), zero_below=-3.0)
    end, before = (tensor(zero(x, torch.tensor(t).double()).x0) for t in (1.0, 1 - 1e-4))
    assert torch.allclose(end, before, atol=1e-2)
    alpha = Polynomial().alpha(1.0)
    assert torch.allclose(end, alpha * x, atol=1e-4)


def test_thresholding_is_by_each_samples_own_quantile_in_every_layout() -> None:
    for x, layout, samples in in_every_layout():
        process = Joint({"x": Gaussian(RectifiedFlow())})
        state = State({"x": 5 * x + 1}, layout)
        denoiser = Says()
        denoiser.process = process
        limited = DynamicThreshold(denoiser.given(state), {"x": (-1.0, 3.0)}, 0.8)
        out = limited(state, T).x0
        for got, sample in zip(split(out, "x"), samples, strict=True):
            unit = (5 * sample.flatten() + 1 - 1) / 2
            s = unit.abs().quantile(0.8).clamp(min=1)
            assert torch.allclose(got, unit.clamp(-s, s) / s * 2 + 1)
            assert got.min() >= -1 - 1e-9 and got.max() <= 3 + 1e-9


def test_what_lies_within_the_limits_is_left_alone() -> None:
    x = randn(3, 4).clamp(-1, 1)
    assert torch.equal(tensor(DynamicThreshold(Says().given(x), (-1.0, 1.0))(x, T).x0), x)
    with pytest.raises(ValueError, match="must be below"):
        DynamicThreshold(Says(), (1.0, -1.0))
    with pytest.raises(ValueError, match="quantile must lie"):
        DynamicThreshold(Says(), (-1.0, 1.0), 0.0)


class Attentive(nn.Module):
    """Two layers of self-attention, and one of cross-attention to two tokens, on (B, N, 4)."""

    def __init__(self, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.attend = attend
        self.weights, self.tokens = nn.Parameter(randn(9, 4, 4)), nn.Parameter(randn(1, 2, 4))

    def forward(
        self, x: Tensor, log_snr: Tensor, cond: Tensor | None, previous: Tensor | None
    ) -> Tensor:
        w = self.weights
        x = x + self.attend(x @ w[0], x @ w[1], x @ w[2])
        tokens = self.tokens.expand(len(x), -1, -1)
        x = x + scaled_dot_product_attention(query=x @ w[3], key=tokens @ w[4], value=tokens)
        return x + self.attend(x @ w[6], x @ w[7], x @ w[8]) + log_snr[:, None, None] / 9


def attentive(attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Denoiser:
    return Preconditioned(Attentive(attend), Gaussian(RectifiedFlow()), sigma_data=1.0)


def test_perturbed_attention_is_the_network_whose_tokens_see_themselves_alone() -> None:
    denoiser, x = attentive(scaled_dot_product_attention), randn(2, 5, 4)
    weak = tensor(Perturbed(denoiser, 0.0)(x, T).x0)
    assert torch.allclose(weak, tensor(attentive(lambda q, k, v: v)(x, T).x0))
    strong = tensor(denoiser(x, T).x0)
    assert not torch.allclose(weak, strong, atol=1e-3)
    guided = tensor(Perturbed(denoiser, 3.0)(x, T).x0)
    assert torch.allclose(guided, weak + 3 * (strong - weak))
    assert torch.equal(tensor(denoiser(x, T).x0), strong)
    check_denoiser(Perturbed(denoiser, 3.0), x)


def test_only_the_chosen_layers_are_perturbed() -> None:
    calls = 0

    def second(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return v if calls == 2 else scaled_dot_product_attention(q, k, v)

    denoiser, x = attentive(scaled_dot_product_attention), randn(2, 5, 4)
    want = tensor(attentive(second)(x, T).x0)
    assert torch.allclose(tensor(Perturbed(denoiser, 0.0, [1])(x, T).x0), want)
    both, weak = Perturbed(denoiser, 0.0, [0, 1])(x, T), Perturbed(denoiser, 0.0)(x, T)
    assert torch.equal(tensor(both.x0), tensor(weak.x0))


def test_grouped_queries_share_their_values() -> None:
    def grouped(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        two = v.reshape(*v.shape[:2], 2, 2).transpose(1, 2)
        four = q.reshape(*q.shape[:2], 4, 1).transpose(1, 2).expand(-1, -1, -1, 2)
        out = scaled_dot_product_attention(four, two, two, enable_gqa=True)
        return out[..., 0].transpose(1, 2)

    x = randn(2, 5, 4)
    got = tensor(Perturbed(attentive(grouped), 0.0)(x, T).x0)
    own = attentive(lambda q, k, v: v[..., [0, 0, 2, 2]])
    assert torch.allclose(got, tensor(own(x, T).x0))


def test_a_network_without_attention_cannot_be_perturbed() -> None:
    x = randn(2, 5, 4)
    with pytest.raises(ValueError, match="no self-attention to perturb"):
        Perturbed(Says().given(x), 2.0)(x, T)
    with pytest.raises(ValueError, match="self-attentions 0 to 1"):
        Perturbed(attentive(scaled_dot_product_attention), 2.0, [2])(x, T)


def test_changes_go_with_every_source_but_not_around_an_interval() -> None:
    denoiser, x = attentive(scaled_dot_product_attention), randn(2, 5, 4)
    bad = attentive(lambda q, k, v: v)
    for source in (Perturbed(denoiser, 2.0), Autoguidance(denoiser, bad, 2.0)):
        for change in (Projected(source), Rescaled(source), CFGZeroStar(source)):
            assert tensor(change(x, T).x0).isfinite().all()
    with pytest.raises(ValueError, match="put an Interval around"):
        Rescaled(Interval(Perturbed(denoiser, 2.0)))  # type: ignore[arg-type]
