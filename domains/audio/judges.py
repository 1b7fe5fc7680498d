"""Judges of sounds: small networks that hear what a clip is, and whose features tell how far sets of clips lie apart.

A judge is trained on the training part of a data set by :mod:`.judge_task` and knows nothing of any generator. What it
gets right of recordings that it has not heard is stored with it and stands beside every figure of its own: no clip can
be judged better than that. It knows the classes of its data only, so it says nothing of other speakers or instruments.

Judges that others have trained are in :mod:`.oracles`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sciffusion.described import described
from sciffusion.training import ModelFile, write_model

from .clip import Clip
from .mel import LogMel, MelConfig
from .shelf import SHELF
from .task import waveform

__all__ = ["Judge", "JudgeConfig", "JudgeNet", "Verdict", "judges", "suited"]

_KIND = "audio-judge"


@final
@dataclass(frozen=True)
class JudgeConfig:
    """A judge: what it hears, and what it tells.

    It hears the first ``seconds`` of a clip; shorter clips are followed by silence. Of each of the ``attributes`` it
    tells which of the ``classes`` a clip has (empty: those of the training data). Spectrograms are heard above
    ``floor`` (natural logarithm), below which recordings differ by their noise.
    """

    mel: MelConfig = MelConfig(rate=8000, n_fft=256, hop=128, mels=64)
    seconds: float = 1.024
    floor: float = -9.0
    widths: tuple[int, ...] = (16, 32, 64, 128)
    attributes: tuple[str, ...] = ("digit", "speaker")
    classes: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        if not self.attributes or not self.widths:
            raise ValueError("attributes and widths must each name at least one")
        if self.classes and len(self.classes) != len(self.attributes):
            raise ValueError(
                f"classes lists {len(self.classes)} attributes, but attributes names {len(self.attributes)}"
            )
        if self.seconds * self.mel.rate < self.mel.hop * 2 ** len(self.widths):
            raise ValueError(
                f"seconds must leave a frame after halving {len(self.widths)} times, got {self.seconds}"
            )

    @property
    def samples(self) -> int:
        """How much of a waveform is heard."""
        return round(self.seconds * self.mel.rate)

    def heard(self, clip: Clip) -> Tensor:
        """What the network sees of a clip, (mels, T): mono, at its rate, with a peak of 0.5."""
        wave = waveform(clip, self.mel)[: self.samples]
        wave = nn.functional.pad(wave, (0, self.samples - len(wave)))
        return (LogMel(self.mel).encode(wave[None])[0].clamp(min=self.floor) + 4) / 3

    def knows(self, attribute: str, values: Sequence[object] | NDArray[Any]) -> bool:
        """Whether it can tell these values of an attribute."""
        if attribute not in self.attributes or not self.classes:
            return False
        return {str(v) for v in values} <= set(self.classes[self.attributes.index(attribute)])


@final
class JudgeNet(nn.Module):
    """Convolutions that halve time and frequency, and a mean over what is left: the features of a clip."""

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        # a convolution does not know at which frequency it is: a second channel says it
        for a, b in zip((2, *config.widths), config.widths, strict=False):
            layers += [nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU()]
            layers += [nn.MaxPool2d(2)]
        self.body = nn.Sequential(*layers)
        self.heads = nn.ModuleDict(
            {
                name: nn.Linear(config.widths[-1], len(found))
                for name, found in zip(config.attributes, config.classes, strict=True)
            }
        )

    def features(self, x: Tensor) -> Tensor:
        """(B, mels, T) to (B, widths[-1])."""
        height = torch.linspace(-1, 1, x.shape[1], device=x.device, dtype=x.dtype)
        out: Tensor = self.body(torch.stack([x, height[:, None].expand_as(x)], 1))
        return out.mean((2, 3))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(B, mels, T) to the logits of every attribute, (B, classes)."""
        h = self.features(x)
        return {name: head(h) for name, head in self.heads.items()}


@final
@dataclass(frozen=True, eq=False)
class Verdict:
    """What a judge heard in n clips: ``features`` (n, D), and the value of every attribute, (n,) strings."""

    features: NDArray[np.float64]
    said: Mapping[str, NDArray[np.str_]]

    def right(self, name: str, labels: Sequence[object] | NDArray[Any]) -> NDArray[np.float64]:
        """1 for every clip in which it heard what the label says, else 0, (n,)."""
        return (self.said[name] == np.asarray(labels).astype(str)).astype(float)


@final
@dataclass(frozen=True, eq=False, repr=False)
class Judge:
    """A trained judge.

    ``name`` stands beside its figures. ``held_out`` is the share that it gets right of ``clips_held_out`` recordings
    that it was not trained on, by attribute.
    """

    name: str
    config: JudgeConfig
    net: JudgeNet
    held_out: Mapping[str, float]
    clips_held_out: int

    def __repr__(self) -> str:
        return described(self, self.net, self.name, *self.config.attributes)

    @torch.no_grad()
    def __call__(self, clips: Sequence[Clip], batch_size: int = 64) -> Verdict:
        """Hear clips of any rate. Raises ``ValueError`` if there is none."""
        if not len(clips):
            raise ValueError("clips must hold at least one clip to judge")
        features = []
        for i in range(0, len(clips), batch_size):
            part = [clips[j] for j in range(i, min(i + batch_size, len(clips)))]
            features.append(self.net.features(torch.stack([self.config.heard(c) for c in part])))
        h = torch.cat(features)
        said = {
            name: np.array(classes)[self.net.heads[name](h).argmax(1).numpy()]
            for name, classes in zip(self.config.attributes, self.config.classes, strict=True)
        }
        return Verdict(h.double().numpy(), said)

    def save(self, path: str | Path) -> Path:
        """Write everything to one safetensors file, weights rounded to float16."""
        meta = {
            "judge": self.config,
            "held_out": dict(self.held_out),
            "clips_held_out": self.clips_held_out,
        }
        return write_model(path, _KIND, meta, {"": self.net.state_dict()})

    @classmethod
    def load(cls, name: str | Path) -> Judge:
        """A judge that ships, by its name, or a file that :meth:`save` wrote.

        Raises:
            FileNotFoundError: neither; the message lists the names.
            ValueError: a file of another kind.
        """
        file = ModelFile.read(SHELF.find("judge", name), _KIND, "a judge")
        config, held_out = file.config(JudgeConfig, "judge"), file.meta["held_out"]
        net = JudgeNet(config)
        net.load_state_dict(file.tensors)
        return cls(file.path.stem, config, net.eval(), held_out, file.meta["clips_held_out"])


def judges() -> dict[str, Path]:
    """The judges that ship, by name, and their files."""
    return SHELF.all("judge")


def suited(*labels: Mapping[str, NDArray[Any]]) -> Judge | None:
    """The shipped judge that can tell most of what the labels say; None if none can tell anything."""
    best: tuple[int, Judge | None] = (0, None)
    for name in judges():
        judge = Judge.load(name)
        told = sum(judge.config.knows(k, v) for one in labels for k, v in one.items())
        if told > best[0]:
            best = told, judge
    return best[1]
