"""What tests of scenes share: voices that are tones, a network small enough for a test, with weights that answer."""

import math

import numpy as np
import torch

from sciffusion.domains.audio import Clip, Clips, MelConfig
from sciffusion.domains.audiovisual import (
    ModelConfig,
    PairConfig,
    SceneModel,
    SceneTask,
    SceneTraining,
    TalkingDigits,
)
from sciffusion.domains.video import digits
from sciffusion.training import TrainConfig

RATE = 4000


def voices() -> Clips:
    """A tone for every digit, twice, of a quarter of a second."""
    times = torch.arange(RATE // 4) / RATE
    said = [d for d in range(10) for _ in range(2)]
    clips = [Clip(0.5 * torch.sin(2 * math.pi * (200 + 60 * d) * times)[None], RATE) for d in said]
    return Clips(clips, {"digit": np.array(said), "speaker": np.array(["ann", "bob"] * 10)})


def scenes() -> TalkingDigits:
    """Digits that whistle."""
    return TalkingDigits(digits("test"), voices())


def settings() -> SceneTraining:
    """Twelve frames of 32 x 32 and a second and a half of sound, three steps of training."""
    network = PairConfig(hops=4, width=24, depth=1, heads=2, embedding=16)
    mel = MelConfig(rate=RATE, n_fft=128, hop=128, mels=16)
    return SceneTraining(
        ModelConfig(shape=(12, 32, 32), mel=mel, network=network, attributes=("digit", "speaker")),
        train=TrainConfig(steps=3, batch_size=4, warmup=1, device="cpu", checkpoint_seconds=0),
    )


def answering() -> SceneModel:
    """An untrained model whose output is not zero."""
    task = SceneTask(settings(), scenes())
    generator = torch.Generator().manual_seed(0)
    weights = {
        k: v + 0.05 * torch.randn(v.shape, generator=generator)
        for k, v in task.model().state_dict().items()
    }
    return SceneModel.from_training(task, weights)
