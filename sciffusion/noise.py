"""Random numbers with a seed, drawn sample by sample when asked.

``Noise(7)`` is one stream for the whole batch. ``Noise([3, 9, 4])`` gives each of three samples a stream of its own:
sample 9 is then the same alone, in any batch, at any place in it, padded or packed. ``Noise(7, brownian=True)`` ties
what a sampler draws within a step to the step's times, so that runs on different grids see the same noise. The numbers
are drawn on the CPU (and moved), so a seed means the same on every device. No global generator is read or advanced.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import numpy as np
import torch
from torch import Tensor

from sciffusion.brownian import BrownianPath
from sciffusion.layout import Dense, Layout

__all__ = ["Noise", "sample_seeds"]


def sample_seeds(seed: int, n: int) -> list[int]:
    """Derive ``n`` seeds, one per sample, from one: the i-th depends on (seed, i) alone, never on ``n``.

    Raises ``ValueError`` for a seed that is no integer.
    """
    if not isinstance(seed, int | np.integer):
        raise ValueError(f"seed must be one integer, got {seed!r}")
    root = int(seed) % 2**64
    return [
        int(np.random.SeedSequence((root, i)).generate_state(1, np.uint64)[0] >> 1)
        for i in range(n)
    ]


class _Stream:
    """A generator of normal and uniform numbers, and the Brownian paths of the same seed."""

    def __init__(self, seed: int) -> None:
        self.seed, self.generator = seed, torch.Generator().manual_seed(seed)
        self.paths: dict[tuple[int, tuple[int, ...], torch.dtype], BrownianPath] = {}

    def draw(self, shape: tuple[int, ...], dtype: torch.dtype, normal: bool) -> Tensor:
        fn = torch.randn if normal else torch.rand
        return fn(shape, generator=self.generator, dtype=dtype)


class _Increment:
    """A stream whose k-th draw is the increment of its k-th Brownian path between two times."""

    def __init__(self, stream: _Stream, start: float, end: float) -> None:
        self.stream, self.start, self.end, self.draws = stream, start, end, 0

    def draw(self, shape: tuple[int, ...], dtype: torch.dtype, normal: bool) -> Tensor:
        key = (self.draws, shape, dtype)
        self.draws += 1
        if key not in self.stream.paths:
            self.stream.paths[key] = BrownianPath(self.stream.seed, *key)
        z = self.stream.paths[key].increment(self.start, self.end)
        if z is None:
            return self.stream.draw(shape, dtype, normal)
        if normal:
            return z
        return (0.5 * torch.special.erfc(-z / math.sqrt(2))).clamp(max=1 - torch.finfo(dtype).eps)


@final
class Noise:
    """A stream of random numbers, or one stream per sample.

    ``seed`` is one integer, or one per sample of the batch. A stream advances with every draw; two objects made from
    the same seed return the same numbers in the same order. With ``brownian``, what is drawn :meth:`between` two times
    is the increment of a Brownian motion fixed by the seed.

    Normal numbers have the standard deviation ``temperature``. A sampler is affine in its noise, so samples of a
    Gaussian then scatter ``temperature`` times as far about the same mean, by any solver; others lie nearer to the bulk
    of their law, and at 0 there is one sample.

    Raises ``ValueError`` for a negative temperature, for what is no seed of 64 bits, and when the number of seeds
    differs from the batch.
    """

    def __init__(
        self, seed: int | Sequence[int], *, brownian: bool = False, temperature: float = 1.0
    ) -> None:
        if not temperature >= 0:
            raise ValueError(f"temperature must not be negative, got {temperature}")
        self.temperature = temperature
        self.per_sample = not isinstance(seed, int | np.integer)
        self.brownian = brownian
        try:
            seeds = [int(seed)] if isinstance(seed, int | np.integer) else [int(s) for s in seed]
        except (TypeError, ValueError):
            raise ValueError(
                f"seed must be one integer, or one for each sample, got {seed!r}"
            ) from None
        if not all(-(2**63) <= s < 2**64 for s in seeds):
            raise ValueError(f"seed must fit into 64 bits, got {seed}")
        if not seeds:
            raise ValueError("seed is an empty sequence; give one integer, or one per sample")
        self._streams: Sequence[_Stream | _Increment] = [_Stream(s) for s in seeds]

    def between(self, start: float | Tensor, end: float | Tensor) -> Noise:
        """The noise of a step from time ``start`` down to ``end``, numbers or one each sample (B,).

        Without ``brownian``, and for a step that does not go down (a corrector's, or one that raises the noise), the
        stream itself. Raises ``ValueError`` for times (B,) with another number of streams.
        """
        starts, ends = (torch.as_tensor(t, dtype=torch.float64) for t in (start, end))
        if not self.brownian or not bool((ends < starts).any()):
            return self
        n = len(self._streams)
        each = torch.broadcast_shapes(starts.shape, ends.shape)
        if each not in ((), (n,)) or (each and not self.per_sample):
            raise ValueError(
                f"seed makes {n} stream{'s' * (n > 1)}, but {each[0]} samples follow grids of their own; give one seed "
                "a sample"
            )
        out = Noise(0, temperature=self.temperature)
        out.per_sample = self.per_sample
        steps = zip(starts.expand(n).tolist(), ends.expand(n).tolist(), strict=True)
        out._streams = [
            _Increment(stream, a, b) if isinstance(stream, _Stream) and b < a else stream
            for stream, (a, b) in zip(self._streams, steps, strict=True)
        ]
        return out

    def normal(self, like: Tensor, layout: Layout) -> Tensor:
        """Normal numbers with the shape, dtype and device of ``like``; zero outside the samples."""
        numbers = self._draw(like, layout, normal=True)
        return numbers if self.temperature == 1 else self.temperature * numbers

    def uniform(self, like: Tensor, layout: Layout) -> Tensor:
        """Numbers uniform on [0, 1) with the shape and device of ``like`` (its dtype, if a float)."""
        return self._draw(like, layout, normal=False)

    def _draw(self, like: Tensor, layout: Layout, *, normal: bool) -> Tensor:
        dtype = like.dtype if like.is_floating_point() else torch.get_default_dtype()
        if not self.per_sample:
            numbers = self._streams[0].draw(tuple(like.shape), dtype, normal)
            return layout.clean(numbers.to(like.device))
        if len(self._streams) != layout.batch:
            raise ValueError(
                f"seed has {len(self._streams)} entries for a batch of {layout.batch}; give one a sample"
            )
        shapes = layout.parts(like)
        parts = [
            stream.draw(shape, dtype, normal)
            for shape, stream in zip(shapes, self._streams, strict=True)
        ]
        return layout.assemble(parts, like)

    def scalars(self, batch: int, *, normal: bool = False) -> Tensor:
        """One number per sample, (B,) float64 on the CPU: uniform on [0, 1), or normal."""
        like, layout = torch.empty(batch, dtype=torch.float64), Dense(batch)
        return self.normal(like, layout) if normal else self.uniform(like, layout)

    def integers(self, high: int, like: Tensor, layout: Layout) -> Tensor:
        """Integers uniform on 0..high-1 with the shape and device of ``like``."""
        return (self.uniform(like, layout) * high).long().clamp(max=high - 1)
