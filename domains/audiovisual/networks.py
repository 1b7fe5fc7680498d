"""The network of scenes: one transformer over the patches of a film and the frames of its sound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from sciffusion.networks import NoiseLevel, Rotary
from sciffusion.networks.attention import zeroed
from sciffusion.networks.blocks import Block
from sciffusion.networks.modulation import Modulation, modulated
from sciffusion.networks.patches import join, split
from sciffusion.state import State

from ..video.networks import walls

__all__ = ["PairConfig", "SceneNet"]


@final
@dataclass(frozen=True)
class PairConfig:
    """A transformer over patches of ``patch`` x ``patch`` pixels of single frames, and ``hops`` spectra in a row.

    All tokens attend to all. Tokens of both kinds stand on one axis of time, ``width``, ``depth``, ``heads`` and
    ``expansion`` are those of a transformer, ``embedding`` the size of the vector that tells the noise levels.
    """

    kind: Literal["pair"] = "pair"
    patch: int = 16
    hops: int = 4
    width: int = 128
    depth: int = 6
    heads: int = 4
    expansion: float = 2.0
    embedding: int = 48

    def __post_init__(self) -> None:
        if min(self.patch, self.hops) < 1:
            raise ValueError(f"patch and hops must be at least 1, got {self.patch}, {self.hops}")


@final
class SceneNet(nn.Module):
    """A network of states with the fields ``film`` (B, T, C, H, W) and ``sound`` (B, S, mels).

    Each field has a noise level of its own, (B,), which modulates its tokens. Called as
    :class:`~sciffusion.denoiser.Preconditioned` calls it.

    Args:
        config: what kind of network.
        channels: of a frame.
        mels: numbers of a spectrum.
        beat: frames of the film for every frame of sound, which puts both on one axis of time.
    """

    def __init__(self, config: PairConfig, channels: int, mels: int, beat: float) -> None:
        super().__init__()
        self.config, self.mels, self.beat = config, mels, beat
        width, pixels = config.width, config.patch**2
        self.embed = nn.ModuleDict({k: NoiseLevel(config.embedding) for k in ("film", "sound")})
        self.rotary = Rotary(width // config.heads, (False, False, False))
        self.first = nn.ModuleDict(
            {
                "film": nn.Linear((channels + 4) * pixels, width),
                "sound": nn.Linear(config.hops * mels, width),
            }
        )
        self.blocks = nn.ModuleList(
            Block(width, config.heads, int(config.expansion * width), config.embedding)
            for _ in range(config.depth)
        )
        self.modulation = Modulation(config.embedding, width, 2)
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
        """The output for a state at unit variance, with a log-SNR (B,) for every field; no condition is looked at.

        Raises ``ValueError`` for sides that are no multiples of the patch, or a sound that is none of hops.
        """
        c, film, sound = self.config, x["film"].transpose(1, 2), x["sound"]
        t, (h, w), s = film.shape[2], film.shape[3:], sound.shape[1]
        if h % c.patch or w % c.patch or s % c.hops:
            raise ValueError(
                f"frames must be multiples of {c.patch} pixels and sounds of {c.hops} spectra, got {h} x {w} and {s}"
            )
        patch, grid = (1, c.patch, c.patch), (t, h // c.patch, w // c.patch)
        seen = torch.cat((film, walls(film)), 1)
        parts = {
            "film": self.first["film"](split(seen, patch)),
            "sound": self.first["sound"](sound.unflatten(1, (-1, c.hops)).flatten(2)),
        }
        levels = torch.cat(
            [
                self.embed[k](log_snr[k])[:, None].expand(-1, v.shape[1], -1)
                for k, v in parts.items()
            ],
            1,
        )
        levels = nn.functional.silu(levels)
        tokens = torch.cat(tuple(parts.values()), 1)
        rotation = self._places(film, grid, s)
        for block in self.blocks:
            tokens = block(tokens, levels, rotation, None, None, None)
        shift, scale = self.modulation(levels, tokens.shape[1])
        count = parts["film"].shape[1]
        done = modulated(tokens, shift, scale)
        frames = join(self.last["film"](done[:, :count]), patch, grid).transpose(1, 2)
        spectra = (
            self.last["sound"](done[:, count:]).unflatten(2, (c.hops, self.mels)).flatten(1, 2)
        )
        return {"film": frames, "sound": spectra}

    def _places(self, film: Tensor, grid: tuple[int, int, int], spectra: int) -> Tensor:
        """The places of all tokens, (L, d / 2): time in units of half a frame, then patches down and to the right.

        Tokens of sound stand at the first patch.
        """
        dtype = torch.promote_types(film.dtype, torch.float32)

        def steps(n: int, by: float) -> Tensor:
            return by * torch.arange(n, dtype=dtype, device=film.device)

        still, ones = steps(1, 0.0), [1.0, 1.0, 1.0]
        pictures = self.rotary([steps(grid[0], 2.0), *(steps(n, 1.0) for n in grid[1:])], ones)
        hops = self.config.hops
        heard = self.rotary([steps(spectra // hops, 2 * self.beat * hops), still, still], ones)
        return torch.cat((pictures, heard))
