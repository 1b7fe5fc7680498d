"""Files: written whole or not at all, and fetched with their checksum."""

from sciffusion.io.atomic import atomic_write, sha256
from sciffusion.io.download import (
    ChecksumError,
    DownloadError,
    byte_progress,
    cache_dir,
    fetch,
    fetch_pypi,
    verify,
)
from sciffusion.io.npz import read_npz

__all__ = [
    "ChecksumError",
    "DownloadError",
    "atomic_write",
    "byte_progress",
    "cache_dir",
    "fetch",
    "fetch_pypi",
    "read_npz",
    "sha256",
    "verify",
]
