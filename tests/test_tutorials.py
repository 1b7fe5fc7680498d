"""The lessons run as notebooks, publish what they measure, and open in Jupyter unchanged."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

jupytext = pytest.importorskip("jupytext")
nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "tutorials"
LESSONS = sorted(FOLDER.glob("[0-9]*.py"))
TEST_DATA = Path(os.environ.get("SCIFFUSION_TEST_DATA") or ROOT / "../shared/data").resolve()


USES = {"01_molecules": ("molecules", "qm9/qm9.npz")}
"""The data set that a lesson takes if it is in the cache: its folder in the test data, its file in both."""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Seconds instead of minutes, with a cache that holds nothing, and nothing from outside."""
    monkeypatch.setenv("SCIFFUSION_QUICK", "1")
    monkeypatch.setenv("SCIFFUSION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FOLDER), str(ROOT)]))
    return tmp_path / "cache"


def names(value: Path | bool) -> str:
    return value.stem if isinstance(value, Path) else "with data" if value else "without data"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lesson", "data"),
    [
        (lesson, data)
        for lesson in LESSONS
        for data in (False, True)
        if not data or lesson.stem in USES
    ],
    ids=names,
)
def test_a_lesson_runs_as_a_notebook_and_collects_what_it_publishes(
    lesson: Path, data: bool, cache: Path, tmp_path: Path
) -> None:
    if data:
        part, file = USES[lesson.stem]
        found, kept = TEST_DATA / part / file, cache / file
        if not found.exists():
            pytest.skip(f"no test data at {found}")
        kept.parent.mkdir(parents=True)
        kept.symlink_to(found)
    notebook = jupytext.read(lesson)
    last = nbformat.v4.new_code_cell("import json; print(json.dumps(figures))")
    notebook.cells.append(last)
    where = {"metadata": {"path": tmp_path}}
    nbclient.NotebookClient(notebook, timeout=280, kernel_name="python3", resources=where).execute()
    figures = json.loads(last.outputs[0]["text"])
    assert all(isinstance(value, int | float) for value in figures.values())
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = [output.get("data", {}) for cell in cells for output in cell.outputs]
    assert sum("image/png" in data for data in shown) >= 2
    published = FOLDER / "results" / f"{lesson.stem}.json"
    if published.exists():
        assert shapes(json.loads(published.read_text())["figures"]) == shapes(figures)


def shapes(figures: dict[str, float]) -> set[str]:
    """Names of figures without the numbers in them, which depend on the budget."""
    return {re.sub(r"\d+", "#", name) for name in figures}


@pytest.mark.parametrize("lesson", LESSONS, ids=names)
def test_jupyter_saves_a_lesson_as_it_found_it(lesson: Path) -> None:
    notebook = jupytext.reads(lesson.read_text(), fmt="py:percent")
    assert len(notebook.cells) > 5
    again = jupytext.reads(jupytext.writes(notebook, fmt="py:percent"), fmt="py:percent")
    assert [(c.cell_type, c.source) for c in again.cells] == [
        (c.cell_type, c.source) for c in notebook.cells
    ]


@pytest.mark.parametrize("lesson", LESSONS, ids=names)
def test_no_measured_figure_stands_in_the_prose_of_a_lesson(lesson: Path) -> None:
    prose = [c.source for c in jupytext.read(lesson).cells if c.cell_type == "markdown"]
    assert [
        text for text in prose if re.search(r"\d\s?%|\d+\.\d+", text.replace("100 %", ""))
    ] == []


def results(*arguments: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run ``results.py`` as it lies in ``folder``."""
    return subprocess.run(
        [sys.executable, str(folder / "results.py"), *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | env,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def lessons(tmp_path: Path) -> Path:
    """A folder with a lesson of one line."""
    for name in ("results.py", "helper.py"):
        shutil.copy(FOLDER / name, tmp_path)
    (tmp_path / "07_sums.py").write_text("figures = {'two_and_two': 4.0}\n")
    (tmp_path / "08_empty.py").write_text("figures = {}\n")
    return tmp_path


def test_results_are_written_with_what_produced_them(lessons: Path) -> None:
    done = results("07_sums", folder=lessons)
    assert done.returncode == 0, done.stderr
    record = json.loads((lessons / "results" / "07_sums.json").read_text())
    assert record["figures"] == {"two_and_two": 4.0}
    assert record["command"] == "python tutorials/results.py 07_sums"
    assert "threads" in record["hardware"]
    assert f"torch {torch.__version__}" in record["versions"]
    show = "import helper; helper.published('07_sums')"
    shown = subprocess.run(
        [sys.executable, "-c", show],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(lessons), str(ROOT)])},
        capture_output=True,
        text=True,
    ).stdout
    assert re.search(r"two_and_two +4\n", shown)
    assert "command: python tutorials/results.py 07_sums" in shown


def test_results_are_not_written_for_a_quick_run_or_an_empty_or_unknown_lesson(
    lessons: Path,
) -> None:
    assert "mean nothing" in results("07_sums", folder=lessons, SCIFFUSION_QUICK="1").stderr
    assert "name one lesson: 07_sums, 08_empty" in results("09_none", folder=lessons).stderr
    assert "collects no figures" in results("08_empty", folder=lessons).stderr
    assert not (lessons / "results").exists()


def test_a_lesson_that_was_not_measured_says_how_to_measure_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import_module("helper").published("99_unmeasured")
    assert capsys.readouterr().out == (
        "not measured yet: python tutorials/results.py 99_unmeasured\n"
    )
