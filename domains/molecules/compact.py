"""Molecule sets on disk: one ``.npz`` of packed arrays that plain ``numpy.load`` opens.

Molecule m owns the atoms ``ptr[m]:ptr[m + 1]``. Needed are

* ``ptr`` (M + 1,) and ``z`` (A,), atomic numbers;
* ``pos`` (A, 3) in angstrom, or ``pos_1e5`` in 1e-5 angstrom, ``pos_1e3`` ..., as integers.

May be there as well

* ``index`` (M,), the source's numbers; ``smiles`` (M,) bytes; ``charge`` (A,), formal charges;
* ``props`` (M, P) with ``prop_names`` and ``prop_units``; energies in hartree that float32 cannot
  hold, once more in float64: ``energy_Eh`` (M, E) with ``energy_names``;
* values of isolated atoms: ``atomref_Eh`` (K, E) of the elements ``atomref_z``, for the energies of
  ``energy_names``, or for any property ``atomref`` (K, R) with ``atomref_names``;
* ``split`` (M,), 0 train, 1 valid, 2 test; or parts that may overlap, ``splits`` (S, M) of
  booleans with ``split_names``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sciffusion.io import atomic_write, read_npz

from .data import MoleculeSet
from .elements import QM9_ATOMS, AtomVocabulary, DataError
from .properties import PropertyTable

__all__ = ["Arrays", "from_arrays", "load", "read_arrays", "save", "write_arrays"]

Arrays = dict[str, NDArray[np.generic]]

_SPLITS = ("train", "valid", "test")


def load(
    path: str | Path, *, vocabulary: AtomVocabulary | None = QM9_ATOMS, name: str | None = None
) -> MoleculeSet:
    """The molecules of a compact file, each centred; ``name`` is the file's stem unless given.

    Args:
        vocabulary: the elements that a model knows, in its order; None takes those that occur.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: the file is damaged or lacks an array, or a molecule cannot be used.
        UnknownElementError: an element that the vocabulary does not have.
    """
    path = Path(path)
    return from_arrays(read_arrays(path), vocabulary=vocabulary, name=name or path.stem)


def from_arrays(
    arrays: Arrays, *, vocabulary: AtomVocabulary | None = QM9_ATOMS, name: str
) -> MoleculeSet:
    """The set that the arrays of a compact file describe; see `load`."""
    missing = [needed for needed in ("ptr", "z") if needed not in arrays]
    if missing:
        raise DataError(f"{name} has no array {' and no '.join(missing)}; it has {list(arrays)}")
    smiles = arrays.get("smiles")
    return MoleculeSet.from_arrays(
        arrays["z"],
        _positions(arrays, name),
        arrays["ptr"],
        ids=arrays.get("index"),
        vocabulary=vocabulary or AtomVocabulary.covering(torch.from_numpy(arrays["z"])),
        charges=arrays.get("charge"),
        properties=_properties(arrays),
        splits=_splits(arrays),
        smiles=None if smiles is None else smiles.astype(np.bytes_),
        name=name,
    )


def save(mols: MoleculeSet, path: str | Path) -> Path:
    """Write a set as a compact file and return the path.

    Every number comes back exactly, except that `load` centres the positions once more.
    """
    table = mols.properties
    elements = sorted({z for values in table.atoms.values() for z in values})
    atoms = [[values.get(z, np.nan) for values in table.atoms.values()] for z in elements]
    arrays: Arrays = {
        "ptr": mols.ptr.cpu().numpy(),
        "z": mols.z.cpu().numpy(),
        "pos": mols.pos.cpu().numpy(),
        "index": mols.ids,
        "props": table.values.numpy(),
        "prop_names": np.array(table.names, dtype=np.str_),
        "prop_units": np.array(table.units, dtype=np.str_),
        "atomref": np.array(atoms).reshape(len(elements), len(table.atoms)),
        "atomref_names": np.array(list(table.atoms), dtype=np.str_),
        "atomref_z": np.array(elements, dtype=np.uint8),
        "split_names": np.array(list(mols.splits), dtype=np.str_),
        "splits": np.array([np.isin(np.arange(len(mols)), rows) for rows in mols.splits.values()]),
    }
    if mols.charges is not None:
        arrays["charge"] = mols.charges.cpu().numpy()
    if mols.smiles_bytes is not None:
        arrays["smiles"] = mols.smiles_bytes
    return write_arrays(path, arrays)


def write_arrays(path: str | Path, arrays: Mapping[str, NDArray[np.generic]]) -> Path:
    """Write arrays as a compressed ``.npz``, whole or not at all."""
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"path must end in .npz, got {path}")
    with atomic_write(path) as part:
        np.savez_compressed(part, **arrays)  # type: ignore[arg-type]
    return path


def read_arrays(path: Path) -> Arrays:
    """All arrays of a compact file; the checksum of each is tested on the way."""
    try:
        return read_npz(path)
    except ValueError as error:
        raise DataError(f"{error}; delete it and fetch or make it again") from error


def _positions(arrays: Arrays, source: str) -> NDArray[np.float64]:
    if "pos" in arrays:
        return arrays["pos"].astype(np.float64)
    for name, values in arrays.items():
        if scaled := re.fullmatch(r"pos_1e(\d)", name):
            return values.astype(np.float64) / 10 ** int(scaled[1])
    raise DataError(f"{source} has no array pos, pos_1e5 or the like; it has {list(arrays)}")


def _properties(arrays: Arrays) -> PropertyTable | None:
    if "props" not in arrays:
        return None
    names = tuple(arrays["prop_names"].tolist())
    values = arrays["props"].astype(np.float64)
    atoms: dict[str, dict[int, float]] = {}
    for given, columns in (("atomref", "atomref_names"), ("atomref_Eh", "energy_names")):
        if given in arrays:
            for name, column in zip(arrays[columns].tolist(), arrays[given].T, strict=True):
                pairs = zip(arrays["atomref_z"].tolist(), column.tolist(), strict=True)
                atoms[name] = {z: value for z, value in pairs if not np.isnan(value)}
    if "energy_Eh" in arrays:
        for name, column in zip(
            arrays["energy_names"].tolist(), arrays["energy_Eh"].T, strict=True
        ):
            values[:, names.index(name)] = column
    return PropertyTable(
        names, tuple(arrays["prop_units"].tolist()), torch.from_numpy(values), atoms
    )


def _splits(arrays: Arrays) -> dict[str, NDArray[np.int64]]:
    if "splits" in arrays:
        named = zip(arrays["split_names"].tolist(), arrays["splits"], strict=True)
        return {name: np.flatnonzero(members) for name, members in named}
    if "split" in arrays:
        return {name: np.flatnonzero(arrays["split"] == k) for k, name in enumerate(_SPLITS)}
    return {}
