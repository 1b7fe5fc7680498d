"""What the benchmarks of sounds share: means with intervals, tables, and results files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from measure import environment

from sciffusion.bootstrap import Bootstrap
from sciffusion.domains.audio import Clips

RESULTS = Path(__file__).parent / "results"
Row = dict[str, str | float | list[float]]


def chosen(clips: Clips, n: int, shortest: float, seed: int, longest: float = 1.0) -> list[int]:
    """n clips of a length in seconds, in random order."""
    fit = [i for i, c in enumerate(clips) if shortest <= c.seconds <= longest]
    return np.random.default_rng(seed).permutation(fit)[:n].tolist()


def with_interval(values: Sequence[float]) -> list[float]:
    """The mean and its 95 % bootstrap interval over clips."""
    x = np.asarray(values, dtype=float)
    low, high = Bootstrap().statistic(lambda rows: rows.mean(1), x)
    return [round(float(v), 3) for v in (x.mean(), low, high)]


def cell(value: str | float | Sequence[float]) -> str:
    """A number, a text, or a mean with its interval."""
    if isinstance(value, (list, tuple)):
        mean, low, high = value
        return f"{mean:.2f} ({low:.2f} to {high:.2f})"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def write(name: str, settings: Mapping[str, object], rows: Sequence[Row], notes: str) -> None:
    """Print a table, and write it with the settings as JSON and Markdown."""
    columns = list(dict.fromkeys(k for row in rows for k in row))
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    lines += [f"| {' | '.join(cell(row.get(k, '')) for k in columns)} |" for row in rows]
    machine = environment()
    shown = ", ".join(f"{k} {v}" for k, v in machine.items() if k != "command")
    text = "\n".join([*lines, "", notes, "", f"`{machine['command']}`: {shown}", ""])
    print(text, flush=True)
    content = {"environment": machine, "settings": dict(settings), "rows": list(rows)}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    (RESULTS / f"{name}.md").write_text(text)
