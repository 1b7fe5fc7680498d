"""torchaudio, which also imports where its compiled part cannot.

Its builds on PyPI for Linux link against CUDA: beside a CPU build of torch, or one that they were not compiled for,
``import torchaudio`` raises ``OSError``. What is used of it here is plain Python over torch and needs no compiled part,
so that part is then replaced by a module that says it is not there, as torchaudio's own pure builds do.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType

from sciffusion.errors import MissingExtra, require

__all__ = ["torchaudio"]

_EXTENSION = "torchaudio._extension"


def torchaudio() -> ModuleType:
    """The package ``torchaudio``; one that imports by itself is left as it is.

    It may be called after an import elsewhere has failed, and what imports torchaudio afterwards finds it working. If
    it cannot be mended either, ``sys.modules`` is as after the plain failure and that failure is raised.

    Raises:
        MissingExtra: it is not installed.
        OSError, ImportError: it is broken in other ways.
    """
    try:
        return require("torchaudio", extra="audio")
    except MissingExtra:
        raise
    except (OSError, ImportError) as error:
        _forget()
        sys.modules[_EXTENSION] = _without_compiled_part()
        try:
            return require("torchaudio", extra="audio")
        except Exception:
            _forget()
            raise error from None


def _forget() -> None:
    """Drop what a failed import has left behind."""
    for name in list(sys.modules):
        if name == "torchaudio" or name.startswith("torchaudio."):
            del sys.modules[name]


def _without_compiled_part() -> ModuleType:
    """``torchaudio._extension`` of a build that has none."""

    def unavailable(function: Callable[..., object]) -> Callable[..., object]:
        def fail(*args: object, **kwargs: object) -> object:
            raise RuntimeError(
                f"torchaudio's {function.__name__} needs its compiled part, which does not load here"
            )

        return fail

    stub = ModuleType(_EXTENSION)
    names: dict[str, object] = {
        "_IS_TORCHAUDIO_EXT_AVAILABLE": False,
        "_IS_ALIGN_AVAILABLE": False,
        "_check_cuda_version": lambda: None,
        "fail_if_no_align": unavailable,
    }
    vars(stub).update(names)
    return stub
