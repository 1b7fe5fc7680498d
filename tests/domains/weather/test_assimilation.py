"""Assimilation against exact posteriors: conditional Gaussians and the Kalman smoother that they are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pytest
import torch
from torch import Tensor

from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.domains.weather.assimilation import (
    Assimilation,
    Frames,
    assimilate,
    given,
    trajectory,
)
from sciffusion.domains.weather.grid import Grid
from sciffusion.domains.weather.observations import Coarse, Custom, Masked, Points
from sciffusion.domains.weather.observed import Observations, Report, misfits
from sciffusion.domains.weather.scales import Scales
from sciffusion.inverse import DPS, MMPS, SDA, Method, Posterior, Windowed
from sciffusion.oracle import Gaussian as Oracle
from sciffusion.process import Gaussian
from sciffusion.samplers import Langevin, Multistep, Sampler
from sciffusion.schedule import RectifiedFlow
from sciffusion.state import Value

C, H, W = 2, 2, 3
GRID = Grid(torch.tensor([45.0, -45.0]).double(), torch.tensor([0.0, 120.0, 240.0]).double())
SCALES = Scales(
    torch.tensor([5500.0, 280.0]).double()[:, None, None],
    torch.tensor([80.0, 3.0]).double()[:, None, None],
)
PROCESS = Gaussian(RectifiedFlow())
EXACT = MMPS(iters=100, tol=1e-14)
KEPT = 0.9  # of a state, by the next one


def tensor(x: Value) -> Tensor:
    assert isinstance(x, Tensor)
    return x


@cache
def spatial() -> Tensor:
    """A covariance (CHW, CHW) that links neighbours and both channels; unit variances."""
    lat, lon = torch.deg2rad(GRID.lat), torch.deg2rad(GRID.lon)
    at = torch.stack(
        [
            (lat.cos()[:, None] * lon.cos()).flatten(),
            (lat.cos()[:, None] * lon.sin()).flatten(),
            lat.sin()[:, None].expand(H, W).flatten(),
        ],
        1,
    )
    space = torch.exp(-torch.cdist(at, at) / 1.5)
    return torch.kron(torch.tensor([[1.0, 0.5], [0.5, 1.0]]).double(), space)


@cache
def covariance(states: int, kept: float = KEPT) -> Tensor:
    """Of a stationary AR(1) process of fields: x_{k+1} = kept x_k + noise."""
    lag = (torch.arange(states)[:, None] - torch.arange(states)).abs()
    return torch.kron(torch.tensor(kept).double() ** lag, spatial())


class Stacked(Denoiser):
    """The exact denoiser of windows of AR(1) fields as a model gives it: states stacked as channels."""

    def __init__(self, states: int) -> None:
        super().__init__()
        d = states * C * H * W
        self.oracle = Oracle(torch.zeros(d).double(), covariance(states), PROCESS)
        self.process, self.rows = PROCESS, -1

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        assert isinstance(x_t, Tensor) and x_t.ndim == 4
        self.rows = len(x_t)
        return self.oracle(x_t, t)


def exact(reports: Sequence[Report], states: int) -> tuple[Tensor, Tensor]:
    """Mean (D,) and covariance (D, D) of normalised states given reports of linear instruments."""
    seen = Observations(reports, SCALES)
    d = states * C * H * W
    units = torch.eye(d).double().reshape(d, states, C, H, W)
    zero = seen(torch.zeros_like(units[:1]))
    a = (seen(units) - zero).T
    cov = covariance(states)
    gain = cov @ a.T @ torch.linalg.inv(a @ cov @ a.T + torch.diag(seen.std[0] ** 2))
    return gain @ (seen.y - zero)[0], cov - gain @ a @ cov


def reports(*steps: int) -> list[Report]:
    """Three kinds of instruments, at each of the steps."""
    out = []
    for k in steps:
        stations = Points(GRID, [30.0, -45.0], [45.0, 120.0], [0, 1])
        heights = torch.tensor([5460.0 + 10 * k, 284.0]).double()
        out += [
            Report(stations, heights, torch.tensor([10.0, 0.5]).double(), k, "stations"),
            Report(Coarse(GRID, (2, 3), [1]), torch.full((1, 1, 1), 282.0).double(), 0.3, k, "t"),
        ]
    return out


def at(t: float, n: int, states: int) -> Tensor:
    """Noised windows at the time t."""
    g = torch.Generator().manual_seed(0)
    z = torch.randn(n, states * C * H * W, generator=g, dtype=torch.float64)
    alpha, sigma = PROCESS.schedule(torch.tensor(t).double())
    total = alpha**2 * covariance(states) + sigma**2 * torch.eye(z.shape[1])
    return (z @ torch.linalg.cholesky(total).T).reshape(n, states, C, H, W)


@pytest.mark.parametrize("t", [0.05, 0.4, 0.9])
def test_the_denoiser_given_observations_is_that_of_the_conditional_gaussian(t: float) -> None:
    states = 2
    seen = Observations(reports(0, 1), SCALES)
    posterior = Posterior(
        trajectory(Stacked(states), states, states), seen, seen.y, seen.std, EXACT
    )
    mean, cov = exact(reports(0, 1), states)
    x_t = at(t, 3, states)
    want = tensor(Oracle(mean, cov, PROCESS)(x_t, torch.tensor(t)).x0)
    assert torch.allclose(tensor(posterior(x_t, torch.tensor(t)).x0), want, atol=1e-6)
    alone = torch.cat([tensor(posterior(row[None], torch.tensor(t)).x0) for row in x_t])
    assert torch.allclose(tensor(posterior(x_t, torch.tensor(t)).x0), alone, atol=1e-12)


def test_members_have_the_mean_and_covariance_of_the_posterior_and_fit_as_they_should() -> None:
    """And the residuals of members have the deviation that the exact posterior gives them."""
    states, n = 1, 256
    settings = Assimilation(EXACT, Sampler(Multistep(2), 16), n, n)
    prior = trajectory(Stacked(states), states, states)
    x = assimilate(prior, SCALES, reports(0), (states, C, H, W), settings, 3, dtype=torch.float64)
    z = SCALES.normalise(x).flatten(1)
    mean, cov = exact(reports(0), states)
    error = cov.diagonal().sqrt() / n**0.5
    assert float(((z.mean(0) - mean) / error).abs().max()) < 4
    assert torch.allclose(z.T.cov(), cov, atol=5 / n**0.5)
    assert float((z.var(0) / cov.diagonal()).mean()) == pytest.approx(1, abs=0.1)
    for check in misfits(reports(0), x):
        report = [r for r in reports(0) if r.name == check.name]
        seen = Observations(report, SCALES)
        units = torch.eye(len(mean)).double().reshape(-1, states, C, H, W)
        a = (seen(units) - seen(0 * units[:1])).T
        residual = (seen(mean.reshape(1, states, C, H, W)) - seen.y)[0]
        square = (residual**2 + (a @ cov @ a.T).diagonal()) / seen.std[0] ** 2
        assert check.ratio == pytest.approx(float(square.mean() ** 0.5), rel=0.1)
        assert f"{check.name}: {check.count} observations" in str(check)


def test_a_member_depends_on_its_seed_and_number_alone() -> None:
    prior, sampler = trajectory(Stacked(1), 1, 1), Sampler(Multistep(2, eta=1.0), 6)
    done: list[int] = []

    def run(members: int, together: int, seed: int) -> Tensor:
        settings = Assimilation(MMPS(2), sampler, members, together)
        return assimilate(
            prior,
            SCALES,
            reports(0),
            (1, C, H, W),
            settings,
            seed,
            dtype=torch.float64,
            progress=done.append,
        )

    five = run(5, 5, 1)
    assert torch.allclose(run(3, 2, 1), five[:3], atol=1e-8)
    assert done == [5, 2, 3]
    assert not torch.allclose(run(1, 1, 2), five[:1])
    assert five.shape == (5, 1, C, H, W)


@pytest.mark.parametrize("method", [MMPS(20), SDA(0.1), DPS(0.5)])
def test_units_do_not_matter(method: Method) -> None:
    """Observing the same in other units gives the same members, whatever the method."""
    prior = trajectory(Stacked(1), 1, 1)
    settings = Assimilation(method, Sampler(Multistep(1), 8), 2)
    station = Points(GRID, [30.0], [45.0], 0)
    y = torch.tensor([5400.0]).double()
    metres = Report(station, y, 10.0)
    kilometres = Report(
        Custom(lambda f: station(torch.stack([f["z"], f["t"]], 1)) / 1000, ["z", "t"]),
        y / 1000,
        0.01,
    )
    shape = (1, C, H, W)
    a, b = (
        assimilate(prior, SCALES, [r], shape, settings, dtype=torch.float64)
        for r in (metres, kilometres)
    )
    assert torch.allclose(a, b, atol=1e-6)


def smoothed(denoiser: Denoiser, seen: Observations, length: int) -> Tensor:
    """The mean of the posterior, (B, D), one for each row of y: the flow is linear, so it leads from mean to mean."""
    like = torch.zeros(len(seen.y), length, C, H, W).double()
    posterior = given(denoiser, seen, like, EXACT)
    return tensor(Sampler(Multistep(2), 12)(posterior, like).x).flatten(1)


def test_windows_compose_to_the_smoother_of_the_whole_trajectory() -> None:
    """The mean of 7 states seen at both ends against the Kalman smoother's, in deviations of the prior.

    A window of 7 is the whole, and exact; windows of one state know nothing of the others; between them the error of
    the composition falls.
    """
    length, errors = 7, {}
    seen = reports(0, 6)
    mean, _ = exact(seen, length)
    for window in (1, 3, 5, 7):
        prior = trajectory(Stacked(window), window, length)
        got = smoothed(prior, Observations(seen, SCALES), length)[0]
        errors[window] = float((got - mean).square().mean().sqrt())
        if window == 1:
            assert float(got.reshape(length, -1)[1:-1].abs().max()) < 1e-9
    assert errors[7] < 1e-9
    assert errors[5] < 0.06 and errors[5] < 0.4 * errors[3] < 0.4 * 0.16
    assert errors[3] < 0.4 * errors[1]


def test_a_window_beats_one_instant() -> None:
    """Errors of the mean at the middle state, whose truth is known, with stations at every time."""
    length, n = 5, 24
    g = torch.Generator().manual_seed(1)
    root = torch.linalg.cholesky(covariance(length))
    truth = torch.randn(n, len(root), generator=g, dtype=torch.float64) @ root.T
    truth = truth.reshape(n, length, C, H, W)
    station = Points(GRID, [45.0, 0.0, -45.0], [0.0, 90.0, 180.0], [0, 1, 0])
    std = torch.tensor([60.0, 2.0, 60.0]).double()
    seen = Observations([Report(station, torch.zeros(3), std, k) for k in range(length)], SCALES)
    seen.y = seen(truth)
    seen.y = seen.y + seen.std * torch.randn(seen.y.shape, generator=g, dtype=torch.float64)
    errors = {}
    for window in (1, length):
        got = smoothed(trajectory(Stacked(window), window, length), seen, length)
        error = got.reshape(truth.shape)[:, length // 2] - truth[:, length // 2]
        errors[window] = float(error.square().mean())
    assert errors[length] < 0.9 * errors[1]


def test_a_longer_trajectory_goes_through_the_windows_denoiser_in_one_call() -> None:
    inner = Stacked(3)
    trajectory(inner, 3, 7)(at(0.5, 2, 7), torch.tensor(0.5))
    assert inner.rows == 2 * 5


class Conditioned(Denoiser):
    """Predicts its condition."""

    def __init__(self) -> None:
        super().__init__()
        self.process = PROCESS

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        assert isinstance(x_t, Tensor)
        x0 = (cond["hour"] + cond["orography"]) * torch.ones_like(x_t)
        return Prediction(x0, x_t, t, self.process)


def test_every_window_of_every_sample_gets_the_condition_of_its_own_time() -> None:
    """Element k of the trajectory is the middle of window k - 1; the ends belong to the first and last window."""
    hours = torch.arange(5.0).reshape(5, 1, 1, 1)
    cond = {"hour": hours, "orography": torch.full((1, 1, 1, 1), 0.5)}
    x0 = tensor(trajectory(Conditioned(), 3, 7, cond)(at(0.5, 2, 7), torch.tensor(0.5)).x0)
    want = torch.tensor([0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 4.0]) + 0.5
    assert torch.equal(x0.mean((2, 3, 4)), want.double().expand(2, -1))
    with pytest.raises(ValueError, match="cond has 5 rows for 2 windows"):
        Frames(Conditioned(), cond)(at(0.5, 2, 3), torch.tensor(0.5))


def test_missing_values_count_nothing() -> None:
    one, two = reports(0)
    values = torch.tensor([float("nan"), 284.0]).double()
    gappy = Report(one.instrument, values, one.std, 0, "stations")
    alone = Report(Points(GRID, [-45.0], [120.0], 1), values[1:], 0.5, 0, "stations")
    assert gappy.missing == 1
    for a, b in zip(exact([gappy, two], 1), exact([alone, two], 1), strict=True):
        assert torch.allclose(a, b)
    assert misfits([gappy], SCALES.restore(at(0.5, 4, 1)))[0].count == 1


def test_an_instrument_may_see_the_whole_window() -> None:
    """The change between two states, observed as such."""
    tendency = Custom(lambda f: (f["z"][:, 1] - f["z"][:, 0]).mean((-2, -1)), ["z", "t"])
    report = Report(tendency, torch.tensor(40.0).double(), 1.0, None)
    seen = Observations([report], SCALES)
    assert torch.equal(seen.sizes(torch.zeros(1, 2, C, H, W).double())[1], torch.ones(1, 1))
    prior = trajectory(Stacked(2), 2, 2)
    settings = Assimilation(EXACT, Sampler(Multistep(2), 24), 4)
    x = assimilate(prior, SCALES, [report], (2, C, H, W), settings, dtype=torch.float64)
    assert torch.allclose(
        x[:, 1, 0].mean((-2, -1)) - x[:, 0, 0].mean((-2, -1)), torch.tensor(40.0).double(), atol=4
    )


def test_corrections_and_non_linear_instruments_run() -> None:
    """Saturated observations, pulled in the right direction; corrected at every step."""
    x = 5500 + 160 * torch.ones(1, C, H, W).double()
    saturated = Custom(lambda f: torch.tanh((f["z"] - 5500) / 80), ["z", "t"])
    mask = Masked(torch.ones(C, H, W) > 0)
    settings = Assimilation(SDA(0.1), Sampler(Langevin(2), 16), 4)
    prior = trajectory(Stacked(1), 1, 1)
    members = assimilate(
        prior,
        SCALES,
        [Report(saturated, saturated(x)[0], 0.05)],
        (1, C, H, W),
        settings,
        dtype=torch.float64,
    )
    assert float(members[:, 0, 0].mean()) > 5550
    assert mask(members[:, 0]).shape == (4, C * H * W)


def test_what_does_not_fit_is_refused() -> None:
    one = reports(0)[0]
    prior = trajectory(Stacked(1), 1, 1)
    with pytest.raises(ValueError, match="step 3 of 'stations' is outside the window of 1 states"):
        assimilate(prior, SCALES, reports(3), (1, C, H, W))
    with pytest.raises(
        ValueError, match=r"values of 'x' are \(3,\), their instrument gives \(2,\)"
    ):
        assimilate(
            prior, SCALES, [Report(one.instrument, torch.ones(3), 1.0, 0, "x")], (1, C, H, W)
        )
    with pytest.raises(ValueError, match="reports is empty"):
        assimilate(prior, SCALES, [], (1, C, H, W))
    for values in ([float("inf"), 1.0], [float("nan")] * 2):
        with pytest.raises(ValueError, match="infinite or all missing"):
            Report(one.instrument, torch.tensor(values), 1.0)
    for std in (0.0, -1.0, float("nan"), torch.tensor([1.0, 0.0])):
        with pytest.raises(ValueError, match="std of 'observations' must be positive"):
            Report(one.instrument, torch.ones(2), std)
    with pytest.raises(ValueError, match="windows of 3 states, the trajectory has 2"):
        trajectory(Stacked(3), 3, 2)
    with pytest.raises(ValueError, match="odd window"):
        trajectory(Stacked(2), 2, 4)
    with pytest.raises(ValueError, match="at least 1"):
        Assimilation(members=0)
    with pytest.raises(ValueError, match=r"windows \(B, K, C, H, W\)"):
        Frames(Stacked(1))(torch.zeros(1, C, H, W), torch.tensor(0.5))
    assert isinstance(trajectory(Stacked(1), 1, 4), Windowed)
