"""How molecules plug into the core: fields, processes, and the typed settings of a model."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor

from sciffusion.domains.molecules import ModelConfig
from sciffusion.domains.molecules.adapter import atom_classes, molecule_state, pairs
from sciffusion.grid import Power
from sciffusion.layout import Dense, Masked, Packed
from sciffusion.noise import Noise
from sciffusion.objective import Objective
from sciffusion.process import Gaussian, Jump
from sciffusion.samplers import Multistep, Sampler
from sciffusion.state import State
from tests.domains.molecules.small import EGNN, NETWORKS, TRANSFORMER, molecule_set, shaken

TYPES: tuple[Literal["jump", "absorbing", "gaussian"], ...] = ("jump", "absorbing", "gaussian")
BASE = ModelConfig(EGNN, scale=0.6)


VARIANTS = [
    replace(BASE, types=types, charges=charges, bonds=bonds)
    for types, charges, bonds in itertools.product(TYPES, (False, True), (False, True))
]


def named(config: ModelConfig) -> str:
    return "-".join([config.types, *["charges"] * config.charges, *["bonds"] * config.bonds])


def state(config: ModelConfig, *, packed: bool = False) -> State:
    """Water, ammonia and methane."""
    mols = molecule_set(charged=True)
    sizes = torch.from_numpy(mols.sizes)
    bond = (torch.arange(pairs(sizes)[0].shape[1]) % 4) if config.bonds else None
    charge = mols.charges.long() if mols.charges is not None else torch.zeros(0)
    if packed:
        batch = mols.packed([0, 1, 2])
        return molecule_state(
            config, batch.pos, batch.atom, index=batch.molecule, charge=charge, bond=bond
        )
    pos, atom, mask = mols.padded([0, 1, 2])
    padded = torch.zeros_like(atom)
    padded[mask] = charge
    return molecule_state(config, pos, atom, mask=mask, charge=padded, bond=bond)


@pytest.mark.parametrize("config", VARIANTS, ids=named)
def test_every_field_is_noised_learnt_and_sampled(config: ModelConfig) -> None:
    x0 = state(config)
    wanted = {"pos", "atom"} | ({"charge"} if config.charges else set())
    wanted |= {"bond"} if config.bonds else set()
    assert set(x0) == wanted
    model = shaken(config)
    denoiser = model.denoiser.train()
    loss = Objective(config.process())(denoiser, x0, noise=Noise(1))
    assert {str(name) for name in loss.per_field} == wanted
    loss.mean.backward()
    gradients = [p.grad for p in denoiser.parameters() if p.grad is not None]
    assert all(bool(g.isfinite().all()) for g in gradients)
    heads = dict(denoiser.net.heads.named_parameters())  # type: ignore[union-attr]
    assert {name.partition(".")[0] for name in heads} == wanted - {"pos"}
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in heads.values())
    noise = Noise([3, 4, 5])
    sampler = Sampler(Multistep(1, 1.0), 4, Power(1.5))
    x = sampler(denoiser.eval(), config.process().prior(x0, noise), noise).x
    assert isinstance(x, State)
    assert bool(x["pos"].isfinite().all())
    mask = x0.layout("atom").mask  # type: ignore[attr-defined]
    assert bool((atom_classes(x["atom"])[mask] < len(config.elements)).all())  # no mask class left
    if config.charges:
        assert set(x["charge"][mask].tolist()) <= {0, 1, 2}
    if config.bonds:
        assert x["bond"].shape == (3 + 6 + 10,)
        assert set(x["bond"].tolist()) <= {0, 1, 2, 3}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("types", TYPES)
def test_a_denoiser_predicts_the_same_padded_and_packed(
    network: str, types: Literal["jump", "absorbing", "gaussian"]
) -> None:
    config = replace(BASE, network=NETWORKS[network], types=types)
    denoiser = shaken(config).denoiser
    padded, packed = state(config), state(config, packed=True)
    mask = padded.layout("pos").mask  # type: ignore[attr-defined]
    t, seeds = torch.tensor(0.4, dtype=torch.float64), [7, 8, 9]
    predictions: list[State] = []
    for x0 in (padded, packed):
        x_t = denoiser.process.perturb(x0, t, Noise(seeds)).x_t
        with torch.no_grad():
            x0_hat = denoiser(x_t, t).x0
        assert isinstance(x0_hat, State)
        predictions.append(x0_hat)
    for name in ("pos", "atom"):
        difference = predictions[0][name][mask] - predictions[1][name]
        assert difference.abs().max() < 1e-4
    assert predictions[0]["pos"].abs().max() > 1e-3


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_that_never_learnt_to_read_its_prediction_is_not_shown_it(network: str) -> None:
    config = replace(BASE, network=NETWORKS[network])
    x_t, t = state(config), torch.tensor(0.5, dtype=torch.float64)
    outputs: list[Tensor] = []
    for sees in (False, True):
        denoiser = shaken(replace(config, self_condition=sees)).denoiser
        with torch.no_grad():
            alone = denoiser(x_t, t).x0
            shown = denoiser(x_t, t, None, alone).x0
        assert isinstance(alone, State) and isinstance(shown, State)
        outputs.append((alone["atom"] - shown["atom"]).abs().max())
    assert outputs[0] == 0.0
    assert outputs[1] > 1e-5


def test_positions_are_measured_in_units_of_scale_and_padding_is_zero() -> None:
    config = replace(BASE, scale=2.0)
    mols = molecule_set()
    pos, atom, mask = mols.padded([0, 1, 2])
    x = molecule_state(config, pos, atom, mask=mask)
    assert torch.allclose(x["pos"] * 2.0, pos)
    assert torch.equal(x["atom"], atom)


def test_layouts_follow_from_what_is_given() -> None:
    mols = molecule_set("water", "water")
    pos, atom, mask = mols.padded([0, 1])
    batch = mols.packed([0, 1])
    assert isinstance(molecule_state(BASE, pos, atom).layout("pos"), Dense)
    assert isinstance(molecule_state(BASE, pos, atom, mask=mask).layout("pos"), Masked)
    packed = molecule_state(BASE, batch.pos, batch.atom, index=batch.molecule)
    assert isinstance(packed.layout("pos"), Packed)
    assert packed.batch == 2


def test_one_hot_types_have_the_length_that_is_asked_for_and_read_back_as_classes() -> None:
    config = replace(BASE, types="gaussian", one_hot_scale=0.25)
    x = state(config)
    _, atom, mask = molecule_set().padded([0, 1, 2])
    assert x["atom"].shape == (3, 5, 5)
    assert torch.equal(x["atom"].sum(-1), 0.25 * mask.float())
    assert torch.equal(atom_classes(x["atom"])[mask], atom[mask])


def test_pairs_list_every_two_atoms_of_a_molecule_once_and_of_two_molecules_never() -> None:
    found, owner = pairs(torch.tensor([3, 2]))
    assert found.T.tolist() == [[0, 1], [0, 2], [1, 2], [3, 4]]
    assert owner.tolist() == [0, 0, 0, 1]


def test_a_molecule_of_one_atom_has_no_pairs() -> None:
    with pytest.raises(ValueError, match="a molecule of one atom has no bonds"):
        pairs(torch.tensor([3, 1]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": None}, "scale of the configuration is not set"),
        ({"charges": True}, "charge is missing: the configuration has charges: true"),
        ({"bonds": True}, "bond is missing: the configuration has bonds: true"),
    ],
)
def test_a_field_that_is_missing_is_named(change: dict[str, bool], message: str) -> None:
    pos, atom, mask = molecule_set().padded([0, 1, 2])
    with pytest.raises(ValueError, match=message):
        molecule_state(replace(BASE, **change), pos, atom, mask=mask)  # type: ignore[arg-type]


def test_the_transformer_refuses_bonds() -> None:
    with pytest.raises(ValueError, match="transformer predicts no bonds; choose egnn"):
        replace(BASE, network=TRANSFORMER, bonds=True).net()


@pytest.mark.parametrize("schedule", ["rectified-flow", "cosine", "polynomial", "trig-flow"])
def test_all_fields_share_the_schedule_that_is_named(
    schedule: Literal["rectified-flow", "cosine", "polynomial", "trig-flow"],
) -> None:
    process = replace(BASE, schedule=schedule, charges=True, bonds=True).process()
    fields = {name: process.field(name) for name in ("pos", "atom", "charge", "bond")}
    assert isinstance(fields["pos"], Gaussian)
    assert all(isinstance(fields[name], Jump) for name in ("atom", "charge", "bond"))
    t = torch.tensor(0.3)
    assert len({float(field.schedule.alpha(t)) for field in fields.values()}) == 1
