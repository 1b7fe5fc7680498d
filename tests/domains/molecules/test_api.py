"""The verbs of notebooks: load, sample, evaluate, train, save."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sciffusion.config import ConfigError
from sciffusion.domains import molecules
from sciffusion.domains.molecules import (
    DataConfig,
    ModelConfig,
    MoleculeModel,
    Molecules,
    MoleculeSet,
    MoleculeTask,
    MoleculeTraining,
    ObjectiveConfig,
    SamplingConfig,
    SizePrior,
    TransformerConfig,
)
from sciffusion.domains.molecules.properties import Normaliser
from sciffusion.grid import Power
from sciffusion.noise import sample_seeds
from sciffusion.samplers import Multistep, Sampler
from sciffusion.training import TrainConfig, export, train
from tests.domains.molecules.small import EGNN, NETWORKS, TRANSFORMER, molecule_set, shaken

MU = Normaliser(("mu",), ("D",), (2.0,), (0.5,))


def conditional() -> MoleculeModel:
    return replace(shaken(ModelConfig(EGNN, conditions=("mu",))), normaliser=MU)


def same(a: Molecules, b: Molecules, tolerance: float = 1e-4) -> bool:
    return (
        np.array_equal(a.ptr, b.ptr)
        and np.array_equal(a.z, b.z)
        and bool(np.abs(a.positions - b.positions).max() < tolerance)
    )


@pytest.mark.parametrize(
    ("network", "batch_size"),
    [("transformer", 1), ("transformer", 2), ("egnn", 1), ("egnn", 128), ("tensor-field", 2)],
)
def test_a_molecule_depends_on_the_seed_and_its_own_number_alone(
    network: str, batch_size: int
) -> None:
    model = shaken(ModelConfig(NETWORKS[network]))
    five = model.sample(5, seed=3)
    assert same(model.sample(3, seed=3, batch_size=batch_size), five[:3])
    assert len(set(five.sizes)) > 1  # batches of one size and of mixed sizes were compared
    assert not same(model.sample(5, seed=4), five)


def test_molecules_of_one_batch_differ() -> None:
    mols = shaken(ModelConfig(EGNN)).sample(4, sizes=[3] * 4)
    positions = mols.positions.reshape(4, -1)
    assert (
        np.linalg.norm(positions[:, None] - positions, axis=-1)[np.triu_indices(4, 1)].min() > 0.1
    )


def test_samples_are_centred_finite_and_of_the_model_s_elements() -> None:
    mols = shaken(ModelConfig(EGNN, elements=("H", "O"))).sample(6)
    assert np.isfinite(mols.positions).all()
    assert set(mols.z) <= {1, 8}
    assert max(np.abs(mol.positions.mean(0)).max() for mol in mols) < 1e-5


def test_sizes_follow_the_prior() -> None:
    prior = SizePrior((2, 5, 9), (0.2, 0.5, 0.3))
    model = replace(shaken(ModelConfig(EGNN)), sizes=prior)
    found = model._sizes(sample_seeds(0, 4000))
    values, counts = np.unique(found, return_counts=True)
    assert values.tolist() == [2, 5, 9]
    assert np.abs(counts / 4000 - prior.probabilities).max() < 0.03  # four standard deviations


def test_the_size_of_a_molecule_says_nothing_about_its_noise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # of all molecules those whose size was drawn from a narrow slice of the prior
    prior = SizePrior((3, 4, 5), (0.05, 0.05, 0.9))
    starts: list[Tensor] = []
    model = replace(shaken(ModelConfig(EGNN)), sizes=prior, sampling=SamplingConfig(1))
    model.denoiser.register_forward_pre_hook(lambda module, args: starts.append(args[0]["pos"]))
    model.sample(1000, batch_size=1000)
    model.sample(1000, batch_size=1000, seed=1)
    first = torch.cat([start[:60, 0, 0] for start in starts])  # sorted by size: these have 3 atoms
    assert 0.35 < float((first > 0).float().mean()) < 0.65


def test_given_sizes_are_kept_in_order() -> None:
    model = shaken(ModelConfig(TRANSFORMER))
    assert model.sample(3, sizes=[5, 3, 4]).sizes.tolist() == [5, 3, 4]


def test_giving_the_sizes_that_would_be_drawn_changes_nothing() -> None:
    model = shaken(ModelConfig(EGNN))
    drawn = model.sample(4, seed=2)
    assert same(model.sample(4, seed=2, sizes=list(drawn.sizes)), drawn, 1e-6)


def test_another_sampler_of_the_core_can_be_used() -> None:
    model = shaken(ModelConfig(EGNN))
    flow = Sampler(Multistep(2, 0.0), 5, Power(1.5))
    assert not same(model.sample(3, sampler=flow), model.sample(3, steps=5), 1e-2)
    own = model.sampling.sampler(5)
    assert same(model.sample(3, sampler=own), model.sample(3, steps=5), 1e-6)


def test_steps_are_calls_of_the_denoiser() -> None:
    model = shaken(ModelConfig(EGNN))
    calls: list[int] = []
    model.denoiser.register_forward_pre_hook(lambda module, args: calls.append(1))
    model.sample(2, steps=7)
    assert len(calls) == 7


def test_charges_are_sampled_with_their_atoms() -> None:
    mols = shaken(ModelConfig(EGNN, charges=True)).sample(20)
    assert mols.charges is not None
    assert set(mols.charges) == {-1, 0, 1}


def test_a_model_of_bonds_samples_molecules() -> None:
    mols = shaken(ModelConfig(EGNN, bonds=True)).sample(3, sizes=[3, 5, 4])
    assert mols.sizes.tolist() == [3, 5, 4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n must be at least 1, got 0"),
        ({"n": 2, "sizes": [3]}, "sizes must be 2 positive numbers of atoms"),
        ({"n": 1, "sizes": [0]}, "sizes must be 1 positive numbers of atoms"),
        ({"n": 1, "steps": 0}, "steps must be at least 1, got 0"),
        ({"n": 1, "given": {"muu": 1.0}}, "given names 'muu'.* trained on mu. Did you mean 'mu'?"),
        ({"n": 1, "guidance": 2.0}, "guidance 2.0 needs given"),
    ],
)
def test_a_wish_that_cannot_be_met_is_an_error(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        conditional().sample(**arguments)  # type: ignore[arg-type]


def test_an_unconditional_model_knows_no_property() -> None:
    with pytest.raises(ValueError, match="trained on no property"):
        shaken(ModelConfig(EGNN)).sample(1, given={"mu": 1.0})


def test_a_condition_reaches_the_network_on_its_scale() -> None:
    model, seen = conditional(), []
    model.denoiser.net.register_forward_pre_hook(lambda net, args: seen.append(args[2]))
    model.sample(3, given={"mu": 3.0}, sizes=[3, 3, 3])
    assert all(cond["mu"].tolist() == [2.0] * 3 for cond in seen)  # (3 - 2) / 0.5


def test_a_condition_changes_the_molecules() -> None:
    model = conditional()
    assert not same(model.sample(3, given={"mu": 5.0}), model.sample(3, given={"mu": -5.0}), 1e-2)


def test_guidance_interpolates_between_no_condition_and_the_condition() -> None:
    model = conditional()
    flow = Sampler(Multistep(1, 0.0), 1)  # one step: the sample is the guided prediction itself
    given = {"mu": 4.0}

    def positions(guidance: float, wish: Mapping[str, float] | None = given) -> np.ndarray:
        sizes = [4, 4, 4]
        return model.sample(3, given=wish, guidance=guidance, sizes=sizes, sampler=flow).positions

    without, conditioned, doubled = positions(0.0), positions(1.0), positions(2.0)
    assert np.allclose(without, positions(1.0, None), atol=1e-5)
    assert np.abs(conditioned - without).max() > 1e-3
    assert np.allclose(doubled, 2 * conditioned - without, atol=1e-4)


def test_values_cannot_be_given_to_a_model_without_normaliser() -> None:
    with pytest.raises(ValueError, match="no normaliser"):
        replace(conditional(), normaliser=None).sample(1, given={"mu": 1.0})


@pytest.mark.parametrize("network", NETWORKS)
def test_a_model_that_is_saved_and_loaded_is_the_same_up_to_half_precision(
    network: str, tmp_path: Path
) -> None:
    config = ModelConfig(NETWORKS[network], types="gaussian", conditions=("mu",), scale=1.3)
    model = shaken(config)
    model = replace(model, normaliser=MU, sampling=SamplingConfig(9, 2, 0.5), info={"from": "here"})
    loaded = molecules.load(model.save(tmp_path / "model.safetensors"))
    for name in ("config", "sizes", "sampling", "normaliser", "info"):
        assert getattr(loaded, name) == getattr(model, name)
    for name, value in model.denoiser.state_dict().items():
        assert torch.allclose(loaded.denoiser.state_dict()[name], value, rtol=2**-11, atol=1e-7)
    assert not loaded.denoiser.training
    assert len(loaded.sample(2)) == 2


def test_loading_twice_gives_the_same_molecules(tmp_path: Path) -> None:
    path = shaken(ModelConfig(EGNN)).save(tmp_path / "model.safetensors")
    assert same(molecules.load(path).sample(3), molecules.load(path).sample(3), 1e-6)


def test_unknown_names_are_answered_with_known_ones(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no model 'qn9': not a file, and none that ships"):
        molecules.load("qn9")
    with pytest.raises(FileNotFoundError, match="no recipe 'qn9'.*Did you mean 'qm9'?"):
        molecules.recipe("qn9")
    with pytest.raises(FileNotFoundError, match="no model"):
        molecules.load(tmp_path)  # a folder


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    export({"w": torch.zeros(1)}, tmp_path / "weather.safetensors", {"kind": "weather"})
    with pytest.raises(ValueError, match="holds 'weather', not a molecular model"):
        molecules.load(tmp_path / "weather.safetensors")


def test_a_recipe_takes_overrides_and_names_each_wrong_key() -> None:
    changed = molecules.recipe("qm9", ["train.steps=7", "model.network.layers=2"])
    assert (changed.train.steps, changed.train.batch_size) == (7, 128)
    original = molecules.recipe("qm9").model.network
    assert isinstance(original, TransformerConfig)
    assert changed.model.network == replace(original, layers=2)
    with pytest.raises(ConfigError, match=r"mean model.network\?\n.* mean train.steps\?"):
        molecules.recipe("qm9", ["train.stepz=7", "model.networc.layers=2"])


@pytest.mark.parametrize("name", ["qm9"])
def test_every_recipe_that_ships_builds_its_network(name: str) -> None:
    config = molecules.recipe(name)
    assert sum(p.numel() for p in config.model.denoiser().parameters()) > 1e5
    assert config.train.steps > 1000


def test_every_model_that_ships_loads_and_says_where_it_comes_from() -> None:
    for name in molecules.models():
        model = molecules.load(name)
        assert model.config.scale is not None
        assert model.info


TRAINING = MoleculeTraining(
    ModelConfig(EGNN),
    train=TrainConfig(steps=3, batch_size=4, warmup=1, device="cpu", print_seconds=1e9),
)


@pytest.fixture
def three_molecules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training data are water, ammonia and methane; the validation set is methane."""

    def load(self: DataConfig, split: str | None = None) -> MoleculeSet:
        return molecule_set(copies=4) if split is None else molecule_set("methane", copies=4)

    monkeypatch.setattr(DataConfig, "load", load)


@pytest.mark.usefixtures("three_molecules")
def test_training_leaves_a_model_and_goes_on_from_where_it_was(tmp_path: Path) -> None:
    model, state = molecules.train(TRAINING, tmp_path)
    assert (state.step, state.stopped) == (3, "")
    assert model.sizes == SizePrior((3, 4, 5), (1 / 3, 1 / 3, 1 / 3))
    loaded = molecules.load(tmp_path / "model.safetensors")
    assert loaded.info is not None
    assert (loaded.info["steps"], loaded.info["molecules"]) == (3, 12)
    longer = replace(TRAINING, train=replace(TRAINING.train, steps=5))
    _, state = molecules.train(longer, tmp_path)
    assert state.step == 5
    with pytest.raises(ValueError, match="already holds a run"):
        molecules.train(longer, tmp_path, resume=False)


@pytest.mark.usefixtures("three_molecules")
def test_the_trained_model_has_the_averaged_weights(tmp_path: Path) -> None:
    model, state = molecules.train(TRAINING, tmp_path)
    assert state.ema is not None
    average, last = state.ema.state_dict(), state.model.state_dict()
    weights = model.denoiser.state_dict()
    assert all(torch.equal(weights[name], average[name]) for name in weights)
    assert any(not torch.equal(weights[name], last[name]) for name in weights)


@pytest.mark.usefixtures("three_molecules")
def test_without_an_average_the_trained_model_has_the_last_weights(tmp_path: Path) -> None:
    config = replace(TRAINING, train=replace(TRAINING.train, ema=None))
    model, state = molecules.train(config, tmp_path)
    last, weights = state.model.state_dict(), model.denoiser.state_dict()
    assert all(torch.equal(weights[name], last[name]) for name in weights)


@pytest.mark.usefixtures("three_molecules")
def test_validation_looks_at_held_out_molecules(tmp_path: Path) -> None:
    config = replace(TRAINING, train=replace(TRAINING.train, validate_every=3))
    molecules.train(config, tmp_path)
    header, row = (tmp_path / "validation.csv").read_text().splitlines()
    assert header.split(",")[:2] == ["step", "loss"]
    assert float(row.split(",")[1]) > 0


@pytest.mark.slow
def test_a_model_trained_on_water_samples_water(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = MoleculeTraining(
        ModelConfig(replace(EGNN, width=32)),
        objective=ObjectiveConfig(atom_weight=1.0),
        train=replace(TRAINING.train, steps=600, batch_size=32, lr=3e-3, warmup=20, log_every=100),
    )
    task = MoleculeTask(config, molecule_set("water", copies=64))
    state = train(task, config.train, tmp_path)
    assert state.ema is not None
    mols = MoleculeModel.from_training(task, state.ema.state_dict()).sample(20)
    right = [sorted(mol.z) == [1, 1, 8] for mol in mols]
    assert np.mean(right) >= 0.9
    for mol in (mol for mol, ok in zip(mols, right, strict=True) if ok):
        o, h = mol.positions[mol.z == 8], mol.positions[mol.z == 1]
        assert np.linalg.norm(h - o, axis=1) == pytest.approx([0.97, 0.97], abs=0.15)
        assert np.linalg.norm(h[0] - h[1]) == pytest.approx(1.52, abs=0.25)


def test_evaluate_judges_as_many_molecules_as_asked_for() -> None:
    pytest.importorskip("rdkit")
    report = shaken(ModelConfig(EGNN)).evaluate(7, seed=1)
    assert report.about["molecules"] == 7


def test_a_model_moves_to_a_device_and_stays_itself() -> None:
    model = shaken(ModelConfig(EGNN))
    moved = model.to("cpu")
    assert moved.config == model.config
    assert same(moved.sample(2), model.sample(2), 1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_samples_what_the_cpu_samples() -> None:
    model = shaken(ModelConfig(EGNN))
    here = model.sample(3, steps=3)
    assert same(model.to("cuda").sample(3, steps=3), here, 1e-2)
