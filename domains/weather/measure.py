"""Measuring on training data what a model has to know of them: scales, cell means, spreads, masks, statics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .adapter import ModelConfig
from .cases import Cases, Cut
from .fields import Fields
from .frame import Frame, Mean
from .grid import Grid
from .ridge import Ridge
from .scales import Scales

__all__ = ["few", "measure", "spread_of"]

_MOST = 512  # states, or cases, that are looked at
_BYTES = 2**29  # that states may take while they are looked at


def measure(
    config: ModelConfig, fields: Fields, cut: Cut | None = None, *, mean: Mean | None = None
) -> tuple[Frame, Cases]:
    """The frame of a model for these training data, and the cases to learn from.

    Scales are taken over up to 512 times, evenly spread (fewer of large states: half a GiB), with cells weighted by
    their area. With patches the model knows no grid and serves any.

    Raises ``ValueError`` if statics are asked for with patches, a channel is constant, or the base needs a model.
    """
    if (config.base == "model") != (mean is not None):
        raise ValueError(
            "base 'model' needs a deterministic model to add to, and no other base has one"
        )
    if cut is not None and (config.statics or config.place):
        raise ValueError("a model of patches serves any grid: set place: false and no statics")
    states = fields.read(few(len(fields), fields.nbytes // len(fields)))
    missing = states.isnan()
    mask = None
    if cut is None and bool(missing.any()):
        mask = ~missing.any(0)
        if not bool(mask.flatten(1).any(1).all()):
            raise ValueError(
                "a channel has no cell with data at all times; fill gaps that come and go"
            )
    grid = None if cut is not None else fields.grid
    area = torch.ones(1, 1) if grid is None else grid.area.float()
    unit = torch.ones(len(fields.channels), 1, 1)
    frame = Frame(
        config,
        fields.names,
        tuple(u or "" for u in fields.units),
        grid,
        Scales(0 * unit, unit),
        unit[None],
        mask=mask,
    )
    scales = _scales(_logged(frame, states), area, fields.names)
    spread = torch.ones(
        *([len(config.leads)] if config.leads else []), len(config.targets), len(unit), 1, 1
    )
    frame = replace(frame, scales=scales, spread=spread, mean=mean)  # d is measured below
    if config.base == "cell":
        frame = replace(frame, cell=frame.encode(states).mean(0))
    if config.statics:
        frame = replace(frame, statics=_standard(fields.statics(config.statics), area))
    cases = Cases(fields, frame, cut)
    if config.base == "ridge":
        frame, cases.left_out = _regressed(frame, cases)
    spread = spread_of(frame, cases, grid)
    if not bool((spread > 0).all()):
        raise ValueError("a target equals its base in all training data; there is nothing to learn")
    if config.base in (
        "zero",
        "cell",
    ):  # one unit for the states of a window, which may then be composed
        spread = spread.square().mean(0, keepdim=True).sqrt().expand_as(spread).clone()
    frame = replace(frame, spread=spread)
    cases.frame = frame
    return frame, cases


def few(count: int, size: int, most: int = _MOST) -> NDArray[np.int64]:
    """Up to ``most`` of so many things, evenly spread; down to eight if with ``size`` bytes each they take too much."""
    most = max(8, min(most, _BYTES // size))
    return np.arange(0, count, -(-count // most))


def spread_of(frame: Frame, cases: Cases, grid: Grid | None) -> Tensor:
    """The root mean square of targets less their base, for each lead over up to 512 cases, times the frame's spread."""
    found, made = [], frame.config.targets
    size = 4 * cases.state * (2 * len(made) + len(frame.config.inputs))
    together = max(1, min(64, _BYTES // size))
    for lead in frame.config.leads or (0,):
        mine = np.flatnonzero(cases.table[:, -1] == lead)
        chosen = mine[few(len(mine), 1)]
        total, weights = torch.zeros(()), frame.weights(grid)
        for part in np.array_split(chosen, -(-len(chosen) // together)):
            batch = cases.batch(part)
            base = cases.base(frame, part, batch, grid)
            r = frame.residual(batch.targets, base, batch.leads)
            total = total + (weights * r.square()).mean((2, 3)).sum(0)
        found.append(total / len(chosen))
    return torch.stack(found).sqrt().reshape(frame.spread.shape) * frame.spread


def _regressed(frame: Frame, cases: Cases) -> tuple[Frame, tuple[Ridge, ...]]:
    """The frame with its regression, and those that leave out a block of the cases each."""
    if frame.grid is None:
        raise ValueError("base 'ridge' knows every cell, so it needs whole maps, not patches")
    batches = [
        cases.batch(part) for part in np.array_split(np.arange(len(cases)), -(-len(cases) // 256))
    ]
    x = torch.cat([frame.coarse_cells(b.inputs) for b in batches])
    whole, left_out = Ridge.fit(x, torch.cat([b.targets.flatten(1) for b in batches]))
    return replace(frame, ridge=whole), left_out


def _logged(frame: Frame, states: Tensor) -> Tensor:
    """States as the scales see them: log(1 + x) where the settings say so, NaN kept."""
    unit = frame.encode(states)
    return unit.masked_fill(states.isnan(), torch.nan)


def _scales(x: Tensor, area: Tensor, names: tuple[str, ...]) -> Scales:
    """Mean and deviation of every channel over times and cells with data."""
    valid = ~x.isnan()
    weights = (valid * area).double()
    total = weights.sum((0, 2, 3))
    mean = (weights * x.nan_to_num(0.0)).sum((0, 2, 3)) / total
    centred = x.nan_to_num(0.0) - mean[:, None, None]
    std = ((weights * centred.square()).sum((0, 2, 3)) / total).sqrt()
    for name, s in zip(names, std.tolist(), strict=True):
        if not s > 0:
            raise ValueError(f"{name} is the same everywhere and always; leave it out of variables")
    return Scales(mean.float()[:, None, None], std.float()[:, None, None])


def _standard(statics: Tensor, area: Tensor) -> Tensor:
    """Static maps (S, H, W) with mean 0 and deviation 1; NaN becomes the mean."""
    statics = statics.float()
    filled = torch.where(statics.isnan(), statics.nanmean((1, 2), keepdim=True), statics)
    mean = (area * filled).mean((1, 2), keepdim=True)
    std = (area * (filled - mean).square()).mean((1, 2), keepdim=True).sqrt()
    return (filled - mean) / std.clamp(min=1e-12)
