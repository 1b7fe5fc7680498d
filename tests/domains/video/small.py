"""What tests of video share: a network small enough for a test, with weights that answer, and its settings."""

from dataclasses import replace
from typing import Any

import torch

from sciffusion.domains.video import (
    DataConfig,
    Film,
    Films,
    ModelConfig,
    MovingDigits,
    TransformerConfig,
    VideoModel,
    VideoTask,
    VideoTraining,
    digits,
)
from sciffusion.domains.video.lessons import Endless
from sciffusion.training import TrainConfig

SHAPE = (6, 24, 24)
NETWORK = TransformerConfig(patch=8, width=32, depth=1, heads=2, embedding=16)


def settings(**model: Any) -> VideoTraining:
    """Six frames of 24 x 24, three steps of training."""
    return VideoTraining(
        replace(ModelConfig(shape=SHAPE, network=NETWORK, attributes=("digit",)), **model),
        DataConfig(shapes=(SHAPE,)),
        train=TrainConfig(steps=3, batch_size=4, warmup=1, device="cpu", checkpoint_seconds=0),
    )


def answering(**model: Any) -> VideoModel:
    """An untrained model whose output is not zero."""
    task = VideoTask(settings(**model), Endless(MovingDigits(digits())))
    net, generator = task.model(), torch.Generator().manual_seed(0)
    weights = {
        k: v + 0.05 * torch.randn(v.shape, generator=generator) for k, v in net.state_dict().items()
    }
    return VideoModel.from_training(task, weights)


def films(n: int = 3, frames: int = 6, seed: int = 5) -> Films:
    """Moving digits of 24 x 24."""
    return MovingDigits(digits("test")).films(n, frames=frames, size=(24, 24), seed=seed)


def film(frames: int = 6, seed: int = 5) -> Film:
    """One of them."""
    return films(1, frames, seed)[0]
