"""Training an autoencoder of films: settings, batches and loss for the training engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sciffusion.codec import divergence
from sciffusion.config import to_dict
from sciffusion.layout import Dense
from sciffusion.noise import Noise, sample_seeds
from sciffusion.pixels import to_floats
from sciffusion.training import Order, Shuffled, StepLoss, Task, TrainConfig

from .autoencoder import CausalAutoencoder, CausalConfig
from .lessons import Lessons
from .task import DataConfig

__all__ = ["AutoencoderTask", "AutoencoderTraining"]


@final
@dataclass(frozen=True)
class AutoencoderTraining:
    """All settings of a training run: what a configuration file holds.

    The loss is the mean absolute error of a pixel plus ``kl`` times the latent's divergence from the normal law, in
    nats for each pixel. Absolute errors leave edges sharper than squared ones. Every one of ``data.shapes`` must have
    a number of frames that the model can encode.
    """

    kind: Literal["autoencoder"] = "autoencoder"
    model: CausalConfig = CausalConfig()
    data: DataConfig = DataConfig(shapes=((17, 32, 32),))
    kl: float = 1e-3
    train: TrainConfig = TrainConfig()

    def __post_init__(self) -> None:
        for shape in self.data.shapes:
            CausalAutoencoder(self.model).frames(shape[0])


@final
class AutoencoderTask(Task[Tensor]):
    """Learning to encode the films of a data set. Raises ``ValueError`` for films of other channels."""

    def __init__(
        self, config: AutoencoderTraining, lessons: Lessons, valid: Lessons | None = None
    ) -> None:
        self.config, self.lessons, self.valid = config, lessons, valid
        channels = self._films(lessons, np.arange(1), 0).shape[1]
        if channels != config.model.channels:
            raise ValueError(
                f"model.channels is {config.model.channels}, but the films have {channels}"
            )

    def model(self) -> CausalAutoencoder:
        """The untrained autoencoder."""
        return CausalAutoencoder(self.config.model)

    def order(self, config: TrainConfig) -> Order:
        """All films once in every epoch."""
        return Shuffled(len(self.lessons), config.batch_size, config.seed)

    def batch(self, indices: NDArray[np.int64], key: int, device: torch.device) -> Tensor:
        """A window of each of these films, (B, C, T, H, W), 0 to 1."""
        return self._films(self.lessons, indices, key).to(device)

    def _films(self, lessons: Lessons, rows: NDArray[np.int64], key: int) -> Tensor:
        noise, shapes = Noise(sample_seeds(key, 1)[0]), self.config.data.shapes
        shape = shapes[int(noise.scalars(1)[0] * len(shapes))]
        u = noise.uniform(torch.zeros(len(rows), 4), Dense(len(rows)))
        return to_floats(lessons.draw(rows, u, shape)).transpose(1, 2)

    def loss(self, model: nn.Module, batch: Tensor, key: int) -> StepLoss:
        """The mean over the films, with both parts beside it."""
        error, spread = self._parts(model, batch, Noise(key))
        return StepLoss(error + self.config.kl * spread, {"error": error, "divergence": spread})

    def _parts(self, model: nn.Module, x: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        inner = getattr(model, "module", model)  # under DDP, which only knows how to call it
        assert isinstance(inner, CausalAutoencoder)
        mean, std = inner.posterior(x)
        made = inner.reconstruct(mean + std * noise.normal(mean, Dense(len(mean))))
        made = made[..., : x.shape[3], : x.shape[4]]
        return (made - x).abs().mean(), divergence(mean, std).mean() / x[0].numel()

    def validate(self, model: nn.Module, key: int) -> dict[str, float]:
        """Both parts of up to 64 held-out films, and the root of the mean squared error of a decoded mean."""
        if self.valid is None:
            return {}
        rows = np.arange(min(64, len(self.valid)))
        x = self._films(self.valid, rows, key).to(next(model.parameters()).device)
        with torch.no_grad():
            error, spread = self._parts(model, x, Noise(key))
            assert isinstance(model, CausalAutoencoder)
            made = model.reconstruct(model.posterior(x)[0])[..., : x.shape[3], : x.shape[4]]
        rmse = float((made - x).square().mean().sqrt())
        return {"error": float(error), "divergence": float(spread), "rmse": rmse}

    def finished(self, weights: Mapping[str, Tensor]) -> CausalAutoencoder:
        """The trained autoencoder, its affine map fitted on up to 512 films."""
        made = self.model()
        made.load_state_dict(dict(weights))
        made.eval()
        rows = np.linspace(0, len(self.lessons) - 1, min(512, len(self.lessons))).astype(np.int64)
        parts = (rows[i : i + 32] for i in range(0, len(rows), 32))
        made.fit(self._films(self.lessons, part, i) for i, part in enumerate(parts))
        return made

    def describe(self) -> dict[str, object]:
        """Everything that shapes the run but the engine's own settings."""
        c = self.config
        parts = {"model": to_dict(c.model), "data": to_dict(replace(c.data, path=None))}
        return parts | {"kl": c.kl, "films": len(self.lessons)}
