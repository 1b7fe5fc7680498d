"""How good sampled molecules are, as the field defines it, every figure with an interval.

The definitions of stability, validity, uniqueness and novelty are those of EDM (Hoogeboom et al.,
ICML 2022, arXiv:2203.17003) for the bonds that the molecules' rule draws. Rates are fractions of
all molecules that were sampled, unless the name says otherwise. Nothing is dropped silently: what
could not be computed counts as a failure or is listed as one.

No figure means much alone. Real molecules do not reach 100 % either, and atoms scattered so far
that nothing is bonded are mostly "valid". Read each figure beside that of real data, beside
connectedness and beside the distances of the geometry.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from importlib.metadata import version

import numpy as np

from sciffusion.bootstrap import Bootstrap
from sciffusion.errors import require
from sciffusion.report import Metric, Report

from .chem import Bools, Floats, Ints, molecule_of_atom
from .container import Molecule, Molecules
from .distances import histograms, observed_and_resampled, total_variation, wasserstein
from .geometry_metrics import bond_angles, bond_lengths, compare, dihedrals
from .oracle_xtb import XTB, Failed, Relaxation

__all__ = ["evaluate", "posebusters"]


def evaluate(
    mols: Molecules,
    reference: Molecules | None = None,
    *,
    known: Collection[str] | None = None,
    n_posebusters: int = 0,
    n_xtb: int = 0,
    ceiling: bool = True,
    bootstrap: Bootstrap | None = None,
    seed: int = 0,
) -> Report:
    """Judge sampled molecules.

    Args:
        mols: the sampled molecules, all of them.
        reference: real molecules with the same bond rule; brings novelty, the distances of
            composition and geometry and, unless ``ceiling`` is off, the figures of real data: a
            random sample of the reference, as large as ``mols`` (at most half of it), is judged
            against the rest of it.
        known: the SMILES keys (``Molecules.chemistry.key``) that are not novel, such as those of
            the training set; those of the reference unless given.
        n_posebusters, n_xtb: how many molecules, drawn at random, PoseBusters (about 0.1 s each)
            and GFN2-xTB (about 0.1 to 1 s each, see `oracle_xtb` on threads) judge.
        bootstrap: the intervals; 95 %, 1000 replicates (200 for distances), seeded by ``seed``.
        seed: of the subsamples and of the bootstrap.

    Raises:
        ValueError: no molecules, or a reference with another bond rule.
    """
    if not len(mols):
        raise ValueError("there are no molecules to judge")
    if reference is not None and reference.rule != mols.rule:
        raise ValueError(
            f"the reference draws bonds by {reference.rule}, the molecules by {mols.rule}: "
            "their figures cannot be compared"
        )
    bootstrap = bootstrap or Bootstrap(seed=seed)
    if known is None and reference is not None:
        known = {key for key in reference.chemistry.key if key is not None}
    metrics = _graph_metrics(mols, known, bootstrap)
    details: dict[str, Metric] = {}
    if reference is not None:
        few = replace(bootstrap, replicates=min(200, bootstrap.replicates))
        metrics |= _composition_metrics(mols, reference, few)
        for coordinates in (bond_lengths, bond_angles, dihedrals):
            summary, types = compare(coordinates(mols), coordinates(reference), few)
            metrics |= summary
            details |= types
    rng = np.random.default_rng(seed)
    if n_posebusters:
        checked, tests = _posebusters_metrics(_subsample(mols, n_posebusters, rng), bootstrap)
        metrics |= checked
        details |= tests
    if n_xtb:
        metrics |= _xtb_metrics(_subsample(mols, n_xtb, rng), bootstrap)
    best: dict[str, Metric] = {}
    if ceiling and reference is not None and len(reference) > 1:
        order = rng.permutation(len(reference))
        held = min(len(mols), len(reference) // 2)
        best = dict(
            evaluate(
                reference[order[:held]],
                reference[order[held:]],
                known=None,
                n_posebusters=n_posebusters,
                n_xtb=n_xtb,
                ceiling=False,
                bootstrap=bootstrap,
                seed=seed,
            ).metrics
        )
    about: dict[str, str | int] = {"molecules": len(mols), "bonds": repr(mols.rule), "seed": seed}
    if reference is not None:
        about["reference"] = len(reference)
    packages = ["rdkit", *["posebusters"] * bool(n_posebusters), *["tblite"] * bool(n_xtb)]
    about |= {package: version(package) for package in packages}
    return Report(metrics, best, details, about, bootstrap.level)


def posebusters(mols: Molecules) -> dict[str, Bools]:
    """The tests of PoseBusters' ``mol`` set except the energy ratio, each (M,) passed or not.

    The energy ratio needs a conformer ensemble and takes a hundred times as long as all other
    tests; strain by GFN2-xTB says more. A molecule that RDKit does not sanitise fails every test.
    Buttenschoen et al., Chem. Sci. 15, 3130 (2024).
    """
    busters = require("posebusters", extra="molecules")
    judge = busters.PoseBusters(config="mol")
    judge.config["modules"] = [
        module for module in judge.config["modules"] if module["function"] != "energy_ratio"
    ]
    valid = np.flatnonzero(mols.valid)
    molecules = mols[valid].rdkit()
    if not molecules:
        return {"loaded": np.zeros(len(mols), bool)}
    log = logging.getLogger("posebusters")
    before = log.level
    log.setLevel(logging.ERROR)  # a molecule that is odd is an outcome, not a message
    try:
        with require("rdkit.rdBase", extra="molecules").BlockLogs():
            table = judge.bust(molecules, None, None)
    finally:
        log.setLevel(before)
    tests: dict[str, Bools] = {}
    for name in table.columns:
        tests[str(name)] = np.zeros(len(mols), bool)
        tests[str(name)][valid] = table[name].eq(True)  # what could not be tested has failed
    return tests


def _graph_metrics(
    mols: Molecules, known: Collection[str] | None, bootstrap: Bootstrap
) -> dict[str, Metric]:
    """Stability, validity, uniqueness and novelty, each a ratio of sums over molecules."""
    found, every = mols.chemistry, np.ones(len(mols))
    times = Counter(key for key in found.key if key is not None)
    # Each of k equal molecules is a k-th of a distinct one. Their sum is the number of distinct
    # molecules, in any order, and molecules can be resampled without making new copies.
    distinct = np.array([0.0 if key is None else 1 / times[key] for key in found.key])
    rates = {
        "atom_stability": (found.n_stable, found.n_atoms, "atoms of allowed valence"),
        "molecule_stability": (found.stable, every, "molecules with all atoms stable"),
        "validity": (found.valid, every, "molecules that RDKit sanitises, in one piece or not"),
        "connectedness": (found.connected, every, "molecules in one piece"),
        "valid_and_connected": (found.valid & found.connected, every, "valid and in one piece"),
        "uniqueness": (distinct, found.valid, "distinct among the valid; falls with sample size"),
        "valid_and_unique": (distinct, every, "distinct valid molecules per molecule sampled"),
    }
    if known is not None:
        new = distinct * np.array([key is not None and key not in known for key in found.key])
        rates["novelty"] = (new, distinct, "distinct valid molecules that are not known")
        rates["valid_unique_novel"] = (new, every, "distinct new molecules per molecule sampled")
    top, bottom = (np.stack([rate[i] for rate in rates.values()], axis=1) for i in range(2))
    total = bottom.sum(axis=0, dtype=float)
    value = np.where(total > 0, top.sum(axis=0) / np.where(total > 0, total, 1.0), np.nan)
    low, high = bootstrap.ratio(top, bottom)
    return {
        name: Metric(float(value[i]), float(low[i]), float(high[i]), len(mols), rate[2])
        for i, (name, rate) in enumerate(rates.items())
    }


def _composition_metrics(
    mols: Molecules, reference: Molecules, bootstrap: Bootstrap
) -> dict[str, Metric]:
    """Distances of the elements and of the sizes."""
    counts = observed_and_resampled(bootstrap, len(mols))

    def shares(cell: Ints, owner: Ints, target: Ints) -> tuple[Floats, Floats]:
        cells = int(max(cell.max(), target.max())) + 1
        goal = np.bincount(target, minlength=cells) / len(target)
        return histograms(cell, owner, cells, counts), goal

    elements = total_variation(*shares(mols.z, molecule_of_atom(mols.ptr), reference.z))
    sizes = wasserstein(*shares(mols.sizes, np.arange(len(mols)), reference.sizes), 1.0)
    what = "total variation between the shares of the elements"
    return {
        "elements": Metric(*bootstrap.distance(elements), len(mols), what),
        "size_w1": Metric(
            *bootstrap.distance(sizes), len(mols), "Wasserstein-1 of the numbers of atoms", "atoms"
        ),
    }


def _posebusters_metrics(
    mols: Molecules, bootstrap: Bootstrap
) -> tuple[dict[str, Metric], dict[str, Metric]]:
    """Passed all tests over all molecules; in the details every test on its own."""
    tests = posebusters(mols)
    table = np.stack([np.all(list(tests.values()), axis=0), *tests.values()], axis=1)
    low, high = bootstrap.ratio(table, np.ones(table.shape))
    what = "passes all tests of PoseBusters (mol, without energy ratio); invalid molecules fail"
    names = ["posebusters", *(f"posebusters {name}" for name in tests)]
    texts = [what, *(f"passes PoseBusters' {name}; invalid molecules fail" for name in tests)]
    rows = {
        name: Metric(float(table[:, i].mean()), float(low[i]), float(high[i]), len(mols), text)
        for i, (name, text) in enumerate(zip(names, texts, strict=True))
    }
    return {"posebusters": rows.pop("posebusters")}, rows


def _xtb_metrics(mols: Molecules, bootstrap: Bootstrap) -> dict[str, Metric]:
    """Strain and displacement of those that relax, and the share of all that keep their graph."""
    outcomes = [_relax(mols[m]) for m in range(len(mols))]
    done = [(m, found) for m, found in enumerate(outcomes) if isinstance(found, Relaxation)]
    lost = len(mols) - len(done)
    relaxed = np.isin(np.arange(len(mols)), [m for m, _ in done])
    kept = np.zeros(len(mols), bool)
    for m, found in done:
        kept[m] = _same_graph(mols[m], found.positions)
    metrics = {}
    for name, flags, what in (
        ("xtb_relaxed", relaxed, "GFN2-xTB converges to a minimum"),
        ("graph_preserved", kept, "relaxes, and the same atoms are bonded before and after"),
    ):
        low, high = bootstrap.ratio(flags[:, None], np.ones((len(mols), 1)))
        value = float(flags.mean())
        metrics[name] = Metric(value, float(low[0]), float(high[0]), len(mols), what, failed=lost)
    strain = np.array([found.strain for _, found in done])
    rmsd = np.array([found.rmsd for _, found in done])
    for name, values, middle, unit, what in (
        ("strain_median", strain, np.median, "kcal/mol", "median energy given up by relaxing"),
        ("strain_mean", strain, np.mean, "kcal/mol", "mean energy given up by relaxing"),
        ("relax_rmsd_median", rmsd, np.median, "angstrom", "median displacement by relaxing"),
    ):
        interval = (float("nan"),) * 2
        if done:
            interval = bootstrap.statistic(partial(middle, axis=1), values)
        value = float(middle(values)) if done else float("nan")
        metrics[name] = Metric(value, *interval, len(done), f"{what} with GFN2-xTB", unit, lost)
    return metrics


def _relax(mol: Molecule) -> Relaxation | Failed:
    charge = 0 if mol.charges is None else int(mol.charges.sum())
    return XTB(charge).relax(mol)


def _same_graph(mol: Molecule, positions: Floats) -> bool:
    """Whether the same pairs are bonded, of whatever order, at the new positions."""
    moved = Molecule(positions, mol.z, mol.charges, mol.rule)
    return np.array_equal(mol.batch.bonds.pairs, moved.batch.bonds.pairs)


def _subsample(mols: Molecules, n: int, rng: np.random.Generator) -> Molecules:
    return mols[np.sort(rng.choice(len(mols), size=min(n, len(mols)), replace=False))]
