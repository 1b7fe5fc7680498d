"""Training a judge: settings, batches and loss for the training engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sciffusion.attributes import Attributes
from sciffusion.noise import Noise
from sciffusion.training import Order, Shuffled, StepLoss, TrainConfig

from .clip import Clips
from .judges import Judge, JudgeConfig, JudgeNet
from .parts import PartTask
from .task import DataConfig

__all__ = ["JudgeTask", "JudgeTraining"]

Batch = tuple[Tensor, dict[str, Tensor]]


@final
@dataclass(frozen=True)
class JudgeTraining:
    """All settings of a training run: what a configuration file holds.

    Every clip is heard up to ``delay`` frames later than it begins, at random, for when a clip begins says nothing.
    """

    kind: Literal["judge"] = "judge"
    model: JudgeConfig = JudgeConfig()
    data: DataConfig = DataConfig()
    delay: int = 6
    train: TrainConfig = TrainConfig()


@final
class JudgeTask(PartTask[Batch, JudgeNet, Judge]):
    """Learning to tell the labels of a data set.

    Raises ``ValueError`` for attributes that are no labels, and as all such tasks do.
    """

    config: JudgeTraining

    def __init__(self, config: JudgeTraining, clips: Clips, valid: Clips | None = None) -> None:
        super().__init__(config, clips)
        model = config.model
        asked = Attributes(model.attributes, model.classes).found(clips.labels)
        self.config = replace(config, model=replace(model, classes=asked.classes))
        self.heard = torch.stack([self.config.model.heard(clip) for clip in clips])
        self.rows = asked.rows(clips.labels)
        self.valid = valid

    def model(self) -> JudgeNet:
        """The untrained network."""
        return JudgeNet(self.config.model)

    def order(self, config: TrainConfig) -> Order:
        """Clips in a new order each epoch."""
        return Shuffled(len(self.heard), config.batch_size, config.seed)

    def batch(self, indices: NDArray[np.int64], key: int, device: torch.device) -> Batch:
        """The clips of these rows, each somewhat later."""
        rows = torch.from_numpy(indices.copy())
        late = (Noise(key).scalars(len(rows)) * (self.config.delay + 1)).long().tolist()
        silent = (self.config.model.floor + 4) / 3
        x = torch.full_like(self.heard[rows], silent)
        for out, row, k in zip(x, rows.tolist(), late, strict=True):
            out[:, k:] = self.heard[row][:, : x.shape[2] - k]
        return x.to(device), {name: v[rows].to(device) for name, v in self.rows.items()}

    def loss(self, model: nn.Module, batch: Batch, key: int) -> StepLoss:
        """The sum of the cross-entropies of all attributes."""
        x, wanted = batch
        parts = [F.cross_entropy(logits, wanted[name]) for name, logits in model(x).items()]
        return StepLoss(torch.stack(parts).sum())

    def validate(self, model: nn.Module, key: int) -> dict[str, float]:
        """What it gets right of the held-out clips, by attribute."""
        return dict(self.part(model, {}).held_out)  # type: ignore[arg-type]

    def part(self, net: JudgeNet, info: Mapping[str, Any]) -> Judge:
        """The trained judge, with what it gets right of the held-out clips."""
        judge = Judge("judge", self.config.model, net, {}, 0)
        if not self.valid:
            return judge
        return replace(judge, held_out=_right(judge, self.valid), clips_held_out=len(self.valid))


def _right(judge: Judge, clips: Clips) -> dict[str, float]:
    verdict = judge(clips)
    return {k: float(verdict.right(k, clips.labels[k]).mean()) for k in judge.config.attributes}
