r"""Digits that fly straight and bounce off the walls: films whose physics is known exactly.

A digit's box moves in every axis independently, at a constant speed, between walls that reflect it: after time t it is
at :math:`f(p_0 + vt)` with the triangle wave :math:`f(x) = L - |L - x \bmod 2L|` between 0 and L, the free length. It
may lie between pixels: the picture is moved there by linear interpolation, which keeps the sum of its ink, and puts
its centre of mass exactly where it should be (away from rounding to bytes). Several digits share the brighter value.
The idea of the data is that of Srivastava, Mansimov & Salakhutdinov, 2015 (Moving MNIST).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciffusion.layout import Dense
from sciffusion.noise import Noise, sample_seeds

from ..film import Films
from .digits import SIDE, Digits

__all__ = ["Motion", "MovingDigits", "placed"]

SPEEDS = (0.5, 3.0)
"""Pixels that a digit moves from one frame to the next, the least and the most."""


@final
@dataclass(frozen=True, eq=False)
class Motion:
    """Where boxes are: ``start`` (..., 2) and ``velocity`` (..., 2) in pixels, down and to the right."""

    start: Tensor
    velocity: Tensor

    @classmethod
    def drawn(cls, u: Tensor, size: tuple[int, int]) -> Motion:
        """Motions of numbers (..., 4) uniform on [0, 1): place, direction and speed, all even."""
        free = torch.tensor(_free(size), dtype=torch.float64)
        speed = SPEEDS[0] + (SPEEDS[1] - SPEEDS[0]) * u[..., 2].double()
        angle = 2 * torch.pi * u[..., 3].double()
        velocity = speed[..., None] * torch.stack((angle.sin(), angle.cos()), -1)
        return cls(u[..., :2].double() * free, velocity)

    def at(self, times: Tensor, size: tuple[int, int]) -> Tensor:
        """The upper left corner of the boxes at times (T,), in frames: (..., T, 2), float64."""
        free = torch.tensor(_free(size), dtype=torch.float64)
        path = self.start[..., None, :] + times.double()[:, None] * self.velocity[..., None, :]
        return free - (free - path.remainder(2 * free)).abs()


def placed(ink: Tensor, corners: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures (..., h, w) at upper left corners (..., T, 2) between pixels, on dark frames: (..., T, H, W)."""
    rows, columns = (
        _hat(corners[..., axis], length, ink.shape[axis - 2]).to(ink)
        for axis, length in enumerate(size)
    )
    return torch.einsum("...tyi,...ij,...txj->...tyx", rows, ink, columns)


@final
@dataclass(frozen=True, eq=False)
class MovingDigits:
    """Films of moving digits, made when they are asked for; film i depends on the seed and i alone.

    Args:
        digits: the pictures.
        count: digits in a film.
        rate: frames a second that films say they have.
    """

    digits: Digits
    count: int = 1
    rate: float = 8.0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count must be at least 1, got {self.count}")

    def films(
        self,
        n: int,
        *,
        frames: int = 16,
        size: tuple[int, int] = (32, 32),
        seed: int = 0,
        substeps: int = 1,
    ) -> Films:
        """n films; labels: ``digit`` (of the first digit of each).

        ``substeps`` frames are shown for every one, without changing what moves how fast: slow motion.
        Raises ``ValueError`` for n or frames below 1, or a size below that of a digit.
        """
        if n < 1 or substeps < 1:
            raise ValueError(f"n and substeps must be at least 1, got {n} and {substeps}")
        seeds = sample_seeds(seed, n)
        u = Noise(seeds).uniform(torch.zeros(n, self.count, 5), Dense(n))
        x, classes = self.render(u, frames, size, 1 / substeps)
        labels = {"digit": classes[:, 0].numpy()}
        return Films.of(x, self.rate * substeps, labels)

    def render(
        self, u: Tensor, frames: int, size: tuple[int, int], step: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Films of numbers (N, count, 5) uniform on [0, 1): uint8 (N, T, 1, H, W), and their classes (N, count).

        The first four numbers decide the motion, the last the picture; frames are ``step`` apart.
        """
        if frames < 1 or min(size) <= SIDE:
            raise ValueError(
                f"films need at least one frame, each larger than a digit of {SIDE} pixels, got {frames} of {size}"
            )
        row = (u[..., 4] * len(self.digits)).long().clamp(max=len(self.digits) - 1)
        times = torch.arange(frames, dtype=torch.float64) * step
        corners = Motion.drawn(u[..., :4], size).at(times, size)
        layers = placed(self.digits.ink[row], corners, size)
        x = (layers.amax(1)[:, :, None] * 255).round().to(torch.uint8)
        return x, self.digits.classes[row]


def _free(size: tuple[int, int]) -> tuple[int, int]:
    return size[0] - SIDE, size[1] - SIDE


def _hat(at: Tensor, length: int, count: int) -> Tensor:
    """The weights of linear interpolation, (..., length, count): of a source at ``at + i`` in a pixel y."""
    place = torch.arange(length, dtype=at.dtype)[:, None] - torch.arange(count, dtype=at.dtype)
    return (1 - (place - at[..., None, None]).abs()).clamp(min=0)
