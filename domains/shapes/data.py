"""Data sets of shapes, by name. Their cards are ``datasets/NAME/README.md``."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from sciffusion.errors import did_you_mean
from sciffusion.io import atomic_write, cache_dir, read_npz, verify
from sciffusion.noise import sample_seeds

from .container import Shapes
from .surfaces import PRIMITIVES, Superquadric, primitive

__all__ = ["DATASETS", "SUPERQUADRICS", "load", "primitives", "proteins", "superquadrics"]

SUPERQUADRICS: Mapping[str, tuple[float, float]] = {
    "box": (0.2, 0.2),
    "cylinder": (0.2, 1.0),
    "double-cone": (2.0, 1.0),
    "ellipsoid": (1.0, 1.0),
    "octahedron": (2.0, 2.0),
}
"""The exponents of each class of superquadrics."""

POINTS = 256
"""Points of a generated shape."""

PARTS = {"train": 0, "test": 1}
"""The seeds of the parts of generated data."""

PROTEINS = "protein-backbones"
PROTEIN_PARTS = ("train", "valid", "test")
_DIGEST = "f2ffbacce3886463b70167efa081cca5def453ecc340e6a1c2400f0da4b0ddb9"


def superquadrics(n: int, *, seed: int = 0, points: int = POINTS) -> Shapes:
    """``n`` superquadrics of the five classes in turn, points uniform by area, centred at the mean of the points.

    The semi-axes are log-uniform from 0.5 to 1.5; labels ``label``, and ``a``, ``b``, ``c``. Shape i depends on the
    seed and on i alone. Raises ``ValueError`` for fewer than one shape or point.
    """
    return _generated(n, seed, points, list(SUPERQUADRICS), _superquadric)


def primitives(n: int, *, seed: int = 0, points: int = POINTS) -> Shapes:
    """``n`` boxes, cones, cylinders, spheres and tori in turn; see :func:`superquadrics` and :func:`.primitive`.

    Sizes are log-uniform from 0.5 to 1.5; labels ``label``, and ``a``, ``b``, ``c``.
    """

    def draw(kind: str, size: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
        return np.asarray(primitive(kind, n, size, rng))

    return _generated(n, seed, points, list(PRIMITIVES), draw)


def proteins(path: str | Path) -> Shapes:
    """The C-alpha atoms of 5,485 protein chains of 40 to 128 residues, centred, in angstrom; from the local file.

    Labels: ``part`` (train, valid, test), ``pdb`` and ``chain``.

    Raises:
        FileNotFoundError: there is no such file.
        ChecksumError: it is another file.
    """
    path = verify(path, _DIGEST, advice=f"datasets/{PROTEINS}/README.md says which file is meant.")
    found = read_npz(path, "ptr", "coords_1e2", "split", "pdb_id", "chain")
    ca = found["coords_1e2"][:, 1].astype(np.float64) / 100
    labels = {
        "part": np.array(PROTEIN_PARTS)[found["split"]],
        "pdb": found["pdb_id"].astype(str),
        "chain": found["chain"].astype(str),
    }
    return Shapes.of(np.split(ca, found["ptr"][1:-1]), labels).centred()


def load(name: str, path: str | Path | None = None, *, limit: int | None = None) -> Shapes:
    """Shapes by name: a part of a data set, ``"superquadrics:test"``, or a file or folder that ``Shapes.read`` reads.

    ``path`` is the local file of protein backbones, which need one until they are kept; ``limit`` takes the first
    shapes only (of generated ones there are 1,000 unless told, and no end).

    Raises:
        ValueError: another part, no path where one is needed, or one where none is.
        FileNotFoundError: neither a data set nor a file.
    """
    source, _, part = name.partition(":")
    if source not in DATASETS:
        if Path(name).exists():
            return Shapes.read(name)[:limit]
        raise FileNotFoundError(
            f"{name!r} is neither a file or folder nor a data set; there are {', '.join(DATASETS)}, and their parts "
            f"such as superquadrics:test. {did_you_mean(source, DATASETS)}".rstrip()
        )
    parts = PROTEIN_PARTS if source == PROTEINS else tuple(PARTS)
    if part not in ("", *parts):
        raise ValueError(f"{source} has the parts {', '.join(parts)}, got {part!r}")
    if source == PROTEINS:
        kept = cache_dir(PROTEINS) / f"{PROTEINS}.npz"
        if path is None and not kept.is_file():
            raise ValueError(
                f"{PROTEINS} is not fetched: name its local file with path, or keep it once with `sciffusion data get "
                f"{PROTEINS} --path FILE` (datasets/{PROTEINS}/README.md says which file)"
            )
        shapes = proteins(kept if path is None else path)
        rows = np.flatnonzero(shapes.labels["part"] == part) if part else np.arange(len(shapes))
        return shapes[rows[:limit]]
    if path is not None:
        raise ValueError(f"{source} are generated: leave path out")
    make = superquadrics if source == "superquadrics" else primitives
    return make(1000 if limit is None else limit, seed=PARTS[part or "train"])


def _generated(
    n: int,
    seed: int,
    points: int,
    kinds: list[str],
    draw: Callable[[str, np.ndarray, int, np.random.Generator], np.ndarray],
) -> Shapes:
    if n < 1 or points < 1:
        raise ValueError(f"n and points must be at least 1, got {n} and {points}")
    made, sizes = [], []
    for i, own in enumerate(sample_seeds(seed, n)):
        rng = np.random.default_rng(own)
        size = np.exp(rng.uniform(np.log(0.5), np.log(1.5), 3))
        made.append(draw(kinds[i % len(kinds)], size, points, rng))
        sizes.append(size)
    labels = dict(zip("abc", np.stack(sizes, 1), strict=True))
    names = np.array([kinds[i % len(kinds)] for i in range(n)])
    return Shapes.of(made, {"label": names, **labels}).centred()


def _superquadric(kind: str, size: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    a, b, c = size.tolist()
    return np.asarray(Superquadric((a, b, c), SUPERQUADRICS[kind]).sample(n, rng))


def _get(name: str, path: Path | None = None) -> tuple[Shapes, Path]:
    found = load(name, path)
    if name != PROTEINS:
        return found, Path("memory")
    kept = cache_dir(PROTEINS) / f"{PROTEINS}.npz"
    if path is not None and Path(path).resolve() != kept.resolve():
        with atomic_write(kept) as part:
            shutil.copyfile(path, part)
    return found, kept


DATASETS: Mapping[str, Callable[[Path | None], tuple[Shapes, Path]]] = {
    name: partial(_get, name) for name in ("superquadrics", "primitives", PROTEINS)
}
"""How to make each data set or keep it from a local copy; the functions return it and where it is kept."""
