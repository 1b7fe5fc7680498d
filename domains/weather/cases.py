"""Cases to learn from: windows in time, and patches of maps that are too large to be seen whole."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .fields import Fields
from .frame import Frame
from .grid import Grid
from .ridge import Ridge

__all__ = ["Cases", "Cut", "Sampled"]

_IN_MEMORY = 2**31  # bytes of fields that are kept once read


@final
@dataclass(frozen=True)
class Sampled:
    """A batch: encoded ``inputs`` (B, I, C, H, W), ``targets`` (B, R*T, C, H, W), and reference ``times`` (B,)."""

    inputs: Tensor
    targets: Tensor
    times: NDArray[Any]


@final
@dataclass(frozen=True)
class Cut:
    """How maps are cut into patches of ``patch`` cells (height, width), one every ``stride`` cells.

    Patches with missing values are left out, and those where less than a share ``active`` of the cells exceeds
    ``threshold`` in the first channel.
    """

    patch: tuple[int, int]
    stride: tuple[int, int]
    active: float = 0.0
    threshold: float = 0.0


@final
class Cases:
    """All cases of a data set: a reference time whose inputs and targets all exist, and a place if patches are cut.

    Small data are read once and kept; larger ones are read as they are asked for. ``rollout`` is the number of forecast
    steps whose targets are there.

    Raises ``ValueError`` if no case is left.
    """

    def __init__(
        self, fields: Fields, frame: Frame, cut: Cut | None = None, *, rollout: int = 1
    ) -> None:
        made = frame.config.targets
        self._targets = [h + k * made[-1] for k in range(rollout) for h in made]
        self.fields, self.frame, self.cut = fields.cached(_IN_MEMORY), frame, cut
        self._hours = sorted({*frame.config.inputs, *self._targets})
        starts = fields.starts(self._hours)
        if not len(starts):
            raise ValueError(
                f"no time of the data has all of the inputs {frame.config.inputs} and targets "
                f"{tuple(self._targets)} (hours)"
            )
        places = np.zeros((1, 2), dtype=np.int64)
        rows = []
        for i in starts.tolist():
            if cut is not None:
                places = _patches(self.fields.read([i])[0], cut)
            rows.append(np.column_stack([np.full(len(places), i), places]))
        self.table = np.concatenate(rows)
        if not len(self.table):
            raise ValueError(f"no patch is complete and as active as the settings want: {cut}")
        self.left_out: tuple[Ridge, ...] = ()

    def __len__(self) -> int:
        return len(self.table)

    def batch(self, indices: NDArray[np.int64]) -> Sampled:
        """The cases of these numbers."""
        config, hours = self.frame.config, self._hours
        rows = self.table[indices]
        needed = self.fields.at(rows[:, 0], hours)
        unique, back = np.unique(needed, return_inverse=True)
        x, back = self.fields.read(unique), back.reshape(needed.shape)
        made = self._cut(x, rows, back, [hours.index(h) for h in self._targets])
        given = self._cut(x, rows, back, [hours.index(h) for h in config.inputs])
        if config.coarse > 1:
            grid = self.frame.grid
            given = self.frame.refine(self.frame.coarsen(given, grid), grid)
        return Sampled(
            self.frame.encode(given), self.frame.encode(made), self.fields.times[rows[:, 0]]
        )

    def base(
        self, frame: Frame, indices: NDArray[np.int64], sampled: Sampled, grid: Grid | None
    ) -> Tensor:
        """The base of these cases: with regressions that leave out blocks, that which did not see the case."""
        if not self.left_out:
            return frame.base(sampled.inputs, sampled.times, grid)
        blocks = torch.from_numpy(indices) * len(self.left_out) // len(self)
        out = torch.empty_like(sampled.targets)
        for b in blocks.unique().tolist():
            mine = blocks == b
            held = replace(frame, ridge=self.left_out[b])
            out[mine] = held.base(sampled.inputs[mine], sampled.times[mine.numpy()], grid)
        return out

    def _cut(
        self, x: Tensor, rows: NDArray[np.int64], back: NDArray[np.int64], columns: list[int]
    ) -> Tensor:
        """The states of every case, (B, len(columns), C, H, W), where x holds each time once."""
        if self.cut is None:
            return x[torch.from_numpy(back[:, columns])]
        h, w = self.cut.patch
        out = x.new_empty(len(rows), len(columns), x.shape[1], h, w)
        for k, (_, r, c) in enumerate(rows.tolist()):
            for j, column in enumerate(columns):
                out[k, j] = x[back[k, column], :, r : r + h, c : c + w]
        return out


def _patches(x: Tensor, cut: Cut) -> NDArray[np.int64]:
    """The upper left corners of the patches of a map (C, H, W) that are complete and active, (n, 2)."""
    patch, stride = cut.patch, cut.stride
    if patch[0] > x.shape[1] or patch[1] > x.shape[2]:
        raise ValueError(f"patches of {patch} cells do not fit a map of {tuple(x.shape[1:])}")
    whole = _windows(~x.isnan().any(0), patch, stride).all(-1)
    busy = _windows(x[0] > cut.threshold, patch, stride).float().mean(-1) >= cut.active
    return (whole & busy).nonzero().numpy() * np.array(stride)


def _windows(x: Tensor, patch: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """The cells of every patch of a map (H, W), (rows, columns, cells)."""
    return x.unfold(0, patch[0], stride[0]).unfold(1, patch[1], stride[1]).flatten(2)
