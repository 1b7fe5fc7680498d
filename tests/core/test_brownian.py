"""Brownian noise: one path for a seed, whatever grid reads it, and the strong convergence that it shows."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sciffusion import oracle
from sciffusion.brownian import BrownianPath
from sciffusion.grid import LogSNR, Uniform
from sciffusion.layout import Dense
from sciffusion.noise import Noise
from sciffusion.process import Gaussian
from sciffusion.samplers import DDIM, Heun, Multistep, Sampler, Singlestep
from sciffusion.schedule import RectifiedFlow
from sciffusion.solver import Solver
from sciffusion.state import Value
from sciffusion.testing import gaussian_moments
from tests.core.cases import mixture, name, randn

FLOW = RectifiedFlow()
START, STOP = float(FLOW.time(-8.0)), float(FLOW.time(6.0))


def tensor(x: Value) -> Tensor:
    assert isinstance(x, Tensor)
    return x


def path(n: int = 4000, seed: int = 3, key: int = 0) -> BrownianPath:
    return BrownianPath(seed, key, (n,), torch.float64)


def test_a_path_is_a_function_of_time_whatever_was_asked_before() -> None:
    times = [0.3, 0.7, 0.1, 0.699999, 1.0, 0.30001, 0.0, 0.3]
    one = path(5)
    asked = [one(t) for t in times]
    for t, value in zip(reversed(times), reversed(asked), strict=True):
        assert torch.equal(path(5)(t), value)
    assert torch.equal(asked[0], asked[-1]) and not bool(asked[6].any())


def test_increments_are_normal_and_independent_with_the_variance_of_their_length() -> None:
    w, times = path(), [0.0, 0.2, 0.21, 0.5, 1.0]
    steps = torch.stack([w(b) - w(a) for a, b in zip(times[:-1], times[1:], strict=True)])
    lengths = torch.tensor(times, dtype=torch.float64).diff()
    unit = steps / lengths.sqrt()[:, None]
    se = 1 / math.sqrt(4000)
    assert bool((unit.mean(1).abs() < 4 * se).all())
    cov = torch.cov(unit)
    assert bool(((cov - torch.eye(4)).abs() < 5 * se * math.sqrt(2)).all())
    assert abs(float((unit**4).mean()) - 3) < 0.3  # a normal law's fourth moment


def test_an_increment_leads_from_the_first_time_to_the_second() -> None:
    w, got = path(50), path(50).increment(0.5, 0.3)
    assert got is not None and torch.allclose(got, (w(0.3) - w(0.5)) / math.sqrt(0.2))


def test_other_seeds_and_keys_have_other_paths() -> None:
    paths = torch.stack([path(seed=s, key=k)(0.4) for s, k in ((1, 0), (2, 0), (1, 1))])
    correlation = torch.corrcoef(paths) - torch.eye(3)
    assert float(correlation.abs().max()) < 0.07


def test_a_step_too_short_for_the_path_still_has_noise() -> None:
    like, layout = torch.zeros(1000, dtype=torch.float64), Dense(1000)
    noise = Noise(1, brownian=True)
    for end in (0.3 - 1e-14, 0.3 - 1e-9):
        z = noise.between(0.3, end).normal(like, layout)
        assert abs(float(z.std()) - 1) < 0.1


@pytest.mark.parametrize(
    "solver", [DDIM(1.0), DDIM(0.5), Multistep(2, 1.0), Multistep(3, 0.5)], ids=name
)
def test_runs_of_a_stochastic_solver_on_finer_grids_converge_to_one_path(solver: Solver) -> None:
    """The strong order is at least 1, less the 0.4 that a slope over few steps may be off."""
    cov = torch.tensor([[0.6, 0.2], [0.2, 0.3]], dtype=torch.float64)
    exact = oracle.Gaussian(torch.tensor([0.5, -0.2], dtype=torch.float64), cov, Gaussian(FLOW))
    x, ends = randn(300, 2), []
    for n in (32, 64, 128, 256):
        run = Sampler(solver, n, LogSNR(), START, STOP)
        ends.append(tensor(run(exact, x, Noise(3, brownian=True)).x))
    gaps = [float((a - b).square().mean().sqrt()) for a, b in zip(ends[:-1], ends[1:], strict=True)]
    assert math.log2(gaps[0] / gaps[-1]) / 2 > 0.6
    other = tensor(Sampler(solver, 256, LogSNR(), START, STOP)(exact, x, Noise(4)).x)
    assert float((other - ends[-1]).square().mean().sqrt()) > 20 * gaps[-1]


@pytest.mark.parametrize("solver", [DDIM(1.0), Singlestep(2, eta=1.0), Heun(churn=4.0)], ids=name)
def test_the_noise_of_every_stage_is_that_of_its_own_part_of_the_step(solver: Solver) -> None:
    """Independent of the other stages', as the moments of a run on Gaussian data show."""
    eye, sampler = torch.eye(1).double(), Sampler(solver, 6)
    exact = oracle.Gaussian(torch.zeros(1).double(), 0.36 * eye, Gaussian(FLOW))
    end = tensor(sampler(exact, randn(20_000, 1), Noise(3, brownian=True)).x)
    variance = gaussian_moments(sampler, FLOW, mean=0.0, variance=0.36)[1]
    assert float(end.var()) == pytest.approx(variance, rel=0.04)  # four standard errors


def test_each_sample_has_a_path_of_its_own_in_any_batch() -> None:
    sampler, x = Sampler(DDIM(1.0), 8, Uniform()), randn(3, 2)
    whole = tensor(sampler(mixture(), x, Noise([5, 6, 7], brownian=True)).x)
    alone = tensor(sampler(mixture(), x[1:2], Noise([6], brownian=True)).x)
    assert torch.equal(whole[1:2], alone)


def test_uniform_numbers_of_a_step_are_uniform() -> None:
    like, layout = torch.zeros(4000, dtype=torch.float64), Dense(4000)
    u = Noise(2, brownian=True).between(0.6, 0.35).uniform(like, layout).sort().values
    expected = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    assert float((u - expected).abs().max()) < 1.6 / math.sqrt(4000) and float(u.max()) < 1


def test_a_steps_uniform_numbers_are_the_shares_of_its_normal_ones() -> None:
    """So that classes follow one path too, and in half precision no number is 1."""
    like, layout = torch.zeros(4000, dtype=torch.float64), Dense(4000)
    z, u = (
        getattr(Noise(2, brownian=True).between(0.6, 0.35), kind)(like, layout)
        for kind in ("normal", "uniform")
    )
    assert torch.allclose(torch.special.ndtr(z), u, rtol=0, atol=1e-12)
    half = Noise(2, brownian=True).between(0.6, 0.35).uniform(like.bfloat16(), layout)
    assert float(half.max()) < 1


def test_the_draws_of_one_step_are_independent() -> None:
    """Two fields of one shape do not share their noise."""
    like, layout = torch.zeros(4000, dtype=torch.float64), Dense(4000)
    step = Noise(2, brownian=True).between(0.6, 0.35)
    draws = torch.stack([step.normal(like, layout), step.normal(like, layout)])
    assert abs(float(torch.corrcoef(draws)[0, 1])) < 0.08


def test_a_sample_whose_step_goes_down_follows_its_path_whatever_the_others_do() -> None:
    like = torch.zeros(2, 3, dtype=torch.float64)
    starts, ends = torch.tensor([0.5, 0.3]), torch.tensor([0.4, 0.35])
    both = Noise([5, 6], brownian=True).between(starts, ends).normal(like, Dense(2))
    first = Noise([5], brownian=True).between(starts[:1], ends[:1]).normal(like[:1], Dense(1))
    assert torch.equal(both[:1], first)
    assert torch.equal(both[1:], Noise([6]).normal(like[:1], Dense(1)))


def test_one_stream_cannot_follow_grids_that_differ() -> None:
    times = torch.tensor([0.9, 0.8])
    with pytest.raises(ValueError, match="give one seed a sample"):
        Noise(1, brownian=True).between(times, times - 0.1)
    with pytest.raises(ValueError, match="seed makes 3 streams, but 2 samples"):
        Noise([1, 2, 3], brownian=True).between(times, times - 0.1)
    assert Noise([1, 2], brownian=True).between(times, times - 0.1).per_sample


def test_what_does_not_go_down_draws_from_the_stream_itself() -> None:
    noise = Noise(1, brownian=True)
    assert noise.between(0.3, 0.3) is noise and noise.between(0.3, 0.5) is noise
    plain = Noise(1)
    assert plain.between(0.5, 0.3) is plain
