"""Forward processes: what noising does, and how the five targets follow from each other."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor

from sciffusion.layout import Dense, Layout
from sciffusion.noise import Noise
from sciffusion.process import Gaussian, Joint, Jump, Process, Target
from sciffusion.schedule import VE, VP, Cosine, RectifiedFlow, Schedule, TrigFlow
from sciffusion.space import Categorical, Euclidean, GaussianSpace, ZeroCoM
from sciffusion.state import State
from sciffusion.testing import check_process
from tests.core.cases import (
    SCHEDULES,
    default_dtype,
    dense,
    in_every_layout,
    name,
    packed,
    points,
    randn,
)

SCALE = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
SPACES: list[GaussianSpace] = [Euclidean(), Euclidean(SCALE), ZeroCoM(), ZeroCoM(2.0)]
TARGETS: tuple[Target, ...] = get_args(Target)


def truth(
    process: Gaussian, x0: Tensor, e: Tensor, t: Tensor, layout: Layout
) -> tuple[Tensor, dict[Target, Tensor]]:
    """x_t and the five targets, from their definitions."""
    alpha, sigma = (layout.expand(c.to(x0), x0) for c in process.schedule(t))
    a, s = (layout.expand(c.to(x0), x0) for c in process.schedule.rates(t))
    return alpha * x0 + sigma * e, {
        "x0": x0,
        "eps": e,
        "v": alpha * e - sigma * x0,
        "flow": a * x0 + s * e,
        "score": -process.space.precision(e, layout) / sigma,
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_all_25_conversions_agree_with_the_data_and_noise_that_made_the_value(
    schedule: Schedule, dtype: torch.dtype
) -> None:
    # in float32 a conversion may cost the digits that the noise level itself leaves: about sigma_0 and alpha_1
    tol = 1e-9 if dtype == torch.float64 else 5e-3
    per_element = torch.linspace(0.2, 0.8, 9, dtype=torch.float64).reshape(3, 3)
    for space in SPACES:
        process = Gaussian(schedule, space)
        x0, layout = dense(points((3, 3, 3), dtype=dtype))
        x0 = space.project(x0, layout)
        e = space.prior(x0, layout, Noise(1))
        for t in (torch.tensor(0.4), torch.tensor([0.1, 0.5, 0.9]), per_element):
            x_t, want = truth(process, x0, e, t, layout)
            for src in TARGETS:
                for dst in TARGETS:
                    got = process.convert(want[src], x_t, t, layout, src=src, dst=dst)
                    error = (got - want[dst]).abs() / (1 + want[dst].abs())
                    assert float(error.max()) < tol, (src, dst)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_converting_there_and_back_changes_nothing(schedule: Schedule) -> None:
    process, layout, t = Gaussian(schedule, Euclidean(SCALE)), Dense(4), torch.tensor(0.3)
    x_t, value = randn(4, 3), randn(4, 3, seed=1)
    for src in TARGETS:
        for dst in TARGETS:
            there = process.convert(value, x_t, t, layout, src=src, dst=dst)
            back = process.convert(there, x_t, t, layout, src=dst, dst=src)
            assert torch.allclose(back, value, rtol=1e-8, atol=1e-8), (src, dst)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_the_flow_is_the_velocity_of_the_noised_value(schedule: Schedule) -> None:
    process, x0, e, h = Gaussian(schedule), randn(4, 3), randn(4, 3, seed=1), 1e-6
    for t in (0.2, 0.5, 0.9):
        after, before = (
            process.perturb(x0, torch.tensor(t + d, dtype=torch.float64), Noise(0), e).x_t
            for d in (h, -h)
        )
        assert isinstance(after, Tensor) and isinstance(before, Tensor)
        time = torch.tensor(t, dtype=torch.float64)
        x_t = process.perturb(x0, time, Noise(0), e).x_t
        assert isinstance(x_t, Tensor)
        flow = process.convert(e, x_t, time, Dense(4), src="eps", dst="flow")
        velocity = (after - before) / (2 * h)
        assert torch.allclose(flow, velocity, rtol=1e-6, atol=1e-5 * float(velocity.abs().max()))


@pytest.mark.parametrize("space", [Euclidean(), Euclidean(SCALE)], ids=name)
def test_the_score_is_the_gradient_of_the_log_density(space: Euclidean) -> None:
    """Data N(m, c) in each coordinate, so that x_t is N(alpha m, alpha^2 c + sigma^2 L^2)."""
    process, mean, c = Gaussian(Cosine(), space), 0.7, 0.3
    x = randn(5, 3).requires_grad_()
    t = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=torch.float64)
    alpha, sigma = (v[:, None] for v in process.schedule(t))
    noise = sigma**2 * torch.as_tensor(space.scale, dtype=torch.float64) ** 2
    spread = alpha**2 * c + noise
    log_p = torch.distributions.Normal(alpha * mean, spread.sqrt()).log_prob(x).sum()
    (score,) = torch.autograd.grad(log_p, x)
    x0 = mean + alpha * c / spread * (x - alpha * mean)
    got = process.convert(x0, x, t, Dense(5), src="x0", dst="score")
    assert torch.allclose(got, score, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_the_target_weight_turns_an_error_of_x0_into_one_of_the_target(
    schedule: Schedule, target: Target
) -> None:
    process, layout = Gaussian(schedule), Dense(4)
    x_t, x0, wrong = randn(4, 3), randn(4, 3, seed=1), randn(4, 3, seed=2)
    t = torch.tensor([0.1, 0.4, 0.6, 0.9], dtype=torch.float64)
    a, b = (process.convert(v, x_t, t, layout, src="x0", dst=target) for v in (x0, wrong))
    want = (a - b).square().sum(1)
    got = process.target_weight(target, t) * (x0 - wrong).square().sum(1)
    assert torch.allclose(got, want, rtol=1e-7)


def test_an_unknown_target_is_refused() -> None:
    process, x = Gaussian(RectifiedFlow()), torch.zeros(2, 3)
    for src, dst in (("noise", "x0"), ("x0", "velocity"), ("score", "noise"), ("mu", "score")):
        with pytest.raises(ValueError, match="target must be one of"):
            process.convert(x, x, torch.tensor(0.5), Dense(2), src=src, dst=dst)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_gaussian_processes_keep_their_contract(schedule: Schedule, dtype: torch.dtype) -> None:
    with default_dtype(dtype):
        check_process(Gaussian(schedule), randn(3, 5, dtype=dtype))
        check_process(Gaussian(schedule, Euclidean(SCALE)), randn(3, 4, 3, dtype=dtype))


def molecule(field: Tensor, layout: Layout) -> State:
    """Positions and classes of the same points; garbage where no point is."""
    kinds = torch.arange(field[..., 0].numel()).reshape(field.shape[:-1]) % 4
    valid = layout.clean(torch.ones_like(field[..., 0], dtype=torch.bool))
    return State({"pos": field, "atom": torch.where(valid, kinds, -7)}, layout)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("schedule", [VP(), RectifiedFlow()], ids=name)
@pytest.mark.parametrize("absorbing", [False, True])
def test_joint_processes_keep_their_contract_in_every_layout(
    schedule: Schedule, dtype: torch.dtype, absorbing: bool
) -> None:
    process = Joint(
        {
            "pos": Gaussian(schedule, ZeroCoM(1.5)),
            "atom": Jump(TrigFlow(), Categorical(4, absorbing)),
        }
    )
    with default_dtype(dtype):
        for field, layout, _ in in_every_layout(dtype=dtype):
            check_process(process, molecule(field, layout))


def test_every_field_follows_its_own_schedule_in_the_common_time() -> None:
    process = Joint({"a": Gaussian(RectifiedFlow()), "b": Gaussian(VE())}, clock="b")
    assert process.clock == VE()
    x0 = State({"a": randn(2, 3), "b": randn(2, 1, seed=1)}, Dense(2))
    eps = State({"a": randn(2, 3, seed=2), "b": randn(2, 1, seed=3)}, Dense(2))
    x_t = process.perturb(x0, torch.tensor(0.25), Noise(0), eps).x_t
    assert isinstance(x_t, State)
    assert torch.allclose(x_t["a"], 0.75 * x0["a"] + 0.25 * eps["a"])
    assert torch.allclose(x_t["b"], x0["b"] + VE().sigma(0.25) * eps["b"])


def test_the_prior_has_the_spread_of_the_last_noise() -> None:
    x = torch.zeros(2000, 4, dtype=torch.float64)
    for schedule in (RectifiedFlow(), VE(0.01, 30.0), Cosine()):
        prior = Gaussian(schedule, Euclidean(2.0)).prior(x, Noise(0))
        assert isinstance(prior, Tensor)
        want = 2.0 * float(schedule.sigma(1.0))
        assert float(prior.std()) == pytest.approx(want, rel=4 * (2 * x.numel()) ** -0.5)


def test_noising_a_molecule_of_one_atom_leaves_it_where_it_is() -> None:
    x0, layout = packed(points((1, 3)))
    process = Joint({"pos": Gaussian(RectifiedFlow(), ZeroCoM())})
    noised = process.perturb(State({"pos": x0}, layout), torch.tensor(0.5), Noise(0)).x_t
    assert isinstance(noised, State)
    assert torch.equal(noised["pos"][0], torch.zeros(3, dtype=torch.float64))


def test_affine_combinations_are_of_values_and_of_log_probabilities() -> None:
    a, b = randn(2, 3), randn(2, 3, seed=1)
    value = Gaussian(RectifiedFlow()).combine((3.0, -2.0), (a, b))
    assert isinstance(value, Tensor) and torch.allclose(value, 3 * a - 2 * b)
    p, q = (randn(2, 4, 3, seed=s).softmax(-1) for s in (2, 3))
    mixed = Jump(RectifiedFlow(), Categorical(3)).combine((3.0, -2.0), (p, q))
    want = p**3 / q**2
    assert isinstance(mixed, Tensor) and torch.allclose(mixed, want / want.sum(-1, keepdim=True))


def process_of(kind: str) -> Process:
    return Gaussian(RectifiedFlow()) if kind == "plain" else Joint({"a": Gaussian(RectifiedFlow())})


def test_values_of_the_wrong_kind_are_refused() -> None:
    state, x = State({"b": torch.zeros(2)}, Dense(2)), torch.zeros(2, 3)
    with pytest.raises(ValueError, match="use Joint for a state"):
        process_of("plain").check(state)
    with pytest.raises(ValueError, match="holds no sample"):
        process_of("plain").check(torch.zeros(0, 3))
    with pytest.raises(ValueError, match=r"fields \['a'\], got \['b'\]"):
        process_of("joint").check(state)
    with pytest.raises(ValueError, match="got a plain tensor"):
        process_of("joint").check(x)
    for missing in ("c", None):
        with pytest.raises(ValueError, match="no process for the field"):
            process_of("joint").field(missing)


def test_a_joint_without_fields_or_with_a_wrong_clock_is_refused() -> None:
    with pytest.raises(ValueError, match="processes is empty"):
        Joint({})
    with pytest.raises(ValueError, match="Did you mean 'pos'"):
        Joint({"pos": Gaussian(RectifiedFlow())}, clock="poss")
