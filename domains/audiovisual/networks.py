"""The network of scenes: a transformer with two streams, the patches of a film and the spectra of its sound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from sciffusion.networks import DiT, NoiseLevel, Rotary
from sciffusion.networks.attention import attention, zeroed
from sciffusion.networks.blocks import Block
from sciffusion.networks.modulation import Modulation, gated, modulated
from sciffusion.networks.patches import join, split
from sciffusion.state import State

from ..video.networks import FilmNet, walls

__all__ = ["FIELDS", "PairBlock", "PairConfig", "SceneNet"]

FIELDS = ("film", "sound")


@final
@dataclass(frozen=True)
class PairConfig:
    """A transformer over patches of ``patch`` x ``patch`` pixels of single frames, and ``hops`` spectra in a row.

    All tokens attend to all, and both kinds stand on one axis of time; each kind has weights of its own. ``width``,
    ``depth``, ``heads`` and ``expansion`` are those of a transformer, ``embedding`` the size of the vector that tells
    the noise levels and what is asked for.
    """

    kind: Literal["pair"] = "pair"
    patch: int = 16
    hops: int = 2
    width: int = 128
    depth: int = 6
    heads: int = 4
    expansion: float = 2.0
    embedding: int = 64

    def __post_init__(self) -> None:
        if min(self.patch, self.hops) < 1:
            raise ValueError(f"patch and hops must be at least 1, got {self.patch}, {self.hops}")


@final
class PairBlock(nn.Module):
    """Two streams of tokens with weights of their own, each token at its place in both; the identity at initialisation.

    Source: the double blocks of MM-DiT (Esser et al. 2024, arXiv 2403.03206), here with places for both streams.
    """

    def __init__(self, width: int, heads: int, hidden: int, embedding: int) -> None:
        super().__init__()
        self.streams = nn.ModuleDict({k: Block(width, heads, hidden, embedding) for k in FIELDS})

    def forward(
        self, tokens: dict[str, Tensor], vector: Tensor, places: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Tokens (B, L, width) of every field to the same; ``places`` are rotations (L, d / 2), see :mod:`.rotary`."""
        blocks = {k: self._stream(k) for k in FIELDS}
        parts = {k: block.modulation(vector) for k, block in blocks.items()}
        projected = [
            block.own.project(modulated(tokens[k], *parts[k][:2]), places[k])
            for k, block in blocks.items()
        ]
        q, k, v = (torch.cat(both, 2) for both in zip(*projected, strict=True))
        h = attention(q, k, v).transpose(1, 2).flatten(2)
        counts = [tokens[name].shape[1] for name in FIELDS]
        out = {}
        for name, found in zip(FIELDS, h.split(counts, 1), strict=True):
            block = blocks[name]
            x = gated(tokens[name], parts[name][2], block.own.out(found))
            out[name] = block.feed(x, parts[name], None)
        return out

    def _stream(self, name: str) -> Block:
        block = self.streams[name]
        assert isinstance(block, Block)
        return block


@final
class SceneNet(nn.Module):
    """A network of states with the fields ``film`` (B, T, C, H, W) and ``sound`` (B, S, mels).

    Each field has a noise level of its own, (B,); both modulate all tokens, and so does what is asked for. Called as
    :class:`~sciffusion.denoiser.Preconditioned` calls it.

    Args:
        config: what kind of network.
        channels: of a frame.
        mels: numbers of a spectrum.
        beat: frames of the film for every frame of sound, which puts both on one axis of time.
        attributes: the number of classes of every attribute; one more means that it is left open.
    """

    def __init__(
        self,
        config: PairConfig,
        channels: int,
        mels: int,
        beat: float,
        attributes: Mapping[str, int],
    ) -> None:
        super().__init__()
        self.config, self.mels, self.beat = config, mels, beat
        width, pixels = config.width, config.patch**2
        self.embed = nn.ModuleDict({k: NoiseLevel(config.embedding) for k in FIELDS})
        self.tables = nn.ModuleDict(
            {k: nn.Embedding(n + 1, config.embedding) for k, n in attributes.items()}
        )
        self.mix = nn.Linear(config.embedding, config.embedding)
        self.rotary = Rotary(width // config.heads, (False, False, False))
        self.first = nn.ModuleDict(
            {
                "film": nn.Linear((channels + 4) * pixels, width),
                "sound": nn.Linear(config.hops * mels, width),
            }
        )
        self.blocks = nn.ModuleList(
            PairBlock(width, config.heads, int(config.expansion * width), config.embedding)
            for _ in range(config.depth)
        )
        self.modulation = nn.ModuleDict({k: Modulation(config.embedding, width, 2) for k in FIELDS})
        self.last = nn.ModuleDict(
            {
                "film": zeroed(nn.Linear(width, channels * pixels)),
                "sound": zeroed(nn.Linear(width, config.hops * mels)),
            }
        )

    def forward(
        self,
        x: State,
        log_snr: Mapping[str, Tensor],
        cond: Mapping[str, Tensor] | None = None,
        previous: Any = None,
    ) -> dict[str, Tensor]:
        """The output for a state at unit variance, with a log-SNR (B,) for every field.

        ``cond`` holds the number of a class for every attribute, (B,).

        Raises ``ValueError`` for sides that are no multiples of the patch, a sound that is none of hops, or a
        condition that lacks an attribute.
        """
        c, film, sound = self.config, x["film"].transpose(1, 2), x["sound"]
        t, (h, w), s = film.shape[2], film.shape[3:], sound.shape[1]
        if h % c.patch or w % c.patch or s % c.hops:
            raise ValueError(
                f"frames must be multiples of {c.patch} pixels and sounds of {c.hops} spectra, got {h} x {w} and {s}"
            )
        patch, grid = (1, c.patch, c.patch), (t, h // c.patch, w // c.patch)
        seen = torch.cat((film, walls(film)), 1)
        tokens = {
            "film": self.first["film"](split(seen, patch)),
            "sound": self.first["sound"](sound.unflatten(1, (-1, c.hops)).flatten(2)),
        }
        vector = self._vector(log_snr, cond or {}, len(film))
        places = self._places(film, grid, s)
        for block in self.blocks:
            tokens = block(tokens, vector, places)
        done = {k: self.last[k](modulated(tokens[k], *self.modulation[k](vector))) for k in FIELDS}
        frames = join(done["film"], patch, grid).transpose(1, 2)
        return {
            "film": frames,
            "sound": done["sound"].unflatten(2, (c.hops, self.mels)).flatten(1, 2),
        }

    def _vector(
        self, log_snr: Mapping[str, Tensor], cond: Mapping[str, Tensor], batch: int
    ) -> Tensor:
        """What modulates all tokens, (B, E): the noise levels and what is asked for."""
        missing = [k for k in self.tables if k not in cond]
        if missing:
            raise ValueError(
                f"cond has no entry for {missing}, on which the network is conditioned"
            )
        told = [self.embed[k](log_snr[k]).expand(batch, -1) for k in FIELDS]
        told += [table(cond[k].expand(batch)) for k, table in self.tables.items()]
        return nn.functional.silu(self.mix(torch.stack(told).sum(0)))

    def _places(self, film: Tensor, grid: tuple[int, int, int], spectra: int) -> dict[str, Tensor]:
        """The places of tokens, (L, d / 2): time in frames, then patches down and to the right.

        Tokens of sound stand in the first row, and to the right by their number: what is a fraction of a frame apart
        is told apart by that.
        """
        dtype = torch.promote_types(film.dtype, torch.float32)

        def steps(n: int) -> Tensor:
            return torch.arange(n, dtype=dtype, device=film.device)

        ones, hops = [1.0, 1.0, 1.0], self.config.hops
        count = spectra // hops
        times = self.rotary([self.beat * hops * steps(count), steps(1), steps(1)], ones)
        numbers = self.rotary([steps(1), steps(1), steps(count)], ones)
        return {"film": self.rotary([steps(n) for n in grid], ones), "sound": times * numbers}

    def begin_with(self, film: FilmNet) -> None:
        """Take over the half of the film from a trained network of films, and the classes that both know.

        What sounds tell of the noise level, and attributes that it does not know, say nothing at first. Raises
        ``ValueError`` for another architecture.
        """
        body, mine = film.body, [block.streams["film"] for block in self._pairs()]
        if not isinstance(body, DiT) or body.embed is None or len(body.blocks) != len(mine):
            raise ValueError(f"the network of films must be a transformer of {len(mine)} blocks")
        parts: list[tuple[nn.Module, nn.Module]] = [
            (self.embed["film"], film.embed),
            (self.mix, body.embed),
            (self.first["film"], body.first),
            (self.modulation["film"], body.modulation),
            (self.last["film"], body.last),
            *zip(mine, body.blocks, strict=True),
            *((table, film.tables[k]) for k, table in self.tables.items() if k in film.tables),
        ]
        try:
            for ours, theirs in parts:
                ours.load_state_dict(theirs.state_dict())
        except RuntimeError as error:
            raise ValueError(f"the network of films is of another architecture: {error}") from error
        heard = self.embed["sound"]
        assert isinstance(heard, NoiseLevel)
        zeroed(heard.last)
        for name, table in self.tables.items():
            if name not in film.tables:
                zeroed(table)

    def _pairs(self) -> list[PairBlock]:
        found = [block for block in self.blocks if isinstance(block, PairBlock)]
        assert len(found) == len(self.blocks)
        return found
