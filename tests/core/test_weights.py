"""Weights in x0 space: one meaning for every target, the likelihood's integral, a learned balance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import final, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sciffusion.denoiser import Condition, Denoiser, Preconditioned, Prediction
from sciffusion.layout import Dense
from sciffusion.noise import Noise
from sciffusion.objective import (
    EDM,
    Likelihood,
    LogUniform,
    MinSNR,
    Objective,
    Sigmoid,
    Stratified,
    TimeSampler,
    Uncertainty,
    UniformTimes,
    Weight,
)
from sciffusion.oracle import Gaussian as GaussianOracle
from sciffusion.process import Gaussian, Joint, Jump, Target
from sciffusion.schedule import VE, VP, Cosine, RectifiedFlow, Schedule, TrigFlow
from sciffusion.space import Categorical
from sciffusion.state import State, Value
from sciffusion.training import Order, Shuffled, StepLoss, Task, TrainConfig, train
from tests.core.cases import SCHEDULES, WEIGHTS, name, randn

FLOW = RectifiedFlow()
TARGETS: tuple[Target, ...] = get_args(Target)
INSIDE = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)


def test_the_soft_minimum_is_a_sigmoid_weight_below_the_hard_one_and_above_its_half() -> None:
    for schedule in SCHEDULES:
        snr = schedule.log_snr(INSIDE).exp()
        hard, soft = (MinSNR(3.0, soft=s)(schedule, INSIDE) for s in (False, True))
        assert torch.allclose(soft, 3 * snr / (snr + 3))
        assert torch.allclose(soft, Sigmoid(math.log(3.0))(schedule, INSIDE))
        assert bool((soft < hard).all()) and bool((soft > 0.49 * hard).all())


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_the_likelihood_weighs_by_the_rate_of_the_snr_which_is_half_g_squared_on_the_score(
    schedule: Schedule,
) -> None:
    t, h = INSIDE, 1e-6
    slope = (schedule.log_snr(t + h) - schedule.log_snr(t - h)) / (2 * h)
    w = Likelihood()(schedule, t)
    assert torch.allclose(w, -0.5 * slope * schedule.log_snr(t).exp(), rtol=1e-5)
    # an error of x0 is one of the score times alpha/sigma^2
    on_the_score = 0.5 * schedule.sde(t)[1] ** 2 * Gaussian(schedule).target_weight("score", t)
    assert torch.allclose(w, on_the_score, rtol=1e-6)


S = 1.7
"""Standard deviation of the data in the tests of the likelihood."""


def normal_data(process: Gaussian) -> GaussianOracle:
    return GaussianOracle(torch.zeros(2).double(), S**2 * torch.eye(2).double(), process)


@pytest.mark.parametrize("schedule", [FLOW, VP(), VE()], ids=name)
@pytest.mark.parametrize("law", ["uniform", "log-uniform", "stratified"])
def test_the_likelihoods_loss_is_the_integral_over_time_whatever_the_law_of_times(
    schedule: Schedule, law: str
) -> None:
    """For normal data the integral is known: half the logarithm of the ratio of 1 + s^2 SNR at its ends."""
    low, high = 0.3, 0.8
    ratios = [math.exp(-0.5 * float(schedule.log_snr(t))) for t in (low, high)]
    times: TimeSampler = UniformTimes(low, high) if law == "uniform" else LogUniform(*ratios)
    if law == "stratified":
        times = Stratified(times)
    process = Gaussian(schedule)
    oracle, n = normal_data(process), 20_000
    x0 = S * randn(n, 2)
    loss = Objective(process, weight=Likelihood(), times=times)(oracle, x0, noise=Noise(1))
    snr = [r**-2 for r in ratios]
    want = 0.5 * math.log((1 + S**2 * snr[0]) / (1 + S**2 * snr[1]))
    error = float(loss.per_sample.std()) / math.sqrt(n)
    assert error < 0.05 * want
    assert float(loss.mean) == pytest.approx(want, abs=5 * error)
    assert torch.equal(loss.per_sample, next(iter(loss.per_field.values())))


def test_the_likelihood_varies_least_under_log_uniform_times() -> None:
    process, x0 = Gaussian(FLOW), S * randn(4000, 2)
    spread = {}
    for times in (UniformTimes(0.01, 0.99), LogUniform(1 / 99, 99.0)):
        objective = Objective(process, weight=Likelihood(), times=times)
        loss = objective(normal_data(process), x0, noise=Noise(0))
        spread[type(times)] = float(loss.per_sample.std())
    assert spread[LogUniform] < 0.7 * spread[UniformTimes]


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        self.w = nn.Parameter(torch.randn(3, 2, generator=generator, dtype=torch.float64))

    def forward(self, x: Tensor, level: Tensor, cond: Condition, previous: Value | None) -> Tensor:
        return torch.tanh(torch.cat([x, level[:, None].to(x)], 1)) @ self.w


@final
@dataclass(frozen=True)
class Even(Weight):
    """The weight in x0 space under which the error of a target counts evenly."""

    target: Target

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        return Gaussian(schedule).target_weight(self.target, t)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("schedule", [FLOW, VP(), VE(0.01, 10.0)], ids=name)
def test_gradients_agree_when_a_target_is_converted_to_its_weight(
    schedule: Schedule, target: Target
) -> None:
    """The error of the target, its weight in x0 space, and the error by hand: one gradient."""
    process, x0 = Gaussian(schedule), randn(8, 2)
    for parameterisation in ("v", "x0"):
        denoiser = Preconditioned(Tiny(), process, target=parameterisation, sigma_data=1.0)
        times = UniformTimes(0.1, 0.9)
        grads = []
        for objective in (
            Objective(process, target, None, times),
            Objective(process, "x0", Even(target), times),
        ):
            loss = objective(denoiser, x0, noise=Noise(0))
            grads.append(torch.autograd.grad(loss.mean, denoiser.net.w)[0])  # type: ignore[arg-type]
        noise = Noise(0)
        t = times(noise, 8, schedule)
        eps = process.draw(x0, noise)
        assert isinstance(eps, Tensor)
        noised = process.perturb(x0, t, noise, eps)
        said = denoiser(noised.x_t, t).to(target)
        right = Prediction(x0, noised.x_t, t, process).to(target)
        assert isinstance(said, Tensor) and isinstance(right, Tensor)
        by_hand = (said - right).square().mean()
        grads.append(torch.autograd.grad(by_hand, denoiser.net.w)[0])  # type: ignore[arg-type]
        assert torch.allclose(grads[0], grads[1], rtol=1e-10)
        assert torch.allclose(grads[0], grads[2], rtol=1e-6)


def test_min_snr_is_the_published_factor_on_eps_and_on_v() -> None:
    """Hang et al.: min(1, g/SNR) on eps; min(SNR, g)/(SNR + 1) on v, variance preserving."""
    for schedule in (VP(), Cosine(), TrigFlow()):
        process, snr = Gaussian(schedule), schedule.log_snr(INSIDE).exp()
        w = MinSNR(5.0)(schedule, INSIDE)
        on_eps, on_v = (w / process.target_weight(k, INSIDE) for k in ("eps", "v"))
        assert torch.allclose(on_eps, (5.0 / snr).clamp(max=1.0))
        assert torch.allclose(on_v, snr.clamp(max=5.0) / (snr + 1))


@pytest.mark.parametrize("weight", WEIGHTS, ids=name)
def test_weights_keep_the_shape_of_the_times_in_float64(weight: Weight) -> None:
    for shape in ((), (3,), (3, 2)):
        w = weight(FLOW, torch.full(shape, 0.3))
        assert w.shape == shape and w.dtype == torch.float64


def test_a_balance_changes_nothing_at_the_start() -> None:
    process, x0 = Gaussian(FLOW), S * randn(16, 2)
    plain, balanced = (
        Objective(process, weight=EDM(), uncertainty=u)(normal_data(process), x0, noise=Noise(0))
        for u in (None, Uncertainty())
    )
    assert torch.equal(plain.per_sample, balanced.per_sample)


def test_the_balance_converges_to_the_logarithm_of_the_mean_loss_of_each_noise_level() -> None:
    """For normal data it is known: w s^2 sigma^2 / (alpha^2 s^2 + sigma^2)."""
    process, x0 = Gaussian(FLOW), S * randn(20_000, 2)
    uncertainty = Uncertainty(terms=16).double()
    loss = Objective(process, weight=MinSNR(), times=LogUniform(0.05, 20.0))(
        normal_data(process), x0, noise=Noise(0)
    )
    log_snr, per_sample = FLOW.log_snr(loss.t), loss.per_sample.detach()
    optimizer = torch.optim.LBFGS(
        uncertainty.parameters(), max_iter=60, line_search_fn="strong_wolfe"
    )

    def closure() -> float:
        optimizer.zero_grad()
        value = uncertainty(None, per_sample, log_snr).mean()
        value.backward()
        return float(value.detach())

    optimizer.step(closure)
    t = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    alpha, sigma = FLOW(t)
    mean = MinSNR()(FLOW, t) * S**2 * sigma**2 / (alpha**2 * S**2 + sigma**2)
    u = uncertainty.log_variance(None, FLOW.log_snr(t)).detach()
    assert float((u - mean.log()).abs().max()) < 0.15
    assert float(mean.log().max() - mean.log().min()) > 1.0
    # every noise level now contributes the same
    balanced = uncertainty(None, mean, FLOW.log_snr(t)).detach() - u
    assert float((balanced - 1).abs().max()) < 0.2


def test_every_field_has_a_balance_of_its_own() -> None:
    process = Joint({"pos": Gaussian(FLOW), "kind": Jump(Cosine(), Categorical(3))})
    x0 = State({"pos": randn(4, 2), "kind": torch.tensor([[0], [1], [2], [1]])}, Dense(4))
    uncertainty = Uncertainty(("pos", "kind"))
    with torch.no_grad():
        uncertainty.series[0], uncertainty.series[32] = 1.0, -2.0

    class Says(Denoiser):
        def __init__(self) -> None:
            super().__init__()
            self.process = process

        def forward(
            self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
        ) -> Prediction:
            p = torch.full((4, 1, 3), 1 / 3, dtype=torch.float64)
            return Prediction(x0.replace({"pos": x0["pos"] + 1, "kind": p}), x_t, t, process)

    loss = Objective(process, uncertainty=uncertainty, field_weights={"kind": 0.5})(
        Says(), x0, noise=Noise(0)
    )
    pos, kind = loss.per_field["pos"], loss.per_field["kind"]
    assert torch.allclose(kind, torch.full((4,), math.log(3.0)).double())
    want = pos * math.exp(-1) + 1 + 0.5 * (kind * math.exp(2) - 2)
    assert torch.allclose(loss.per_sample.double(), want)
    with pytest.raises(ValueError, match=r"has the fields \['pos', 'kind'\], not 'bond'"):
        uncertainty.log_variance("bond", torch.zeros(2))


def test_a_balance_of_an_integral_and_one_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="no integral any more"):
        Objective(Gaussian(FLOW), weight=Likelihood(), uncertainty=Uncertainty())
    with pytest.raises(ValueError, match="at least one field"):
        Uncertainty(())


class Balanced(Task[Tensor]):
    """A denoiser whose model carries the balance of its loss."""

    def model(self) -> nn.Module:
        model = Preconditioned(Tiny().float(), Gaussian(FLOW), sigma_data=1.0)
        model.uncertainty = Uncertainty(terms=4)
        return model

    def order(self, config: TrainConfig) -> Order:
        return Shuffled(64, config.batch_size, config.seed)

    def batch(self, indices: NDArray[np.int64], key: int, device: torch.device) -> Tensor:
        return randn(64, 2, dtype=torch.float32)[torch.from_numpy(indices.copy())]

    def loss(self, model: nn.Module, batch: Tensor, key: int) -> StepLoss:
        assert isinstance(model, Preconditioned) and isinstance(model.uncertainty, Uncertainty)
        objective = Objective(model.process, weight=EDM(), uncertainty=model.uncertainty)
        return StepLoss(objective(model, batch, noise=Noise(key)).mean)


def test_the_training_engine_trains_a_balance_that_is_part_of_the_model(tmp_path: Path) -> None:
    config = TrainConfig(steps=20, batch_size=16, warmup=0, lr=1e-2, print_seconds=1e9, threads=1)
    state = train(Balanced(), config, tmp_path)
    series = state.model.state_dict()["uncertainty.series"]
    assert bool((series.abs() > 1e-3).any())
    assert "uncertainty.series" in state.tensors()["model"]
