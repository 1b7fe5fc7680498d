"""The evidence lower bound of Gaussian fields: equal to the log-density for exact denoisers, above it for others."""

from __future__ import annotations

import math

import pytest
import torch

from sciffusion import oracle
from sciffusion.layout import Dense
from sciffusion.likelihood import nelbo
from sciffusion.process import Gaussian, Joint, Jump
from sciffusion.schedule import VE, Cosine, RectifiedFlow, Schedule, TrigFlow
from sciffusion.space import Categorical, Euclidean, ZeroCoM
from sciffusion.state import State
from tests.core.cases import mixture, name, packed, padded, points, randn, rng

FLOW = RectifiedFlow()


@pytest.mark.parametrize("schedule", [FLOW, TrigFlow(), Cosine(), VE(1e-4, 1e3)], ids=name)
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_on_isotropic_gaussians_the_bound_is_exact_with_a_single_draw(
    schedule: Schedule, scale: float
) -> None:
    """The linear denoiser that is taken away is the exact one, so nothing is left to chance."""
    exact = oracle.Gaussian(
        torch.zeros(2).double(), 0.49 * torch.eye(2).double(), Gaussian(schedule, Euclidean(scale))
    )
    x = 0.7 * randn(5, 2)
    got = nelbo(exact, x, draws=1, sigma_data=0.7 / scale)
    assert torch.allclose(got, -exact.log_prob(x), rtol=0, atol=1e-3)


def test_where_the_way_is_cut_short_every_field_counts_by_its_own_levels() -> None:
    """What it costs to take the prior for the law at one end, and noise for the data's at the other, is known."""
    schedules, v = {"a": FLOW, "b": VE()}, 0.49
    process = Joint({k: Gaussian(s) for k, s in schedules.items()})
    exact = oracle.Gaussian(torch.zeros(2).double(), v * torch.eye(2).double(), process)
    x = State({"a": randn(5, 1), "b": randn(5, 1, seed=1)}, Dense(5))
    want = torch.zeros(5).double()
    for k, schedule in schedules.items():
        x2 = x[k][:, 0].square()
        (a, s), (b, r) = schedule(FLOW.time(-2.0)), schedule(FLOW.time(2.0))
        want += 0.5 * (math.log(2 * math.pi * v) + x2 / v)
        # the mean over q(x_1 | x) of log p_1 - log prior
        seen = a**2 * x2 + s**2
        want += 0.5 * (seen / s**2 - seen / (a**2 * v + s**2) - ((a**2 * v + s**2) / s**2).log())
        # the mean over q(x_t | x) of log p(x | x_t) - log N(x; x_t / alpha, (sigma / alpha)^2)
        below = b**2 * v + r**2
        off = (1 - b**2 * v / below) ** 2 * x2 + (b * v * r / below) ** 2
        want += 0.5 * (1 - off * below / (v * r**2) + (r**2 / b**2 * below / (v * r**2)).log())
    got = nelbo(exact, x, draws=1, sigma_data=0.7, low=-2.0, high=2.0)
    assert torch.allclose(got, want, rtol=0, atol=1e-9)


def test_a_single_draw_is_unbiased_too() -> None:
    exact, repeats = mixture(), 20_000
    x = exact.sample(1, rng())
    got = nelbo(exact, x.expand(repeats, -1), 0, draws=1)
    error, se = float(got.mean() + exact.log_prob(x)), float(got.std()) / math.sqrt(repeats)
    assert abs(error) < 4 * se + 1e-3 and se < 0.05


@pytest.mark.parametrize("schedule", [FLOW, VE(1e-4, 1e3)], ids=name)
def test_on_a_mixture_the_bound_is_tight_and_unbiased(schedule: Schedule) -> None:
    exact, repeats = mixture(Gaussian(schedule)), 6000
    x = exact.sample(3, rng())
    got = nelbo(exact, x.repeat_interleave(repeats, 0), 0, draws=48).reshape(3, repeats)
    error, se = got.mean(1) + exact.log_prob(x), got.std(1) / math.sqrt(repeats)
    assert bool((error.abs() < 4 * se + 1e-3).all()) and float(se.max()) < 0.015


def test_point_clouds_have_the_bound_of_their_subspace_packed_and_padded() -> None:
    exact = oracle.PointCloud(1.3, Joint({"pos": Gaussian(FLOW, ZeroCoM())}), "pos")
    for field, layout in (packed(points()), padded(points())):
        x = State({"pos": field}, layout)
        clean = State({"pos": ZeroCoM().project(field, layout)}, layout)
        got = nelbo(exact, x, [1, 2, 3, 4], draws=2, sigma_data=1.3)
        assert torch.allclose(got, -exact.log_prob(clean), rtol=0, atol=1e-3)


def test_two_fields_on_schedules_of_their_own_add_up() -> None:
    process = Joint({"a": Gaussian(FLOW), "b": Gaussian(TrigFlow(), Euclidean(2.0))})
    root = torch.tensor([[0.8, 0, 0], [0.5, 0.4, 0], [-0.3, 0.2, 0.6]]).double()
    exact = oracle.Gaussian(torch.tensor([0.1, -0.5, 0.4]).double(), root @ root.mT, process)
    flat, repeats = randn(1, 3), 6000
    wide = flat.repeat(repeats, 1)
    x = State({"a": wide[:, :2], "b": wide[:, 2:]}, Dense(repeats))
    got = nelbo(exact, x, draws=48)
    want = -torch.distributions.MultivariateNormal(exact.mean, exact.cov).log_prob(flat)
    assert abs(float(got.mean() - want)) < 4 * float(got.std()) / math.sqrt(repeats) + 1e-3


def test_another_denoiser_has_a_larger_bound_on_average() -> None:
    exact, n = mixture(), 2000
    x = exact.sample(n, rng())
    wrong = oracle.Gaussian(x.mean(0), torch.cov(x.T), Gaussian(FLOW))
    own, other = nelbo(exact, x, draws=32), nelbo(wrong, x, draws=32)
    assert float((other - own).mean()) > 4 * float((other - own).std()) / math.sqrt(n)
    # the bound of a wrong Gaussian is the cross-entropy of that Gaussian
    assert float(other.mean()) == pytest.approx(-float(wrong.log_prob(x).mean()), abs=0.05)


def test_a_sample_has_its_bound_in_any_batch() -> None:
    exact = mixture()
    x = exact.sample(3, rng())
    whole = nelbo(exact, x, [4, 5, 6], draws=8)
    assert torch.equal(nelbo(exact, x[1:2], [5], draws=8), whole[1:2])


def test_what_has_no_bound_of_this_kind_is_refused() -> None:
    jump = oracle.Categorical(torch.full((3,), 1 / 3), Jump(FLOW, Categorical(3)))
    with pytest.raises(ValueError, match="its noise is not Gaussian"):
        nelbo(jump, torch.zeros(2, 4, dtype=torch.long))
    with pytest.raises(ValueError, match="draws must be at least 1"):
        nelbo(mixture(), randn(2, 2), draws=0)
    with pytest.raises(ValueError, match="sigma_data positive, got 256, 0.0"):
        nelbo(mixture(), randn(2, 2), sigma_data=0.0)
    with pytest.raises(ValueError, match="lies between low=30.0 and high=20.0"):
        nelbo(mixture(), randn(2, 2), low=30.0)
    with pytest.raises(ValueError, match="x is not finite"):
        nelbo(mixture(), torch.tensor([[0.0, math.nan]]).double())
