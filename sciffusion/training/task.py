"""What a domain gives to the training engine, and nothing more."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .config import TrainConfig
from .order import Order

Batch = TypeVar("Batch")


@final
@dataclass(frozen=True)
class StepLoss:
    """The loss of one batch: its mean over the samples, and further scalar means to record.

    ``logs`` must have the same keys at every step.
    """

    mean: Tensor
    logs: Mapping[str, Tensor] = field(default_factory=dict)


class Task(ABC, Generic[Batch]):
    """A learning problem: a model, an order of the data, batches, and a loss.

    Randomness comes from ``key`` alone, an integer that differs for each step and each part of its
    batch: hand it to ``sciffusion.noise.Noise`` or to a generator. torch's global generator is
    seeded with it as well, so dropout is reproducible after a resume, too.
    """

    @abstractmethod
    def model(self) -> nn.Module:
        """Build the model in its initial state, on the CPU (called once, under the run's seed)."""

    @abstractmethod
    def order(self, config: TrainConfig) -> Order:
        """Return the order of the data, usually ``Shuffled(n, config.batch_size, config.seed)``."""

    @abstractmethod
    def batch(self, indices: NDArray[np.int64], key: int, device: torch.device) -> Batch:
        """Assemble the samples of these indices on a device; ``key`` serves random crops."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch, key: int) -> StepLoss:
        """Return the mean loss over the batch's samples, differentiable in the parameters."""

    def validate(self, model: nn.Module, key: int) -> dict[str, float]:
        """Measure the averaged model on held-out data (every process does, the first records)."""
        return {}

    def describe(self) -> dict[str, object]:
        """Return the settings that shape the run; a resume must find them equal."""
        return {}
