"""Scores of events such as rain above 1 mm: whether, how often, and how near to the right place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from . import kernels
from .grid import Grid
from .kernels import Floats
from .matching import (
    MEMBER,
    Data,
    Dims,
    area_weights,
    average,
    axes_of,
    each,
    match,
    space_dims,
)
from .metrics import pointwise

__all__ = ["brier", "frequency", "fss", "reliability"]


def brier(
    ensemble: Data,
    truth: Data,
    threshold: float | xr.DataArray,
    *,
    dim: Dims = None,
    biased: bool = False,
) -> Data:
    """The fair Brier score of exceeding ``threshold``, which may differ from cell to cell; see `kernels.brier`.

    ``dim`` as in `metrics`.
    """

    def one(x: Floats, y: Floats, level: Floats) -> Floats:
        return kernels.brier(x, y, level, biased=biased)

    def score(a: xr.DataArray, b: xr.DataArray) -> xr.DataArray:
        found = average(pointwise(one, a, b, threshold), dim)
        name = "biased Brier score" if biased else "fair Brier score"
        return found.assign_attrs({"long_name": name, "units": "1"})

    return each(score, ensemble, truth)


def frequency(data: Data, threshold: float, *, dim: Dims = None) -> Data:
    """The area-weighted share of known cells above ``threshold``: of rain fields, how often it is wet.

    ``dim`` as in `metrics`; members are averaged too by default.
    """

    def share(field: xr.DataArray, _: xr.DataArray) -> xr.DataArray:
        found = average((field > threshold).where(field.notnull()), dim)
        return found.assign_attrs({"long_name": f"share above {threshold:g}", "units": "1"})

    return each(share, data, data)


def reliability(
    ensemble: xr.DataArray,
    truth: xr.DataArray,
    threshold: float | xr.DataArray,
    *,
    bins: int | None = None,
    dim: Dims = None,
) -> xr.Dataset:
    """The reliability diagram of exceeding ``threshold``: what happened when the ensemble said p.

    Along "bin": ``forecast`` is the mean share of members above, ``observed`` how often the truth was above then,
    ``share`` the part of all cases (by area). M members can say M + 1 probabilities: these are the bins, or ``bins``
    equal intervals of [0, 1]. Raises ``ValueError`` for fewer than 1 bin.
    """
    if bins is not None and bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    ensemble, truth = match(ensemble, truth)
    members = ensemble.sizes.get(MEMBER, 1)
    said = pointwise(_probability, ensemble, truth, threshold)
    came = xr.where(truth > threshold, 1.0, 0.0).where(said.notnull())
    number = members + 1 if bins is None else bins
    scale = members if bins is None else bins
    place = np.minimum(np.floor(said * scale + (0.5 if bins is None else 0.0)), number - 1)
    every = xr.DataArray(np.arange(number), dims="bin", name="bin")
    here = (place == every.assign_coords(bin=every)).where(said.notnull())
    share = average(here, dim)
    mean = [average(x * here, dim) / share for x in (said, came)]
    return xr.Dataset({"forecast": mean[0], "observed": mean[1], "share": share})


def fss(
    ensemble: Data, truth: Data, threshold: float, boxes: Sequence[int], *, dim: Dims = None
) -> Data:
    r"""The fractions skill score of members, along a new dimension "box": 1 is perfect, 0 has no overlap.

    .. math:: 1 - \overline{(f - o)^2} \Big/ \overline{f^2 + o^2}

    with the shares f of a member's and o of the truth's cells above ``threshold`` in boxes of n x n cells (Roberts &
    Lean, Mon. Weather Rev. 136, 2008). A forecast is useful where this exceeds 1/2 + (share of the truth) / 2.
    Numerator and denominator are averaged over space and ``dim`` (by default members and time) before they are
    divided. Boxes lie wholly inside the field, and run across the date line of a globe; missing cells are left out.
    """

    def score(a: xr.DataArray, b: xr.DataArray) -> xr.DataArray:
        a, b = match(a, b)
        found = [_fss(a, b, threshold, box, dim) for box in boxes]
        score = xr.concat(found, xr.DataArray(list(boxes), dims="box", name="box"))
        return score.assign_attrs({"long_name": "fractions skill score", "units": "1"})

    return each(score, ensemble, truth)


def _fss(a: xr.DataArray, b: xr.DataArray, threshold: float, box: int, dim: Dims) -> xr.DataArray:
    space, axes, circular = list(space_dims(b)), axes_of(b), False
    if axes is not None:  # neighbours must lie side by side
        order = {axes.latitude: axes.rows, axes.longitude: axes.columns}
        a, b, circular = a.isel(order), b.isel(order), Grid.of(b).circular

    def parts(x: Floats, y: Floats, area: Floats) -> tuple[Floats, Floats]:
        missing = np.isnan(x) | np.isnan(y)
        f, o = (
            kernels.box_means(np.where(missing, np.nan, v > threshold), box, circular=circular)
            for v in (x, y)
        )
        rows = kernels.box_means(area[:, None] * np.ones(box), box, circular=False)
        weights = np.where(np.isnan(f), 0.0, rows)
        return tuple(
            (weights * np.nan_to_num(q)).sum((-2, -1)) for q in ((f - o) ** 2, f**2 + o**2)
        )

    above, below = xr.apply_ufunc(
        parts,
        a,
        b,
        area_weights(b),
        input_core_dims=[space, space, space[:1]],
        output_core_dims=[[], []],
        dask="parallelized",
        dask_gufunc_kwargs={"allow_rechunk": True},
        output_dtypes=[np.float64, np.float64],
    )
    over = [d for d in (MEMBER, "time") if d in above.dims] if dim is None else list(dim)
    return 1 - above.sum(over) / below.sum(over)


def _probability(x: Floats, y: Floats, threshold: Floats) -> Floats:
    level = np.asarray(threshold)
    return np.where(np.isnan(y) | np.isnan(level), np.nan, (x > level[..., None]).mean(-1))
