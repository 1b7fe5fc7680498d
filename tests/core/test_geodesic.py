"""Flow matching along geodesics, against exact denoisers of atoms and of angles."""

from __future__ import annotations

import math

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
from sciffusion.grid import Times, Uniform
from sciffusion.guidance import CFG
from sciffusion.layout import Dense, Layout
from sciffusion.noise import Noise
from sciffusion.objective import MinSNR, Objective, UniformTimes
from sciffusion.oracle_manifold import Atoms, Cardioid
from sciffusion.process import Gaussian, Geodesic, Joint, Jump, Process, Target
from sciffusion.samplers import DDIM, Heun, Restart, Sampler
from sciffusion.schedule import VE, Cosine, RectifiedFlow, Schedule, TrigFlow
from sciffusion.solver import Solver
from sciffusion.space import SO3, Categorical, Manifold, Sphere, Torus
from sciffusion.state import State, Value
from sciffusion.testing import Knows, check_denoiser, check_process
from tests.core.cases import (
    DETERMINISTIC,
    SOLVERS,
    default_dtype,
    in_every_layout,
    name,
    packed,
    padded,
    randn,
)

FLOW = RectifiedFlow()
SCHEDULES: list[Schedule] = [FLOW, TrigFlow(), Cosine(0.0), FLOW.shift(3.0)]
CASES: list[tuple[Manifold, tuple[int, ...]]] = [
    (Torus(), (3,)),
    (Torus(torch.tensor([1.0, 2.0, 0.5])), (3,)),
    (Sphere(), (3,)),
    (SO3(), (3, 3)),
]
WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


def tensor(x: Value) -> Tensor:
    assert isinstance(x, Tensor)
    return x


def at(t: float) -> Tensor:
    return torch.tensor(t, dtype=torch.float64)


def uniform(space: Manifold, shape: tuple[int, ...], n: int, seed: int = 0) -> Tensor:
    return space.prior(torch.zeros(n, *shape, dtype=torch.float64), Dense(n), Noise(seed))


def atoms(space: Manifold, shape: tuple[int, ...], schedule: Schedule = FLOW) -> Atoms:
    return Atoms(WEIGHTS, uniform(space, shape, 3, seed=4), Geodesic(schedule, space))


def drawn(oracle: Atoms, n: int, seed: int = 11) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    k = torch.multinomial(oracle.weights, n, replacement=True, generator=generator)
    return oracle.atoms[k]


def gap(space: Manifold, x: Value, y: Value) -> float:
    return float(space.dist2(tensor(x), tensor(y)).max().sqrt())


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
@pytest.mark.parametrize(("space", "shape"), CASES, ids=name)
def test_the_process_keeps_its_contract_in_every_layout(
    space: Manifold, shape: tuple[int, ...], schedule: Schedule
) -> None:
    process = Geodesic(schedule, space)
    for field, layout, _ in in_every_layout(shape):
        check_process(Joint({"x": process}), State({"x": field}, layout))
    check_process(process, uniform(space, shape, 3))


@pytest.mark.parametrize(("space", "shape"), CASES, ids=name)
def test_the_process_keeps_its_contract_in_single_precision(
    space: Manifold, shape: tuple[int, ...]
) -> None:
    with default_dtype(torch.float32):
        check_process(Geodesic(FLOW, space), uniform(space, shape, 3).float())


@pytest.mark.parametrize("solver", DETERMINISTIC, ids=name)
@pytest.mark.parametrize(("space", "shape"), CASES, ids=name)
def test_one_atom_is_reached_in_any_number_of_steps(
    space: Manifold, shape: tuple[int, ...], solver: Solver
) -> None:
    process, x0 = Geodesic(FLOW, space), uniform(space, shape, 6)
    start = process.prior(x0, Noise(1))
    for steps in (1, 2, 3, 50):
        x = Sampler(solver, max(steps, solver.fewest))(Knows(x0, process), start).x
        assert gap(space, x, x0) < 1e-12


@pytest.mark.parametrize("solver", DETERMINISTIC, ids=name)
@pytest.mark.parametrize(("space", "shape"), CASES, ids=name)
def test_a_run_that_stops_early_is_on_the_geodesic(
    space: Manifold, shape: tuple[int, ...], solver: Solver
) -> None:
    """Every evaluation sees the same way to the one atom, and carries its velocity along that way."""
    process, x0 = Geodesic(TrigFlow(), space), uniform(space, shape, 6)
    start = tensor(process.prior(x0, Noise(1)))
    kappa = float(TrigFlow().sigma(0.3))
    want = space.exp(x0, kappa * space.log(x0, start))
    x = Sampler(solver, max(3, solver.fewest), stop=0.3)(Knows(x0, process), start).x
    assert gap(space, x, want) < 1e-12


@pytest.mark.parametrize(("space", "shape"), CASES, ids=name)
def test_single_precision_loses_only_its_digits_over_many_steps(
    space: Manifold, shape: tuple[int, ...]
) -> None:
    process, x0 = Geodesic(FLOW, space), uniform(space, shape, 6)
    start = tensor(process.prior(x0, Noise(1)))
    single = x0.float()
    x = Sampler(DDIM(), 300)(Knows(single, process), start.float()).x
    assert gap(space, x, single) < 1e-5
    assert torch.allclose(space.project(tensor(x), Dense(6)), tensor(x), atol=1e-6)


@pytest.mark.parametrize(("space", "shape"), CASES, ids=name)
def test_the_exact_denoiser_is_the_regression_on_finite_samples(
    space: Manifold, shape: tuple[int, ...]
) -> None:
    """What is left after its prediction is uncorrelated with every function of the noised value."""
    oracle, n = atoms(space, shape), 20_000
    process, x0 = oracle.process, drawn(oracle, n)
    for t in (0.9, 0.6, 0.3):
        x_t = tensor(process.perturb(x0, at(t), Noise(7)).x_t)
        x0_hat = tensor(oracle(x_t, at(t)).x0)
        left = (space.log(x_t, x0) - space.log(x_t, x0_hat)).reshape(n, -1)
        for test in (
            torch.ones(n, 1).double(),
            oracle.posterior(x_t, at(t))[:, :1],
            *(space.log(x_t, a.expand_as(x_t)).reshape(n, -1) for a in oracle.atoms),
        ):
            product = left * test
            error = product.mean(0) / (product.std(0) / math.sqrt(n) + 1e-12)
            assert float(error.abs().max()) < 5, t
        # the posterior is calibrated
        p = oracle.posterior(x_t, at(t))
        hit = torch.stack(
            [space.dist2(x0, a.expand_as(x0)).reshape(n, -1).sum(1) < 1e-12 for a in oracle.atoms],
            1,
        )
        for weight in (torch.ones(n, 1).double(), p):
            off = weight * (hit.double() - p)
            error = off.mean(0) / (off.std(0) / math.sqrt(n) + 1e-12)
            assert float(error.abs().max()) < 5, t


@pytest.mark.parametrize(("space", "shape"), CASES, ids=name)
def test_a_run_from_the_prior_gives_every_atom_its_weight(
    space: Manifold, shape: tuple[int, ...]
) -> None:
    oracle, n = atoms(space, shape), 4000
    start = oracle.process.prior(torch.zeros(n, *shape, dtype=torch.float64), Noise(3))
    x = tensor(Sampler(DDIM(), 40, Uniform())(oracle, start).x)
    distance = torch.stack(
        [space.dist2(x, a.expand_as(x)).reshape(n, -1).sum(1) for a in oracle.atoms], 1
    )
    assert float(distance.amin(1).max()) < 1e-12  # all of them are atoms
    share = torch.bincount(distance.argmin(1), minlength=3) / n
    for got, want in zip(share.tolist(), WEIGHTS.tolist(), strict=True):
        assert abs(got - want) < 5 * math.sqrt(want * (1 - want) / n) + 0.02  # and 40 steps


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
@pytest.mark.parametrize(("solver", "order"), [(DDIM(), 1), (Heun(), 2)], ids=name)
def test_angles_converge_to_their_exact_flow_with_the_order_of_the_solver(
    solver: DDIM | Heun, order: int, schedule: Schedule
) -> None:
    oracle = Cardioid(0.7, Geodesic(schedule, Torus(2.0)))
    x = uniform(Torus(2.0), (5,), 4)
    for stop in (0.0, 0.3):
        want, errors = oracle.flow(x, 1.0, stop), []
        for steps in (20, 40):
            got = Sampler(solver, steps, Uniform(), stop=stop)(oracle, x).x
            errors.append(float(Torus(2.0).dist2(tensor(got), want).mean().sqrt()))
        assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize(("space", "shape"), [(Sphere(), (6,)), (SO3(), (3, 3))], ids=name)
def test_heun_is_of_second_order_on_curved_spaces(space: Manifold, shape: tuple[int, ...]) -> None:
    """Its second velocity is carried back in parallel. The oracle is smooth while every atom is in reach."""
    near = uniform(space, shape, 1)
    turn = space.to_tangent(near.expand(3, *shape), 0.4 * randn(3, *shape, seed=2))
    oracle = Atoms(WEIGHTS, space.exp(near.expand(3, *shape), turn), Geodesic(FLOW, space))
    x = space.exp(
        near.expand(20, *shape),
        space.to_tangent(near.expand(20, *shape), 0.5 * randn(20, *shape, seed=3)),
    )
    for solver, order in ((DDIM(), 1), (Heun(), 2)):
        ends = [
            tensor(Sampler(solver, n, Uniform(), start=0.9, stop=0.6)(oracle, x).x)
            for n in (8, 16, 32)
        ]
        coarse, fine = (
            space.dist2(a, b).mean().sqrt() for a, b in zip(ends[:-1], ends[1:], strict=True)
        )
        assert float((coarse / fine).log2()) == pytest.approx(order, abs=0.3)


def test_uniform_data_stay_uniform() -> None:
    oracle = Cardioid(0.0, Geodesic(FLOW, Torus()))
    x = uniform(Torus(), (4,), 50)
    assert gap(Torus(), Sampler(DDIM(), 7)(oracle, x).x, x) < 1e-12
    for space, shape in CASES:
        process = Geodesic(FLOW, space)
        x0 = uniform(space, shape, 20_000)
        x_t = tensor(process.perturb(x0, at(0.6), Noise(1)).x_t)
        base = uniform(space, shape, 1, seed=2).expand_as(x_t)
        for seed in (0, 9):  # distances to a point are distributed as those of uniform points
            d, e = (
                space.dist2(y, base).reshape(20_000, -1).sum(1).sqrt()
                for y in (x_t, uniform(space, shape, 20_000, seed))
            )
            for q in (0.1, 0.5, 0.9):
                assert abs(float(d.quantile(q)) / float(e.quantile(q)) - 1) < 0.05


def test_the_marginal_of_angles_is_the_one_told_and_the_flow_keeps_it() -> None:
    oracle, n = Cardioid(0.8, Geodesic(FLOW, Torus())), 100_000
    x0 = oracle.flow(uniform(Torus(), (), n), 1.0, 0.0)
    for t in (0.0, 0.4, 0.8):
        x_t = tensor(oracle.process.perturb(x0, at(t), Noise(1)).x_t)
        for x in (0.1, 0.25, 0.5, 0.7):
            want = float(oracle.share(at(x), t))
            assert float((x_t < x).double().mean()) == pytest.approx(want, abs=0.006)


def test_runs_turn_with_their_start_and_their_data() -> None:
    for space, shape in ((Sphere(), (3,)), (SO3(), (3, 3))):
        turn = uniform(SO3(), (3, 3), 1, seed=8)[0]

        def turned(x: Tensor, turn: Tensor = turn) -> Tensor:
            return x @ turn if x.ndim == 2 else turn.T @ x

        oracle = atoms(space, shape)
        other = Atoms(WEIGHTS, turned(oracle.atoms), oracle.process)
        x = uniform(space, shape, 30)
        sampler = Sampler(DDIM(), 12)
        got = sampler(other, turned(x)).x
        assert gap(space, got, turned(tensor(sampler(oracle, x).x))) < 1e-9
    oracle = atoms(Torus(), (3,))
    shift = randn(3, seed=1)
    moved = Torus().project(oracle.atoms + shift, Dense(3))
    other, x = Atoms(WEIGHTS, moved, oracle.process), uniform(Torus(), (3,), 30)
    got = sampler(other, Torus().project(x + shift, Dense(30))).x
    assert gap(Torus(), got, Torus().exp(tensor(sampler(oracle, x).x), shift)) < 1e-9


def test_padded_and_packed_points_are_the_same_sample() -> None:
    for space, shape in CASES:
        samples = [uniform(space, shape, n, n) for n in (4, 1, 3)]
        oracle = atoms(space, shape)
        joint = Joint({"x": oracle.process.field(None)})
        oracle = Atoms(oracle.weights, oracle.atoms, joint, "x")
        (field, masked), (rows, index) = padded(samples), packed(samples)
        ends, seeds = [], [4, 7, 1]
        for x, layout in ((field, masked), (rows, index)):
            state = State({"x": x}, layout)
            done = Sampler(Heun(), 6)(oracle, joint.prior(state, Noise(seeds)), seeds).x
            assert isinstance(done, State)
            ends.append(done["x"])
            check_denoiser(oracle, state)
        assert torch.allclose(ends[0][masked.mask], ends[1], atol=1e-12)
        assert bool((ends[0][~masked.mask] == 0).all())


class Crystals(Denoiser):
    """The exact denoiser of three atoms of one field beside fields that know nothing of it."""

    def __init__(self, parts: dict[str, Denoiser], process: Joint) -> None:
        super().__init__()
        self.parts, self.process = parts, process

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        assert isinstance(x_t, State)
        x0 = {}
        for k, part in self.parts.items():
            inner = part(State({k: x_t[k]}, x_t.layout(k)), t).x0
            assert isinstance(inner, State)
            x0[k] = inner[k]
        return Prediction(x_t.replace(x0), x_t, t, self.process)


@pytest.mark.parametrize("solver", [s for s in SOLVERS if not getattr(s, "churn", 0)], ids=name)
def test_curved_fields_go_beside_flat_fields_and_classes(solver: Solver) -> None:
    processes = {
        "frac": Geodesic(FLOW, Torus()),
        "turn": Geodesic(TrigFlow(), SO3()),
        "pos": Gaussian(FLOW),
        "kind": Jump(Cosine(), Categorical(3)),
    }
    joint, sizes = Joint(processes), (3, 1, 2)
    shapes: dict[str, tuple[int, ...]] = {"frac": (3,), "turn": (3, 3), "pos": (2,), "kind": ()}
    fields, layouts = {}, {}
    for k, shape in shapes.items():
        dtype = torch.long if k == "kind" else torch.float64
        fields[k], layouts[k] = packed([torch.ones(n, *shape, dtype=dtype) for n in sizes])
    state = State(fields, layouts)
    check_process(joint, state)
    clean = joint.perturb(state, at(0.0), Noise(0)).x0
    start = joint.prior(state, Noise(1))
    done = Sampler(solver, max(4, solver.fewest))(Knows(clean, joint), start, 2).x
    assert isinstance(done, State) and isinstance(clean, State)
    for k, process in processes.items():
        if isinstance(process, Geodesic):
            assert gap(process.space, done[k], clean[k]) < 1e-9


def test_every_sample_may_follow_its_own_grid() -> None:
    oracle, x = atoms(Sphere(), (3,)), uniform(Sphere(), (3,), 2)
    grids = [torch.tensor([1.0, 0.8, 0.4, 0.0]), torch.tensor([1.0, 0.5, 0.1, 0.0])]
    for solver in (DDIM(), Heun()):
        each = [
            tensor(Sampler(solver, 3, Times(g))(oracle, x[i : i + 1]).x)
            for i, g in enumerate(grids)
        ]
        both = tensor(Sampler(solver, 3, Times(torch.stack(grids)))(oracle, x).x)
        assert torch.allclose(both, torch.cat(each), atol=1e-12)


class Net(nn.Module):
    """A network of a point and a level."""

    def __init__(self, width: int, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(width + 1, 32), nn.SiLU(), nn.Linear(32, width)).to(
            dtype
        )

    def forward(self, x: Tensor, level: Tensor, cond: Condition, previous: Value | None) -> Tensor:
        flat = torch.cat([x.flatten(1), level[:, None].to(x)], 1)
        return self.body(flat).reshape(x.shape)


@pytest.mark.parametrize("target", ["x0", "flow", "v"])
@pytest.mark.parametrize(("space", "shape"), CASES, ids=name)
def test_a_network_makes_a_denoiser_of_every_target(
    space: Manifold, shape: tuple[int, ...], target: Target
) -> None:
    net = Net(math.prod(shape))
    denoiser = Preconditioned(net, Geodesic(FLOW, space), target=target, sigma_data=1.0)
    check_denoiser(denoiser, uniform(space, shape, 4), tol=1e-6)


class Says(nn.Module):
    """A network that answers with what it was made with."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor, level: Tensor, cond: Condition, previous: Value | None) -> Tensor:
        return self.answer


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
@pytest.mark.parametrize(("space", "shape"), CASES, ids=name)
def test_what_a_network_must_answer_is_the_velocity_at_unit_variance(
    space: Manifold, shape: tuple[int, ...], schedule: Schedule
) -> None:
    n = 4000
    process, x0 = Geodesic(schedule, space), uniform(space, shape, n)
    t = torch.linspace(0.1, 0.9, n, dtype=torch.float64)
    x_t = tensor(process.perturb(x0, t, Noise(1)).x_t)
    flow = process.express(x0, x_t, t, Dense(n), "flow")
    rate = process.schedule.rates(t)[1].reshape(-1, *[1] * len(shape))
    answer = flow / rate / space.noise_scale(x_t, Dense(n))
    got = Preconditioned(Says(answer), process, target="v", sigma_data=1.0)(x_t, t).x0
    assert gap(space, got, x0) < 1e-9
    per_dof = space.length2(answer).reshape(n, -1).sum(1) / space.dof(x_t, Dense(n))
    assert float(per_dof.mean()) == pytest.approx(1.0, rel=0.05)
    assert (
        gap(
            space, Preconditioned(Says(flow), process, target="flow", sigma_data=1.0)(x_t, t).x0, x0
        )
        < 1e-9
    )
    assert gap(space, from_flow(lambda x, t: flow, process)(x_t, t).x0, x0) < 1e-9


class Off(Denoiser):
    """The exact denoiser, off by a tangent vector, whose squared length per degree of freedom it keeps."""

    def __init__(self, oracle: Atoms, by: Tensor) -> None:
        super().__init__()
        self.process, self.oracle, self.by = oracle.process, oracle, by
        self.error = torch.zeros(())

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        x, x0 = tensor(x_t), tensor(self.oracle(x_t, t).x0)
        space, layout = self.oracle.process.field(None).space, Dense(len(x))
        assert isinstance(space, Manifold)
        by = space.to_tangent(x, self.by.expand_as(x))
        self.error = layout.reduce(space.length2(by)) / space.dof(x, layout)
        return Prediction(space.exp(x, space.log(x, x0) + by), x_t, t, self.process)


@pytest.mark.parametrize("target", ["x0", "flow", "v"])
@pytest.mark.parametrize(("space", "shape"), CASES, ids=name)
def test_the_exact_denoiser_has_the_least_loss(
    space: Manifold, shape: tuple[int, ...], target: Target
) -> None:
    """Being off by b adds w |b|^2 on average: the cross term with the error of the oracle vanishes."""
    oracle, n = atoms(space, shape), 8000
    x0 = drawn(oracle, n)
    objective = Objective(oracle.process, target, times=UniformTimes(0.3, 0.8))
    best = objective(oracle, x0, noise=Noise(0))
    assert float(objective(Knows(x0, oracle.process), x0, noise=Noise(0)).mean) < 1e-20
    w = torch.ones(n) if target == "x0" else best.t**-2
    for sign in (1, -1):
        size = 0.02 if isinstance(space, Torus) else 0.1
        off = Off(oracle, sign * size * randn(*shape, seed=3))
        added = objective(off, x0, noise=Noise(0)).per_sample - best.per_sample
        want = float((w * off.error).mean())
        assert want > 0
        assert abs(float(added.mean()) - want) < 5 * float(added.std()) / math.sqrt(n)


def test_losses_per_sample_know_no_other_sample_nor_padding() -> None:
    for space, shape in CASES:
        samples = [uniform(space, shape, n, n) for n in (4, 1, 3)]
        process = Joint({"x": Geodesic(FLOW, space)})
        seeds, t = [1, 2, 3], torch.tensor([0.2, 0.5, 0.8])
        objective = Objective(process, "flow", MinSNR())
        losses = []
        for x, layout in (padded(samples), packed(samples)):
            noised = process.perturb(State({"x": x}, layout), t, Noise(seeds))
            wrong = process.prior(noised.x0, Noise(seeds[::-1]))
            assert isinstance(wrong, State)
            losses.append(objective.compare(Prediction(wrong, noised.x_t, t, process), noised))
            hat = wrong.map(lambda v, layout=layout: garbage_in_padding(v, layout))
            hat = hat.map(lambda v: v.requires_grad_())
            dirty = objective.compare(Prediction(hat, noised.x_t, t, process), noised)
            assert torch.equal(dirty.per_sample, losses[-1].per_sample)
            (gradient,) = torch.autograd.grad(dirty.mean, hat["x"])
            assert bool(gradient.isfinite().all())
        assert torch.allclose(losses[0].per_sample, losses[1].per_sample, rtol=1e-9)


def garbage_in_padding(x: Tensor, layout: Layout) -> Tensor:
    inside = layout.clean(torch.ones_like(x, dtype=torch.bool))
    return torch.where(inside, x, math.nan)


def test_training_through_padding_gives_finite_gradients() -> None:
    class Points(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.ones(width, dtype=torch.float64))

        def forward(self, x: State, level: object, cond: Condition, previous: object) -> State:
            return x.map(lambda v: v * self.gain.reshape(v.shape[2:]))

    for space, shape in CASES:
        field, layout = padded([uniform(space, shape, n, n) for n in (4, 1, 3)])
        process = Joint({"x": Geodesic(FLOW, space)})
        net = Points(math.prod(shape))
        denoiser = Preconditioned(net, process, target="v", sigma_data=1.0)
        Objective(process)(denoiser, State({"x": field}, layout), noise=Noise(0)).mean.backward()
        assert net.gain.grad is not None and bool(net.gain.grad.isfinite().all())


def test_combining_follows_the_geodesic_between_two_predictions() -> None:
    for space, shape in CASES:
        process = Geodesic(FLOW, space)
        a, b = uniform(space, shape, 9), uniform(space, shape, 9, 1)
        assert gap(space, process.combine((1.0, 0.0), (a, b)), a) < 1e-12
        assert gap(space, process.combine((0.0, 1.0), (a, b)), b) < 1e-12
        middle = tensor(process.combine((0.5, 0.5), (a, b)))
        assert torch.allclose(space.dist2(middle, a), space.dist2(middle, b), atol=1e-9)
        each = torch.linspace(0, 1, 9, dtype=torch.float64)
        many = tensor(process.combine((1 - each, each), (a, b)))
        one = tensor(process.combine((1 - float(each[3]), float(each[3])), (a, b)))
        assert gap(space, many[3:4], one[3:4]) < 1e-12
        knows = Conditional({0: a, 1: b}, process)
        for scale, want in ((1.0, a), (0.0, b)):
            assert gap(space, CFG(knows, 0, 1, scale)(a, at(0.5)).x0, want) < 1e-12


class Conditional(Denoiser):
    """Knows one clean value for every condition."""

    def __init__(self, x0: dict[int, Tensor], process: Process) -> None:
        super().__init__()
        self.x0, self.process = x0, process

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        return Prediction(self.x0[cond], x_t, t, self.process)


def test_a_prediction_says_its_velocity() -> None:
    oracle = atoms(Sphere(), (3,))
    x_t = uniform(Sphere(), (3,), 8)
    prediction = oracle(x_t, at(0.5))
    want = -2 * Sphere().log(x_t, tensor(prediction.x0))
    assert torch.allclose(tensor(prediction.to("flow")), want, atol=1e-12)
    assert torch.equal(tensor(prediction.to("x0")), tensor(prediction.x0))
    with pytest.raises(ValueError, match="'score' means nothing on a curved space"):
        prediction.to("score")
    with pytest.raises(ValueError, match="'eps' means nothing"):
        Preconditioned(Net(3), oracle.process, target="eps", sigma_data=1.0)(x_t, at(0.5))
    with pytest.raises(ValueError, match="'score' means nothing"):
        from_score(lambda x, t: x, Geodesic(FLOW, Sphere()))(x_t, at(0.5))
    with pytest.raises(ValueError, match="'score' means nothing"):
        Objective(oracle.process, "score")(oracle, x_t, noise=Noise(0))


def test_other_schedules_and_churn_are_refused() -> None:
    with pytest.raises(ValueError, match="sigma that rises from 0 to 1"):
        Geodesic(VE(), Torus())
    oracle = atoms(Torus(), (3,))
    for sampler in (
        Sampler(Heun(churn=8.0), 8),
        Sampler(DDIM(), 8, restarts=(Restart(0.3, 0.6),)),
    ):
        with pytest.raises(ValueError, match="take it without churn, restarts"):
            sampler(oracle, uniform(Torus(), (3,), 2))


def test_wrong_atoms_and_angles_are_refused() -> None:
    process = Geodesic(FLOW, Sphere())
    with pytest.raises(ValueError, match="need weights"):
        Atoms(WEIGHTS, torch.eye(2), process)
    with pytest.raises(ValueError, match="positive and sum to 1"):
        Atoms(2 * WEIGHTS, torch.eye(3), process)
    with pytest.raises(ValueError, match="must be geodesic"):
        Atoms(WEIGHTS, torch.eye(3), Gaussian(FLOW))(torch.eye(3), at(0.5))
    for a, space in ((1.0, Torus()), (0.5, Torus(torch.ones(2))), (0.5, Sphere())):
        with pytest.raises(ValueError, match="torus of one period"):
            Cardioid(a, Geodesic(FLOW, space))
