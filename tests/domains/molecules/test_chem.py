"""The laws of bonds, valences, fragments and RDKit molecules drawn from geometry."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rdkit import Chem

from sciffusion.domains.molecules.chem import (
    Bonds,
    Chemistry,
    DistanceTable,
    RDKitBonds,
    analyse,
    pairs_within,
    rdkit_molecules,
    sanitize,
)
from sciffusion.domains.molecules.chem import _chunks as chunks
from sciffusion.domains.molecules.container import Molecule, Molecules

# The published table (pm) and rule, written out once more so that the code has a second witness.
PUBLISHED = {
    1: "HH 74, HC 109, HN 101, HO 96, HF 92, CC 154, CN 147, CO 143, CF 135, NN 145, NO 140, "
    "NF 136, OO 148, OF 142, FF 142",
    2: "CC 134, CN 129, CO 120, NN 125, NO 121, OO 121",
    3: "CC 120, CN 116, CO 113, NN 110",
}
LENGTH = {
    (order, frozenset(pair)): int(pm)
    for order, row in PUBLISHED.items()
    for pair, pm in (entry.split() for entry in row.split(", "))
}
SYMBOL = {1: "H", 6: "C", 7: "N", 8: "O", 9: "F"}


def published_order(a: int, b: int, angstrom: float) -> int:
    pm = 100 * angstrom
    pair = frozenset(SYMBOL[a] + SYMBOL[b])
    if pm < LENGTH[1, pair] + 10:
        if (2, pair) in LENGTH and pm < LENGTH[2, pair] + 5:
            if (3, pair) in LENGTH and pm < LENGTH[3, pair] + 3:
                return 3
            return 2
        return 1
    return 0


def judge(
    positions: NDArray[np.floating], z: NDArray[np.integer], ptr: NDArray[np.integer]
) -> Chemistry:
    return analyse(positions, z, ptr, DistanceTable()(positions, z, ptr))


def arrays(mol: Molecule) -> tuple[NDArray[np.floating], NDArray[np.integer]]:
    return mol.positions.copy(), mol.z


def with_hydrogens(smiles: str) -> Chem.Mol:
    return Chem.AddHs(Chem.MolFromSmiles(smiles))


def one(z: NDArray[np.integer]) -> NDArray[np.integer]:
    return np.array([0, len(z)])


@pytest.fixture
def junk() -> tuple[NDArray[np.floating], NDArray[np.integer], NDArray[np.integer]]:
    """Crowded random atoms: every order of every pair occurs, few molecules are sane."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 15, size=300)
    ptr = np.concatenate([[0], np.cumsum(sizes)])
    positions = rng.normal(size=(ptr[-1], 3)) * (0.5 * sizes.repeat(sizes)[:, None]) ** (1 / 3)
    return positions, rng.choice([1, 6, 7, 8, 9], size=ptr[-1]), ptr


def test_pairs_within_lists_every_pair_of_a_group_once() -> None:
    ptr = np.array([0, 4, 5, 8])
    expected = [
        (i, j) for a, b in ((0, 4), (4, 5), (5, 8)) for i in range(a, b) for j in range(i + 1, b)
    ]
    assert list(zip(*map(np.ndarray.tolist, pairs_within(ptr)), strict=True)) == expected


def test_bond_orders_follow_the_published_table(
    junk: tuple[NDArray[np.floating], NDArray[np.integer], NDArray[np.integer]],
) -> None:
    positions, z, ptr = junk
    bonds = DistanceTable()(positions, z, ptr)
    found = dict(zip(map(tuple, bonds.pairs.tolist()), bonds.orders.tolist(), strict=True))
    seen = set()
    for a, b in zip(*map(np.ndarray.tolist, pairs_within(ptr)), strict=True):
        order = published_order(z[a], z[b], float(np.linalg.norm(positions[a] - positions[b])))
        assert found.get((a, b), 0) == order
        seen.add((order, frozenset(SYMBOL[z[a]] + SYMBOL[z[b]])))
    assert seen >= set(LENGTH)  # every entry of the table was put to the test


@pytest.mark.parametrize("shift", [-1e-6, 1e-6])
def test_the_order_changes_exactly_at_the_published_distance(shift: float) -> None:
    number = {symbol: z for z, symbol in SYMBOL.items()}
    margin = {1: 10, 2: 5, 3: 3}
    for (order, pair), pm in LENGTH.items():
        a, b = (number[s] for s in (*pair, *pair)[:2])
        d = (pm + margin[order]) / 100 + shift
        bonds = DistanceTable()(
            np.array([[0, 0, 0], [d, 0, 0]]), np.array([a, b]), np.array([0, 2])
        )
        drawn = int(bonds.orders[0]) if len(bonds.orders) else 0
        assert drawn == published_order(a, b, d)
        assert (drawn >= order) == (shift < 0)


def test_molecules_of_a_batch_do_not_touch_each_other(
    junk: tuple[NDArray[np.floating], NDArray[np.integer], NDArray[np.integer]],
) -> None:
    positions, z, ptr = junk
    whole = judge(positions, z, ptr)
    for m in range(0, len(ptr) - 1, 7):
        atoms = slice(ptr[m], ptr[m + 1])
        alone = judge(positions[atoms], z[atoms], one(z[atoms]))
        here = whole.take(np.array([m]))
        assert alone.key == here.key and alone.problem == here.problem
        assert alone.n_stable == here.n_stable and alone.fragments == here.fragments


def test_chunks_cover_every_molecule_once_whatever_their_size() -> None:
    ptr = np.concatenate([[0], np.cumsum([1, 30, 2, 2, 50, 1, 3])])
    for most in (1, 3, 500, 10_000):
        spans = [(atoms.start, atoms.stop) for atoms, _ in chunks(ptr, most)]
        assert [a for a, _ in spans] == [0, *(b for _, b in spans[:-1])] and spans[-1][1] == ptr[-1]
        assert {b for _, b in spans} <= set(ptr.tolist())


def test_a_molecule_behind_a_huge_one_keeps_its_bonds(embedded: Callable[[str], Molecule]) -> None:
    positions, z = arrays(embedded("CCO"))
    grid = np.stack(np.meshgrid(*[np.arange(13.0)] * 3), axis=-1).reshape(-1, 3) * 5.0
    both, elements = np.concatenate([grid, positions]), np.concatenate([np.full(len(grid), 6), z])
    bonds = DistanceTable()(both, elements, np.array([0, len(grid), len(both)]))
    drawn = {tuple(pair) for pair in (bonds.pairs - len(grid)).tolist()}
    given = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in with_hydrogens("CCO").GetBonds()]
    assert drawn == {(min(pair), max(pair)) for pair in given}


def test_motions_reflections_and_permutations_change_no_verdict(
    junk: tuple[NDArray[np.floating], NDArray[np.integer], NDArray[np.integer]],
) -> None:
    positions, z, ptr = junk
    rng = np.random.default_rng(1)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    before = judge(positions, z, ptr)
    for orthogonal in (turn, -turn):  # one of the two is a reflection
        moved = positions @ orthogonal + [3.0, -2.0, 11.0]
        order = np.concatenate(
            [a + rng.permutation(b - a) for a, b in zip(ptr, ptr[1:], strict=False)]
        )
        after = judge(moved[order], z[order], ptr)
        assert after.key == before.key
        np.testing.assert_array_equal(after.valid, before.valid)
        np.testing.assert_array_equal(after.n_stable, before.n_stable)
        np.testing.assert_array_equal(after.fragments, before.fragments)


@pytest.mark.parametrize("smiles", ["C", "CCO", "C#N", "O=CC1CC1", "C#CC=C", "CC(N)=O", "FC(F)F"])
def test_good_geometry_gives_the_graph_back(
    smiles: str, embedded: Callable[[str], Molecule]
) -> None:
    positions, z = arrays(embedded(smiles))
    found = judge(positions, z, one(z))
    assert found.stable[0] and found.connected[0] and found.valid[0]
    assert found.key[0] == Chem.MolToSmiles(with_hydrogens(smiles))


def test_a_molecule_that_lost_a_hydrogen_is_unstable_and_disconnected_yet_valid(
    embedded: Callable[[str], Molecule],
) -> None:
    positions, z = arrays(embedded("CCO"))
    positions[-1] += 5.0
    found = judge(positions, z, one(z))
    assert (found.fragments[0], found.connected[0], found.stable[0]) == (2, False, False)
    assert found.n_stable[0] == len(z) - 2  # the hydrogen and the atom that it left
    assert found.valid[0]  # EDM's definition: RDKit completes both by implicit hydrogen
    assert found.key[0] is not None and "." not in found.key[0]  # the largest fragment speaks


def test_one_unstable_atom_makes_the_molecule_unstable(embedded: Callable[[str], Molecule]) -> None:
    positions, z = arrays(embedded("CCO"))
    found = judge(positions[:-1], z[:-1], one(z[:-1]))  # the hydrogen is gone altogether
    assert (found.n_stable[0], found.stable[0], found.connected[0]) == (len(z) - 2, False, True)


def test_an_atom_too_many_is_a_reported_problem_and_no_exception(
    embedded: Callable[[str], Molecule],
) -> None:
    positions, z = arrays(embedded("C"))
    away = np.append(positions, [-positions[1] * 1.05], axis=0)  # a fifth H on the carbon
    found = judge(away, np.append(z, 1), np.array([0, 6]))
    assert not found.valid[0] and found.key[0] is None
    assert found.problem[0] is not None and "valence" in found.problem[0]


def test_a_diverged_sample_fails_and_leaves_its_neighbours_alone(
    embedded: Callable[[str], Molecule],
) -> None:
    positions, z = arrays(embedded("CO"))
    both = np.concatenate([positions, positions])
    both[0, 1] = np.nan
    found = judge(both, np.tile(z, 2), np.array([0, len(z), 2 * len(z)]))
    assert found.valid.tolist() == [False, True] and found.stable.tolist() == [False, True]
    assert found.connected.tolist() == [False, True]


def test_an_element_outside_the_distance_table_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"\[16\].*RDKitBonds"):
        DistanceTable()(np.zeros((1, 3)), np.array([16]), np.array([0, 1]))


@pytest.mark.parametrize("smiles", ["C[N+](=O)[O-]", "[NH3+]CC(=O)[O-]", "CSCCCl", "Cc1ccncc1"])
def test_rdkit_bonds_find_charges_and_further_elements(
    smiles: str, embedded: Callable[[str], Molecule]
) -> None:
    positions, z = arrays(embedded(smiles))
    bonds = RDKitBonds()(positions, z, one(z))
    assert not bonds.failed[0]
    assert set(bonds.orders.tolist()) <= {1, 2, 3}
    assert bonds.charges.sum() == 0
    found = analyse(positions, z, one(z), bonds)
    assert found.stable[0] and found.key[0] == Chem.MolToSmiles(with_hydrogens(smiles))


def test_rdkit_bonds_use_the_given_total_charge(embedded: Callable[[str], Molecule]) -> None:
    positions, z = arrays(embedded("C[NH3+]"))
    charges = np.array([0, 1, *([0] * 6)])
    assert analyse(positions, z, one(z), RDKitBonds()(positions, z, one(z), charges)).stable[0]
    neutral = analyse(positions, z, one(z), RDKitBonds()(positions, z, one(z)))
    assert not neutral.stable[0]


def test_rdkit_bonds_report_geometry_without_a_graph_as_failed() -> None:
    z = np.array([6, 1, 1, 1, 1, 1])  # CH5 packed so that RDKit finds no neutral graph
    positions = np.vstack([np.zeros(3), np.random.default_rng(0).normal(size=(5, 3))])
    bonds = RDKitBonds()(positions, z, np.array([0, 6]))
    found = analyse(positions, z, np.array([0, 6]), bonds)
    assert not found.valid[0] and found.problem[0] is not None


def test_stability_goes_by_element_and_charge_and_an_unknown_case_is_unstable() -> None:
    pairs = np.array([[0, 1], [0, 2], [0, 3], [0, 4]])
    z, orders, none = np.array([7, 1, 1, 1, 1]), np.ones(4, int), np.zeros(1, bool)

    def stable(charge: int, element: int = 7) -> bool:
        charges = np.array([charge, 0, 0, 0, 0])
        atoms = Bonds(pairs, orders, charges, none).stable_atoms(np.array([element, *z[1:]]))
        return bool(atoms[0])

    assert stable(+1)
    assert not stable(0)
    assert stable(0, element=6)
    assert not stable(+3) and not stable(+7) and not stable(0, element=92)


def test_sanitize_says_nothing_of_a_good_molecule(embedded: Callable[[str], Molecule]) -> None:
    positions, z = arrays(embedded("C1CC1O"))
    mol = next(rdkit_molecules(positions, z, one(z), DistanceTable()(positions, z, one(z))))
    assert sanitize(mol) is None
    assert mol.GetConformer().Is3D() and mol.GetNumAtoms() == len(z)
    np.testing.assert_allclose(mol.GetConformer().GetPositions(), positions)


def test_graphs_of_real_molecules_agree_with_the_data_sets_smiles(
    qm9_test: Molecules, shared_data: Callable[[str], Path]
) -> None:
    data = np.load(shared_data("molecules/qm9/qm9.npz"))
    given = data["smiles"][data["split"] == 2]
    chosen = np.random.default_rng(0).choice(len(qm9_test), 1500, replace=False)
    drawn = qm9_test[chosen].chemistry.key
    true = [Chem.MolToSmiles(with_hydrogens(given[m].decode())) for m in chosen]
    assert np.mean([a == b for a, b in zip(drawn, true, strict=True)]) > 0.94
