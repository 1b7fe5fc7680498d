"""What the tests of chemistry share: molecules of known structure, and QM9's test molecules."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

from sciffusion.domains.molecules.container import Molecule, Molecules


@pytest.fixture(scope="session")
def embedded() -> Callable[[str], Molecule]:
    """``embedded("CCO")`` is that molecule with all H, at a minimum of the MMFF force field."""

    @cache
    def embed(smiles: str) -> Molecule:
        mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
        assert rdDistGeom.EmbedMolecule(mol, randomSeed=7) == 0
        rdForceFieldHelpers.MMFFOptimizeMolecule(mol)
        z = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])
        return Molecule(mol.GetConformer().GetPositions(), z)

    return embed


@pytest.fixture(scope="session")
def qm9_test(shared_data: Callable[[str], Path]) -> Molecules:
    """The 13,083 test molecules of QM9."""
    data = np.load(shared_data("molecules/qm9/qm9.npz"))
    return Molecules(data["pos_1e5"] * 1e-5, data["z"], data["ptr"])[data["split"] == 2]
