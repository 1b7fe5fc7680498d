"""torchaudio, which also imports where its compiled part cannot: see :mod:`sciffusion.mended`."""

from __future__ import annotations

from types import ModuleType

from sciffusion.errors import require
from sciffusion.mended import mend_torchaudio

__all__ = ["torchaudio"]


def torchaudio() -> ModuleType:
    """The package ``torchaudio``; what is used of it here needs no compiled part.

    Raises:
        MissingExtra: it is not installed.
        OSError, ImportError: it is broken in other ways.
    """
    mend_torchaudio()
    return require("torchaudio", extra="audio")
