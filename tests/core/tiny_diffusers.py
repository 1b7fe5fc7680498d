"""Tiny randomly initialised networks of diffusers, and its own sampling loop."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sciffusion.domains.audio._torchaudio import torchaudio
from sciffusion.errors import MissingExtra


@cache
def library() -> Any:
    """The package; it imports torchaudio by way of transformers, which a CPU build of torch may break."""
    pytest.importorskip("diffusers")
    with suppress(MissingExtra):
        torchaudio()
    import diffusers

    return diffusers


def seeded(kind: Any, **config: Any) -> nn.Module:
    """A network with weights of its own that leave no output at zero, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = kind(**config).eval()
        for p in model.parameters():
            p.requires_grad_(False)
            if not p.any():  # what is zero at the start says nothing of how it is called
                p.normal_(std=0.05)
    return model


@cache
def unet() -> nn.Module:
    return seeded(
        library().UNet2DModel,
        sample_size=8,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
    )


FLUX = {
    "in_channels": 16,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 12,
    "pooled_projection_dim": 10,
    "guidance_embeds": True,
    "axes_dims_rope": (4, 4, 8),
}
"""FLUX for latents of four channels."""


def tiny_flux() -> nn.Module:
    return seeded(library().FluxTransformer2DModel, **FLUX)


def tiny_vae(**more: Any) -> nn.Module:
    """Images to latents of four channels and half the size."""
    return seeded(
        library().AutoencoderKL,
        block_out_channels=(4, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=2,
        **more,
    )


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def loop(model: Any, scheduler: Any, x: Tensor, steps: int, **options: Any) -> Tensor:
    """Sampling as their pipelines write it; ``x`` has unit variance."""
    scheduler.set_timesteps(steps, **options)
    x = x * float(getattr(scheduler, "init_noise_sigma", 1.0))
    for t in scheduler.timesteps:
        seen = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(model(seen, t, return_dict=False)[0], t, x, return_dict=False)[0]
    return x


def scheduler(name: str, **config: Any) -> Any:
    """A scheduler by the name of its class."""
    return getattr(library(), name)(**config)


def clipless(**config: Any) -> Any:
    """DDIM for v, which no network of random weights blows up, and for values that are not clipped."""
    return scheduler("DDIMScheduler", clip_sample=False, prediction_type="v_prediction", **config)
