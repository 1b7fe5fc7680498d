r"""What a model knows of its data: from fields in their own units to what a network sees, and back.

With channel c of mean :math:`m_c` and deviation :math:`s_c` over the training data (of :math:`\log(1+x)` where the
settings say so), a network sees :math:`(x_c - m_c)/s_c` and makes :math:`r = (y - b)/d`: the difference of its target y
from the base b, both in those units, over the deviation d that this difference has in the training data (at this lead,
in a model of several). A cell
without data (land, for a sea temperature) is 0 inside and NaN outside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .adapter import ModelConfig
from .calendar import ahead, place, season, sun
from .grid import Grid
from .ridge import Ridge
from .scales import Scales

__all__ = ["Frame", "Mean"]


class Mean(Protocol):
    """A deterministic model: what ``base: model`` adds residuals to."""

    def predict(self, inputs: Tensor, times: NDArray[Any], grid: Grid | None) -> Tensor:
        """Targets (B, T, C, H, W) from inputs (B, I, C, H, W), both in units of the data's deviation."""


@final
@dataclass(frozen=True, eq=False)
class Frame:
    """The settings of a model, and what was measured for it.

    Args:
        config: the settings.
        names: of the channels.
        units: of the channels.
        grid: where the data lie; None for a model that serves any grid.
        scales: of the states, (C, 1, 1).
        spread: d, (T, C, 1, 1), or (L, T, C, 1, 1) of a model of several leads.
        cell: the time mean of every cell, in units of the deviation, (C, H, W), for ``base: cell``.
        statics: what is the same at all times, (S, H, W), of about unit size.
        mask: cells with data, (C, H, W); None: all.
        ridge: the linear map of ``base: ridge``, from all coarse cells to all fine ones.
        mean: the model that ``base: model`` adds to.
    """

    config: ModelConfig
    names: tuple[str, ...]
    units: tuple[str, ...]
    grid: Grid | None
    scales: Scales
    spread: Tensor
    cell: Tensor | None = None
    statics: Tensor | None = None
    mask: Tensor | None = None
    ridge: Ridge | None = None
    mean: Mean | None = field(default=None, repr=False)

    @property
    def channels(self) -> int:
        """C."""
        return len(self.names)

    @property
    def _logs(self) -> list[int]:
        return [i for i, n in enumerate(self.names) if n.split(":")[0] in self.config.log1p]

    def encode(self, x: Tensor) -> Tensor:
        """Fields (..., C, H, W) in units of the data's deviation; NaN becomes 0.

        Raises ``ValueError`` for rain and the like below zero.
        """
        for i in self._logs:
            if bool((x[..., i, :, :] < 0).any()):
                raise ValueError(
                    f"{self.names[i]} is seen as log(1 + x), but has values below 0; clip them"
                )
        if self._logs:
            x = x.clone()
            x[..., self._logs, :, :] = x[..., self._logs, :, :].log1p()
        return self.scales.normalise(x).nan_to_num(0.0)

    def decode(self, x: Tensor) -> Tensor:
        """The way back; NaN where there are no data. What is seen as log(1 + x) is never below zero."""
        x = self.scales.restore(x)
        if self._logs:
            x[..., self._logs, :, :] = x[..., self._logs, :, :].clamp(min=0).expm1()
        if self.mask is not None:
            x = x.masked_fill(~self.mask.to(x.device), torch.nan)
        return x

    def base(self, inputs: Tensor, times: NDArray[Any], grid: Grid | None) -> Tensor:
        """b, (B, T, C, H, W), from encoded inputs (B, I, C, H, W) at reference times (B,)."""
        hours, targets = self.config.inputs, self.config.targets
        match self.config.base:
            case "zero":
                return inputs.new_zeros(len(times), len(targets), self.channels, *inputs.shape[-2:])
            case "cell":
                assert self.cell is not None
                cell = self.cell.to(inputs)
                return cell.expand(len(times), len(targets), *cell.shape)
            case "last":
                return inputs[:, -1:].expand(-1, len(targets), -1, -1, -1)
            case "coarse":
                return inputs[:, [hours.index(h) for h in targets]]
            case "ridge":
                assert self.ridge is not None
                return self.ridge(self.coarse_cells(inputs)).unflatten(
                    -1, (len(targets), -1, *inputs.shape[-2:])
                )
            case "linear":
                return torch.stack([_between(inputs, hours, h) for h in targets], 1)
            case "model":
                assert self.mean is not None
                return self.mean.predict(inputs, times, grid)

    def coarse_cells(self, inputs: Tensor) -> Tensor:
        """Encoded inputs (B, I, C, H, W) as the numbers of their boxes, (B, I*C*h*w): what a regression sees."""
        return self.coarsen(inputs, self.grid).flatten(1)

    def condition(
        self,
        inputs: Tensor,
        times: NDArray[Any],
        grid: Grid | None,
        leads: NDArray[np.int64] | None = None,
    ) -> dict[str, Tensor]:
        """What the network is given: ``fields`` (B, K, H, W) and ``scalars`` (B, S)."""
        batch, device = len(times), inputs.device
        fields = [inputs.flatten(1, 2)]
        if self.statics is not None:
            fields.append(self.statics.to(device).expand(batch, -1, -1, -1))
        scalars = inputs.new_zeros(batch, 0)
        if self.config.place:
            assert grid is not None
            fields += [
                sun(times, grid).to(device),
                place(grid).to(device).expand(batch, -1, -1, -1),
            ]
            scalars = season(times).to(device)
        if self.config.leads:
            told = ahead(self._leads(leads), self.config.leads[-1])
            scalars = torch.cat([scalars, told.to(device)], 1)
        return {"fields": torch.cat(fields, 1), "scalars": scalars}

    def residual(
        self, targets: Tensor, base: Tensor, leads: NDArray[np.int64] | None = None
    ) -> Tensor:
        """r, (B, T*C, H, W), from encoded targets and their base, both (B, T, C, H, W)."""
        r = (targets - base) / self._spread(leads).to(targets)
        if self.mask is not None:
            r = r * self.mask.to(r)
        return r.flatten(1, 2)

    def targets(
        self, residual: Tensor, base: Tensor, leads: NDArray[np.int64] | None = None
    ) -> Tensor:
        """Encoded targets (B, T, C, H, W) from r (B, T*C, H, W) and the base, which stays where there are no data."""
        r = residual.unflatten(1, self.spread.shape[-4:-2])
        if self.mask is not None:
            r = r * self.mask.to(r)
        return base + r * self._spread(leads).to(residual)

    def _leads(self, leads: NDArray[np.int64] | None) -> NDArray[np.int64]:
        if leads is None:
            raise ValueError(f"leads is missing: the model serves several, {self.config.leads} h")
        return leads

    def _spread(self, leads: NDArray[np.int64] | None) -> Tensor:
        """d for these leads, hours (B,): (B, T, C, 1, 1), or (T, C, 1, 1) of a model without."""
        if not self.config.leads:
            return self.spread
        return self.spread[np.searchsorted(self.config.leads, self._leads(leads))]

    def weights(self, grid: Grid | None) -> Tensor:
        """Weights of squared errors of r, (T*C, H, W) or (1, H, 1): the areas of cells with data, of mean 1."""
        area = torch.ones(1, 1, 1) if grid is None else grid.area.float()[None]
        if self.mask is None:
            return area
        valid = self.mask.to(area) * area
        return (valid / valid.mean()).repeat(len(self.config.targets), 1, 1)

    def coarsen(self, x: Tensor, grid: Grid | None) -> Tensor:
        """Area means over ``coarse`` x ``coarse`` boxes of fields (..., H, W) in their own units.

        Raises ``ValueError`` if the boxes do not fill the map.
        """
        f, (h, w) = self.config.coarse, x.shape[-2:]
        if h % f or w % f:
            raise ValueError(f"boxes of {f} x {f} cells do not fill a map of {h} x {w}; crop it")
        area = torch.ones(h, 1) if grid is None else grid.area
        boxes = (
            (x * area.to(x)).unflatten(-1, (w // f, f)).mean(-1).unflatten(-2, (h // f, f)).mean(-2)
        )
        return boxes / area.to(x).unflatten(0, (h // f, f)).mean(1)

    def refine(self, x: Tensor, grid: Grid | None) -> Tensor:
        """Coarse fields (..., h, w) interpolated bilinearly to the fine map, around the globe if it is one."""
        f = self.config.coarse
        flat = x.flatten(0, -3)[:, None] if x.ndim > 2 else x[None, None]
        circular = grid is not None and grid.circular
        flat = F.pad(flat, (1, 1, 0, 0), mode="circular" if circular else "replicate")
        flat = F.pad(flat, (0, 0, 1, 1), mode="replicate")
        fine = F.interpolate(flat, scale_factor=f, mode="bilinear", align_corners=False)[
            ..., f:-f, f:-f
        ]
        return fine.reshape(*x.shape[:-2], *fine.shape[-2:])

    def tensors(self) -> dict[str, Tensor]:
        """What has to be stored beside the weights."""
        found = {
            "mean": self.scales.mean,
            "std": self.scales.std,
            "spread": self.spread,
            "cell": self.cell,
            "statics": self.statics,
            "mask": None if self.mask is None else self.mask.to(torch.uint8),
            "ridge.weights": None if self.ridge is None else self.ridge.weights,
            "ridge.offset": None if self.ridge is None else self.ridge.offset,
            "lat": None if self.grid is None else self.grid.lat,
            "lon": None if self.grid is None else self.grid.lon,
        }
        return {k: v for k, v in found.items() if v is not None}

    @classmethod
    def restored(
        cls,
        config: ModelConfig,
        names: tuple[str, ...],
        units: tuple[str, ...],
        tensors: Mapping[str, Tensor],
    ) -> Frame:
        """The frame whose :meth:`tensors` these are."""
        mask = tensors.get("mask")
        return cls(
            config,
            names,
            units,
            Grid(tensors["lat"].double(), tensors["lon"].double()) if "lat" in tensors else None,
            Scales(tensors["mean"], tensors["std"]),
            tensors["spread"],
            tensors.get("cell"),
            tensors.get("statics"),
            None if mask is None else mask.bool(),
            Ridge(tensors["ridge.weights"], tensors["ridge.offset"])
            if "ridge.offset" in tensors
            else None,
        )

    def to_mean(self, mean: Mean) -> Frame:
        """The same frame on top of a deterministic model."""
        return replace(self, mean=mean)


def _between(inputs: Tensor, hours: tuple[int, ...], hour: int) -> Tensor:
    """The inputs (B, I, ...) interpolated linearly to an hour."""
    right = int(np.searchsorted(hours, hour))
    if hours[right] == hour:
        return inputs[:, right]
    left = right - 1
    share = (hour - hours[left]) / (hours[right] - hours[left])
    return torch.lerp(inputs[:, left], inputs[:, right], share)
