"""Autoencoders of diffusers as codecs, in the units of their pipelines."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sciffusion.interop.diffusers import (
    from_autoencoder,
)
from sciffusion.noise import Noise
from tests.core.tiny_diffusers import library, randn, scheduler, seeded, tiny_vae, unet

FILMS = {"base_dim": 4, "z_dim": 2, "dim_mult": [1, 1], "num_res_blocks": 1}
STATS = {"latents_mean": [0.5, -1.0], "latents_std": [2.0, 0.25]}


def autoencoders() -> dict[str, tuple[nn.Module, Tensor, Tensor, Tensor]]:
    """A module, data, and mean and standard deviation of the latent as its pipeline uses them."""
    d = library()
    film, image = randn(1, 3, 5, 8, 8), randn(2, 3, 8, 8)
    mean, std = torch.tensor(STATS["latents_mean"]), torch.tensor(STATS["latents_std"])
    ltx = seeded(
        d.AutoencoderKLLTXVideo,
        latent_channels=4,
        block_out_channels=(4, 4, 4, 4),
        decoder_block_out_channels=(4, 4, 4, 4),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        patch_size=1,
        scaling_factor=0.5,
    )
    ltx.latents_mean.copy_(torch.tensor([0.5, -1.0, 0.0, 2.0]))  # type: ignore[operator]
    wan = {"temperal_downsample": [True]}
    return {
        "scaled": (tiny_vae(), image, torch.zeros(4), torch.full((4,), 1 / 0.18215)),
        "shifted": (
            tiny_vae(scaling_factor=0.3611, shift_factor=0.1159),
            image,
            torch.full((4,), 0.1159),
            torch.full((4,), 1 / 0.3611),
        ),
        "wan": (seeded(d.AutoencoderKLWan, **FILMS, **STATS, **wan), film, mean, std),
        "qwen": (seeded(d.AutoencoderKLQwenImage, **FILMS, **STATS, **wan), image, mean, std),
        "ltx": (
            ltx,
            randn(1, 3, 9, 16, 16),
            torch.tensor([0.5, -1.0, 0.0, 2.0]),
            2 * torch.ones(4),
        ),
    }


@torch.no_grad()
def test_an_autoencoder_of_sounds_is_a_codec() -> None:
    vae = seeded(
        library().AutoencoderOobleck,
        encoder_hidden_size=4,
        downsampling_ratios=[2, 2],
        channel_multiples=[1, 2],
        decoder_channels=4,
        decoder_input_channels=2,
    )
    x, codec = randn(2, 2, 32), from_autoencoder(vae)
    z = codec.encode(x)
    torch.testing.assert_close(z, vae.encode(x).latent_dist.mean)  # type: ignore[operator]
    torch.testing.assert_close(codec.decode(z), vae.decode(z).sample)  # type: ignore[operator]
    assert z.shape == (2, 2, 8)


@torch.no_grad()
def test_an_autoencoder_without_a_posterior_is_a_codec() -> None:
    vae = seeded(
        library().AutoencoderDC,
        latent_channels=4,
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_block_out_channels=(4, 4),
        decoder_block_out_channels=(4, 4),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), ()),
        decoder_qkv_multiscales=((), ()),
        scaling_factor=0.5,
    )
    x, codec = randn(2, 3, 8, 8), from_autoencoder(vae)
    z = codec.encode(x, Noise(0))
    torch.testing.assert_close(z, 0.5 * vae.encode(x).latent)  # type: ignore[operator]
    torch.testing.assert_close(codec.decode(z), vae.decode(2 * z).sample)  # type: ignore[operator]


@pytest.mark.parametrize("name", ["scaled", "shifted", "wan", "qwen", "ltx"])
@torch.no_grad()
def test_a_codec_is_the_autoencoder_in_the_units_of_its_pipeline(name: str) -> None:
    vae, x, mean, std = autoencoders()[name]
    seen = x[:, :, None] if name == "qwen" else x
    posterior = vae.encode(seen).latent_dist  # type: ignore[operator]
    shape = (1, -1, *[1] * (seen.ndim - 2))
    expected = (posterior.mean - mean.reshape(shape)) / std.reshape(shape)
    data = vae.decode(posterior.mean).sample  # type: ignore[operator]
    if name == "qwen":
        expected, data = expected[:, :, 0], data[:, :, 0]
    codec = from_autoencoder(vae)
    torch.testing.assert_close(codec.encode(x), expected)
    torch.testing.assert_close(codec.decode(expected), data, atol=1e-4, rtol=1e-4)
    drawn = codec.encode(x, Noise(0))
    assert drawn.shape == expected.shape and not torch.equal(drawn, expected)


@torch.no_grad()
def test_statistics_of_every_frame_are_those_of_cosmos_pipeline() -> None:
    """Four channels and three frames of statistics, and latents as spread as the scheduler says."""
    vae = seeded(
        library().AutoencoderKLCosmos,
        latent_channels=4,
        encoder_block_out_channels=(4, 4),
        decode_block_out_channels=(4, 4),
        attention_resolutions=(),
        num_layers=1,
        resolution=16,
        patch_size=2,
        spatial_compression_ratio=4,
        temporal_compression_ratio=2,
        latents_mean=randn(12, seed=1).tolist(),
        latents_std=(0.5 + randn(12, seed=2).abs()).tolist(),
    )
    theirs = scheduler("EDMEulerScheduler", sigma_data=0.5)
    mean, std = (
        torch.tensor(vae.config[name]).view(1, 4, -1, 1, 1)[:, :, :2]  # type: ignore[index]
        for name in ("latents_mean", "latents_std")
    )
    x, codec = randn(2, 3, 3, 16, 16), from_autoencoder(vae, theirs)
    own = vae.encode(x).latent_dist.mode()  # type: ignore[operator]
    assert own.shape[2] == 2
    z = codec.encode(x, Noise(0))
    torch.testing.assert_close(z, (own - mean) / std * 0.5)
    latents = z * std / theirs.config.sigma_data + mean
    torch.testing.assert_close(codec.decode(z), vae.decode(latents).sample)  # type: ignore[operator]
    torch.testing.assert_close(from_autoencoder(vae).encode(x), 2 * z)
    with pytest.raises(ValueError, match="4 latent frames is longer than the 3"):
        codec.decode(randn(1, 4, 4, 4, 4))


def test_what_is_no_autoencoder_is_refused() -> None:
    with pytest.raises(ValueError, match="must be an autoencoder of diffusers"):
        from_autoencoder(unet())
