r"""Images as latents: the codec that does nothing but scale pixels, and a small autoencoder with a Gaussian latent.

The autoencoder is a variational one (Kingma & Welling 2014) whose prior weighs little, as in latent diffusion (Rombach
et al. 2022): the encoder gives mean and standard deviation of :math:`z`, the loss is the error of what is decoded plus
a small multiple of the divergence of :math:`q(z\mid x)` from the normal law, which keeps the latent bounded and smooth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch.nn.functional as F
from torch import Tensor, nn

from sciffusion.codec import Codec
from sciffusion.networks import Conv, Zeros
from sciffusion.training import ModelFile, write_model

__all__ = ["Autoencoder", "AutoencoderConfig", "Pixels"]

_KIND = "image-autoencoder"


@final
class Pixels(Codec):
    """The images themselves, 0 to 1, with the affine map that gives them zero mean and unit variance."""

    factor = 1

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return x, None

    def reconstruct(self, z: Tensor) -> Tensor:
        return z


@final
@dataclass(frozen=True)
class AutoencoderConfig:
    """An autoencoder of ``channels`` grey or colour channels to ``latent`` ones.

    ``widths`` are the channels of each level, from the finest to the coarsest; a level has half the points of the one
    above on both axes, so n levels shrink images by 2^(n-1). ``blocks`` residual blocks stand at every level.
    """

    channels: int = 1
    latent: int = 4
    widths: tuple[int, ...] = (32, 64, 64)
    blocks: int = 1

    def __post_init__(self) -> None:
        if not self.widths or min(*self.widths, self.latent, self.channels, self.blocks) < 1:
            raise ValueError("widths must name one level or more, and all numbers must be positive")

    @property
    def factor(self) -> int:
        """By how much images shrink on both axes."""
        return int(2 ** (len(self.widths) - 1))


@final
class Autoencoder(Codec):
    """A convolutional autoencoder with a Gaussian latent.

    Sizes that the factor does not divide are continued by their last pixels; whoever decodes crops.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__(config.latent)
        self.config, self.factor = config, config.factor
        widths, blocks = config.widths, config.blocks
        down: list[nn.Module] = [_Conv(config.channels, widths[0])]
        for i, width in enumerate(widths):
            if i:
                down.append(_Conv(widths[i - 1], width, stride=2))
            down += [_Block(width) for _ in range(blocks)]
        self.encoder = nn.Sequential(*down, _Norm(widths[-1]), _Conv(widths[-1], 2 * config.latent))
        up: list[nn.Module] = [_Conv(config.latent, widths[-1])]
        for i in reversed(range(len(widths))):
            up += [_Block(widths[i]) for _ in range(blocks)]
            if i:
                up.append(_Up(widths[i], widths[i - 1]))
        self.decoder = nn.Sequential(*up, _Norm(widths[0]), _Conv(widths[0], config.channels))

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean and standard deviation of the latent (B, latent, H / factor, W / factor) of images 0 to 1."""
        if x.ndim != 4 or x.shape[1] != self.config.channels:
            raise ValueError(
                f"images must be (B, {self.config.channels}, H, W), got {tuple(x.shape)}"
            )
        h, w = x.shape[2:]
        x = F.pad(x, (0, -w % self.factor, 0, -h % self.factor), mode="replicate")
        mean, spread = self.encoder(2 * x - 1).chunk(2, 1)
        return mean, spread.clamp(-20, 10).exp()

    def reconstruct(self, z: Tensor) -> Tensor:
        """Images, about 0 to 1, whose sizes are multiples of the factor."""
        out: Tensor = self.decoder(z)
        return (out + 1) / 2

    def divergence(self, mean: Tensor, std: Tensor) -> Tensor:
        """The divergence of the latent's law from the normal one, in nats for each image, (B,)."""
        each = 0.5 * (mean**2 + std**2 - 1) - std.log()
        return each.flatten(1).sum(1)

    def save(self, path: str | Path, info: dict[str, Any] | None = None) -> Path:
        """Write weights and settings to one safetensors file, weights rounded to float16."""
        meta = {"model": self.config, "info": info or {}}
        affine = {f"affine.{k}": v for k, v in self.affine.state_dict().items()}
        rest = {k: v for k, v in self.state_dict().items() if k not in affine}
        return write_model(path, _KIND, meta, {"": rest}, {"": affine})

    @classmethod
    def load(cls, path: str | Path) -> Autoencoder:
        """Read what :meth:`save` wrote. Raises ``ValueError`` for a file of another kind."""
        file = ModelFile.read(path, _KIND, "an autoencoder of images")
        made = cls(file.config(AutoencoderConfig, "model"))
        made.load_state_dict(file.tensors)
        return made.eval()


class _Conv(nn.Module):
    """A convolution of 3 x 3 with zeros beyond the edges."""

    def __init__(self, a: int, b: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = Conv(a, b, 2, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x, Zeros())


class _Norm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(math.gcd(width, 8), width)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.norm(x))


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _Norm(width), _Conv(width, width), _Norm(width), _Conv(width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class _Up(nn.Module):
    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.conv = _Conv(a, b)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
