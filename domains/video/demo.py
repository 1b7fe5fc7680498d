"""The demonstration: what the shipped model makes, judged and shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sciffusion.io import atomic_write

from .api import load
from .datasets import load as load_films

if TYPE_CHECKING:
    from sciffusion.report import Report

__all__ = ["demo"]


def demo(
    directory: str | Path, *, n: int = 64, seed: int = 0, model: str = "moving-digits"
) -> Report:
    """Sample ``n`` films, judge them beside as many real ones, and go on from a real picture and film.

    ``directory`` receives ``films.npz``, ``films.gif``, ``films.png``, ``animated.gif``, ``extended.gif`` and
    ``report.json``.
    """
    folder = Path(directory)
    trained = load(model)
    films = trained.sample(n, seed=seed)
    films.save(folder / "films.npz")
    films[:16].save(folder / "films.gif", scale=2)
    with atomic_write(folder / "films.png") as part:
        films[:6].plot().savefig(part, dpi=150)
    real = load_films("moving-digits:test", limit=n)
    trained.animate(real[0].frames[0], 4, seed=seed).save(folder / "animated.gif", scale=2)
    trained.extend(real[0], 64, 4, seed=seed).save(folder / "extended.gif", scale=2)
    report = films.report(real, seed=seed)
    report.save(folder / "report.json")
    return report
