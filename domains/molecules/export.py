"""Molecules to other programs and back: SDF, multi-frame XYZ, torch_geometric."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from sciffusion.errors import require
from sciffusion.io import atomic_write

from .chem import BondRule

if TYPE_CHECKING:
    from torch_geometric.data import Data

    from .container import Molecules

__all__ = ["read", "to_pyg", "write"]

_Format = TypeVar("_Format")


def write(mols: Molecules, path: Path) -> Path:
    """Write ``.sdf`` or ``.xyz``, whole or not at all; returns the path.

    SDF keeps bonds, formal charges and, as properties, SMILES, validity and stability. XYZ keeps
    elements and positions only, with the SMILES as comment.

    Raises:
        ValueError: another suffix, or coordinates that are not finite (no format has them).
    """
    writer = _of_suffix(path, {".sdf": _write_sdf, ".xyz": _write_xyz})
    broken = [m for m, mol in enumerate(mols) if not np.isfinite(mol.positions).all()]
    if broken:
        raise ValueError(
            f"molecules {broken[:5]} have coordinates that are not finite; keep the others, "
            "for example with mols[mols.valid]"
        )
    with atomic_write(path) as part:
        writer(mols, part)
    return path


def read(path: Path, rule: BondRule) -> Molecules:
    """Read what `write` wrote, or what another program wrote in these formats.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another suffix, or a molecule that cannot be read or has no 3D coordinates.
    """
    reader = _of_suffix(path, {".sdf": _read_sdf, ".xyz": _read_xyz})
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    return reader(path, rule)


def to_pyg(mols: Molecules) -> list[Data]:
    """The molecules as graphs: their bonds are the edges, in both directions."""
    import torch

    data = require("torch_geometric.data", extra="molecules")
    owned = mols.bonds.pointer(mols.ptr)
    graphs = []
    for m, mol in enumerate(mols):
        edges = slice(int(owned[m]), int(owned[m + 1]))
        pairs = torch.from_numpy(mols.bonds.pairs[edges] - mols.ptr[m])
        orders = torch.from_numpy(mols.bonds.orders[edges].astype(np.int64))
        graphs.append(
            data.Data(
                pos=torch.tensor(mol.positions, dtype=torch.get_default_dtype()),
                z=torch.tensor(mol.z),
                edge_index=torch.cat([pairs, pairs.flip(1)]).T.contiguous(),
                edge_attr=torch.cat([orders, orders]),
            )
        )
    return graphs


def _write_sdf(mols: Molecules, path: Path) -> None:
    chem = require("rdkit.Chem", extra="molecules")
    with chem.SDWriter(str(path)) as writer:
        found = zip(mols.rdkit(), mols.smiles, mols.valid, mols.stable, strict=True)
        for m, (mol, smiles, valid, stable) in enumerate(found):
            mol.SetProp("_Name", f"molecule {m}")
            mol.SetProp("smiles", smiles or "")
            mol.SetBoolProp("valid", bool(valid))
            mol.SetBoolProp("stable", bool(stable))
            writer.write(mol)


def _read_sdf(path: Path, rule: BondRule) -> Molecules:
    from .container import Molecules

    chem = require("rdkit.Chem", extra="molecules")
    base = require("rdkit.rdBase", extra="molecules")
    with base.BlockLogs():
        mols = list(chem.SDMolSupplier(str(path), sanitize=False, removeHs=False))
    broken = [m for m, mol in enumerate(mols) if mol is None]
    if broken:
        raise ValueError(f"{path}: RDKit cannot read the molecules {broken[:5]}")
    return Molecules.from_rdkit(mols, rule=rule)


def _write_xyz(mols: Molecules, path: Path) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(mol.xyz() for mol in mols)


def _read_xyz(path: Path, rule: BondRule) -> Molecules:
    from .container import Molecules

    number = require("rdkit.Chem", extra="molecules").GetPeriodicTable().GetAtomicNumber
    lines = path.read_text(encoding="utf-8").splitlines()
    positions: list[list[float]] = []
    z: list[int] = []
    ptr = [0]
    at = 0
    while at < len(lines):
        if not lines[at].strip():  # blank lines may follow a frame
            at += 1
            continue
        try:
            rows = [line.split() for line in lines[at + 2 : at + 2 + int(lines[at])]]
            if len(rows) != int(lines[at]):
                raise ValueError("the file ends within the molecule")
            z += [int(row[0]) if row[0].isdigit() else number(row[0]) for row in rows]
            positions += [[float(row[axis]) for axis in (1, 2, 3)] for row in rows]
        except (ValueError, IndexError, RuntimeError) as error:
            raise ValueError(f"{path}, molecule at line {at + 1}: {error}") from error
        ptr.append(len(z))
        at += 2 + len(rows)
    return Molecules(np.array(positions).reshape(-1, 3), np.array(z, int), np.array(ptr), rule=rule)


def _of_suffix(path: Path, choices: dict[str, _Format]) -> _Format:
    if path.suffix.lower() not in choices:
        raise ValueError(f"cannot tell the format of {path.name!r}: end it with .sdf or .xyz")
    return choices[path.suffix.lower()]
