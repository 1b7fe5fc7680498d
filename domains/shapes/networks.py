"""The network of shapes: attention among the points of a set, whose order it cannot know, or of a chain."""

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
from sciffusion.networks.rotary import Rotary
from sciffusion.state import State

from .chains import Moves, Neighbours, SpatialBlock

__all__ = ["SetTransformer", "SetTransformerConfig"]


@final
@dataclass(frozen=True)
class SetTransformerConfig:
    """A transformer over points: ``fourier`` features of every coordinate are its first layer's input beside it.

    ``chain`` says that the order of the points means something, and how many neighbours each is told of on both sides
    (see :mod:`.chains`); 0: the points are a set.
    """

    width: int = 128
    depth: int = 6
    heads: int = 4
    expansion: float = 2.0
    embedding: int = 128
    fourier: int = 16
    chain: int = 0


@final
class SetTransformer(nn.Module):
    """Blocks of self-attention, told the noise level, the number of points and what is asked for.

    Permuting the points permutes the output, and padding changes nothing (Lee et al., Set Transformer, 2019; here with
    full attention, and adaLN-zero blocks). The points of a chain have places, which are rotary, and know their
    neighbours. Called as :class:`~sciffusion.denoiser.Preconditioned` calls it, with the field ``points`` (B, N, 3),
    ``Dense`` or ``Masked``; the points of a chain are the first ones of its row.

    Args:
        config: sizes.
        attributes: the number of classes of every attribute; one more means that it is left open.
        bond: of chains, the standard deviation of a coordinate of a step.
    """

    def __init__(
        self, config: SetTransformerConfig, attributes: Mapping[str, int], bond: float = 1.0
    ) -> None:
        super().__init__()
        width, embedding = config.width, config.embedding
        self.embed = NoiseLevel(embedding, 1)
        self.tables = nn.ModuleDict(
            {k: nn.Embedding(n + 1, embedding) for k, n in attributes.items()}
        )
        self.fourier = FourierEmbedding(config.fourier, 8.0, 0.5)
        self.near = Neighbours(config.chain, bond) if config.chain else None
        self.rotary = Rotary(width // config.heads, (False,)) if config.chain else None
        told = self.near.width if self.near is not None else 0
        self.inner = nn.Linear(3 * (1 + config.fourier) + told, width)
        hidden = round(config.expansion * width)
        kind = Block if self.near is None else SpatialBlock
        self.blocks = nn.ModuleList(
            kind(width, config.heads, hidden, embedding) for _ in range(config.depth)
        )
        self.modulation = Modulation(embedding, width, 2)
        known = 0 if self.near is None else self.near.vectors + config.depth * config.heads
        self.outer = Moves(width, known) if known else nn.Linear(width, 3)

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
        mask = layout.mask if isinstance(layout, Masked) else None
        told = [points, self.fourier(points).to(points.dtype).flatten(2)]
        if self.near is None or self.rotary is None:
            h = self.inner(torch.cat(told, -1))
            for block in self.blocks:
                h = block(h, embedding, None, mask, None, None)
            out = self.outer(modulated(h, *self.modulation(embedding)))
            return {"points": layout.clean(out)}
        features, known = self.near(points, layout.points(points))
        places = torch.arange(points.shape[1], device=points.device, dtype=torch.float32)
        rotation = self.rotary([places], [1.0])
        h, vectors = self.inner(torch.cat((*told, features), -1)), [known]
        for block in self.blocks:
            h, ways = block(h, points, embedding, rotation, mask)
            vectors.append(ways)
        out = self.outer(modulated(h, *self.modulation(embedding)), torch.cat(vectors, 2))
        return {"points": layout.clean(out)}
