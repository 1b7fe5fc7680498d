"""GFN2-xTB through tblite: a physical judge of geometry, and an oracle of properties.

Bannwarth, Ehlert and Grimme, J. Chem. Theory Comput. 15, 1652 (2019). A single point of a QM9
molecule takes milliseconds on one core. On molecules this small several threads only wait for each
other, on a busy machine for seconds, so a calculation runs on one thread of the OpenMP library that
tblite shares with torch. Where the two share none, set ``OMP_NUM_THREADS=1`` before Python starts.

Sampled molecules may be nonsense. So a calculation that breaks down returns `Failed` with a reason;
whoever averages has to say how many failed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np
import torch

from sciffusion.errors import require

from .chem import Floats, pairs_within
from .container import Molecule

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["EV", "KCAL_PER_MOL", "XTB", "Failed", "Relaxation", "SinglePoint"]

# CODATA 2018
EV = 27.211386245988  # eV in one hartree
KCAL_PER_MOL = 627.5094740631  # kcal/mol in one hartree
_BOHR = 0.529177210903  # angstrom
_DEBYE = 2.541746473  # debye in one e bohr
_OVERLAP = 0.4  # angstrom; the shortest bond there is, of H2, has 0.74


@dataclass(frozen=True)
class Failed:
    """The calculation broke down, and why."""

    reason: str


@dataclass(frozen=True)
class SinglePoint:
    """Energy and properties at one geometry.

    ``energy`` in Eh; ``homo`` and ``lumo`` in eV (``lumo`` is NaN if the minimal basis has no empty
    orbital); ``dipole_vector`` (3,) in debye, which for a charged molecule depends on the origin;
    ``gradient`` (N, 3) in Eh/bohr; Mulliken ``charges`` (N,) in e.
    """

    energy: float
    homo: float
    lumo: float
    dipole_vector: Floats
    gradient: Floats
    charges: Floats

    @property
    def gap(self) -> float:
        """LUMO minus HOMO in eV."""
        return self.lumo - self.homo

    @property
    def dipole(self) -> float:
        """The length of the dipole vector in debye."""
        return float(np.linalg.norm(self.dipole_vector))


@dataclass(frozen=True)
class Relaxation:
    """A local minimisation of the energy from the sampled geometry.

    ``before`` and ``after`` are energies in Eh, ``positions`` (N, 3) the relaxed geometry in
    angstrom, ``rmsd`` the root mean square displacement of all atoms in angstrom after the best
    rotation (no permutation: the atoms keep their order).
    """

    before: float
    after: float
    positions: Floats
    rmsd: float
    steps: int

    @property
    def strain(self) -> float:
        """Energy given up by relaxing, in kcal/mol."""
        return (self.before - self.after) * KCAL_PER_MOL


@final
@dataclass(frozen=True)
class XTB:
    """GFN2-xTB at a total charge; an odd number of electrons makes a doublet."""

    charge: int = 0

    def single_point(self, mol: Molecule) -> SinglePoint | Failed:
        """Energy, orbitals, dipole and gradient at the given geometry."""
        tblite = require("tblite.interface", extra="molecules")
        if wrong := _senseless(mol):
            return wrong
        try:
            calculator = tblite.Calculator(
                "GFN2-xTB",
                mol.z,
                mol.positions / _BOHR,
                charge=self.charge,
                uhf=self._unpaired(mol),
            )
            calculator.set("verbosity", 0)
            with _one_thread():
                found = calculator.singlepoint()
        except RuntimeError as error:
            return Failed(str(error))
        levels = found.get("orbital-energies") * EV
        occupied = int(np.sum(found.get("orbital-occupations") > 0.5))
        return SinglePoint(
            energy=float(found.get("energy")),
            homo=float(levels[occupied - 1]) if occupied else float("nan"),
            lumo=float(levels[occupied]) if occupied < len(levels) else float("nan"),
            dipole_vector=found.get("dipole") * _DEBYE,
            gradient=found.get("gradient"),
            charges=found.get("charges"),
        )

    def relax(self, mol: Molecule, *, fmax: float = 0.05, steps: int = 250) -> Relaxation | Failed:
        """BFGS until no force exceeds ``fmax`` (eV/angstrom); not converged in ``steps`` fails."""
        optimize = require("ase.optimize", extra="molecules")
        build = require("ase.build", extra="molecules")
        if wrong := _senseless(mol):
            return wrong
        start, atoms = mol.ase(), self._atoms(mol)
        try:
            with _one_thread():
                before = atoms.get_potential_energy() / EV
                optimizer = optimize.BFGS(atoms, logfile=None)
                converged = optimizer.run(fmax=fmax, steps=steps)
                after = atoms.get_potential_energy() / EV
        except (RuntimeError, np.linalg.LinAlgError) as error:
            return Failed(str(error))
        if not converged:
            return Failed(f"no minimum within {steps} steps")
        build.minimize_rotation_and_translation(start, atoms)
        moved = atoms.positions - start.positions
        rmsd = float(np.sqrt((moved**2).sum(axis=1).mean()))
        return Relaxation(before, after, atoms.positions.copy(), rmsd, optimizer.nsteps)

    def _unpaired(self, mol: Molecule) -> int:
        return int(mol.z.sum() - self.charge) % 2

    def _atoms(self, mol: Molecule) -> Atoms:
        tblite = require("tblite.ase", extra="molecules")
        atoms = mol.ase()
        atoms.calc = tblite.TBLite(
            method="GFN2-xTB",
            charge=self.charge,
            multiplicity=self._unpaired(mol) + 1,
            verbosity=0,
        )
        return atoms


def _senseless(mol: Molecule) -> Failed | None:
    """Geometry at which no energy means anything, and where the iterations may take for ever."""
    if not np.isfinite(mol.positions).all():
        return Failed("coordinates are not finite")
    i, j = pairs_within(mol.batch.ptr)
    apart = np.linalg.norm(mol.positions[i] - mol.positions[j], axis=1)
    if len(apart) and apart.min() < _OVERLAP:
        return Failed(f"two atoms are {apart.min():.2f} angstrom apart")
    return None


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
