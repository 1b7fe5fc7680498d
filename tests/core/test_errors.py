"""Laws of `sciffusion.errors`."""

import sys
from pathlib import Path

import pytest

from sciffusion.errors import MissingExtra, did_you_mean, require


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the import path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_package_that_is_there_is_returned() -> None:
    assert require("collections.abc", extra="molecules") is sys.modules["collections.abc"]


@pytest.mark.parametrize("module", ["absent_package", "absent_package.inner.part"])
def test_an_absent_package_is_named_with_its_extra_and_the_pip_command(module: str) -> None:
    with pytest.raises(MissingExtra) as caught:
        require(module, extra="molecules")
    message = str(caught.value)
    assert repr(module) in message
    assert "'absent_package' is not installed" in message
    assert message.endswith('pip install "sciffusion[molecules]"')
    assert caught.value.name == "absent_package"


def test_a_package_hidden_from_the_import_system_counts_as_absent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "rdkit"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rdkit", None)
    with pytest.raises(MissingExtra, match=r"'rdkit\.Chem' .*sciffusion\[molecules\]"):
        require("rdkit.Chem", extra="molecules")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("raise ImportError('libfoo.so: cannot open shared object file')", ImportError),
        ("import absent_dependency", ModuleNotFoundError),
        ("raise RuntimeError('built for another torch')", RuntimeError),
    ],
)
def test_a_broken_package_raises_its_own_error(
    place: Path, body: str, error: type[Exception]
) -> None:
    (place / "broken_package.py").write_text(body)
    with pytest.raises(error) as caught:
        require("broken_package", extra="molecules")
    assert not isinstance(caught.value, MissingExtra)


def test_a_submodule_that_an_installed_version_lacks_is_not_called_missing(place: Path) -> None:
    (place / "old_package").mkdir()
    (place / "old_package" / "__init__.py").touch()
    with pytest.raises(ModuleNotFoundError, match=r"old_package\.new_part"):
        require("old_package.new_part", extra="molecules")


def test_the_nearest_known_name_is_offered_and_nothing_when_none_is_near() -> None:
    known = ["audio", "molecules", "weather"]
    assert did_you_mean("molecuels", known) == "Did you mean 'molecules'?"
    assert did_you_mean("xyzzy", known) == ""
    assert did_you_mean("audio", []) == ""
