"""What a model learns from: films of one shape for every batch, and which of their frames it is shown clean."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .datasets.moving import MovingDigits
from .film import Films

__all__ = ["Crops", "Endless", "Lessons", "shown"]

Shape = tuple[int, int, int]


class Lessons(ABC):
    """Films that batches are drawn from."""

    labels: Mapping[str, NDArray[Any]]

    @abstractmethod
    def __len__(self) -> int:
        """How many there are."""

    @abstractmethod
    def draw(self, rows: NDArray[np.int64], u: Tensor, shape: Shape) -> Tensor:
        """Films of these rows, uint8 or float32 (B, T, C, H, W) of a shape (T, H, W).

        ``u`` (B, 4), uniform on [0, 1), decides everything random.
        """


@final
class Crops(Lessons):
    """Parts of given films: windows in time, and in space where they are larger.

    Raises ``ValueError`` for films that are smaller than one of the shapes, and for types that differ.
    """

    def __init__(self, films: Films, shapes: tuple[Shape, ...]) -> None:
        least = tuple(max(s[i] for s in shapes) for i in range(3))
        for i, film in enumerate(films):
            have = (len(film), *film.size)
            if any(a < b for a, b in zip(have, least, strict=True)):
                raise ValueError(
                    f"film {i} is {have} (frames, height, width), smaller than {least}, which data.shapes asks for"
                )
        if len({(f.frames.dtype, f.channels) for f in films}) > 1:
            raise ValueError(
                "films must all be uint8 or all float32, all grey or all RGB; take bytes() of all, or read(grey=True)"
            )
        self.films, self.labels = films, films.labels

    def __len__(self) -> int:
        return len(self.films)

    def draw(self, rows: NDArray[np.int64], u: Tensor, shape: Shape) -> Tensor:
        parts = []
        for row, numbers in zip(rows.tolist(), u.tolist(), strict=True):
            x = self.films[row].frames
            for axis, n, number in zip((0, 2, 3), shape, numbers, strict=False):
                x = x.narrow(axis, int(number * (x.shape[axis] - n + 1)), n)
            parts.append(x)
        return torch.stack(parts)


@final
class Endless(Lessons):
    """Moving digits, new ones in every batch; a row is a picture of a digit, which may fly anywhere."""

    def __init__(self, source: MovingDigits) -> None:
        self.source = source
        self.labels = {"digit": source.digits.classes.numpy()}

    def __len__(self) -> int:
        return len(self.source.digits)

    def draw(self, rows: NDArray[np.int64], u: Tensor, shape: Shape) -> Tensor:
        at = (torch.from_numpy(rows.astype(np.float64)) + 0.5) / len(self)
        numbers = torch.cat((u.double(), at[:, None]), 1)[:, None]
        return self.source.render(numbers, shape[0], shape[1:])[0]


def shown(u: Tensor, frames: int, share: float) -> Tensor:
    """Which frames are shown clean, (B, T), of numbers (B, 2 + T) uniform on [0, 1).

    None of a film with probability ``1 - share``. Else, evenly, one of four kinds: the first frames, up to half of
    them, a single one as often as all other numbers; the first and the last; every second, third or fourth; or each
    frame with a probability of its own film.
    """
    kind, number, each = 4 * u[:, 0] / share, u[:, 1:2], u[:, 2:]
    at = torch.arange(frames).expand(len(u), -1)
    half = max(1, frames // 2)
    count = torch.where(number < 0.5, 1, 1 + ((2 * number - 1) * half).long()).clamp(max=half)
    stride = 2 + (3 * number).long()
    kinds = [
        at < count,
        (at == 0) | (at == frames - 1),
        at % stride == 0,
        each < number,
    ]
    out = torch.zeros(len(u), frames, dtype=torch.bool)
    for i, chosen in enumerate(kinds):
        out = torch.where(((kind >= i) & (kind < i + 1))[:, None], chosen, out)
    return out & ~out.all(1, keepdim=True)
