r"""Reference sounds: whose voice a clip has, whatever it says, as a vector.

What is heard of a clip are the mean and the standard deviation of its log-mel frames, those that are loud enough. They
tell of the voice, and of what it says. Fisher's linear discriminants (1936) keep what tells voices apart: with the
covariance B of the means of all voices and the mean covariance W within a voice, the directions v of the largest
:math:`v^T B v / v^T W v`, which is also the scale on which W is the identity. They are found at once from the clips
that a model is trained on, :meth:`ReferenceEncoder.fit`; a voice that was not among them lies somewhere between those
that were.

It knows nothing of the judges (:mod:`.judges`), and they know nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciffusion.noise import Noise

from .clip import Clip
from .mel import LogMel, MelConfig

__all__ = ["Others", "ReferenceConfig", "ReferenceEncoder"]


@final
@dataclass(frozen=True)
class ReferenceConfig:
    """What is heard of a reference.

    Log-mels above ``floor`` (natural logarithm), below which recordings differ by their noise, of the frames with at
    least ``loud`` of the magnitude of the loudest one. ``ridge`` of their mean variance is added to the variances
    within a voice, so that directions in which the clips happen not to vary are not taken for voices.
    """

    mel: MelConfig = MelConfig(rate=8000, n_fft=512, hop=128, mels=64)
    floor: float = -7.0
    loud: float = 0.1
    ridge: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.loud <= 1 or self.ridge <= 0:
            raise ValueError(
                f"loud must lie in [0, 1] and ridge above 0, got {self.loud} and {self.ridge}"
            )

    def heard(self, clips: Sequence[Clip]) -> Tensor:
        """Mean and standard deviation of the frames of each clip, (n, 2 mels), float64.

        Clips are made mono, brought to the rate of ``mel``, and to a peak of 0.5. Raises ``ValueError`` for a silent
        one, in which there is no voice.
        """
        rows = []
        for i, clip in enumerate(clips):
            mono = clip.mono()
            if mono.peak == 0:
                raise ValueError(f"reference {i} is silent: it has no voice to imitate")
            wave = mono.resample(self.mel.rate).normalised().samples
            frames = LogMel(self.mel).encode(wave)[0].double()
            sums = frames.exp().sum(0)
            frames = frames[:, sums >= self.loud * sums.max()].clamp(min=self.floor)
            rows.append(torch.cat([frames.mean(1), frames.std(1, correction=0)]))
        return torch.stack(rows)


@final
@dataclass(frozen=True, eq=False)
class ReferenceEncoder:
    """Clips to vectors (n, R) of mean square 1: ``projection`` (D, R) of what is heard, less ``mean`` (D,)."""

    config: ReferenceConfig
    mean: Tensor
    projection: Tensor

    @classmethod
    def fit(
        cls, config: ReferenceConfig, heard: Tensor, voices: NDArray[Any], size: int
    ) -> ReferenceEncoder:
        """The ``size`` discriminants that tell the voices (n,) best apart in what is heard of their clips, (n, D).

        Raises ``ValueError`` for more discriminants than there can be: one less than voices, and at most D.
        """
        names, index = np.unique(voices, return_inverse=True)
        most = min(len(names) - 1, heard.shape[1])
        if not 0 < size <= most:
            raise ValueError(
                f"{len(names)} voices have at most {most} discriminants, got model.reference={size}"
            )
        parts = [heard[torch.from_numpy(index == i)] for i in range(len(names))]
        centres = torch.stack([part.mean(0) for part in parts])
        spread = torch.stack(
            [(p - c).mT @ (p - c) / len(p) for p, c in zip(parts, centres, strict=True)]
        )
        within = spread.mean(0)
        eye = torch.eye(len(within), dtype=within.dtype)
        within = within + config.ridge * within.diagonal().mean() * eye
        scale = torch.linalg.inv(torch.linalg.cholesky(within))
        around = centres - centres.mean(0)
        # eigenvectors come from the smallest eigenvalue up
        _, found = torch.linalg.eigh(scale @ around.mT @ around @ scale.mT)
        return cls(config, centres.mean(0), scale.mT @ found[:, -size:].flip(1))

    @property
    def size(self) -> int:
        """The numbers of a vector."""
        return self.projection.shape[1]

    def __call__(self, clips: Sequence[Clip]) -> Tensor:
        """The vectors of clips of any rate, (n, size). Raises ``ValueError`` if there is none, or a silent one."""
        if not len(clips):
            raise ValueError("reference must hold at least one clip")
        return self.encode(self.config.heard(clips))

    def encode(self, heard: Tensor) -> Tensor:
        """The vectors of what was heard."""
        return unit((heard - self.mean) @ self.projection).float()

    def together(self, clips: Sequence[Clip]) -> Tensor:
        """One vector (size,) of several clips of the same voice: it is heard better than in one."""
        return unit(self(clips).mean(0))

    def tensors(self) -> dict[str, Tensor]:
        """Everything by name but the configuration."""
        return {"mean": self.mean, "projection": self.projection}

    @classmethod
    def restored(cls, config: ReferenceConfig, tensors: Mapping[str, Tensor]) -> ReferenceEncoder:
        """What :meth:`tensors` stored."""
        return cls(config, tensors["mean"], tensors["projection"])


@final
class Others:
    """For every clip of a data set, what other clips of the same voice sound like: never the clip itself.

    Args:
        vectors: of all clips, (n, R), at each speed.
        voices: whose voice each clip has, (n,).

    Raises ``ValueError`` for a voice of a single clip, which has no other.
    """

    def __init__(self, vectors: Sequence[Tensor], voices: NDArray[Any]) -> None:
        self.vectors = list(vectors)
        names, self._voice, counts = np.unique(voices, return_inverse=True, return_counts=True)
        if counts.min() < 2:
            lonely = str(names[counts.argmin()])
            raise ValueError(f"reference: {lonely!r} has one clip only; each needs another")
        # clips in order of their voices: those of a voice are a run, and each has a place in it
        self._order = np.argsort(self._voice, kind="stable")
        self._first, self._count = np.cumsum(counts) - counts, counts
        self._place = np.empty(len(self._voice), dtype=np.int64)
        runs = self._first[self._voice[self._order]]
        self._place[self._order] = np.arange(len(self._voice)) - runs

    def draw(self, rows: NDArray[np.int64], speed: int, noise: Noise, most: int = 3) -> Tensor:
        """Vectors for the clips of these rows, (len(rows), R): of one to ``most`` others together, evenly."""
        n, voice = len(rows), self._voice[rows]
        numbers = torch.stack([noise.scalars(n) for _ in range(most + 1)]).numpy()
        size = self._count[voice] - 1
        other = np.minimum((numbers[:most] * size).astype(np.int64), size - 1)
        other += other >= self._place[rows]
        chosen = torch.from_numpy(self._order[self._first[voice] + other])
        heard = torch.arange(most)[:, None] <= torch.from_numpy(numbers[most]) * most
        return unit((self.vectors[speed][chosen] * heard.unsqueeze(2)).sum(0))


def unit(x: Tensor) -> Tensor:
    """Vectors scaled to a mean square of 1."""
    return x / x.square().mean(-1, keepdim=True).clamp(min=1e-12).sqrt()
