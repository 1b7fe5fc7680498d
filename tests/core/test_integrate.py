"""The integration with a step size for every sample, and the sampler that uses it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from sciffusion import oracle
from sciffusion.integrate import integrate
from sciffusion.layout import Dense
from sciffusion.process import Gaussian, Joint, Jump
from sciffusion.samplers.adaptive import Adaptive
from sciffusion.schedule import VE, VP, Cosine, RectifiedFlow, Schedule, TrigFlow
from sciffusion.space import Categorical, ZeroCoM
from sciffusion.state import State, Value
from tests.core.cases import in_every_layout, mixture, name, packed, padded, points, randn

FLOW = RectifiedFlow()


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
        Adaptive(start=0.1, stop=0.2)(mixture(), randn(2, 2))
    assert math.isfinite(float(tensor(Adaptive()(mixture(), randn(1, 2)).x).sum()))
    assert len(in_every_layout()) == 3
