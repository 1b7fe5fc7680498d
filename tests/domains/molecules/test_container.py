"""The laws of `Molecules`: a frozen list that selects, joins, stores and shows without loss."""

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rdkit import Chem

from sciffusion.domains.molecules.chem import DistanceTable, RDKitBonds
from sciffusion.domains.molecules.container import Molecule, Molecules


@pytest.fixture(scope="module")
def mols(embedded: Callable[[str], Molecule]) -> Molecules:
    """Five good molecules and a crowded, invalid one."""
    good = [embedded(smiles) for smiles in ("CCO", "C1CC1", "CC(N)=O", "CC#N", "OCC(F)F")]
    return Molecules.concatenate([*good, Molecule(good[1].positions * 0.7, good[1].z)])


def same(a: Molecules, b: Molecules) -> bool:
    fields = [(getattr(a, f), getattr(b, f)) for f in ("positions", "z", "ptr")]
    return all(np.array_equal(x, y) for x, y in fields)


def test_nothing_of_it_can_be_written_to() -> None:
    positions = np.array([[0.0, 0, 0], [0, 0, 0.74]])
    mols = Molecules(positions, np.array([1, 1]), np.array([0, 2]))
    positions[:] = 9.0  # the caller's array is not the container's
    assert mols.positions.max() == 0.74
    with pytest.raises(ValueError, match="read-only"):
        mols.positions[0] = 1.0
    with pytest.raises(FrozenInstanceError):
        mols.z = np.array([1, 1])  # type: ignore[misc]


def test_an_index_gives_a_molecule_and_a_selection_gives_molecules(mols: Molecules) -> None:
    assert len(mols) == 6 and [m.smiles for m in mols] == list(mols.smiles)
    last = mols[-1]
    assert isinstance(last, Molecule) and len(last) == mols.sizes[5]
    np.testing.assert_array_equal(mols[2].positions, mols.positions[mols.ptr[2] : mols.ptr[3]])
    odd = np.arange(6) % 2 == 1
    for picked in (mols[1::2], mols[odd], mols[[1, 3, 5]], mols[np.array([1, 3, 5])]):
        assert same(picked, Molecules.concatenate([mols[1], mols[3], mols[5]]))
    assert [m.formula for m in mols[[4, 0]]] == ["C2H4F2O", "C2H6O"]
    assert len(mols[:0]) == 0 and same(mols[:], mols)
    with pytest.raises(IndexError):
        mols[6]


def test_what_was_judged_before_a_selection_is_what_a_fresh_judgement_says(mols: Molecules) -> None:
    fresh = mols[[5, 2, 0]]
    assert mols.chemistry.valid.tolist() == [True] * 5 + [False]
    kept = mols[[5, 2, 0]]
    assert "chemistry" in kept.__dict__ and "chemistry" not in fresh.__dict__
    assert kept.chemistry.key == fresh.chemistry.key
    assert kept.chemistry.problem == fresh.chemistry.problem
    assert kept.stable.tolist() == fresh.stable.tolist() == [False, True, True]


def test_parts_join_to_the_whole(mols: Molecules) -> None:
    assert same(Molecules.concatenate([mols[:2], mols[2], mols[3:]]), mols)
    charged = replace(mols[:1], charges=np.ones(len(mols[0]), int))
    joined = Molecules.concatenate([mols[:1], charged])
    assert joined.charges is not None and joined.charges.sum() == len(mols[0])
    with pytest.raises(ValueError, match="different rules"):
        Molecules.concatenate([mols, replace(mols, rule=RDKitBonds())])
    with pytest.raises(ValueError, match="at least one"):
        Molecules.concatenate([])


@pytest.mark.parametrize("junk", [0.0, 1e6, float("nan")])
def test_padding_is_never_read(mols: Molecules, junk: float) -> None:
    most = mols.sizes.max()
    mask = torch.arange(most)[None] < torch.tensor(mols.sizes)[:, None]
    positions = torch.full((6, most, 3), junk, dtype=torch.float64)
    z = torch.where(mask, 0, 99)
    positions[mask], z[mask] = torch.tensor(mols.positions), torch.tensor(mols.z)
    found = Molecules.from_padded(positions, z, mask)
    assert same(found, mols) and found.chemistry.key == mols.chemistry.key


@pytest.mark.parametrize(
    ("positions", "z", "ptr", "charges", "message"),
    [
        (np.zeros((2, 3)), [1, 1, 1], [0, 3], None, r"positions must be \(3, 3\)"),
        (np.zeros((2, 2)), [1, 1], [0, 2], None, r"got \(2, 2\)"),
        (np.zeros((2, 3)), [1, 1], [0, 1], None, "ptr must rise from 0 to 2"),
        (np.zeros((2, 3)), [1, 1], [0, 2, 2], None, "at least one atom"),
        (np.zeros((2, 3)), [1, 1], [], None, "ptr"),
        (np.zeros((2, 3)), [1, 0], [0, 2], None, "padding"),
        (np.zeros((2, 3)), [1.5, 1], [0, 2], None, "integers, got float64"),
        (np.zeros((2, 3)), [1, 1], [0, 2], [1], r"charges must be \(2,\)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    positions: np.ndarray, z: list[int], ptr: list[int], charges: list[int] | None, message: str
) -> None:
    given = None if charges is None else np.array(charges)
    with pytest.raises(ValueError, match=message):
        Molecules(positions, np.array(z), np.array(ptr), given)


def test_a_molecule_tells_its_state(embedded: Callable[[str], Molecule]) -> None:
    good = embedded("CCO")
    assert (good.formula, good.smiles, good.valid, good.stable, good.connected) == (
        *("C2H6O", "CCO"),
        *(True, True, True),
    )
    assert good.problem is None and "C2H6O" in repr(good) and "stable" in repr(good)
    bad = Molecule(good.positions * 0.6, good.z)
    assert bad.smiles is None and not bad.valid and bad.problem
    assert "invalid" in repr(bad) and "6 molecules" not in repr(bad.batch)


def test_formulas_are_in_hill_order() -> None:
    def formula(*z: int) -> str:
        return Molecule(np.arange(3.0 * len(z)).reshape(-1, 3), np.array(z)).formula

    assert [formula(1, 8, 1), formula(8, 1, 6), formula(9, 1), formula(6)] == [
        "H2O",
        "CHO",
        "FH",
        "C",
    ]


def test_the_rdkit_molecule_keeps_hydrogens_and_coordinates(mols: Molecules) -> None:
    for mol in mols:
        found = mol.rdkit()
        assert [atom.GetAtomicNum() for atom in found.GetAtoms()] == mol.z.tolist()
        np.testing.assert_allclose(found.GetConformer().GetPositions(), mol.positions)
    assert Chem.MolToSmiles(Chem.RemoveHs(mols[2].rdkit())) == "CC(N)=O"


def test_ase_atoms_carry_the_same_geometry_and_charges() -> None:
    mol = Molecule(np.eye(3), np.array([8, 1, 1]), np.array([-1, 0, 0]))
    atoms = mol.ase()
    assert atoms.get_chemical_formula() == "H2O" and atoms.get_initial_charges().sum() == -1
    np.testing.assert_array_equal(atoms.positions, mol.positions)


def test_graphs_for_pyg_have_every_bond_in_both_directions(mols: Molecules) -> None:
    graphs = mols.to_pyg()
    assert len(graphs) == 6
    for graph, mol in zip(graphs, mols, strict=True):
        bonds = mol.batch.bonds
        assert graph.num_nodes == len(mol) and graph.num_edges == 2 * len(bonds.orders)
        assert graph.is_undirected() and graph.edge_attr.sum() == 2 * bonds.orders.sum()
        np.testing.assert_allclose(graph.pos.numpy(), mol.positions, rtol=1e-6)


# Files.


def test_sdf_keeps_all_atoms_to_four_decimals(mols: Molecules, tmp_path: Path) -> None:
    path = mols.save(tmp_path / "new" / "mols.sdf")
    back = Molecules.load(path)
    np.testing.assert_allclose(back.positions, mols.positions, atol=5.1e-5)
    assert back.z.tolist() == mols.z.tolist() and back.ptr.tolist() == mols.ptr.tolist()
    assert back.smiles == mols.smiles and back.stable.tolist() == mols.stable.tolist()
    first = next(iter(Chem.SDMolSupplier(str(path))))
    assert first.GetProp("smiles") == "CCO" and first.GetBoolProp("stable")
    assert Chem.MolToSmiles(first) == "CCO"  # the bonds are in the file, for other programs
    assert list(path.parent.iterdir()) == [path]


def test_sdf_keeps_formal_charges_and_further_elements(
    tmp_path: Path, embedded: Callable[[str], Molecule]
) -> None:
    parts = [embedded(smiles) for smiles in ("C[N+](=O)[O-]", "CSC", "Cc1ccncc1")]
    mols = replace(Molecules.concatenate(parts), rule=RDKitBonds())
    back = Molecules.load(mols.save(tmp_path / "charged.sdf"), rule=RDKitBonds())
    assert back.charges is not None and back.charges.tolist() == mols.bonds.charges.tolist()
    assert back.smiles == mols.smiles == ("C[N+](=O)[O-]", "CSC", "Cc1ccncc1")


def test_xyz_keeps_ten_decimals(mols: Molecules, tmp_path: Path) -> None:
    back = Molecules.load(mols.save(str(tmp_path / "mols.xyz")))
    np.testing.assert_allclose(back.positions, mols.positions, atol=5.1e-11)
    assert back.z.tolist() == mols.z.tolist() and back.ptr.tolist() == mols.ptr.tolist()
    assert mols[0].xyz() == Molecules.load(tmp_path / "mols.xyz")[0].xyz()


def test_xyz_of_other_programs_is_read(tmp_path: Path) -> None:
    path = tmp_path / "other.XYZ"
    path.write_text(
        "2\nenergy=-1.17 Properties=...\nH 0 0 0 0.1 0.2\n1 0 0 0.74 1 1\n\n1\n\nHe 1 2 3\n\n"
    )
    found = Molecules.load(path, rule=RDKitBonds())
    assert found.z.tolist() == [1, 1, 2] and found.ptr.tolist() == [0, 2, 3]
    assert found.positions[2].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3\n\nH 0 0 0\n", "line 1: the file ends"),
        ("1\n\nH 0 0\n", "line 1"),
        ("1\n\nH 0 0 0\n1\n\nXx 0 0 0\n", "line 4"),
        ("nonsense\n", "line 1"),
    ],
)
def test_a_broken_xyz_file_is_refused_with_its_line(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "broken.xyz"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        Molecules.load(path)


def test_files_without_3d_or_of_no_known_kind_are_refused(mols: Molecules, tmp_path: Path) -> None:
    flat = tmp_path / "flat.sdf"
    flat.write_text(Chem.MolToMolBlock(Chem.MolFromSmiles("CCO")) + "$$$$\n")
    with pytest.raises(ValueError, match="no 3D"):
        Molecules.load(flat)
    with pytest.raises(ValueError, match=r"\.sdf or \.xyz"):
        mols.save(tmp_path / "mols.pdb")
    with pytest.raises(FileNotFoundError, match="absent"):
        Molecules.load(tmp_path / "absent.sdf")


def test_a_failed_save_leaves_the_old_file(mols: Molecules, tmp_path: Path) -> None:
    path = mols[:1].save(tmp_path / "mols.sdf")
    before = path.read_bytes()
    wild = mols.positions.copy()
    wild[0] = np.inf
    with pytest.raises(ValueError, match=r"molecules \[0\].*not finite"):
        replace(mols, positions=wild).save(path)
    assert path.read_bytes() == before


def test_bonds_of_a_file_are_drawn_again_by_the_rule(mols: Molecules, tmp_path: Path) -> None:
    path = mols[:1].save(tmp_path / "one.sdf")
    assert Molecules.load(path).rule == DistanceTable()
    assert Molecules.load(path, rule=RDKitBonds()).rule == RDKitBonds()
