"""Training a molecular model: batches, losses, settings."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sciffusion.domains.molecules import (
    DataConfig,
    ModelConfig,
    MoleculeSet,
    MoleculeTask,
    MoleculeTraining,
    ObjectiveConfig,
)
from sciffusion.domains.molecules.elements import AtomVocabulary, UnknownElementError
from sciffusion.state import State
from sciffusion.training import TrainConfig, train
from tests.domains.molecules.small import ATOMS, DIPOLES, EGNN, NETWORKS, molecule_set

CPU = torch.device("cpu")
TRAIN = TrainConfig(
    steps=3, batch_size=4, lr=1e-3, warmup=1, device="cpu", log_every=1, print_seconds=1e9
)


def task(mols: MoleculeSet | None = None, **model: object) -> MoleculeTask:
    config = replace(ModelConfig(EGNN), **model)  # type: ignore[arg-type]
    return MoleculeTask(MoleculeTraining(config, train=TRAIN), mols or molecule_set(copies=2))


def rows(*indices: int) -> np.ndarray:
    return np.array(indices, dtype=np.int64)


def distances(x: State) -> Tensor:
    return torch.cdist(x["pos"].double(), x["pos"].double())


@pytest.mark.parametrize(
    ("network", "charges"),
    [*((name, False) for name in NETWORKS), ("egnn", True), ("transformer", True)],
)
def test_every_network_trains(network: str, charges: bool, tmp_path: Path) -> None:
    mols = molecule_set(copies=2, charged=charges)
    one = task(mols, network=NETWORKS[network], charges=charges)
    state = train(one, TRAIN, tmp_path)
    assert state.step == 3
    torch.manual_seed(TRAIN.seed)
    fresh = one.model().state_dict()
    moved = [n for n, p in state.model.state_dict().items() if not torch.equal(p, fresh[n])]
    assert len(moved) > 5
    header = (tmp_path / "log.csv").read_text().splitlines()[0].split(",")
    assert {"loss", "pos", "atom"} | ({"charge"} if charges else set()) <= set(header)


def test_training_on_bonds_learns_those_that_the_distance_table_draws(tmp_path: Path) -> None:
    one = task(bonds=True)
    x, _ = one.batch(rows(0, 2), 0, CPU)
    assert x["bond"].tolist() == [1, 1, 0] + [1, 1, 1, 1] + [0] * 6  # O-H twice, C-H four times
    assert train(one, TRAIN, tmp_path).step == 3


@pytest.mark.parametrize("network", ["transformer", "egnn"])
def test_a_step_makes_the_loss_of_its_own_batch_smaller(network: str) -> None:
    torch.manual_seed(0)
    one = task(network=NETWORKS[network])
    model = one.model()
    batch, optimizer = one.batch(rows(0, 1, 2), 0, CPU), torch.optim.SGD(model.parameters(), 1e-3)
    before = one.loss(model, batch, 5).mean
    before.backward()
    optimizer.step()
    assert one.loss(model, batch, 5).mean < before


def test_a_batch_is_the_molecules_of_its_rows_turned_and_centred() -> None:
    one = task()
    x, cond = one.batch(rows(0, 3), 1, CPU)
    y, _ = one.batch(rows(0, 3), 2, CPU)
    assert cond is None
    assert torch.equal(x["atom"], torch.tensor([[3, 0, 0], [3, 0, 0]]))  # O H H among H C N O F
    assert one.config.model.scale is not None
    water = one.mols.padded([0]).pos
    assert torch.allclose(
        distances(x)[0] * one.config.model.scale, torch.cdist(water, water)[0].double(), atol=1e-5
    )
    assert torch.allclose(distances(x), distances(y), atol=1e-5)
    assert (x["pos"] - y["pos"]).abs().max() > 0.05
    assert (x["pos"][0] - x["pos"][1]).abs().max() > 0.05  # each has a rotation of its own
    assert x["pos"].mean(1).abs().max() < 1e-6


def test_the_same_key_gives_the_same_batch_and_loss() -> None:
    one = task()
    model = one.model()
    losses = [one.loss(model, one.batch(rows(0, 1), 4, CPU), key).mean for key in (9, 9, 10)]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_the_unit_of_length_is_the_root_mean_square_coordinate() -> None:
    one = task()
    scale = one.config.model.scale
    assert scale is not None
    assert scale == pytest.approx(float(one.mols.pos.square().mean().sqrt()), rel=1e-5)
    assert task(scale=1.25).config.model.scale == 1.25


def test_the_unit_of_length_does_not_depend_on_the_number_of_threads() -> None:
    generator = torch.Generator().manual_seed(0)
    atoms = 60_000  # so many that a sum is shared between threads
    pos = torch.randn(atoms, 3, generator=generator).numpy()
    mols = MoleculeSet.from_arrays([6] * atoms, pos, range(0, atoms + 1, 10))
    threads, scales, plain = torch.get_num_threads(), [], set()
    try:
        for n in (1, 2, 3, 4):
            torch.set_num_threads(n)
            scales.append(task(mols).config.model.scale)
            plain.add(float(mols.pos.double().square().mean().sqrt()))
    finally:
        torch.set_num_threads(threads)
    if len(plain) == 1:
        pytest.skip("on this machine any number of threads gives the same sum")
    assert len(set(scales)) == 1


def test_conditions_come_with_their_molecules_on_the_network_s_scale() -> None:
    one = task(conditions=("mu",))
    indices = rows(0, 1, 2)
    indices.setflags(write=False)  # as those of an order are
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, cond = one.batch(indices, 0, CPU)
    assert cond is not None and one.normaliser is not None
    values = one.normaliser.denormalise(cond["mu"][:, None].double())[:, 0]
    assert values.tolist() == pytest.approx(list(DIPOLES.values()), abs=1e-6)


def test_a_share_of_the_molecules_loses_its_conditions() -> None:
    mols = molecule_set("water", "methane", copies=100)
    one = task(mols, conditions=("mu",))
    config = replace(one.config, objective=ObjectiveConfig(drop=0.3))
    one = MoleculeTask(config, mols)
    seen: list[Tensor] = []
    model = one.model()
    model.net.register_forward_pre_hook(lambda net, args: seen.append(args[2]["mu"]))
    one.loss(model, one.batch(np.arange(200), 0, CPU), 1)
    assert 0.2 < float(seen[0].isnan().float().mean()) < 0.4


def test_self_conditioning_is_switched_on_by_its_share_of_the_batches() -> None:
    for share in (0.0, 0.5):
        config = MoleculeTraining(
            ModelConfig(EGNN), objective=ObjectiveConfig(self_condition=share)
        )
        one = MoleculeTask(config, molecule_set())
        assert one.model().self_condition is (share > 0)


def test_types_are_those_of_the_model_in_whatever_order_the_set_has_its_elements() -> None:
    elements = ("O", "N", "C", "H")
    one = MoleculeTask(
        MoleculeTraining(ModelConfig(EGNN, elements=elements)), molecule_set(), molecule_set()
    )
    x, _ = one.batch(rows(0), 0, CPU)
    vocabulary = AtomVocabulary.of(*elements)
    assert vocabulary.decode(x["atom"][0]).tolist() == ATOMS["water"]
    assert one.valid is not None and one.valid.vocabulary == vocabulary


def test_an_element_that_the_model_lacks_is_refused_with_its_molecule() -> None:
    with pytest.raises(UnknownElementError, match="molecule 1"):
        task(elements=("H", "O", "C"))


def test_charges_need_molecules_that_have_them() -> None:
    with pytest.raises(ValueError, match="model.charges is true, but these molecules come without"):
        task(charges=True)


def test_charges_of_a_batch_stay_with_their_atoms() -> None:
    mols = molecule_set(charged=True)
    assert mols.charges is not None
    x, _ = task(mols, charges=True).batch(rows(2, 0), 0, CPU)
    padding = [0, 0]  # class 0, like all padding
    methane, water = mols.charges[7:], mols.charges[:3]
    assert x["charge"][0].tolist() == (methane + 1).tolist()
    assert x["charge"][1].tolist() == (water + 1).tolist() + padding


def test_validation_is_the_mean_over_held_out_molecules_and_always_the_same() -> None:
    one = MoleculeTask(MoleculeTraining(ModelConfig(EGNN)), molecule_set(), molecule_set(copies=50))
    model = one.model().eval()
    with torch.no_grad():
        first, second = one.validate(model, 3), one.validate(model, 3)
    assert first == second
    weights = {"pos": 1.0, "atom": one.config.objective.atom_weight}
    assert first["loss"] == pytest.approx(sum(w * first[k] for k, w in weights.items()), rel=1e-5)
    assert MoleculeTask(one.config, molecule_set()).validate(model, 3) == {}


def test_what_describes_a_run_is_what_shapes_it() -> None:
    base = MoleculeTraining(ModelConfig(EGNN, scale=1.0))
    described = MoleculeTask(base, molecule_set()).describe()
    elsewhere = replace(base, data=DataConfig(path=Path("elsewhere.npz")))
    assert MoleculeTask(elsewhere, molecule_set()).describe() == described
    for other in (
        replace(base, objective=ObjectiveConfig(self_condition=0.5)),
        replace(base, model=replace(base.model, types="gaussian")),
        replace(base, data=DataConfig(order="file")),
    ):
        assert MoleculeTask(other, molecule_set()).describe() != described
    assert MoleculeTask(base, molecule_set("water")).describe() != described
