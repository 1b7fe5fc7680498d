"""One call that judges an ensemble: every variable, level and lead time, with intervals over initial times."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import final

import numpy as np
import xarray as xr

from . import kernels
from .kernels import Floats
from .matching import (
    MEMBER,
    TIME,
    area_weights,
    each,
    lead_dim,
    lead_hours,
    match,
    space_dims,
    units_of,
)
from .report import Report, Row, Score
from .significance import BlockBootstrap
from .spectra import SCALES, spectrum

__all__ = ["evaluate"]

_MEMORY = 32 * 2**20  # bytes of members that are scored at once

Statistic = Callable[[Floats], Floats]


def evaluate(
    ensemble: xr.Dataset,
    truth: xr.Dataset,
    *,
    seed: int = 0,
    n_boot: int = 1000,
    block: int | None = None,
    lmax: int | None = None,
) -> Report:
    """Judge an ensemble: scores of every variable, level and lead time, each with a 95 % interval.

    ``ensemble`` has the dimension "member" (without it, the forecast counts as one member and gets no score of an
    ensemble), latitude and longitude (or "y" and "x"), and if there are any "time", a lead time and levels; with a lead
    time, "time" is the initial time, and the truth is read at initial time + lead unless it has leads itself. Data that
    are opened lazily are read in pieces.

    Scores: ``crps`` (fair), ``mae``, ``rmse``, ``bias`` of the ensemble mean, ``debiased_rmse``, ``spread``,
    ``spread_skill``, ``outliers`` (right at 2 / (M + 1)), and for complete fields ``power_low`` and ``power_high``: the
    least and the largest ratio over all scales of the members' spectrum to the truth's, each with the interval of that
    scale; see `metrics`, `ranks` and `spectra`. Data of a spectral model have next to nothing beyond a degree ``lmax``
    of spherical harmonics: name it, and those scales do not count. Intervals draw blocks of ``block`` initial times
    again (None: as long as their correlation asks for; see `significance`), ``n_boot`` times. ``seed`` breaks ties of
    ranks and draws the blocks.

    Raises ``ValueError`` where the truth lacks a variable, time or place of the ensemble, where a member failed (NaN
    beside members that are not, or infinite), and for ``lmax`` on a region or beyond what the grid resolves.
    """
    if not len(ensemble.data_vars):
        raise ValueError("the ensemble has no variable to judge")
    bootstrap = BlockBootstrap(n_boot, block, seed=seed)
    rows: list[Row] = []
    missing: list[float] = []

    def judge(a: xr.DataArray, b: xr.DataArray) -> xr.DataArray:
        for part, at, lead in _parts(a):
            sums = _Sums.of(part, _select(b, at), np.random.default_rng([seed, len(rows)]), lmax)
            scores = _scores(sums, bootstrap, units_of(b) or units_of(a))
            rows.append(
                Row(
                    str(a.name),
                    ",".join(f"{v:g}" if isinstance(v, float) else str(v) for v in at.values()),
                    lead,
                    scores,
                )
            )
            missing.append(1 - float(sums.parts[:, 0].sum()) / sums.area)
        return a

    each(judge, ensemble, truth)
    first = next(iter(ensemble.data_vars.values()))
    about: dict[str, str | int | float] = {
        "members": first.sizes.get(MEMBER, 1),
        "initial_times": first.sizes.get(TIME, 1),
        "block": "by correlation" if block is None else block,
        "replicates": n_boot,
    }
    if lmax is not None:
        about["resolved"] = f"degrees 1 to {lmax}"
    if max(missing) > 1e-12:
        about["missing_cells"] = f"{100 * max(missing):.1f} %"
    return Report(tuple(rows), about)


@final
@dataclass(frozen=True)
class _Sums:
    """Area-weighted sums over the cells of each time, (times, K), and spectra (times, L), or none."""

    parts: Floats
    members: int
    area: float  # what the first column would sum to, were no cell missing
    ours: Floats | None
    theirs: Floats | None

    @staticmethod
    def of(
        ensemble: xr.DataArray, truth: xr.DataArray, rng: np.random.Generator, lmax: int | None
    ) -> _Sums:
        members = ensemble.sizes[MEMBER]
        space = space_dims(ensemble)
        area = area_weights(ensemble).values[:, None] * np.ones(ensemble.sizes[space[1]])
        times = ensemble.sizes[TIME]
        most = max(1, _MEMORY // (8 * members * area.size))
        parts, spectra, complete = [], [], True
        for start in range(0, times, most):
            a, b = match(ensemble.isel({TIME: slice(start, start + most)}), truth)
            if (lead := lead_dim(a)) is not None:
                a, b = a.isel({lead: 0}, drop=True), b.isel({lead: 0}, drop=True)
            a, b = a.transpose(TIME, *space, MEMBER).load(), b.transpose(TIME, *space).load()
            x, y = kernels.paired(a.values, b.values)
            parts.append(_sums(x, y, area, rng))
            complete = complete and not np.isnan(y).any()
            if complete:
                spectra.append([_power(a, lmax).mean(MEMBER).values, _power(b, lmax).values])
        ours, theirs = (
            (np.concatenate(x) for x in zip(*spectra, strict=True)) if complete else (None, None)
        )
        return _Sums(np.concatenate(parts), members, times * float(area.sum()), ours, theirs)


def _sums(x: Floats, y: Floats, area: Floats, rng: np.random.Generator) -> Floats:
    """One row a time: areas, error, absolute and squared error, then variance, CRPS and outliers."""
    members = x.shape[-1]
    error = x.mean(-1) - y
    columns = [np.where(np.isnan(y), 0.0, 1.0), error, abs(error), error**2]
    if members > 1:
        rank = kernels.ranks(x, y, rng.random(y.shape))
        columns += [x.var(-1, ddof=1), kernels.crps(x, y), (rank == 0) | (rank == members)]
    return np.stack([(np.nan_to_num(c) * area).sum((-2, -1)) for c in columns], axis=-1)


def _power(fields: xr.DataArray, lmax: int | None) -> xr.DataArray:
    """The spectrum without its mean, up to the degree that the data resolve."""
    found = spectrum(fields)
    scale = next(d for d in SCALES if d in found.dims)
    found = found.transpose(TIME, ..., scale)
    last = found.sizes[scale] - 1
    if lmax is not None and (scale != "degree" or not 1 <= lmax <= last):
        has = f"degrees 1 to {last}" if scale == "degree" else "no spherical harmonics"
        raise ValueError(f"lmax {lmax}: the grid has {has}")
    return (
        found.isel({scale: slice(1, None if lmax is None else lmax + 1)})
        if scale == "degree"
        else found
    )


def _scores(sums: _Sums, bootstrap: BlockBootstrap, unit: str) -> dict[str, Score]:
    """The figures of a row; every one is a function of sums over times, which are drawn again."""
    m = sums.members

    def mean(column: int) -> Statistic:
        return lambda s: _divide(s[:, column], s[:, 0])

    found: dict[str, tuple[Statistic, Floats, str, str]] = {}

    def add(name: str, of: Statistic, unit: str, what: str, parts: Floats = sums.parts) -> None:
        found[name] = (of, parts, unit, what)

    if m > 1:
        add("crps", mean(5), unit, "fair continuous ranked probability score")
    add("mae", mean(2), unit, "mean absolute error of the ensemble mean")
    add("rmse", lambda s: mean(3)(s) ** 0.5, unit, "root mean square error of the ensemble mean")
    if m > 1:
        add(
            "debiased_rmse",
            lambda s: np.maximum(mean(3)(s) - mean(4)(s) / m, 0) ** 0.5,
            unit,
            "root mean square error of the mean of members without number",
        )
        add("spread", lambda s: mean(4)(s) ** 0.5, unit, "root of the mean variance of members")
        add(
            "spread_skill",
            lambda s: (_divide((m + 1) / m * s[:, 4], s[:, 3])) ** 0.5,
            "1",
            "spread over error, with the factor of finite ensembles; 1 is right",
        )
        add(
            "outliers",
            mean(6),
            "1",
            f"share of truths outside of all members; {2 / (m + 1):.4g} is right",
        )
    add("bias", mean(1), unit, "mean error of the ensemble mean")
    if sums.ours is not None and sums.theirs is not None:
        total = _divide(sums.ours.sum(0), sums.theirs.sum(0))
        order = np.argsort(total)[
            : np.count_nonzero(~np.isnan(total))
        ]  # NaN where the truth has none
        for name, scale, word in zip(
            ("low", "high"),
            order[[0, -1]] if len(order) else (),
            ("least", "largest"),
            strict=False,
        ):
            parts = np.stack([sums.ours[:, scale], sums.theirs[:, scale]], axis=1)
            what = f"power of members over power of the truth, at the scale (number {scale + 1}) where it is {word}"
            add(f"power_{name}", lambda s: _divide(s[:, 0], s[:, 1]), "1", what, parts)
    out = {}
    for name, (of, parts, own, what) in found.items():
        interval = bootstrap.interval(of, parts)
        out[name] = Score(interval.value, interval.low, interval.high, own, what)
    return out


def _divide(a: Floats, b: Floats) -> Floats:
    return np.divide(a, b, out=np.full_like(a, np.nan), where=b > 0)


def _parts(
    ensemble: xr.DataArray,
) -> Iterator[tuple[xr.DataArray, dict[Hashable, object], float | None]]:
    """The ensemble at each level and lead, with members and times; the level it is at, and the lead in hours."""
    for dim in (MEMBER, TIME):
        if dim not in ensemble.dims:
            ensemble = ensemble.expand_dims(dim)
    lead = lead_dim(ensemble)
    known = {MEMBER, TIME, lead, *space_dims(ensemble)}
    others = [d for d in ensemble.dims if d not in known]
    hours = [None] if lead is None else lead_hours(ensemble[lead])
    for place in product(*(range(ensemble.sizes[d]) for d in others)):
        level = ensemble.isel(dict(zip(others, place, strict=True)))
        at = {
            d: level[d].item() if d in level.coords else i
            for d, i in zip(others, place, strict=True)
        }
        for i, hour in enumerate(hours):
            part = level if lead is None else level.isel({lead: slice(i, i + 1)})
            yield part.drop_vars(others, errors="ignore"), at, hour


def _select(truth: xr.DataArray, at: dict[Hashable, object]) -> xr.DataArray:
    """The truth at a level, with times."""
    for dim, value in at.items():
        if dim not in truth.dims:
            raise ValueError(
                f"the ensemble has a dimension {str(dim)!r}, the truth of {truth.name!r} has none"
            )
        if dim not in truth.coords:
            truth = truth.isel({dim: value})
        elif value not in truth[dim].values:
            raise ValueError(f"the truth of {truth.name!r} has no {str(dim)} {value}")
        else:
            truth = truth.sel({dim: value}, drop=True)
    return truth if TIME in truth.dims else truth.expand_dims(TIME)
