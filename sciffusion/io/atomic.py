"""Files that are there whole, or not there.

A program that is killed while it writes must not leave half a checkpoint under the name of a
whole one. So a file is written beside its target, forced to the disk and then renamed over it:
within one file system a rename is atomic, and a reader sees the old file or the new one.
"""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["atomic_write", "replace", "sha256"]


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Give a path to write to, which becomes ``path`` when the block ends well.

    If the block raises, what it wrote is removed. The temporary file lies in the folder of
    ``path`` (which is made if need be), is hidden, and keeps the suffix, for the sake of writers
    that look at it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     target = Path(folder) / "note.txt"
    ...     with atomic_write(target) as part:
    ...         _ = part.write_text("whole")
    ...     target.read_text()
    'whole'

    Raises:
        FileNotFoundError: the block ended without writing the path that it was given.
        IsADirectoryError: ``path`` is a folder.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"cannot write the file {target}: a folder has that name")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".part-{os.getpid()}-{secrets.token_hex(4)}-{target.name}")
    try:
        yield part
        if not part.exists():
            raise FileNotFoundError(
                f"nothing was written for {target}: write to the path that atomic_write gives"
            )
        replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def replace(part: Path, target: Path) -> None:
    """Force ``part`` to the disk, then rename it to ``target``, over what was there."""
    with open(part, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(part, target)
    if os.name == "posix":  # the new name is an entry of the folder: it has to reach the disk too
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, as 64 lower-case hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
