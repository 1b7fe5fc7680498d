"""Films: frames with their rate, and lists of them with labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final, overload

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from sciffusion.pixels import Pixels, tile, to_bytes, to_floats

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sciffusion.report import Report

__all__ = ["Film", "Films"]

_FRAMES = Pixels("frames", "frame", "films", "T", "Film.of")


@final
@dataclass(frozen=True, eq=False, repr=False)
class Film:
    """A film: ``frames`` (T, C, H, W) at ``rate`` frames a second.

    Frames are ``uint8``, 0 to 255, or ``float32``, 0 to 1; which of both never changes silently: see :meth:`floats` and
    :meth:`bytes`. C is 1 (grey) or 3 (red, green, blue). ``film[2:5]`` is the film of some frames. In a notebook it
    plays.

    Raises ``ValueError`` for another shape, type or range, values that are not finite, no frames, or a rate that is not
    positive.
    """

    frames: Tensor
    rate: float = 8.0

    def __post_init__(self) -> None:
        _FRAMES.check(self.frames)
        if isinstance(self.rate, bool) or not 0 < float(self.rate) < float("inf"):
            raise ValueError(f"rate must be positive, frames a second, got {self.rate}")
        object.__setattr__(self, "rate", float(self.rate))

    @classmethod
    def of(cls, array: ArrayLike | Tensor, rate: float = 8.0) -> Film:
        """A film of an array (T, H, W), (T, H, W, C) or (T, C, H, W), which is copied.

        ``uint8`` stays, floats from 0 to 1 become ``float32``. Channels may come last, as other libraries have them.
        Raises ``ValueError`` for other integers, whose scale nobody can know, floats outside 0 to 1, and what
        :class:`Film` refuses.
        """
        return cls(_FRAMES.read(array), rate)

    @classmethod
    def read(cls, path: str | Path, *, grey: bool | None = None) -> Film:
        """The film in a file: a GIF, or what FFmpeg knows (MP4, WebM, AVI, ...).

        For ``grey`` and the errors see :func:`.files.read_film`.
        """
        from .files import read_film

        return read_film(Path(path), grey)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.frames.shape[2], self.frames.shape[3]

    @property
    def channels(self) -> int:
        """1 (grey) or 3 (red, green, blue)."""
        return self.frames.shape[1]

    @property
    def seconds(self) -> float:
        """The duration."""
        return len(self) / self.rate

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, frames: slice) -> Film:
        if not isinstance(frames, slice):
            raise TypeError("film[a:b] takes frames; film.frames[i] is the tensor of one")
        return Film(self.frames[frames], self.rate)

    def __repr__(self) -> str:
        (h, w), kind = self.size, "grey" if self.channels == 1 else "RGB"
        return f"Film({len(self)} frames of {h} x {w}, {kind}, {self.rate:g} a second, {str(self.frames.dtype)[6:]})"

    def floats(self) -> Film:
        """The same with ``float32`` frames, 0 to 1; :meth:`bytes` brings every byte back."""
        return Film(to_floats(self.frames), self.rate)

    def bytes(self) -> Film:
        """The same with ``uint8`` frames, rounded to the nearest."""
        return Film(to_bytes(self.frames), self.rate)

    def at(self, rate: float) -> Film:
        """The same frames shown at another rate."""
        return replace(self, rate=rate)

    def save(self, path: str | Path, *, scale: int | None = None) -> Path:
        """Write a GIF or an MP4, whole or not at all; an ``.npz`` keeps the frames as they are.

        Every pixel becomes a square of ``scale`` (None: 1 in a GIF, which keeps grey films exactly; in an MP4 what
        makes the longer side 256, for H.264 blurs small films). Raises ``ValueError`` for another suffix.
        """
        from .files import write_film

        return write_film(self, Path(path), scale)

    def plot(self) -> Figure:
        """The frames side by side as a strip."""
        return Films([self]).plot()

    def _repr_html_(self) -> str:
        from .viewer import html

        return html(self)


@final
@dataclass(frozen=True, eq=False, repr=False)
class Films(Sequence[Film]):
    """Films of any lengths and sizes, with labels: one value for each film by name.

    ``films[3]`` is a :class:`Film`; a slice, a boolean array or a list of indices gives :class:`Films` again.

    Raises ``ValueError`` for a label with another number of values.
    """

    films: Sequence[Film]
    labels: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, values in self.labels.items():
            if len(values) != len(self.films):
                raise ValueError(
                    f"label {name} has {len(values)} values for {len(self.films)} films"
                )

    @classmethod
    def of(
        cls,
        array: Tensor,
        rate: float = 8.0,
        labels: Mapping[str, NDArray[Any]] | None = None,
    ) -> Films:
        """Films of one shape, (N, T, C, H, W)."""
        if array.ndim != 5:
            raise ValueError(f"films of one shape are (N, T, C, H, W), got {tuple(array.shape)}")
        return cls([Film(x, rate) for x in array], labels or {})

    @classmethod
    def read(cls, path: str | Path, *, grey: bool | None = None) -> Films:
        """Films of a file, or of a folder of clips with one folder for each class; or of an ``.npz`` of ``save``.

        For ``grey`` and the errors see :func:`.files.read`.
        """
        from .files import read

        return read(Path(path), grey)

    def stack(self) -> Tensor:
        """All films as one tensor (N, T, C, H, W). Raises ``ValueError`` if they differ in shape or type."""
        shapes = {(tuple(f.frames.shape), f.frames.dtype) for f in self.films}
        if len(shapes) != 1:
            raise ValueError(
                f"films must have one shape and type here, got {len(shapes)} different ones"
            )
        return torch.stack([f.frames for f in self.films])

    def __repr__(self) -> str:
        frames = sum(len(film) for film in self.films)
        labels = f", labels {', '.join(self.labels)}" if self.labels else ""
        many = "s" * (len(self) != 1)
        return f"Films({len(self)} film{many}, {frames} frames{labels})"

    def __len__(self) -> int:
        return len(self.films)

    def __iter__(self) -> Iterator[Film]:
        return iter(self.films)

    @overload
    def __getitem__(self, index: int) -> Film: ...
    @overload
    def __getitem__(self, index: slice | NDArray[Any] | Sequence[int]) -> Films: ...
    def __getitem__(self, index: int | slice | NDArray[Any] | Sequence[int]) -> Film | Films:
        if isinstance(index, (int, np.integer)):
            return self.films[index]
        rows = np.arange(len(self))[index if isinstance(index, slice) else np.asarray(index)]
        return Films(
            [self.films[i] for i in rows.tolist()],
            {name: np.asarray(values)[rows] for name, values in self.labels.items()},
        )

    def save(self, path: str | Path, *, scale: int | None = None) -> Path:
        """Write one file: an ``.npz`` keeps films and labels as they are; a GIF or MP4 shows all on a grid.

        Films of a grid have one shape. A path without suffix becomes a folder of GIFs, each class in its own folder if
        there is the label ``label`` or ``digit``. For ``scale`` and the errors see :meth:`Film.save`.
        """
        from .files import write

        return write(self, Path(path), scale)

    def grid(self, gap: int = 1) -> Film:
        """All films side by side as one, on a grid of about as many rows as columns; they must have one shape."""
        x = Films([film.bytes() for film in self.films]).stack()
        return Film(tile(x, gap=gap, fill=128), self.films[0].rate)

    def report(self, reference: Films | None = None, *, seed: int = 0, **checks: int) -> Report:
        """Judge the films, beside real ones if there are any; see :func:`.evaluation.evaluate`."""
        from .evaluation import evaluate

        if checks:
            raise ValueError(f"films have no further checks, got {', '.join(checks)}")
        return evaluate(self, reference, seed=seed)

    def plot(self) -> Figure:
        """A strip of frames for each film, under its labels."""
        from .viewer import figure

        return figure(self)

    def _repr_html_(self) -> str:
        from .viewer import gallery

        return gallery(self)
