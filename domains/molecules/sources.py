"""Molecules by name: a file, or a part of a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sciffusion.errors import did_you_mean, require
from sciffusion.io import atomic_write, cache_dir

from .container import Molecules
from .data import MoleculeSet
from .qm9 import prepare_qm9, qm9

if TYPE_CHECKING:
    from sciffusion.report import Report

__all__ = ["DATASETS", "check_output", "judge", "read"]

_SUFFIXES = (".sdf", ".xyz")


def read(source: str | Path) -> Molecules:
    """Molecules of a file (``"mols.sdf"``, ``"mols.xyz"``) or of a data set (``"qm9:test"``).

    A data set without a part, ``"qm9"``, is all of it. It is fetched on first use.

    Raises:
        FileNotFoundError: no such file.
        ValueError: neither a file nor a data set, or one that cannot be read.
    """
    path, (name, _, split) = Path(source), str(source).partition(":")
    if path.suffix.lower() in _SUFFIXES:
        return Molecules.load(path)
    if name in DATASETS:
        return _container(_SETS[name](split or None))
    raise ValueError(
        f"{str(source)!r} is neither a file that ends with {' or '.join(_SUFFIXES)} nor a part of "
        f"a data set such as 'qm9:test'. {did_you_mean(name, DATASETS)}".rstrip()
    )


def check_output(path: Path) -> None:
    """See early whether molecules can be written to ``path``.

    Raises:
        ValueError: the suffix is of no known format.
        MissingExtra: RDKit, which writes all formats, is not installed.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"{path}: molecules are written to files that end with .sdf or .xyz")
    require("rdkit.Chem", extra="molecules")


def judge(
    file: str,
    reference: str | None = None,
    *,
    seed: int = 0,
    n_xtb: int = 0,
    n_posebusters: int = 0,
) -> Report:
    """Judge the molecules of a file, or of a part of a data set; for the arguments see `Molecules.report`."""
    against = None if reference is None else read(reference)
    return read(file).report(against, seed=seed, n_xtb=n_xtb, n_posebusters=n_posebusters)


def get_qm9(path: Path | None = None) -> tuple[MoleculeSet, Path]:
    """QM9 and the file that keeps it, which is made from a local copy if there is one at ``path``."""
    kept = cache_dir("qm9") / "qm9.npz"
    if path is None:
        return qm9(), kept
    with atomic_write(kept) as part:
        prepare_qm9(path, part)
        mols = qm9(path=part)  # if it is another set this raises, and nothing is kept
    return mols, kept


def _container(mols: MoleculeSet) -> Molecules:
    charges = None if mols.charges is None else mols.charges.numpy().astype(np.int64)
    z = mols.z.numpy().astype(np.int64)
    return Molecules(mols.pos.double().numpy(), z, mols.ptr.numpy(), charges)


_SETS: Mapping[str, Callable[[str | None], MoleculeSet]] = {"qm9": qm9}

DATASETS: Mapping[str, Callable[[Path | None], tuple[MoleculeSet, Path]]] = {"qm9": get_qm9}
"""How to fetch each data set; the functions return it and the file in which it is kept."""
