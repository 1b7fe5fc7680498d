"""Couplings are permutations of the noise: nothing lost, nothing scrambled."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from torch import Tensor

from sciffusion.coupling import Conditional, Coupling, Independent, Permutation
from sciffusion.coupling.transport import permute
from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.layout import Dense, Packed
from sciffusion.noise import Noise
from sciffusion.objective import Objective
from sciffusion.process import Gaussian, Joint, Jump
from sciffusion.schedule import RectifiedFlow
from sciffusion.space import Categorical, ZeroCoM
from sciffusion.state import State, Value
from tests.core.cases import dense, packed, padded, points, randn

pytest.importorskip("scipy")


FLOW = Gaussian(RectifiedFlow())
CLOUD = Joint({"pos": Gaussian(RectifiedFlow(), ZeroCoM())})


def tensor(x: Value) -> Tensor:
    assert isinstance(x, Tensor)
    return x


def cost(x0: Tensor, eps: Tensor) -> float:
    return float((x0 - eps).square().sum())


@pytest.mark.parametrize("shape", [(5, 2), (5,), (5, 2, 3), (1, 4)])
def test_the_permutation_is_the_best_of_all(shape: tuple[int, ...]) -> None:
    for seed in range(6):
        x0, eps = randn(*shape, seed=seed), randn(*shape, seed=100 + seed)
        moved = tensor(Permutation()(x0, eps, None, FLOW))
        assert sorted(moved.flatten().tolist()) == sorted(eps.flatten().tolist())
        best = min(cost(x0, eps[torch.tensor(p)]) for p in permutations(range(shape[0])))
        assert cost(x0, moved) == pytest.approx(best, rel=1e-12)


def test_independent_noise_stays_where_it_was_drawn() -> None:
    eps = randn(3, 2, seed=1)
    assert torch.equal(tensor(Independent()(randn(3, 2), eps, None, FLOW)), eps)


def test_noise_moves_as_whole_samples_in_every_layout() -> None:
    samples, perm = points((3, 3, 3)), torch.tensor([2, 0, 1])
    for make in (dense, packed):
        field, layout = make(samples)
        moved = permute(State({"pos": field}, layout), perm)
        assert isinstance(moved, State)
        assert torch.equal(moved["pos"], make([samples[i] for i in perm])[0])
    assert torch.equal(permute(field, perm[:3]), field[perm])  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [dense, packed])
def test_every_field_moves_with_the_field_that_decides(make: object) -> None:
    assert callable(make)
    pos, layout = make(points((2, 2, 2, 2)))
    other = randn(4, 1, seed=5)
    state = State({"pos": pos, "lattice": other}, {"pos": layout, "lattice": Dense(4)})
    noise = State(
        {"pos": pos.flip(0), "lattice": other.flip(0)}, {"pos": layout, "lattice": Dense(4)}
    )
    process = Joint({"pos": FLOW, "lattice": FLOW})
    moved = Permutation("pos")(state, noise, None, process)
    assert isinstance(moved, State)
    rows = [noise["lattice"][:, 0].tolist().index(v) for v in moved["lattice"][:, 0].tolist()]
    assert sorted(rows) == [0, 1, 2, 3]
    whole = permute(noise, torch.tensor(rows))
    assert isinstance(whole, State) and torch.equal(moved["pos"], whole["pos"])


class Labelled(Denoiser):
    """Takes the data from the condition: right only where each sample keeps its own."""

    def __init__(self, process: Gaussian) -> None:
        super().__init__()
        self.process = process

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        return Prediction(cond, x_t, t, self.process)


def test_data_and_conditions_stay_together() -> None:
    process, x0 = Gaussian(RectifiedFlow()), randn(6, 2)
    eps = randn(6, 2, seed=9)
    assert not torch.equal(tensor(Permutation()(x0, eps, None, process)), eps)
    objective = Objective(process, coupling=Permutation())
    assert float(objective(Labelled(process), x0, x0, noise=Noise(0)).mean) == 0.0


class Seeing(Denoiser):
    """Finds the noise that each sample was given."""

    def __init__(self, process: Gaussian, x0: Tensor) -> None:
        super().__init__()
        self.process, self.x0 = process, x0

    def forward(
        self, x_t: Value, t: Tensor, cond: Condition = None, previous: Value | None = None
    ) -> Prediction:
        alpha, sigma = (c[:, None] for c in self.process.clock(t))
        assert isinstance(x_t, Tensor)
        self.eps = (x_t - alpha * self.x0) / sigma
        return Prediction(self.x0, x_t, t, self.process)


def test_data_are_noised_with_the_noise_that_they_were_paired_with() -> None:
    x0, found = randn(8, 2), {}
    for coupling in (Independent(), Permutation()):
        seeing = Seeing(Gaussian(RectifiedFlow()), x0)
        Objective(seeing.process, coupling=coupling)(seeing, x0, noise=Noise(0))
        found[type(coupling)] = seeing.eps
    loose, paired = found[Independent], found[Permutation]
    want = tensor(Permutation()(x0, loose, None, FLOW))
    assert not torch.equal(want, loose)
    assert torch.allclose(paired, want, rtol=0, atol=1e-9)


def test_samples_of_different_sizes_are_refused() -> None:
    samples = points((3, 2, 4))
    for field, layout in (padded(samples), packed(samples)):
        state = State({"pos": field}, layout)
        with pytest.raises(ValueError, match="samples of one size"):
            Permutation("pos")(state, state, None, CLOUD)


def test_another_field_of_different_sizes_is_refused_too() -> None:
    """It would be cut at the wrong places: 6 rows of 3 samples divide evenly by chance."""
    rows = Packed(torch.tensor([0, 1, 1, 1, 2, 2]), 3)
    state = State({"pos": randn(3, 2, 3), "bond": randn(6, 1)}, {"pos": Dense(3), "bond": rows})
    with pytest.raises(ValueError, match="samples of one size"):
        Permutation("pos")(state, state, None, CLOUD)


@pytest.mark.parametrize("field", [None, "positions"])
def test_a_state_needs_the_name_of_one_of_its_fields(field: str | None) -> None:
    state = State({"pos": randn(3, 2)}, Dense(3))
    with pytest.raises(ValueError, match=r"field must name one of \['pos'\]"):
        Permutation(field)(state, state, None, CLOUD)


def test_coupling_shortens_the_paths() -> None:
    field, layout = dense(points((4,) * 16))
    x0 = State({"pos": field - field.mean(1, keepdim=True)}, layout)
    eps = CLOUD.draw(x0, Noise(0))
    moved = Permutation("pos")(x0, eps, None, CLOUD)
    assert isinstance(eps, State) and isinstance(moved, State)
    assert cost(x0["pos"], moved["pos"]) < cost(x0["pos"], eps["pos"])


def sides(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two classes of data, left and right of the origin, and their labels."""
    labels = torch.randint(2, (n,), generator=torch.Generator().manual_seed(seed))
    x0 = 0.2 * randn(n, 2, seed=seed)
    x0[:, 0] += 4.0 * labels - 2.0
    return x0, labels


def noise_of_a_class(coupling: Coupling, label: int) -> Tensor:
    """All the noise that met the data of one class, over many batches."""
    found = []
    for seed in range(60):
        x0, labels = sides(32, seed)
        eps = tensor(FLOW.draw(x0, Noise(10**6 + seed)))
        found.append(tensor(coupling(x0, eps, labels, FLOW))[labels == label])
    return torch.cat(found)


def test_within_a_class_the_noise_of_conditional_transport_keeps_the_law_of_the_prior() -> None:
    """Plain minibatch OT gives every class the half of the noise that lies on its side."""
    for label in (0, 1):
        skewed = noise_of_a_class(Permutation(), label)
        fair = noise_of_a_class(Conditional(), label)
        error = 5 / math.sqrt(len(fair))
        assert abs(float(skewed[:, 0].mean())) > 0.6
        assert float(fair.mean(0).abs().max()) < error
        assert float((fair.mT @ fair / len(fair) - torch.eye(2)).abs().max()) < 2 * error


def test_conditional_transport_is_the_best_permutation_of_all_that_leave_every_class_its_noise() -> (
    None
):
    labels = torch.tensor([0, 1, 0, 1, 1, 2])
    for seed in range(4):
        x0, eps = randn(6, 2, seed=seed), randn(6, 2, seed=100 + seed)
        moved = tensor(Conditional()(x0, eps, labels, FLOW))
        allowed = [p for p in permutations(range(6)) if torch.equal(labels[list(p)], labels)]
        best = min(cost(x0, eps[list(p)]) for p in allowed)
        assert cost(x0, moved) == pytest.approx(best, rel=1e-12)
        assert torch.equal(moved[5], eps[5])


@pytest.mark.parametrize("weight", [0.0, 0.7, 50.0])
def test_a_finite_weight_is_the_best_permutation_under_the_summed_cost(weight: float) -> None:
    for seed in range(0, 60, 3):
        x0, eps, cond = (
            randn(5, 2, seed=seed),
            randn(5, 2, seed=seed + 1),
            randn(5, 3, seed=seed + 2),
        )
        moved = tensor(Conditional(weight=weight)(x0, eps, cond, FLOW))
        costs = {
            p: cost(x0, eps[list(p)]) + weight * cost(cond, cond[list(p)])
            for p in permutations(range(5))
        }
        best = min(costs, key=costs.__getitem__)
        assert torch.equal(moved, eps[list(best)])


def test_a_growing_weight_goes_from_plain_transport_to_that_within_classes() -> None:
    x0, labels = sides(16, 0)
    eps, cond = randn(16, 2, seed=50), labels.double()
    ends = [tensor(Permutation()(x0, eps, None, FLOW)), tensor(Conditional()(x0, eps, cond, FLOW))]
    between = [tensor(Conditional(weight=w)(x0, eps, cond, FLOW)) for w in (0.0, 1.0, 10.0, 1e6)]
    assert torch.equal(between[0], ends[0]) and torch.equal(between[-1], ends[1])
    lengths = [cost(x0, e) for e in between]
    assert lengths == sorted(lengths)


def test_classes_may_be_mappings_and_missing_values_are_a_class() -> None:
    x0, eps = randn(6, 2), randn(6, 2, seed=7)
    nan = math.nan
    cond = {
        "mass": torch.tensor([1.0, nan, 1.0, nan, nan, 0.0]),
        "kind": torch.tensor([[0, 1], [2, 2], [0, 1], [2, 2], [2, 3], [2, 2]]),
    }
    as_labels = torch.tensor([0, 1, 0, 1, 2, 3])
    assert torch.equal(
        tensor(Conditional()(x0, eps, cond, FLOW)), tensor(Conditional()(x0, eps, as_labels, FLOW))
    )


def test_a_sample_of_its_own_class_keeps_its_noise() -> None:
    x0, eps = randn(5, 2), randn(5, 2, seed=7)
    assert torch.equal(tensor(Conditional()(x0, eps, torch.arange(5), FLOW)), eps)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: Conditional()(x, x, None, FLOW), "give a tensor"),
        (lambda x: Conditional()(x, x, State({"c": x}, Dense(3)), FLOW), "give a tensor"),
        (lambda x: Conditional(weight=-1.0), "weight must not be negative"),
        (lambda x: Conditional(weight=math.nan), "weight must not be negative"),
        (lambda x: Permutation("pos")(x, x, None, FLOW), "None for a tensor"),
    ],
)
def test_pairings_that_mean_nothing_are_refused(
    make: Callable[[Tensor], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(randn(3, 2))


def test_a_field_without_gaussian_noise_decides_nothing() -> None:
    process = Joint({"kind": Jump(RectifiedFlow(), Categorical(3))})
    state = State({"kind": torch.zeros(3, 2, dtype=torch.long)}, Dense(3))
    with pytest.raises(ValueError, match="has no Gaussian noise"):
        Permutation("kind")(state, state, None, process)


def test_the_context_stays_with_the_data() -> None:
    pos, layout = dense(points((2, 2, 2)))
    state = State({"pos": pos}, layout, {"edges": "of the batch"})
    moved = Permutation("pos")(state, CLOUD.draw(state, Noise(5)), None, CLOUD)
    assert isinstance(moved, State) and moved.context == state.context
