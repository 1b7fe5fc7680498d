"""The demonstration: scenes of the shipped model, and the other halves of what it drew, judged and shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sciffusion.io import atomic_write

from .api import load

if TYPE_CHECKING:
    from sciffusion.report import Report

__all__ = ["demo"]


def demo(
    directory: str | Path, *, n: int = 20, seed: int = 0, model: str = "talking-digits"
) -> Report:
    """Sample ``n`` scenes, digit after digit, judge them, and make a new sound to a film and a new film to a sound.

    ``directory`` receives ``scene-0.mp4`` and on, ``sound-of-0.mp4`` and on, ``film-of-0.mp4`` and on,
    ``scenes.png`` and ``report.json``.
    """
    folder = Path(directory)
    trained = load(model)
    scenes = trained.sample(n, {"digit": [i % 10 for i in range(n)]}, seed=seed)
    first = scenes[: min(n, 4)]
    first.save(folder / "scene.mp4")
    trained.sound_of(first.films, seed=seed + 1).save(folder / "sound-of.mp4")
    trained.film_of(first.sounds, seed=seed + 1).save(folder / "film-of.mp4")
    with atomic_write(folder / "scenes.png") as part:
        first.plot().savefig(part, dpi=150)
    report = scenes.report(seed=seed)
    report.save(folder / "report.json")
    return report
