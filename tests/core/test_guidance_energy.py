"""Guidance by gradients: exact where theory says so, and honest where it is not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sciffusion import oracle
from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.guidance import Classifier, Energy, MeanEnergy, Smoothing
from sciffusion.layout import Dense
from sciffusion.noise import Noise
from sciffusion.oracle import Categorical as ExactClasses
from sciffusion.process import Gaussian, Joint, Jump, Process
from sciffusion.samplers import DDIM, Multistep, Sampler
from sciffusion.schedule import VE, VP, RectifiedFlow, Schedule
from sciffusion.space import Categorical, Euclidean, StudentT, ZeroCoM
from sciffusion.state import State, Value
from tests.core.cases import name, padded, points, randn
from tests.core.guided import Labelled, network, tensor

MEAN = torch.tensor([0.5, -1.0], dtype=torch.float64)
COV = torch.tensor([[1.0, 0.4], [0.4, 0.5]], dtype=torch.float64)
SLOPE = torch.tensor([0.7, -0.3], dtype=torch.float64)
SCHEDULES = [RectifiedFlow(), VP(), VE()]


def linear(x0: Value) -> Tensor:
    return tensor(x0) @ SLOPE.to(tensor(x0))


def square(x0: Value) -> Tensor:
    return 0.5 * ((tensor(x0) - 1.0) ** 2).sum(1)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
@pytest.mark.parametrize("t", [0.05, 0.5, 0.95])
def test_a_linear_energy_tilts_a_gaussian_exactly(schedule: Schedule, t: float) -> None:
    """N(m, C) times exp(-w a x) is N(m - w C a, C)."""
    process, x = Gaussian(schedule), randn(4, 2)
    time = torch.tensor(t, dtype=torch.float64)
    for w in (0.5, 3.0):
        guided = Energy(oracle.Gaussian(MEAN, COV, process), linear, w)(x, time)
        want = oracle.Gaussian(MEAN - w * COV @ SLOPE, COV, process)(x, time)
        assert torch.allclose(tensor(guided.x0), tensor(want.x0), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
@pytest.mark.parametrize("t", [0.05, 0.5, 0.95])
def test_a_quadratic_energy_tilts_white_data_exactly_by_a_scale_of_the_level(
    schedule: Schedule, t: float
) -> None:
    """exp(-w (x-y)^2/2) averaged over the posterior of variance P has the weight w/(1 + w P)."""
    process, x, s, w = Gaussian(schedule), randn(4, 2), 1.3, 2.5
    time, eye = torch.tensor(t, dtype=torch.float64), torch.eye(2, dtype=torch.float64)

    def scale(log_snr: Tensor) -> Tensor:
        alpha, sigma = schedule(schedule.time(log_snr))
        return w / (1 + w / (s**-2 + alpha**2 / sigma**2))

    white = oracle.Gaussian(MEAN, s**2 * eye, process)
    var = 1 / (s**-2 + w)
    want = tensor(oracle.Gaussian(var * (MEAN / s**2 + w), var * eye, process)(x, time).x0)
    for guided in (Energy(white, square, scale), MeanEnergy(white, square, scale, sigma_data=s)):
        assert torch.allclose(tensor(guided(x, time).x0), want, rtol=1e-6, atol=1e-6)


def test_smoothing_makes_a_quadratic_energy_exact_as_its_draws_grow() -> None:
    process, x, s, w = Gaussian(VP()), randn(4, 1), 1.3, 2.5
    time, one = torch.tensor(0.4, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    white, var = oracle.Gaussian(0 * one, s**2 * one[None], process), 1 / (s**-2 + w)
    want = tensor(oracle.Gaussian(var * w * one, var * one[None], process)(x, time).x0)
    errors = []
    for smoothing in (None, Smoothing(40, s), Smoothing(2000, s)):
        for guided in (
            Energy(white, square, w, smoothing=smoothing),
            MeanEnergy(white, square, w, sigma_data=s, smoothing=smoothing),
        ):
            errors.append(float((tensor(guided(x, time).x0).detach() - want).abs().max()))
    plain, few, many = (max(errors[i : i + 2]) for i in (0, 2, 4))
    assert 0.02 * plain > many and 0.1 * few > many and plain > few


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_exact_classifier_makes_the_exact_conditional_prediction(
    schedule: Schedule, scale: float
) -> None:
    denoiser, x = Labelled(Gaussian(schedule)), randn(4, 2)
    guided = Classifier(
        denoiser.whole, lambda v, t: denoiser.log_prob(1, tensor(v), t, schedule), scale
    )
    for t in (0.05, 0.5, 0.9):
        for time in (torch.tensor(t).double(), torch.full((4,), t).double()):
            u, c = (tensor(d(x, time).x0) for d in (denoiser.whole, denoiser.modes[1]))
            got = tensor(guided(x, time).x0)
            assert torch.allclose(got, u + scale * (c - u), rtol=1e-6, atol=1e-6)


def test_samples_of_a_tilted_gaussian_have_its_moments() -> None:
    process = Gaussian(RectifiedFlow())
    guided = Energy(oracle.Gaussian(MEAN, COV, process), linear, 1.5)
    x = tensor(Sampler(Multistep(2), 24)(guided, randn(4000, 2), 0).x)
    want = MEAN - 1.5 * COV @ SLOPE
    assert torch.allclose(x.mean(0), want, atol=0.06)
    assert torch.allclose(x.T.cov(), COV, atol=0.06)


class White(Denoiser):
    """White data: the exact prediction is a factor times the noised value, in its space."""

    def __init__(self, process: Gaussian, factor: Tensor) -> None:
        super().__init__()
        self.process, self.factor = process, factor

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        assert isinstance(self.process, Gaussian)
        inside = self.process.space.project(tensor(x_t), Dense(len(tensor(x_t))))
        return Prediction(self.factor * inside, x_t, t, self.process)


class Said(Denoiser):
    """A denoiser that takes the noised value for the clean one, padding included."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        self.process = process

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        return Prediction(x_t, x_t, t, self.process)


@pytest.mark.parametrize("space", [Euclidean(2.0), ZeroCoM(0.5)], ids=name)
def test_a_gradient_moves_within_the_space_by_the_covariance_of_its_noise(
    space: Euclidean | ZeroCoM,
) -> None:
    """White data of standard deviation s in the space, whose exact prediction is a factor times x_t."""
    process, s, slope = Gaussian(VP(), space), 0.8, randn(4, 3)
    t = torch.tensor(0.3, dtype=torch.float64)
    alpha, sigma = process.schedule(t)
    n, layout = float(space.scale), Dense(2)  # type: ignore[arg-type]
    x = process.perturb(randn(2, 4, 3), t, Noise(0)).x_t
    factor = alpha * s**2 / (alpha**2 * s**2 + sigma**2 * n**2)

    def energy(x0: Value) -> Tensor:
        return (tensor(x0) * slope).flatten(1).sum(1)

    white = White(process, factor)
    variance = (s * n * sigma) ** 2 / (alpha**2 * s**2 + sigma**2 * n**2)
    want = factor * tensor(x) - variance * space.project(slope.expand(2, 4, 3), layout)
    for guided in (Energy(white, energy), MeanEnergy(white, energy, sigma_data=s)):
        assert torch.allclose(tensor(guided(x, t).x0), want, atol=1e-9)


def test_an_energy_of_independent_classes_tilts_them_exactly() -> None:
    process = Jump(RectifiedFlow(), Categorical(3))
    prior = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    cost = torch.tensor([1.0, -0.5, 0.2], dtype=torch.float64)

    def energy(p: Value) -> Tensor:
        return (tensor(p).double() @ cost).sum(1)

    x_t, t = torch.tensor([[0, 1, 2, 0]]), torch.tensor(0.6, dtype=torch.float64)
    tilted = prior * (-2 * cost).exp()
    want = tensor(ExactClasses(tilted / tilted.sum(), process)(x_t, t).x0)
    exact = ExactClasses(prior, process)
    for guided in (Energy(exact, energy, 2.0), MeanEnergy(exact, energy, 2.0, sigma_data=1.0)):
        assert torch.allclose(tensor(guided(x_t, t).x0), want, atol=1e-6)


def test_iterations_are_that_many_steps_down_the_energy() -> None:
    process, x, s, w = Gaussian(VP()), randn(4, 2), 1.0, 0.3
    t = torch.tensor(0.4, dtype=torch.float64)
    alpha, sigma = process.schedule(t)
    white = oracle.Gaussian(MEAN, torch.eye(2, dtype=torch.float64), process)
    x0 = plain = tensor(white(x, t).x0)
    for _ in range(4):
        x0 = x0 - w * sigma**2 / (alpha**2 + sigma**2) * (x0 - 1)
    out = MeanEnergy(white, square, w, sigma_data=s, iterations=4, keep_noise=True)(x, t)
    assert torch.allclose(tensor(out.x0), x0, atol=1e-9)
    assert torch.allclose(tensor(out.x_t), x + alpha * (x0 - plain), atol=1e-9)
    assert torch.allclose(tensor(out.to("eps")), tensor(white(x, t).to("eps")), atol=1e-9)


@pytest.mark.parametrize("kind", ["through", "mean", "classifier"])
def test_no_history_is_kept_unless_gradients_flow_through_the_run(kind: str) -> None:
    denoiser, x = oracle.Gaussian(MEAN, COV, Gaussian(VP())), randn(3, 2)
    guided: Denoiser = {
        "through": Energy(denoiser, square),
        "mean": MeanEnergy(denoiser, square, sigma_data=1.0),
        "classifier": Classifier(denoiser, lambda v, t: -square(v)),
    }[kind]
    assert not tensor(Sampler(DDIM(), 3)(guided, x).x).requires_grad
    start = x.clone().requires_grad_()
    sampler = Sampler(DDIM(), 3, start=0.9)
    end = tensor(sampler(guided, start, grad=True).x)
    (grad,) = torch.autograd.grad(end[:, 0].sum(), start)
    step = torch.zeros_like(x)
    step[:, 1] = 1e-5
    ahead, behind = (tensor(sampler(guided, x + h).x)[:, 0] for h in (step, -step))
    assert torch.allclose(grad[:, 1], (ahead - behind) / 2e-5, rtol=1e-6, atol=1e-8)


def test_pure_noise_is_left_unguided_through_the_denoiser_and_not_beside_it() -> None:
    denoiser, x0 = network()
    x, t = randn(*tensor(x0).shape), torch.tensor(1.0, dtype=torch.float64)
    flat = oracle.Gaussian(MEAN, torch.eye(2, dtype=torch.float64), Gaussian(RectifiedFlow()))
    plain, at = tensor(flat(randn(3, 2), t).x0), randn(3, 2)
    assert torch.equal(tensor(Energy(flat, square)(at, t).x0), plain)
    beside = tensor(MeanEnergy(flat, square, sigma_data=1.0)(at, t).x0)
    assert torch.allclose(beside, plain - (plain - 1))
    with torch.no_grad():
        assert tensor(Energy(denoiser, lambda v: tensor(v).sum(1))(x, t, 0.3).x0).isfinite().all()


def test_an_energy_that_mixes_samples_or_has_no_gradient_is_refused() -> None:
    denoiser, x = oracle.Gaussian(MEAN, COV, Gaussian(VP())), randn(3, 2)
    t = torch.tensor(0.5)
    for fn in (lambda v: square(v).mean(), lambda v: square(v)[:, None]):
        with pytest.raises(ValueError, match="one number per sample"):
            Energy(denoiser, fn)(x, t)
        with pytest.raises(ValueError, match="one number per sample"):
            MeanEnergy(denoiser, fn, sigma_data=1.0)(x, t)
    with pytest.raises(ValueError, match="without a gradient"):
        Energy(denoiser, lambda v: square(v).detach())(x, t)
    with pytest.raises(ValueError, match="without a gradient"):
        Classifier(denoiser, lambda v, t: torch.zeros(3))(x, t)
    with torch.inference_mode(), pytest.raises(ValueError, match="not torch.inference_mode"):
        Energy(denoiser, square)(x, t)


def test_the_options_of_an_energy_are_checked() -> None:
    process: Process = Joint({"x": Gaussian(VP())})
    denoiser = oracle.Gaussian(MEAN, COV, process)
    with pytest.raises(ValueError, match="iterations must be at least 1"):
        MeanEnergy(denoiser, square, sigma_data=1.0, iterations=0)
    with pytest.raises(ValueError, match="samples must be at least 1"):
        Smoothing(0, 1.0)
    with pytest.raises(ValueError, match="spread must be positive"):
        Smoothing(1, 1.0, spread=0.0)
    state = State({"x": randn(3, 2)}, Dense(3))

    def energy(v: Value) -> Tensor:
        assert isinstance(v, State)
        return v["x"].sum(1)

    with pytest.raises(ValueError, match="sigma_data names no scale for the field 'x'"):
        MeanEnergy(denoiser, energy, sigma_data={"y": 1.0})(state, torch.tensor(0.5))


def test_draws_are_the_same_at_every_call_and_for_every_sample() -> None:
    denoiser = oracle.Gaussian(MEAN, COV, Gaussian(VP()))
    guided = Energy(denoiser, square, 2.0, smoothing=Smoothing(3, 1.0, seed=5))
    x, t = randn(1, 2).expand(3, 2).clone(), torch.tensor(0.5, dtype=torch.float64)
    first, second = tensor(guided(x, t).x0), tensor(guided(x, t).x0)
    assert torch.equal(first, second) and torch.allclose(first, first[:1].expand(3, 2))
    other = Energy(denoiser, square, 2.0, smoothing=Smoothing(3, 1.0, seed=6))
    assert not torch.allclose(tensor(other(x, t).x0), first)


def test_a_gradient_says_nothing_under_noise_that_is_not_gaussian() -> None:
    process = Gaussian(VP(), StudentT(3.0))
    white, x, t = White(process, torch.tensor(0.5)), randn(3, 2), torch.tensor(0.5)
    with pytest.raises(ValueError, match="does not tell the prediction"):
        Energy(white, square)(x, t)
    assert tensor(MeanEnergy(white, square, sigma_data=1.0)(x, t).x0).isfinite().all()


def test_single_precision_keeps_the_tilt() -> None:
    process, x = Gaussian(VP()), randn(4, 2)
    white = White(process, torch.tensor(0.4))
    for t in (0.05, 0.5, 0.95):
        for guided in (
            Energy(white, square, 3.3),
            MeanEnergy(white, square, 3.3, sigma_data=0.7, smoothing=Smoothing(3, 0.7)),
            Classifier(white, lambda v, t: -square(v), 3.3),
        ):
            got = tensor(guided(x.float(), torch.tensor(t)).x0).detach()
            want = tensor(guided(x, torch.tensor(t)).x0).detach()
            assert got.dtype == torch.float32
            assert torch.allclose(
                got.double(), want, rtol=1e-4, atol=1e-4 * float(want.abs().max())
            )


def test_a_smoothed_energy_is_the_log_of_a_mean_over_draws_of_the_given_width() -> None:
    """-log E exp(-a (x + d)) = a x - a^2 var / 2; a constant stays what it is."""
    process, s, x0 = Gaussian(VP()), 0.8, randn(2, 1)
    t = torch.tensor(0.4, dtype=torch.float64)
    alpha, sigma = process.schedule(t)
    variance = 1 / (s**-2 + alpha**2 / sigma**2)
    for spread in (0.5, 1.0):
        smoothing = Smoothing(2000, s, spread)
        got = smoothing(lambda v: 1.5 * tensor(v)[:, 0], process, x0, t)
        want = 1.5 * x0[:, 0] - 1.5**2 * spread**2 * variance / 2
        assert torch.allclose(got, want, atol=0.05)
        constant = smoothing(lambda v: torch.full((2,), 3.0).double(), process, x0, t)
        assert torch.allclose(constant, torch.full((2,), 3.0).double())


def test_garbage_in_the_padding_does_not_reach_a_property_that_multiplies_by_the_mask() -> None:
    x, layout = padded(points())
    mask = layout.mask[..., None].double()

    def energy(v: Value) -> Tensor:
        assert isinstance(v, State)
        return ((v["x"] * mask) ** 2).sum((1, 2)).sqrt()

    process = Joint({"x": Gaussian(VP())})
    denoiser, state = Said(process), State({"x": x}, layout)
    assert bool(x.isnan().any())
    t = torch.tensor(0.4, dtype=torch.float64)
    for guided in (
        Energy(denoiser, energy),
        MeanEnergy(denoiser, energy, sigma_data=1.0),
        Classifier(denoiser, lambda v, t: -energy(v)),
    ):
        out = guided(state, t).x0
        assert isinstance(out, State) and bool(out["x"][layout.mask].isfinite().all())
