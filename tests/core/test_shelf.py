"""The shelf of what ships: names are found, files pass, and a wrong name is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from sciffusion.shelf import Shelf


def test_names_and_files_are_found_and_a_wrong_name_is_corrected(tmp_path: Path) -> None:
    for name in (
        "weights/small.safetensors",
        "weights/small-er.safetensors",
        "weights/judges/ear.safetensors",
        "recipes/small.yaml",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    shelf, own = Shelf(tmp_path), tmp_path / "own.yaml"
    own.touch()
    assert list(shelf.all("model")) == ["small", "small-er"]  # by name, not by file
    assert shelf.find("judge", "ear") == tmp_path / "weights" / "judges" / "ear.safetensors"
    assert shelf.find("recipe", own) == own
    with pytest.raises(FileNotFoundError, match=r"no model 'smal': .*\(small, small-er\).*small"):
        shelf.find("model", "smal")
