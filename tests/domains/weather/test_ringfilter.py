"""The learnt filter: its symmetry, the law of what is untrained, and that it learns to follow a chaotic model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sciffusion.domains.weather.baselines.kalman import cycle
from sciffusion.domains.weather.ringfilter import Correction, Lessons, RingFilter, learn
from sciffusion.domains.weather.simulators.lorenz96 import Lorenz96
from sciffusion.noise import Noise, sample_seeds

MODEL = Lorenz96(size=12)
NOTHING = Lessons(width=8, depth=2, batch=4, steps=0, draws=0, cycles=8)


@pytest.fixture(scope="module")
def untrained() -> RingFilter:
    """Both networks answer zero."""
    return learn(MODEL, NOTHING)


def scrambled(module: nn.Module, size: float) -> None:
    generator = torch.Generator().manual_seed(0)
    for p in module.parameters():
        p.data = size * torch.randn(p.shape, generator=generator)


def states(n: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    f = 2 + 3 * torch.randn(n, MODEL.size, generator=g)
    return f, f + torch.randn(f.shape, generator=g)


def test_what_turns_forecast_and_observations_turns_the_analysis() -> None:
    correction = Correction(8, 2, 2.0, 3.0)
    scrambled(correction, 0.3)
    f, y = states(3)
    a = correction(f, y)
    assert not torch.allclose(a, f)
    for k in (1, 5, -2):
        assert torch.allclose(correction(f.roll(k, -1), y.roll(k, -1)), a.roll(k, -1), atol=1e-5)


def test_an_untrained_filter_draws_independent_normal_numbers_around_the_forecasts_mean(
    untrained: RingFilter,
) -> None:
    """Denoisers whose network is silent are exact for standard normal residuals."""
    n, f = 3000, states(1)[0].double().numpy()
    forecasts = f + np.linspace(-1, 1, n)[:, None]
    rng = np.random.default_rng(0)
    found = untrained.analyse(forecasts, forecasts, f[0], np.ones(MODEL.size), rng)
    error = untrained.spread / n**0.5
    assert found.shape == forecasts.shape
    assert np.abs(found.mean(0) - f[0]).max() < 4.5 * error
    covariance = np.cov(found.T) / untrained.spread**2
    assert np.abs(covariance - np.eye(MODEL.size)).max() < 0.15  # 12 steps make 2 % too much of it


def test_members_do_not_depend_on_what_is_drawn_beside_them() -> None:
    made = learn(MODEL, NOTHING)
    for module in (made.correction, made.denoiser):
        scrambled(module, 0.1)  # larger ones amplify rounding
    f, y = states(3)
    seeds = sample_seeds(0, 6)
    together = made.draw(f, y, Noise(seeds), 2)
    alone = [made.draw(f[i : i + 1], y[i : i + 1], Noise(seeds[2 * i :][:2]), 2) for i in range(3)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)


def test_a_filter_is_refused_what_it_was_not_learnt_for(untrained: RingFilter) -> None:
    e, rng = np.zeros((4, 12)), np.random.default_rng(0)
    with pytest.raises(ValueError, match="got 6 observations of 12"):
        untrained.analyse(e, e[:, ::2], np.zeros(6), np.ones(6), rng)
    with pytest.raises(ValueError, match=r"errors of variance 1; .*variance \[0.25\]"):
        untrained.analyse(e, e, np.zeros(12), np.full(12, 0.25), rng)


def test_lessons_make_a_filter_that_beats_the_observations_and_knows_its_error() -> None:
    lessons = Lessons(width=16, depth=2, batch=8, steps=200, draws=80, cycles=40)
    learnt = learn(MODEL, lessons)
    truth = MODEL.trajectory(MODEL.start(99, range(1)), 121, skip=200)[0].numpy()
    rng = np.random.default_rng(0)
    observed = truth[1:] + rng.standard_normal(truth[1:].shape)
    found = cycle(
        learnt,
        truth[0] + rng.standard_normal((10, MODEL.size)),
        lambda e: MODEL.advance(torch.from_numpy(e)).numpy(),
        lambda e: e,
        observed,
        1.0,
    )
    rmse, spread = found.rmse(truth[1:])[20:].mean(), found.spread[20:].mean()
    assert rmse < 0.6
    assert 0.6 < spread / rmse < 1.5


def test_the_same_lessons_give_the_same_filter() -> None:
    few = Lessons(width=4, depth=1, batch=2, unroll=2, steps=3, draws=3, cycles=4)
    first, again, other = (learn(MODEL, Lessons(**{**vars(few), "seed": s})) for s in (0, 0, 1))
    f, y = states(2)
    drawn = [made.draw(f, y, Noise(3), 2) for made in (first, again, other)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.allclose(drawn[0], drawn[2])
