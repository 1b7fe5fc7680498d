"""Couplings are permutations of the noise: nothing lost, nothing scrambled."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import Tensor

from sciffusion.coupling import Independent, Permutation
from sciffusion.coupling.transport import permute
from sciffusion.denoiser import Condition, Denoiser, Prediction
from sciffusion.layout import Dense, Packed
from sciffusion.noise import Noise
from sciffusion.objective import Objective
from sciffusion.process import Gaussian, Joint
from sciffusion.schedule import RectifiedFlow
from sciffusion.space import ZeroCoM
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
