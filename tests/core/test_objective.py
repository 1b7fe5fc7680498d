"""The loss: zero for whoever knows the data, least for the exact denoiser, the same in any batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import get_args

import pytest
import torch
from torch import Tensor

from sciffusion.coupling import Conditional, Coupling, Independent, Permutation
from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.layout import Dense, Layout
from sciffusion.noise import Noise
from sciffusion.objective import (
    EDM,
    Likelihood,
    LogitNormal,
    LogNormal,
    Loss,
    MinSNR,
    Objective,
    Sigmoid,
    TimeSampler,
    UniformTimes,
    Weight,
)
from sciffusion.oracle import Categorical as CategoricalOracle
from sciffusion.process import Gaussian, Joint, Jump, Noised, Process, Target
from sciffusion.schedule import VE, VP, Cosine, Polynomial, RectifiedFlow, Schedule
from sciffusion.space import Categorical, Euclidean, ZeroCoM
from sciffusion.state import State, Value
from sciffusion.testing import Knows
from tests.core.cases import (
    SCHEDULES,
    TIMES,
    WEIGHTS,
    default_dtype,
    in_every_layout,
    mixture,
    name,
    packed,
    padded,
    points,
    randn,
)

FLOW = RectifiedFlow()
TARGETS: tuple[Target, ...] = get_args(Target)
MAYBE: list[Weight | None] = [None, *WEIGHTS]
CLASSES = torch.tensor([0, 1, 0, 2, 1, 0])
COUPLINGS: list[Coupling] = [Independent(), Permutation(), Conditional()]


def tensor(x: Value) -> Tensor:
    assert isinstance(x, Tensor)
    return x


class Off(Denoiser):
    """Knows the data, and says something else: wrong by ``by`` everywhere."""

    def __init__(self, inner: Denoiser, by: Tensor | float) -> None:
        super().__init__()
        self.inner, self.process, self.by = inner, inner.process, by

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        prediction = self.inner(x_t, t, cond, previous)
        return Prediction(tensor(prediction.x0) + self.by, x_t, t, self.process)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("weight", MAYBE, ids=name)
@pytest.mark.parametrize("times", TIMES, ids=name)
def test_whoever_knows_the_data_has_no_loss(
    target: Target, weight: Weight | None, times: TimeSampler
) -> None:
    x0 = randn(6, 2)
    for schedule in (FLOW, VP(), VE()):
        process = Gaussian(schedule)
        for coupling in COUPLINGS:
            objective = Objective(process, target, weight, times, coupling)
            loss = objective(Watching(Knows(x0, process)), x0, CLASSES, noise=Noise(0))
            assert float(loss.mean) == 0.0 and float(loss.per_sample.max()) == 0.0


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("coupling", COUPLINGS, ids=name)
def test_the_noise_that_was_added_is_the_noise_of_the_target(
    target: Target, coupling: Coupling
) -> None:
    """A denoiser that takes the target apart again, by the noise that it can see in x_t, is right too."""
    process, x0 = Gaussian(FLOW), randn(6, 2)

    class FromNoise(Denoiser):
        def __init__(self) -> None:
            super().__init__()
            self.process = process

        def forward(
            self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
        ) -> Prediction:
            alpha, sigma = (c[:, None] for c in process.schedule(t))
            eps = (tensor(x_t) - alpha * x0) / sigma
            value = process.convert(eps, tensor(x_t), t, Dense(6), src="eps", dst=target)
            x0_hat = process.convert(value, tensor(x_t), t, Dense(6), src=target, dst="x0")
            return Prediction(x0_hat, x_t, t, process)

    objective = Objective(process, target, coupling=coupling, times=UniformTimes(0.05, 0.95))
    assert float(objective(FromNoise(), x0, CLASSES, noise=Noise(0)).mean) < 1e-20


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_without_a_weight_the_loss_is_the_squared_error_of_the_target(
    schedule: Schedule, target: Target
) -> None:
    process, x0, wrong = Gaussian(schedule), randn(4, 3), randn(4, 3, seed=1)
    t = torch.tensor([0.1, 0.4, 0.6, 0.9], dtype=torch.float64)
    noised = process.perturb(x0, t, Noise(0))
    prediction = Prediction(wrong, noised.x_t, t, process)
    right = Prediction(x0, noised.x_t, t, process)
    error = tensor(prediction.to(target)) - tensor(right.to(target))
    got = Objective(process, target).compare(prediction, noised)
    assert torch.allclose(got.per_sample, error.square().mean(1), rtol=1e-7)


@pytest.mark.parametrize("weight", WEIGHTS, ids=name)
def test_a_weight_means_the_same_loss_whatever_the_target(weight: Weight) -> None:
    process, x0 = Gaussian(Cosine()), randn(6, 2)
    losses = [
        Objective(process, target, weight)(Off(Knows(x0, process), 0.3), x0, noise=Noise(0))
        for target in TARGETS
    ]
    for loss in losses:
        assert torch.equal(loss.per_sample, losses[0].per_sample)
        want = weight(Cosine(), loss.t) * 0.3**2
        assert torch.allclose(loss.per_sample, want, rtol=1e-9)


def test_weights_are_the_published_formulas() -> None:
    t = torch.linspace(0.001, 0.999, 31, dtype=torch.float64)
    for schedule in SCHEDULES:
        log_snr = schedule.log_snr(t)
        snr = log_snr.exp()
        assert torch.allclose(MinSNR(5.0)(schedule, t), snr.clamp(max=5.0))
        assert torch.allclose(EDM(0.5)(schedule, t), snr + 4.0)
        # a sigmoid weight on the error of eps, which is SNR times that of x0
        assert torch.allclose(Sigmoid(2.0)(schedule, t), snr * torch.sigmoid(2.0 - log_snr))
    sigma = VE().sigma(t)  # Karras et al.: (sigma^2 + s^2)/(sigma s)^2
    assert torch.allclose(EDM(0.5)(VE(), t), (sigma**2 + 0.25) / (sigma * 0.5) ** 2)


@pytest.mark.parametrize("weight", [MinSNR(), Sigmoid(1.0)], ids=name)
def test_weights_are_finite_at_no_noise_and_at_no_signal(weight: Weight) -> None:
    at_ends = weight(FLOW, torch.tensor([1.0, 0.0], dtype=torch.float64))
    assert float(at_ends[0]) == 0.0
    assert float(at_ends[1]) == pytest.approx(5.0 if isinstance(weight, MinSNR) else math.e)
    assert math.isfinite(float(EDM()(FLOW, torch.tensor(1.0))))


@pytest.mark.parametrize("schedule", [FLOW, VP(), Cosine(), VE(), Polynomial()], ids=name)
@pytest.mark.parametrize("weight", WEIGHTS, ids=name)
def test_losses_are_finite_at_both_ends_of_time(schedule: Schedule, weight: Weight) -> None:
    process, x0 = Gaussian(schedule), randn(2, 3)
    for t in (0.0, 1e-9, 1e-6, 1 - 1e-12, 1.0):
        if isinstance(weight, EDM | Likelihood) and t < 1e-9:
            continue  # they grow without bound as the noise vanishes, by their formulas
        noised = process.perturb(x0, torch.tensor(t, dtype=torch.float64), Noise(0))
        prediction = Prediction(x0 + 0.1, noised.x_t, noised.t, process)
        assert bool(
            Objective(process, weight=weight)
            .compare(prediction, noised)
            .per_sample.isfinite()
            .all()
        )


@pytest.mark.parametrize("times", TIMES, ids=name)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_every_drawn_time_has_a_finite_loss_for_every_target(
    times: TimeSampler, schedule: Schedule
) -> None:
    t = times(Noise(0), 4000, schedule)
    assert t.shape == (4000,) and t.dtype == torch.float64
    assert bool(((t > 0) & (t < 1)).all())
    process = Gaussian(schedule)
    for target in TARGETS:
        assert bool(process.target_weight(target, t).isfinite().all())


def test_times_follow_their_laws() -> None:
    n = 50_000
    uniform = UniformTimes(0.2, 0.7)(Noise(0), n, FLOW)
    assert float(uniform.min()) > 0.199 and float(uniform.max()) < 0.701
    assert float(uniform.mean()) == pytest.approx(0.45, abs=5 * 0.5 / math.sqrt(12 * n))
    z = LogitNormal(-0.5, 1.2)(Noise(0), n, FLOW).logit()
    assert float(z.mean()) == pytest.approx(-0.5, abs=5 * 1.2 / math.sqrt(n))
    assert float(z.std()) == pytest.approx(1.2, rel=0.02)
    for schedule in (FLOW, VE(), Cosine()):
        log_sigma = -0.5 * schedule.log_snr(LogNormal(-1.2, 1.2)(Noise(0), n, schedule))
        assert float(log_sigma.mean()) == pytest.approx(-1.2, abs=0.03)
        assert float(log_sigma.std()) == pytest.approx(1.2, rel=0.03)


@pytest.mark.parametrize("schedule", [FLOW, VP(), VE(0.01, 10.0)], ids=name)
@pytest.mark.parametrize("weight", [MinSNR(), None], ids=name)
def test_the_exact_denoiser_has_the_least_loss(schedule: Schedule, weight: Weight | None) -> None:
    """Being off by d adds w d^2 on average: the cross term with the error of the oracle vanishes."""
    oracle = mixture(Gaussian(schedule))
    x0 = oracle.sample(20_000, torch.Generator().manual_seed(3))
    objective = Objective(oracle.process, "eps", weight, UniformTimes(0.2, 0.9))
    best = objective(oracle, x0, noise=Noise(0))
    for by in (torch.tensor([0.3, -0.2]).double(), torch.tensor([-0.3, 0.2]).double()):
        worse = objective(Off(oracle, by), x0, noise=Noise(0))
        added = worse.per_sample - best.per_sample
        process = oracle.process
        assert isinstance(process, Gaussian)
        w = (
            process.target_weight("eps", best.t)
            if weight is None
            else weight(process.schedule, best.t)
        )
        want = float((w * by.square().mean()).mean())
        assert float(added.mean()) == pytest.approx(
            want, abs=5 * float(added.std()) / len(x0) ** 0.5
        )
        assert float(added.mean()) > 0


def test_the_true_probabilities_have_the_least_cross_entropy() -> None:
    probs = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    process = Jump(FLOW, Categorical(3))
    x0 = torch.multinomial(
        probs, 40_000, replacement=True, generator=torch.Generator().manual_seed(0)
    )
    losses = []
    for q in (probs, torch.tensor([0.6, 0.2, 0.2]), torch.tensor([0.4, 0.35, 0.25])):
        oracle = CategoricalOracle(q.double(), process)
        losses.append(float(Objective(process)(oracle, x0.reshape(400, 100), noise=Noise(1)).mean))
    assert losses[0] < min(losses[1:])


def test_the_cross_entropy_is_the_mean_log_probability_of_the_true_class() -> None:
    process = Jump(FLOW, Categorical(3))
    x0 = torch.tensor([[0, 2], [1, 1]])
    p = randn(2, 2, 3).softmax(-1)
    noised = process.perturb(x0, torch.tensor([0.3, 0.6]), Noise(0))
    loss = Objective(process).compare(Prediction(p, noised.x_t, noised.t, process), noised)
    want = -torch.stack([p[0, 0, 0] * p[0, 1, 2], p[1, 0, 1] * p[1, 1, 1]]).log() / 2
    assert torch.allclose(loss.per_sample, want)


class Moving(Denoiser):
    """Depends on everything that it may depend on, sample by sample."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        self.process = process

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        assert isinstance(x_t, State)
        layout = x_t.layout("pos")
        extra = 0.0 if cond is None else layout.expand(cond.to(x_t["pos"]), x_t["pos"])
        pos = (x_t["pos"] + layout.expand(t.to(x_t["pos"]), x_t["pos"]) + extra).sin()
        logits = torch.nn.functional.one_hot(x_t["kind"].clamp(0, 3), 4)[..., :3] + pos
        return Prediction(
            x_t.replace({"pos": pos, "kind": logits.softmax(-1)}), x_t, t, self.process
        )


def molecules(absorbing: bool = False) -> Joint:
    return Joint(
        {"pos": Gaussian(FLOW, ZeroCoM()), "kind": Jump(Cosine(), Categorical(3, absorbing))}
    )


def molecule(field: Tensor, layout: Layout, kind: Tensor | None = None) -> State:
    kinds = torch.zeros_like(field[..., 0], dtype=torch.long) if kind is None else kind
    return State({"pos": field, "kind": kinds}, layout)


@pytest.mark.parametrize("absorbing", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_loss_is_the_same_alone_in_any_batch_padded_or_packed(
    absorbing: bool, dtype: torch.dtype
) -> None:
    samples, seeds, cond = points(dtype=dtype), [5, 8, 2, 9], torch.tensor([0.1, 0.7, -0.4, 0.3])
    process = molecules(absorbing)
    objective = Objective(
        process,
        weight=EDM(),
        times=LogitNormal(),
        field_weights={"kind": 0.25},
        null=torch.tensor(9.0),
        drop=0.5,
    )
    with default_dtype(dtype):
        losses = [
            objective(Moving(process), molecule(*make(samples)), cond, noise=Noise(seeds))
            for make in (padded, packed)
        ]
        alone = [
            objective(Moving(process), molecule(*packed([s])), c[None], noise=Noise([seed]))
            for s, c, seed in zip(samples, cond, seeds, strict=True)
        ]
    each = torch.cat([a.per_sample for a in alone])
    tol = 1e-5 if dtype == torch.float32 else 1e-12
    for loss in losses:
        assert torch.allclose(loss.per_sample, each, rtol=tol, atol=tol)
        assert torch.equal(loss.t, torch.cat([a.t for a in alone]))
    assert bool(each.isfinite().all())  # the third molecule is a single atom


def test_element_weights_weigh_squared_errors() -> None:
    process, x0 = Gaussian(FLOW), torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0))
    weights = torch.tensor([[0.0], [3.0]])
    denoiser = Knows(torch.zeros_like(x0), process)
    plain = Objective(process, weight=EDM())
    noise = [7, 8, 9]
    loss = Objective(process, weight=EDM(), element_weights=weights)(
        denoiser, x0, noise=Noise(noise)
    )
    row = x0[:, 1]
    alone = plain(Knows(torch.zeros_like(row), process), row, noise=Noise(noise))
    # the times are drawn first, so the row has the same levels of noise
    assert torch.allclose(loss.per_sample, 3.0 * alone.per_sample / 2)


@pytest.mark.parametrize("garbage", [1e6, -1e6, math.nan])
def test_padding_changes_no_loss(garbage: float) -> None:
    field, layout = padded(points())
    process = molecules()
    losses = []
    for fill, kind in ((0.0, 0), (garbage, 10**6)):
        pos = torch.where(layout.mask[..., None], field, fill)
        kinds = torch.where(layout.mask, 1, kind)
        losses.append(
            Objective(process)(Moving(process), molecule(pos, layout, kinds), noise=Noise(0))
        )
    assert torch.equal(losses[0].per_sample, losses[1].per_sample)


@pytest.mark.parametrize("garbage", [1e6, math.nan])
def test_what_a_network_says_of_padding_changes_no_loss(garbage: float) -> None:
    field, layout = padded(points())
    process = molecules()
    noised = process.perturb(molecule(field, layout), torch.tensor(0.4), Noise(0))
    assert isinstance(noised.x0, State)
    losses = []
    for fill in (0.0, garbage):
        pos = torch.where(layout.mask[..., None], noised.x0["pos"] + 0.1, fill)
        p = torch.where(layout.mask[..., None], torch.full((*layout.mask.shape, 3), 1 / 3), fill)
        said = noised.x0.replace({"pos": pos, "kind": p})
        losses.append(
            Objective(process).compare(Prediction(said, noised.x_t, noised.t, process), noised)
        )
    assert torch.equal(losses[0].per_sample, losses[1].per_sample)


def test_the_error_of_a_cloud_is_counted_per_degree_of_freedom() -> None:
    """An error without a centre of mass: its size per freedom does not depend on the number of points."""
    process = Gaussian(FLOW, ZeroCoM(2.0))
    joint = Joint({"pos": process})
    for field, layout, samples in in_every_layout():
        state = State({"pos": field}, layout)
        noised = joint.perturb(state, torch.tensor(0.5), Noise(0))
        assert isinstance(noised.x0, State)
        error = process.noise_field(noised.x0["pos"], layout, Noise(7))
        said = noised.x0.replace({"pos": noised.x0["pos"] + error})
        loss = Objective(joint, weight=MinSNR()).compare(
            Prediction(said, noised.x_t, noised.t, joint), noised
        )
        for i, s in enumerate(samples):
            rows = (
                layout.reduce(layout.clean(error).square())[i] / 4.0
            )  # in units of the noise's scale
            freedom = max(3 * (len(s) - 1), 1)
            assert float(loss.per_sample[i]) == pytest.approx(float(rows) / freedom, rel=1e-9)


def test_errors_are_measured_in_the_scale_of_the_noise() -> None:
    scale = torch.tensor([0.5, 2.0], dtype=torch.float64)
    process, x0 = Gaussian(FLOW, Euclidean(scale)), randn(4, 2)
    noised = process.perturb(x0, torch.tensor(0.5), Noise(0))
    prediction = Prediction(x0 + 0.3 * scale, noised.x_t, noised.t, process)
    loss = Objective(process, weight=MinSNR(math.inf)).compare(prediction, noised)
    assert torch.allclose(loss.per_sample, torch.full((4,), 0.09).double())


def test_fields_are_summed_with_their_weights() -> None:
    process = molecules()
    state = molecule(*packed(points()))
    plain, weighted = (
        Objective(process, field_weights=w)(Moving(process), state, noise=Noise(0))
        for w in ({}, {"kind": 0.25})
    )
    assert set(plain.per_field) == {"pos", "kind"}
    for k in plain.per_field:
        assert torch.equal(plain.per_field[k], weighted.per_field[k])
    pos, kind = plain.per_field["pos"], plain.per_field["kind"]
    assert torch.allclose(plain.per_sample, pos + kind)
    assert torch.allclose(weighted.per_sample, pos + 0.25 * kind)
    assert float(weighted.mean) == pytest.approx(float(weighted.per_sample.mean()))


class Watching(Denoiser):
    """Knows the data; keeps the conditions and previous predictions that it is shown."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__()
        self.inner, self.process = inner, inner.process
        self.seen: list[tuple[Condition, Value | None, bool]] = []

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        self.seen.append((cond, previous, torch.is_grad_enabled()))
        return self.inner(x_t, t)


@pytest.mark.parametrize("drop", [0.0, 0.3, 1.0])
def test_conditions_are_dropped_at_their_rate_and_whole(drop: float) -> None:
    n, process = 4000, Gaussian(FLOW)
    x0 = randn(n, 1)
    cond: Mapping[str, Tensor] = {"number": torch.arange(n), "vector": randn(n, 3)}
    null = {"number": torch.tensor(-1), "vector": torch.full((3,), torch.nan)}
    watching = Watching(Knows(x0, process))
    Objective(process, null=null, drop=drop)(watching, x0, cond, noise=Noise(0))
    seen = watching.seen[0][0]
    dropped = seen["number"] == -1
    assert float(dropped.float().mean()) == pytest.approx(
        drop, abs=4 * math.sqrt(drop * (1 - drop) / n)
    )
    assert torch.equal(seen["vector"].isnan().all(1), dropped)
    assert torch.equal(seen["number"][~dropped], cond["number"][~dropped])
    assert torch.equal(seen["vector"][~dropped], cond["vector"][~dropped])


def test_entries_of_a_condition_are_dropped_each_by_itself_at_their_own_rates() -> None:
    n, process = 4000, Gaussian(FLOW)
    x0 = randn(n, 1)
    cond: Mapping[str, Tensor] = {"label": torch.arange(n), "edges": randn(n, 3), "kept": randn(n)}
    null = {"label": torch.tensor(-1), "edges": torch.zeros(3), "kept": torch.tensor(0.0)}
    watching = Watching(Knows(x0, process))
    objective = Objective(process, null=null, drop={"label": 0.2, "edges": 0.5})
    objective(watching, x0, cond, noise=Noise(0))
    seen = watching.seen[0][0]
    no_label, no_edges = seen["label"] == -1, (seen["edges"] == 0).all(1)
    # of two independent events, both, one and none happen at the products of their rates
    for rows, share in (
        (no_label & no_edges, 0.1),
        (no_label & ~no_edges, 0.1),
        (~no_label & no_edges, 0.4),
    ):
        assert float(rows.float().mean()) == pytest.approx(
            share, abs=4 * math.sqrt(share * (1 - share) / n)
        )
    assert torch.equal(seen["kept"], cond["kept"])
    assert torch.equal(seen["edges"][~no_edges], cond["edges"][~no_edges])
    with pytest.raises(ValueError, match="drop names 'edges'; the condition has"):
        objective(watching, x0, {"label": cond["label"]}, noise=Noise(0))


def test_a_batch_is_shown_its_first_prediction_as_often_as_asked() -> None:
    process, x0 = Gaussian(FLOW), randn(2, 1)
    for share in (0.0, 0.5, 1.0):
        shown = 0
        for seed in range(200):
            watching = Watching(Knows(x0, process))
            Objective(process, self_condition=share)(watching, x0, noise=Noise(seed))
            first, last = watching.seen[0], watching.seen[-1]
            assert last[2] and (last[1] is None) == (len(watching.seen) == 1)
            if last[1] is not None:
                shown += 1
                assert not first[2] and first[1] is None and torch.equal(tensor(last[1]), x0)
        assert shown / 200 == pytest.approx(share, abs=0.12)


def test_the_seed_decides_the_loss_and_no_global_generator_is_touched() -> None:
    process = molecules()
    state = molecule(*padded(points()))
    objective = Objective(process, null=torch.tensor(0.0), drop=0.5)
    before = torch.get_rng_state()
    cond = torch.arange(4.0)
    a, b, c = (
        objective(Moving(process), state, cond, noise=Noise(s)).per_sample for s in (1, 1, 2)
    )
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_loss_is_differentiated_and_reaches_the_weights() -> None:
    process, x0 = Gaussian(FLOW), randn(4, 2)
    by = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    loss = Objective(process, weight=MinSNR())(
        Off(Knows(x0, process), by + 0.1), x0, noise=Noise(0)
    )
    assert isinstance(loss, Loss)
    (gradient,) = torch.autograd.grad(loss.mean, by)
    assert bool((gradient > 0).all())


def test_a_weight_lands_on_its_own_sample_in_a_square_batch() -> None:
    process, x0 = Gaussian(FLOW), randn(3, 3)
    t = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    noised = process.perturb(x0, t, Noise(0))
    loss = Objective(process, weight=MinSNR()).compare(
        Prediction(x0 + 0.1, noised.x_t, t, process), noised
    )
    assert torch.allclose(loss.per_sample, 0.01 * MinSNR()(FLOW, t))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Objective(Gaussian(FLOW), drop=0.1), "drop needs null"),
        (lambda: Objective(Gaussian(FLOW), drop=1.5, null=0), "probabilities"),
        (lambda: Objective(Gaussian(FLOW), drop={"a": 1.5}, null={"a": 0}), "probabilities"),
        (lambda: Objective(Gaussian(FLOW), drop={"b": 0.5}, null={"a": 0}), "null does not have"),
        (lambda: Objective(Gaussian(FLOW), drop={"b": 0.5}, null=0), "null does not have"),
        (lambda: Objective(Gaussian(FLOW), self_condition=-0.5), "probabilities"),
        (lambda: EDM(0.0), "sigma_data must be positive"),
        (lambda: MinSNR(-1.0), "gamma must be positive"),
        (
            lambda: Objective(molecules(), field_weights={"kinds": 1.0}),
            "field_weights .* no process",
        ),
        (lambda: Objective(Gaussian(FLOW), field_weights={"pos": 1.0}), "has no named field"),
        (lambda: Objective(molecules(), field_weights={"pos": -1.0}), "must not be negative"),
        (
            lambda: Objective(Gaussian(FLOW), element_weights=torch.tensor([1.0, -1.0])),
            "must not be negative",
        ),
        (
            lambda: Objective(molecules(), element_weights={"kind": torch.ones(2)}),
            "'kind' has none",
        ),
        (
            lambda: Objective(molecules(), element_weights={"kinds": torch.ones(2)}),
            "no process",
        ),
    ],
)
def test_settings_that_make_no_objective_are_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=message):
        make()


def test_an_unknown_target_a_value_of_the_wrong_kind_and_a_misspelt_keyword_are_refused() -> None:
    process, x0 = Gaussian(FLOW), randn(2, 2)
    with pytest.raises(ValueError, match="target must be one of"):
        Objective(process, "noise")(Knows(x0, process), x0, noise=Noise(0))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="use Joint for a state"):
        Objective(process)(Knows(x0, process), State({"a": x0}, Dense(2)), noise=Noise(0))
    with pytest.raises(TypeError, match="unexpected keyword"):
        Objective(process, weigth=EDM())  # type: ignore[call-arg]


@pytest.mark.parametrize("shape", [(), (3,), (1, 2), (4, 2)])
def test_a_condition_of_another_batch_is_refused_with_or_without_dropping(
    shape: tuple[int, ...],
) -> None:
    process, x0 = Gaussian(FLOW), randn(2, 2)
    conditions: list[Condition] = [torch.zeros(shape), {"charge": torch.zeros(shape)}]
    for cond, null in zip(conditions, (torch.tensor(0.0), {"charge": 0.0}), strict=True):
        for drop in (0.0, 0.5):
            with pytest.raises(ValueError, match="for a batch of 2; give one entry per sample"):
                Objective(process, null=null, drop=drop)(
                    Knows(x0, process), x0, cond, noise=Noise(0)
                )
    state = State({"pos": randn(3, 2)}, Dense(3))
    with pytest.raises(ValueError, match="cond holds 3 samples for a batch of 2"):
        Objective(process)(Knows(x0, process), x0, state, noise=Noise(0))


def test_a_condition_may_be_a_state_dropped_whole_in_every_layout() -> None:
    process, x0 = Gaussian(FLOW), randn(4, 2)
    for field, layout in (padded(points()), packed(points())):
        cond = State(
            {"pos": field, "scalar": torch.arange(4.0)}, {"pos": layout, "scalar": Dense(4)}
        )
        watching = Watching(Knows(x0, process))
        objective = Objective(process, null={"pos": torch.zeros(3), "scalar": -1.0}, drop=0.5)
        objective(watching, x0, cond, noise=Noise(3))
        seen = watching.seen[0][0]
        dropped = seen["scalar"] == -1
        assert 0 < int(dropped.sum()) < 4
        gone = layout.reduce(layout.clean(seen["pos"]).abs()) == 0
        assert torch.equal(gone, dropped)
        assert torch.equal(seen["scalar"][~dropped], torch.arange(4.0)[~dropped])


@pytest.mark.parametrize(
    ("null", "message"),
    [
        ({"mass": torch.zeros(3)}, r"no entry for \['charge'\]"),
        (torch.zeros(3), r"no entry for \['charge'\]"),
        (
            {"charge": torch.zeros(2)},
            r"null\['charge'\] has shape \(2,\); the condition needs \(3,\)",
        ),
    ],
)
def test_a_null_condition_that_does_not_fit_is_refused(null: Condition, message: str) -> None:
    process, x0 = Gaussian(FLOW), randn(2, 2)
    objective = Objective(process, null=null, drop=0.5)
    with pytest.raises(ValueError, match=message):
        objective(Knows(x0, process), x0, {"charge": torch.zeros(2, 3)}, noise=Noise(0))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_data_that_are_not_finite_are_refused_by_field_and_padding_is_not(bad: float) -> None:
    x0 = randn(3, 2)
    x0[1, 0] = bad
    with pytest.raises(ValueError, match="x is not finite: 1 of 6"):
        Objective(Gaussian(FLOW))(Knows(x0, Gaussian(FLOW)), x0, noise=Noise(0))
    field, layout = padded(points())
    field = field.masked_fill(~layout.mask[..., None], bad)
    process = molecules()
    assert bool(
        Objective(process)(Moving(process), molecule(field, layout), noise=Noise(0)).mean.isfinite()
    )
    field[0, 0] = bad
    with pytest.raises(ValueError, match="the field 'pos' is not finite"):
        Objective(process)(Moving(process), molecule(field, layout), noise=Noise(0))


def test_a_time_for_each_element_weighs_its_own_element() -> None:
    """In a square field, where a weight could land on the wrong axis unseen."""
    x0, wrong = randn(3, 3, 2), randn(3, 3, 2, seed=1)
    process, t = Gaussian(FLOW), torch.linspace(0.1, 0.9, 9, dtype=torch.float64).reshape(3, 3)
    noised = process.perturb(x0, t, Noise(0))
    loss = Objective(process, weight=MinSNR()).compare(
        Prediction(wrong, noised.x_t, t, process), noised
    )
    want = (MinSNR()(FLOW, t)[..., None] * (wrong - x0).square()).mean((1, 2))
    assert torch.allclose(loss.per_sample, want)


def test_a_noised_value_carries_all_that_a_loss_needs() -> None:
    process, x0 = Gaussian(FLOW), randn(2, 2)
    noised = process.perturb(x0, torch.tensor(0.3, dtype=torch.float64), Noise(0))
    assert isinstance(noised, Noised)
    assert torch.allclose(tensor(noised.x_t), 0.7 * tensor(noised.x0) + 0.3 * tensor(noised.eps))
