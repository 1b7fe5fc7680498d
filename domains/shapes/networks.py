"""The network of shapes: attention among the points of a set, whose order it cannot know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from sciffusion.layout import Dense, Masked
from sciffusion.networks import FourierEmbedding, NoiseLevel
from sciffusion.networks.blocks import Block
from sciffusion.networks.modulation import Modulation, modulated
from sciffusion.state import State

__all__ = ["SetTransformer", "SetTransformerConfig"]


@final
@dataclass(frozen=True)
class SetTransformerConfig:
    """A transformer over points: ``fourier`` features of every coordinate are its first layer's input beside it."""

    width: int = 128
    depth: int = 6
    heads: int = 4
    expansion: float = 2.0
    embedding: int = 128
    fourier: int = 16


@final
class SetTransformer(nn.Module):
    """Blocks of self-attention without places, told the noise level, the number of points and what is asked for.

    Permuting the points permutes the output, and padding changes nothing (Lee et al., Set Transformer, 2019; here with
    full attention, and adaLN-zero blocks). Called as :class:`~sciffusion.denoiser.Preconditioned` calls it, with the
    field ``points`` (B, N, 3), ``Dense`` or ``Masked``.

    Args:
        config: sizes.
        attributes: the number of classes of every attribute; one more means that it is left open.
    """

    def __init__(self, config: SetTransformerConfig, attributes: Mapping[str, int]) -> None:
        super().__init__()
        width, embedding = config.width, config.embedding
        self.embed = NoiseLevel(embedding, 1)
        self.tables = nn.ModuleDict(
            {k: nn.Embedding(n + 1, embedding) for k, n in attributes.items()}
        )
        self.fourier = FourierEmbedding(config.fourier, 8.0, 0.5)
        self.inner = nn.Linear(3 * (1 + config.fourier), width)
        hidden = round(config.expansion * width)
        self.blocks = nn.ModuleList(
            Block(width, config.heads, hidden, embedding) for _ in range(config.depth)
        )
        self.modulation = Modulation(embedding, width, 2)
        self.outer = nn.Linear(width, 3)

    def forward(
        self,
        x: State,
        log_snr: Mapping[str, Tensor],
        cond: Mapping[str, Tensor] | None = None,
        previous: State | None = None,
    ) -> dict[str, Tensor]:
        """The output of the field ``points``, zero in the padding.

        Raises ``ValueError`` for a condition without an entry for some attribute, and for a packed state.
        """
        layout, cond = x.layout("points"), cond or {}
        if not isinstance(layout, Dense | Masked):
            raise ValueError("points must be Dense or Masked; Shapes.padded pads packed sets")
        missing = [k for k in self.tables if k not in cond]
        if missing:
            raise ValueError(
                f"cond has no entry for {missing}, on which the network is conditioned"
            )
        points = layout.clean(x["points"])
        size = layout.points(points).to(points.dtype)
        embedding: Tensor = self.embed(log_snr["points"], (size / 100).log()[:, None])
        for name, table in self.tables.items():
            embedding = embedding + table(cond[name].expand(x.batch))
        waves = self.fourier(points).to(points.dtype).flatten(2)
        h = self.inner(torch.cat((points, waves), -1))
        mask = layout.mask if isinstance(layout, Masked) else None
        for block in self.blocks:
            h = block(h, embedding, None, mask, None, None)
        out = self.outer(modulated(h, *self.modulation(embedding)))
        return {"points": layout.clean(out)}
