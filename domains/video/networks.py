"""The networks of films: a transformer over space and time, and a U-Net; both with a noise level for every frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciffusion.networks import DiT, NoiseLevel, UNet

__all__ = ["FilmNet", "TransformerConfig", "UNetConfig", "walls"]


@final
@dataclass(frozen=True)
class TransformerConfig:
    """A transformer over patches of ``patch`` x ``patch`` pixels of single frames.

    ``attention`` is factorised (within frames, then along time at every place) or full (among all patches of a film).
    ``walls``: the network is told how far every pixel is from the four edges, which relative places leave open.
    """

    kind: Literal["transformer"] = "transformer"
    patch: int = 8
    width: int = 128
    depth: int = 5
    heads: int = 4
    expansion: float = 2.0
    embedding: int = 64
    attention: Literal["factorised", "full"] = "factorised"
    walls: bool = True


@final
@dataclass(frozen=True)
class UNetConfig:
    """A U-Net of single frames whose levels may end in attention along time, which is the identity before training.

    Squares of ``patch`` x ``patch`` pixels become channels of the finest level, which saves much time. ``widths``
    are the channels of the levels, each half as fine as the one before, with ``blocks`` on the way down and as many on
    the way up. ``attention`` and ``temporal`` name the levels that attend within frames and along time.
    """

    kind: Literal["unet"] = "unet"
    patch: int = 2
    widths: tuple[int, ...] = (32, 64, 96)
    blocks: int = 1
    attention: tuple[bool, ...] = (False, True, True)
    temporal: tuple[bool, ...] = (False, True, True)
    head_width: int = 32
    embedding: int = 64
    walls: bool = True

    def __post_init__(self) -> None:
        if self.patch < 1:
            raise ValueError(f"patch must be at least 1, got {self.patch}")


@final
class FilmNet(nn.Module):
    """A network of films (B, T, C, H, W) of any size, called as :class:`~sciffusion.denoiser.Preconditioned` calls it.

    Args:
        config: what kind of network.
        channels: of a frame.
        attributes: the number of classes of every attribute; one more means that it is left open.
    """

    def __init__(
        self,
        config: TransformerConfig | UNetConfig,
        channels: int,
        attributes: Mapping[str, int],
    ) -> None:
        super().__init__()
        self.config = config
        self.embed = NoiseLevel(config.embedding)
        self.tables = nn.ModuleDict(
            {k: nn.Embedding(n + 1, config.embedding) for k, n in attributes.items()}
        )
        self.body = _body(config, channels + 4 * config.walls, channels)

    def forward(
        self,
        x: Tensor,
        log_snr: Tensor,
        cond: Mapping[str, Tensor] | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        """The output for films (B, T, C, H, W).

        Args:
            x: the noised films, at unit variance.
            log_snr: of the films, (B,), or of every frame, (B, T).
            cond: the number of a class for every attribute, (B,).
            previous: not looked at.

        Raises ``ValueError`` for a condition that lacks an attribute.
        """
        missing = [k for k in self.tables if k not in (cond or {})]
        if missing:
            raise ValueError(
                f"cond has no entry for {missing}, on which the network is conditioned"
            )
        vector: Tensor = self.embed(log_snr)
        for name, table in self.tables.items():
            row = table((cond or {})[name].expand(len(x)))
            vector = vector + (row if vector.ndim == 2 else row.unsqueeze(1))
        x = x.transpose(1, 2)
        seen = torch.cat((x, walls(x)), 1) if self.config.walls else x
        if isinstance(self.config, UNetConfig):
            return _coarse(self.body, seen, vector, self.config.patch).transpose(1, 2)
        return self.body(seen, vector).transpose(1, 2)


def _body(config: TransformerConfig | UNetConfig, inner: int, outer: int) -> nn.Module:
    """The network between so many channels of pixels."""
    if isinstance(config, UNetConfig):
        return UNet(
            inner * config.patch**2,
            outer * config.patch**2,
            widths=config.widths,
            blocks=config.blocks,
            attention=config.attention,
            temporal=config.temporal,
            head_width=config.head_width,
            embedding=config.embedding,
        )
    return DiT(
        inner,
        outer,
        dims=3,
        patch=(1, config.patch, config.patch),
        width=config.width,
        depth=config.depth,
        heads=config.heads,
        expansion=config.expansion,
        embedding=config.embedding,
        attention=config.attention,
    )


def _coarse(body: nn.Module, x: Tensor, vector: Tensor, patch: int) -> Tensor:
    """A network of films (B, C, T, H, W) whose squares of pixels are channels; what is missing of squares is black."""
    h, w = x.shape[3:]
    x = F.pad(x, (0, -w % patch, 0, -h % patch))
    frames = F.pixel_unshuffle(x.transpose(1, 2), patch).transpose(1, 2)
    out: Tensor = body(frames, vector)
    return F.pixel_shuffle(out.transpose(1, 2), patch).transpose(1, 2)[..., :h, :w]


def walls(x: Tensor) -> Tensor:
    """How far every pixel of films (B, C, T, H, W) is from the four edges, in units of 16 pixels: (B, 4, T, H, W)."""
    parts = []
    for axis in (3, 4):
        n = x.shape[axis]
        place = (torch.arange(n, device=x.device, dtype=x.dtype) + 0.5) / 16
        parts += [place.view(-1, *(1,) * (4 - axis)), (n / 16 - place).view(-1, *(1,) * (4 - axis))]
    shape = (x.shape[0], 1, *x.shape[2:])
    return torch.cat([p.expand(shape) for p in parts], 1)
