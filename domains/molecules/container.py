"""`Molecules`: what sampling returns, a frozen list of 3D molecules, and `Molecule`, one of them.

>>> water = Molecule([[0.0, 0.0, 0.12], [0.0, 0.76, -0.48], [0.0, -0.76, -0.48]], [8, 1, 1])
>>> water.smiles, water.stable, water.formula
('O', True, 'H2O')
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, final, overload

import numpy as np
from numpy.typing import ArrayLike

from sciffusion.errors import require

from .chem import (
    BondRule,
    Bonds,
    Bools,
    Chemistry,
    DistanceTable,
    Floats,
    Ints,
    analyse,
    rdkit_molecules,
    sanitize,
)

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.figure import Figure
    from rdkit.Chem import Mol
    from torch_geometric.data import Data

    from sciffusion.report import Report


@final
@dataclass(frozen=True, eq=False, repr=False)
class Molecules:
    """A frozen list of molecules, stored packed: molecule m owns atoms ``ptr[m]:ptr[m + 1]``.

    ``mols[3]`` is a `Molecule`; a slice, a boolean array or a list of indices gives `Molecules`
    again, so ``mols[mols.stable]`` keeps the stable ones.

    Args:
        positions: (A, 3) in angstrom, all atoms of all molecules. NaN is allowed: a diverged
            sample is counted as a failure by every metric rather than refused.
        z: (A,) atomic numbers.
        ptr: (M + 1,) from 0 to A, each molecule with at least one atom.
        charges: (A,) formal charges; None means neutral atoms.
        rule: how bonds are drawn. `DistanceTable` is the field's rule for QM9; `RDKitBonds`
            covers all elements and charges.

    Raises:
        ValueError: arrays that do not fit together.
    """

    positions: Floats
    z: Ints
    ptr: Ints
    charges: Ints | None = None
    rule: BondRule = field(default_factory=DistanceTable)

    def __post_init__(self) -> None:
        fixed = {"positions": _frozen(self.positions, float), "z": _frozen(self.z, int)}
        fixed["ptr"] = _frozen(self.ptr, int)
        if self.charges is not None:
            fixed["charges"] = _frozen(self.charges, int)
        for name, array in fixed.items():
            object.__setattr__(self, name, array)
        atoms = len(fixed["z"])
        if self.positions.shape != (atoms, 3):
            raise ValueError(
                f"positions must be ({atoms}, 3) for the {atoms} entries of z, "
                f"got {self.positions.shape}"
            )
        if self.charges is not None and self.charges.shape != (atoms,):
            raise ValueError(f"charges must be ({atoms},) like z, got {self.charges.shape}")
        if atoms and not (self.z > 0).all():
            raise ValueError("z must hold atomic numbers from 1 upwards; drop padding atoms first")
        start_and_end = self.ptr.ndim == 1 and len(self.ptr) and self.ptr[[0, -1]].tolist()
        if start_and_end != [0, atoms] or not (np.diff(self.ptr) > 0).all():
            raise ValueError(
                f"ptr must rise from 0 to {atoms}, the number of atoms, by at least one atom "
                f"a molecule; got {self.ptr}"
            )

    @classmethod
    def from_padded(
        cls,
        positions: ArrayLike,
        z: ArrayLike,
        mask: ArrayLike,
        *,
        rule: BondRule | None = None,
    ) -> Molecules:
        """From a padded batch: positions (M, N, 3), z (M, N) and the mask (M, N) of real atoms."""
        real = np.asarray(mask).astype(bool)
        return cls(
            np.asarray(positions)[real],
            np.asarray(z)[real],
            np.concatenate([[0], np.cumsum(real.sum(axis=1))]),
            rule=rule or DistanceTable(),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Molecules | Molecule]) -> Molecules:
        """One container of all parts, in order; they must share one bond rule."""
        batches = [part.batch if isinstance(part, Molecule) else part for part in parts]
        if not batches:
            raise ValueError("concatenate needs at least one part")
        if any(batch.rule != batches[0].rule for batch in batches):
            raise ValueError("the parts draw bonds by different rules; give them one rule first")
        charges = [b.charges if b.charges is not None else np.zeros(len(b.z), int) for b in batches]
        sizes = np.concatenate([batch.sizes for batch in batches])
        return cls(
            np.concatenate([batch.positions for batch in batches]),
            np.concatenate([batch.z for batch in batches]),
            np.concatenate([[0], np.cumsum(sizes)]),
            np.concatenate(charges) if any(b.charges is not None for b in batches) else None,
            batches[0].rule,
        )

    @classmethod
    def from_rdkit(cls, mols: Sequence[Mol], *, rule: BondRule | None = None) -> Molecules:
        """From RDKit molecules with explicit H and a 3D conformer; their own bonds are dropped."""
        for m, mol in enumerate(mols):
            if not mol.GetNumConformers() or not mol.GetConformer().Is3D():
                raise ValueError(f"molecule {m} has no 3D coordinates")
        charges = [atom.GetFormalCharge() for mol in mols for atom in mol.GetAtoms()]
        positions = [mol.GetConformer().GetPositions() for mol in mols]
        return cls(
            np.concatenate([np.empty((0, 3)), *positions]),
            np.array([atom.GetAtomicNum() for mol in mols for atom in mol.GetAtoms()], int),
            np.cumsum([0, *(mol.GetNumAtoms() for mol in mols)]),
            np.array(charges, int) if any(charges) else None,
            rule or DistanceTable(),
        )

    @classmethod
    def load(cls, path: str | Path, *, rule: BondRule | None = None) -> Molecules:
        """Read ``.sdf`` (explicit H and 3D kept) or multi-frame ``.xyz``.

        Bonds are drawn again by ``rule``; those written in an SDF file are not used.
        """
        from .export import read

        return read(Path(path), rule or DistanceTable())

    def save(self, path: str | Path) -> Path:
        """Write ``.sdf`` or multi-frame ``.xyz``: all of the file or, after a crash, none of it.

        SDF holds four decimals of an angstrom, XYZ ten.
        """
        from .export import write

        return write(self, Path(path))

    def __len__(self) -> int:
        return len(self.ptr) - 1

    def __iter__(self) -> Iterator[Molecule]:
        return (self[m] for m in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Molecule: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | Ints | Bools) -> Molecules: ...
    def __getitem__(
        self, index: int | slice | Sequence[int] | Ints | Bools
    ) -> Molecule | Molecules:
        chosen = np.arange(len(self))[index]
        if chosen.ndim == 0:
            atoms = slice(int(self.ptr[chosen]), int(self.ptr[chosen + 1]))
            charges = None if self.charges is None else self.charges[atoms]
            return Molecule(self.positions[atoms], self.z[atoms], charges, self.rule)
        sizes = self.sizes[chosen]
        ptr = np.concatenate([[0], np.cumsum(sizes)])
        atoms_of = np.arange(ptr[-1]) + np.repeat(self.ptr[chosen] - ptr[:-1], sizes)
        part = Molecules(
            self.positions[atoms_of],
            self.z[atoms_of],
            ptr,
            None if self.charges is None else self.charges[atoms_of],
            self.rule,
        )
        if "chemistry" in self.__dict__:  # judged already: a selection need not be judged again
            part.__dict__["chemistry"] = self.chemistry.take(chosen)
        return part

    def __repr__(self) -> str:
        atoms = f"{self.sizes.min()}-{self.sizes.max()} atoms each" if len(self) else "empty"
        many = "s" * (len(self) != 1)
        return f"Molecules({len(self)} molecule{many}, {atoms}, bonds by {self.rule})"

    @property
    def sizes(self) -> Ints:
        """(M,) number of atoms."""
        return np.diff(self.ptr)

    @cached_property
    def bonds(self) -> Bonds:
        """The bonds that ``rule`` draws."""
        return self.rule(self.positions, self.z, self.ptr, self.charges)

    @cached_property
    def chemistry(self) -> Chemistry:
        """Stability, validity, connectedness and SMILES keys, worked out once."""
        return analyse(self.positions, self.z, self.ptr, self.bonds)

    @property
    def valid(self) -> Bools:
        """(M,) whether RDKit sanitises the molecule."""
        return self.chemistry.valid

    @property
    def stable(self) -> Bools:
        """(M,) whether every atom has an allowed valence."""
        return self.chemistry.stable

    @property
    def connected(self) -> Bools:
        """(M,) whether the molecule is one piece."""
        return self.chemistry.connected

    @cached_property
    def smiles(self) -> tuple[str | None, ...]:
        """Canonical SMILES without explicit H, all fragments; None where a molecule is invalid."""
        with require("rdkit.rdBase", extra="molecules").BlockLogs():
            return tuple(_plain_smiles(mol) if ok else None for mol, ok in self._judged())

    def rdkit(self) -> list[Mol]:
        """RDKit molecules with explicit H and conformer, sanitised where RDKit agrees to."""
        return [mol for mol, _ in self._judged()]

    def to_pyg(self) -> list[Data]:
        """torch_geometric ``Data``: pos, z, edge_index (both ways), edge_attr (bond order)."""
        from .export import to_pyg

        return to_pyg(self)

    def report(
        self,
        reference: Molecules | None = None,
        *,
        known: Collection[str] | None = None,
        n_xtb: int = 0,
        n_posebusters: int = 0,
        ceiling: bool = True,
        seed: int = 0,
    ) -> Report:
        """Judge the molecules; see `sciffusion.domains.molecules.metrics.evaluate`."""
        from .metrics import evaluate

        return evaluate(
            self,
            reference,
            known=known,
            n_xtb=n_xtb,
            n_posebusters=n_posebusters,
            ceiling=ceiling,
            seed=seed,
        )

    def plot(self, *, columns: int | None = None) -> Figure:
        """A grid of 3D ball-and-stick drawings; see `sciffusion.domains.molecules.plots.grid`."""
        from .plots import grid

        return grid(self, columns=columns)

    def _repr_html_(self) -> str:
        from .viewer import html

        return html(self)

    def _judged(self) -> Iterator[tuple[Mol, bool]]:
        """Each molecule, sanitised in place, and whether that went well."""
        mols = rdkit_molecules(self.positions, self.z, self.ptr, self.bonds)
        for mol, failed in zip(mols, self.bonds.failed, strict=True):
            yield mol, sanitize(mol) is None and not failed


@final
@dataclass(frozen=True, eq=False, repr=False)
class Molecule:
    """One molecule: positions (N, 3) in angstrom, atomic numbers (N,) and formal charges (N,)."""

    positions: Floats
    z: Ints
    charges: Ints | None = None
    rule: BondRule = field(default_factory=DistanceTable)
    batch: Molecules = field(init=False)

    def __post_init__(self) -> None:
        ptr = np.array([0, len(self.z)])
        batch = Molecules(self.positions, self.z, ptr, self.charges, self.rule)
        object.__setattr__(self, "batch", batch)
        for name in ("positions", "z", "charges"):
            object.__setattr__(self, name, getattr(batch, name))

    def __len__(self) -> int:
        return len(self.z)

    def __repr__(self) -> str:
        state = "stable" if self.stable else "valid" if self.valid else "invalid"
        return f"Molecule({self.formula}, {self.smiles or 'no SMILES'}, {state})"

    @property
    def valid(self) -> bool:
        """Whether RDKit sanitises the molecule."""
        return bool(self.batch.valid[0])

    @property
    def stable(self) -> bool:
        """Whether every atom has an allowed valence."""
        return bool(self.batch.stable[0])

    @property
    def connected(self) -> bool:
        """Whether the molecule is one piece."""
        return bool(self.batch.connected[0])

    @property
    def problem(self) -> str | None:
        """Why the molecule is invalid; None if it is valid."""
        return self.batch.chemistry.problem[0]

    @property
    def smiles(self) -> str | None:
        """Canonical SMILES without explicit H; None if the molecule is invalid."""
        return self.batch.smiles[0]

    @property
    def formula(self) -> str:
        """The molecular formula in Hill order."""
        counts = Counter(self.symbols)
        first = [s for s in ("C", "H") if "C" in counts and s in counts]
        order = first + sorted(set(counts) - set(first))
        return "".join(s + (str(counts[s]) if counts[s] > 1 else "") for s in order)

    @property
    def symbols(self) -> list[str]:
        """The element symbol of every atom."""
        table = require("rdkit.Chem", extra="molecules").GetPeriodicTable()
        return [table.GetElementSymbol(number) for number in self.z.tolist()]

    def rdkit(self) -> Mol:
        """The RDKit molecule with explicit H and conformer, sanitised if RDKit agrees to."""
        return self.batch.rdkit()[0]

    def ase(self) -> Atoms:
        """The molecule as ASE atoms, for any calculator of that ecosystem."""
        atoms = require("ase", extra="molecules").Atoms(self.z, self.positions)
        if self.charges is not None:
            atoms.set_initial_charges(self.charges)
        return atoms

    def xyz(self) -> str:
        """The molecule as the text of an XYZ file."""
        rows = zip(self.symbols, self.positions, strict=True)
        lines = [f"{s:<2} {x:15.10f} {y:15.10f} {w:15.10f}" for s, (x, y, w) in rows]
        return "\n".join([str(len(self)), self.smiles or "", *lines, ""])

    def plot(self) -> Figure:
        """A 3D ball-and-stick drawing."""
        return self.batch.plot()

    def _repr_html_(self) -> str:
        return self.batch._repr_html_()


def _frozen(values: ArrayLike, kind: type) -> np.ndarray:
    array = np.asarray(values)
    if kind is int and array.size and not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"atomic numbers, charges and ptr must be integers, got {array.dtype}")
    array = array.astype(np.int64 if kind is int else np.float64)  # a copy: ours alone
    array.setflags(write=False)
    return array


def _plain_smiles(mol: Mol) -> str:
    chem = require("rdkit.Chem", extra="molecules")
    return str(chem.MolToSmiles(chem.RemoveHs(mol)))
