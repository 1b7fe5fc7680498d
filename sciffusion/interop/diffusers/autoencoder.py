"""Their autoencoders as codecs of ours, in the units of their pipelines."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn

from sciffusion.codec import Affine, Codec
from sciffusion.interop.diffusers.training import Training

__all__ = ["from_autoencoder"]


def from_autoencoder(vae: nn.Module, scheduler: object | None = None) -> Codec:
    """An autoencoder of theirs as a codec, with the affine map of its latent that its pipelines apply.

    That is a scaling and a shift (Stable Diffusion, FLUX), a mean and a standard deviation per channel (Wan,
    Qwen-Image, LTX), or per channel and frame (Cosmos), read from its configuration or its weights. Images are
    (B, 3, H, W) in [-1, 1], videos (B, 3, T, H, W), sounds (B, channels, T).

    Args:
        vae: the autoencoder.
        scheduler: theirs, its configuration, or a :class:`Training`, where its ``sigma_data`` is the standard
            deviation that the network knows latents by (Cosmos); by default 1.

    Raises:
        ValueError: for a module that is no autoencoder of theirs; on films longer than statistics per frame reach.
    """
    config = getattr(vae, "config", None)
    if config is None or not hasattr(vae, "encode") or not hasattr(vae, "decode"):
        raise ValueError(
            f"vae must be an autoencoder of diffusers with encode and decode, got {type(vae).__name__}"
        )
    training = scheduler
    if scheduler is not None and not isinstance(scheduler, Training):
        training = Training.of(scheduler)
    edm = training.edm if isinstance(training, Training) else None
    return _Autoencoder(vae, config, edm.sigma_data if edm else 1.0)


@final
class _Autoencoder(Codec):
    """An autoencoder of theirs.

    Where statistics differ from frame to frame, they are taken off before the affine map, which has one number a
    channel.
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(self, vae: nn.Module, config: Any, spread: float) -> None:
        names = ("latent_channels", "z_dim", "decoder_input_channels")
        channels = next((int(n) for n in map(config.get, names) if n), 0)
        if channels < 1:
            raise ValueError(
                f"vae is a {type(vae).__name__}, whose configuration does not tell its latent channels"
            )
        super().__init__(channels)
        self.vae, self.config = vae, config
        self.still = type(vae).__name__ == "AutoencoderKLQwenImage"  # images as films of one frame
        ones = torch.ones(channels)
        mean, std = (
            None if (v := self._statistic(name)) is None else torch.as_tensor(v).float().flatten()
            for name in ("latents_mean", "latents_std")
        )
        mean = ones * float(config.get("shift_factor") or 0.0) if mean is None else mean
        std = ones if std is None else std
        of_frames = len(mean) > channels
        for name, value in (("mean", mean), ("std", std)):
            shaped = value.reshape(1, channels, -1, 1, 1) if of_frames else None
            self.register_buffer(name, shaped, persistent=False)
        if of_frames:
            mean, std = 0 * ones, ones
        self.affine = Affine(mean, std / (spread * float(config.get("scaling_factor") or 1.0)))

    def _statistic(self, name: str) -> Any:
        told = self.config.get(name)
        return getattr(self.vae, name, None) if told is None else told

    def _frames(self, z: Tensor) -> tuple[Tensor, Tensor] | None:
        """Mean and standard deviation of every frame, where they differ."""
        if self.mean is None or self.std is None:
            return None
        count, known = z.shape[2], self.mean.shape[2]
        if count > known:
            raise ValueError(
                f"a film of {count} latent frames is longer than the {known} whose statistics this autoencoder holds; "
                "encode or decode it in parts"
            )
        return self.mean[:, :, :count].to(z), self.std[:, :, :count].to(z)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        out = self.vae.encode(x[:, :, None] if self.still else x)  # type: ignore[operator]
        std = None
        if hasattr(out, "latent_dist"):
            z, std = out.latent_dist.mode(), getattr(out.latent_dist, "std", None)
        else:
            z = out.latent if hasattr(out, "latent") else out.latents
        if self.still:
            return z[:, :, 0], None if std is None else std[:, :, 0]
        frames = self._frames(z)
        if frames is None:
            return z, std
        mean, scale = frames
        return (z - mean) / scale, None if std is None else std / scale

    def reconstruct(self, z: Tensor) -> Tensor:
        extra = {}
        if self.config.get("timestep_conditioning"):
            extra["temb"] = z.new_zeros(len(z))  # a decoder that may denoise: from no noise here
        frames = self._frames(z)
        if frames is not None:
            z = z * frames[1] + frames[0]
        out: Tensor = self.vae.decode(z[:, :, None] if self.still else z, **extra).sample  # type: ignore[operator]
        return out[:, :, 0] if self.still else out
