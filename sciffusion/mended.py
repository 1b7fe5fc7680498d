"""Mending torchaudio, which others import too, where its compiled part does not load.

Its builds on PyPI for Linux link against CUDA: beside a CPU build of torch, or one that they were not compiled for,
``import torchaudio`` raises ``OSError``, and so does all that imports it on the way, such as ``transformers`` and
``diffusers``. Much of it is plain Python over torch; the compiled part is then replaced by a module that says it is not
there, as torchaudio's own pure builds do.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType

__all__ = ["mend_torchaudio"]

_EXTENSION = "torchaudio._extension"


def mend_torchaudio() -> None:
    """Make ``import torchaudio`` work if it is installed and only its compiled part is broken; else change nothing.

    It may be called after an import elsewhere has failed. One that imports by itself is left as it is; where it is
    broken in other ways ``sys.modules`` is as after the plain failure.
    """
    try:
        import_module("torchaudio")
    except (OSError, ImportError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "torchaudio":
            return  # it is not installed
        _forget()
        sys.modules[_EXTENSION] = _without_compiled_part()
        try:
            import_module("torchaudio")
        except Exception:  # whatever it is, whoever imports torchaudio will be told
            _forget()


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
