"""Guidance: scale 1 is the conditional prediction, 0 the unconditional one, in every batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.guidance import CFG, Autoguidance, Composed, Interval
from sciffusion.layout import Dense
from sciffusion.noise import Noise
from sciffusion.process import Gaussian, Joint, Jump
from sciffusion.samplers import DDIM, Heun, Multistep, Sampler
from sciffusion.schedule import VE, VP, RectifiedFlow, Schedule
from sciffusion.space import Categorical
from sciffusion.state import State, Value
from sciffusion.testing import check_guidance
from tests.core.cases import name, randn
from tests.core.guided import NONE, Labelled, tensor


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_classifier_free_guidance_keeps_its_contract_in_every_batch(batch: int) -> None:
    denoiser, labels = Labelled(Gaussian(RectifiedFlow())), torch.tensor([2, 0, 1])[:batch]
    check_guidance(
        lambda scale: CFG(denoiser, labels, NONE, scale),
        denoiser.given(labels),
        denoiser.given(NONE),
        randn(batch, 2),
    )


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_the_kind_of_the_result_does_not_depend_on_the_scale(scale: float, batch: int) -> None:
    guided = CFG(Labelled(Gaussian(RectifiedFlow())), torch.zeros(batch).long(), NONE, scale)
    out = guided(randn(batch, 2), torch.tensor(0.5))
    assert isinstance(out, Prediction) and tensor(out.x0).shape == (batch, 2)
    for solver in (DDIM(), Heun(), Multistep(2, 0.5)):
        assert tensor(Sampler(solver, 2)(guided, randn(batch, 2)).x).shape == (batch, 2)


@pytest.mark.parametrize(("scale", "calls"), [(0.0, 1), (1.0, 1), (2.0, 2), (-1.0, 2)])
def test_one_call_is_made_where_one_is_enough(scale: float, calls: int) -> None:
    denoiser = Labelled(Gaussian(RectifiedFlow()))
    CFG(denoiser, torch.tensor([0, 1]), NONE, scale)(randn(2, 2), torch.tensor(0.5))
    assert denoiser.calls == calls


@pytest.mark.parametrize("schedule", [RectifiedFlow(), VP(), VE()], ids=name)
def test_the_guided_score_is_the_score_of_the_tilted_density(schedule: Schedule) -> None:
    r"""grad log p(x) + w (grad log p(x|c) - grad log p(x)), the gradients taken by autograd."""
    denoiser, scale = Labelled(Gaussian(schedule)), 3.0
    guided, x = CFG(denoiser, torch.tensor(1), NONE, scale), randn(5, 2).requires_grad_()
    for t in (0.2, 0.5, 0.9):
        time = torch.tensor(t, dtype=torch.float64)
        alpha, sigma = schedule(time)
        covs = alpha**2 * denoiser.whole.covs + sigma**2 * torch.eye(2, dtype=torch.float64)
        log_p = torch.distributions.MultivariateNormal(alpha * denoiser.whole.means, covs).log_prob(
            x[:, None]
        )
        whole = (log_p + denoiser.whole.weights.log()).logsumexp(1)
        tilted = whole + scale * (log_p[:, 1] - whole)
        (want,) = torch.autograd.grad(tilted.sum(), x)
        got = tensor(guided(x.detach(), time).to("score"))
        assert torch.allclose(got, want, rtol=1e-6, atol=1e-7)


def test_guidance_moves_samples_towards_the_condition() -> None:
    denoiser = Labelled(Gaussian(RectifiedFlow()))
    x, share = randn(30, 2), []
    for scale in (0.0, 1.0, 4.0):
        end = tensor(Sampler(Multistep(2), 10)(CFG(denoiser, torch.tensor(0), NONE, scale), x).x)
        modes = torch.distributions.MultivariateNormal(denoiser.whole.means, denoiser.whole.covs)
        p = (modes.log_prob(end[:, None]) + denoiser.whole.weights.log()).softmax(1)[:, 0]
        share.append(float(p.mean()))
    assert share[0] < 0.7 < 0.9 < share[1] < share[2]


class Classes(Denoiser):
    """Class probabilities (and a value) that depend on the condition alone."""

    def __init__(self) -> None:
        super().__init__()
        flow = RectifiedFlow()
        self.process = Joint({"x": Gaussian(flow), "k": Jump(flow, Categorical(3))})

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        assert isinstance(x_t, State)
        p = torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])[cond]
        x0 = {"x": torch.full_like(x_t["x"], float(cond)), "k": p.expand(*x_t["k"].shape, 3)}
        return Prediction(x_t.replace(x0), x_t, t, self.process)


def test_classes_are_guided_in_log_probability() -> None:
    denoiser = Classes()
    x0 = State({"x": torch.zeros(2, 1), "k": torch.zeros(2, 4, dtype=torch.long)}, Dense(2))
    check_guidance(
        lambda scale: CFG(denoiser, 1, 0, scale), denoiser.given(1), denoiser.given(0), x0
    )
    x_t = denoiser.process.perturb(x0, torch.tensor(0.5), Noise(0)).x_t
    guided = CFG(denoiser, 1, 0, 2.5)(x_t, torch.tensor(0.5)).x0
    want = torch.tensor([0.6, 0.3, 0.1]) ** 2.5 / torch.tensor([0.2, 0.3, 0.5]) ** 1.5
    assert isinstance(guided, State)
    assert torch.allclose(guided["k"], (want / want.sum()).expand(2, 4, 3))
    assert torch.allclose(guided["x"], torch.full((2, 1), 2.5))


def test_a_class_that_the_condition_excludes_stays_excluded() -> None:
    process = Jump(RectifiedFlow(), Categorical(3))
    p, q = torch.tensor([[[0.0, 0.5, 0.5]]]), torch.tensor([[[0.3, 0.3, 0.4]]])
    mixed = tensor(process.combine((2.0, -1.0), (p, q)))
    assert float(mixed[0, 0, 0]) < 1e-20 and torch.allclose(mixed.sum(-1), torch.ones(1, 1))


def test_another_condition_cannot_be_given_to_a_bound_one() -> None:
    guided = CFG(Labelled(Gaussian(RectifiedFlow())), torch.tensor(0), NONE, 2.0)
    with pytest.raises(ValueError, match="bound already"):
        guided(randn(2, 2), torch.tensor(0.5), torch.tensor(1))
    with pytest.raises(TypeError, match="unexpected keyword"):
        CFG(guided, None, None, scale=1.0, weight=2.0)  # type: ignore[call-arg]


@pytest.mark.parametrize("schedule", [RectifiedFlow(), VP(), VE()], ids=name)
def test_guidance_outside_an_interval_costs_one_call_and_is_the_condition_alone(
    schedule: Schedule,
) -> None:
    denoiser, cond = Labelled(Gaussian(schedule)), torch.tensor([0, 1])
    guided, low, high = CFG(denoiser, cond, NONE, 3.0), -2.0, 1.5
    inside = Interval(guided, low, high)
    for log_snr, calls in ((-2.1, 1), (-1.9, 2), (1.4, 2), (1.6, 1)):
        t, x = schedule.time(log_snr), randn(2, 2)
        denoiser.calls = 0
        got = tensor(inside(x, t).x0)
        assert denoiser.calls == calls
        want = guided(x, t) if calls == 2 else denoiser(x, t, cond)
        assert torch.equal(got, tensor(want.x0))
    t = torch.tensor(0.37).double()
    level = float(schedule.log_snr(t))
    made: list[int] = []
    for ends in ((level, 9.0), (-9.0, level)):  # the lower end belongs to it, the upper does not
        denoiser.calls = 0
        Interval(guided, *ends)(randn(2, 2), t)
        made.append(denoiser.calls)
    assert made == [2, 1]


def test_the_calls_that_an_interval_saves_are_those_of_its_steps() -> None:
    denoiser = Labelled(Gaussian(RectifiedFlow()))
    guided = CFG(denoiser, torch.tensor([0, 1]), NONE, 3.0)
    sampler = Sampler(DDIM(), 12)
    levels = [float(RectifiedFlow().log_snr(w.start)) for w in sampler.windows(denoiser.process)]
    sampler(Interval(guided, -1.0, 2.0), randn(2, 2))
    assert denoiser.calls == 12 + sum(-1.0 <= level < 2.0 for level in levels) < 24


def test_samples_on_their_own_clocks_each_obey_the_interval() -> None:
    denoiser, cond = Labelled(Gaussian(RectifiedFlow())), torch.tensor([0, 1, 2])
    guided, x, t = CFG(denoiser, cond, NONE, 3.0), randn(3, 2), torch.tensor([0.9, 0.5, 0.1])
    got = tensor(Interval(guided, -2.0, 2.0)(x, t).x0)
    alone, both = tensor(denoiser(x, t, cond).x0), tensor(guided(x, t).x0)
    assert torch.equal(got, torch.stack([alone[0], both[1], alone[2]]))
    with pytest.raises(ValueError, match="low must be below high"):
        Interval(guided, 1.0, 1.0)


def test_a_scale_may_differ_between_samples_and_levels() -> None:
    denoiser, cond = Labelled(Gaussian(RectifiedFlow())), torch.tensor([0, 1, 2])
    x, t, scales = randn(3, 2), torch.tensor(0.4, dtype=torch.float64), torch.tensor([0.0, 1, 5])
    got = tensor(CFG(denoiser, cond, NONE, scales)(x, t).x0)
    for i, w in enumerate(scales.tolist()):
        want = tensor(CFG(denoiser, cond, NONE, w)(x, t).x0)[i]
        assert torch.allclose(got[i], want, atol=1e-12)
    falling = CFG(denoiser, cond, NONE, lambda log_snr: 2 - log_snr)
    want = CFG(denoiser, cond, NONE, 2 - float(RectifiedFlow().log_snr(t)))(x, t)
    assert torch.equal(tensor(falling(x, t).x0), tensor(want.x0))
    times = torch.tensor([0.4, 0.7, 0.2], dtype=torch.float64)
    rows = [tensor(falling(x, s).x0)[i] for i, s in enumerate(times)]
    assert torch.allclose(tensor(falling(x, times).x0), torch.stack(rows), atol=1e-12)
    denoiser.calls = 0
    CFG(denoiser, cond, NONE, lambda log_snr: 1.0)(x, t)
    assert denoiser.calls == 1


def test_conditions_in_one_batch_are_conditions_one_by_one() -> None:
    denoiser, cond = Labelled(Gaussian(RectifiedFlow())), torch.tensor([0, 1, 2])
    x, previous = randn(3, 2), randn(3, 2)
    for t in (torch.tensor(0.4), torch.tensor([0.2, 0.5, 0.9])):
        want = tensor(CFG(denoiser, cond, NONE, 3.0)(x, t, None, previous).x0)
        denoiser.calls = 0
        batched = CFG(denoiser, cond, NONE, 3.0, batched=True)
        assert torch.allclose(tensor(batched(x, t, None, previous).x0), want, atol=1e-12)
        assert denoiser.calls == 1
    one_for_all = CFG(denoiser, torch.tensor(2), NONE, 3.0, batched=True)(x, t)
    want = tensor(CFG(denoiser, torch.tensor(2), NONE, 3.0)(x, t).x0)
    assert torch.allclose(tensor(one_for_all.x0), want, atol=1e-12)
    with pytest.raises(ValueError, match="equal nests of tensors"):
        CFG(denoiser, {"a": cond}, NONE, 3.0, batched=True)(x, t)
    with pytest.raises(ValueError, match="must be tensors, got"):
        CFG(denoiser, 1, NONE, 3.0, batched=True)(x, t)


def test_a_bad_model_guides_from_its_errors_to_none() -> None:
    """The weak model is off by a constant that is twice the strong one's: scale 2 takes both away."""

    class Off(Denoiser):
        def __init__(self, error: float) -> None:
            super().__init__()
            self.truth = Labelled(Gaussian(VP()))
            self.process, self.error = self.truth.process, error

        def forward(
            self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
        ) -> Prediction:
            exact = tensor(self.truth(x_t, t, cond).x0)
            return Prediction(exact + self.error, x_t, t, self.process)

    x, t, cond = randn(3, 2), torch.tensor(0.4), torch.tensor([0, 1, 2])
    guided = Autoguidance(Off(0.1), Off(0.2), 2.0)
    want = tensor(Off(0.0)(x, t, cond).x0)
    assert torch.allclose(tensor(guided(x, t, cond).x0), want, atol=1e-12)
    with pytest.raises(ValueError, match="another schedule"):
        Autoguidance(Off(0.1), Labelled(Gaussian(RectifiedFlow())), 2.0)


@pytest.mark.parametrize("schedule", [RectifiedFlow(), VE()], ids=name)
def test_composed_scores_are_the_score_of_the_product(schedule: Schedule) -> None:
    """grad of log p(x) + sum w_i (log p(x | c_i) - log p(x)), one of the conditions forbidden."""
    denoiser, weights = Labelled(Gaussian(schedule)), {0: 2.0, 2: -0.7}
    composed = Composed(denoiser, NONE, [(torch.tensor(c), w) for c, w in weights.items()])
    x = randn(5, 2).requires_grad_()
    for t in (0.2, 0.5, 0.9):
        time = torch.tensor(t, dtype=torch.float64)
        plain = tensor(denoiser(x.detach(), time, NONE).to("score"))
        tilt = sum(w * denoiser.log_prob(c, x, time, schedule) for c, w in weights.items())
        assert isinstance(tilt, Tensor)
        (grad,) = torch.autograd.grad(tilt.sum(), x)
        got = tensor(composed(x.detach(), time).to("score"))
        assert torch.allclose(got, plain + grad, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("weights", "calls"), [((1.0, 0.0), 1), ((0.0, 0.0), 1), ((0.5, 0.5), 2), ((1.0, 1.0), 3)]
)
def test_conditions_without_weight_cost_no_call(weights: tuple[float, float], calls: int) -> None:
    denoiser = Labelled(Gaussian(RectifiedFlow()))
    terms = [(torch.tensor(c), w) for c, w in enumerate(weights)]
    Composed(denoiser, NONE, terms)(randn(2, 2), torch.tensor(0.5))
    assert denoiser.calls == calls
    denoiser.calls = 0
    Composed(denoiser, NONE, terms, batched=True)(randn(2, 2), torch.tensor(0.5))
    assert denoiser.calls == 1
    with pytest.raises(ValueError, match="terms is empty"):
        Composed(denoiser, NONE, [])


def test_classes_compose_in_log_probability() -> None:
    denoiser = Classes()
    x0 = State({"x": torch.zeros(2, 1), "k": torch.zeros(2, 4, dtype=torch.long)}, Dense(2))
    x_t = denoiser.process.perturb(x0, torch.tensor(0.5), Noise(0)).x_t
    out = Composed(denoiser, 0, [(1, 2.0), (1, 0.5)])(x_t, torch.tensor(0.5)).x0
    one = CFG(denoiser, 1, 0, 2.5)(x_t, torch.tensor(0.5)).x0
    assert isinstance(out, State) and isinstance(one, State)
    assert torch.allclose(out["k"], one["k"]) and torch.allclose(out["x"], one["x"])
