"""QM9: 130,831 small organic molecules with geometries and properties from density functionals.

``qm9()`` fetches it once (104 MB, from the Python package index, with a checksum), reads it into
the compact file of `compact` and keeps that in the cache. The card of the data set is
``datasets/qm9/README.md``; what is fetched, and how it is read, stands in ``recipe.yaml`` there.
"""

from __future__ import annotations

import csv
import io
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from filelock import FileLock
from numpy.typing import NDArray

from sciffusion.io import byte_progress, cache_dir, fetch_pypi

from .compact import Arrays, from_arrays, read_arrays, write_arrays
from .data import MoleculeSet
from .elements import SYMBOLS, DataError

__all__ = ["Row", "edm_split", "prepare_qm9", "qm9", "read_raw", "read_wheel"]

_ENERGIES = ("u0", "u298", "h298", "g298")  # some -400 hartree: more digits than float32 has


class Row(NamedTuple):
    """One molecule as the sources give it."""

    number: int  # of the deposit, from 1
    smiles: str
    z: list[int]
    pos: NDArray[np.float64]  # (n, 3), angstrom, the source's frame
    properties: list[float]


def qm9(
    split: str | None = None,
    *,
    path: str | Path | None = None,
    root: str | Path | None = None,
    progress: bool = True,
) -> MoleculeSet:
    """QM9, or one part of it; fetched and prepared on first use.

    The parts are ``train`` (100,000), ``valid`` (17,748) and ``test`` (13,083) as in EDM
    (Hoogeboom et al., 2022) and Cormorant, and the halves of ``train`` of EDM's protocol for
    conditional generation: ``train_first_half`` for the classifier that judges,
    ``train_second_half`` for the generator.

    Args:
        split: one of them; None is the whole set, which gives them as ``.split(name)``.
        path: a local copy: the compact ``.npz``; or the wheel of qm9pack, or the archive
            ``dsgdb9nsd.xyz.tar.bz2`` of the original deposit, which are read anew by each call
            (`prepare_qm9` makes an ``.npz`` of them).
        root: the folder to keep the set in; None is ``$SCIFFUSION_CACHE/qm9``, else
            ``~/.cache/sciffusion/qm9``.
        progress: show progress, if on a terminal.

    Raises:
        ValueError: no such split.
        DataError: a damaged or incomplete file.
        FileNotFoundError: there is nothing at ``path``.
        DownloadError, ChecksumError: it could not be fetched, or is not what it should be.
    """
    kept = Path(root or cache_dir("qm9")) / "qm9.npz"
    if path is None and not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(kept.parent / ".lock"):  # processes of one training all come here at once
            if not kept.exists():
                _fetch(kept, progress)
    source = Path(path or kept)
    mols = from_arrays(_read(source, progress), name="QM9")
    if not np.array_equal(mols.ids, _numbers()):
        raise DataError(
            f"{source} is not QM9: its {len(mols):,} molecules are not the {len(_numbers()):,} of "
            "the set in rising order"
        )
    atoms = {**mols.properties.atoms, **_recipe()["atoms"]}
    mols = replace(mols, properties=replace(mols.properties, atoms=atoms), splits=edm_split())
    return mols if split is None else mols.split(split)


def _fetch(kept: Path, progress: bool) -> None:
    package = _recipe()["package"]
    wheel = fetch_pypi(
        package["name"],
        package["version"],
        filename=package["filename"],
        sha256=package["sha256"],
        folder=kept.parent,
        progress=progress,
    )
    prepare_qm9(wheel, kept, progress=progress)
    wheel.unlink()


def prepare_qm9(source: str | Path, target: str | Path, *, progress: bool = True) -> Path:
    """Read the wheel of qm9pack or the archive of the deposit, and write the compact ``target``.

    Raises:
        DataError: ``source`` is damaged or incomplete.
        FileNotFoundError: there is no ``source``.
    """
    return write_arrays(target, _read(Path(source), progress))


def edm_split() -> dict[str, NDArray[np.int64]]:
    """The rows of each part of QM9, rising, by the rule that EDM and Cormorant share.

    ``RandomState(0).permutation(130831)`` is cut into train, valid and test; the rows of train,
    sorted, are permuted by ``RandomState(42)`` and cut in half.
    """
    rule = _recipe()["split"]
    names = ("train", "valid", "test")
    # the rule is one of numpy's legacy generator, whose stream never changes
    shuffled = np.random.RandomState(rule["seed"]).permutation(len(_numbers()))
    cuts = np.cumsum([rule[name] for name in names[:-1]])
    parts = dict(zip(names, map(np.sort, np.split(shuffled, cuts)), strict=True))
    train = parts["train"]
    shuffled = train[np.random.RandomState(rule["halves_seed"]).permutation(len(train))]
    first, second = np.split(shuffled, 2)
    return {**parts, "train_first_half": np.sort(first), "train_second_half": np.sort(second)}


def read_wheel(path: Path, *, progress: bool = True) -> Iterator[Row]:
    """The molecules in the CSV tables of the package qm9pack, without installing it."""
    columns = [column for _, _, column in _recipe()["properties"]]
    with zipfile.ZipFile(path) as wheel:
        tables = [wheel.getinfo(name) for name in _recipe()["package"]["tables"]]
        total = sum(table.file_size for table in tables)
        with byte_progress("reading QM9", total, enabled=progress) as advance:
            for table in tables:
                with wheel.open(table) as stream:
                    done = 0
                    for row in csv.DictReader(io.TextIOWrapper(stream, "ascii", newline="")):
                        pos = row["XYZ_Ang"].replace("[", "").replace("]", "")
                        yield Row(
                            int(row["Index"]),
                            row["SMILES"],
                            [SYMBOLS.index(name) for name in row["Elements"][2:-2].split("','")],
                            np.array(pos.split(","), dtype=np.float64).reshape(-1, 3),
                            [float(row[column]) for column in columns],
                        )
                        advance(stream.tell() - done)
                        done = stream.tell()


def read_raw(path: Path, *, progress: bool = True) -> Iterator[Row]:
    """The molecules in the tar archive of ``dsgdb9nsd_*.xyz`` files, compressed or not.

    The trap of the format: an exponent is written ``*^``, as in ``1.5*^-6``. The archive also has
    the molecules that the set leaves out.
    """
    total = path.stat().st_size
    with open(path, "rb") as file, byte_progress("reading QM9", total, enabled=progress) as advance:
        done = 0
        with tarfile.open(fileobj=file, mode="r|*") as archive:
            for member in archive:
                content = archive.extractfile(member) if member.name.endswith(".xyz") else None
                if content is not None:
                    yield _parse_xyz(content.read().decode("ascii"), member.name)
                advance(file.tell() - done)
                done = file.tell()


def _parse_xyz(text: str, name: str) -> Row:
    """One file: count; ``gdb N`` and properties; atoms; frequencies; SMILES; InChI."""
    lines = text.replace("*^", "e").splitlines()
    try:
        atoms = [line.split() for line in lines[2 : 2 + int(lines[0])]]
        _, number, *properties = lines[1].split()
        return Row(
            int(number),
            lines[3 + len(atoms)].split()[0],
            [SYMBOLS.index(atom[0]) for atom in atoms],
            np.array([atom[1:4] for atom in atoms], dtype=np.float64),
            [float(value) for value in properties],
        )
    except (ValueError, IndexError) as error:
        raise DataError(f"{name} is not a molecule in the form of QM9: {error}") from error


def _read(path: Path, progress: bool) -> Arrays:
    """The arrays of the compact file, of whichever source."""
    if path.suffix == ".npz":
        return read_arrays(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    read = read_wheel if path.suffix == ".whl" else read_raw
    wanted = set(_numbers().tolist())
    try:
        rows = {r.number: r for r in read(path, progress=progress) if r.number in wanted}
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, KeyError, OSError) as error:
        raise DataError(f"{path} is damaged: {error!r}; fetch it again") from error
    if len(rows) != len(wanted):
        raise DataError(f"{path} is incomplete: {len(rows):,} of {len(wanted):,} molecules")
    return _compact([rows[number] for number in sorted(rows)])


def _compact(rows: list[Row]) -> Arrays:
    names = [name for name, _, _ in _recipe()["properties"]]
    values = np.array([row.properties for row in rows])
    elements = sorted(_recipe()["atoms"]["u0"])
    atoms = [[_recipe()["atoms"][name][z] for name in _ENERGIES] for z in elements]
    split = np.empty(len(rows), dtype=np.uint8)
    for k, name in enumerate(("train", "valid", "test")):
        split[edm_split()[name]] = k
    return {
        "index": np.array([row.number for row in rows], dtype=np.int32),
        "ptr": np.cumsum([0, *(len(row.z) for row in rows)], dtype=np.int32),
        "z": np.array([z for row in rows for z in row.z], dtype=np.uint8),
        "pos_1e5": np.rint(np.concatenate([row.pos for row in rows]) * 1e5).astype(np.int32),
        "props": values.astype(np.float32),
        "prop_names": np.array(names),
        "prop_units": np.array([unit for _, unit, _ in _recipe()["properties"]]),
        "energy_Eh": values[:, [names.index(name) for name in _ENERGIES]],
        "energy_names": np.array(_ENERGIES),
        "atomref_z": np.array(elements, dtype=np.uint8),
        "atomref_Eh": np.array(atoms),
        "smiles": np.array([row.smiles for row in rows], dtype=np.bytes_),
        "split": split,
        "uncharacterized": _uncharacterized(),
    }


@cache
def _recipe() -> dict[str, Any]:
    recipe: dict[str, Any] = yaml.safe_load((_folder() / "recipe.yaml").read_text("utf-8"))
    return recipe


@cache
def _uncharacterized() -> NDArray[np.int32]:
    """The numbers of the molecules that are left out: they failed the authors' check."""
    text = (_folder() / _recipe()["uncharacterized"]).read_text("ascii")
    return np.array(text.split(), dtype=np.int32)


@cache
def _numbers() -> NDArray[np.int32]:
    """The numbers of the molecules of QM9, rising."""
    deposited = np.arange(1, _recipe()["deposited"] + 1, dtype=np.int32)
    return np.setdiff1d(deposited, _uncharacterized())


def _folder() -> Traversable:
    return files("sciffusion") / "datasets" / "qm9"
