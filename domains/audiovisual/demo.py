"""The demonstration: scenes that the shipped model makes, judged, and one half made for the other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sciffusion.io import atomic_write

from .api import load

if TYPE_CHECKING:
    from sciffusion.report import Report

__all__ = ["demo"]


def demo(
    directory: str | Path, *, n: int = 32, seed: int = 0, model: str = "talking-digits"
) -> Report:
    """Make ``n`` scenes and judge them; then the sound of a made film, and a film to its sound.

    ``directory`` receives ``scene-0.mp4`` and on, ``scenes.png``, ``sound-of-film.mp4``, ``film-of-sound.mp4`` and
    ``report.json``.
    """
    folder = Path(directory)
    trained = load(model)
    scenes = trained.sample(n, seed=seed)
    scenes[:4].save(folder / "scene.mp4")
    with atomic_write(folder / "scenes.png") as part:
        scenes[:4].plot().savefig(part, dpi=150)
    trained.sound_of(scenes.films[:1], seed=seed + 1).save(folder / "sound-of-film.mp4")
    trained.film_of(scenes.sounds[:1], seed=seed + 1).save(folder / "film-of-sound.mp4")
    report = scenes.report(seed=seed)
    report.save(folder / "report.json")
    return report
