"""Random numbers with a seed, drawn sample by sample when asked.

``Noise(7)`` is one stream for the whole batch. ``Noise([3, 9, 4])`` gives each of three samples a stream of its own:
sample 9 is then the same alone, in any batch, at any place in it, padded or packed. The numbers are drawn on the CPU
(and moved), so a seed means the same on every device. No global generator is read or advanced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

import numpy as np
import torch
from torch import Tensor

from sciffusion.layout import Dense, Layout

__all__ = ["Noise", "sample_seeds"]


def sample_seeds(seed: int, n: int) -> list[int]:
    """Derive ``n`` seeds, one per sample, from one: the i-th depends on (seed, i) alone, never on ``n``."""
    return [
        int(np.random.SeedSequence((seed, i)).generate_state(1, np.uint64)[0] >> 1)
        for i in range(n)
    ]


@final
class Noise:
    """A stream of random numbers, or one stream per sample.

    ``seed`` is one integer, or one per sample of the batch. A stream advances with every draw; two objects made from
    the same seed return the same numbers in the same order. Raises ``ValueError`` when the number of seeds differs
    from the batch.
    """

    def __init__(self, seed: int | Sequence[int]) -> None:
        self.per_sample = not isinstance(seed, int | np.integer)
        seeds = [int(seed)] if isinstance(seed, int | np.integer) else [int(s) for s in seed]
        if not seeds:
            raise ValueError("seed is an empty sequence; give one integer, or one per sample")
        self._streams = [torch.Generator().manual_seed(s) for s in seeds]

    def normal(self, like: Tensor, layout: Layout) -> Tensor:
        """Standard normal numbers with the shape, dtype and device of ``like``; zero outside the samples."""
        return self._draw(like, layout, torch.randn)

    def uniform(self, like: Tensor, layout: Layout) -> Tensor:
        """Numbers uniform on [0, 1) with the shape and device of ``like`` (its dtype, if a float)."""
        return self._draw(like, layout, torch.rand)

    def _draw(self, like: Tensor, layout: Layout, draw: Callable[..., Tensor]) -> Tensor:
        dtype = like.dtype if like.is_floating_point() else torch.get_default_dtype()
        if not self.per_sample:
            return layout.clean(
                draw(like.shape, generator=self._streams[0], dtype=dtype).to(like.device)
            )
        if len(self._streams) != layout.batch:
            raise ValueError(
                f"seed has {len(self._streams)} entries for a batch of {layout.batch}; give one a sample"
            )
        shapes = layout.parts(like)
        parts = [
            draw(s, generator=g, dtype=dtype) for s, g in zip(shapes, self._streams, strict=True)
        ]
        return layout.assemble(parts, like)

    def scalars(self, batch: int, *, normal: bool = False) -> Tensor:
        """One number per sample, (B,) float64 on the CPU: uniform on [0, 1), or standard normal."""
        like = torch.empty(batch, dtype=torch.float64)
        return self._draw(like, Dense(batch), torch.randn if normal else torch.rand)

    def integers(self, high: int, like: Tensor, layout: Layout) -> Tensor:
        """Integers uniform on 0..high-1 with the shape and device of ``like``."""
        return (self.uniform(like, layout) * high).long().clamp(max=high - 1)
