"""A tiny task for the tests, and a program that trains it: ``python toy.py DIR key=value...``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sciffusion.config import parse
from sciffusion.training import Order, Shuffled, StepLoss, Task, TrainConfig, TrainState, train

SAMPLES = 37
SMALL: dict[str, object] = {
    "steps": 40,
    "batch_size": 8,
    "lr": 1e-2,
    "warmup": 5,
    "log_every": 3,
    "checkpoint_every": 4,
    "print_seconds": 1e9,
    "threads": 1,
    "device": "cpu",
}


class Net(nn.Module):
    """Two layers, dropout, a buffer that counts calls, and a parameter that no loss uses."""

    calls: Tensor

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(3, 16), nn.Linear(16, 16)])
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(16, 1)
        self.unused = nn.Parameter(torch.ones(2))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
        for block in self.blocks:
            x = self.dropout(torch.tanh(block(x)))
        y: Tensor = self.head(x)
        return y


class Toy(Task[tuple[Tensor, Tensor]]):
    """Regression on 37 samples: label noise from the key, dropout from torch's generator."""

    def __init__(self, noise: float = 0.1, dropout: float = 0.1) -> None:
        self.noise, self.dropout = noise, dropout
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(SAMPLES, 3, generator=generator)
        self.y = self.x.prod(-1, keepdim=True)

    def model(self) -> nn.Module:
        return Net(self.dropout)

    def order(self, config: TrainConfig) -> Order:
        return Shuffled(SAMPLES, config.batch_size, config.seed)

    def batch(
        self, indices: NDArray[np.int64], key: int, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        chosen = torch.from_numpy(indices.copy())
        return self.x[chosen].to(device), self.y[chosen].to(device)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor], key: int) -> StepLoss:
        x, y = batch
        y = y + self.noise * torch.randn(y.shape, generator=torch.Generator().manual_seed(key)).to(
            y
        )
        error = model(x).float() - y
        return StepLoss(error.square().mean(), {"mae": error.detach().abs().mean()})

    def validate(self, model: nn.Module, key: int) -> dict[str, float]:
        return {"mse": float((model(self.x) - self.y).square().mean())}

    def describe(self) -> dict[str, object]:
        return {"noise": self.noise}


def config(*overrides: str) -> TrainConfig:
    """Return the small configuration with changes."""
    return parse(TrainConfig, SMALL, overrides)


def run(directory: Path, *overrides: str, task: Task | None = None) -> TrainState:
    """Train the toy in this process."""
    return train(task or Toy(), config(*overrides), directory)


if __name__ == "__main__":
    quiet = "--quiet" in sys.argv
    arguments = [a for a in sys.argv[2:] if a != "--quiet"]
    run(Path(sys.argv[1]), *arguments, task=Toy(0.0, 0.0) if quiet else Toy())
