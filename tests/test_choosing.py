"""The page on how to choose a sampler leaves nothing out, and says what was measured."""

from __future__ import annotations

import inspect
import json
import pkgutil
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from sciffusion.process import Gaussian
from sciffusion.solver import Solver

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (
    "samplers",
    "grid",
    "schedule",
    "guidance",
    "objective",
    "coupling",
    "likelihood",
    "inverse",
)
# what runs return, and the parts that the machinery is made of: nobody chooses between these
NOT_CHOSEN = {
    *("Carry", "Plan", "Solution", "Rounds", "Loss", "Particles"),
    *("Flow", "Deciding", "Probes", "Local", "Problem"),
    *("Sampler", "Objective", "Posterior"),
}


def classes(package: str) -> Iterator[type]:
    """The final classes that the modules of a package list as public."""
    home = import_module(f"sciffusion.{package}")
    for info in pkgutil.iter_modules(home.__path__, f"{home.__name__}."):
        module = import_module(info.name)
        for name in getattr(module, "__all__", ()):
            found = getattr(module, name)
            if inspect.isclass(found) and found.__module__ == info.name:
                if getattr(found, "__final__", False):
                    yield found


def solvers() -> list[type]:
    return [c for c in classes("samplers") if issubclass(c, Solver)]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark that writes the page."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return import_module("choose_a_sampler")


@pytest.fixture
def page() -> str:
    return (ROOT / "tutorials/choose_a_sampler.md").read_text()


@pytest.mark.parametrize("solver", solvers(), ids=lambda c: c.__name__)
def test_every_solver_is_measured_and_has_a_line_that_says_when_to_choose_it(
    solver: type, script: ModuleType, page: str
) -> None:
    assert script.advice().get(solver.__name__), "the table in sciffusion.samplers has no line"
    settings = [s for s in script.SETTINGS if type(s) is solver]
    assert settings, "benchmarks/choose_a_sampler.py has no settings for it"
    for setting in settings:
        assert f"\n| `{script.label(setting)}` |" in page, "measure again"


def test_the_table_of_solvers_holds_no_other_names(script: ModuleType) -> None:
    assert set(script.advice()) == {c.__name__ for c in solvers()}


def test_solvers_are_called_what_one_types(script: ModuleType) -> None:
    import sciffusion.samplers

    for solver in script.SETTINGS:
        assert eval(script.label(solver), dict(vars(sciffusion.samplers))) == solver


@pytest.mark.parametrize("package", PACKAGES)
def test_the_page_names_everything_that_can_be_chosen(package: str, page: str) -> None:
    known = {c.__name__ for c in classes(package)}
    missing = {name for name in known - NOT_CHOSEN if not re.search(rf"`{name}\b", page)}
    assert missing == set(), "give it a line in benchmarks/choose_a_sampler_template.md"


def test_what_nobody_chooses_is_still_there() -> None:
    assert NOT_CHOSEN <= {c.__name__ for package in PACKAGES for c in classes(package)}


def test_the_page_is_what_the_measured_numbers_make_of_the_template(
    script: ModuleType, page: str
) -> None:
    record = json.loads(script.NUMBERS.read_text())
    written = "run: python benchmarks/choose_a_sampler.py --render"
    assert script.page(record) == page, written


def test_the_picture_names_every_setting_and_is_small(script: ModuleType) -> None:
    picture = script.PICTURE.read_text()
    assert script.PICTURE.stat().st_size < 150_000
    assert [s for s in map(script.label, script.SETTINGS) if f">{s}</text>" not in picture] == []


@pytest.mark.parametrize("calls", [4, 5, 9, 20])
def test_a_run_makes_as_many_steps_as_its_calls_pay_for(calls: int, script: ModuleType) -> None:
    process = Gaussian(script.SCHEDULE)
    for solver in script.SETTINGS:
        sampler = script.affordable(solver, calls)
        if sampler is None:
            continue
        more = script.Sampler(solver, sampler.steps + 1)
        cost, dearer = (sum(len(w.nodes) for w in s.windows(process)) for s in (sampler, more))
        assert cost <= calls < dearer


def test_labels_keep_their_order_and_their_distance(script: ModuleType) -> None:
    heights = [0.3, 0.0, 0.05, 0.04, 2.0]
    moved = script.apart(heights, 0.1)
    order = sorted(range(5), key=lambda i: heights[i])
    assert all(moved[b] - moved[a] > 0.1 - 1e-9 for a, b in zip(order, order[1:], strict=False))
    assert moved[4] == 2.0
    assert sum(moved[:4]) == pytest.approx(sum(heights[:4]))


@pytest.mark.parametrize("where", ["README.md", "benchmarks/README.md"])
def test_the_page_can_be_found(where: str) -> None:
    assert "choose_a_sampler.md" in (ROOT / where).read_text()
