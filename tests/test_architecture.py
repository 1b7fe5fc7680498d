"""Which part of the library may import what, and what `import sciffusion` costs."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import packages_distributions, requires
from importlib.util import resolve_name
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import sciffusion
from sciffusion.registry import domains

ROOT = Path(__file__).resolve().parents[1]
MATHS = {"torch", "numpy", "sciffusion"}
# What each outer room of the core may import at module level beyond the mathematics. A bare GPU
# machine trains with these; cyclopts belongs to the command line.
ROOMS = {
    "training": {"yaml", "safetensors", "rich"},
    "io": {"yaml", "safetensors"},
    "config": {"yaml"},
    "cli": {"yaml", "safetensors", "rich", "cyclopts"},
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DOMAINS = sorted(ROOT.glob("domains/*/__init__.py"))
OWNERS = packages_distributions()  # module -> the installed distributions that bring it


def core_files() -> list[Path]:
    """The core's own files: not what lies behind the links to domains and data sets."""
    found = []
    for folder, inner, names in os.walk(ROOT / "sciffusion"):
        inner[:] = [name for name in inner if not (Path(folder) / name).is_symlink()]
        found += [Path(folder) / name for name in names if name.endswith(".py")]
    return sorted(found)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(path: Path) -> str:
    """``training`` for sciffusion/training/loop.py, ``cli`` for sciffusion/cli.py."""
    return path.relative_to(ROOT / "sciffusion").with_suffix("").parts[0]


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def statements(tree: ast.AST, *, at_import: bool) -> Iterator[ast.AST]:
    """All nodes; with ``at_import`` only those that run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if at_import and isinstance(node, ast.If) and is_type_checking(node):
            for other in node.orelse:
                yield from (other, *statements(other, at_import=True))
            continue
        yield node
        yield from statements(node, at_import=at_import)


def imported(path: Path, *, at_import: bool) -> set[str]:
    """Absolute names of what a file imports; ``from a import b`` counts as ``a.b``."""
    name = module_name(path)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    names: set[str] = set()
    for node in statements(ast.parse(path.read_text()), at_import=at_import):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = resolve_name("." * node.level + (node.module or ""), package)
            names |= {f"{origin}.{alias.name}" for alias in node.names}
    return names


def required(path: Path) -> set[tuple[str, str]]:
    """The calls ``require(module, extra=extra)`` in a file, as pairs of module and extra."""
    pairs = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("require", "errors.require"):
            module, extra = [*node.args, *(keyword.value for keyword in node.keywords)][:2]
            if isinstance(module, ast.Constant) and isinstance(extra, ast.Constant):
                pairs.add((str(module.value), str(extra.value)))
    return pairs


def distributions(lines: Iterable[str]) -> set[str]:
    """Canonical names in a list of requirements."""
    names = {str(canonicalize_name(Requirement(line).name)) for line in lines}
    return names - {"sciffusion"}


def distributions_of_extras() -> set[str]:
    """What only the extras bring: neither the core's dependencies nor what torch brings along."""
    lines = [line for extra in PROJECT["optional-dependencies"].values() for line in extra]
    torch = [line for line in requires("torch") or [] if "extra ==" not in line]
    return distributions(lines) - distributions(PROJECT["dependencies"]) - distributions(torch)


def modules_of(wanted: set[str]) -> set[str]:
    """Top-level modules that distributions bring; one that is not installed is taken to bring that of its name."""
    owned = {module: {canonicalize_name(o) for o in owners} for module, owners in OWNERS.items()}
    absent = wanted - set().union(*owned.values())
    brought = {module for module, owners in owned.items() if wanted & owners}
    return brought | {name.replace("-", "_") for name in absent}


def run_python(code: str, *blocked: str) -> str:
    """Standard output of ``code`` in a new interpreter in which ``blocked`` packages are absent."""
    hide = f"import sys; sys.modules.update(dict.fromkeys({sorted(blocked)!r}))\n"
    done = subprocess.run(
        [sys.executable, "-P", "-c", hide + code],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_walk_over_the_core_sees_the_core_and_no_domain() -> None:
    names = {module_name(path) for path in core_files()}
    assert {"sciffusion", "sciffusion.errors", "sciffusion.registry"} <= names
    assert not any(name.startswith("sciffusion.domains") for name in names)


def test_the_core_imports_no_domain() -> None:
    guilty = {
        (module_name(path), name)
        for path in core_files()
        for name in imported(path, at_import=False)
        if f"{name}.".startswith(("sciffusion.domains.", "domains."))
    }
    assert guilty == set()


def test_the_mathematical_core_imports_only_torch_numpy_and_the_standard_library() -> None:
    guilty = {
        (module_name(path), top)
        for path in core_files()
        for top in {name.partition(".")[0] for name in imported(path, at_import=True)}
        if top not in MATHS | ROOMS.get(room(path), set()) | sys.stdlib_module_names
    }
    assert guilty == set()


def test_imports_run_one_way_from_the_mathematics_to_training_to_the_command_line() -> None:
    rank = {"config": 1, "io": 1, "report": 1, "training": 2}
    rank |= {"interop": 3, "cli": 3, "__main__": 4}
    # else: mathematics, 0
    guilty = set()
    for path in core_files():
        for name in imported(path, at_import=True):
            top, _, rest = name.partition(".")
            if top == "sciffusion" and rank.get(rest.partition(".")[0], 0) > rank.get(
                room(path), 0
            ):
                guilty.add((module_name(path), name))
    assert guilty == set()


def test_domains_import_their_own_files_relatively() -> None:
    # By the real path domains/x.py and by sciffusion.domains.x a file must mean the same classes.
    guilty = {
        (str(path.relative_to(ROOT)), node.module)
        for path in (ROOT / "domains").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        and f"{node.module}.".startswith(("sciffusion.domains.", "domains."))
        and node.level == 0
    }
    assert guilty == set()


def test_import_sciffusion_brings_in_nothing_but_the_standard_library() -> None:
    code = (
        "before = set(sys.modules)\n"
        "import sciffusion, json\n"
        "print(json.dumps(sorted({n.partition('.')[0] for n in set(sys.modules) - before})))"
    )
    brought = set(json.loads(run_python(code)))
    assert brought <= {"sciffusion"} | sys.stdlib_module_names


def test_import_sciffusion_takes_less_than_a_third_of_a_second() -> None:
    code = (
        "import time; start = time.perf_counter()\n"
        "import sciffusion\n"
        "print(time.perf_counter() - start)"
    )
    assert min(float(run_python(code)) for _ in range(3)) < 0.3


def test_every_exported_name_resolves_without_any_extra() -> None:
    code = (
        "import sciffusion\n"
        "assert set(sciffusion.__all__) <= set(dir(sciffusion))\n"
        "for name in sciffusion.__all__: getattr(sciffusion, name)\n"
    )
    run_python(code, *modules_of(distributions_of_extras()))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'sciffusion' has no attribute 'diffuse'"):
        _ = sciffusion.diffuse


def test_every_module_of_the_core_imports_on_a_bare_gpu_machine() -> None:
    names = [module_name(path) for path in core_files() if room(path) != "cli"]
    blocked = modules_of(distributions_of_extras()) | {"cyclopts"}
    run_python(f"import importlib\nfor name in {names!r}: importlib.import_module(name)", *blocked)


def test_importing_a_domain_needs_none_of_its_packages() -> None:
    names = [entry.module for entry in domains().values() if entry.module.startswith("sciffusion.")]
    blocked = modules_of(distributions_of_extras()) | {"cyclopts"}
    run_python(f"import importlib\nfor name in {names!r}: importlib.import_module(name)", *blocked)


def test_every_required_package_is_brought_by_the_extra_that_is_named() -> None:
    brought = {
        extra: modules_of(distributions(lines))
        for extra, lines in PROJECT["optional-dependencies"].items()
    }
    guilty = {
        (str(path.relative_to(ROOT)), module, extra)
        for path in (*core_files(), *(ROOT / "domains").rglob("*.py"))
        for module, extra in required(path)
        if module.partition(".")[0] not in brought.get(extra, set())
    }
    assert guilty == set()
    named = {
        extra
        for path in (*core_files(), *(ROOT / "domains").rglob("*.py"))
        for _, extra in required(path)
    }
    assert "dev" not in named  # users do not develop


@pytest.mark.parametrize("part", ["core", *(path.parent.name for path in DOMAINS)])
def test_every_dependency_is_used(part: str) -> None:
    if part == "core":
        declared, paths = PROJECT["dependencies"], core_files()
    else:
        declared = PROJECT["optional-dependencies"][part]
        paths = list((ROOT / "domains" / part).rglob("*.py"))
    used = {
        name.partition(".")[0]
        for path in paths
        for name in (*imported(path, at_import=False), *(module for module, _ in required(path)))
    }
    unused = {name for name in distributions(declared) if not modules_of({name}) & used}
    assert unused == set()


def test_the_product_names_no_path_of_the_place_where_it_was_written() -> None:
    listed = [
        path
        for part in ("sciffusion", "domains", "datasets", "tutorials", "benchmarks", ".ci")
        for path in (ROOT / part).rglob("*")
    ]
    text = {".py", ".md", ".yaml", ".json", ".toml", ".txt", ".csv", ".sh", ""}
    files = {p for p in listed if p.is_file() and p.suffix in text and "__pycache__" not in p.parts}
    files |= {ROOT / name for name in ("README.md", "Makefile", "pyproject.toml")}
    local = re.compile(r"\.\./shared|(?<![\w.])/work\b")
    assert {str(p.relative_to(ROOT)) for p in files if local.search(p.read_text())} == set()
