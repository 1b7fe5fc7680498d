"""Films by name, for the command line: parts of data sets, files and folders; and their judgement."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .datasets import load
from .film import Films

if TYPE_CHECKING:
    from sciffusion.report import Report

__all__ = ["judge", "read"]


def read(source: str | Path) -> Films:
    """Films of a file, a folder, or a part of a data set that needs no file, ``"moving-digits:test"``.

    Raises ``FileNotFoundError`` or ``ValueError`` for neither.
    """
    return load(str(source))


def judge(file: str, reference: str | None = None, *, seed: int = 0) -> Report:
    """Judge the films of ``file``, beside those of ``reference``; both as :func:`read` takes them."""
    return read(file).report(None if reference is None else read(reference), seed=seed)
