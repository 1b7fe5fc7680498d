"""Denoisers: what networks see, how their outputs are read, and how conditions are bound."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from sciffusion.denoiser import (
    Condition,
    Denoiser,
    Preconditioned,
    Prediction,
    from_flow,
    from_score,
)
from sciffusion.layout import Dense, Packed
from sciffusion.noise import Noise
from sciffusion.oracle import Gaussian as GaussianOracle
from sciffusion.process import Gaussian, Joint, Jump, Target
from sciffusion.schedule import VE, VP, Cosine, Polynomial, RectifiedFlow, Schedule, TrigFlow
from sciffusion.space import Categorical, Euclidean, ZeroCoM
from sciffusion.state import State, Value
from sciffusion.testing import check_denoiser
from tests.core.cases import (
    SCHEDULES,
    default_dtype,
    in_every_layout,
    mixture,
    name,
    padded,
    points,
    randn,
)

FLOW = RectifiedFlow()
TARGETS: tuple[Target, ...] = get_args(Target)


def tensor(x: Value) -> Tensor:
    assert isinstance(x, Tensor)
    return x


def at(t: float) -> Tensor:
    return torch.tensor(t, dtype=torch.float64)


class Says(nn.Module):
    """A network that answers with what it was made with, and keeps what it saw."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer
        self.seen: list[tuple[Tensor, Tensor, Condition, Value | None]] = []

    def forward(self, x: Tensor, level: Tensor, cond: Condition, previous: Value | None) -> Tensor:
        self.seen.append((x, level, cond, previous))
        return self.answer


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_a_network_that_is_right_about_its_target_is_right_about_the_data(
    schedule: Schedule, target: Target
) -> None:
    process, x0 = Gaussian(schedule), randn(4, 3)
    t = torch.tensor([0.1, 0.4, 0.6, 0.9], dtype=torch.float64)
    noised = process.perturb(x0, t, Noise(1))
    alpha, sigma = (c[:, None] for c in schedule(t))
    e = tensor(noised.eps)
    if target == "v":  # the preconditioned v: of unit variance for unit data, whatever the schedule
        answer = (alpha * e - sigma * x0) / (alpha**2 + sigma**2).sqrt()
    else:
        answer = process.convert(e, tensor(noised.x_t), t, Dense(4), src="eps", dst=target)
    denoiser = Preconditioned(Says(answer), process, target=target, sigma_data=1.0)
    assert torch.allclose(tensor(denoiser(noised.x_t, t).x0), x0, rtol=0, atol=1e-8)


@pytest.mark.parametrize("schedule", [VP(), Cosine(), TrigFlow()], ids=name)
def test_on_a_variance_preserving_schedule_the_output_is_v_itself(schedule: Schedule) -> None:
    process, x_t, v = Gaussian(schedule), randn(4, 3), randn(4, 3, seed=1)
    denoiser = Preconditioned(Says(v), process, sigma_data=1.0)
    prediction = denoiser(x_t, at(0.6))
    assert torch.allclose(tensor(prediction.to("v")), v, rtol=1e-9)


def test_the_output_is_minus_that_of_edm() -> None:
    """Karras et al., 2022, table 1, with alpha = 1."""
    s, x, raw = 0.5, randn(4, 3), randn(4, 3, seed=1)
    for t in (0.2, 0.5, 0.8):
        sigma = float(VE().sigma(t))
        c_skip, c_out = s**2 / (sigma**2 + s**2), sigma * s / math.hypot(sigma, s)
        net = Says(-raw)
        got = tensor(Preconditioned(net, Gaussian(VE()), sigma_data=s)(x, at(t)).x0)
        assert torch.allclose(got, c_skip * x + c_out * raw, rtol=1e-12)
        assert torch.allclose(net.seen[0][0], x / math.hypot(sigma, s), rtol=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_what_a_network_sees_and_must_answer_has_unit_variance(schedule: Schedule) -> None:
    """For data and noise of any scale, at all times."""
    n = 40_000
    data, noise = (torch.tensor(v, dtype=torch.float64) for v in ([0.3, 2.0], [1.5, 0.5]))
    process = Gaussian(schedule, Euclidean(noise))
    x0 = data * randn(n, 2, seed=3)
    for t in (0.1, 0.5, 0.9):
        x_t = tensor(process.perturb(x0, at(t), Noise(1)).x_t)
        net = Says(torch.zeros_like(x_t))
        skipped = tensor(Preconditioned(net, process, sigma_data=data)(x_t, at(t)).x0)
        net.answer = torch.ones_like(x_t)
        c_out = tensor(Preconditioned(net, process, sigma_data=data)(x_t, at(t)).x0) - skipped
        for value in (net.seen[0][0], (x0 - skipped) / c_out):
            assert torch.allclose(value.std(0), torch.ones(2).double(), rtol=0.02)


def test_the_schedule_may_be_exchanged_after_training() -> None:
    """At one noise level x/alpha and log-SNR are the same, and so is the prediction."""
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 2).double()

        def forward(
            self, x: Tensor, level: Tensor, cond: Condition, previous: Value | None
        ) -> Tensor:
            return self.inner(torch.cat([x, level[:, None]], 1)).tanh()

    trained = Preconditioned(Net(), Gaussian(Cosine()), sigma_data=0.7)
    y = randn(4, 2)
    for log_snr in (-4.0, 0.0, 5.0):
        ends = []
        for schedule in (Cosine(), FLOW, VE(), VP().shift(2.0)):
            t = schedule.time(log_snr)
            denoiser = trained.under(Gaussian(schedule))
            assert denoiser.net is trained.net
            ends.append(tensor(denoiser(schedule.alpha(t) * y, t).x0))
        for end in ends[1:]:
            assert torch.allclose(end, ends[0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_predictions_are_finite_from_the_prior_to_the_data(schedule: Schedule) -> None:
    targets: list[Target] = ["v", "x0"]
    if not isinstance(
        schedule, Polynomial
    ):  # its rates vanish at t = 1: the flow there says nothing
        targets.append("flow")
    for target in targets:
        net = Says(randn(2, 3))
        denoiser = Preconditioned(net, Gaussian(schedule), target=target, sigma_data=1.0)
        for t in (1.0, 1 - 1e-6, 1e-6):
            assert bool(tensor(denoiser(randn(2, 3), at(t)).x0).isfinite().all())
            assert bool((net.seen[-1][1].abs() <= 20).all())


def test_networks_see_a_log_snr_for_each_sample() -> None:
    net = Says(torch.zeros(3, 2))
    denoiser = Preconditioned(net, Gaussian(FLOW), sigma_data=1.0)
    for t in (at(0.3), torch.full((3,), 0.3, dtype=torch.float64)):
        denoiser(torch.zeros(3, 2), t)
        assert net.seen[-1][1].shape == (3,)
        assert torch.allclose(net.seen[-1][1], FLOW.log_snr(0.3).float().expand(3))


def test_every_field_of_a_network_has_the_log_snr_of_its_own_schedule() -> None:
    shown: dict[str, Tensor] = {}

    class Shown(nn.Module):
        def forward(
            self, x: State, level: dict[str, Tensor], cond: object, previous: object
        ) -> dict[str, Tensor]:
            shown.update(level)
            return {k: torch.zeros_like(v) for k, v in x.items()}

    schedules = {"a": FLOW, "b": VP()}
    process = Joint({k: Gaussian(v) for k, v in schedules.items()}, clock="b")
    x = State({k: torch.zeros(3, 2) for k in schedules}, Dense(3))
    for t in (at(0.3), torch.tensor([0.2, 0.5, 0.9]).double()):
        Preconditioned(Shown(), process, sigma_data=1.0)(x, t)
        for k, schedule in schedules.items():
            assert torch.allclose(shown[k], schedule.log_snr(t).float().expand(3))


@pytest.mark.parametrize("t", [1.001, -1e-9, 999.0, math.nan])
def test_a_time_outside_the_unit_interval_is_refused(t: float) -> None:
    process, x = Gaussian(FLOW), torch.zeros(2, 3)
    denoiser = Preconditioned(Says(torch.zeros(2, 3)), process, sigma_data=1.0)
    for time in (at(t), torch.tensor([0.5, t], dtype=torch.float64)):
        with pytest.raises(ValueError, match=r"t must lie in \[0, 1\]"):
            process.perturb(x, time, Noise(0))
        with pytest.raises(ValueError, match=r"t must lie in \[0, 1\]"):
            denoiser(x, time)


@pytest.mark.parametrize(
    ("dtype", "level"),
    [
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
        (torch.bfloat16, torch.float32),
    ],
)
def test_the_dtype_of_the_value_is_kept_and_the_log_snr_is_never_coarse(
    dtype: torch.dtype, level: torch.dtype
) -> None:
    net = Says(torch.zeros(3, 2))
    x0 = tensor(
        Preconditioned(net, Gaussian(FLOW), sigma_data=1.0)(
            torch.ones(3, 2, dtype=dtype), at(0.3)
        ).x0
    )
    assert x0.dtype == dtype and net.seen[0][0].dtype == dtype and net.seen[0][1].dtype == level


def test_a_coarse_network_leaves_the_state_in_single_precision() -> None:
    torch.manual_seed(0)

    class Coarse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 3).bfloat16()

        def forward(
            self, x: Tensor, level: Tensor, cond: Condition, previous: Value | None
        ) -> Tensor:
            return self.inner(x.bfloat16())

    x = randn(4, 3, dtype=torch.float32)
    coarse = Preconditioned(Coarse(), Gaussian(FLOW), sigma_data=1.0)
    x0 = tensor(coarse(x, at(0.01)).x0).detach()
    assert x0.dtype == torch.float32
    # at little noise the network's rounding is scaled down with its output
    fine = Preconditioned(nn.Identity(), Gaussian(FLOW), sigma_data=1.0)
    fine.net = Says(coarse.net.inner.float()(x / math.hypot(0.99, 0.01)).detach())  # type: ignore[operator]
    assert float((x0 - tensor(fine(x, at(0.01)).x0)).abs().max()) < 1e-3


class PointNet(nn.Module):
    """A small network on positions and classes, point by point."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.pos, self.kind = nn.Linear(7, 3), nn.Linear(7, 3)

    def forward(
        self,
        x: State,
        level: Mapping[str, Tensor],
        cond: Condition,
        previous: State | None,
    ) -> dict[str, Tensor]:
        layout = x.layout("pos")
        levels = layout.expand(level["pos"].to(x["pos"]), x["pos"]).expand_as(x["pos"][..., :1])
        mean = layout.pool(x["pos"]) / layout.points(x["pos"])[:, None]
        centred = layout.clean(x["pos"] - layout.spread(mean, x["pos"]))
        h = torch.cat([centred, x["kind"].to(centred), levels], -1)
        return {"pos": self.pos(h).sin(), "kind": self.kind(h)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("absorbing", [False, True])
def test_a_preconditioned_network_keeps_the_contract_in_every_layout(
    dtype: torch.dtype, absorbing: bool
) -> None:
    process = Joint(
        {"pos": Gaussian(FLOW, ZeroCoM()), "kind": Jump(Cosine(), Categorical(3, absorbing))}
    )
    with default_dtype(dtype):
        denoiser = Preconditioned(PointNet(), process, sigma_data={"pos": 1.0})
        for field, layout, _ in in_every_layout(dtype=dtype):
            kinds = torch.zeros_like(field[..., 0], dtype=torch.long)
            check_denoiser(denoiser, State({"pos": field, "kind": kinds}, layout))


@pytest.mark.parametrize("process", [Gaussian(FLOW), Gaussian(VP()), Gaussian(VE())], ids=name)
def test_the_oracle_keeps_the_contract_of_a_denoiser(process: Gaussian) -> None:
    check_denoiser(mixture(process), randn(3, 2), tol=1e-9)


def test_predictions_stay_in_the_space_of_their_field() -> None:
    field, layout = padded(points(dtype=torch.float32))
    denoiser = Preconditioned(
        PointNet(),
        Joint({"pos": Gaussian(FLOW, ZeroCoM()), "kind": Jump(FLOW, Categorical(3))}),
        sigma_data={"pos": 1.0},
    )
    kinds = torch.zeros_like(field[..., 0], dtype=torch.long)
    x_t = denoiser.process.prior(State({"pos": field, "kind": kinds}, layout), Noise(0))
    with torch.no_grad():
        x0 = denoiser(x_t, at(1.0)).x0
    assert isinstance(x0, State)
    assert float(layout.pool(x0["pos"]).abs().max()) < 1e-5
    assert bool((x0["pos"][~layout.mask] == 0).all())
    assert torch.allclose(x0["kind"].sum(-1), torch.ones(field.shape[:2]))


@pytest.mark.parametrize("target", TARGETS)
def test_a_prediction_is_read_as_any_target(target: Target) -> None:
    process, x0, t = Gaussian(Cosine()), randn(4, 3), at(0.4)
    noised = process.perturb(x0, t, Noise(1))
    prediction = Prediction(x0, noised.x_t, t, process)
    want = process.convert(x0, tensor(noised.x_t), t, Dense(4), src="x0", dst=target)
    assert torch.equal(tensor(prediction.to(target)), want)
    assert torch.allclose(tensor(prediction.to("eps")), tensor(noised.eps), rtol=0, atol=1e-12)


def test_classes_have_no_other_target_than_their_probabilities() -> None:
    process = Joint({"x": Gaussian(FLOW), "k": Jump(FLOW, Categorical(3))})
    p = torch.tensor([[[0.2, 0.3, 0.5]]])
    x_t = State({"x": torch.ones(1, 1), "k": torch.zeros(1, 1, dtype=torch.long)}, Dense(1))
    out = Prediction(x_t.replace({"x": torch.zeros(1, 1), "k": p}), x_t, at(0.5), process).to("eps")
    assert isinstance(out, State) and torch.equal(out["k"], p)
    assert float(out["x"]) == pytest.approx(2.0)


def test_functions_become_denoisers_by_tweedies_formula_and_by_their_flow() -> None:
    for schedule in (FLOW, VP(), VE()):
        process, x = Gaussian(schedule), randn(4, 2)
        oracle = mixture(process)
        score = from_score(lambda x, t, o=oracle: tensor(o(x, t).to("score")), process)  # type: ignore[misc]
        flow = from_flow(lambda x, t, o=oracle: tensor(o(x, t).to("flow")), process)  # type: ignore[misc]
        for t in (0.3, 0.8):
            want = tensor(oracle(x, at(t)).x0)
            for denoiser in (score, flow):
                assert torch.allclose(tensor(denoiser(x, at(t)).x0), want, rtol=1e-8, atol=1e-9)


def test_functions_take_one_tensor_and_no_condition() -> None:
    denoiser = from_score(lambda x, t: -x, Gaussian(FLOW))
    with pytest.raises(ValueError, match="no condition"):
        denoiser(randn(2, 2), at(0.5), torch.ones(2))
    with pytest.raises(ValueError, match="one plain tensor"):
        denoiser(State({"a": randn(2, 2)}, Dense(2)), at(0.5))


def test_a_bound_condition_reaches_the_network_and_no_other_is_taken() -> None:
    net, cond = Says(torch.zeros(2, 3)), torch.tensor([4.0, 5.0])
    denoiser = Preconditioned(net, Gaussian(FLOW), sigma_data=1.0)
    bound = denoiser.given(cond)
    bound(torch.zeros(2, 3), at(0.5))
    denoiser(torch.zeros(2, 3), at(0.5))
    assert net.seen[0][2] is cond and net.seen[1][2] is None
    assert isinstance(bound, Denoiser) and bound.process is denoiser.process
    with pytest.raises(ValueError, match="bound already"):
        bound(torch.zeros(2, 3), at(0.5), torch.zeros(2))


def test_a_condition_of_another_batch_is_refused() -> None:
    net = Says(torch.zeros(2, 3))
    denoiser, x = Preconditioned(net, Gaussian(FLOW), sigma_data=1.0), torch.zeros(2, 3)
    two, three = (State({"a": torch.zeros(n, 1)}, Dense(n)) for n in (2, 3))
    atoms = State({"a": torch.zeros(5, 1)}, Packed(torch.tensor([0, 0, 0, 1, 1]), 2))
    for cond in (torch.zeros(2), torch.zeros(1, 7), {"a": torch.tensor(3.0)}, two, atoms):
        denoiser(x, at(0.5), cond)
        assert net.seen[-1][2] is cond
    for wrong in (torch.zeros(3), {"a": [torch.zeros(5, 2)]}):
        with pytest.raises(ValueError, match=r"cond holds a tensor of shape .* for a batch of 2"):
            denoiser(x, at(0.5), wrong)
    with pytest.raises(ValueError, match="cond holds a state of 3 samples for a batch of 2"):
        denoiser(x, at(0.5), {"cell": three})


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), torch.tensor([1.0, 0.0])], ids=str)
def test_a_scale_of_the_data_that_is_not_positive_is_refused(wrong: float | Tensor) -> None:
    for scale in (wrong, {"a": wrong}):
        with pytest.raises(ValueError, match="sigma_data must be positive"):
            Preconditioned(Says(torch.zeros(2)), Gaussian(FLOW), sigma_data=scale)


@pytest.mark.parametrize("reads", [False, True])
def test_the_previous_prediction_reaches_only_a_network_that_reads_it(reads: bool) -> None:
    net, previous = Says(torch.zeros(2, 3)), torch.ones(2, 3)
    denoiser = Preconditioned(net, Gaussian(FLOW), sigma_data=1.0, self_condition=reads)
    for d in (denoiser, denoiser.under(Gaussian(VP())), denoiser.given(None)):
        d(torch.zeros(2, 3), at(0.5), None, previous)
        assert (net.seen[-1][3] is previous) == reads


def test_a_scale_of_the_data_per_feature_is_that_feature() -> None:
    s = torch.tensor([0.5, 2.0], dtype=torch.float64)
    net = Says(torch.zeros(3, 2))
    Preconditioned(net, Gaussian(VE()), sigma_data=s)(torch.ones(3, 2), at(0.5))
    sigma = float(VE().sigma(0.5))
    assert torch.allclose(net.seen[0][0], (1 / (s**2 + sigma**2).sqrt()).float().expand(3, 2))


def test_a_field_without_a_measured_scale_is_refused() -> None:
    process = Joint({"a": Gaussian(FLOW)})
    denoiser = Preconditioned(Says(torch.zeros(1)), process, sigma_data={"b": 1.0})
    with pytest.raises(ValueError, match="names no scale for the field 'a'"):
        denoiser(State({"a": torch.zeros(2, 1)}, Dense(2)), at(0.5))
    plain = Preconditioned(Says(torch.zeros(1)), Gaussian(FLOW), sigma_data={"b": 1.0})
    with pytest.raises(ValueError, match="names no scale for the field None"):
        plain(torch.zeros(2, 1), at(0.5))
    with pytest.raises(ValueError, match="got a plain tensor"):
        denoiser(torch.zeros(2, 1), at(0.5))


def test_the_best_linear_network_makes_the_exact_denoiser_of_a_gaussian() -> None:
    """For N(0, s^2) the skip connection is already exact: the network has nothing to add."""
    s = 0.6
    for schedule in (FLOW, VP(), VE()):
        process = Gaussian(schedule)
        oracle = GaussianOracle(torch.zeros(1).double(), torch.full((1, 1), s**2).double(), process)
        denoiser = Preconditioned(Says(torch.zeros(5, 1)), process, sigma_data=s)
        x = randn(5, 1)
        for t in (0.1, 0.5, 0.95):
            got, want = (tensor(d(x, at(t)).x0) for d in (denoiser, oracle))
            assert torch.allclose(got, want, rtol=1e-6)
