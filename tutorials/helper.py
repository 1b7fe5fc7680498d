"""What the lessons share: molecules to compare with, molecules to learn, and published figures."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sciffusion.io import cache_dir

if TYPE_CHECKING:
    from sciffusion.domains import molecules

QUICK = os.environ.get("SCIFFUSION_QUICK") == "1"
"""The tests' budget, seconds instead of minutes. Figures of such a run mean nothing."""

SMALL = """
CCO CCN CC=O CCC CC#N C1CC1 COC CCCO CC(C)O COCC CCCN CC(C)N CNCC CN(C)C CCC=O CC(C)=O CCC#N CCCC
CC(C)C C1CCC1 CC1CC1 OC1CC1 NC1CC1 C1COC1 C1CNC1 CC1CO1 OCCO NCCO NCCN COCO CC(=O)O COC=O CC(N)=O
CNC=O C1CCOC1 C1CCNC1 C1CCCC1 CCCCO CCC(C)O CC(C)CO CC(C)(C)O CCCOC CCOCC CCCCN CC(C)CN CCC(C)N
CCCC=O CC(C)C=O CCC(C)=O OCCCO CC(O)CO COCCO NCCCO COCCN CCC(=O)O CC(=O)OC CCOC=O CCC(N)=O CC(=O)NC
OCC1CC1 NCC1CC1
""".split()
"""Small molecules of carbon, nitrogen and oxygen."""


def conformers(smiles: Sequence[str], each: int, seed: int = 0) -> molecules.MoleculeSet:
    """Geometries of molecules, from RDKit: ETKDG embeddings, relaxed in the MMFF94 force field."""
    from rdkit import Chem
    from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

    from sciffusion.domains import molecules

    z: list[int] = []
    positions: list[np.ndarray] = []
    sizes: list[int] = []
    for text in smiles:
        mol = Chem.AddHs(Chem.MolFromSmiles(text))
        rdDistGeom.EmbedMultipleConfs(mol, each, randomSeed=seed)
        rdForceFieldHelpers.MMFFOptimizeMoleculeConfs(mol)
        for conformer in mol.GetConformers():
            z += [atom.GetAtomicNum() for atom in mol.GetAtoms()]
            positions.append(conformer.GetPositions())
            sizes.append(mol.GetNumAtoms())
    return molecules.MoleculeSet.from_arrays(
        z, np.concatenate(positions), np.cumsum([0, *sizes]), name="RDKit conformers"
    )


def real_molecules() -> molecules.Molecules:
    """QM9's test molecules. A quick run without QM9 in the cache makes some molecules instead."""
    from sciffusion.domains import molecules

    if QUICK and not (cache_dir("qm9") / "qm9.npz").exists():
        return as_molecules(conformers(SMALL, 2))
    return molecules.read("qm9:test")


def as_molecules(mols: molecules.MoleculeSet) -> molecules.Molecules:
    """A data set as the container that judges, draws and saves."""
    from sciffusion.domains import molecules

    return molecules.Molecules(mols.pos.numpy(), mols.z.numpy().astype(int), mols.ptr.numpy())


def published(lesson: str) -> None:
    """Print the figures that ``results.py`` measured for a lesson, and how it did."""
    path = Path(__file__).with_name("results") / f"{lesson}.json"
    if not path.exists():
        print(f"not measured yet: python tutorials/results.py {lesson}")
        return
    stored = json.loads(path.read_text(encoding="utf-8"))
    for name, value in stored.pop("figures").items():
        print(f"{name:<36} {value:g}")
    print("\n" + "\n".join(f"{key}: {value}" for key, value in stored.items()))
