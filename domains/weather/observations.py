r"""What instruments see of physical fields: stations, coarse cells, swaths, and any function of your own.

An instrument maps fields (B, C, H, W) in their own units to observations (B, ...), sample by sample, and is an operator
of the core: derivative and transpose come from automatic differentiation. :mod:`.observed` puts several of them, at
several times, before a denoiser of normalised states.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import final

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from sciffusion.inverse import Operator
from sciffusion.state import Value

from .grid import Grid

__all__ = ["Coarse", "Custom", "Instrument", "Masked", "Points"]

_EDGE = 1e-4
"""Degrees by which a point may lie beyond the outermost row or column: float32 rounds longitudes by a third of it."""


class Instrument(Operator):
    """A map from fields (B, C, H, W) in physical units to observations (B, ...)."""

    @abstractmethod
    def see(self, fields: Tensor) -> Tensor:
        """Observe a batch."""

    def __call__(self, x: Value) -> Tensor:
        if not isinstance(x, Tensor) or x.ndim < 4:
            raise ValueError(
                f"{type(self).__name__} sees fields (B, C, H, W), got "
                f"{tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__}"
            )
        return self.see(x)


@final
class Points(Instrument):
    """Stations, ships, radiosondes: values at points, interpolated linearly in latitude and longitude.

    Exact on the grid's points. Longitudes are taken modulo 360 and close around the globe where the grid does; beyond
    the last row of a grid that reaches a pole, interpolation goes on over the pole to that row's other side, half a
    turn away, where eastward and northward components of vectors have the opposite sign.

    Args:
        grid: of the fields.
        lat, lon: degrees, (N,), longitudes by either convention.
        channel: which channel is seen, (N,) or one for all.
        vectors: (C,), True for channels that are components of vectors; None: none is.
        known: the cells that hold data, a boolean (H, W) or (C, H, W): the others' weight goes to their neighbours.

    Raises:
        ValueError: for positions that are not finite, outside the grid, or amid cells without data, by their
            coordinates; for channels that are not there, when called on fewer than named.
    """

    def __init__(
        self,
        grid: Grid,
        lat: ArrayLike | Tensor,
        lon: ArrayLike | Tensor,
        channel: ArrayLike | Tensor,
        *,
        vectors: Sequence[bool] | None = None,
        known: Tensor | None = None,
    ) -> None:
        lats, lons = _vector(lat).double(), _vector(lon).double()
        if lats.shape != lons.shape or not len(lats):
            raise ValueError(
                f"lat and lon must be as many, at least one; got {len(lats)} and {len(lons)}"
            )
        channels = _vector(channel).long().expand(len(lats))
        if bool((channels < 0).any()):
            raise ValueError("channel must not be negative")
        finite = lats.isfinite() & lons.isfinite()
        _refuse(~finite, lats, lons, "have no finite position")
        rows, across, down, seen = _rows(grid, lats)
        left, inside = _columns(grid, lons)
        far, _ = _columns(grid, lons + 180)
        _refuse(~(seen & inside), lats, lons, f"lie outside the grid, which spans {_span(grid)}")
        columns, west_east = left
        over, over_weights = far
        # four corners: two of the upper row, two of the lower (or of the same one, beyond the pole)
        cols = torch.cat([columns, torch.where(across[:, None], over, columns)], 1)
        shares = torch.cat([west_east, torch.where(across[:, None], over_weights, west_east)], 1)
        weight = shares * torch.stack([1 - down, 1 - down, down, down], 1)
        cell = rows.repeat_interleave(2, 1) * grid.shape[1] + cols
        if known is not None:
            weight = _shared(weight, known, channels, cell, lats, lons)
        # a corner that counts nothing must not be read: there may be NaN
        main = cell.gather(1, weight.argmax(1, keepdim=True))
        cell = torch.where(weight > 0, cell, main)
        if vectors is not None:
            turned = torch.as_tensor(list(vectors))[channels] & across
            weight[:, 2:] *= torch.where(turned, -1.0, 1.0)[:, None]
        self.grid, self.lat, self.lon, self.channel = grid, lats, lons, channels
        self._index = channels[:, None] * (grid.shape[0] * grid.shape[1]) + cell
        self._weight = weight

    def __len__(self) -> int:
        return len(self.lat)

    def see(self, fields: Tensor) -> Tensor:
        """(B, N)."""
        _check_grid(self.grid, fields)
        if fields.shape[1] <= int(self.channel.max()):
            raise ValueError(
                f"channel {int(self.channel.max())} is observed, the fields have {fields.shape[1]}"
            )
        index = self._index.to(fields.device)
        corners = fields.flatten(1).index_select(1, index.flatten()).unflatten(1, index.shape)
        return (corners * self._weight.to(fields)).sum(-1)


@final
class Coarse(Instrument):
    """Means over boxes of ``factor`` rows and columns, weighted by the cells' areas: a coarser model, a footprint.

    Observations are (B, C', H / factor, W / factor), of the ``channels`` named, or of all. Raises ``ValueError`` where
    boxes do not fill the grid evenly.
    """

    def __init__(
        self, grid: Grid, factor: int | tuple[int, int], channels: Sequence[int] | None = None
    ) -> None:
        self.factor = (factor, factor) if isinstance(factor, int) else factor
        if any(f < 1 or n % f for f, n in zip(self.factor, grid.shape, strict=True)):
            raise ValueError(
                f"factor {factor} does not divide the grid {grid.shape}; crop it, or take (rows, columns) that do"
            )
        self.grid, self.channels = grid, None if channels is None else list(channels)
        boxes = grid.area.unflatten(0, (-1, self.factor[0]))
        self._weight = (boxes / boxes.sum(1, keepdim=True)).flatten(0, 1) / self.factor[1]

    def see(self, fields: Tensor) -> Tensor:
        """(B, C', H / factor, W / factor)."""
        _check_grid(self.grid, fields)
        x = fields if self.channels is None else fields[:, self.channels]
        x = x * self._weight.to(x)
        rows, columns = self.factor
        return x.unflatten(-1, (-1, columns)).unflatten(-3, (-1, rows)).sum((-3, -1))


@final
class Masked(Instrument):
    """Some cells as they are: a satellite's swath, a region, one channel.

    ``mask`` is boolean, (H, W) for all channels or (C, H, W). Observations are (B, N): the cells under the mask,
    channel by channel, row by row, as ``field[mask]`` lists them. Raises ``ValueError`` for another or an empty mask.
    """

    def __init__(self, mask: Tensor) -> None:
        if mask.dtype != torch.bool or mask.ndim not in (2, 3) or not bool(mask.any()):
            raise ValueError(
                "mask must be boolean, (H, W) or (C, H, W), and True where a cell is observed, at least once; got "
                f"{mask.dtype} {tuple(mask.shape)} with {int(mask.sum())} cells"
            )
        self.mask = mask

    def see(self, fields: Tensor) -> Tensor:
        """(B, N)."""
        mask = self.mask
        if mask.ndim == 2:
            mask = mask.expand(fields.shape[1], -1, -1)
        if mask.shape != fields.shape[1:]:
            raise ValueError(
                f"mask of shape {tuple(self.mask.shape)} does not fit fields {tuple(fields.shape[1:])}"
            )
        return fields.flatten(1).index_select(
            1, mask.to(fields.device).flatten().nonzero().flatten()
        )


@final
class Custom(Instrument):
    """Any differentiable function of the physical fields, by name: ``lambda f: (f["u850"]**2 + f["v850"]**2).sqrt()``.

    ``fn`` gets the channels as (B, H, W), or (B, K, H, W) where it is to see a whole window, and returns (B, ...).
    ``linear=True`` promises that f(x + y) = f(x) + f(y), which saves work. Raises ``ValueError`` for repeated names, or
    if what comes back is no tensor with one row per sample.
    """

    def __init__(
        self,
        fn: Callable[[Mapping[str, Tensor]], Tensor],
        names: Sequence[str],
        *,
        linear: bool = False,
    ) -> None:
        if len(set(names)) != len(names) or not names:
            raise ValueError(f"names must name every channel once, got {list(names)}")
        self.fn, self.names, self.linear = fn, tuple(names), linear

    def see(self, fields: Tensor) -> Tensor:
        """(B, ...)."""
        if fields.shape[-3] != len(self.names):
            raise ValueError(
                f"names has {len(self.names)} entries, the fields have {fields.shape[-3]} channels"
            )
        y = self.fn(dict(zip(self.names, fields.unbind(-3), strict=True)))
        if not isinstance(y, Tensor) or y.ndim < 1 or len(y) != len(fields):
            raise ValueError(
                f"fn must return a tensor with {len(fields)} rows, one per sample, got "
                f"{tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__}"
            )
        return y


def _vector(x: ArrayLike | Tensor) -> Tensor:
    return (x.detach().cpu() if isinstance(x, Tensor) else torch.from_numpy(np.array(x))).reshape(
        -1
    )


def _check_grid(grid: Grid, fields: Tensor) -> None:
    if fields.ndim != 4 or tuple(fields.shape[-2:]) != grid.shape:
        raise ValueError(
            f"fields must be (B, C, {grid.shape[0]}, {grid.shape[1]}) for this grid, got {tuple(fields.shape)}"
        )


def _rows(grid: Grid, lat: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Upper and lower row (N, 2), whether the lower is over the pole, its weight, and whether the point is seen."""
    height, (north, south) = grid.lat, grid.poles
    last = len(height) - 1
    lower = torch.searchsorted(-height, -lat).clamp(1 if last else 0, last)
    upper = (lower - 1).clamp(min=0)
    gap = height[upper] - height[lower]
    down = torch.where(gap > 0, (height[upper] - lat) / gap.clamp(min=1e-12), 0.0).clamp(0, 1)
    over_north = (lat > height[0]) & (lat <= 90) & north & (height[0] < 90)
    over_south = (lat < height[-1]) & (lat >= -90) & south & (height[-1] > -90)
    to_north = (lat - height[0]) / (2 * (90 - height[0])).clamp(min=1e-12)
    to_south = (height[-1] - lat) / (2 * (90 + height[-1])).clamp(min=1e-12)
    down = torch.where(over_north, to_north, torch.where(over_south, to_south, down))
    across = over_north | over_south
    first = torch.where(over_north, 0, torch.where(over_south, last, upper))
    second = torch.where(across, first, lower)
    seen = across | ((lat <= height[0] + _EDGE) & (lat >= height[-1] - _EDGE))
    return torch.stack([first, second], 1), across, down, seen


def _columns(grid: Grid, lon: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """The columns (N, 2) west and east of the points, their weights (N, 2), and whether the points are seen."""
    place, width = grid.lon - grid.lon[0], len(grid.lon)
    offset = torch.remainder(lon - grid.lon[0], 360.0)
    if grid.circular:
        place = torch.cat([place, torch.full((1,), 360.0, dtype=place.dtype)])
    else:
        # a shade west of the first column
        offset = torch.where(offset >= 360 - _EDGE, offset - 360, offset)
    inside = offset <= place[-1] + _EDGE
    west = (torch.searchsorted(place, offset, right=True) - 1).clamp(0, max(len(place) - 2, 0))
    east = (west + 1).clamp(max=len(place) - 1)
    gap = (place[east] - place[west]).clamp(min=1e-12)
    share = ((offset - place[west]) / gap).clamp(0, 1)
    columns = torch.stack([west, east % width], 1)
    return (columns, torch.stack([1 - share, share], 1)), inside


def _shared(
    weight: Tensor, known: Tensor, channel: Tensor, cell: Tensor, lat: Tensor, lon: Tensor
) -> Tensor:
    """The weights of cells without data, given to the other corners."""
    flat = known.flatten(-2)
    there = flat[cell] if flat.ndim == 1 else flat[channel[:, None], cell]
    kept = weight * there
    total = kept.sum(1, keepdim=True)
    _refuse(total[:, 0] < 1e-9, lat, lon, "have no data in the cells around them")
    return kept / total


def _refuse(bad: Tensor, lat: Tensor, lon: Tensor, what: str) -> None:
    """Raise ``ValueError`` with the coordinates of the first of the bad points."""
    if not bool(bad.any()):
        return
    index = bad.nonzero().flatten().tolist()
    some = ", ".join(f"({lat[i]:g}, {lon[i]:g})" for i in index[:5])
    more = f" and {len(index) - 5} more" if len(index) > 5 else ""
    raise ValueError(f"observations at (lat, lon) {some}{more} {what}; leave them out")


def _span(grid: Grid) -> str:
    lons = "all longitudes" if grid.circular else f"{grid.lon[0]:g} to {grid.lon[-1]:g} E"
    ends = [
        edge if over else float(row)
        for edge, over, row in zip(
            (90.0, -90.0), grid.poles, (grid.lat[0], grid.lat[-1]), strict=True
        )
    ]
    return f"{ends[0]:g} to {ends[1]:g} N and {lons}"
