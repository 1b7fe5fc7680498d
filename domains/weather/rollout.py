"""Forecasts: a model's targets become its next inputs, step by step, for many members and initial times at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from sciffusion.samplers import Sampler

from .fit import Fitted
from .times import Unit, shift

if TYPE_CHECKING:
    from .model import WeatherModel

__all__ = ["Leads", "made_by", "roll", "seeds_of", "together"]


@final
@dataclass(frozen=True)
class Leads:
    """What one step of a forecast makes: physical ``values`` (n, M, C, H, W) at ``hours`` after the start."""

    hours: int
    values: Tensor


def made_by(model: WeatherModel, lead: int | None = None) -> tuple[int, ...]:
    """The hours that a step of a forecast makes; it moves on by the last. ``lead`` is for a model of several leads.

    Raises ``ValueError`` for a model that is no forecast model, one whose next inputs it does not make, or a lead that
    it does not serve.
    """
    config = model.config
    if config.leads:
        lead = config.leads[-1] if lead is None else lead
        config.check_lead(lead)
    elif lead is not None:
        raise ValueError(f"lead {lead}: this model makes {config.targets} h alone; leave it out")
    made = config.made(lead or 0)
    if not config.inputs or config.inputs[-1] != 0 or made[0] <= 0 or config.coarse > 1:
        raise ValueError(
            f"a forecast needs a model of later targets from inputs up to the hour 0; this one has inputs "
            f"{config.inputs} and targets {config.targets}"
        )
    stride = made[-1]
    known = {*config.inputs, *made}
    if missing := [h for h in config.inputs if h + stride not in known]:
        raise ValueError(
            f"after a step of {stride} h the inputs at {missing} h are not known: the model makes {made}"
        )
    return made


def seeds_of(seed: int, members: int, times: NDArray[Any], step: int = 0) -> list[int]:
    """A seed for every time and member, in that order: member m at time t depends on (seed, m, t, step) alone."""
    when = xr.DataArray(times, dims="time", coords={"time": times}).time.dt
    stamps = np.stack([when.year, when.dayofyear, when.hour, when.minute], 1).astype(int).tolist()
    words = ((seed, m, step, *stamp) for stamp in stamps for m in range(members))
    return [int(np.random.SeedSequence(w).generate_state(1, np.uint64)[0] >> 1) for w in words]


def roll(
    model: WeatherModel,
    fitted: Fitted,
    times: NDArray[Any],
    steps: int,
    members: int,
    seed: int,
    *,
    lead: int | None = None,
    first: int = 0,
    sampler: Sampler | None = None,
    batch_size: int = 64,
    states: Tensor | None = None,
) -> Iterator[Leads]:
    """Forecasts from ``times``, one :class:`Leads` for every target of every step; nothing older is kept.

    ``states``, (n, M, I, C, H, W) physical, are the inputs of step ``first``, to go on with an interrupted forecast.
    """
    targets, frame = made_by(model, lead), model.frame
    n, hours, stride = len(times), model.config.inputs, targets[-1]
    if model.config.leads:
        lead = stride
    if states is None:
        at = fitted.fields.at(fitted.fields.index(times), hours)
        x = (
            fitted.read(at.reshape(-1))
            .unflatten(0, (n, 1, len(hours)))
            .expand(-1, members, -1, -1, -1, -1)
        )
    else:
        x = states
    inputs = frame.encode(x.flatten(0, 1))
    for step in range(first, steps):
        now = shift(times, stride * step)
        seeds = seeds_of(seed, members, times, step)
        rows = [slice(i, i + batch_size) for i in range(0, n * members, batch_size)]
        each = np.repeat(now, members)
        made = torch.cat(
            [
                model.draw(inputs[r], each[r], fitted.grid, seeds[r], sampler, lead).cpu()
                for r in rows
            ]
        )
        physical = frame.decode(made)
        made = frame.encode(physical)  # as it would be read back
        for k, h in enumerate(targets):
            yield Leads(stride * step + h, physical[:, k].unflatten(0, (n, members)))
        known = dict(zip(hours, inputs.unbind(1), strict=True)) | dict(
            zip(targets, made.unbind(1), strict=True)
        )
        inputs = torch.stack([known[h + stride] for h in hours], 1)


def together(
    fitted: Fitted, leads: Sequence[Leads], times: ArrayLike, unit: Unit = "hour"
) -> xr.Dataset:
    """The steps as one dataset: member, time (of the start), prediction_timedelta, and those of the data.

    Months, which are no fixed time, are numbers with the units "months" there.
    """
    starts, time = np.asarray(times), fitted.fields.time
    parts = []
    for lead in leads:
        ds = fitted.dataset(lead.values, starts)
        hours = np.timedelta64(lead.hours, "h").astype("timedelta64[ns]")
        parts.append(
            ds.expand_dims(prediction_timedelta=[lead.hours if unit == "month" else hours])
        )
    out = xr.concat(
        parts, "prediction_timedelta", data_vars="minimal", coords="minimal", compat="override"
    )
    first = ["member", time, "prediction_timedelta"]
    out = out.transpose(*first, ...)
    out["prediction_timedelta"].attrs = {"long_name": "time since the start of the forecast"}
    if unit == "month":
        out["prediction_timedelta"].attrs["units"] = "months"
    valid = np.stack([shift(starts, lead.hours, unit) for lead in leads], 1)
    return out.assign_coords(valid_time=((time, "prediction_timedelta"), valid))
