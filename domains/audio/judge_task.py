"""Training a judge: settings, batches and loss for the training engine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sciffusion.attributes import Attributes
from sciffusion.config import to_dict
from sciffusion.noise import Noise
from sciffusion.training import Order, Shuffled, StepLoss, Task, TrainConfig, TrainState
from sciffusion.training import train as run_training

from .clip import Clips
from .judges import Judge, JudgeConfig, JudgeNet
from .task import DataConfig

__all__ = ["JudgeTask", "JudgeTraining", "train_judge"]

Batch = tuple[Tensor, dict[str, Tensor]]


@final
@dataclass(frozen=True)
class JudgeTraining:
    """All settings of a training run: what a configuration file holds.

    Every clip is heard up to ``delay`` frames later than it begins, at random, for when a clip begins says nothing.
    """

    model: JudgeConfig = JudgeConfig()
    data: DataConfig = DataConfig()
    delay: int = 6
    train: TrainConfig = TrainConfig()


@final
class JudgeTask(Task[Batch]):
    """Learning to tell the labels of a data set.

    Raises ``ValueError`` if there are no clips, and for attributes that are no labels.
    """

    def __init__(self, config: JudgeTraining, clips: Clips, valid: Clips | None = None) -> None:
        if not len(clips):
            raise ValueError("clips must hold at least one clip to learn from")
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
        return _right(self.judge(model), self.valid) if self.valid else {}  # type: ignore[arg-type]

    def judge(self, net: JudgeNet, name: str = "judge") -> Judge:
        """A network as a judge, with what it gets right of the held-out clips."""
        judge = Judge(name, self.config.model, net, {}, 0)
        if not self.valid:
            return judge
        return replace(judge, held_out=_right(judge, self.valid), clips_held_out=len(self.valid))

    def describe(self) -> dict[str, object]:
        """Everything that shapes the run but the engine's own settings."""
        c = self.config
        # where the file lies shapes nothing
        parts = {"model": c.model, "data": replace(c.data, path=None)}
        found = {k: to_dict(v) for k, v in parts.items()}
        return found | {"delay": c.delay, "clips": len(self.heard)}


def _right(judge: Judge, clips: Clips) -> dict[str, float]:
    verdict = judge(clips)
    return {k: float(verdict.right(k, clips.labels[k]).mean()) for k in judge.config.attributes}


def train_judge(
    config: JudgeTraining,
    directory: str | Path,
    clips: Clips | None = None,
    valid: Clips | None = None,
    *,
    resume: bool = True,
) -> tuple[Judge, TrainState]:
    """Train a judge in ``directory`` (continuing the run found there) and write ``judge.safetensors`` in it.

    The data are those that the configuration names, or ``clips`` and ``valid``, clips of your own. Returns the judge
    with averaged weights and the state of the run; what it gets right of ``valid`` is stored with it.
    """
    directory = Path(directory)
    # always, for what a judge gets right of them is stored with it
    clips, valid = config.data.sets(clips, valid, check=True)
    task = JudgeTask(config, clips, valid)
    state = run_training(task, config.train, directory, resume=resume)
    net = task.model()
    net.load_state_dict(state.weights())
    judge = task.judge(net.eval())
    if state.first:
        judge.save(directory / "judge.safetensors")
    return judge, state
