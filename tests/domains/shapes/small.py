"""Shapes and models small enough to test with."""

import torch

from sciffusion.domains.shapes import (
    DataConfig,
    ModelConfig,
    SetTransformerConfig,
    ShapeModel,
    ShapeTask,
    ShapeTraining,
    superquadrics,
)
from sciffusion.training import TrainConfig

NETWORK = SetTransformerConfig(width=16, depth=2, heads=2, embedding=16, fourier=4)


def settings(steps: int = 3, points: int | None = None, *, turn: bool = False) -> ShapeTraining:
    """A training run of a second."""
    train = TrainConfig(steps=steps, batch_size=4, lr=1e-2, warmup=1, validate_every=2)
    data = DataConfig(points=points, turn=turn)
    return ShapeTraining(model=ModelConfig(network=NETWORK), data=data, train=train)


def shaken() -> ShapeModel:
    """A model with random weights, no output of which is zero."""
    task = ShapeTask(settings(), superquadrics(10, points=9))
    denoiser = task.config.model.denoiser()
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in denoiser.parameters():
            p.copy_(0.25 * torch.randn(p.shape, generator=g))
    return ShapeModel(task.config.model, denoiser.eval())
