"""Importing torchaudio: beside any torch, after a failure elsewhere, broken beyond repair, and missing."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sciffusion.domains.audio._torchaudio import torchaudio
from sciffusion.errors import MissingExtra

FAILS = "raise OSError('libcudart is missing')\n"


def loaded() -> dict:
    return {k: v for k, v in sys.modules.items() if k.partition(".")[0] == "torchaudio"}


@pytest.fixture
def fresh() -> Iterator[None]:
    """An interpreter that has not seen torchaudio yet."""
    before = loaded()
    for name in before:
        del sys.modules[name]
    yield
    for name in loaded():
        del sys.modules[name]
    sys.modules.update(before)


@pytest.fixture
def package(fresh: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of this name to be filled, found before the real one."""
    (tmp_path / "torchaudio" / "_extension").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "torchaudio"


def test_the_installed_torchaudio_works(fresh: None) -> None:
    found = torchaudio()
    assert found.functional.resample(torch.ones(1, 100), 2, 1).shape == (1, 50)
    assert torchaudio() is found is importlib.import_module("torchaudio")


def test_it_can_be_had_after_an_import_elsewhere_has_failed(package: Path) -> None:
    (package / "_extension" / "__init__.py").write_text(FAILS)
    (package / "__init__.py").write_text("from . import part, _extension\nworks = True\n")
    (package / "part.py").write_text("")
    with pytest.raises(OSError, match="libcudart"):
        importlib.import_module("torchaudio")
    assert torchaudio().works
    assert importlib.import_module("torchaudio").works  # and so can everybody else


def test_one_that_works_keeps_its_compiled_part(package: Path) -> None:
    (package / "_extension" / "__init__.py").write_text("compiled = True\n")
    (package / "__init__.py").write_text("from . import _extension\n")
    assert torchaudio()._extension.compiled


def test_what_needs_the_compiled_part_says_so(package: Path) -> None:
    (package / "_extension" / "__init__.py").write_text(FAILS)
    (package / "__init__.py").write_text(
        "from ._extension import fail_if_no_align\n"
        "@fail_if_no_align\ndef forced_align():\n    pass\n"
    )
    with pytest.raises(RuntimeError, match="forced_align needs its compiled part"):
        torchaudio().forced_align()


def test_one_that_is_broken_otherwise_fails_as_it_would_without_us(package: Path) -> None:
    (package / "_extension" / "__init__.py").write_text("")
    (package / "__init__.py").write_text("from . import _extension\n" + FAILS)
    with pytest.raises(OSError, match="libcudart"):
        torchaudio()
    assert "torchaudio" not in loaded()
    with pytest.raises(OSError, match="libcudart"):
        importlib.import_module("torchaudio")


def test_a_missing_one_is_named_with_the_command_that_brings_it(
    fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    with pytest.raises(MissingExtra, match=r'pip install "sciffusion\[audio\]"'):
        torchaudio()
