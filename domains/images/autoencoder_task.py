"""Training an autoencoder of images: settings, batches and loss for the training engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sciffusion.config import to_dict
from sciffusion.layout import Dense
from sciffusion.noise import Noise
from sciffusion.training import Order, Shuffled, StepLoss, Task, TrainConfig

from .autoencoder import Autoencoder, AutoencoderConfig
from .container import Images
from .task import DataConfig

__all__ = ["AutoencoderTask", "AutoencoderTraining"]


@final
@dataclass(frozen=True)
class AutoencoderTraining:
    """All settings of a training run: what a configuration file holds.

    The loss is the mean absolute error of a pixel plus ``kl`` times the latent's divergence from the normal law, in
    nats for each pixel. Absolute errors leave edges sharper than squared ones.
    """

    kind: Literal["autoencoder"] = "autoencoder"
    model: AutoencoderConfig = AutoencoderConfig()
    data: DataConfig = DataConfig()
    kl: float = 1e-3
    train: TrainConfig = TrainConfig()


@final
class AutoencoderTask(Task[Tensor]):
    """Learning to encode the images of a data set. Raises ``ValueError`` for images with other channels."""

    def __init__(
        self, config: AutoencoderTraining, images: Images, valid: Images | None = None
    ) -> None:
        if images.channels != config.model.channels:
            raise ValueError(
                f"model.channels is {config.model.channels}, but the images have {images.channels}"
            )
        self.config, self.images, self.valid = config, images, valid

    def model(self) -> Autoencoder:
        """The untrained autoencoder."""
        return Autoencoder(self.config.model)

    def order(self, config: TrainConfig) -> Order:
        """Images in a new order each epoch."""
        return Shuffled(len(self.images), config.batch_size, config.seed)

    def batch(self, indices: NDArray[np.int64], key: int, device: torch.device) -> Tensor:
        """Pixels (B, C, H, W), 0 to 1."""
        return self.images[indices].to_floats().pixels.to(device)

    def loss(self, model: nn.Module, batch: Tensor, key: int) -> StepLoss:
        """The mean over the images, with both parts beside it."""
        error, divergence = self._parts(model, batch, Noise(key))
        return StepLoss(
            error + self.config.kl * divergence, {"error": error, "divergence": divergence}
        )

    def _parts(self, model: nn.Module, x: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        inner = getattr(model, "module", model)  # under DDP, which only knows how to call it
        assert isinstance(inner, Autoencoder)
        mean, std = inner.posterior(x)
        assert std is not None
        made = inner.reconstruct(mean + std * noise.normal(mean, Dense(len(mean))))
        made = made[:, :, : x.shape[2], : x.shape[3]]
        return (made - x).abs().mean(), inner.divergence(mean, std).mean() / x[0].numel()

    def validate(self, model: nn.Module, key: int) -> dict[str, float]:
        """Both parts of up to 512 held-out images, and the root of the mean squared error of a decoded mean."""
        if self.valid is None:
            return {}
        x = self.valid[:512].to_floats().pixels.to(next(model.parameters()).device)
        with torch.no_grad():
            error, divergence = self._parts(model, x, Noise(key))
            assert isinstance(model, Autoencoder)
            made = model.reconstruct(model.posterior(x)[0])[:, :, : x.shape[2], : x.shape[3]]
        return {
            "error": float(error),
            "divergence": float(divergence),
            "rmse": float((made - x).square().mean().sqrt()),
        }

    def finished(self, weights: Mapping[str, Tensor]) -> Autoencoder:
        """The trained autoencoder, its affine map fitted on up to 10,000 images."""
        made = self.model()
        made.load_state_dict(dict(weights))
        made.eval()
        made.fit(part for part in self.images[:10_000].to_floats().pixels.split(256))
        return made

    def describe(self) -> dict[str, object]:
        """Everything that shapes the run but the engine's own settings."""
        c = self.config
        parts = {"model": to_dict(c.model), "data": to_dict(replace(c.data, path=None))}
        return parts | {"kl": c.kl, "images": len(self.images)}
