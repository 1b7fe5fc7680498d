"""Sounds: a waveform with its rate, and lists of them with labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final, overload

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from sciffusion.errors import require
from sciffusion.io import atomic_write

__all__ = ["Clip", "Clips"]


@final
@dataclass(frozen=True, eq=False)
class Clip:
    """A sound: float32 ``samples`` (channels, N), nominally in [-1, 1], at ``rate`` samples a second.

    Raises ``ValueError`` for another shape, no samples, values that are not finite, or a rate that is not positive.
    """

    samples: Tensor
    rate: int

    def __post_init__(self) -> None:
        x = self.samples
        if x.ndim != 2 or not x.numel() or not x.is_floating_point():
            raise ValueError(
                f"samples must be floating (channels, N) with at least one sample, got {x.dtype} {tuple(x.shape)}"
            )
        if not bool(x.isfinite().all()):
            raise ValueError("samples hold NaN or infinity; repair or drop the clip")
        if self.rate < 1:
            raise ValueError(f"rate must be positive, got {self.rate}")

    @classmethod
    def of(cls, array: ArrayLike | Tensor, rate: int) -> Clip:
        """A clip of an array (N,) or (channels, N); integers are divided by the largest of their type."""
        x = torch.as_tensor(array).detach().cpu()
        if not x.is_floating_point():
            x = x.float() / -torch.iinfo(x.dtype).min
        return cls((x[None] if x.ndim == 1 else x).float(), rate)

    @classmethod
    def read(cls, path: str | Path) -> Clip:
        """The clip in a file of any format that libsndfile knows (WAV, FLAC, OGG, ...).

        Raises ``FileNotFoundError``, and ``ValueError`` for a file that is no sound.
        """
        soundfile = require("soundfile", extra="audio")
        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no file {path}")
        try:
            array, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise ValueError(f"{path} is not a readable sound file: {error}") from error
        return cls.of(array.T, rate)

    @property
    def seconds(self) -> float:
        """The duration."""
        return self.samples.shape[1] / self.rate

    def mono(self) -> Clip:
        """The mean of the channels."""
        return self if len(self.samples) == 1 else Clip(self.samples.mean(0, True), self.rate)

    def resample(self, rate: int) -> Clip:
        """The same sound at another rate, by a polyphase filter."""
        if rate == self.rate:
            return self
        signal = require("scipy.signal", extra="audio")
        common = int(np.gcd(rate, self.rate))
        x = signal.resample_poly(self.samples.numpy(), rate // common, self.rate // common, axis=1)
        return Clip.of(x.astype(np.float32), rate)

    def normalised(self, peak: float = 0.5) -> Clip:
        """Scaled so that the largest sample is ``peak``; silence stays silence."""
        largest = float(self.samples.abs().max())
        return self if largest == 0 else Clip(self.samples * (peak / largest), self.rate)

    def save(self, path: str | Path) -> Path:
        """Write a 16-bit file; the suffix says in which format. What exceeds 1 is clipped."""
        soundfile = require("soundfile", extra="audio")
        path = Path(path)
        with atomic_write(path) as part, open(part, "wb") as file:
            kind = path.suffix.removeprefix(".").upper()
            soundfile.write(file, self.samples.clamp(-1, 1).T.numpy(), self.rate, format=kind)
        return path


@final
@dataclass(frozen=True, eq=False)
class Clips(Sequence[Clip]):
    """Clips of any lengths, with labels: one value for each clip by name."""

    clips: Sequence[Clip]
    labels: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, values in self.labels.items():
            if len(values) != len(self.clips):
                raise ValueError(
                    f"label {name} has {len(values)} values for {len(self.clips)} clips"
                )

    def __len__(self) -> int:
        return len(self.clips)

    def __iter__(self) -> Iterator[Clip]:
        return iter(self.clips)

    @overload
    def __getitem__(self, index: int) -> Clip: ...
    @overload
    def __getitem__(self, index: slice | NDArray[Any]) -> Clips: ...
    def __getitem__(self, index: int | slice | NDArray[Any]) -> Clip | Clips:
        if isinstance(index, (int, np.integer)):
            return self.clips[index]
        rows = np.arange(len(self))[index]
        return Clips(
            [self.clips[i] for i in rows.tolist()],
            {name: np.asarray(values)[rows] for name, values in self.labels.items()},
        )

    def save(self, path: str | Path) -> Path:
        """Write one clip to a file, many to numbered ones beside each other: ``seven-00.wav``, ..."""
        path = Path(path)
        if len(self) == 1:
            return self[0].save(path)
        width = len(str(len(self) - 1))
        for i, clip in enumerate(self):
            clip.save(path.with_stem(f"{path.stem}-{i:0{width}d}"))
        return path.with_stem(f"{path.stem}-*")
