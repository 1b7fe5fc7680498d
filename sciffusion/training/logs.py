"""What a run tells: a CSV file that is exact after a resume, and a line or bar for the eyes."""

from __future__ import annotations

import csv
import os
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from sciffusion.errors import require
from sciffusion.io.atomic import atomic_write

from .config import TrainConfig

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


@final
class Table:
    """A CSV file with one row per record; on a resume, rows after the resumed step are removed."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self._columns: list[str] = []
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.reader(file))
            kept = rows[:1] + [r for r in rows[1:] if len(r) == len(rows[0]) and int(r[0]) <= step]
            self._columns = kept[0] if len(kept) > 1 else []
            with atomic_write(path) as part, part.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerows(kept if self._columns else [])
        self._file = path.open("a", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file, lineterminator="\n")

    def add(self, row: Mapping[str, float]) -> None:
        """Append a row, and the header before the first one.

        Raises:
            ValueError: if the columns differ from the header.
        """
        if not self._columns:
            self._columns = list(row)
            self._writer.writerow(self._columns)
        if list(row) != self._columns:
            raise ValueError(f"{self.path} has columns {self._columns}, got {list(row)}")
        self._writer.writerow(row.values())
        self._file.flush()

    def sync(self) -> None:
        """Force the rows to the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@final
class Log:
    """The records of one run, on the first process; on others every call does nothing.

    ``log.csv`` has a row per ``log_every`` steps: means over those steps. All columns but
    ``seconds`` are reproduced exactly by a resumed run. ``validation.csv`` has a row per
    validation.
    """

    def __init__(self, directory: Path, config: TrainConfig, *, step: int, active: bool) -> None:
        self._active = active
        if not active:
            return
        self._tables = {n: Table(directory / f"{n}.csv", step) for n in ("log", "validation")}
        self._steps, self._print_seconds = config.steps, config.print_seconds
        self._fresh_steps, self._fresh_samples, self._shown = 0, 0, time.monotonic()
        self._console = Console(file=sys.stderr)
        self._bar = _bar(self._console) if sys.stderr.isatty() else None
        self._writer: SummaryWriter | None = None
        if config.tensorboard:
            require("tensorboard", extra="train")
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(directory), purge_step=step + 1)
        if self._bar is not None:
            self._bar.start()
            self._row = self._bar.add_task("", total=config.steps, completed=step, loss="", rate="")

    def record(self, row: Mapping[str, float], table: str = "log") -> None:
        """Write a row whose first column is the step."""
        if not self._active:
            return
        self._tables[table].add(row)
        if self._writer is not None:
            for name, value in row.items():
                self._writer.add_scalar(f"{table}/{name}", value, row["step"])
        if table == "validation":
            self.say("validation " + ", ".join(f"{k} {v:.6g}" for k, v in row.items()))

    def tick(self, samples: int) -> bool:
        """Count a step; tell whether the display is due for a fresh loss."""
        if not self._active:
            return False
        self._fresh_steps += 1
        self._fresh_samples += samples
        if self._bar is not None:
            self._bar.advance(self._row)
        wait = 1.0 if self._bar is not None else self._print_seconds
        return time.monotonic() - self._shown >= wait

    def show(self, step: int, loss: float) -> None:
        """Display the loss, the speed since the last display, and the time left at that speed."""
        now = time.monotonic()
        elapsed = max(now - self._shown, 1e-9)
        rate = self._fresh_samples / elapsed
        left = timedelta(seconds=round((self._steps - step) * elapsed / max(self._fresh_steps, 1)))
        self._shown, self._fresh_steps, self._fresh_samples = now, 0, 0
        if self._bar is not None:
            self._bar.update(self._row, loss=f"loss {loss:.4g}", rate=f"{rate:.4g} samples/s")
        else:
            self.say(
                f"step {step}/{self._steps}  loss {loss:.5g}  {rate:.4g} samples/s  {left} left"
            )

    def say(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        if self._active:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def sync(self) -> None:
        """Force the rows to the disk, before a checkpoint that counts on them."""
        if self._active:
            for table in self._tables.values():
                table.sync()

    def close(self) -> None:
        """Close files and display."""
        if not self._active:
            return
        for table in self._tables.values():
            table.close()
        if self._bar is not None:
            self._bar.stop()
        if self._writer is not None:
            self._writer.close()


def _bar(console: Console) -> Progress:
    return Progress(
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
