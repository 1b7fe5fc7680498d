"""Fair timing on a shared machine: CPU time of this process, contenders interleaved, ratios pair by pair."""

from __future__ import annotations

import json
import platform
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

__all__ = ["Times", "environment", "interleave", "ratio", "show", "write"]

Times = dict[str, list[float]]
"""Seconds of CPU time by contender, one per repeat."""


def interleave(run: Mapping[str, Callable[[], object]], repeats: int, at_least: float) -> Times:
    """Time all contenders in turn, ``repeats`` times, so that a slow spell of the machine hits all of them.

    Each time is the mean over enough calls to last ``at_least`` seconds. The order turns by one from repeat to repeat.
    """
    calls = {}
    for name, fn in run.items():
        fn()  # warm up
        start = time.process_time()
        fn()
        calls[name] = max(1, round(at_least / max(time.process_time() - start, 1e-7)))
    names = list(run)
    times: Times = {name: [] for name in names}
    for repeat in range(repeats):
        turn = repeat % len(names)
        for name in names[turn:] + names[:turn]:
            start = time.process_time()
            for _ in range(calls[name]):
                run[name]()
            times[name].append((time.process_time() - start) / calls[name])
    return times


def ratio(times: Times, slow: str, fast: str) -> tuple[float, float, float]:
    """Median, least and greatest of the ratios of neighbouring measurements."""
    ratios = sorted(a / b for a, b in zip(times[slow], times[fast], strict=True))
    return median(ratios), ratios[0], ratios[-1]


def show(title: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: columns of names, then the time, the ratio and the ratio's range."""
    table = Table(title=title, title_justify="left")
    for name in names:
        table.add_column(name, no_wrap=True)
    for number in ("CPU time", "ratio", "range"):
        table.add_column(number, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    Console(width=110).print(table)


def environment() -> dict[str, Any]:
    """The machine and software that a figure belongs to."""
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = lines[0].partition(":")[2].strip() if lines else cpu
    return {
        "cpu": cpu,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        # by the name that it has in the project, from wherever it was called
        "command": shlex.join([f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
    }


def write(path: Path, settings: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    """Write settings, environment and results as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"environment": environment(), "settings": dict(settings), "results": dict(results)}
    path.write_text(json.dumps(content, indent=1) + "\n")
