"""The laws of the metrics, their intervals, their report, and the ceilings of real molecules."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rdkit import Chem

from sciffusion.bootstrap import Bootstrap
from sciffusion.domains.molecules.chem import RDKitBonds
from sciffusion.domains.molecules.container import Molecule, Molecules
from sciffusion.domains.molecules.distances import (
    histograms,
    jensen_shannon,
    observed_and_resampled,
    total_variation,
    wasserstein,
)
from sciffusion.domains.molecules.geometry_metrics import (
    BOND,
    Coordinates,
    bond_angles,
    bond_lengths,
    compare,
    dihedrals,
)
from sciffusion.domains.molecules.metrics import evaluate, posebusters
from sciffusion.report import Metric, Report

FEW = Bootstrap(replicates=50)
SMILES = ["CCO", "C1CC1", "CC(N)=O", "C#CC=C", "OCC(F)F", "CC#N", "NCC=O", "C1CCOC1"]


@pytest.fixture(scope="module")
def mols(embedded: Callable[[str], Molecule]) -> Molecules:
    """Good molecules, one copy of the first, and two broken ones."""
    parts = [embedded(smiles) for smiles in SMILES]
    lost = parts[0].positions.copy()
    lost[-1] += 5.0
    crowded = parts[1].positions * 0.7
    broken = [Molecule(lost, parts[0].z), Molecule(crowded, parts[1].z)]
    return Molecules.concatenate([*parts, parts[0], *broken])


def values(report: Report) -> dict[str, float]:
    return {name: metric.value for name, metric in report.metrics.items()}


def rearranged(mols: Molecules, seed: int = 0) -> Molecules:
    """Every molecule reflected, turned and moved, and its atoms in another order."""
    rng = np.random.default_rng(seed)
    parts = []
    for mol in mols:
        turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        turn *= -np.sign(np.linalg.det(turn))  # always a reflection
        order = rng.permutation(len(mol))
        parts.append(Molecule((mol.positions @ turn + rng.normal(size=3))[order], mol.z[order]))
    return Molecules.concatenate(parts)


# Ceilings: what real molecules score.


def test_real_molecules_reach_the_known_ceilings(qm9_test: Molecules) -> None:
    report = evaluate(qm9_test, bootstrap=FEW)
    for name, percent in (
        ("atom_stability", 99.3),
        ("molecule_stability", 95.3),
        ("validity", 97.4),
        ("valid_and_connected", 97.4),
    ):
        assert 100 * report[name].value == pytest.approx(percent, abs=0.5)
        assert report[name].low < report[name].value < report[name].high
    assert report["uniqueness"].value > 0.99  # QM9 lists every molecule once


def test_geometry_tells_real_molecules_from_jittered_ones(qm9_test: Molecules) -> None:
    sample, rest = qm9_test[::26], qm9_test[1::9]
    jitter = np.random.default_rng(0).normal(size=sample.positions.shape) * 0.02
    shaken = replace(sample, positions=sample.positions + jitter)
    near, far = (evaluate(m, rest, bootstrap=FEW) for m in (sample, shaken))
    for name in ("bond_length_w1", "bond_length_js", "angle_w1", "angle_js"):
        assert far[name].low > near[name].high
        assert near.ceiling[name].value < far[name].low
    assert far["elements"].value == near["elements"].value
    assert near["bond_length_w1"].value < 0.005 < far["bond_length_w1"].value  # angstrom


def test_xtb_and_posebusters_pass_most_real_molecules(qm9_test: Molecules) -> None:
    report = evaluate(qm9_test, n_xtb=6, n_posebusters=20, bootstrap=FEW)
    assert report["posebusters"].n == 20 and report["posebusters"].value >= 0.8
    assert report["xtb_relaxed"].n == 6 and report["xtb_relaxed"].value == 1
    assert 0 < report["strain_median"].value < 5  # kcal/mol
    assert report["relax_rmsd_median"].value < 0.2  # angstrom
    assert report["graph_preserved"].value == 1


# The rates.


def test_the_rates_are_those_of_a_hand_count(mols: Molecules) -> None:
    report = evaluate(mols, known={mols.chemistry.key[1] or ""}, bootstrap=FEW)
    n, atoms = len(mols), int(mols.sizes.sum())
    assert mols.valid.tolist() == [True] * 10 + [False]
    assert mols.stable.tolist() == [True] * 9 + [False] * 2
    assert report["validity"].value == 10 / n
    assert report["molecule_stability"].value == 9 / n
    assert report["atom_stability"].value == pytest.approx(mols.chemistry.n_stable.sum() / atoms)
    assert report["connectedness"].value == 10 / n
    assert report["valid_and_connected"].value == 9 / n
    # Valid: 8 good ones, a copy, and the one that lost an H, whose largest piece is new.
    assert report["uniqueness"].value == pytest.approx(9 / 10)
    assert report["valid_and_unique"].value == pytest.approx(9 / n)
    assert report["novelty"].value == pytest.approx(8 / 9)
    assert report["valid_unique_novel"].value == pytest.approx(8 / n)


def test_a_list_k_times_over_has_a_kth_of_the_uniqueness(mols: Molecules) -> None:
    good = mols[:8]
    for k in (1, 2, 5):
        report = evaluate(Molecules.concatenate([good] * k), bootstrap=FEW)
        assert report["uniqueness"].value == pytest.approx(1 / k)
        assert report["validity"].value == 1


def test_the_reference_is_not_novel_to_itself_and_has_no_distance(mols: Molecules) -> None:
    report = evaluate(mols, mols, bootstrap=FEW)
    assert report["novelty"].value == 0 and report["valid_unique_novel"].value == 0
    for name, metric in report.metrics.items():
        if name.endswith(("w1", "js", "types", "elements")):
            assert metric.value == pytest.approx(0, abs=1e-12)


def test_motion_reflection_and_order_change_no_metric(mols: Molecules) -> None:
    reference = mols[::2]
    here = evaluate(mols, reference, ceiling=False, n_posebusters=11, bootstrap=FEW)
    there = evaluate(rearranged(mols), reference, ceiling=False, n_posebusters=11, bootstrap=FEW)
    assert values(there) == pytest.approx(values(here), abs=1e-9)
    back = evaluate(mols[::-1], reference, ceiling=False, n_posebusters=11, bootstrap=FEW)
    assert values(back) == pytest.approx(values(here), abs=1e-9)


def test_a_batch_scores_the_pooled_score_of_its_parts(mols: Molecules) -> None:
    whole, *parts = (evaluate(m, bootstrap=FEW) for m in (mols, mols[:4], mols[4:]))
    for name, size in (
        ("atom_stability", [m.sizes.sum() for m in (mols[:4], mols[4:])]),
        ("molecule_stability", [4, len(mols) - 4]),
        ("validity", [4, len(mols) - 4]),
        ("connectedness", [4, len(mols) - 4]),
    ):
        pooled = np.average([part[name].value for part in parts], weights=size)
        assert whole[name].value == pytest.approx(pooled)


def test_nothing_valid_leaves_uniqueness_undefined_and_the_rates_zero(mols: Molecules) -> None:
    report = evaluate(mols[-1:], mols, ceiling=False, n_posebusters=1, bootstrap=FEW)
    assert report["validity"].value == report["valid_and_unique"].value == 0
    assert report["posebusters"].value == 0
    assert all(math.isnan(report[name].value) for name in ("uniqueness", "novelty"))
    assert Report.from_json(report.to_json()).rows() == report.rows()


def test_a_diverged_sample_is_counted_as_a_failure_by_all_metrics(mols: Molecules) -> None:
    wild = mols[:4].positions.copy()
    wild[0] = np.nan
    broken = replace(mols[:4], positions=wild)
    report = evaluate(broken, mols, ceiling=False, n_xtb=4, n_posebusters=4, bootstrap=FEW)
    for name in ("validity", "molecule_stability", "connectedness", "posebusters", "xtb_relaxed"):
        assert report[name].value == 3 / 4
    assert report["graph_preserved"].value == 3 / 4
    assert report["strain_median"].failed == 1 and report["strain_median"].n == 3
    assert "(1 failed)" in str(report)


def test_an_empty_list_and_a_reference_with_other_bonds_are_refused(mols: Molecules) -> None:
    with pytest.raises(ValueError, match="no molecules"):
        evaluate(mols[:0])
    with pytest.raises(ValueError, match="RDKitBonds"):
        evaluate(mols, replace(mols, rule=RDKitBonds()))


def test_posebusters_tests_one_molecule_like_many(mols: Molecules) -> None:
    together = posebusters(mols)
    for m in range(len(mols)):
        alone = posebusters(mols[[m]])
        for name, passed in alone.items():
            assert passed[0] == together.get(name, np.zeros(len(mols), bool))[m]
    passed_all = np.all(list(together.values()), axis=0)
    assert passed_all.tolist() == [True] * 9 + [False] * 2  # the two broken ones
    assert together["bond_lengths"][-2] and not together["all_atoms_connected"][-2]
    assert evaluate(mols, n_posebusters=11, bootstrap=FEW)["posebusters"].value == 9 / 11


def test_a_graph_that_changes_while_relaxing_is_not_preserved() -> None:
    apart = Molecule(np.array([[0, 0, 0], [0, 0, 1.1]]), np.array([1, 1]))  # not bonded yet
    bonded = Molecule(np.array([[0, 0, 0], [0, 0, 0.8]]), np.array([1, 1]))
    report = evaluate(Molecules.concatenate([apart, bonded]), n_xtb=2, bootstrap=FEW)
    assert report["xtb_relaxed"].value == 1 and report["graph_preserved"].value == 1 / 2


def test_the_ceiling_is_real_data_judged_like_the_molecules(mols: Molecules) -> None:
    reference = Molecules.concatenate([mols[:8]] * 4)
    report = evaluate(mols[:8], reference, bootstrap=FEW)
    assert set(report.ceiling) == set(report.metrics)
    assert report.ceiling["validity"].value == 1 and report.ceiling["validity"].n == 8
    assert not evaluate(mols, reference, ceiling=False, bootstrap=FEW).ceiling
    distinct = evaluate(mols, mols[:8], bootstrap=FEW)
    assert distinct.ceiling["novelty"].value == 1  # the sample is not among the rest


# Geometry.


def chain(torsion: float) -> Molecule:
    """H-O-O-H: bonds 0.97 and 1.45 angstrom, angles 100 degrees, the given torsion in degrees."""
    bend, twist = np.radians(100), np.radians(torsion)
    along, across = -np.cos(bend), np.sin(bend)
    oxygen = np.array([[0, 0, 0], [1.45, 0, 0]])
    first = 0.97 * np.array([-along, across, 0])
    last = [1.45, 0, 0] + 0.97 * np.array([along, across * np.cos(twist), across * np.sin(twist)])
    return Molecule(np.vstack([first, oxygen, last]), np.array([1, 8, 8, 1]))


@pytest.mark.parametrize("torsion", [0, 35, -112, 180])
def test_internal_coordinates_are_those_that_a_molecule_was_built_from(torsion: float) -> None:
    batch = chain(torsion).batch
    assert bond_lengths(batch).of_type("O-O") == pytest.approx([1.45])
    assert bond_lengths(batch).of_type("O-H") == pytest.approx([0.97, 0.97])
    assert bond_angles(batch).of_type("O-O-H") == pytest.approx([100, 100])
    assert dihedrals(batch).of_type("H-O-O-H") == pytest.approx([abs(torsion)], abs=1e-6)
    assert dihedrals(batch).of_type("C-O-O-H").size == 0


def test_internal_coordinates_are_as_many_as_the_graph_has(mols: Molecules) -> None:
    for mol in mols[:8]:
        rdkit = mol.rdkit()
        paths = {
            n: {tuple(p) for p in Chem.FindAllPathsOfLengthN(rdkit, n, useHs=True)} for n in (2, 3)
        }
        found = [len(of(mol.batch).values) for of in (bond_lengths, bond_angles, dihedrals)]
        triangles = sum(1 for p in paths[3] if len(atoms_of(rdkit, p)) < 4)
        assert found == [rdkit.GetNumBonds(), len(paths[2]), len(paths[3]) - triangles]


def atoms_of(mol: Chem.Mol, bonds: tuple[int, ...]) -> set[int]:
    found = (mol.GetBondWithIdx(b) for b in bonds)
    return {index for bond in found for index in (bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())}


def test_types_name_elements_and_orders_from_either_end(
    embedded: Callable[[str], Molecule],
) -> None:
    found = bond_angles(embedded("CC(N)=O").batch)
    names = {found.kind.label(int(code)) for code in np.unique(found.code)}
    assert names == {"C-C-N", "C-C-H", "C-C=O", "N-C=O", "H-C-H", "C-N-H", "H-N-H"}


def lengths(x: NDArray[np.floating], owner: NDArray[np.integer] | None = None) -> Coordinates:
    owner = np.arange(len(x)) if owner is None else owner
    return Coordinates(BOND, x, np.full(len(x), 700), owner, int(owner.max()) + 1)


def test_wasserstein_of_a_shift_is_the_shift_and_of_a_set_with_itself_zero() -> None:
    x = np.random.default_rng(0).normal(1.5, 0.02, size=500)
    for shift in (0.0, 0.01234567, -0.2):
        summary, _ = compare(lengths(x + shift), lengths(x), FEW)
        assert summary["bond_length_w1"].value == pytest.approx(abs(shift), abs=1e-12)
    assert compare(lengths(x), lengths(x), FEW)[0]["bond_length_js"].value == 0
    assert compare(lengths(x + 0.9), lengths(x), FEW)[0]["bond_length_js"].value == pytest.approx(1)


def test_the_summary_weighs_types_by_their_frequency_in_the_reference() -> None:
    code = np.array([700] * 30 + [701] * 10)
    x, owner = np.full(40, 1.5), np.arange(40)
    reference = Coordinates(BOND, x, code, owner, 40)
    moved = Coordinates(BOND, x + np.where(code == 700, 0.1, 0.2), code, owner, 40)
    assert compare(moved, reference, FEW)[0]["bond_length_w1"].value == pytest.approx(0.125)


def test_types_that_one_set_lacks_are_seen_by_the_distance_of_the_types() -> None:
    x = np.full(10, 1.5)
    here = Coordinates(BOND, x, np.array([700] * 8 + [701] * 2), np.arange(10), 10)
    there = Coordinates(BOND, x, np.array([700] * 5 + [702] * 5), np.arange(10), 10)
    summary, details = compare(here, there, FEW)
    assert summary["bond_length_types"].value == pytest.approx(0.5)
    assert len(details) == 2  # the one type in common, by two measures
    nothing = compare(replace(here, code=here.code + 5), there, FEW)[0]
    assert nothing["bond_length_types"].value == 1 and math.isnan(nothing["bond_length_w1"].value)


def test_scattered_atoms_share_no_type_with_molecules(mols: Molecules) -> None:
    scattered = replace(mols, positions=mols.positions * 30)
    for report in (
        evaluate(scattered, mols, bootstrap=FEW),
        evaluate(mols, scattered, bootstrap=FEW),
    ):
        assert report["bond_length_types"].value == report["dihedral_types"].value == 1
        assert math.isnan(report["angle_w1"].value)
    assert evaluate(scattered, scattered, bootstrap=FEW)["bond_length_types"].value == 0


def test_histogram_distances_agree_with_their_formulas() -> None:
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.25, 0.5])
    column = p[:, None]
    assert total_variation(column, q) == pytest.approx([0.5])
    assert wasserstein(column, q, 0.1) == pytest.approx([0.1 * (0.25 + 0.5)])
    middle = (p + q) / 2
    entropy = [-sum(v * math.log2(v) for v in x if v) for x in (middle, p, q)]
    expected = entropy[0] - (entropy[1] + entropy[2]) / 2
    assert jensen_shannon(column, q) == pytest.approx([expected])


def test_resampled_histograms_count_each_molecule_as_often_as_it_was_drawn() -> None:
    cell, owner = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2])
    counts = np.array([[1, 1, 1], [2, 0, 1], [0, 0, 0]], float)
    found = histograms(cell, owner, 3, counts)
    assert found[:, 0] == pytest.approx([1 / 2, 1 / 4, 1 / 4])
    assert found[:, 1] == pytest.approx([2 / 3, 0, 1 / 3])
    assert np.isnan(found[:, 2]).all()


# Intervals.


def test_replicates_draw_as_many_molecules_as_there_are() -> None:
    for block in (5, 10_000):
        counts = np.concatenate(list(Bootstrap(replicates=40).counts(7, most=block)))
        assert counts.shape == (40, 7) and (counts.sum(axis=1) == 7).all()
        assert len(np.unique(counts, axis=0)) > 30
    assert (observed_and_resampled(Bootstrap(replicates=3), 5)[0] == 1).all()


def test_the_interval_of_a_rate_covers_the_truth_as_often_as_it_claims() -> None:
    rng, truth, hits = np.random.default_rng(0), 0.8, 0
    for trial in range(300):
        drawn = (rng.random((150, 1)) < truth).astype(float)
        low, high = Bootstrap(replicates=300, seed=trial).ratio(drawn, np.ones((150, 1)))
        hits += bool(low[0] <= truth <= high[0])
    assert 0.90 <= hits / 300 <= 0.985


def test_the_interval_of_a_pooled_rate_resamples_molecules_not_atoms() -> None:
    # Ten atoms a molecule that stand or fall together hold the information of one atom.
    stable = 10.0 * (np.random.default_rng(0).random((400, 1)) < 0.7)
    pooled = Bootstrap().ratio(stable, np.full((400, 1), 10.0))
    single = Bootstrap().ratio(stable / 10, np.ones((400, 1)))
    np.testing.assert_allclose(pooled, single)


def test_the_interval_of_a_median_covers_the_truth_as_often_as_it_claims() -> None:
    rng, hits = np.random.default_rng(1), 0
    for trial in range(300):
        sample = rng.exponential(size=101)
        low, high = Bootstrap(300, seed=trial).statistic(lambda x: np.median(x, axis=1), sample)
        hits += low <= math.log(2) <= high
    assert 0.90 <= hits / 300 <= 0.985


def test_the_interval_of_a_distance_covers_the_truth_as_often_as_it_claims() -> None:
    rng, hits = np.random.default_rng(2), 0
    reference = lengths(rng.normal(1.5, 0.02, size=20_000))
    for trial in range(100):
        shifted = lengths(rng.normal(1.52, 0.02, size=100))
        found = compare(shifted, reference, Bootstrap(100, seed=trial))[0]["bond_length_w1"]
        assert found.low < found.value < found.high
        hits += found.low <= 0.02 <= found.high
    assert 0.88 <= hits / 100 <= 1


def test_intervals_repeat_for_one_seed_and_differ_for_another(mols: Molecules) -> None:
    one, two, other = (evaluate(mols, mols[:5], n_xtb=2, seed=s).to_json() for s in (3, 3, 4))
    assert one == two != other


# The report.


def test_a_report_survives_the_disk(mols: Molecules, tmp_path: Path) -> None:
    report = evaluate(mols, ceiling=False, bootstrap=FEW)
    assert Report.load(report.save(tmp_path / "deep" / "report.json")) == report
    assert list((tmp_path / "deep").iterdir()) == [tmp_path / "deep" / "report.json"]


def test_a_report_shows_every_metric_beside_real_data(mols: Molecules) -> None:
    report = evaluate(mols, Molecules.concatenate([mols] * 2), n_xtb=2, bootstrap=FEW)
    text, page = str(report), report._repr_html_()
    for name in report.metrics:
        assert name.replace("_", " ") in text and name.replace("_", " ") in page
    assert "real data" in text and "rdkit" in text and "tblite" in text
    assert "<script" not in page


def test_html_of_a_report_escapes_what_it_shows() -> None:
    report = Report({"a<b": Metric(0.5, 0.4, 0.6, 3, 'x "<i>')})
    assert "<i>" not in report._repr_html_() and "a&lt;b" in report._repr_html_()


def test_an_unknown_metric_is_named_with_the_nearest_known_one(mols: Molecules) -> None:
    with pytest.raises(KeyError, match="validity"):
        evaluate(mols, bootstrap=FEW)["valdity"]


def test_values_print_in_percent_or_with_their_unit() -> None:
    assert Metric(0.953, 0.94, 0.961, 9, "").text() == ("95.3 %", "94.0 - 96.1")
    assert Metric(1.234, 1, 2, 9, "", "kcal/mol").text() == ("1.23 kcal/mol", "1 - 2")
    assert Metric(float("nan"), 0, 0, 0, "").text() == ("-", "-")
