"""What tests of images share: pictures of bars, and models small enough to train in a test."""

from __future__ import annotations

import numpy as np
import torch

from sciffusion.domains.images import (
    Autoencoder,
    AutoencoderConfig,
    ImageModel,
    Images,
    ImageTask,
    ImageTraining,
    ModelConfig,
    PatchesConfig,
    UNetConfig,
)
from sciffusion.training import TrainConfig

NETWORKS: dict[str, UNetConfig | PatchesConfig] = {
    "unet": UNetConfig(widths=(16, 32), blocks=1, attention=(False, True), embedding=16),
    "folded": UNetConfig(fold=2, widths=(16, 32), blocks=1, attention=(False, True), embedding=16),
    "patches": PatchesConfig(patch=2, width=16, depth=2, heads=2, embedding=8),
}
CODEC = AutoencoderConfig(widths=(8, 16), latent=2)


def bars(n: int = 24, size: int = 6, seed: int = 0, channels: int = 1) -> Images:
    """Bright bars on a dark ground, down or across, each at a place of its own."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 30, (n, channels, size, size)).astype(np.uint8)
    labels = np.array(["across", "down"])[np.arange(n) % 2]
    for i, place in enumerate(rng.integers(0, size, n)):
        if i % 2:
            x[i, :, :, place] += 220
        else:
            x[i, :, place] += 220
    return Images.of(x, {"label": labels})


def settings(
    network: str = "unet", *, steps: int = 20, every: int = 0, channels: int = 1
) -> ImageTraining:
    """A training run of seconds."""
    train = TrainConfig(
        steps=steps, batch_size=8, lr=5e-3, warmup=2, validate_every=every, log_every=10
    )
    return ImageTraining(
        model=ModelConfig(channels=channels, network=NETWORKS[network]), train=train
    )


def shaken(network: str = "unet", *, latent: bool = False, channels: int = 1) -> ImageModel:
    """A model with random weights, no output of which is zero."""
    torch.manual_seed(0)
    task = ImageTask(settings(network, channels=channels), bars(channels=channels))
    config, codec = task.config.model, task.codec
    if latent:
        config = ModelConfig(
            network=NETWORKS[network], size=(6, 6), classes=config.classes, codec=CODEC
        )
        made = Autoencoder(CODEC)
        made.fit([bars().to_floats().pixels])
        codec = made
    denoiser = config.denoiser()
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in denoiser.parameters():
            p.add_(0.08 * torch.randn(p.shape, generator=g))
    return ImageModel(config, denoiser.eval(), codec.eval())
