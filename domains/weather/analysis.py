"""Analyses: a prior of weather and whatever was observed of it, as an ensemble of complete fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike
from torch import Tensor

from sciffusion.denoiser import Preconditioned

from .assimilation import Assimilation, assimilate, trajectory
from .fields import Fields
from .fit import fit, template, turn_to
from .frame import Frame
from .grid import Grid
from .observations import Coarse, Custom, Masked
from .observed import Report
from .scales import Scales
from .stations import read_stations
from .times import Times, Unit, clock, shift, show, ticks
from .units import check_units

if TYPE_CHECKING:
    import pandas as pd

    from .model import WeatherModel

__all__ = ["analyse", "units_of"]


def analyse(
    model: WeatherModel,
    observations: pd.DataFrame | xr.Dataset | Sequence[Report] | ArrayLike,
    times: ArrayLike,
    *,
    operator: Literal["points", "coarse", "mask"]
    | Callable[[Mapping[str, Tensor]], Tensor] = "points",
    std: float | Mapping[str, float] | None = None,
    settings: Assimilation | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """Complete fields at ``times`` as an ensemble, given observations of them: what a prior and they say together.

    Member i depends on ``seed`` and i alone. Trajectories longer than the windows that the prior was trained on are
    composed of overlapping windows.

    Args:
        observations: with ``points`` a table (time, lat, lon, variable, value, std) or dataset of stations, see
            :func:`.stations.read_stations`; with ``coarse`` fields on a grid of boxes; with ``mask`` fields with
            NaN where nothing was observed; with a function its values, one row; or reports made by hand.
        times: of the states, spaced as those of the prior's windows.
        operator: what the observations are of the fields. A function gets the channels by name, (B, K, H, W) each
            in physical units, and returns (B, ...).
        std: deviation of the observations' errors where they do not bring it: a number, or one for each variable.
        settings: method, sampler and number of members.
        seed: of everything random.

    Returns:
        Member, time, and the dimensions of the grid.

    Raises:
        ValueError: the model is no prior; observations outside the grid or the times, in other units, or without
            deviations.
    """
    config, frame = model.config, model.frame
    if config.inputs or config.head != "diffusion" or config.base not in ("zero", "cell"):
        raise ValueError(
            "assimilation needs a prior: a diffusion without inputs, whose base is 'zero' or 'cell'; this model is "
            f"a {config.head} with inputs {config.inputs} and base {config.base!r}"
        )
    if config.log1p:
        raise ValueError(
            "a prior that sees log(1 + x) has no affine units; train one without log1p"
        )
    fitted = fit(frame, template(frame, times))
    fields, grid = fitted.fields, fitted.grid
    when = fields.times
    _check_steps(config.targets, when, config.unit)
    reports = _reports(frame, observations, operator, grid, fields, when, std)
    denoiser = model.module
    assert isinstance(denoiser, Preconditioned)
    window, length = len(config.targets), len(when)
    starts = shift(when[: length - window + 1], -config.targets[0], config.unit)
    empty = torch.zeros(len(starts), 0, frame.channels, *grid.shape, device=model.device)
    prior = trajectory(denoiser, window, length, frame.condition(empty, starts, grid))
    shape = (length, frame.channels, *grid.shape)
    values = assimilate(prior, units_of(frame), reports, shape, settings, seed, device=model.device)
    if frame.mask is not None:
        values = values.masked_fill(~frame.mask.to(values.device), torch.nan)
    return fitted.dataset(values.transpose(0, 1).cpu(), when)


def units_of(frame: Frame) -> Scales:
    """What turns residuals of a prior into physical states."""
    mean, std = frame.scales.mean, frame.scales.std
    cell = mean if frame.cell is None else frame.cell * std + mean
    return Scales(cell, frame.spread[0] * std)


def _reports(
    frame: Frame,
    observations: pd.DataFrame | xr.Dataset | Sequence[Report] | ArrayLike,
    operator: Literal["points", "coarse", "mask"] | Callable[[Mapping[str, Tensor]], Tensor],
    grid: Grid,
    fields: Fields,
    times: Times,
    std: float | Mapping[str, float] | None,
) -> Sequence[Report]:
    channels, vectors = (
        fields.channels,
        [c.variable in frame.config.vectors for c in fields.channels],
    )
    if isinstance(observations, list | tuple) and all(isinstance(o, Report) for o in observations):
        return [o for o in observations if isinstance(o, Report)]
    if operator == "points":
        return read_stations(
            observations,
            grid,
            channels,
            times,
            std=std,
            vectors=vectors if any(grid.poles) else None,
            known=frame.mask,
            units=frame.units,
        )
    if callable(operator):
        values = torch.as_tensor(np.asarray(observations, dtype=np.float32))
        return [Report(Custom(operator, fields.names), values, _deviation(std, None), None)]
    if not isinstance(observations, xr.Dataset):
        raise ValueError(f"operator {operator!r} wants an xarray.Dataset of gridded observations")
    seen = Fields.of(observations, [n for n in fields.names if n.split(":")[0] in observations])
    check_units(seen.names, seen.units, [frame.units[fields.names.index(n)] for n in seen.names])
    factor = 1 if operator == "mask" else max(1, round(grid.shape[0] / seen.grid.shape[0]))
    turn = turn_to(seen.grid, grid if factor == 1 else grid.coarsen(factor))
    out = []
    for k, time in enumerate(times):
        if time not in seen.times:
            continue
        values = seen.read(seen.index([time]))[0].roll(turn, -1)
        for row, name in enumerate(seen.names):
            c, error = fields.names.index(name), _deviation(std, name)
            if operator == "coarse":
                out.append(Report(Coarse(grid, factor, [c]), values[row][None], error, k, name))
                continue
            mask = torch.zeros(frame.channels, *grid.shape, dtype=torch.bool)
            mask[c] = ~values[row].isnan()
            if bool(mask.any()):
                out.append(Report(Masked(mask), values[row][mask[c]], error, k, name))
    if not out:
        raise ValueError(f"nothing was observed at the times {show(times[0])} to {show(times[-1])}")
    return out


def _deviation(std: float | Mapping[str, float] | None, name: str | None) -> float:
    """The deviation of the errors of one channel, or of a function."""
    if isinstance(std, Mapping):
        variable = (name or "").split(":")[0]
        std = std.get(name or "", std.get(variable))
    if std is None:
        raise ValueError(
            f"std is needed: the deviation of the errors of {name or 'what the function gives'}"
        )
    return float(std)


def _check_steps(targets: tuple[int, ...], times: Times, unit: Unit) -> None:
    """See that the times are spaced as the states of the prior's windows."""
    there, size = clock(times, times[0], unit), ticks(1, unit)
    name = {"hour": "h", "month": "months"}[unit]
    if len(times) < len(targets):
        raise ValueError(
            f"times has {len(times)} entries; the prior makes windows of {len(targets)} states, {targets} {name}"
        )
    window = np.array([ticks(h - targets[0], unit) for h in targets])
    for k in range(len(times) - len(targets) + 1):
        found = there[k : k + len(targets)] - there[k]
        if (found != window).any():
            raise ValueError(
                f"times from {show(times[k])} are {(found / size).tolist()} {name} apart, the states of the prior "
                f"{(window / size).tolist()}"
            )
