"""Molecules with positions as a data set: packed in memory, split, indexed, and made into batches.

Nothing here needs more than torch and numpy. A set is frozen: every operation gives a new one.

>>> water = [[0.0, 0.0, 0.0], [0.0, 0.76, 0.59], [0.0, -0.76, 0.59]]
>>> hydrogen = [[0.0, 0.0, 0.0], [0.74, 0.0, 0.0]]
>>> mols = MoleculeSet.from_arrays([8, 1, 1, 1, 1], water + hydrogen, ptr=[0, 3, 5])
>>> mols
MoleculeSet: 2 molecules, 5 atoms, 2 to 3 per molecule, of H C N O F
>>> pos, atom, mask = mols.padded([0, 1])
>>> mask.tolist()
[[True, True, True], [True, True, False]]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple, TypeAlias, final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .elements import QM9_ATOMS, SYMBOLS, AtomVocabulary, DataError, UnknownElementError
from .geometry import chain_order
from .properties import PropertyTable, unknown

__all__ = ["Index", "MoleculeRecord", "MoleculeSet", "PackedBatch", "PaddedBatch"]

Index: TypeAlias = Sequence[int] | NDArray[np.integer] | NDArray[np.bool_] | Tensor | slice


class PaddedBatch(NamedTuple):
    """Molecules side by side; padding has position zero and type 0, and ``mask`` tells it apart."""

    pos: Tensor  # (B, N, 3) float32, angstrom
    atom: Tensor  # (B, N) int64, type
    mask: Tensor  # (B, N) bool, True where an atom is


class PackedBatch(NamedTuple):
    """Molecules end to end."""

    pos: Tensor  # (A, 3) float32, angstrom
    atom: Tensor  # (A,) int64, type
    molecule: Tensor  # (A,) int64, which molecule of the batch the atom belongs to, 0..B-1


@final
@dataclass(frozen=True, eq=False)
class MoleculeRecord:
    """One molecule of a set, with what the set knows of it."""

    z: Tensor  # (n,) uint8
    pos: Tensor  # (n, 3) float32, angstrom
    charges: Tensor | None
    smiles: str | None
    id: int
    properties: Mapping[str, float]  # in the units of the set

    def __len__(self) -> int:
        return len(self.z)

    @property
    def symbols(self) -> tuple[str, ...]:
        """The element symbol of each atom."""
        return tuple(SYMBOLS[z] for z in self.z.tolist())


@final
@dataclass(frozen=True, eq=False, repr=False)
class MoleculeSet:
    """M molecules, packed: molecule m owns the atoms ``ptr[m]:ptr[m + 1]``.

    Make one with `from_arrays`, which centres the molecules, or with a loader. The tensors of
    atoms move with ``to(device)``; properties stay on the CPU in float64.

    Args:
        z: (A,) uint8, atomic numbers.
        pos: (A, 3) float32, angstrom; the mean position of each molecule is zero.
        ptr: (M + 1,) int64.
        ids: (M,) what the source calls the molecules (QM9: the number in the file's name).
        vocabulary: the elements, in the order of the types that batches hold.
        charges: (A,) int8, formal charges, where the source has them.
        properties: one row a molecule.
        splits: names of parts of the set and the rows of each, rising.
        smiles_bytes: (M,) SMILES in ASCII, as numpy stores them compactly; read ``smiles``.
        name: the name of the set.

    Raises:
        DataError: a molecule without atoms, or with a position that is not a finite number.
        UnknownElementError: an element that the vocabulary does not have.
        ValueError: arrays that do not fit together.
    """

    z: Tensor
    pos: Tensor
    ptr: Tensor
    ids: NDArray[np.int64]
    properties: PropertyTable
    vocabulary: AtomVocabulary = QM9_ATOMS
    charges: Tensor | None = None
    splits: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    smiles_bytes: NDArray[np.bytes_] | None = None
    name: str = "MoleculeSet"

    def __post_init__(self) -> None:
        molecules = len(self.ptr) - 1
        if molecules < 1 or int(self.ptr[0]) != 0 or int(self.ptr[-1]) != len(self.z):
            raise ValueError(f"ptr must rise from 0 to {len(self.z)}, the length of z")
        if self.pos.shape != (len(self.z), 3):
            raise ValueError(f"pos must be ({len(self.z)}, 3) like z, got {tuple(self.pos.shape)}")
        if self.charges is not None and self.charges.shape != self.z.shape:
            raise ValueError(f"charges must be ({len(self.z)},) like z")
        per_molecule: dict[str, Sized | None] = {
            "ids": self.ids,
            "properties": self.properties,
            "smiles": self.smiles_bytes,
        }
        for name, rows in per_molecule.items():
            if rows is not None and len(rows) != molecules:
                raise ValueError(f"{name} has {len(rows)} rows for {molecules} molecules")
        if (self.sizes < 1).any():
            raise DataError(f"{self._called(int((self.sizes < 1).argmax()))} has no atoms")
        finite = self.pos.isfinite().all(1)
        if not bool(finite.all()):
            atom = int((~finite).nonzero()[0])
            raise DataError(
                f"{self._called(self._owner(atom))} has a position that is not a finite number: "
                f"{self.pos[atom].tolist()}"
            )
        try:
            self.types  # noqa: B018 (computed here, once, so that a bad element shows at once)
        except UnknownElementError as error:
            message = f"{self._called(self._owner(error.atom))}: {error}"
            raise UnknownElementError(message, error.atom) from None

    @classmethod
    def from_arrays(
        cls,
        z: ArrayLike,
        pos: ArrayLike,
        ptr: ArrayLike,
        *,
        ids: ArrayLike | None = None,
        vocabulary: AtomVocabulary = QM9_ATOMS,
        charges: ArrayLike | None = None,
        properties: PropertyTable | None = None,
        splits: Mapping[str, NDArray[np.int64]] | None = None,
        smiles: NDArray[np.bytes_] | Sequence[str] | None = None,
        name: str = "MoleculeSet",
    ) -> MoleculeSet:
        """A set from arrays, positions in angstrom and any frame; see the class for the rest."""
        bounds = np.asarray(ptr, dtype=np.int64)
        sizes = np.diff(bounds)
        positions = np.array(pos, dtype=np.float64).reshape(-1, 3)
        fits = len(sizes) and bounds[0] == 0 and bounds[-1] == len(positions) and (sizes > 0).all()
        if fits:  # else refused below
            with np.errstate(invalid="ignore"):
                means = np.add.reduceat(positions, bounds[:-1]) / sizes[:, None]
                positions -= np.repeat(means, sizes, axis=0)
        return cls(
            z=torch.from_numpy(np.array(z, dtype=np.uint8)),
            pos=torch.from_numpy(positions.astype(np.float32)),
            ptr=torch.from_numpy(bounds),
            ids=np.arange(len(sizes)) if ids is None else np.asarray(ids, dtype=np.int64),
            properties=PropertyTable.empty(len(sizes)) if properties is None else properties,
            vocabulary=vocabulary,
            charges=None if charges is None else torch.from_numpy(np.array(charges, np.int8)),
            splits=splits or {},
            smiles_bytes=None if smiles is None else np.asarray(smiles, dtype=np.bytes_),
            name=name,
        )

    def __len__(self) -> int:
        return len(self.ptr) - 1

    def __iter__(self) -> Iterator[MoleculeRecord]:
        return (self[m] for m in range(len(self)))

    def __getitem__(self, m: int) -> MoleculeRecord:
        row = int(self._rows([m])[0])
        atoms = slice(int(self.ptr[row]), int(self.ptr[row + 1]))
        table = self.properties
        return MoleculeRecord(
            z=self.z[atoms],
            pos=self.pos[atoms],
            charges=None if self.charges is None else self.charges[atoms],
            smiles=None if self.smiles_bytes is None else self.smiles_bytes[row].decode(),
            id=int(self.ids[row]),
            properties=dict(zip(table.names, table.values[row].tolist(), strict=True)),
        )

    def __repr__(self) -> str:
        parts = [f"{self.name}: {len(self):,} molecules, {len(self.z):,} atoms"]
        parts.append(f"{self.sizes.min()} to {self.sizes.max()} per molecule")
        parts.append(f"of {' '.join(self.vocabulary.symbols)}")
        text = ", ".join(parts)
        if self.properties.names:
            text += f"; properties {' '.join(self.properties.names)}"
        if self.splits:
            text += "; splits " + " ".join(f"{k} {len(v):,}" for k, v in self.splits.items())
        return text

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """(M,) number of atoms in each molecule."""
        return np.diff(self.ptr.cpu().numpy())

    @cached_property
    def types(self) -> Tensor:
        """(A,) uint8, the vocabulary's type of each atom."""
        return self.vocabulary.encode(self.z)

    @cached_property
    def smiles(self) -> list[str]:
        """The SMILES of each molecule; ValueError where the source has none."""
        if self.smiles_bytes is None:
            raise ValueError(f"{self.name} has no SMILES")
        return [text.decode() for text in self.smiles_bytes.tolist()]

    def get(self, name: str, *, unit: str | None = None, subtract_atoms: bool = False) -> Tensor:
        """One property, (M,) float64, in ``unit`` (None: as stored).

        With ``subtract_atoms`` the values of the isolated atoms are subtracted. An energy becomes
        the energy of the molecule from its atoms: the atomisation energy with its sign turned,
        negative where the molecule is bound.

        **The trap with Cv.** EDM (Hoogeboom et al., 2022), and with it the tables of conditional
        generation on QM9, treat the heat capacity likewise: 2.981 cal/mol/K for every atom of the
        molecule are subtracted. The shift is the same for all molecules of one size, but sizes
        differ, so the mean, the spread and the error of guessing are other ones than those of Cv
        itself. To compare with such a table read ``get("cv", subtract_atoms=True)``, for training
        and for the errors.

        Raises:
            ValueError: no such property or unit, or its atoms' values are not known.
        """
        values = self.properties.get(name, unit)
        if not subtract_atoms:
            return values
        atoms = self.properties.atom_values(name, unit)[self.z.cpu().long()]
        if bool(atoms.isnan().any()):
            element = SYMBOLS[int(self.z.cpu()[atoms.isnan()][0])]
            raise ValueError(f"the value of {name!r} for an atom of {element} is not known")
        molecule = torch.from_numpy(np.repeat(np.arange(len(self)), self.sizes))
        return values - torch.zeros_like(values).index_add(0, molecule, atoms)

    def subset(self, idx: Index) -> MoleculeSet:
        """The molecules of these rows, in this order; splits keep what remains of them."""
        rows = self._rows(idx)
        splits = {}
        for split, members in self.splits.items():
            inside = np.zeros(len(self), dtype=bool)
            inside[members] = True
            splits[split] = np.flatnonzero(inside[rows])
        return self._take(rows, self.name, splits)

    def split(self, name: str) -> MoleculeSet:
        """The part of the set that goes by this name; it has no further splits.

        Raises:
            ValueError: no such split.
        """
        if name not in self.splits:
            raise unknown("split", name, self.splits)
        return self._take(self._rows(self.splits[name]), f"{self.name} {name}", {})

    def chain_ordered(self) -> MoleculeSet:
        """The same molecules with each hydrogen right after its heavy atom (`chain_order`).

        For networks that know the place of an atom in the list: neighbours in the list are then
        neighbours in the molecule.
        """
        order = chain_order(self.z, self.pos, self.ptr)
        charges = None if self.charges is None else self.charges[order]
        return replace(self, z=self.z[order], pos=self.pos[order], charges=charges)

    def to(self, device: torch.device | str) -> MoleculeSet:
        """The set with its atoms on ``device``, where its batches are then made."""
        return replace(
            self,
            z=self.z.to(device),
            pos=self.pos.to(device),
            ptr=self.ptr.to(device),
            charges=None if self.charges is None else self.charges.to(device),
        )

    def padded(self, idx: Index) -> PaddedBatch:
        """The molecules of these rows as one padded batch, on the set's device."""
        rows = self._rows(idx)
        at = torch.from_numpy(rows).to(self.ptr.device, non_blocking=True)
        slots = torch.arange(int(self.sizes[rows].max()), device=at.device)
        atoms = self.ptr[at, None] + slots
        mask = atoms < self.ptr[at + 1, None]
        atoms = atoms.clamp_(max=len(self.z) - 1)
        pos = self.pos[atoms].masked_fill_(~mask[..., None], 0)
        return PaddedBatch(pos, self.types[atoms].long().masked_fill_(~mask, 0), mask)

    def packed(self, idx: Index) -> PackedBatch:
        """The molecules of these rows as one packed batch, on the set's device."""
        rows = self._rows(idx)
        atoms = self._atoms(rows).to(self.z.device)
        molecule = torch.from_numpy(np.repeat(np.arange(len(rows)), self.sizes[rows]))
        return PackedBatch(self.pos[atoms], self.types[atoms].long(), molecule.to(self.z.device))

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        return self.ptr[:-1].cpu().numpy()

    def _atoms(self, rows: NDArray[np.int64]) -> Tensor:
        """The atoms of these molecules, end to end."""
        sizes = self.sizes[rows]
        ends = np.cumsum(sizes)
        shift = self._starts[rows] - (ends - sizes)
        return torch.from_numpy(np.arange(ends[-1]) + np.repeat(shift, sizes))

    def _take(
        self, rows: NDArray[np.int64], name: str, splits: Mapping[str, NDArray[np.int64]]
    ) -> MoleculeSet:
        atoms = self._atoms(rows).to(self.z.device)
        ptr = torch.from_numpy(np.concatenate([[0], np.cumsum(self.sizes[rows])]))
        return replace(
            self,
            z=self.z[atoms],
            pos=self.pos[atoms],
            ptr=ptr.to(self.ptr.device),
            ids=self.ids[rows],
            properties=self.properties.take(torch.from_numpy(rows)),
            charges=None if self.charges is None else self.charges[atoms],
            splits=splits,
            smiles_bytes=None if self.smiles_bytes is None else self.smiles_bytes[rows],
            name=name,
        )

    def _rows(self, idx: Index) -> NDArray[np.int64]:
        """Rows as integers 0..M-1, at least one."""
        if isinstance(idx, slice):
            rows = np.arange(len(self))[idx]
        else:
            rows = idx.cpu().numpy() if isinstance(idx, Tensor) else np.asarray(idx)
            if rows.dtype == bool and rows.shape == (len(self),):
                rows = np.flatnonzero(rows)
        if not rows.size:
            raise ValueError("idx selects no molecule; a set and a batch hold at least one")
        if rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer):
            raise ValueError(
                "idx must be a slice, a vector of integers, or a boolean vector as long as the "
                f"set ({len(self)}); got {rows.dtype} of shape {rows.shape}"
            )
        if rows.min() < -len(self) or rows.max() >= len(self):
            raise IndexError(f"idx must lie in 0..{len(self) - 1}, got {rows.min()}..{rows.max()}")
        return np.where(rows < 0, rows + len(self), rows).astype(np.int64)

    def _owner(self, atom: int) -> int:
        return int(np.searchsorted(self.ptr.cpu().numpy(), atom, side="right")) - 1

    def _called(self, m: int) -> str:
        smiles = "" if self.smiles_bytes is None else f", {self.smiles_bytes[m].decode()}"
        return f"molecule {m} (id {self.ids[m]}{smiles})"
