"""Files from elsewhere: fetched once, resumed when cut off, kept if the checksum is right."""

import http.client
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.response import addinfourl

from sciffusion.io import atomic

__all__ = [
    "ChecksumError",
    "DownloadError",
    "byte_progress",
    "cache_dir",
    "fetch",
    "fetch_pypi",
    "verify",
]

_CHUNK = 1 << 20
_TIMEOUT = 60.0  # seconds of silence


class DownloadError(OSError):
    """A file could not be fetched; the message says from where, why, and what was kept."""


class ChecksumError(ValueError):
    """A file's SHA-256 is not the expected one."""

    def __init__(self, path: Path, expected: str, got: str, advice: str) -> None:
        super().__init__(
            f"checksum of {path} is wrong\n  expected sha256 {expected}\n  got      sha256 {got}\n"
            f"{advice}"
        )
        self.path = path
        self.expected = expected
        self.got = got


def cache_dir(*parts: str) -> Path:
    """The folder for fetched files: ``$SCIFFUSION_CACHE``, else ``~/.cache/sciffusion``.

    ``parts`` name a folder inside it. Nothing is created.
    """
    root = os.environ.get("SCIFFUSION_CACHE")
    base = Path(root).expanduser() if root else Path.home() / ".cache" / "sciffusion"
    return base.joinpath(*parts)


def verify(path: str | Path, sha256: str, *, advice: str = "") -> Path:
    """Return ``path`` if its SHA-256 is ``sha256`` (hexadecimal, either case).

    ``advice`` tells the reader of the error what to do.

    Raises:
        ChecksumError: it is not.
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    got = atomic.sha256(path)
    if got != sha256.lower():
        advice = advice or f"Delete {path} and fetch it again."
        raise ChecksumError(path, sha256.lower(), got, advice)
    return path


@contextmanager
def byte_progress(
    label: str, total: int | None, *, enabled: bool = True
) -> Iterator[Callable[[int], None]]:
    """A progress bar in bytes on standard error; the block calls what it is given with each count.

    ``total`` is the number of bytes to come, None when it is unknown. Nothing is shown where
    ``enabled`` is false or standard error is not a terminal.
    """
    if not (enabled and sys.stderr.isatty()):
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total)
        yield lambda count: bar.advance(task, count)


def fetch(url: str, path: str | Path, *, sha256: str, progress: bool = True) -> Path:
    """Fetch ``url`` (https, http or file) to ``path`` and return the path.

    A file that is already there with the right checksum is not fetched again. What arrives is
    collected in ``path`` + ``.part``; if the transfer is cut off, that file stays, and the next
    call asks the server for the rest only (an HTTP range request). A server that knows no ranges
    sends everything, and the collection starts over. The file gets its name once its checksum
    is right. One process at a time may fetch to one path.

    Raises:
        ChecksumError: the file that arrived, or that was at ``path`` before, is another one.
        DownloadError: the transfer failed.
        ValueError: ``url`` has another scheme.
    """
    path = Path(path)
    scheme = urlsplit(url).scheme
    if scheme not in ("https", "http", "file"):
        raise ValueError(f"url {url!r} has the scheme {scheme!r}; use https, http or file")
    if path.exists():
        return verify(path, sha256, advice=f"Move {path} away or delete it, then call again.")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        _collect(url, part, label=path.name, progress=progress)
    except (OSError, http.client.HTTPException) as error:
        kept = part.stat().st_size if part.exists() else 0
        fate = f". The first {kept:,} bytes are kept in {part}: call again to go on" if kept else ""
        raise DownloadError(f"could not fetch {url}: {error}{fate}") from error
    try:
        verify(part, sha256, advice=f"It came from {url} and was removed; you may call again.")
    except ChecksumError:
        part.unlink()
        raise
    atomic.replace(part, path)
    return path


def _collect(url: str, part: Path, *, label: str, progress: bool) -> None:
    """Append to ``part`` what it lacks of ``url``; OSError when the transfer ends early."""
    have = part.stat().st_size if part.exists() else 0
    try:
        response = _open(url, start=have)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # range not satisfiable: the part is whole, or not of this file
            raise
        if _total(error.headers.get("Content-Range")) == have:
            return
        have = 0
        response = _open(url, start=0)
    with response:
        if have and not _continues(response, have):
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length is not None else None
        with (
            open(part, "ab" if have else "wb") as file,
            byte_progress(label, total, enabled=progress) as advance,
        ):
            advance(have)
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                have += len(chunk)
                advance(len(chunk))
    # http.client does not report a connection that closes early: read(n) just comes back empty
    if total is not None and have < total:
        raise OSError(f"the connection closed after {have:,} of {total:,} bytes")


def _open(url: str, *, start: int) -> addinfourl:
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    response: addinfourl = urllib.request.urlopen(request, timeout=_TIMEOUT)
    return response


def _continues(response: addinfourl, start: int) -> bool:
    """Whether the body begins at byte ``start``, as was asked."""
    begins = response.headers.get("Content-Range", "").removeprefix("bytes").strip()
    return response.status == 206 and begins.startswith(f"{start}-")


def _total(content_range: str | None) -> int | None:
    """The size in ``bytes */1234``."""
    size = (content_range or "").rpartition("/")[2]
    return int(size) if size.isdigit() else None


def fetch_pypi(
    package: str,
    version: str,
    *,
    filename: str,
    sha256: str,
    folder: str | Path,
    progress: bool = True,
) -> Path:
    """Fetch one file of a package from the Python package index to ``folder``; return its path.

    ``pip download`` does it, so the index, the proxy and the certificates are those of the user's
    pip settings. Nothing is installed, and the package's dependencies are not looked at.
    ``filename`` is the wheel or source archive that pip is expected to choose.

    Raises:
        ChecksumError: the file that came, or that was there before, is another one.
        DownloadError: pip is missing, failed, or chose another file; the message holds its words.
    """
    target = Path(folder) / filename
    if target.exists():
        return verify(target, sha256, advice=f"Move {target} away or delete it, then call again.")
    target.parent.mkdir(parents=True, exist_ok=True)
    kind = "--only-binary" if filename.endswith(".whl") else "--no-binary"
    pip = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps"]
    shown = progress and sys.stderr.isatty()  # pip draws a bar of its own
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".pip-") as temporary:
        done = subprocess.run(
            [*pip, kind, ":all:", "--dest", temporary, f"{package}=={version}"],
            stdout=None if shown else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            raise DownloadError(
                f"pip could not download {package}=={version}: {done.stderr.strip()}\n"
                f"Fetch {filename} (sha256 {sha256}) in another way and put it at {target}."
            )
        got = Path(temporary) / filename
        if not got.exists():
            others = ", ".join(sorted(p.name for p in Path(temporary).iterdir()))
            raise DownloadError(f"pip chose {others} for {package}=={version}, not {filename}")
        verify(got, sha256, advice=f"The index of pip serves another {filename}; it was removed.")
        atomic.replace(got, target)
    return target
