"""Measure what a lesson publishes: ``python tutorials/results.py 01_molecules``.

Runs the lesson with its full budget and writes ``results/LESSON.json``: the figures that the lesson
collects in ``figures``, the command, the hardware, the versions and the time that it took.
"""

from __future__ import annotations

import json
import os
import platform
import runpy
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch

from sciffusion.io import atomic_write

HERE = Path(__file__).parent
PACKAGES = ("sciffusion", "torch", "numpy", "rdkit", "xarray")
"""Whose versions are written down, if the lesson used them."""


def hardware() -> str:
    """The processor, the threads that torch uses, and the GPU if there is one."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].partition(":")[2].strip() if lines else name
    parts = [f"{name}, {torch.get_num_threads()} of {os.cpu_count()} threads"]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name(0))
    return "; ".join(parts)


def measure(lesson: Path) -> Path:
    """Run one lesson and write its figures; returns the file.

    Raises:
        ValueError: the lesson collects no ``figures``.
    """
    wall, cpu = time.perf_counter(), time.process_time()
    figures = runpy.run_path(str(lesson), run_name="__main__").get("figures")
    if not isinstance(figures, dict) or not figures:
        raise ValueError(f"{lesson.name} collects no figures in a dictionary called figures")
    record = {
        "figures": figures,
        "command": f"python tutorials/results.py {lesson.stem}",
        "hardware": hardware(),
        "versions": ", ".join(
            f"{name} {version(name)}" for name in PACKAGES if name in sys.modules
        ),
        "seconds": round(time.perf_counter() - wall),
        "cpu_seconds": round(time.process_time() - cpu),
    }
    target = lesson.parent / "results" / f"{lesson.stem}.json"
    with atomic_write(target) as part:
        part.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return target


if __name__ == "__main__":
    if os.environ.get("SCIFFUSION_QUICK") == "1":
        sys.exit("error: SCIFFUSION_QUICK is set; figures of a quick run mean nothing")
    if len(sys.argv) != 2 or not (HERE / f"{sys.argv[1]}.py").exists():
        lessons = ", ".join(sorted(path.stem for path in HERE.glob("[0-9]*.py")))
        sys.exit(f"error: name one lesson: {lessons}")
    print(f"figures in {measure(HERE / f'{sys.argv[1]}.py')}")
