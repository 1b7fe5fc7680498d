"""Scenes: a film and the sound that belongs to it, and lists of them with labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, final, overload

import numpy as np
from numpy.typing import NDArray

from ..audio.clip import Clip, Clips
from ..video.film import Film, Films

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sciffusion.report import Report

__all__ = ["Scene", "Scenes"]

RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
"""Samples a second that AAC, the sound of MP4 files, may have."""


@final
@dataclass(frozen=True, eq=False)
class Scene:
    """A film with its sound; both begin at the same time. In a notebook it can be seen and heard."""

    film: Film
    sound: Clip

    def save(self, path: str | Path) -> Path:
        """Write an MP4 with picture and sound, whole or not at all. Raises ``ValueError`` for another suffix.

        A sound at a rate that the format does not know is written at the next higher one.
        """
        from ..video.files import write_film

        if Path(path).suffix.lower() != ".mp4":
            raise ValueError(f"{path}: end it with .mp4, which holds pictures and sound")
        rate = next((r for r in RATES if r >= self.sound.rate), RATES[-1])
        sound = self.sound.resample(rate)
        return write_film(self.film, Path(path), sound=(sound.pcm(), rate))

    def _repr_html_(self) -> str:
        return f"{self.film._repr_html_()}<br>{self.sound._repr_html_()}"


@final
@dataclass(frozen=True, eq=False, repr=False)
class Scenes(Sequence[Scene]):
    """Scenes, with labels: one value for each by name.

    ``scenes[3]`` is a :class:`Scene`; a slice, a boolean array or a list of indices gives :class:`Scenes` again.

    Raises ``ValueError`` unless there are as many films as sounds, and a value of every label for each.
    """

    films: Films
    sounds: Clips
    labels: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        counts = {"sounds": len(self.sounds)} | {k: len(v) for k, v in self.labels.items()}
        for name, count in counts.items():
            if count != len(self.films):
                raise ValueError(f"there are {len(self.films)} films, but {count} of {name}")

    def __repr__(self) -> str:
        labels = f", labels {', '.join(self.labels)}" if self.labels else ""
        return f"Scenes({len(self)} film{'s' * (len(self) != 1)} with sound{labels})"

    def __len__(self) -> int:
        return len(self.films)

    def __iter__(self) -> Iterator[Scene]:
        return (Scene(f, s) for f, s in zip(self.films, self.sounds, strict=True))

    @overload
    def __getitem__(self, index: int) -> Scene: ...
    @overload
    def __getitem__(self, index: slice | NDArray[Any] | Sequence[int]) -> Scenes: ...
    def __getitem__(self, index: int | slice | NDArray[Any] | Sequence[int]) -> Scene | Scenes:
        if isinstance(index, (int, np.integer)):
            return Scene(self.films[index], self.sounds[index])
        rows = np.arange(len(self))[index if isinstance(index, slice) else np.asarray(index)]
        labels = {name: np.asarray(values)[rows] for name, values in self.labels.items()}
        return Scenes(self.films[rows], self.sounds[rows], labels)

    def save(self, path: str | Path) -> Path:
        """Write one scene to an MP4, many to numbered ones beside each other: ``seven-00.mp4``, ..."""
        path = Path(path)
        if len(self) == 1:
            return self[0].save(path)
        width = len(str(len(self) - 1))
        for i, scene in enumerate(self):
            scene.save(path.with_stem(f"{path.stem}-{i:0{width}d}"))
        return path.with_stem(f"{path.stem}-*")

    def report(self, reference: Scenes | None = None, *, seed: int = 0, **checks: int) -> Report:
        """Judge the scenes, beside real ones if there are any; see :func:`.evaluation.evaluate`."""
        from .evaluation import evaluate

        if checks:
            raise ValueError(f"scenes have no further checks, got {', '.join(checks)}")
        return evaluate(self, reference, seed=seed)

    def plot(self) -> Figure:
        """For each scene a strip of frames above the spectrogram of its sound, on one axis of time."""
        from .viewer import figure

        return figure(self)

    def _repr_html_(self) -> str:
        parts = [f"<p>{self!r}</p>"]
        parts += [
            f'<div style="display:inline-block;margin:6px">{s._repr_html_()}</div>'
            for s in self[:8]
        ]
        return "".join(parts)
