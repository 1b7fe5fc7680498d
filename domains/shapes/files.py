"""Files of points: ``.npz`` with labels, ``.ply``, and the plain tables ``.npy`` and ``.xyz``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sciffusion.io import atomic_write, read_npz

from .container import Shapes

__all__ = ["SUFFIXES", "read", "write"]

SUFFIXES = (".npy", ".xyz", ".ply")
"""Files of one set of points."""

_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": "="}


def read(path: str | Path) -> Shapes:
    """Point sets of an ``.npz`` that ``save`` wrote, of one file of points, or of a folder of such files.

    ``.npy`` holds an array (n, 3); ``.xyz`` lines of text whose first three columns are x, y and z; of a ``.ply`` the
    vertices are read, in text or binary. In a folder with folders these name the classes (label ``label``); sets come
    in the order of their names, with their file (label ``file``).

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: no points, or a file that cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file or folder {path}")
    if path.suffix == ".npz":
        return _arrays(path)
    return Shapes.of([_points(path)], {"file": [path.name]})


def write(shapes: Shapes, path: str | Path) -> Path:
    """Write point sets as :meth:`Shapes.save` says."""
    path = Path(path)
    if path.suffix == ".npz":
        arrays = {f"label.{k}": np.asarray(v) for k, v in shapes.labels.items()}
        with atomic_write(path) as part, open(part, "wb") as file:
            np.savez_compressed(
                file,
                points=shapes.points.numpy(),
                sizes=shapes.sizes,
                **arrays,  # type: ignore[arg-type]
            )
    elif path.suffix == ".ply":
        if len(shapes) > 1:
            raise ValueError(
                f"{path}: a .ply holds one set of points, got {len(shapes)}; write .npz, or a folder (no suffix)"
            )
        _write_ply(shapes.points.numpy(), path)
    elif path.suffix:
        raise ValueError(f"{path}: end it with .npz, .ply (one set), or nothing (a folder)")
    else:
        width, classes = len(str(len(shapes) - 1)), shapes.labels.get("label")
        for i, points in enumerate(shapes.parts()):
            name = "" if classes is None else str(classes[i]).replace("/", "-").strip() or "none"
            _write_ply(points.numpy(), path / name / f"{i:0{width}d}.ply")
    return path


def _write_ply(points: NDArray[np.float32], path: Path) -> None:
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    header += [*(f"property float {axis}" for axis in "xyz"), "end_header", ""]
    with atomic_write(path) as part:
        part.write_bytes("\n".join(header).encode() + points.astype("<f4").tobytes())


def _points(path: Path) -> NDArray[Any]:
    """The points (n, 3) of one file."""
    try:
        match path.suffix.lower():
            case ".npy":
                points = np.load(path)
            case ".xyz":
                points = np.loadtxt(path, usecols=(0, 1, 2), ndmin=2)
            case ".ply":
                points = _read_ply(path.read_bytes())
            case _:
                raise ValueError(f"its suffix is none of {', '.join(SUFFIXES)}, .npz")
    except (ValueError, OSError, KeyError, IndexError, UnicodeDecodeError, EOFError) as error:
        raise ValueError(f"{path} is not a readable file of points: {error}") from error
    if points.ndim != 2 or points.shape[1] != 3 or not len(points):
        raise ValueError(f"{path} must hold points (n, 3), got {points.shape}")
    return np.asarray(points)


def _read_ply(data: bytes) -> NDArray[np.float64]:
    """The vertices, which must be the first element; what follows them is not read."""
    head, found, body = data.partition(b"end_header\n")
    if not found:
        head, found, body = data.partition(b"end_header\r\n")
    lines = [line.split() for line in head.decode("ascii").splitlines() if line.strip()]
    if not found or lines[0] != ["ply"]:
        raise ValueError("it has no header of a PLY file")
    order = _ORDERS[next(line[1] for line in lines if line[0] == "format")]
    elements = [i for i, line in enumerate(lines) if line[0] == "element"]
    if not elements or lines[elements[0]][1] != "vertex":
        raise ValueError("its first element is not vertex")
    n = int(lines[elements[0]][2])
    end = elements[1] if len(elements) > 1 else len(lines)
    properties = [line[1:] for line in lines[elements[0] : end] if line[0] == "property"]
    names = [p[-1] for p in properties]
    if not {"x", "y", "z"} <= set(names) or any(p[0] == "list" for p in properties):
        raise ValueError(f"its vertices have the properties {names}, not x, y and z without lists")
    columns = [names.index(axis) for axis in "xyz"]
    if order == "=":
        rows = [line.split() for line in body.decode("ascii").splitlines() if line.strip()][:n]
        table = np.array([[float(row[c]) for c in columns] for row in rows])
    else:
        kind = np.dtype(
            [(name, order + _TYPES[p[0]]) for name, p in zip(names, properties, strict=True)]
        )
        if len(body) < n * kind.itemsize:
            raise ValueError(f"it is cut off: {n} vertices were announced")
        vertices = np.frombuffer(body, kind, n)
        table = np.stack([vertices[axis].astype(np.float64) for axis in "xyz"], 1)
    if len(table) < n:
        raise ValueError(f"it is cut off: {n} vertices were announced, {len(table)} are there")
    return table


def _arrays(path: Path) -> Shapes:
    found = read_npz(path)
    missing = {"points", "sizes"} - set(found)
    if missing:
        raise ValueError(f"{path} has no array {sorted(missing)}; save shapes with Shapes.save")
    labels = {k.removeprefix("label."): v for k, v in found.items() if k.startswith("label.")}
    try:
        return Shapes(torch.from_numpy(found["points"]), found["sizes"].astype(np.int64), labels)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def _folder(folder: Path) -> Shapes:
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not files:
        raise ValueError(f"{folder} holds no files of points ({', '.join(SUFFIXES)})")
    inner = [p.relative_to(folder) for p in files]
    labels: dict[str, Any] = {"file": [str(p) for p in inner]}
    if all(len(p.parts) > 1 for p in inner):
        labels["label"] = [p.parts[0] for p in inner]
    return Shapes.of([_points(p) for p in files], labels)
