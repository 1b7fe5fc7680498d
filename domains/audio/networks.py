"""The networks of clips: transformers over frames or patches of a spectrogram, and a U-Net."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciffusion.layout import Masked
from sciffusion.networks import DiT, FourierEmbedding, NoiseLevel, UNet, attention
from sciffusion.state import State

__all__ = ["FramesConfig", "MelNet", "PatchesConfig", "UNetConfig"]

LENGTH = 32
"""Fourier features of the number of frames."""


@final
@dataclass(frozen=True)
class FramesConfig:
    """A transformer whose tokens are ``frames`` neighbouring frames, all their frequencies as channels.

    Cheap, for there are few tokens, and what the voice of a clip has in common at all frequencies is seen at once.
    """

    kind: Literal["frames"] = "frames"
    frames: int = 2
    width: int = 192
    depth: int = 6
    heads: int = 4
    expansion: float = 4.0
    embedding: int = 128


@final
@dataclass(frozen=True)
class PatchesConfig:
    """A transformer over patches of ``patch`` = (frequencies, frames); places are learned on the axis of frequency."""

    kind: Literal["patches"] = "patches"
    patch: tuple[int, int] = (16, 4)
    width: int = 192
    depth: int = 6
    heads: int = 4
    expansion: float = 4.0
    embedding: int = 128


@final
@dataclass(frozen=True)
class UNetConfig:
    """A convolutional network on clips of up to ``frames`` frames, to which shorter ones are completed."""

    kind: Literal["unet"] = "unet"
    frames: int = 128
    widths: tuple[int, ...] = (32, 64, 96)
    blocks: int = 2
    attention: tuple[bool, ...] = (False, False, True)
    embedding: int = 128


@final
class Reader(nn.Module):
    """What a text says as a whole: ``queries`` learned ones attend to its tokens; nothing where there are none.

    So a text acts as attributes do, on all layers alike.
    """

    def __init__(self, text: int, embedding: int, queries: int = 8) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, embedding // queries))
        self.keys = nn.Linear(text, self.queries.numel(), bias=False)
        self.values = nn.Linear(text, self.queries.numel(), bias=False)
        self.out = nn.Sequential(nn.GELU(), nn.Linear(self.queries.numel(), embedding, bias=False))

    def forward(self, text: Tensor, mask: Tensor | None) -> Tensor:
        """Tokens (B, L, D), and which of them count, (B, L), to (B, E)."""
        count, width = self.queries.shape
        k, v = (
            part(text).unflatten(2, (count, width)).transpose(1, 2)
            for part in (self.keys, self.values)
        )
        q = self.queries[:, None].expand(len(text), -1, -1, -1)
        found: Tensor = self.out(attention(q, k, v, mask).flatten(1))
        return found


@final
class MelNet(nn.Module):
    """A network over padded frames, called as :class:`~sciffusion.denoiser.Preconditioned` calls those of states.

    A clip's result depends neither on the other clips nor on the padding.

    Args:
        config: what kind of network.
        mels: frequencies of a frame.
        attributes: the number of classes of every attribute; one more means that it is left open.
        text, reference: widths of a text's tokens and of a reference's vector, 0 for none.
        attend: whether all layers attend to the text's tokens, or it is read as a whole only.
    """

    def __init__(
        self,
        config: FramesConfig | PatchesConfig | UNetConfig,
        mels: int,
        attributes: Mapping[str, int],
        text: int = 0,
        reference: int = 0,
        attend: bool = True,
    ) -> None:
        super().__init__()
        self.config, self.text, self.attend = config, text, attend
        context = text if attend else 0
        self.embed = NoiseLevel(config.embedding, 1)
        self.length = FourierEmbedding(LENGTH, 4096.0, 4.0)
        self.tables = nn.ModuleDict(
            {k: nn.Embedding(n + 1, config.embedding) for k, n in attributes.items()}
        )
        self.reader = Reader(text, config.embedding) if text else None
        self.reference = nn.Linear(reference, config.embedding, bias=False) if reference else None
        self.body: nn.Module
        match config:
            case FramesConfig():
                self.body = DiT(
                    mels,
                    mels,
                    dims=1,
                    patch=config.frames,
                    width=config.width,
                    depth=config.depth,
                    heads=config.heads,
                    expansion=config.expansion,
                    embedding=config.embedding,
                    context=context,
                    prefix=LENGTH,
                )
            case PatchesConfig():
                if mels % config.patch[0]:
                    raise ValueError(
                        f"patches of {config.patch[0]} frequencies do not divide the {mels} mels"
                    )
                self.body = DiT(
                    1,
                    1,
                    patch=config.patch,
                    width=config.width,
                    depth=config.depth,
                    heads=config.heads,
                    expansion=config.expansion,
                    embedding=config.embedding,
                    context=context,
                    prefix=LENGTH,
                    learned=(mels // config.patch[0], 0),
                )
            case UNetConfig():
                # where a frequency is, no convolution knows: a channel says it, and one more where the clip is
                self.body = UNet(
                    3,
                    1,
                    widths=config.widths,
                    blocks=config.blocks,
                    attention=config.attention,
                    embedding=config.embedding,
                    context=context,
                )

    def forward(
        self,
        state: State,
        log_snr: Mapping[str, Tensor],
        cond: Mapping[str, Tensor] | None = None,
        previous: State | None = None,
    ) -> dict[str, Tensor]:
        """The network's output for ``mel``, (B, T, mels), from a state, log-SNRs (B,) and a condition."""
        x, layout = state["mel"], state.layout("mel")
        if isinstance(layout, Masked):
            mask = layout.mask
        else:
            mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        frames = mask.sum(1)
        embedding = self._embedding(log_snr["mel"], frames, cond or {}, len(x))
        text, text_mask = self._text(cond or {}, len(x), embedding)
        if self.reader is not None and text is not None:
            embedding = embedding + self.reader(text, text_mask)
        if not self.attend:
            text, text_mask = None, None
        match self.config:
            case FramesConfig(frames=step):
                x, mask = _whole(x, mask, step)
                x = x.transpose(1, 2)
                token = self.length(frames).to(embedding).unsqueeze(1)
                y = self.body(x, embedding, text, text_mask, mask, token).transpose(1, 2)
            case PatchesConfig(patch=(_, step)):
                x, mask = _whole(x, mask, step)
                x = x.transpose(1, 2).unsqueeze(1)
                token = self.length(frames).to(embedding).unsqueeze(1)
                mask = mask.unsqueeze(1).expand(-1, x.shape[2], -1)
                y = self.body(x, embedding, text, text_mask, mask, token).squeeze(1).transpose(1, 2)
            case UNetConfig(frames=size):
                y = self._convolved(x, mask, size, embedding, text, text_mask)
        return {"mel": layout.clean(y[:, : state["mel"].shape[1]])}

    def _embedding(
        self, log_snr: Tensor, frames: Tensor, cond: Mapping[str, Tensor], batch: int
    ) -> Tensor:
        missing = [k for k in self.tables if k not in cond]
        if missing:
            raise ValueError(
                f"cond has no entry for {missing}, on which the network is conditioned"
            )
        # about 1 for clips of a second or so
        vector: Tensor = self.embed(log_snr, (frames.unsqueeze(1) / 64).log2())
        for name, table in self.tables.items():
            vector = vector + table(cond[name].expand(batch))
        if self.reference is not None:
            seen = cond.get("reference")
            if seen is None:
                raise ValueError("cond has no entry for 'reference', zeros where there is none")
            vector = vector + self.reference(seen.to(vector).expand(batch, -1))
        return vector

    def _text(
        self, cond: Mapping[str, Tensor], batch: int, like: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        if not self.text:
            return None, None
        if "text" not in cond or "text_mask" not in cond:
            raise ValueError("cond has no entry for 'text' and 'text_mask', for a model of texts")
        text, mask = cond["text"].to(like), cond["text_mask"]
        return text.expand(batch, -1, -1), mask.to(like.device).bool().expand(batch, -1)

    def _convolved(
        self,
        x: Tensor,
        mask: Tensor,
        size: int,
        embedding: Tensor,
        text: Tensor | None,
        text_mask: Tensor | None,
    ) -> Tensor:
        missing = size - x.shape[1]
        if missing < 0:
            raise ValueError(f"the U-Net was built for {size} frames, got {x.shape[1]}")
        x = torch.where(mask.unsqueeze(2), x, 0.0)
        x = F.pad(x, (0, 0, 0, missing)).transpose(1, 2).unsqueeze(1)
        inside = F.pad(mask, (0, missing)).to(x)[:, None, None].expand_as(x)
        height = torch.linspace(-1, 1, x.shape[2], device=x.device, dtype=x.dtype)
        seen = torch.cat([x, inside, height[:, None].expand_as(x)], 1)
        y: Tensor = self.body(seen, embedding, text, text_mask)
        return y.squeeze(1).transpose(1, 2)


def _whole(x: Tensor, mask: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """Frames and mask, continued to a multiple of ``step`` by frames that do not count."""
    missing = -x.shape[1] % step
    if not missing:
        return x, mask
    return F.pad(x, (0, 0, 0, missing)), F.pad(mask, (0, missing))
