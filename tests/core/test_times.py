"""Training times: every law by its quantiles and its density, and together over a batch."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sciffusion.noise import Noise
from sciffusion.objective import (
    Between,
    CosMap,
    LogitNormal,
    LogNormal,
    LogUniform,
    MinSNR,
    ModeTimes,
    Stratified,
    TimeSampler,
    UniformTimes,
)
from sciffusion.schedule import VE, VP, Cosine, RectifiedFlow, Schedule, TrigFlow
from tests.core.cases import SCHEDULES, TIMES, name

FLOW = RectifiedFlow()
BASES: list[TimeSampler] = [t for t in TIMES if not isinstance(t, Stratified)]


def shares(times: TimeSampler, t: Tensor, clock: Schedule) -> Tensor:
    """The cumulative distribution at ``t``, by bisection of the quantile function."""
    low, high = torch.zeros_like(t), torch.ones_like(t)
    for _ in range(40):
        u = 0.5 * (low + high)
        below = times.quantile(u, clock) < t
        low, high = torch.where(below, u, low), torch.where(below, high, u)
    return low


def distance(u: Tensor) -> float:
    """Kolmogorov and Smirnov's distance from the uniform law, times the root of the number of draws."""
    u, n = u.sort().values, len(u)
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    return math.sqrt(n) * float(torch.maximum(steps[1:] - u, u - steps[:-1]).max())


CRITICAL = 1.95
"""What the distance exceeds with a probability of 0.001."""


@pytest.mark.parametrize("times", TIMES, ids=name)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_the_density_is_one_over_the_slope_of_the_quantiles(
    schedule: Schedule, times: TimeSampler
) -> None:
    u, h = torch.linspace(0.05, 0.95, 19, dtype=torch.float64), 1e-6
    t = times.quantile(u, schedule)
    within = (t > 1e-4) & (t < 1 - 1e-4)  # a law of noise levels may reach beyond the clock
    slope = (times.quantile(u + h, schedule) - times.quantile(u - h, schedule)) / (2 * h)
    product = times.density(t, schedule) * slope
    assert bool((slope[within] > 0).all())
    assert torch.allclose(product[within], torch.ones(19).double()[within], rtol=1e-4)


@pytest.mark.parametrize("times", BASES, ids=name)
@pytest.mark.parametrize("schedule", [FLOW, VP()], ids=name)
def test_draws_follow_the_law_of_the_quantiles(schedule: Schedule, times: TimeSampler) -> None:
    assert distance(shares(times, times(Noise(0), 4000, schedule), schedule)) < CRITICAL


@pytest.mark.parametrize("base", BASES, ids=name)
def test_every_time_of_a_stratified_batch_has_the_law_of_the_base(base: TimeSampler) -> None:
    times = Stratified(base)
    drawn = torch.stack([times(Noise(seed), 5, FLOW) for seed in range(1500)])
    for i in (0, 2, 4):
        assert distance(shares(base, drawn[:, i], FLOW)) < CRITICAL


@pytest.mark.parametrize("batch", [1, 2, 7, 32])
def test_a_stratified_batch_has_one_time_in_every_share_of_its_law(batch: int) -> None:
    base = LogitNormal(-0.3, 1.2)
    u = shares(base, Stratified(base)(Noise(3), batch, FLOW), FLOW).sort().values
    gaps = torch.cat([u[1:] - u[:-1], u[:1] + 1 - u[-1:]])
    assert torch.allclose(gaps, torch.full((batch,), 1 / batch).double(), atol=1e-9)


@pytest.mark.parametrize("base", [UniformTimes(), LogNormal(), CosMap()], ids=name)
def test_stratified_times_give_a_mean_loss_of_lower_variance_and_the_same_mean(
    base: TimeSampler,
) -> None:
    def means(times: TimeSampler) -> Tensor:
        return torch.stack([MinSNR()(FLOW, times(Noise(s), 16, FLOW)).mean() for s in range(300)])

    plain, even = means(base), means(Stratified(base))
    assert float(even.var()) < 0.1 * float(plain.var())
    assert float(even.mean()) == pytest.approx(
        float(plain.mean()), abs=5 * float(plain.std()) / math.sqrt(300)
    )


def test_times_of_one_sample_depend_on_its_own_stream_but_stratified_ones_on_the_first() -> None:
    seeds = [5, 8, 2]
    for times in BASES:
        together = times(Noise(seeds), 3, FLOW)
        alone = torch.cat([times(Noise([s]), 1, FLOW) for s in seeds])
        assert torch.equal(together, alone)
    even = Stratified()
    assert torch.equal(even(Noise(seeds), 3, FLOW), even(Noise([5, 1, 1]), 3, FLOW))
    # every stream has advanced by one number, as under any other law
    noises = [Noise(seeds), Noise(seeds)]
    even(noises[0], 3, FLOW), UniformTimes()(noises[1], 3, FLOW)
    assert torch.equal(noises[0].scalars(3), noises[1].scalars(3))


@pytest.mark.parametrize("schedule", [FLOW, VP(), Cosine()], ids=name)
def test_log_uniform_noise_levels_are_uniform_in_their_logarithm(schedule: Schedule) -> None:
    t = LogUniform(0.1, 10.0)(Noise(0), 4000, schedule)
    y = -0.5 * schedule.log_snr(t)
    assert distance((y / math.log(10.0) + 1) / 2) < CRITICAL


def test_log_uniform_noise_levels_are_cut_to_those_of_the_clock() -> None:
    t = LogUniform(1e-3, 1e6)(Noise(0), 4000, VE(0.02, 50.0))
    u = torch.log(VE(0.02, 50.0).sigma(t) / 0.02) / math.log(50.0 / 0.02)
    assert distance(u) < CRITICAL
    assert float((t <= 1.001e-5).double().mean()) < 0.01  # nothing piles up at the ends
    with pytest.raises(ValueError, match=r"runs from 0\.02 to 50: none of it"):
        LogUniform(60.0, 80.0)(Noise(0), 2, VE(0.02, 50.0))


@pytest.mark.parametrize("schedule", [FLOW, VP()], ids=name)
def test_times_between_noise_levels_are_those_of_the_law_without_the_others(
    schedule: Schedule,
) -> None:
    base, low, high = LogNormal(), -1.0, 2.5
    parts = [Between(base, high=low), Between(base, low, high), Between(base, low=high)]
    drawn = base(Noise(0), 6000, schedule)
    level = schedule.log_snr(drawn)
    inside = [level <= low, (level > low) & (level <= high), level > high]
    total = torch.zeros_like(drawn)
    for part, mine in zip(parts, inside, strict=True):
        first, last = part.shares(schedule)
        assert last - first == pytest.approx(float(mine.double().mean()), abs=0.02)
        found = schedule.log_snr(part(Noise(1), 500, schedule))
        assert bool(((found > part.low - 1e-6) & (found < part.high + 1e-6)).all())
        assert distance(shares(part, drawn[mine], schedule)) < CRITICAL
        total = total + (last - first) * part.density(drawn, schedule)
    assert torch.allclose(total, base.density(drawn, schedule))
    with pytest.raises(ValueError, match="has no times of log-SNRs between 50.0 and 60.0"):
        Between(UniformTimes(0.1, 0.9), 50.0, 60.0)(Noise(0), 1, schedule)


def test_what_is_cut_out_of_stratified_times_is_stratified() -> None:
    cut = Between(Stratified(), -1.0, 2.5)
    first, last = cut.shares(FLOW)
    times = cut(Noise(3), 16, FLOW)
    u = ((times - first) / (last - first)).sort().values  # of a law that is uniform in time
    assert torch.allclose(u.diff(), torch.full((15,), 1 / 16, dtype=torch.float64))
    plain = Between(UniformTimes(), -1.0, 2.5)(Noise(3), 16, FLOW)
    assert not torch.allclose(plain.sort().values.diff(), times.sort().values.diff())


def test_cos_map_gives_a_straight_line_the_noise_levels_of_the_cosine() -> None:
    u = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    assert torch.allclose(FLOW.log_snr(CosMap().quantile(u, FLOW)), TrigFlow().log_snr(u))


def test_mode_times_are_uniform_at_zero_and_crowd_the_middle_above_it() -> None:
    u = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    assert torch.allclose(ModeTimes(0.0).quantile(u, FLOW), u)
    # the published form runs from noise to data: f(1 - u)
    s, v = 1.29, 1 - u
    f = 1 - v - s * (torch.cos(0.5 * math.pi * v) ** 2 - 1 + v)
    assert torch.allclose(ModeTimes(s).quantile(u, FLOW), f)
    middle, end = ModeTimes(1.0).density(torch.tensor([0.5, 0.05]).double(), FLOW).tolist()
    assert middle > 1 > end


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UniformTimes(0.5, 0.5), "0 <= low < high <= 1"),
        (lambda: Between(low=2.0, high=2.0), "need low < high, got 2.0 and 2.0"),
        (lambda: UniformTimes(-0.1, 0.5), "0 <= low < high <= 1"),
        (lambda: LogUniform(0.0, 1.0), "0 < low < high"),
        (lambda: LogitNormal(0.0, 0.0), "std must be positive"),
        (lambda: LogNormal(0.0, -1.0), "std must be positive"),
        (lambda: ModeTimes(2.0), "scale must lie in"),
        (lambda: ModeTimes(-1.0), "scale must lie in"),
    ],
)
def test_laws_without_a_density_are_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=message):
        make()
