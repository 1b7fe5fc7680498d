"""What a run writes down and shows."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from sciffusion.training.logs import Table

from .toy import run


def write(path: Path, steps: range) -> None:
    table = Table(path, steps.start - 1)
    for step in steps:
        table.add({"step": step, "loss": 1 / step})
    table.close()


def test_a_resumed_table_equals_one_that_was_never_interrupted(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole.csv", tmp_path / "parts.csv"
    write(whole, range(1, 31))
    write(parts, range(1, 21))
    write(parts, range(11, 31))  # the checkpoint was from step 10
    assert parts.read_text() == whole.read_text()
    assert parts.read_text().count("step") == 1


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_row_torn_by_a_crash_is_dropped(cut: int, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole.csv", tmp_path / "parts.csv"
    write(whole, range(1, 7))
    write(parts, range(1, 5))
    lines = parts.read_text().splitlines(keepends=True)
    kept, lost = "".join(lines[:3]), "".join(lines[3:])
    parts.write_text(kept + lost[:cut])
    write(parts, range(3, 7))
    assert parts.read_text() == whole.read_text()


def test_a_table_torn_in_its_header_starts_anew(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("step,lo")
    write(tmp_path / "a.csv", range(1, 4))
    write(tmp_path / "b.csv", range(1, 4))
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()


def test_floats_are_written_so_that_they_are_read_back_exactly(tmp_path: Path) -> None:
    values = [1 / 3, 1e-300, 123456789.123456789, float("inf")]
    table = Table(tmp_path / "a.csv", 0)
    for step, value in enumerate(values):
        table.add({"step": step, "loss": value})
    table.close()
    lines = (tmp_path / "a.csv").read_text().splitlines()[1:]
    assert [float(line.split(",")[1]) for line in lines] == values


def test_other_columns_than_before_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", range(1, 4))
    with pytest.raises(ValueError, match="has columns"):
        Table(tmp_path / "a.csv", 3).add({"step": 4, "mae": 1.0})


def test_without_a_terminal_a_line_comes_every_few_seconds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path / "a", "print_seconds=0", "steps=5")
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("step ")]
    assert [x.split()[1] for x in lines] == [f"{i}/5" for i in range(1, 6)]
    assert all("loss" in x and "samples/s" in x and "left" in x for x in lines)
    run(tmp_path / "b", "print_seconds=1000", "steps=5")
    assert "samples/s" not in capsys.readouterr().err


class Terminal(io.StringIO):
    """A terminal that remembers."""

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_there_is_a_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "stderr", screen)
    run(tmp_path, "print_seconds=0", "steps=7")
    assert "7/7" in screen.getvalue()
    assert "finished at step 7 of 7" in screen.getvalue()


def test_tensorboard_is_written_when_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path, "tensorboard=true", "steps=9")
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [e.step for e in events.Scalars("log/loss")] == [3, 6, 9]
