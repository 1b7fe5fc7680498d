"""The integration with a step size for every sample, and the sampler that uses it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from sciffusion import oracle
from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.integrate import integrate
from sciffusion.layout import Dense
from sciffusion.process import Gaussian, Joint, Jump
from sciffusion.samplers import DDIM, Sampler
from sciffusion.samplers.adaptive import Adaptive
from sciffusion.schedule import VE, VP, Cosine, RectifiedFlow, Schedule, TrigFlow
from sciffusion.space import Categorical, ZeroCoM
from sciffusion.state import State, Value, take
from sciffusion.testing import split
from tests.core.cases import in_every_layout, mixture, name, packed, padded, points, randn

FLOW = RectifiedFlow()
VARIANCES = torch.tensor([0.4, 1.7], dtype=torch.float64)


def tensor(x: Value) -> Tensor:
    assert isinstance(x, Tensor)
    return x


def turn(u: Tensor, y: Sequence[Tensor]) -> list[Tensor]:
    """A rotation with an angular speed that grows with u, in every sample its own way."""
    speed = torch.arange(1, len(u) + 1, dtype=torch.float64) * u
    return [torch.stack([-y[0][:, 1], y[0][:, 0]], 1) * speed[:, None]]


def run(rtol: float, batch: int = 3) -> tuple[Tensor, int]:
    start, end = torch.zeros(batch, dtype=torch.float64), torch.full((batch,), 2.0).double()
    y0 = torch.tensor([[1.0, 0.0]], dtype=torch.float64).repeat(batch, 1)
    y, calls = integrate(turn, [y0], [Dense(batch)], start, end, rtol=rtol, atol=rtol)
    return y[0], calls


def test_a_rotation_ends_where_its_angle_says_and_closer_for_a_finer_tolerance() -> None:
    angle = 2.0 * torch.arange(1, 4, dtype=torch.float64)
    exact = torch.stack([angle.cos(), angle.sin()], 1)
    errors = [float((run(tol)[0] - exact).abs().max()) for tol in (1e-3, 1e-6, 1e-9)]
    assert errors[0] < 1e-2 and errors[1] < 1e-5 and errors[2] < 1e-8


def test_a_thousandfold_finer_tolerance_costs_a_fifth_orders_price() -> None:
    """Steps grow with tolerance^(-1/5): four times as many for a thousandth."""
    coarse, fine = run(1e-5)[1], run(1e-8)[1]
    assert 2.5 < fine / coarse < 6


def test_batch_mates_change_nothing() -> None:
    whole = run(1e-6)[0]
    alone = run(1e-6, batch=1)[0]
    assert torch.equal(whole[:1], alone)


def test_backwards_leads_back() -> None:
    y, _ = run(1e-10)
    two, zero = torch.full((3,), 2.0).double(), torch.zeros(3).double()
    back, _ = integrate(turn, [y], [Dense(3)], two, zero, rtol=1e-10, atol=1e-10)
    assert torch.allclose(back[0], torch.tensor([1.0, 0.0]).double().expand(3, 2), atol=1e-7)


def test_samples_may_start_at_different_times() -> None:
    start, end = torch.tensor([0.0, 1.0, 2.0]).double(), torch.full((3,), 2.0).double()
    y0 = torch.tensor([[1.0, 0.0]], dtype=torch.float64).repeat(3, 1)
    y, _ = integrate(turn, [y0], [Dense(3)], start, end, rtol=1e-9, atol=1e-9)
    angle = torch.tensor([2.0, 3.0, 0.0]).double()
    assert torch.allclose(y[0], torch.stack([angle.cos(), angle.sin()], 1), atol=1e-7)


def test_what_cannot_be_integrated_is_refused() -> None:
    one = torch.zeros(1).double()
    with pytest.raises(ValueError, match="rtol and atol must be positive"):
        integrate(turn, [one[:, None]], [Dense(1)], one, one + 1, rtol=0.0, atol=1e-3)

    def explodes(u: Tensor, y: Sequence[Tensor]) -> list[Tensor]:
        return [y[0] ** 2]

    with pytest.raises(RuntimeError, match="did not arrive within 200 steps"):
        y0 = torch.ones(1, 1).double()
        integrate(explodes, [y0], [Dense(1)], one, one + 3, rtol=1e-6, atol=1e-6, most=200)


def decay(u: Tensor, y: Sequence[Tensor]) -> list[Tensor]:
    return [x.cos() - x**3 for x in y]


def test_a_field_said_twice_takes_the_steps_of_one() -> None:
    zero, two, y = torch.zeros(4).double(), torch.full((4,), 2.0).double(), randn(4, 3)
    once, calls = integrate(decay, [y], [Dense(4)], zero, two, rtol=1e-6, atol=1e-6)
    both, again = integrate(decay, [y, y], [Dense(4)] * 2, zero, two, rtol=1e-6, atol=1e-6)
    assert calls == again and torch.allclose(both[0], once[0], rtol=0, atol=1e-14)


def test_samples_of_different_sizes_have_steps_of_their_own_in_every_layout() -> None:
    samples = [(i + 1) * s for i, s in enumerate(points())]
    for field, layout in (packed(samples), padded(samples)):
        start = torch.zeros(4).double()
        whole, _ = integrate(decay, [field], [layout], start, start + 2, rtol=1e-3, atol=1e-3)
        for i, sample in enumerate(samples):
            own, one = take(State({"x": field}, layout), torch.tensor([i])), start[:1]
            assert isinstance(own, State)
            alone, _ = integrate(
                decay, [own["x"]], [own.layout("x")], one, one + 2, rtol=1e-3, atol=1e-3
            )
            got = take(State({"x": whole[0]}, layout), torch.tensor([i]))
            (a,), (b,) = split(got, "x"), split(State({"x": alone[0]}, own.layout("x")), "x")
            assert a.shape == (sample.numel(),) and torch.allclose(a, b, rtol=0, atol=1e-13)


def test_a_step_that_left_the_domain_is_taken_again_shorter() -> None:
    """The root of a negative number is not finite: the first step, a fiftieth, leads there."""

    def falls(u: Tensor, y: Sequence[Tensor]) -> list[Tensor]:
        return [-rate[:, None] * y[0].sqrt().square()]

    rate = torch.tensor([300.0, 2.0], dtype=torch.float64)
    zero, one = torch.zeros(2).double(), torch.ones(2, 1).double()
    y, _ = integrate(falls, [one], [Dense(2)], zero, zero + 1, rtol=1e-6, atol=1e-9)
    assert torch.allclose(y[0][:, 0], (-rate).exp(), rtol=0, atol=1e-6)


def test_a_derivative_that_is_never_finite_ends_the_run_soon() -> None:
    calls = 0

    def broken(u: Tensor, y: Sequence[Tensor]) -> list[Tensor]:
        nonlocal calls
        calls += 1
        return [torch.where(torch.arange(3)[:, None] == 1, math.nan, -y[0])]

    zero = torch.zeros(3).double()
    with pytest.raises(RuntimeError, match="1 of 3 samples did not arrive.*the first is number 1"):
        integrate(broken, [randn(3, 2)], [Dense(3)], zero, zero + 1, rtol=1e-6, atol=1e-6)
    assert calls < 400


@pytest.mark.parametrize("schedule", [FLOW, VP(), VE(), Cosine(), TrigFlow()], ids=name)
def test_the_flow_of_a_gaussian_is_followed_to_the_tolerance(schedule: Schedule) -> None:
    cov = torch.tensor([[0.6, 0.2], [0.2, 0.3]], dtype=torch.float64)
    exact = oracle.Gaussian(torch.tensor([0.5, -0.2]).double(), cov, Gaussian(schedule))
    x = randn(4, 2) * float(schedule.sigma(0.9))
    for tol in (1e-4, 1e-8):
        got = Adaptive(tol, tol, start=0.9, stop=0.1)(exact, x)
        assert torch.allclose(tensor(got.x), exact.flow(x, 0.9, 0.1), rtol=0, atol=30 * tol)
        assert got.nfe % 6 == 1


def test_from_the_prior_to_the_data_the_ends_are_cut_off_where_nothing_happens() -> None:
    cov = torch.tensor([[0.6, 0.2], [0.2, 0.3]], dtype=torch.float64)
    exact = oracle.Gaussian(torch.zeros(2).double(), cov, Gaussian(FLOW))
    x = randn(4, 2)
    end = tensor(Adaptive(1e-9, 1e-9, low=-24, high=24)(exact, x).x)
    assert torch.allclose(end, exact.flow(x, 1.0, 0.0), rtol=0, atol=1e-4)


def test_every_sample_has_steps_of_its_own() -> None:
    x = randn(4, 2)
    whole = tensor(Adaptive()(mixture(), x).x)
    for i in range(4):
        assert torch.equal(tensor(Adaptive()(mixture(), x[i : i + 1]).x), whole[i : i + 1])


def test_point_clouds_are_carried_the_same_way_in_every_layout() -> None:
    process = Joint({"pos": Gaussian(FLOW, ZeroCoM())})
    exact = oracle.PointCloud(1.3, process, "pos")
    ends = []
    for field, layout in (packed(points()), padded(points())):
        x = State({"pos": ZeroCoM().project(field, layout)}, layout)
        end = Adaptive(1e-8, 1e-8, stop=0.05)(exact, x).x
        assert isinstance(end, State)
        ends.append(torch.cat([v.flatten() for v in layout_parts(end)]))
        flowed = exact.flow(x, 1.0, 0.05)
        assert isinstance(flowed, State)
        assert torch.allclose(layout.clean(end["pos"]), layout.clean(flowed["pos"]), atol=1e-3)
    assert torch.allclose(ends[0], ends[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("times", [(1e-4, 2e-5), (1e-4, 0.0), (1 - 1e-5, 1 - 1e-4)], ids=str)
def test_a_run_beyond_the_window_is_one_first_order_step(times: tuple[float, float]) -> None:
    start, stop = times
    exact, x = mixture(), randn(4, 2)
    got = Adaptive(start=start, stop=stop, low=-9.0, high=9.0)(exact, x)
    want = Sampler(DDIM(), 1, start=start, stop=stop)(exact, x).x
    assert got.nfe == 1 and torch.allclose(tensor(got.x), tensor(want), rtol=0, atol=1e-12)


@pytest.mark.parametrize("stop", [0.0, 1e-3])
def test_beyond_the_window_every_field_takes_one_first_order_step(stop: float) -> None:
    process = Joint({"a": Gaussian(FLOW), "b": Gaussian(TrigFlow())})
    cov = torch.tensor([[0.6, 0.2], [0.2, 0.3]], dtype=torch.float64)
    exact = oracle.Gaussian(torch.tensor([0.5, -0.2]).double(), cov, process)
    x = State({"a": randn(4, 1).requires_grad_(), "b": randn(4, 1, seed=1)}, Dense(4))
    high, low = float(FLOW.time(-4.0)), float(FLOW.time(6.0))
    whole = Adaptive(stop=stop, low=-4.0, high=6.0)(exact, x)
    want = Sampler(DDIM(), 1, start=1.0, stop=high)(exact, x).x
    want = Adaptive(start=high, stop=low)(exact, want).x
    want = Sampler(DDIM(), 1, start=low, stop=stop)(exact, want).x
    assert isinstance(whole.x, State) and isinstance(want, State) and whole.nfe % 6 == 3
    for field in whole.x:
        assert not whole.x[field].requires_grad
        assert torch.allclose(whole.x[field], want[field], rtol=0, atol=1e-9)


def test_a_run_to_time_0_ends_on_clean_data_even_where_the_schedule_keeps_noise() -> None:
    schedule, variance = VE(0.5, 80.0), torch.eye(1).double()
    exact = oracle.Gaussian(torch.zeros(1).double(), variance, Gaussian(schedule))
    x = 80 * randn(4, 1)
    # a Gaussian's flow keeps its quantiles; then the prediction at sigma = 0.5
    want = x * (1.25 / 6401) ** 0.5 / 1.25
    assert torch.allclose(tensor(Adaptive(1e-9, 1e-9)(exact, x).x), want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("clock", ["a", "b"])
def test_fields_whose_schedules_end_elsewhere_are_carried_together(clock: str) -> None:
    """Rectified flow has no noise at t = 0 and no data at t = 1; the exploding schedule has both at both."""
    process = Joint({"a": Gaussian(FLOW), "b": Gaussian(VE())}, clock=clock)
    exact = oracle.Gaussian(torch.zeros(2).double(), torch.diag(VARIANCES), process)
    start = {"a": randn(4, 1), "b": 80 * randn(4, 1, seed=1)}
    for stop in (0.0, 0.3):
        end = Adaptive(1e-8, 1e-8, stop=stop)(exact, State(start, Dense(4))).x
        assert isinstance(end, State)
        for (field, x), variance in zip(start.items(), VARIANCES.tolist(), strict=True):
            # a Gaussian's flow keeps its quantiles
            spread = [
                (variance * a**2 + s**2) ** 0.5
                for a, s in (map(float, process.field(field).clock(t)) for t in (1.0, stop))
            ]
            want = x * (variance**0.5 if stop == 0 else spread[1]) / spread[0]
            assert torch.allclose(end[field], want, rtol=0, atol=3e-3), field


def test_guidance_that_moves_the_point_has_no_flow() -> None:
    class Moving(Denoiser):
        def __init__(self) -> None:
            super().__init__()
            self.process = Gaussian(FLOW)

        def forward(
            self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
        ) -> Prediction:
            return Prediction(x_t, tensor(x_t) + 1, t, self.process)

    with pytest.raises(ValueError, match="moves the point at which it predicts"):
        Adaptive()(Moving(), randn(2, 2))


def layout_parts(x: State) -> list[Tensor]:
    layout = x.layout("pos")
    return [
        layout.take(x["pos"], torch.tensor([i]))[0].reshape(-1, 3)[: layout.parts(x["pos"])[i][0]]
        for i in range(x.batch)
    ]


def test_only_gaussian_fields_flow() -> None:
    process = Jump(FLOW, Categorical(3))
    denoiser = oracle.Categorical(torch.full((3,), 1 / 3), process)
    with pytest.raises(ValueError, match="has no probability flow"):
        Adaptive()(denoiser, torch.zeros(2, 4, dtype=torch.long))
    with pytest.raises(ValueError, match="need 0 <= stop < start <= 1"):
        Adaptive(start=0.1, stop=0.2)
    with pytest.raises(ValueError, match="x is not finite"):
        Adaptive()(mixture(), torch.full((2, 2), math.nan))
    with pytest.raises(ValueError, match="need low < high"):
        Adaptive(low=3.0, high=-3.0)
    assert math.isfinite(float(tensor(Adaptive()(mixture(), randn(1, 2)).x).sum()))
    assert len(in_every_layout()) == 3
