"""Sounds: a waveform with its rate, and lists of them with labels."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, final, overload

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from sciffusion.errors import require
from sciffusion.io import atomic_write

from ._torchaudio import torchaudio
from .labels import write_labels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sciffusion.report import Report

__all__ = ["Clip", "Clips", "require_clip"]


@final
@dataclass(frozen=True, eq=False, repr=False)
class Clip:
    """A sound: float32 ``samples`` (channels, N), nominally in [-1, 1], at ``rate`` samples a second.

    In a notebook it shows a player and its spectrogram.

    Raises ``ValueError`` for another shape, no samples, values that are not finite, or a rate that is not a positive
    integer.
    """

    samples: Tensor
    rate: int

    def __post_init__(self) -> None:
        x = self.samples
        if not isinstance(x, Tensor):
            raise ValueError(
                f"samples must be a tensor, got {type(x).__name__}: Clip.of takes arrays"
            )
        if x.ndim != 2 or not x.numel() or not x.is_floating_point():
            raise ValueError(
                f"samples must be floating (channels, N) with at least one sample, got {x.dtype} {tuple(x.shape)}"
            )
        if x.shape[0] > max(2, x.shape[1]):
            raise ValueError(
                f"samples must be (channels, N), got {tuple(x.shape)}: transpose them, if channels are last"
            )
        if not bool(x.isfinite().all()):
            raise ValueError("samples hold NaN or infinity; repair or drop the clip")
        object.__setattr__(self, "rate", _rate(self.rate))

    @classmethod
    def of(cls, array: ArrayLike | Tensor, rate: int) -> Clip:
        """A clip of an array (N,) or (channels, N), which is copied.

        16- and 32-bit integers are divided by 2^15 and 2^31, so that the largest magnitude they can hold is 1. Raises
        ``ValueError`` for other integers, whose scale nobody can know, and for what :class:`Clip` refuses.
        """
        raw = array.detach().cpu() if isinstance(array, Tensor) else np.array(array)
        x = torch.as_tensor(raw)
        if x.dtype in (torch.int16, torch.int32):
            x = x.double() / 2 ** (torch.iinfo(x.dtype).bits - 1)
        elif not x.is_floating_point():
            raise ValueError(
                f"samples must be floats in [-1, 1], int16 or int32, got {x.dtype}; scale them yourself"
            )
        return cls((x[None] if x.ndim == 1 else x).to(torch.float32, copy=True), rate)

    @classmethod
    def read(cls, path: str | Path) -> Clip:
        """The clip in a file of any format that libsndfile knows (WAV, FLAC, OGG, MP3, ...).

        Raises ``FileNotFoundError``, and ``ValueError`` for a folder and a file that is no sound or holds none.
        """
        soundfile = require("soundfile", extra="audio")
        if Path(path).is_dir():
            raise ValueError(f"{path} is a folder: Clips.from_folder reads the sounds in it")
        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no file {path}")
        try:
            array, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise ValueError(f"{path} is not a readable sound file: {error}") from error
        if not len(array):
            raise ValueError(f"{path} holds no samples")
        return cls.of(array.T, rate)

    @property
    def seconds(self) -> float:
        """The duration."""
        return self.samples.shape[1] / self.rate

    @property
    def peak(self) -> float:
        """The largest magnitude of a sample."""
        return float(self.samples.abs().max())

    def __repr__(self) -> str:
        count = len(self.samples)
        channels = {1: "mono", 2: "stereo"}.get(count, f"{count} channels")
        return f"Clip({self.seconds:.3f} s, {self.rate} Hz, {channels}, peak {self.peak:.2f})"

    def mono(self) -> Clip:
        """The mean of the channels."""
        return self if len(self.samples) == 1 else Clip(self.samples.mean(0, True), self.rate)

    def resample(self, rate: int) -> Clip:
        """The same sound at another rate, ``ceil(N * rate / self.rate)`` samples.

        A sinc of 64 zeros under a Kaiser window (Smith, Digital audio resampling) takes away what the new rate cannot
        hold: all that lies above half of it, and the uppermost 5 % below.
        """
        rate = _rate(rate)
        if rate == self.rate:
            return self
        made = torchaudio().functional.resample(
            self.samples,
            self.rate,
            rate,
            lowpass_filter_width=64,
            rolloff=0.95,
            resampling_method="sinc_interp_kaiser",
            beta=14.77,
        )
        return Clip(made, rate)

    def cut(self, start: float, end: float | None = None) -> Clip:
        """The segment between two times in seconds (None: the end).

        Raises ``ValueError`` for one outside the clip, or without a sample.
        """
        last = self.seconds if end is None else end
        if not 0 <= start < last <= self.seconds + 0.5 / self.rate:
            raise ValueError(
                f"a segment must lie within the {self.seconds:.3f} s of the clip, got {start} to {last}"
            )
        a, b = round(start * self.rate), round(last * self.rate)
        if a >= b:
            raise ValueError(f"{start} to {last} s holds no sample at {self.rate} Hz")
        return Clip(self.samples[:, a:b], self.rate)

    def normalised(self, peak: float = 0.5) -> Clip:
        """Scaled so that the largest sample is ``peak``; silence stays silence.

        Raises ``ValueError`` for a peak outside (0, 1].
        """
        if not 0 < peak <= 1:
            raise ValueError(f"peak must lie above 0 and up to 1, got {peak}")
        largest = self.peak
        return self if largest == 0 else Clip(self.samples / largest * peak, self.rate)

    def pcm(self) -> NDArray[np.int16]:
        """16-bit samples (N, channels): the inverse of :meth:`of`; beyond [-1, 1] they are clipped."""
        return (self.samples.double() * 2**15).round().clamp(-(2**15), 2**15 - 1).short().T.numpy()

    def save(self, path: str | Path) -> Path:
        """Write a 16-bit file, whole or not at all; the suffix says in which format (``.wav``, ``.flac``, ...).

        What exceeds 1 is clipped, with a warning that says so. Raises ``ValueError`` for an unknown suffix.
        """
        soundfile, path = require("soundfile", extra="audio"), Path(path)
        kind = path.suffix.removeprefix(".").upper()
        if kind not in soundfile.available_formats():
            raise ValueError(f"{path} has no suffix of a sound format; end it with .wav or .flac")
        if self.peak > 1:
            message = f"the clip's peak of {self.peak:.2f} is cut to 1; save clip.normalised() to scale it instead"
            warnings.warn(message, stacklevel=2)
        with atomic_write(path) as part, open(part, "wb") as file:
            soundfile.write(file, self.pcm(), self.rate, format=kind)
        return path

    def plot(self) -> Figure:
        """The waveform above the spectrogram."""
        from .viewer import figure

        return figure(self)

    def play(self) -> None:
        """Show a player in a notebook. Raises ``RuntimeError`` elsewhere, where :meth:`save` serves."""
        from .viewer import play

        play(self)

    def _repr_html_(self) -> str:
        from .viewer import html

        return html(self)


@final
@dataclass(frozen=True, eq=False, repr=False)
class Clips(Sequence[Clip]):
    """Clips of any lengths, with labels: one value for each clip by name.

    ``clips[3]`` is a :class:`Clip`; a slice, a boolean array or a list of indices gives :class:`Clips` again.

    Raises ``ValueError`` for a label with another number of values.
    """

    clips: Sequence[Clip]
    labels: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, values in self.labels.items():
            if len(values) != len(self.clips):
                raise ValueError(
                    f"label {name} has {len(values)} values for {len(self.clips)} clips"
                )

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The number of samples of each clip."""
        return np.array([clip.samples.shape[1] for clip in self.clips], dtype=np.int64)

    def __repr__(self) -> str:
        seconds = math.fsum(clip.seconds for clip in self.clips)
        labels = f", labels {', '.join(self.labels)}" if self.labels else ""
        return f"Clips({len(self)} clip{'s' * (len(self) != 1)}, {seconds:.1f} s{labels})"

    def __len__(self) -> int:
        return len(self.clips)

    def __iter__(self) -> Iterator[Clip]:
        return iter(self.clips)

    @overload
    def __getitem__(self, index: int) -> Clip: ...
    @overload
    def __getitem__(self, index: slice | NDArray[Any] | Sequence[int]) -> Clips: ...
    def __getitem__(self, index: int | slice | NDArray[Any] | Sequence[int]) -> Clip | Clips:
        if isinstance(index, (int, np.integer)):
            return self.clips[index]
        rows = np.arange(len(self))[index if isinstance(index, slice) else np.asarray(index)]
        return Clips(
            [self.clips[i] for i in rows.tolist()],
            {name: np.asarray(values)[rows] for name, values in self.labels.items()},
        )

    @classmethod
    def from_folder(
        cls, folder: str | Path, names: str | None = None, rate: int | None = None
    ) -> Clips:
        """The sound files of a folder (WAV, FLAC, OGG), sorted by name, with labels.

        Args:
            folder: where the files are.
            names: a pattern of their names, ``"{digit}_{speaker}_{take}"``, whose words become labels; None: labels are
                those of the tables in the folder, CSV files with a column ``file`` and one for each label.
            rate: what all are brought to, Hz (None: they must have one rate already).

        Raises:
            FileNotFoundError: there is no such folder, or no sound in it.
            ValueError: a file that cannot be read, is silent, has another rate or is not named after the pattern.
        """
        from .folder import read_folder

        return read_folder(folder, names, rate)

    def save(self, path: str | Path) -> Path:
        """Write one clip to a file, many to numbered ones beside each other: ``seven-00.wav``, ...

        The labels of many are written beside them: ``seven.csv``, a line for each file.
        """
        path = Path(path)
        if len(self) == 1:
            return self[0].save(path)
        width = len(str(len(self) - 1))
        files = [path.with_stem(f"{path.stem}-{i:0{width}d}") for i in range(len(self))]
        for file, clip in zip(files, self, strict=True):
            clip.save(file)
        if self.labels:
            write_labels(path.with_suffix(".csv"), [f.name for f in files], self.labels)
        return path.with_stem(f"{path.stem}-*")

    def report(
        self, reference: Clips | None = None, *, seed: int = 0, n_pitch: int = 0, n_voices: int = 0
    ) -> Report:
        """Judge the clips; see :func:`~sciffusion.domains.audio.evaluation.evaluate`."""
        from .evaluation import evaluate

        return evaluate(self, reference, n_pitch=n_pitch, n_voices=n_voices, seed=seed)

    def plot(self, *, columns: int | None = None) -> Figure:
        """The spectrograms of all clips side by side, each under its labels."""
        from .viewer import grid

        return grid(self, columns)

    def _repr_html_(self) -> str:
        from .viewer import gallery

        return gallery(self)


def require_clip(clip: object) -> None:
    """Raise ``ValueError`` for anything else in place of a clip."""
    if not isinstance(clip, Clip):
        raise ValueError(
            f"clip must be a Clip, got {type(clip).__name__}: Clip.of makes one of an array and its rate, Clip.read of "
            "a file"
        )


def _rate(rate: float) -> int:
    """A rate as an integer."""
    if isinstance(rate, bool | str | None) or not float(rate).is_integer() or rate < 1:
        raise ValueError(f"rate must be a positive integer, samples a second, got {rate}")
    return int(rate)
