"""A set that is saved comes back exactly; a damaged file is named, never half read."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sciffusion.domains.molecules.compact import load, save, write_arrays
from sciffusion.domains.molecules.data import MoleculeSet
from sciffusion.domains.molecules.elements import AtomVocabulary, DataError, UnknownElementError
from sciffusion.domains.molecules.properties import PropertyTable


def some(**settings: object) -> MoleculeSet:
    values = torch.tensor([[-400.123456789, 1.5], [2.0, 1 / 3]], dtype=torch.float64)
    table = PropertyTable(("u0", "mu"), ("Eh", "D"), values, {"u0": {6: -37.8, 1: -0.5}})
    given = {"properties": table, "ids": [7, 9], "name": "some"} | settings
    pos = np.random.default_rng(0).normal(size=(5, 3))
    return MoleculeSet.from_arrays([6, 1, 6, 1, 1], pos, [0, 2, 5], **given)  # type: ignore[arg-type]


def test_a_saved_set_comes_back_exactly(tmp_path: Path) -> None:
    mols = some(
        charges=[0, 1, 0, -1, 0],
        smiles=["C", "[CH-]"],
        splits={"train": np.array([0, 1]), "test": np.array([1])},
    )
    again = load(save(mols, tmp_path / "some.npz"))
    assert again.charges is not None and mols.charges is not None
    for name in ("z", "ptr", "charges"):
        assert torch.equal(getattr(again, name), getattr(mols, name))
    torch.testing.assert_close(again.pos, mols.pos, rtol=0, atol=1e-6)  # centred once more
    assert torch.equal(again.properties.values, mols.properties.values)
    assert again.properties.atoms == mols.properties.atoms
    assert (again.properties.names, again.properties.units) == (("u0", "mu"), ("Eh", "D"))
    assert {k: v.tolist() for k, v in again.splits.items()} == {"train": [0, 1], "test": [1]}
    assert (again.ids.tolist(), again.smiles, again.name) == ([7, 9], ["C", "[CH-]"], "some")


def test_a_set_with_nothing_but_atoms_comes_back(tmp_path: Path) -> None:
    mols = MoleculeSet.from_arrays([6, 8], [[0, 0, -0.6], [0, 0, 0.6]], [0, 2])
    again = load(save(mols, tmp_path / "co.npz"))
    torch.testing.assert_close(again.pos, mols.pos)
    assert (again.charges, again.smiles_bytes, again.splits) == (None, None, {})
    assert again.properties.names == ()


def test_integers_are_read_in_their_unit(tmp_path: Path) -> None:
    arrays = {"ptr": np.array([0, 2]), "z": np.array([6, 8]), "pos_1e3": np.zeros((2, 3), np.int16)}
    arrays["pos_1e3"][1, 2] = 1128
    mols = load(write_arrays(tmp_path / "a.npz", arrays))
    assert (mols.pos[1] - mols.pos[0]).norm().item() == pytest.approx(1.128)


def test_energies_keep_the_digits_that_float32_loses(tmp_path: Path) -> None:
    exact = np.array([[-409.979464], [-40.47893]])
    arrays = {
        "ptr": np.array([0, 1, 2]),
        "z": np.array([6, 6]),
        "pos": np.zeros((2, 3)),
        "props": np.hstack([exact, exact]).astype(np.float32),
        "prop_names": np.array(["mu", "u0"]),
        "prop_units": np.array(["D", "Eh"]),
        "energy_Eh": exact,
        "energy_names": np.array(["u0"]),
    }
    mols = load(write_arrays(tmp_path / "a.npz", arrays))
    assert mols.get("u0").tolist() == exact[:, 0].tolist() != mols.get("mu").tolist()


@pytest.mark.parametrize("kind", ["cut", "flipped", "text", "empty", "pickle"])
def test_a_damaged_file_is_named(tmp_path: Path, kind: str) -> None:
    path = save(some(), tmp_path / "some.npz")
    content = path.read_bytes()
    if kind == "pickle":
        np.savez(path, z=np.array([object()]))
    else:
        middle = len(content) // 3
        damaged = {
            "cut": content[: len(content) // 2],
            "flipped": content[:middle] + bytes(40) + content[middle + 40 :],
            "text": b"this is not a zip file",
            "empty": b"",
        }
        path.write_bytes(damaged[kind])
    with pytest.raises(DataError, match=r"some.npz is not a readable .* delete it"):
        load(path)


def test_a_missing_file_and_missing_arrays_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no file .*gone.npz"):
        load(tmp_path / "gone.npz")
    for arrays, message in (
        ({"x": np.zeros(1)}, "no array ptr and no z; it has"),
        ({"z": np.array([6]), "ptr": np.array([0, 1])}, "no array pos, pos_1e5"),
    ):
        with pytest.raises(DataError, match=message):
            load(write_arrays(tmp_path / "a.npz", arrays))
    with pytest.raises(ValueError, match="must end in .npz"):
        write_arrays(tmp_path / "a.zip", {})


def test_other_elements_need_a_vocabulary_that_has_them(
    shared_data: Callable[[str], Path],
) -> None:
    path = shared_data("molecules/ccd/ccd_ligands.npz")
    with pytest.raises(UnknownElementError, match="is not in the vocabulary H C N O F"):
        load(path)
    mols = load(path, vocabulary=None)
    assert mols.vocabulary.symbols == tuple("H B C N O F Si P S Cl Br I".split())
    assert mols.charges is not None and set(mols.charges.unique().tolist()) >= {-1, 0, 1}
    assert mols.padded(slice(0, 8)).atom.max() < len(mols.vocabulary)
    assert AtomVocabulary.covering(mols.z) == mols.vocabulary
