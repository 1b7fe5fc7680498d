"""What a trained model does with a dataset: forecast, downscale, interpolate in time, sample."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from sciffusion.progress import track
from sciffusion.samplers import Sampler

from .fields import Fields
from .fit import Fitted, fit, refined, template
from .grid import Grid
from .output import ForecastWriter
from .rollout import Leads, made_by, roll, seeds_of, together
from .sources import read
from .times import Times, shift, show

if TYPE_CHECKING:
    from .model import WeatherModel

__all__ = ["downscale", "forecast", "interpolate_time", "sample", "track"]


def forecast(
    model: WeatherModel,
    ds: xr.Dataset,
    steps: int,
    members: int = 1,
    *,
    seed: int = 0,
    times: ArrayLike | None = None,
    lead: int | None = None,
    out: str | Path | None = None,
    sampler: Sampler | None = None,
    batch_size: int = 64,
    progress: bool = True,
) -> xr.Dataset:
    """Ensemble forecasts: the model's targets become its next inputs.

    Member m from time t depends on ``seed``, m and t alone: not on the other members, times, nor ``batch_size``.

    Args:
        ds: states with the model's variables, units and grid (longitudes may begin elsewhere); lazily opened data
            are read where they are needed.
        steps: how often; a step moves on by the last target, and makes them all.
        members: of the ensemble.
        seed: of everything random.
        times: when forecasts start, (n,); None: at the last time of ``ds``.
        lead: hours of a step, for a model of several leads: one of them (None: the longest).
        out: a NetCDF file or Zarr store that steps are written to as they are made; they are not kept in memory. A
            forecast that was killed goes on from there when it is called again.
        sampler: any sampler of the core, instead of the model's own.
        batch_size: how many fields are made together.
        progress: show a bar on a terminal.

    Returns:
        Dimensions member, time (of the start), prediction_timedelta, and those of the data; ``valid_time`` beside.

    Raises:
        ValueError: the model does not forecast, or not at this lead; variables, units, grid or earlier inputs are
            not those that it needs; ``out`` holds another forecast.
    """
    stride = made_by(model, lead)[-1]
    _positive(steps=steps, members=members, batch_size=batch_size)
    fitted = fit(model.frame, ds)
    starts = fitted.fields.times[-1:] if times is None else _times(fitted.fields, times)
    each = len(model.config.targets)

    def leads(first: int, states: Tensor | None) -> Iterator[Leads]:
        rolled = roll(
            model,
            fitted,
            starts,
            steps,
            members,
            seed,
            lead=lead,
            first=first,
            states=states,
            sampler=sampler,
            batch_size=batch_size,
        )
        return iter(track(rolled, "forecast", (steps - first) * each, progress))

    if out is None:
        return together(fitted, list(leads(0, None)), starts)
    identity: dict[str, str | int | float | bool | None] = {
        "model": model.fingerprint,
        "seed": seed,
        "members": members,
        "times": " ".join(show(t) for t in starts),
        "sampler": repr(sampler),
        "stride": stride,
    }
    with ForecastWriter(out, identity, dim="prediction_timedelta") as writer:
        first, written = divmod(writer.done, each)
        if first < steps:
            states = _reached(model, fitted, starts, writer, stride * first) if first else None
            for k, made in enumerate(leads(first, states)):
                if k >= written:  # of a step that was cut short
                    writer.append(together(fitted, [made], starts))
    return read(out)


def _reached(
    model: WeatherModel, fitted: Fitted, starts: Times, writer: ForecastWriter, now: int
) -> Tensor:
    """The inputs of the step from an hour on, (n, M, I, C, H, W), from what is on the disk and, early on, the data."""
    config = model.config
    done = writer.tail(min(writer.done, 2 * len(config.targets) * len(config.inputs)))
    hours = {
        int(h): k for k, h in enumerate(done.prediction_timedelta.values / np.timedelta64(1, "h"))
    }
    states = []
    for hour in (now + h for h in config.inputs):
        if hour <= 0:
            x = fitted.read(fitted.fields.at(fitted.fields.index(starts), [hour])[:, 0])
            states.append(x[:, None].expand(-1, done.sizes["member"], -1, -1, -1))
            continue
        here = done.isel(prediction_timedelta=hours[hour])
        each = [fit(model.frame, here.isel(member=m)) for m in range(done.sizes["member"])]
        states.append(torch.stack([f.read(np.arange(len(starts))) for f in each], 1))
    return torch.stack(states, 2)


def downscale(
    model: WeatherModel,
    ds: xr.Dataset,
    members: int = 1,
    *,
    seed: int = 0,
    sampler: Sampler | None = None,
    batch_size: int = 64,
    progress: bool = True,
) -> xr.Dataset:
    """Fine fields for the coarse ones of ``ds``: means over boxes of ``coarse`` x ``coarse`` cells.

    A model of patches serves any grid; another its own alone. Returns member, time and the dimensions of ``ds``, on
    the fine grid. For the arguments and the rest see :meth:`forecast`.

    Raises:
        ValueError: the model does not downscale, or ``ds`` is not the coarse version of its grid.
    """
    config, frame = model.config, model.frame
    if config.coarse == 1:
        raise ValueError("this model does not downscale: it was trained with coarse = 1")
    _positive(members=members, batch_size=batch_size)
    known = frame.grid
    coarse = fit(frame, ds, None if known is None else known.coarsen(config.coarse))
    grid = _finer(coarse.grid, config.coarse) if known is None else known
    fine = fit(frame, refined(ds, coarse.fields, grid), grid)
    starts = coarse.fields.starts(config.inputs)
    if not len(starts):
        raise ValueError(f"no time of ds has all the inputs {config.inputs} (hours)")

    def part(rows: NDArray[np.int64]) -> Tensor:
        times = coarse.fields.times[rows]
        x = coarse.read(coarse.fields.at(rows, config.inputs).reshape(-1))
        encoded = frame.encode(frame.refine(x, grid)).unflatten(0, (len(rows), -1))
        seeds = seeds_of(seed, members, times)
        many = encoded.repeat_interleave(members, 0)
        out = model.draw(many, np.repeat(times, members), known, seeds, sampler)
        return frame.decode(out[:, -1].cpu()).unflatten(0, (len(rows), members))

    pieces = np.array_split(starts, -(-len(starts) * members // batch_size))
    values = torch.cat(
        [part(rows) for rows in track([p for p in pieces if len(p)], "downscaling", show=progress)]
    )
    return fine.dataset(values, shift(coarse.fields.times[starts], config.targets[-1]))


def interpolate_time(
    model: WeatherModel,
    ds: xr.Dataset,
    members: int = 1,
    *,
    seed: int = 0,
    sampler: Sampler | None = None,
    batch_size: int = 64,
    progress: bool = True,
) -> xr.Dataset:
    """States between those of ``ds``, for instance six-hourly ones from twelve-hourly ones.

    Returns member, time and the dimensions of ``ds``, with the given states at their times, the same for every
    member, and the generated ones between. For the arguments see :meth:`forecast`.

    Raises:
        ValueError: the targets of the model do not lie between its inputs.
    """
    config, frame = model.config, model.frame
    inside = config.inputs and all(config.inputs[0] < h < config.inputs[-1] for h in config.targets)
    if not inside or config.coarse > 1:
        raise ValueError(
            f"this model does not interpolate: its targets {config.targets} are not between its inputs {config.inputs}"
        )
    _positive(members=members, batch_size=batch_size)
    fitted = fit(frame, ds)
    fields = fitted.fields
    starts = fields.starts(config.inputs)
    if not len(starts):
        raise ValueError(f"no time of ds has all the inputs {config.inputs} (hours)")
    made: dict[int, list[Tensor]] = {h: [] for h in config.targets}
    pieces = [p for p in np.array_split(starts, -(-len(starts) * members // batch_size)) if len(p)]
    for rows in track(pieces, "interpolating", show=progress):
        times = fields.times[rows]
        x = frame.encode(fitted.read(fields.at(rows, config.inputs).reshape(-1))).unflatten(
            0, (len(rows), -1)
        )
        out = model.draw(
            x.repeat_interleave(members, 0),
            np.repeat(times, members),
            fitted.grid,
            seeds_of(seed, members, times),
            sampler,
        )
        physical = frame.decode(out.cpu()).unflatten(0, (len(rows), members))
        for k, h in enumerate(config.targets):
            made[h].append(physical[:, :, k])
    given = fitted.read(np.arange(len(fields)))[:, None].expand(-1, members, -1, -1, -1)
    parts = [fitted.dataset(given, fields.times)]
    parts += [fitted.dataset(torch.cat(v), shift(fields.times[starts], h)) for h, v in made.items()]
    out_ds = xr.concat(parts, fields.time, data_vars="minimal", coords="minimal", compat="override")
    return out_ds.sortby(fields.time).drop_duplicates(fields.time)


def sample(
    model: WeatherModel,
    members: int,
    times: ArrayLike,
    *,
    seed: int = 0,
    sampler: Sampler | None = None,
    batch_size: int = 64,
    progress: bool = True,
) -> xr.Dataset:
    """Weather out of nothing, as it could be at these times of the year, from a model without inputs.

    Returns member, time, latitude and longitude; a model of windows adds prediction_timedelta. For the arguments
    see :meth:`forecast`.

    Raises:
        ValueError: the model has inputs, or knows no grid.
    """
    config, frame = model.config, model.frame
    if config.inputs:
        raise ValueError(
            f"this model needs inputs at {config.inputs} h; only a prior, without inputs, samples"
        )
    _positive(members=members, batch_size=batch_size)
    fitted = fit(frame, template(frame, times))
    starts = fitted.fields.times
    made: list[Tensor] = []
    each = np.repeat(starts, members)
    seeds = seeds_of(seed, members, starts)
    rows = [slice(i, i + batch_size) for i in range(0, len(each), batch_size)]
    for r in track(rows, "sampling", show=progress):
        empty = torch.zeros(len(each[r]), 0, frame.channels, *fitted.grid.shape)
        made.append(frame.decode(model.draw(empty, each[r], fitted.grid, seeds[r], sampler).cpu()))
    values = torch.cat(made).unflatten(0, (len(starts), members))
    leads = [Leads(h, values[:, :, k]) for k, h in enumerate(config.targets)]
    if len(leads) == 1:
        return fitted.dataset(leads[0].values, shift(starts, leads[0].hours, config.unit))
    return together(fitted, leads, starts, config.unit)


def _positive(**numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def _times(fields: Fields, times: ArrayLike) -> Times:
    return fields.times[fields.index(times)]


def _finer(grid: Grid, factor: int) -> Grid:
    """The grid whose boxes of ``factor`` cells these cells are: equal steps."""
    lat, lon = grid.lat, grid.lon
    if len(lat) < 2 or len(lon) < 2:
        raise ValueError("a map of one row or column tells no spacing; give at least two")
    inner = (torch.arange(factor, dtype=torch.float64) + 0.5) / factor - 0.5
    fine = [(x[:, None] + inner * (x[1] - x[0])).flatten() for x in (lat, lon)]
    return Grid(fine[0], fine[1])
