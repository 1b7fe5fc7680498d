"""The networks of images: a U-Net and transformers over patches, told the noise level and what is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciffusion.networks import DiT, FourierEmbedding, MMDiT, NoiseLevel, UNet

__all__ = ["ImageNet", "MMDiTConfig", "Network", "PatchesConfig", "UNetConfig", "fold"]

ORDER = 32
"""Fourier features of a token's place in the text."""


@final
@dataclass(frozen=True)
class UNetConfig:
    """A convolutional network; ``fold`` x ``fold`` pixels become the channels of one point before its first layer.

    Folding by 2 takes a quarter of the time on images whose finest structure is as large as that.
    """

    kind: Literal["unet"] = "unet"
    fold: int = 1
    widths: tuple[int, ...] = (32, 64, 96)
    blocks: int = 2
    attention: tuple[bool, ...] = (False, False, True)
    head_width: int = 32
    embedding: int = 128
    dropout: float = 0.0


@final
@dataclass(frozen=True)
class PatchesConfig:
    """A transformer over patches of ``patch`` x ``patch`` pixels."""

    kind: Literal["patches"] = "patches"
    patch: int = 4
    width: int = 128
    depth: int = 6
    heads: int = 4
    expansion: float = 4.0
    embedding: int = 128


@final
@dataclass(frozen=True)
class MMDiTConfig:
    """A transformer over patches and the tokens of a text: ``double`` blocks with two streams, ``single`` with one."""

    kind: Literal["mmdit"] = "mmdit"
    patch: int = 4
    width: int = 128
    double: int = 2
    single: int = 4
    heads: int = 4
    expansion: float = 4.0
    embedding: int = 128


Network = UNetConfig | PatchesConfig | MMDiTConfig


@final
class ImageNet(nn.Module):
    """A network over images (B, C, H, W) of any size, called as :class:`~sciffusion.denoiser.Preconditioned` calls it.

    Two more channels say where a point lies, from -1 to 1 on both axes: convolutions cannot know it, nor can attention
    by distances. Sizes that folding does not divide are continued by their last pixels, and the result is cropped.

    The points attend to the tokens of a text (U-Net: where it has attention), and their mean is part of the embedding.
    Each token is told its place in the text: attention knows of none, and an encoder without context gives a bag of
    words, in which "a red square left of a blue circle" is also a blue square right of a red circle.

    Args:
        config: what kind of network.
        channels: of the images or latents.
        attributes: the number of classes of every attribute; one more means that it is left open.
        text, reference: widths of a text's tokens and of a reference's vector, 0 for none.

    Raises ``ValueError`` for an MM-DiT without texts.
    """

    def __init__(
        self,
        config: Network,
        channels: int,
        attributes: Mapping[str, int],
        text: int = 0,
        reference: int = 0,
    ) -> None:
        super().__init__()
        self.text = text
        self.fold = config.fold if isinstance(config, UNetConfig) else 1
        if self.fold < 1:
            raise ValueError(f"fold must be at least 1, got {self.fold}")
        self.embed = NoiseLevel(config.embedding)
        self.tables = nn.ModuleDict(
            {k: nn.Embedding(n + 1, config.embedding) for k, n in attributes.items()}
        )
        self.whole = nn.Linear(text, config.embedding, bias=False) if text else None
        self.order = FourierEmbedding(ORDER, 128.0, 2.0)
        context = text + ORDER if text else 0
        self.reference = nn.Linear(reference, config.embedding, bias=False) if reference else None
        points = channels * self.fold**2
        self.body: nn.Module
        match config:
            case UNetConfig():
                self.body = UNet(
                    points + 2,
                    points,
                    widths=config.widths,
                    blocks=config.blocks,
                    attention=config.attention,
                    head_width=config.head_width,
                    embedding=config.embedding,
                    context=context,
                    dropout=config.dropout,
                )
            case PatchesConfig():
                self.body = DiT(
                    points + 2,
                    points,
                    patch=config.patch,
                    width=config.width,
                    depth=config.depth,
                    heads=config.heads,
                    expansion=config.expansion,
                    embedding=config.embedding,
                    context=context,
                )
            case MMDiTConfig():
                if not text:
                    raise ValueError(
                        "an MM-DiT reads texts, but the model has none: give it text, or take kind patches"
                    )
                self.body = MMDiT(
                    points + 2,
                    points,
                    context=context,
                    patch=config.patch,
                    width=config.width,
                    double=config.double,
                    single=config.single,
                    heads=config.heads,
                    expansion=config.expansion,
                    embedding=config.embedding,
                )

    def forward(
        self,
        x: Tensor,
        log_snr: Tensor,
        cond: Mapping[str, Tensor] | None = None,
        previous: Tensor | None = None,
    ) -> Tensor:
        """The network's output (B, C, H, W) from images, log-SNRs (B,) and a condition."""
        seen, embedding = self.prepare(x, log_snr, cond)
        return self.finish(self.body(seen, embedding, *self.context(cond, embedding)), x)

    def prepare(
        self, x: Tensor, log_snr: Tensor, cond: Mapping[str, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """What the body is given: points with their places, and the embedding (B, E)."""
        cond = cond or {}
        needed = {
            "text": self.whole is not None,
            "text_mask": self.whole is not None,
            "reference": self.reference is not None,
        }
        wanted = [*self.tables, *(k for k, is_ in needed.items() if is_)]
        missing = [k for k in wanted if k not in cond]
        if missing:
            raise ValueError(
                f"cond has no entry for {missing}, on which the network is conditioned"
            )
        embedding: Tensor = self.embed(log_snr)
        for name, table in self.tables.items():
            embedding = embedding + table(cond[name].expand(len(x)))
        if self.whole is not None:
            text, mask = self.context(cond, embedding)
            share = (mask / mask.sum(1, keepdim=True).clamp(min=1)).to(text)
            mean = torch.einsum("bld,bl->bd", text[..., : self.text], share)
            embedding = embedding + self.whole(mean)
        if self.reference is not None:
            vector = cond["reference"].to(embedding)
            embedding = embedding + self.reference(vector.expand(len(x), -1))
        seen = fold(x, self.fold)
        return torch.cat((seen, _places(seen)), 1), embedding

    def context(self, cond: Mapping[str, Tensor] | None, like: Tensor) -> tuple[Tensor, ...]:
        """The tokens of the text and which of them count, for a batch like the embedding; nothing without texts."""
        if self.whole is None or cond is None:
            return ()
        text, mask = cond["text"].to(like), cond["text_mask"].to(like.device).bool()
        places = self.order(torch.arange(text.shape[1], device=text.device)).to(text)
        text = torch.cat((text, places.expand(len(text), -1, -1)), -1)
        return text.expand(len(like), -1, -1), mask.expand(len(like), -1)

    def finish(self, y: Tensor, x: Tensor) -> Tensor:
        """What the body returned, as large as ``x``."""
        y = F.pixel_shuffle(y, self.fold) if self.fold > 1 else y
        return y[:, :, : x.shape[2], : x.shape[3]]


def fold(x: Tensor, factor: int) -> Tensor:
    """Squares of points as channels, (B, C, H, W) to (B, C f^2, H / f, W / f); edges are continued to whole squares."""
    if factor == 1:
        return x
    h, w = x.shape[2:]
    return F.pixel_unshuffle(F.pad(x, (0, -w % factor, 0, -h % factor), mode="replicate"), factor)


def _places(x: Tensor) -> Tensor:
    """Row and column of every point, from -1 to 1, (B, 2, H, W)."""
    b, _, h, w = x.shape
    rows, columns = (torch.linspace(-1, 1, n, dtype=x.dtype, device=x.device) for n in (h, w))
    grid = torch.stack((rows[:, None].expand(h, w), columns[None].expand(h, w)))
    return grid.expand(b, 2, h, w)
