"""Laws of `sciffusion.registry`."""

import sys
import tomllib
from pathlib import Path

import pytest

import sciffusion.domains
from sciffusion.registry import GROUP, domains, load_domain

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that offers the domains ``polymers`` and ``proteins``."""
    (tmp_path / "plugin_domain.py").write_text("NAME = 'polymers'\n")
    info = tmp_path / "plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[{GROUP}]\npolymers = plugin_domain\nproteins = plugin_domain\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "plugin_domain", raising=False)
    return tmp_path


def test_the_entry_points_that_are_declared_are_the_folders_that_are_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    folders = {path.parent.name for path in ROOT.glob("domains/*/__init__.py")}
    assert project["entry-points"][GROUP] == {name: f"{GROUP}.{name}" for name in folders}


def test_every_domain_that_ships_is_known_without_being_imported() -> None:
    shipped = {path.parent.name for path in ROOT.glob("domains/*/__init__.py")}
    known = domains()
    assert shipped <= known.keys()
    assert list(known) == sorted(known)
    assert all(known[name].value == f"{GROUP}.{name}" for name in shipped)


@pytest.mark.usefixtures("plugins")
def test_another_package_adds_a_domain_by_an_entry_point() -> None:
    assert domains()["polymers"].value == "plugin_domain"
    assert "plugin_domain" not in sys.modules
    assert load_domain("polymers").NAME == "polymers"


@pytest.mark.usefixtures("plugins")
def test_another_package_cannot_take_over_a_domain_that_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folders" / "proteins").mkdir(parents=True)
    (tmp_path / "folders" / "proteins" / "__init__.py").touch()
    monkeypatch.setattr(sciffusion.domains, "__path__", [str(tmp_path / "folders")])
    assert domains()["proteins"].value == f"{GROUP}.proteins"


@pytest.mark.usefixtures("plugins")
def test_an_unknown_domain_is_answered_with_the_known_names_and_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown domain 'polymer'") as caught:
        load_domain("polymer")
    assert "'molecules'" in str(caught.value)
    assert str(caught.value).endswith("Did you mean 'polymers'?")
