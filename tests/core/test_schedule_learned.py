"""The learned schedule: a curve whatever its parameters, and gradients that reach them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sciffusion.denoiser import Condition, Preconditioned
from sciffusion.likelihood import log_likelihood, nelbo
from sciffusion.noise import Noise
from sciffusion.objective import Objective
from sciffusion.oracle import Gaussian as GaussianOracle
from sciffusion.process import Gaussian, Jump, Target
from sciffusion.samplers import (
    DDIM,
    Adaptive,
    Heun,
    Multistep,
    Parallel,
    Restart,
    Sampler,
    Singlestep,
)
from sciffusion.schedule import Learned, Schedule, ZeroTerminalSNR
from sciffusion.space import Categorical
from sciffusion.state import Value
from sciffusion.testing import check_schedule
from tests.core.cases import default_dtype, randn

T = torch.linspace(0, 1, 101, dtype=torch.float64)


def shaken(seed: int, size: float, width: int = 64) -> Learned:
    """A learned schedule far from where it starts."""
    schedule = Learned(width=width)
    with torch.no_grad():
        for i, p in enumerate(schedule.interior()):
            p.add_(size * randn(*p.shape, seed=seed + i).to(p))
    return schedule


class Zero(nn.Module):
    """A network that says nothing, and keeps the log-SNRs that it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.levels: list[Tensor] = []

    def forward(self, x: Tensor, level: Tensor, cond: Condition, previous: Value | None) -> Tensor:
        self.levels.append(level)
        return torch.zeros_like(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_learned_schedule_keeps_the_contract(dtype: torch.dtype) -> None:
    with default_dtype(dtype):
        check_schedule(Learned(width=8))
        check_schedule(shaken(0, 1.0, width=8))
        check_schedule(ZeroTerminalSNR(Learned(width=4)))


@settings(max_examples=30)
@given(st.integers(0, 1000), st.floats(0.0, 12.0), st.integers(1, 40))
def test_whatever_its_parameters_it_falls_between_its_ends(
    seed: int, size: float, width: int
) -> None:
    schedule = shaken(seed, size, width=width)
    log_snr = schedule.log_snr(T).detach()
    assert bool((log_snr.diff() < 0).all())
    assert float(log_snr[0]) == pytest.approx(13.3, abs=1e-5)
    assert float(log_snr[-1]) == pytest.approx(-5.0, abs=1e-5)
    assert torch.allclose(schedule.time(log_snr), T, rtol=0, atol=1e-9)


def test_it_starts_as_a_straight_line_the_same_every_time() -> None:
    before = torch.get_rng_state()
    log_snr = Learned(10.0, -6.0).log_snr(T)
    assert torch.allclose(log_snr, 10 - 16 * T, rtol=0, atol=0.05)
    assert torch.equal(Learned(10.0, -6.0).log_snr(T), log_snr)
    assert torch.equal(before, torch.get_rng_state())


def test_the_time_of_a_level_moves_with_the_parameters() -> None:
    """Implicit differentiation against a finite difference."""
    schedule, level, h = shaken(3, 0.5, width=8).double(), torch.tensor([4.0, -1.0]).double(), 1e-5
    rates = torch.autograd.grad(schedule.time(level).sum(), list(schedule.parameters()))
    for p, rate in zip(schedule.parameters(), rates, strict=True):
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                p.view(-1)[0].add_(sign * h)
                ends.append(float(schedule.time(level).sum()))
                p.view(-1)[0].sub_(sign * h)
        assert float(rate.view(-1)[0]) == pytest.approx((ends[0] - ends[1]) / (2 * h), abs=1e-7)


VARIANCE = 0.49
"""Of the data, which are normal: E[x0 | x_t] is then a multiple of x_t."""


def bound(schedule: Schedule, seed: int, n: int = 512) -> Tensor:
    """The continuous-time bound on the likelihood of normal data, a draw of it for every sample."""
    noise, x0 = Noise(seed), VARIANCE**0.5 * randn(n, 1, seed=seed)
    t = (noise.scalars(n) + 1e-4) / 1.0002
    x_t = Gaussian(schedule).perturb(x0, t, noise).x_t
    assert isinstance(x_t, Tensor)
    alpha, sigma = (c[:, None] for c in schedule(t))
    x0_hat = alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2) * x_t
    return 0.5 * -schedule.slope(t) * schedule.log_snr(t).exp() * (x0_hat - x0).square().sum(1)


def expected_bound(schedule: Schedule) -> Tensor:
    """Its expectation at each of many even times."""
    t = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    with torch.no_grad():
        snr = schedule.log_snr(t).exp()
        return 0.5 * -schedule.slope(t) * snr * VARIANCE / (snr * VARIANCE + 1)


def test_learning_the_interior_evens_the_bound_out_and_leaves_its_expectation() -> None:
    schedule = Learned(width=16, train_ends=False)
    start, before = schedule.log_snr(T).detach(), expected_bound(schedule)
    optimizer = torch.optim.Adam(schedule.interior(), 0.1)
    for step in range(30):
        optimizer.zero_grad()
        bound(schedule, step).square().mean().backward()
        optimizer.step()
    moved, after = schedule.log_snr(T).detach(), expected_bound(schedule)
    assert float((moved - start).abs().max()) > 0.5
    assert bool((moved.diff() < 0).all())
    assert torch.allclose(moved[[0, -1]], start[[0, -1]], rtol=0, atol=1e-9)
    assert float(after.var()) < 0.5 * float(before.var())
    assert float(after.mean()) == pytest.approx(float(before.mean()), rel=1e-4)


def test_its_ends_are_learned_only_where_that_was_asked_for() -> None:
    for train in (True, False):
        schedule = Learned(width=4, train_ends=train)
        bound(schedule, 0, 16).mean().backward()
        assert len(schedule.ends()) == (2 if train else 0)
        assert (schedule.top.grad is not None) == train
        assert (schedule.span_raw.grad is not None) == train
        assert all(p.grad is not None and bool(p.grad.any()) for p in schedule.interior())


@pytest.mark.parametrize("target", ["v", "x0", "eps", "flow"])
def test_gradients_of_an_objective_reach_the_schedule(target: Target) -> None:
    schedule = Learned(width=4)
    process = Gaussian(schedule)
    net = nn.Linear(2, 2).double()

    class Net(nn.Module):
        def forward(
            self, x: Tensor, level: Tensor, cond: Condition, previous: Value | None
        ) -> Tensor:
            return net(x) + level[:, None]

    denoiser = Preconditioned(Net(), process, target=target, sigma_data=1.0)
    loss = Objective(process, target="eps")(denoiser, randn(8, 2), noise=Noise(0))
    loss.mean.backward()
    for p in schedule.parameters():
        assert p.grad is not None and bool(p.grad.isfinite().all()) and bool(p.grad.any())


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: s.shift(2.0), ZeroTerminalSNR])
def test_no_number_of_a_learned_schedule_outlives_a_step_of_its_learning(wrap: object) -> None:
    assert callable(wrap)
    learned = Learned(width=8)
    schedule: Schedule = wrap(learned)
    assert not schedule.frozen
    net = Zero()
    denoiser = Preconditioned(net, Gaussian(schedule), sigma_data=0.5)
    t, x = torch.tensor(0.4, dtype=torch.float64), randn(3, 2)
    before = denoiser(x, t).x0
    with torch.no_grad():
        learned.top.sub_(4.0)
        learned.bias.sub_(randn(8).to(learned.bias))
    after = denoiser(x, t).x0
    assert isinstance(before, Tensor) and isinstance(after, Tensor)
    assert bool(((after - before).abs() > 1e-3).any())
    assert torch.allclose(net.levels[-1], schedule.log_snr(t).to(net.levels[-1]))
    assert bool(((net.levels[-1] - net.levels[0]).abs() > 1.0).all())


def test_a_learned_schedule_samples_like_any_other() -> None:
    process = Gaussian(shaken(1, 0.5))
    oracle = GaussianOracle(torch.zeros(2), 0.25 * torch.eye(2), process)
    x = process.prior(randn(4000, 2), Noise(0))
    with torch.no_grad():
        out = Sampler(DDIM(), 64)(oracle, x).x
    assert isinstance(out, Tensor) and not out.requires_grad
    assert float(out.std()) == pytest.approx(0.5, rel=0.04)


@pytest.mark.filterwarnings("error:Converting a tensor with requires_grad")
def test_whatever_runs_under_it_takes_its_levels_for_numbers_without_a_warning() -> None:
    torch.set_warn_always(True)  # torch says it once a process else
    try:
        schedule = shaken(1, 0.5)
        process = Gaussian(schedule)
        exact = GaussianOracle(torch.zeros(2), 0.25 * torch.eye(2), process)
        x = process.prior(randn(3, 2), Noise(0))
        assert isinstance(x, Tensor)
        for solver in (Heun(8.0), Multistep(3), Singlestep(2)):
            Sampler(solver, 4, restarts=(Restart(0.3, 0.6),))(exact, x, grad=True)
        for out in (
            Adaptive(1e-2, 1e-2)(exact, x).x,
            Parallel(Sampler(DDIM(1.0), 4))(exact, x).x,
            log_likelihood(exact, x, rtol=1e-2, atol=1e-2),
            nelbo(exact, x, draws=1),
            Jump(schedule, Categorical(3)).prior(torch.zeros(2, 3).long(), Noise(0)),
        ):
            assert isinstance(out, Tensor) and not out.requires_grad
    finally:
        torch.set_warn_always(False)


def test_its_weights_can_be_saved_and_have_the_default_dtype() -> None:
    one, other = shaken(5, 0.7, width=6), Learned(width=6)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.log_snr(T), other.log_snr(T))
    assert {p.dtype for p in one.parameters()} == {torch.get_default_dtype()}
    assert one.log_snr(T).dtype == torch.float64
    assert "high=13.3, low=-5" in repr(one)


@pytest.mark.parametrize(
    ("high", "low", "width"), [(1.0, 1.0, 4), (float("inf"), 0.0, 4), (5.0, -5.0, 0)]
)
def test_ends_and_widths_that_make_no_curve_are_refused(
    high: float, low: float, width: int
) -> None:
    with pytest.raises(ValueError, match="need low < high"):
        Learned(high, low, width=width)
