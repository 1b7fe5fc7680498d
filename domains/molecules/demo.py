"""The demonstration: what the shipped model makes, judged and drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sciffusion.io import atomic_write

from .api import load

if TYPE_CHECKING:
    from sciffusion.report import Report

__all__ = ["demo"]


def demo(directory: str | Path, *, n: int = 100, seed: int = 0, model: str = "qm9") -> Report:
    """Sample ``n`` molecules and judge them; ``directory`` receives ``mols.sdf``, ``mols.png`` and ``report.json``."""
    folder = Path(directory)
    mols = load(model).sample(n, seed=seed)
    mols.save(folder / "mols.sdf")
    report = mols.report(seed=seed)
    report.save(folder / "report.json")
    with atomic_write(folder / "mols.png") as part:
        mols[:20].plot().savefig(part, dpi=150)
    return report
