"""Chemistry from bare geometry: bonds, valences, fragments and RDKit molecules.

A sampled molecule is positions and elements; its graph is a decision made afterwards. A `BondRule`
makes that decision for a whole batch, and everything below (stability, validity, SMILES) is a
function of the graph that the rule drew, so figures made with two rules cannot be compared.

Molecules are packed: molecule ``m`` owns the atoms ``ptr[m]:ptr[m + 1]``. Lengths are in angstrom.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, final

import numpy as np
from numpy.typing import NDArray

from sciffusion.errors import require

if TYPE_CHECKING:
    from rdkit.Chem import Mol

Ints = NDArray[np.integer]
Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]

# Typical bond lengths in pm of the five elements of QM9, and how much longer a bond may be.
_LENGTHS = (
    {"HH": 74, "HC": 109, "HN": 101, "HO": 96, "HF": 92, "CC": 154, "CN": 147, "CO": 143, "CF": 135}
    | {"NN": 145, "NO": 140, "NF": 136, "OO": 148, "OF": 142, "FF": 142},
    {"CC": 134, "CN": 129, "CO": 120, "NN": 125, "NO": 121, "OO": 121},
    {"CC": 120, "CN": 116, "CO": 113, "NN": 110},
)
_MARGINS = (10, 5, 3)
_NUMBER = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9}

# (atomic number, formal charge) -> sums of bond orders that a closed-shell atom may have.
ALLOWED_VALENCES: dict[tuple[int, int], tuple[int, ...]] = {
    **{(1, 0): (1,), (1, 1): (0,), (1, -1): (0,)},
    **{(5, 0): (3,), (5, -1): (4,)},
    **{(6, 0): (4,), (6, 1): (3,), (6, -1): (3,)},
    **{(7, 0): (3,), (7, 1): (4,), (7, -1): (2,)},
    **{(8, 0): (2,), (8, 1): (3,), (8, -1): (1,)},
    **{(14, 0): (4,)},
    **{(15, 0): (3, 5), (15, 1): (4,)},
    **{(16, 0): (2, 4, 6), (16, 1): (3, 5), (16, -1): (1,)},
    **{(z, 0): (1,) for z in (9, 17, 35, 53)},
    **{(z, -1): (0,) for z in (9, 17, 35, 53)},
}


@dataclass(frozen=True)
class Bonds:
    """The bonds of a batch of molecules.

    ``pairs`` (B, 2) holds indices into the packed atoms, i < j, sorted by i; ``orders`` (B,) is 1,
    2 or 3; ``charges`` (A,) are formal charges; ``failed`` (M,) marks the molecules for which the
    rule found no graph at all (they have no bonds here).
    """

    pairs: Ints
    orders: Ints
    charges: Ints
    failed: Bools

    def pointer(self, ptr: Ints) -> Ints:
        """(M + 1,): molecule m owns the bonds ``pointer[m]:pointer[m + 1]``."""
        return np.searchsorted(self.pairs[:, 0], ptr)

    def valences(self) -> Ints:
        """(A,) the sum of bond orders at every atom."""
        total = np.zeros(len(self.charges), int)
        np.add.at(total, self.pairs, self.orders[:, None])
        return total

    def stable_atoms(self, z: Ints) -> Bools:
        """(A,) whether the summed orders are a valence that the element allows at its charge.

        An element or charge that `ALLOWED_VALENCES` does not list is unstable: an unknown case
        must not pass as a good one.
        """
        table = _valence_table()
        charge, valence = self.charges + table.shape[1] // 2, self.valences()
        known = (z < table.shape[0]) & (charge >= 0) & (charge < table.shape[1])
        known &= valence < table.shape[2]
        index = tuple(np.where(known, a, 0) for a in (z, charge, valence))
        return table[index]  # what is unknown looks up element 0, which has no valence

    def fragments(self, ptr: Ints) -> Ints:
        """(M,) how many connected pieces each molecule falls into; 1 is a connected molecule."""
        sparse = require("scipy.sparse", extra="molecules")
        graph = require("scipy.sparse.csgraph", extra="molecules")
        n = len(self.charges)
        i, j = self.pairs.T
        matrix = sparse.coo_array((np.ones(len(i), np.int8), (i, j)), shape=(n, n))
        count, label = graph.connected_components(matrix, directed=False)
        molecule = np.empty(count, int)
        molecule[label] = molecule_of_atom(ptr)  # a piece lies within one molecule
        return np.bincount(molecule, minlength=len(ptr) - 1)


class BondRule(ABC):
    """Draws the bonds of packed molecules from their geometry."""

    @abstractmethod
    def __call__(self, positions: Floats, z: Ints, ptr: Ints, charges: Ints | None = None) -> Bonds:
        """The bonds of positions (A, 3), elements (A,), ptr (M + 1,) and formal charges (A,)."""


@final
@dataclass(frozen=True)
class DistanceTable(BondRule):
    """EDM's rule: the distance of a pair alone decides its bond order.

    With d in pm and typical lengths s, e, t of a single, double and triple bond of the two
    elements: no bond unless d < s + 10; then double if d < e + 5; then triple if d < t + 3 as
    well. There are no aromatic bonds and no charges, and every pair is judged on its own. This is
    the rule behind the published QM9 figures (Hoogeboom et al., ICML 2022, arXiv:2203.17003).

    Raises:
        ValueError: an element other than H, C, N, O and F.
    """

    def __call__(self, positions: Floats, z: Ints, ptr: Ints, charges: Ints | None = None) -> Bonds:
        """The bonds of a batch; given formal charges are passed on and change no bond."""
        foreign = sorted(set(np.unique(z).tolist()) - set(_NUMBER.values()))
        if foreign:
            raise ValueError(
                f"DistanceTable knows H, C, N, O and F, but z holds the atomic numbers {foreign}; "
                "use RDKitBonds() for other elements"
            )
        longest = _length_table()
        pairs, orders = [np.empty((0, 2), int)], [np.empty(0, np.int8)]
        for atoms, local in _chunks(ptr):
            i, j = pairs_within(local)
            here, element = positions[atoms].astype(np.float64), z[atoms]
            with np.errstate(invalid="ignore", over="ignore"):  # a diverged sample has no bonds
                distance = 100.0 * np.linalg.norm(here[i] - here[j], axis=-1)
                near = distance < longest[0, element[i], element[j]]
            i, j, distance = i[near], j[near], distance[near]
            double = distance < longest[1, element[i], element[j]]
            triple = double & (distance < longest[2, element[i], element[j]])
            pairs.append(np.stack([i, j], axis=1) + atoms.start)
            orders.append(1 + double.astype(np.int8) + triple)
        return Bonds(
            np.concatenate(pairs),
            np.concatenate(orders),
            np.zeros(len(z), int) if charges is None else np.asarray(charges),
            ~_finite(positions, ptr),
        )


@final
@dataclass(frozen=True)
class RDKitBonds(BondRule):
    """RDKit's DetermineBonds (xyz2mol): bonds and formal charges for a given total charge.

    The total charge of a molecule is the sum of its given formal charges, or 0. Covers any element
    that RDKit knows. Its verdicts depend on the RDKit version, which a report therefore names.
    A molecule whose search takes more than ``max_iterations`` counts as failed.
    """

    max_iterations: int = 10_000

    def __call__(self, positions: Floats, z: Ints, ptr: Ints, charges: Ints | None = None) -> Bonds:
        """The bonds of a batch; molecules without a consistent graph are marked as failed."""
        base = require("rdkit.rdBase", extra="molecules")
        pairs, orders = [np.empty((0, 2), int)], [np.empty(0, np.int8)]
        found = np.zeros(len(z), int)
        failed = ~_finite(positions, ptr)
        with base.BlockLogs():
            for m in np.flatnonzero(~failed):
                atoms = slice(int(ptr[m]), int(ptr[m + 1]))
                total = 0 if charges is None else int(charges[atoms].sum())
                mol = self._determine(to_rdkit(positions[atoms], z[atoms]), total)
                if mol is None:
                    failed[m] = True
                    continue
                rows = sorted(
                    (*sorted((b.GetBeginAtomIdx(), b.GetEndAtomIdx())), b.GetBondTypeAsDouble())
                    for b in mol.GetBonds()
                )
                table = np.array(rows, dtype=float).reshape(-1, 3).astype(int)
                pairs.append(table[:, :2] + atoms.start)
                orders.append(table[:, 2].astype(np.int8))
                found[atoms] = [atom.GetFormalCharge() for atom in mol.GetAtoms()]
        return Bonds(np.concatenate(pairs), np.concatenate(orders), found, failed)

    def _determine(self, mol: Mol, charge: int) -> Mol | None:
        determine = require("rdkit.Chem.rdDetermineBonds", extra="molecules")
        chem = require("rdkit.Chem", extra="molecules")
        try:
            determine.DetermineBonds(
                mol, charge=charge, embedChiral=False, maxIterations=self.max_iterations
            )
            chem.Kekulize(mol, clearAromaticFlags=True)
        except (ValueError, RuntimeError):  # RDKit's ways to say that no graph fits
            return None
        return mol


def pairs_within(ptr: Ints) -> tuple[Ints, Ints]:
    """All pairs i < j of items that share a group, where group g owns ``ptr[g]:ptr[g + 1]``.

    >>> [a.tolist() for a in pairs_within(np.array([0, 3, 5]))]
    [[0, 0, 1, 3], [1, 2, 2, 4]]
    """
    ends = np.repeat(ptr[1:], np.diff(ptr))
    partners = ends - np.arange(ptr[0], ptr[-1]) - 1
    i = np.repeat(np.arange(ptr[0], ptr[-1]), partners)
    first = np.cumsum(partners) - partners
    return i, i + 1 + np.arange(len(i)) - np.repeat(first, partners)


def molecule_of_atom(ptr: Ints) -> Ints:
    """(A,) the molecule that owns each atom."""
    return np.repeat(np.arange(len(ptr) - 1), np.diff(ptr))


def to_rdkit(
    positions: Floats,
    z: Ints,
    pairs: Ints | None = None,
    orders: Ints | None = None,
    charges: Ints | None = None,
) -> Mol:
    """One unsanitised RDKit molecule with a 3D conformer; ``pairs`` are indices into its atoms."""
    chem = require("rdkit.Chem", extra="molecules")
    kind = chem.BondType.values  # 1, 2, 3 -> SINGLE, DOUBLE, TRIPLE
    mol = chem.RWMol()
    for number in z.tolist():
        mol.AddAtom(chem.Atom(number))
    if pairs is not None and orders is not None:
        for (i, j), order in zip(pairs.tolist(), orders.tolist(), strict=True):
            mol.AddBond(i, j, kind[order])
    if charges is not None:
        for i in np.flatnonzero(charges).tolist():
            mol.GetAtomWithIdx(i).SetFormalCharge(int(charges[i]))
    conformer = chem.Conformer(len(z))
    conformer.SetPositions(np.ascontiguousarray(positions, dtype=np.float64))
    mol.AddConformer(conformer, assignId=True)
    return mol.GetMol()


@dataclass(frozen=True)
class Chemistry:
    """What the field asks of each molecule of a batch, given its bonds.

    ``n_stable`` (M,) counts atoms with an allowed valence. ``fragments`` (M,) counts connected
    pieces. ``valid`` (M,) is whether RDKit's SanitizeMol accepts the graph; as in EDM, RDKit may
    complete missing valences by implicit hydrogen, so a molecule that lost an H is still valid.
    ``key`` holds the SMILES, with every H written out, of the largest fragment: what uniqueness
    and novelty compare; None for an invalid molecule. ``problem`` says why a molecule is invalid.
    """

    n_atoms: Ints
    n_stable: Ints
    fragments: Ints
    valid: Bools
    key: tuple[str | None, ...]
    problem: tuple[str | None, ...]

    @property
    def stable(self) -> Bools:
        """(M,) whether every atom of the molecule is stable."""
        return self.n_stable == self.n_atoms

    @property
    def connected(self) -> Bools:
        """(M,) whether the molecule is one piece."""
        return self.fragments == 1

    def take(self, index: Ints) -> Chemistry:
        """The same findings for a selection of the molecules."""
        return Chemistry(
            self.n_atoms[index],
            self.n_stable[index],
            self.fragments[index],
            self.valid[index],
            tuple(self.key[m] for m in index),
            tuple(self.problem[m] for m in index),
        )


def analyse(positions: Floats, z: Ints, ptr: Ints, bonds: Bonds) -> Chemistry:
    """Judge every molecule of a batch; one that RDKit refuses is an outcome, not an error."""
    n_stable = np.bincount(
        molecule_of_atom(ptr), weights=bonds.stable_atoms(z), minlength=len(ptr) - 1
    ).astype(int)
    fragments = bonds.fragments(ptr)
    problem: list[str | None] = []
    key: list[str | None] = []
    for m, mol in enumerate(rdkit_molecules(positions, z, ptr, bonds)):
        why = "no bonds could be determined" if bonds.failed[m] else sanitize(mol)
        problem.append(why)
        key.append(None if why else _largest_fragment_smiles(mol, int(fragments[m])))
    valid = np.array([why is None for why in problem], dtype=bool)
    return Chemistry(np.diff(ptr), n_stable, fragments, valid, tuple(key), tuple(problem))


def rdkit_molecules(positions: Floats, z: Ints, ptr: Ints, bonds: Bonds) -> Iterator[Mol]:
    """The molecules of a batch, unsanitised, one after the other."""
    owned = bonds.pointer(ptr)
    for m in range(len(ptr) - 1):
        atoms, edges = slice(int(ptr[m]), int(ptr[m + 1])), slice(int(owned[m]), int(owned[m + 1]))
        local = bonds.pairs[edges] - ptr[m]
        yield to_rdkit(positions[atoms], z[atoms], local, bonds.orders[edges], bonds.charges[atoms])


def sanitize(mol: Mol) -> str | None:
    """Run SanitizeMol on ``mol`` in place; None if it succeeds, else what RDKit objects to."""
    chem = require("rdkit.Chem", extra="molecules")
    base = require("rdkit.rdBase", extra="molecules")
    with base.BlockLogs():
        if chem.SanitizeMol(mol, catchErrors=True) == chem.SanitizeFlags.SANITIZE_NONE:
            return None
        problems = chem.DetectChemistryProblems(mol)
    return problems[0].Message() if problems else "RDKit could not sanitise the molecule"


def _largest_fragment_smiles(mol: Mol, fragments: int) -> str:
    chem = require("rdkit.Chem", extra="molecules")
    if fragments == 1:
        return str(chem.MolToSmiles(mol))
    pieces = chem.GetMolFrags(mol, asMols=True)
    most = max(piece.GetNumAtoms() for piece in pieces)
    # Of equally large pieces the first by name: the order of the atoms must not decide.
    return min(str(chem.MolToSmiles(p)) for p in pieces if p.GetNumAtoms() == most)


def _finite(positions: Floats, ptr: Ints) -> Bools:
    """(M,) whether all coordinates of a molecule are numbers."""
    broken = molecule_of_atom(ptr)[~np.isfinite(positions).all(axis=-1)]
    return np.bincount(broken, minlength=len(ptr) - 1) == 0


def _chunks(ptr: Ints, most: int = 2_000_000) -> Iterator[tuple[slice, Ints]]:
    """Runs of whole molecules with at most ``most`` pairs (or one molecule): atoms, local ptr."""
    size = np.diff(ptr)
    pairs = np.cumsum(size * (size - 1) // 2)
    start = 0
    while start < len(size):
        done = pairs[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(pairs, done + most, side="right")))
        yield slice(int(ptr[start]), int(ptr[stop])), ptr[start : stop + 1] - ptr[start]
        start = stop


@cache
def _length_table() -> Floats:
    """(3, 10, 10): the distance in pm below which two elements are bonded 1, 2 or 3 times."""
    table = np.full((3, 10, 10), -np.inf)
    for order, (lengths, margin) in enumerate(zip(_LENGTHS, _MARGINS, strict=True)):
        for pair, length in lengths.items():
            a, b = (_NUMBER[symbol] for symbol in pair)
            table[order, a, b] = table[order, b, a] = length + margin
    return table


@cache
def _valence_table() -> Bools:
    """(element, charge + 4, valence) -> allowed."""
    table = np.zeros((54, 9, 9), bool)
    for (number, charge), valences in ALLOWED_VALENCES.items():
        table[number, charge + 4, list(valences)] = True
    return table
