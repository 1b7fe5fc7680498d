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
    """A batch: encoded ``inputs`` (B, I, C, H, W) and ``targets`` (B, R*T, C, H, W); ``times`` and ``leads`` (B,)."""

    inputs: Tensor
    targets: Tensor
    times: NDArray[Any]
    leads: NDArray[np.int64]


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

    A model of several leads learns from every time with each of them. A row of ``table`` is the number of the time, the
    upper left corner of the patch, and the lead in hours, 0 where there are none. Small data are read once and kept;
    larger ones are read as they are asked for. ``rollout`` is the number of forecast steps whose targets are there.

    Raises ``ValueError`` if no case is left.
    """

    def __init__(
        self, fields: Fields, frame: Frame, cut: Cut | None = None, *, rollout: int = 1
    ) -> None:
        made = frame.config.targets
        self._targets = [h + k * made[-1] for k in range(rollout) for h in made]
        self.fields, self.frame, self.cut = fields.cached(_IN_MEMORY), frame, cut
        self.table = np.concatenate([self._rows(lead) for lead in frame.config.leads or (0,)])
        if not len(self.table):
            raise ValueError(f"no patch is complete and as active as the settings want: {cut}")
        self.left_out: tuple[Ridge, ...] = ()

    def _rows(self, lead: int) -> NDArray[np.int64]:
        """The part of the table with this lead."""
        hours = self._hours(lead)
        starts = self.fields.starts(hours, self.frame.config.unit)
        if not len(starts):
            raise ValueError(
                "no time of the data has all of the inputs and targets, at "
                f"{tuple(sorted(set(hours)))} ({self.frame.config.unit}s)"
            )
        places = np.zeros((1, 2), dtype=np.int64)
        rows = []
        for i in starts.tolist():
            if self.cut is not None:
                places = _patches(self.fields.read([i])[0], self.cut)
            first, last = np.full(len(places), i), np.full(len(places), lead)
            rows.append(np.column_stack([first, places, last]))
        return np.concatenate(rows)

    def _hours(self, lead: int) -> list[int]:
        """Those of the inputs, then those of the targets."""
        return [*self.frame.config.inputs, *(lead + h for h in self._targets)]

    @property
    def state(self) -> int:
        """How many numbers a state of a case has."""
        h, w = self.fields.grid.shape if self.cut is None else self.cut.patch
        return len(self.fields.channels) * h * w

    def __len__(self) -> int:
        return len(self.table)

    def batch(self, indices: NDArray[np.int64]) -> Sampled:
        """The cases of these numbers."""
        config = self.frame.config
        rows, given_count = self.table[indices], len(config.inputs)
        leads = rows[:, -1]
        needed = np.empty((len(rows), given_count + len(self._targets)), dtype=np.int64)
        for lead in np.unique(leads).tolist():
            mine = leads == lead
            needed[mine] = self.fields.at(rows[mine, 0], self._hours(lead), config.unit)
        unique, back = np.unique(needed, return_inverse=True)
        x, back = self.fields.read(unique), back.reshape(needed.shape)
        made = self._cut(x, rows, back[:, given_count:])
        given = self._cut(x, rows, back[:, :given_count])
        if config.coarse > 1:
            grid = self.frame.grid
            given = self.frame.refine(self.frame.coarsen(given, grid), grid)
        return Sampled(
            self.frame.encode(given), self.frame.encode(made), self.fields.times[rows[:, 0]], leads
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

    def _cut(self, x: Tensor, rows: NDArray[np.int64], back: NDArray[np.int64]) -> Tensor:
        """The states ``back`` (B, n) of every case, (B, n, C, H, W), where x holds each time once."""
        if self.cut is None:
            return x[torch.from_numpy(back)]
        h, w = self.cut.patch
        out = x.new_empty(*back.shape, x.shape[1], h, w)
        for k, (_, r, c, _) in enumerate(rows.tolist()):
            for j, at in enumerate(back[k].tolist()):
                out[k, j] = x[at, :, r : r + h, c : c + w]
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
