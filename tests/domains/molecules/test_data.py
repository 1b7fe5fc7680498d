"""A molecule set keeps what it was given, in every batch and every part, and refuses nonsense."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sciffusion.domains.molecules.data import MoleculeSet
from sciffusion.domains.molecules.elements import (
    QM9_ATOMS,
    AtomVocabulary,
    DataError,
    UnknownElementError,
)
from sciffusion.domains.molecules.properties import PropertyTable

SIZES = [5, 1, 3, 5, 2]


def molecules(sizes: list[int] = SIZES, seed: int = 0) -> MoleculeSet:
    """Random molecules with everything that a set can hold."""
    rng = np.random.default_rng(seed)
    atoms = sum(sizes)
    values = rng.normal(size=(len(sizes), 2))
    return MoleculeSet.from_arrays(
        rng.choice([1, 6, 7, 8, 9], atoms),
        rng.normal(size=(atoms, 3)) * 3 + 10,
        np.cumsum([0, *sizes]),
        ids=np.arange(len(sizes)) + 100,
        charges=rng.integers(-1, 2, atoms),
        properties=PropertyTable(
            ("u0", "mu"),
            ("Eh", "D"),
            torch.from_numpy(values),
            {"u0": {z: -z / 7 for z in (1, 6, 7, 8, 9)}},
        ),
        splits={"train": np.array([0, 2, 3]), "test": np.array([1, 4])},
        smiles=[f"S{m}" for m in range(len(sizes))],
        name="Random",
    )


def test_each_molecule_is_centred_and_otherwise_unchanged() -> None:
    rng = np.random.default_rng(1)
    pos = rng.normal(size=(8, 3)) * 3 + 1000
    mols = MoleculeSet.from_arrays([6] * 8, pos, [0, 5, 8])
    for part in (slice(0, 5), slice(5, 8)):
        got = mols.pos[part].double().numpy()
        np.testing.assert_allclose(got.mean(0), 0, atol=1e-6)
        np.testing.assert_allclose(got - got[0], pos[part] - pos[part][0], atol=1e-6)


def test_one_molecule_is_its_slice_of_everything() -> None:
    mols = molecules()
    for m, start in ((2, 6), (-1, 14)):
        one = mols[m]
        assert len(one) == SIZES[m] and one.id == 100 + m % 5 and one.smiles == f"S{m % 5}"
        atoms = slice(start, start + SIZES[m])
        assert torch.equal(one.pos, mols.pos[atoms]) and torch.equal(one.z, mols.z[atoms])
        assert one.charges is not None and mols.charges is not None
        assert torch.equal(one.charges, mols.charges[atoms])
        assert one.properties["mu"] == mols.get("mu")[m]
    assert [len(one) for one in mols] == SIZES
    with pytest.raises(IndexError, match="0..4, got 5..5"):
        mols[5]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=8))
def test_padded_and_packed_batches_hold_the_same_atoms_as_the_molecules(rows: list[int]) -> None:
    mols = molecules()
    pos, atom, mask = mols.padded(rows)
    packed = mols.packed(rows)
    assert mask.sum(1).tolist() == [SIZES[m] for m in rows] == packed.molecule.bincount().tolist()
    assert mask.shape[1] == max(SIZES[m] for m in rows)  # no more padding than needed
    assert torch.equal(pos[mask], packed.pos) and torch.equal(atom[mask], packed.atom)
    assert not pos[~mask].any() and not atom[~mask].any()
    for b, m in enumerate(rows):
        assert torch.equal(packed.pos[packed.molecule == b], mols[m].pos)
        assert torch.equal(mols.vocabulary.decode(packed.atom[packed.molecule == b]), mols[m].z)


@given(st.lists(st.integers(-5, 4), min_size=1, max_size=8))
def test_a_subset_is_the_chosen_molecules_in_order_and_keeps_its_splits(rows: list[int]) -> None:
    mols = molecules()
    part = mols.subset(rows)
    train = set(mols.splits["train"].tolist())
    for place, m in enumerate(rows):
        mine, its = part[place], mols[m]
        assert torch.equal(mine.pos, its.pos) and mine.smiles == its.smiles
        assert (mine.id, mine.properties) == (its.id, its.properties)
        assert (place in part.splits["train"]) == (m % 5 in train)
    assert part.smiles == [mols.smiles[m] for m in rows]


def test_rows_can_be_a_slice_a_mask_an_array_or_a_tensor() -> None:
    mols = molecules()
    expected = mols.subset([1, 3]).ids.tolist()
    mask = np.array([False, True, False, True, False])
    for rows in (
        slice(1, 4, 2),
        mask,
        torch.from_numpy(mask),
        np.array([1, 3]),
        torch.tensor([1, 3]),
    ):
        assert mols.subset(rows).ids.tolist() == expected == [101, 103]


@pytest.mark.parametrize(
    "rows", [[], slice(0, 0), [0.5], [[0, 1]], np.zeros(5, dtype=bool), np.ones(4, dtype=bool)]
)
def test_rows_that_select_nothing_or_make_no_sense_are_refused(rows: list[int]) -> None:
    with pytest.raises(ValueError, match="idx"):
        molecules().padded(rows)


def test_a_split_holds_its_molecules_and_an_unknown_one_names_the_nearest() -> None:
    mols = molecules()
    assert mols.split("train").ids.tolist() == [100, 102, 103]
    assert mols.split("train").splits == {}
    with pytest.raises(ValueError, match="split 'tain' is not known. Did you mean 'train'"):
        mols.split("tain")


def test_chain_order_moves_whole_atoms() -> None:
    mols = molecules([9, 4, 7])
    ordered = mols.chain_ordered()
    assert mols.charges is not None and ordered.charges is not None
    for m in range(3):
        atoms = slice(int(mols.ptr[m]), int(mols.ptr[m + 1]))
        columns = [
            sorted(zip(s.z[atoms].tolist(), s.pos[atoms].tolist(), c[atoms].tolist(), strict=True))
            for s, c in ((mols, mols.charges), (ordered, ordered.charges))
        ]
        assert columns[0] == columns[1]


def test_subtracting_atoms_subtracts_each_atom_once() -> None:
    mols = molecules()
    of_atoms = [-sum(one.z.tolist()) / 7 for one in mols]
    difference = mols.get("u0") - mols.get("u0", subtract_atoms=True)
    np.testing.assert_allclose(difference.numpy(), of_atoms, rtol=1e-12)
    in_ev = mols.get("u0", unit="eV", subtract_atoms=True)
    np.testing.assert_allclose(
        in_ev.numpy(), mols.get("u0", subtract_atoms=True).numpy() * 27.211386245988
    )


def test_atoms_whose_values_are_not_known_are_not_taken_for_zero() -> None:
    table = PropertyTable(("u0", "mu"), ("Eh", "D"), torch.ones(1, 2).double(), {"u0": {1: -0.5}})
    mols = MoleculeSet.from_arrays([6, 1], np.zeros((2, 3)), [0, 2], properties=table)
    with pytest.raises(ValueError, match="'u0' for an atom of C is not known"):
        mols.get("u0", subtract_atoms=True)
    with pytest.raises(ValueError, match="no atoms' values to subtract from 'mu'; having them: u0"):
        mols.get("mu", subtract_atoms=True)


def test_a_misspelt_property_names_the_nearest_and_all() -> None:
    with pytest.raises(
        ValueError, match="property 'mus' is not known. Did you mean 'mu'. Known: u0"
    ):
        molecules().get("mus")


def test_an_unknown_element_names_the_element_and_the_molecule() -> None:
    with pytest.raises(UnknownElementError) as error:
        MoleculeSet.from_arrays([6, 8, 16], np.eye(3), [0, 1, 3], ids=[7, 9], smiles=["C", "O=S"])
    for words in ("molecule 1 (id 9, O=S)", "element S (atomic number 16)", "H C N O F"):
        assert words in str(error.value)


def test_an_empty_molecule_is_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"molecule 1 \(id 1\) has no atoms"):
        MoleculeSet.from_arrays([6, 8], np.eye(3)[:2], [0, 1, 1, 2])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_position_that_is_no_number_is_refused_by_name(bad: float) -> None:
    pos = np.zeros((4, 3))
    pos[2, 1] = bad
    with pytest.raises(DataError, match=r"molecule 1 \(id 1\) has a position that is not a finite"):
        MoleculeSet.from_arrays([6] * 4, pos, [0, 2, 4])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ptr": [0, 2, 3]}, "ptr must rise from 0 to 4"),
        ({"ptr": [1, 4]}, "ptr must rise"),
        ({"ptr": [0]}, "ptr must rise"),
        ({"ptr": [0, 3, 2, 4]}, "has no atoms"),
        ({"pos": np.zeros((5, 3))}, r"pos must be \(4, 3\)"),
        ({"charges": [0]}, r"charges must be \(4,\)"),
        ({"ids": [1]}, "ids has 1 rows for 2"),
        ({"smiles": ["C"]}, "smiles has 1 rows for 2"),
        ({"properties": PropertyTable.empty(3)}, "properties has 3 rows for 2"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    arrays = {"z": [6] * 4, "pos": np.zeros((4, 3)), "ptr": [0, 2, 4]} | change
    with pytest.raises(ValueError, match=message):
        MoleculeSet.from_arrays(**arrays)  # type: ignore[arg-type]


def test_a_vocabulary_is_a_bijection_and_covers_what_occurs() -> None:
    vocabulary = AtomVocabulary.of("O", "Cl", "H")
    types = torch.tensor([2, 0, 1, 1], dtype=torch.uint8)
    assert vocabulary.decode(types).tolist() == [1, 8, 17, 17]
    assert torch.equal(vocabulary.encode(vocabulary.decode(types)), types)
    assert AtomVocabulary.covering(torch.tensor([17, 1, 17])).symbols == ("H", "Cl")
    assert QM9_ATOMS.elements == (1, 6, 7, 8, 9) and len(QM9_ATOMS) == 5
    with pytest.raises(ValueError, match="element 'Hd' is not known"):
        AtomVocabulary.of("Hd")
    for wrong in ((), (6, 6), (0,), (119,)):
        with pytest.raises(ValueError, match="elements must"):
            AtomVocabulary(wrong)


def test_a_set_says_what_it_is() -> None:
    text = repr(molecules())
    for words in ("Random: 5 molecules, 16 atoms", "1 to 5 per", "u0 mu", "train 3", "H C N O F"):
        assert words in text
    with pytest.raises(ValueError, match="has no SMILES"):
        _ = MoleculeSet.from_arrays([6], np.zeros((1, 3)), [0, 1]).smiles


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_on_the_gpu_are_those_of_the_cpu() -> None:
    mols = molecules()
    there = mols.to("cuda").subset([3, 0, 2])
    for mine, its in ((there.padded, mols.padded), (there.packed, mols.packed)):
        for a, b in zip(mine([0, 1, 2]), its([3, 0, 2]), strict=True):
            assert a.device.type == "cuda" and torch.equal(a.cpu(), b)
    order = mols.to("cuda").chain_ordered()
    assert torch.equal(order.pos.cpu(), mols.chain_ordered().pos)
