"""The repository's shape, and that a wheel, an sdist and a checkout hold the same library."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from importlib.metadata import PathDistribution
from pathlib import Path, PurePosixPath
from zipfile import Path as ZipPath
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"sciffusion", "domains", "datasets", "tests", "tutorials"}
REQUIRED = FOLDERS | {"pyproject.toml", "README.md"}
ALLOWED = REQUIRED | {"benchmarks", "Makefile", "LICENSE", ".ci", ".gitignore"}
PICTURES = {".png", ".svg", ".gif"}  # a README's pictures stay out of the wheel


def run(*command: str | Path, cwd: Path = ROOT, **env: str) -> str:
    """Standard output of a command that must succeed; its whole output is shown if it does not."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=os.environ | env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def files() -> list[PurePosixPath]:
    """Every file of the repository that git does not ignore, symlinks as such."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout")
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    return [PurePosixPath(name) for name in sorted(set(listed)) if os.path.lexists(ROOT / name)]


@dataclass(frozen=True)
class Build:
    """Two wheels of one tree: built from it directly, and by way of an sdist."""

    direct: Path
    by_sdist: Path

    @staticmethod
    def contents(wheel: Path) -> dict[str, int]:
        """Checksum of each file; RECORD only repeats them."""
        with ZipFile(wheel) as archive:
            return {i.filename: i.CRC for i in archive.infolist() if "RECORD" not in i.filename}


@pytest.fixture(scope="module")
def built(files: list[PurePosixPath], tmp_path_factory: pytest.TempPathFactory) -> Build:
    # A copy: setuptools writes into the tree it builds, and packs what an earlier build left there.
    tree = tmp_path_factory.mktemp("tree")
    for name in files:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tree / name, follow_symlinks=False)
    out = tmp_path_factory.mktemp("dist")
    build = (sys.executable, "-m", "build", "--no-isolation", tree, "--outdir")
    run(*build, out / "by_sdist", cwd=out)
    run(*build, out / "direct", "--wheel", cwd=out)
    (direct,) = (out / "direct").glob("*.whl")
    (by_sdist,) = (out / "by_sdist").glob("*.whl")
    return Build(direct, by_sdist)


@pytest.fixture(scope="module")
def project() -> dict[str, dict]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def requirements(project: dict[str, dict]) -> list[Requirement]:
    extras = project["optional-dependencies"].values()
    return [Requirement(line) for lines in (project["dependencies"], *extras) for line in lines]


@pytest.fixture(scope="module")
def pins() -> dict[str, Version]:
    lines = (ROOT / ".ci" / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def test_the_top_level_holds_what_the_readme_lists_and_nothing_else() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    top = {name.partition("/")[0] for name in run("git", "ls-files").splitlines()}
    assert REQUIRED <= top <= ALLOWED


def test_the_links_to_domains_and_datasets_are_symlinks_in_git(files: list[PurePosixPath]) -> None:
    staged = run("git", "ls-files", "--stage", "sciffusion/domains", "sciffusion/datasets")
    assert [line.split()[0] for line in staged.splitlines()] == ["120000", "120000"]
    for name in ("domains", "datasets"):
        assert os.readlink(ROOT / "sciffusion" / name) == f"../{name}"


def test_datasets_is_data_and_never_an_importable_package(files: list[PurePosixPath]) -> None:
    assert [f for f in files if f.parts[0] == "datasets" and f.suffix == ".py"] == []


def test_a_wheel_from_the_tree_and_one_from_the_sdist_hold_the_same_bytes(built: Build) -> None:
    direct = Build.contents(built.direct)
    assert direct == Build.contents(built.by_sdist)
    assert direct  # not two empty wheels


def test_the_wheel_puts_only_sciffusion_at_the_top(built: Build, project: dict[str, dict]) -> None:
    top = {name.partition("/")[0] for name in Build.contents(built.direct)}
    (info,) = (name for name in top if name.endswith(".dist-info"))
    assert top == {"sciffusion", info}


def test_the_wheel_holds_every_file_of_the_library(
    built: Build, files: list[PurePosixPath]
) -> None:
    wanted = {
        str("sciffusion" / name if name.parts[0] in ("domains", "datasets") else name)
        for name in files
        if name.parts[0] in ("sciffusion", "domains", "datasets")
        and not (ROOT / name).is_symlink()
        and name.suffix not in PICTURES
    }
    packed = {name for name in Build.contents(built.direct) if name.startswith("sciffusion/")}
    assert {name for name in packed if not name.endswith(tuple(PICTURES))} == wanted


def test_an_installed_wheel_imports_and_finds_its_domains_and_data(
    built: Build, tmp_path: Path
) -> None:
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index")
    run(*pip, "--no-compile", "--target", tmp_path / "site", built.by_sdist)
    seen = run(
        sys.executable,
        "-P",
        "-c",
        "import sciffusion, sciffusion.domains, json\n"
        "from importlib.resources import files\n"
        "from sciffusion.registry import domains\n"
        "data = files('sciffusion') / 'datasets' / 'README.md'\n"
        "where = [sciffusion.__file__, sciffusion.domains.__file__, str(data)]\n"
        "print(json.dumps([where, data.is_file(), list(domains()), sciffusion.__version__]))",
        cwd=tmp_path,
        PYTHONPATH=str(tmp_path / "site"),
    )
    where, data_there, domains, version = json.loads(seen)
    assert all(Path(path).is_relative_to(tmp_path / "site") for path in where)
    assert data_there
    assert "molecules" in domains
    (info,) = (tmp_path / "site").glob("sciffusion-*.dist-info")
    assert version == PathDistribution(info).version


def test_the_wheel_declares_its_command_its_domains_and_its_types(built: Build) -> None:
    archive = ZipFile(built.direct)
    (info,) = (p for p in ZipPath(archive).iterdir() if p.name.endswith(".dist-info"))
    declared = (info / "entry_points.txt").read_text()
    assert "sciffusion = sciffusion.cli:main" in declared
    assert "molecules = sciffusion.domains.molecules" in declared
    assert "sciffusion/py.typed" in archive.namelist()


def test_dependencies_have_lower_bounds_and_no_upper_ones(requirements: list[Requirement]) -> None:
    for requirement in requirements:
        if requirement.name != "sciffusion":
            assert [s.operator for s in requirement.specifier] == [">="], str(requirement)


def test_the_extra_all_brings_every_domain(project: dict[str, dict]) -> None:
    extras = project["optional-dependencies"]
    (everything,) = (Requirement(line) for line in extras["all"])
    assert everything.name == "sciffusion"
    # a domain's extra is its name; what only serves beside them may stay out
    assert everything.extras >= project["entry-points"]["sciffusion.domains"].keys()
    assert everything.extras <= extras.keys() - {"all", "dev"}


def test_every_package_that_make_installs_is_pinned_at_an_allowed_version(
    project: dict[str, dict], pins: dict[str, Version]
) -> None:
    extras = project["optional-dependencies"]
    for line in (*project["dependencies"], *extras["molecules"], *extras["dev"]):
        requirement = Requirement(line)
        pin = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pin), f"{requirement} against {pin}"


def test_the_makefile_runs_under_ci_and_its_targets_are_listed() -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    listed = run("make", "help", CI="true")
    for target in ("demo", "test", "lint", "env", "clean"):
        assert f"make {target}" in listed
    plan = run("make", "--dry-run", "--always-make", "demo", CI="true")
    torch = plan.index("torch==")
    assert torch < plan.index("--editable '.[molecules]'") < plan.index("sciffusion demo")
