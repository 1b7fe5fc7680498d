r"""Films as latents: the codec that only scales pixels, and an autoencoder that shrinks space and time, causally.

The autoencoder is one of single frames with a convolution along time at the end of every block, which looks back and
never ahead (as those of Yu et al., MAGVIT-v2, 2024). The first frame becomes the first latent frame by itself, every
``time`` further frames one more, so a picture is a film of one frame, and a film of ``1 + k time`` frames has ``1 + k``
latent ones. What is decoded up to some time does not depend on what follows: a long film is decoded in parts, with what
the convolutions must remember carried from part to part (:meth:`CausalAutoencoder.stream`), to the same frames.

Its latent is Gaussian with a prior that weighs little (Kingma & Welling 2014; Rombach et al. 2022).
"""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciffusion.codec import Codec
from sciffusion.networks import Conv, Zeros
from sciffusion.training import ModelFile, write_model

__all__ = ["CausalAutoencoder", "CausalConfig", "FilmCodec", "Frames"]

_KIND = "film-autoencoder"

Memory = dict[nn.Module, Tensor]
"""The last frames that each convolution along time saw, by convolution; empty before the first."""


@final
@dataclass(frozen=True)
class CausalConfig:
    """An autoencoder of films of ``channels`` to ``latent`` channels.

    Frames are first cut into squares of ``patch`` pixels a side, whose pixels become channels: the finest level, where
    there is most to compute and least to decide, is left out (as in LTX-Video, HaCohen et al., 2024).
    ``widths`` are the channels of each level, from the finest to the coarsest; each has half the points of the one
    before on both axes. ``halves`` says of every level but the first whether it also has half the frames. ``blocks``
    residual blocks stand at every level.
    """

    channels: int = 1
    latent: int = 4
    widths: tuple[int, ...] = (16, 32, 64)
    halves: tuple[bool, ...] = (True, True)
    blocks: int = 1
    patch: int = 1

    def __post_init__(self) -> None:
        numbers = (self.latent, self.channels, self.blocks, self.patch)
        if not self.widths or min(*self.widths, *numbers) < 1:
            raise ValueError("widths must name one level or more, and all numbers must be positive")
        if len(self.halves) != len(self.widths) - 1:
            raise ValueError(
                f"halves must name all levels but the first, {len(self.widths) - 1}, got {len(self.halves)}"
            )

    @property
    def space(self) -> int:
        """By how much frames shrink on both axes."""
        return int(self.patch * 2 ** len(self.halves))

    @property
    def time(self) -> int:
        """How many frames one latent frame after the first stands for."""
        return int(2 ** sum(self.halves))

    @property
    def ratio(self) -> float:
        """How many numbers of a long film there are for one of its latent."""
        return self.channels * self.space**2 * self.time / self.latent


class FilmCodec(Codec, ABC):
    """What takes films (B, C, T, H, W), 0 to 1, to what is noised, and back.

    ``space`` is by how much frames shrink on both axes, ``time`` how many frames one latent frame after the first
    stands for.
    """

    space: int = 1
    time: int = 1

    def frames(self, frames: int) -> int:
        """How many latent frames a film of so many has. Raises ``ValueError`` unless they are ``1 + k time``."""
        if frames < 1 or (frames - 1) % self.time:
            raise ValueError(
                f"films must have 1 + k * {self.time} frames, for the first is encoded alone and then every "
                f"{self.time} together; got {frames}"
            )
        return 1 + (frames - 1) // self.time

    @torch.no_grad()
    def latents(self, films: Tensor) -> Tensor:
        """Films frame by frame (B, T, C, H, W), 0 to 1, as a model sees them: (B, T', C', H', W')."""
        return self.encode(films.transpose(1, 2)).transpose(1, 2)

    @torch.no_grad()
    def films(self, z: Tensor, size: tuple[int, int]) -> Tensor:
        """The inverse of :meth:`latents` for frames of this height and width, within 0 and 1."""
        h, w = size
        return self.decode(z.transpose(1, 2)).transpose(1, 2)[..., :h, :w].clamp(0, 1)

    def shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int, int]:
        """The shape (T', C', H', W') of what is noised for films of this shape (T, H, W).

        Raises ``ValueError`` as :meth:`frames` does.
        """
        t, h, w = shape
        return self.frames(t), self.affine.channels, -(-h // self.space), -(-w // self.space)

    def tensors(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The weights by name, and what must not be rounded: the affine map."""
        parts: tuple[dict[str, Tensor], dict[str, Tensor]] = {}, {}
        for name, value in self.state_dict().items():
            parts[name.startswith("affine.")][name] = value
        return parts


@final
class Frames(FilmCodec):
    """The frames themselves, with the affine map that gives them zero mean and unit variance."""

    def posterior(self, x: Tensor) -> tuple[Tensor, None]:
        return x, None

    def reconstruct(self, z: Tensor) -> Tensor:
        return z


@final
class CausalAutoencoder(FilmCodec):
    """A convolutional autoencoder of films (B, C, T, H, W) that never looks ahead, with a Gaussian latent.

    Sides that the factor does not divide are continued by their last pixels; whoever decodes crops.
    """

    def __init__(self, config: CausalConfig) -> None:
        super().__init__(config.latent)
        self.config, self.space, self.time = config, config.space, config.time
        widths, blocks, halves = config.widths, config.blocks, config.halves
        pixels = config.channels * config.patch**2
        down: list[nn.Module] = [_Frames(pixels, widths[0])]
        for i, width in enumerate(widths):
            if i:
                down.append(_Down(widths[i - 1], width, halves[i - 1]))
            down += [_Block(width) for _ in range(blocks)]
        down += [_Norm(widths[-1]), _Frames(widths[-1], 2 * config.latent)]
        up: list[nn.Module] = [_Frames(config.latent, widths[-1])]
        for i in reversed(range(len(widths))):
            up += [_Block(widths[i]) for _ in range(blocks)]
            if i:
                up.append(_Up(widths[i], widths[i - 1], halves[i - 1]))
        up += [_Norm(widths[0]), _Frames(widths[0], pixels)]
        self.encoder, self.decoder = nn.ModuleList(down), nn.ModuleList(up)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latent (B, latent, T', H', W') of films (B, C, T, H, W), 0 to 1.

        Raises ``ValueError`` for another shape, or a number of frames that is not ``1 + k time``.
        """
        if x.ndim != 5 or x.shape[1] != self.config.channels:
            raise ValueError(
                f"films must be (B, {self.config.channels}, T, H, W), got {tuple(x.shape)}"
            )
        self.frames(x.shape[2])
        h, w, by = *x.shape[3:], self.config.space
        x = F.pad(x, (0, -w % by, 0, -h % by, 0, 0), mode="replicate")
        x = _each(x, lambda frames: F.pixel_unshuffle(frames, self.config.patch))
        mean, spread = _run(self.encoder, 2 * x - 1, {}).chunk(2, 1)
        return mean, spread.clamp(-20, 10).exp()

    def reconstruct(self, z: Tensor) -> Tensor:
        """Films, about 0 to 1, whose sides are multiples of the factor."""
        return self._decoded(z, {})

    def _decoded(self, z: Tensor, memory: Memory) -> Tensor:
        x = _each(
            _run(self.decoder, z, memory),
            lambda frames: F.pixel_shuffle(frames, self.config.patch),
        )
        return (x + 1) / 2

    def stream(self, parts: Iterable[Tensor]) -> Iterator[Tensor]:
        """Decode what :meth:`encode` returns part by part, (B, latent, T', H', W') each.

        The films that come out, one after the other, are what :meth:`decode` makes of all parts at once; only the last
        frames that each convolution saw are kept in between, however long the film.
        """
        memory: Memory = {}
        for z in parts:
            yield self._decoded(self.affine.inverse(z), memory)

    def save(self, path: str | Path, info: dict[str, Any] | None = None) -> Path:
        """Write weights and settings to one safetensors file, weights rounded to float16."""
        weights, exact = self.tensors()
        meta = {"model": self.config, "info": info or {}}
        return write_model(path, _KIND, meta, {"": weights}, {"": exact})

    @classmethod
    def load(cls, path: str | Path) -> CausalAutoencoder:
        """Read what :meth:`save` wrote. Raises ``ValueError`` for a file of another kind."""
        file = ModelFile.read(path, _KIND, "an autoencoder of films")
        made = cls(file.config(CausalConfig, "model"))
        made.load_state_dict(file.tensors)
        return made.eval()


def _run(layers: nn.ModuleList, x: Tensor, memory: Memory) -> Tensor:
    for layer in layers:
        x = layer(x, memory)
    return x


def _each(x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """A change of single frames (B, C, H, W), of a film (B, C, T, H, W)."""
    frames = change(x.transpose(1, 2).flatten(0, 1))
    return frames.unflatten(0, (x.shape[0], -1)).transpose(1, 2)


@final
class _Frames(nn.Module):
    """A convolution of 3 x 3 within frames, zeros beyond the edges."""

    def __init__(self, a: int, b: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = Conv(a, b, 2, stride=stride)

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        return _each(x, lambda frames: self.conv(frames, Zeros()))


@final
class _Time(nn.Module):
    """A convolution along time that sees a frame and the two before it, zeros before the first.

    With ``stride`` 2 it looks at the frames 0, 2, 4, ....
    """

    def __init__(self, a: int, b: int, stride: int = 1, *, silent: bool = False) -> None:
        super().__init__()
        self.stride = stride
        bound = 0.0 if silent else 1 / math.sqrt(3 * a)
        self.weight = nn.Parameter(torch.empty(b, a, 3, 1, 1).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(b))

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        seen = memory.get(self)
        if seen is None:
            seen = x.new_zeros(*x.shape[:2], 2, *x.shape[3:])
        x = torch.cat((seen, x), 2)
        y = F.conv3d(x, self.weight, self.bias, (self.stride, 1, 1))
        memory[self] = x[:, :, self.stride * y.shape[2] :]  # where the next one begins
        return y


@final
class _Norm(nn.Module):
    """Group norm of every frame by itself, for statistics over time would see ahead; and an activation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(math.gcd(width, 8), width)

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        return _each(x, lambda frames: F.silu(self.norm(frames)))


@final
class _Block(nn.Module):
    """Two convolutions within frames and one along time, added to what comes in; at first time does nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.within = nn.ModuleList(
            [_Norm(width), _Frames(width, width), _Norm(width), _Frames(width, width)]
        )
        self.along = nn.ModuleList([_Norm(width), _Time(width, width, silent=True)])

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        x = x + _run(self.within, x, memory)
        return x + _run(self.along, x, memory)


@final
class _Down(nn.Module):
    """Half the points, and half the frames if wanted: the first alone, then each two as one."""

    def __init__(self, a: int, b: int, halve: bool) -> None:
        super().__init__()
        self.within = _Frames(a, b, stride=2)
        self.along = _Time(b, b, stride=2) if halve else None

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        x = self.within(x, memory)
        return x if self.along is None else self.along(x, memory)


@final
class _Up(nn.Module):
    """Twice the points, and two frames for each after the first of a film if wanted."""

    def __init__(self, a: int, b: int, double: bool) -> None:
        super().__init__()
        self.within = _Frames(a, b)
        self.along = _Time(a, a) if double else None

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        if self.along is not None:
            first = self.along not in memory
            x = x.repeat_interleave(2, 2)
            x = self.along(x[:, :, 1:] if first else x, memory)
        x = F.interpolate(x, scale_factor=(1.0, 2.0, 2.0), mode="nearest")
        return self.within(x, memory)
