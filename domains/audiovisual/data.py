r"""Digits that appear and say their name: moving digits paired with recordings of the same digit.

A scene is dark and silent at first. At a random moment a digit appears, flies on as it would have done before, and from
the same moment on a recording says which digit it is. So picture and sound share two things that neither tells alone:
which digit, and when. Which digits and recordings are paired, where they fly, and when they appear, is new every time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from sciffusion.layout import Dense
from sciffusion.noise import Noise, sample_seeds

from ..audio.clip import Clip, Clips
from ..audio.datasets import split
from ..audio.mel import MelConfig
from ..audio.task import waveform
from ..video.datasets import Digits, digits
from ..video.datasets.moving import MovingDigits
from ..video.film import Films
from .scene import Scenes

__all__ = ["EARLIEST", "LATEST", "NUMBERS", "Rendered", "TalkingDigits"]

EARLIEST, LATEST = 0.1, 1.1
"""Seconds within which a digit appears."""

NUMBERS = 7
"""Uniform numbers that decide a scene: four of the flight, one of the picture, one of the moment, one of the sound."""


@final
class Rendered(NamedTuple):
    """Scenes as tensors.

    ``films`` are uint8 (N, T, 1, H, W), ``waves`` float32 waveforms of as many seconds (N, samples), ``digits`` (N,)
    what is seen and said, ``moments`` (N,) the seconds after which it appears, ``voices`` (N,) the rows of the clips.
    """

    films: Tensor
    waves: Tensor
    digits: Tensor
    moments: Tensor
    voices: Tensor


@final
@dataclass(frozen=True, eq=False)
class TalkingDigits:
    """Scenes of digits that say their name; scene i depends on the seed and i alone.

    Args:
        pictures: of digits.
        voices: clips with the label ``digit``, of all digits that there are pictures of.
        rate: frames a second.

    Raises ``ValueError`` for voices that lack the label or a digit.
    """

    pictures: Digits
    voices: Clips
    rate: float = 8.0

    def __post_init__(self) -> None:
        said = self.voices.labels.get("digit")
        if said is None:
            raise ValueError("voices must have the label digit, which says what they say")
        missing = set(self.pictures.classes.tolist()) - {int(d) for d in said}
        if missing:
            raise ValueError(f"voices say no {', '.join(map(str, sorted(missing)))}")

    @classmethod
    def of(cls, part: str = "train", path: Path | None = None) -> TalkingDigits:
        """Those of scikit-learn's digits and of spoken digits, a part of each; ``path`` is a copy of the latter."""
        return cls(digits(part), split(f"fsdd:{part}", path))

    def __len__(self) -> int:
        return len(self.pictures)

    def scenes(
        self, n: int, *, frames: int = 16, size: tuple[int, int] = (32, 32), seed: int = 0
    ) -> Scenes:
        """n scenes; labels: those of the voices, ``digit`` among them, and ``moment``, the seconds until it appears.

        Raises ``ValueError`` for n or frames below 1, or a size below that of a digit.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        u = Noise(sample_seeds(seed, n)).uniform(torch.zeros(n, NUMBERS), Dense(n)).double()
        mel = MelConfig(hop=128)
        made = self.render(u, frames, size, mel)
        rows = made.voices.numpy()
        labels = {k: np.asarray(v)[rows] for k, v in self.voices.labels.items()}
        sounds = Clips([Clip(wave[None], mel.rate) for wave in made.waves])
        return Scenes(
            Films.of(made.films, self.rate), sounds, {**labels, "moment": made.moments.numpy()}
        )

    def render(self, u: Tensor, frames: int, size: tuple[int, int], mel: MelConfig) -> Rendered:
        """Scenes of numbers (N, 7) uniform on [0, 1)."""
        flying = MovingDigits(self.pictures, rate=self.rate)
        films, classes = flying.render(u[:, None, :5], frames, size)
        moment = EARLIEST + (LATEST - EARLIEST) * u[:, 5]
        lit = torch.arange(frames) / self.rate >= moment[:, None]
        films = films * lit[:, :, None, None, None]
        total = round(frames / self.rate * mel.rate)
        said = np.asarray(self.voices.labels["digit"]).astype(int)
        waves, voices = torch.zeros(len(u), total), torch.zeros(len(u), dtype=torch.long)
        for i, (digit, number) in enumerate(
            zip(classes[:, 0].tolist(), u[:, 6].tolist(), strict=True)
        ):
            rows = np.flatnonzero(said == digit)
            voices[i] = int(rows[int(number * len(rows))])
            wave = waveform(self.voices[int(voices[i])], mel)
            begin = round(float(moment[i]) * mel.rate)
            part = wave[: total - begin]
            waves[i, begin : begin + len(part)] = part
        return Rendered(films, waves, classes[:, 0], moment, voices)
