r"""Scores of ensembles of gridded fields, right by default: fair, weighted by area, roots taken last.

Every function takes an ensemble (with a dimension "member") and a truth, both `xarray.DataArray` or both
`xarray.Dataset`, and returns the same kind, with units. ``dim`` names the dimensions averaged over: by default time and
space, so that lead times and levels stay; ``dim=("latitude", "longitude")`` leaves a series of scores for
`significance`, ``dim=()`` a map (of what is no mean square). Means over latitude weigh rows by the area of their cells.
Cells that are NaN in the truth, or in all members, are skipped in every term; see `kernels.paired`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr

from . import kernels
from .kernels import Floats
from .matching import MEMBER, Data, Dims, area_weights, average, each, match, space_dims, units_of

__all__ = [
    "bias",
    "crps",
    "debiased_rmse",
    "energy_score",
    "mae",
    "pointwise",
    "rmse",
    "spread",
    "spread_skill",
]


def crps(ensemble: Data, truth: Data, *, dim: Dims = None, biased: bool = False) -> Data:
    """The fair continuous ranked probability score, in the field's units; less is better.

    See `kernels.crps` for the formula. At M members the ``biased`` score of a perfect Gaussian ensemble is larger by
    the factor 1 + 1 / M: it is here to compare with figures of tools that report it.
    """

    def one(x: Floats, y: Floats) -> Floats:
        return kernels.crps(x, y, biased=biased)

    def score(a: xr.DataArray, b: xr.DataArray) -> xr.DataArray:
        name = "biased CRPS" if biased else "fair CRPS"
        return _named(average(pointwise(one, a, b), dim), name, units_of(b))

    return each(score, ensemble, truth)


def mae(ensemble: Data, truth: Data, *, dim: Dims = None) -> Data:
    """The mean absolute error of the ensemble mean; a forecast without members counts as one."""

    def score(a: xr.DataArray, b: xr.DataArray) -> xr.DataArray:
        return _named(
            average(abs(pointwise(_error, a, b)), dim), "MAE of the ensemble mean", units_of(b)
        )

    return each(score, ensemble, truth)


def bias(ensemble: Data, truth: Data, *, dim: Dims = None) -> Data:
    """The mean error of the ensemble mean: positive where the forecast is too high."""

    def score(a: xr.DataArray, b: xr.DataArray) -> xr.DataArray:
        return _named(average(pointwise(_error, a, b), dim), "bias", units_of(b))

    return each(score, ensemble, truth)


def rmse(ensemble: Data, truth: Data, *, dim: Dims = None) -> Data:
    """The root mean square error of the ensemble mean as it is: it falls as members are added.

    A forecast without members counts as one. For ensembles of different sizes see `debiased_rmse`.
    """

    def score(a: xr.DataArray, b: xr.DataArray) -> xr.DataArray:
        square = average(pointwise(_square, a, b), dim)
        return _named(square**0.5, "RMSE of the ensemble mean", units_of(b))

    return each(score, ensemble, truth)


def debiased_rmse(ensemble: Data, truth: Data, *, dim: Dims = None) -> Data:
    r"""What the RMSE of the mean would be with members without number.

    .. math:: \sqrt{\overline{(\bar x - y)^2 - s^2 / M}}

    with the variance :math:`s^2` of the members (ddof 1). 0 where sampling noise makes the mean square negative.
    Raises ``ValueError`` for fewer than 2 members.
    """

    def score(a: xr.DataArray, b: xr.DataArray) -> xr.DataArray:
        square = average(pointwise(_debiased_square, a, b), dim)
        return _named(square.clip(min=0) ** 0.5, "debiased RMSE of the ensemble mean", units_of(b))

    return each(score, ensemble, truth)


def spread(ensemble: Data, truth: Data, *, dim: Dims = None) -> Data:
    """The root of the mean variance of the members (ddof 1), over the cells where the truth is known."""

    def score(a: xr.DataArray, b: xr.DataArray) -> xr.DataArray:
        variance = average(pointwise(_variance, a, b), dim)
        return _named(variance**0.5, "ensemble spread", units_of(b))

    return each(score, ensemble, truth)


def spread_skill(ensemble: Data, truth: Data, *, dim: Dims = None) -> Data:
    r"""Spread over error, 1 for an ensemble that is right about its uncertainty; below 1 it is too sure.

    .. math:: \sqrt{\frac{M+1}{M}}\,\sqrt{\overline{s^2}} \Big/ \sqrt{\overline{(\bar x - y)^2}}

    Both parts are averaged before they are divided (Fortin et al., J. Hydrometeorol. 15, 2014).
    """

    def score(a: xr.DataArray, b: xr.DataArray) -> xr.DataArray:
        members = a.sizes.get(MEMBER, 1)
        variance = average(pointwise(_variance, a, b), dim)
        square = average(pointwise(_square, a, b), dim)
        ratio = ((members + 1) / members * variance / square) ** 0.5
        return _named(ratio, "spread / skill", "1")

    return each(score, ensemble, truth)


def energy_score(ensemble: Data, truth: Data, *, dim: Dims = None, biased: bool = False) -> Data:
    """The fair energy score of whole fields, in the field's units: see `kernels.energy`.

    The norm is the area-weighted root mean square over space, so that the score sees whether members vary in the right
    patterns, which no score of single cells does. ``dim`` is what is averaged besides space: by default time.
    """

    def score(a: xr.DataArray, b: xr.DataArray) -> xr.DataArray:
        a, b = match(a, b)
        space: list[str] = list(space_dims(b))
        weights = area_weights(b).broadcast_like(b.isel({d: 0 for d in b.dims if d not in space}))
        weights = weights.transpose(*space)

        def fields(x: Floats, y: Floats, w: Floats) -> Floats:
            x, y = kernels.paired(x, y)
            x = x.reshape(*x.shape[:-3], -1, x.shape[-1])
            return kernels.energy(x, y.reshape(*y.shape[:-2], -1), w.reshape(-1), biased=biased)

        each_time = xr.apply_ufunc(
            fields,
            _with_members(a),
            b,
            weights,
            input_core_dims=[[*space, MEMBER], space, space],
            dask="parallelized",
            dask_gufunc_kwargs={"allow_rechunk": True},
            output_dtypes=[np.float64],
        )
        over = [d for d in ("time",) if d in each_time.dims] if dim is None else list(dim)
        return _named(each_time.mean(over), "fair energy score", units_of(b))

    return each(score, ensemble, truth)


def pointwise(
    kernel: Callable[..., Floats],
    ensemble: xr.DataArray,
    truth: xr.DataArray,
    *more: xr.DataArray | float,
) -> xr.DataArray:
    """``kernel(members (..., M), truth (...), *more)`` at every cell, lazily if the data are.

    The two are matched first, and their cells paired as `kernels.paired` says.
    """
    ensemble, truth = match(ensemble, truth)

    def one(x: Floats, y: Floats, *rest: Floats) -> Floats:
        return kernel(*kernels.paired(x, y), *rest)

    return xr.apply_ufunc(
        one,
        _with_members(ensemble),
        truth,
        *more,
        input_core_dims=[[MEMBER], *[[]] * (1 + len(more))],
        dask="parallelized",
        dask_gufunc_kwargs={"allow_rechunk": True},
        output_dtypes=[np.float64],
    )


def _error(x: Floats, y: Floats) -> Floats:
    return x.mean(-1) - y


def _square(x: Floats, y: Floats) -> Floats:
    return _error(x, y) ** 2


def _variance(x: Floats, y: Floats) -> Floats:
    if x.shape[-1] < 2:
        raise ValueError(f"the spread needs at least 2 members, got {x.shape[-1]}")
    return x.var(-1, ddof=1)


def _debiased_square(x: Floats, y: Floats) -> Floats:
    return _square(x, y) - _variance(x, y) / x.shape[-1]


def _with_members(ensemble: xr.DataArray) -> xr.DataArray:
    return ensemble if MEMBER in ensemble.dims else ensemble.expand_dims(MEMBER)


def _named(score: xr.DataArray, name: str, units: str) -> xr.DataArray:
    return score.assign_attrs({"long_name": name, "units": units})
