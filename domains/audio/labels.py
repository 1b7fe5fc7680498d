"""Labels of the clips of a folder: a table with a line for each file, ``file,digit,speaker``."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciffusion.io import atomic_write

__all__ = ["read_labels", "write_labels"]


def write_labels(path: Path, files: Sequence[str], labels: Mapping[str, NDArray[Any]]) -> None:
    """Write the labels of these files, one value of each for every file."""
    with atomic_write(path) as part, open(part, "w", newline="", encoding="utf-8") as out:
        table = csv.writer(out, lineterminator="\n")
        table.writerow(["file", *labels])
        for i, file in enumerate(files):
            table.writerow([file, *(values[i] for values in labels.values())])


def read_labels(files: Sequence[Path]) -> dict[str, NDArray[np.str_]]:
    """What the tables (``*.csv`` with a column ``file``) in the folders of these files say of them, as text.

    A label that some of the files lack is left out.
    """
    rows: dict[Path, dict[str, str]] = {}
    for folder in dict.fromkeys(file.parent for file in files):
        for table in sorted(folder.glob("*.csv")):
            with open(table, newline="", encoding="utf-8") as lines:
                reader = csv.DictReader(lines)
                if "file" in (reader.fieldnames or ()):
                    rows |= {folder / row.pop("file"): row for row in reader}
    found = [rows.get(file, {}) for file in files]
    names = [k for k in (found[0] if found else {}) if all(row.get(k) for row in found)]
    return {name: np.array([row[name] for row in found]) for name in names}
