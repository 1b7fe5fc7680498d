"""The laws of the GFN2-xTB oracle: invariances, forces, simple molecules, relaxation, failures."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from tblite.interface import Calculator, Result

from sciffusion.domains.molecules.container import Molecule, Molecules
from sciffusion.domains.molecules.oracle_xtb import (
    EV,
    KCAL_PER_MOL,
    XTB,
    Failed,
    Relaxation,
    SinglePoint,
)

BOHR = 0.529177210903
TETRAHEDRON = np.array([[0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / 3**0.5


def water(bond: float = 0.96, angle: float = 104.5) -> Molecule:
    """Water with its symmetry axis along z, hydrogens towards positive z."""
    half = np.radians(angle) / 2
    arm = bond * np.array([np.sin(half), 0, np.cos(half)])
    return Molecule(np.array([[0, 0, 0], arm, arm * [-1, 1, 1]]), np.array([8, 1, 1]))


def hydrogen(bond: float) -> Molecule:
    return Molecule(np.array([[0, 0, 0], [0, 0, bond]]), np.array([1, 1]))


def methane(bond: float = 1.09) -> Molecule:
    return Molecule(TETRAHEDRON * bond, np.array([6, 1, 1, 1, 1]))


def done(outcome: SinglePoint | Failed) -> SinglePoint:
    assert isinstance(outcome, SinglePoint), outcome
    return outcome


def relaxed(outcome: Relaxation | Failed) -> Relaxation:
    assert isinstance(outcome, Relaxation), outcome
    return outcome


def moved(mol: Molecule, positions: NDArray[np.floating]) -> Molecule:
    return Molecule(positions, mol.z)


@pytest.fixture(scope="module")
def real(qm9_test: Molecules) -> Molecule:
    return qm9_test[5000]


def test_motion_changes_no_scalar_and_turns_the_dipole() -> None:
    mol = water(bond=1.0)
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    here, there = (done(XTB().single_point(m)) for m in (mol, moved(mol, mol.positions @ turn + 7)))
    assert there.energy == pytest.approx(here.energy, abs=1e-8)
    assert there.gap == pytest.approx(here.gap, abs=1e-5)
    np.testing.assert_allclose(there.dipole_vector, here.dipole_vector @ turn, atol=1e-5)
    np.testing.assert_allclose(there.gradient, here.gradient @ turn, atol=1e-6)


def test_the_order_of_the_atoms_changes_no_scalar() -> None:
    mol = water(bond=1.0)
    back = Molecule(mol.positions[::-1], mol.z[::-1])
    here, there = done(XTB().single_point(mol)), done(XTB().single_point(back))
    assert there.energy == pytest.approx(here.energy, abs=1e-8)
    assert there.dipole == pytest.approx(here.dipole, abs=1e-5)


def test_the_gradient_is_the_finite_difference_of_the_energy() -> None:
    mol = moved(water(), water().positions + np.random.default_rng(1).normal(size=(3, 3)) * 0.05)
    gradient, step = done(XTB().single_point(mol)).gradient, 1e-3
    for atom in range(3):
        for axis in range(3):
            shift = np.zeros((3, 3))
            shift[atom, axis] = step * BOHR
            up, down = (
                done(XTB().single_point(moved(mol, mol.positions + s))).energy
                for s in (shift, -shift)
            )
            assert gradient[atom, axis] == pytest.approx((up - down) / (2 * step), abs=1e-4)


def test_the_dipole_of_water_lies_on_its_axis_and_points_to_the_hydrogens() -> None:
    found = done(XTB().single_point(water()))
    x, y, z = found.dipole_vector
    assert abs(x) < 1e-6 and abs(y) < 1e-6
    assert 1.5 < z < 3.0  # debye; the measured moment of water vapour is 1.85
    assert found.dipole == pytest.approx(z)
    assert found.charges[0] < 0 < found.charges[1]
    assert found.charges.sum() == pytest.approx(0, abs=1e-6)


def test_symmetry_forbids_methane_a_dipole() -> None:
    assert done(XTB().single_point(methane())).dipole < 1e-5


def test_the_gap_lies_between_the_frontier_orbitals() -> None:
    found = done(XTB().single_point(water()))
    assert found.homo < 0 and found.gap == found.lumo - found.homo > 0


def test_hydrogen_pulled_apart_or_pushed_together_costs_energy() -> None:
    energy = {d: done(XTB().single_point(hydrogen(d))).energy for d in (0.45, 0.75, 1.2, 2.5)}
    assert min(energy, key=energy.__getitem__) == 0.75
    assert energy[1.2] < energy[2.5]


def test_an_electron_fewer_costs_energy() -> None:
    neutral, cation = (done(XTB(charge).single_point(water())) for charge in (0, 1))
    assert 5 < (cation.energy - neutral.energy) * EV < 30
    assert cation.charges.sum() == pytest.approx(1, abs=1e-6)
    assert relaxed(XTB(1).relax(water())).before == pytest.approx(cation.energy, abs=1e-6)


def test_relaxation_finds_the_minimum_and_reports_the_way() -> None:
    start = water(bond=1.05, angle=120)
    found = relaxed(XTB().relax(start, fmax=0.01))
    assert found.before == pytest.approx(done(XTB().single_point(start)).energy, abs=1e-7)
    there = done(XTB().single_point(moved(start, found.positions)))
    assert found.after == pytest.approx(there.energy, abs=1e-6)
    assert np.linalg.norm(there.gradient, axis=1).max() * EV / BOHR < 0.011
    assert found.after < found.before
    assert found.strain == pytest.approx((found.before - found.after) * KCAL_PER_MOL)
    again = relaxed(XTB().relax(moved(start, found.positions), fmax=0.01))
    assert again.steps == 0 and again.rmsd == pytest.approx(0, abs=1e-9)


def test_the_displacement_counts_no_motion_of_the_whole_molecule() -> None:
    found = relaxed(XTB().relax(methane(1.15), fmax=0.001))
    bond = np.linalg.norm(found.positions[1:] - found.positions[0], axis=1).mean()
    assert found.rmsd == pytest.approx((4 / 5) ** 0.5 * (1.15 - bond), rel=1e-3)


def test_the_displacement_is_the_least_over_all_rotations(real: Molecule) -> None:
    jitter = np.random.default_rng(0).normal(size=real.positions.shape) * 0.2
    start = real.positions + jitter
    found = relaxed(XTB().relax(moved(real, start), fmax=0.2))
    here, there = (p - p.mean(axis=0) for p in (start, found.positions))
    least = Rotation.align_vectors(here, there)[1] / len(start) ** 0.5
    assert found.rmsd == pytest.approx(least, abs=1e-6)


@pytest.mark.parametrize("mol", [hydrogen(0.8), Molecule(np.zeros((1, 3)), np.array([2]))])
def test_linear_molecules_and_single_atoms_relax(mol: Molecule) -> None:
    found = relaxed(XTB().relax(mol))
    assert 0 <= found.strain < 50 and np.isfinite(found.rmsd)


def test_a_real_molecule_has_little_strain_and_a_jittered_one_much(real: Molecule) -> None:
    jitter = np.random.default_rng(0).normal(size=real.positions.shape) * 0.05
    calm, shaken = (relaxed(XTB().relax(m)) for m in (real, moved(real, real.positions + jitter)))
    assert 0 < calm.strain < 5
    assert shaken.strain > 5 * calm.strain and shaken.rmsd > calm.rmsd
    assert shaken.after == pytest.approx(calm.after, abs=1e-3)  # both fall into the same basin


@pytest.mark.parametrize(
    "positions",
    [np.zeros((2, 3)), np.array([[0, 0, 0], [0.3, 0, 0]]), np.array([[0, 0, 0], [np.nan, 0, 0]])],
    ids=["same", "close", "nan"],
)
def test_nonsense_is_a_failed_outcome_with_a_reason(positions: NDArray[np.floating]) -> None:
    mol = Molecule(positions, np.array([6, 6]))
    for outcome in (XTB().single_point(mol), XTB().relax(mol)):
        assert isinstance(outcome, Failed) and outcome.reason


def test_no_minimum_within_the_steps_is_a_failed_outcome() -> None:
    outcome = XTB().relax(water(bond=1.2), steps=1)
    assert isinstance(outcome, Failed) and "1 steps" in outcome.reason


def test_a_calculation_runs_on_one_thread_and_gives_the_others_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []
    before, single_point = torch.get_num_threads(), Calculator.singlepoint

    def recorded(calculator: Calculator, result: Result | None = None) -> Result:
        seen.append(torch.get_num_threads())
        return single_point(calculator, result)

    monkeypatch.setattr(Calculator, "singlepoint", recorded)
    try:
        torch.set_num_threads(2)
        XTB().single_point(water())
        XTB().relax(water())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {1}


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    XTB().single_point(water())
    XTB().relax(water(bond=1.0))
    assert capfd.readouterr() == ("", "")
