"""How one variable of a dataset is stored: its dimensions, levels, dtype and attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from .axes import Axes

__all__ = ["Layout"]

_MEMBERS = {"member", "members", "number", "realization", "realisation", "ensemble", "ens"}
_LEADS = {"lead", "lead_time", "leadtime", "step", "prediction_timedelta", "forecast_period"}


@final
@dataclass(frozen=True, eq=False)
class Layout:
    """The dimensions of a variable in their order, its levels, dtype and attributes.

    ``vertical`` names the dimension of levels, ``levels`` are those that become channels (None: the variable has no
    such dimension), and ``picked`` says where they lie among the ``depth`` levels of the dataset.
    """

    name: str
    dims: tuple[str, ...]
    time: str
    vertical: str | None
    levels: tuple[float | None, ...]
    picked: NDArray[np.int64]
    depth: int
    dtype: np.dtype[Any]
    attrs: Mapping[str, Any]

    @staticmethod
    def of(
        array: xr.DataArray, time: str, axes: Axes, wanted: Sequence[float] | None = None
    ) -> Layout:
        """The layout of a variable, with the ``wanted`` levels in that order, or all.

        Raises ``ValueError`` for dimensions or levels that are missing or too many, and for values that are no numbers.
        """
        name, dims = str(array.name), tuple(str(d) for d in array.dims)
        missing = [d for d in (time, axes.latitude, axes.longitude) if d not in dims]
        if missing:
            static = " (a static variable is no channel)" if missing == [time] else ""
            raise ValueError(
                f"variable {name!r} has no dimension {missing}; it has {list(dims)}{static}"
            )
        if array.dtype.kind not in "fiub":
            raise ValueError(f"variable {name!r} holds {array.dtype}, not real numbers")
        extra = [d for d in dims if d not in (time, axes.latitude, axes.longitude)]
        for d in extra:
            _refuse(array, d)
        if len(extra) > 1:
            raise ValueError(
                f"variable {name!r} has the further dimensions {extra}; one, of levels, is possible"
            )
        if not extra:
            if wanted is not None:
                raise ValueError(f"variable {name!r} has no levels; ask for {name!r} alone")
            none = np.zeros(1, dtype=np.int64)
            return Layout(name, dims, time, None, (None,), none, 1, array.dtype, dict(array.attrs))
        stored = array[extra[0]].to_numpy().astype(np.float64)
        if len(np.unique(stored)) < len(stored):
            raise ValueError(
                f"the levels {extra[0]!r} of variable {name!r} repeat: {stored.tolist()}"
            )
        picked = np.arange(len(stored)) if wanted is None else _find(name, stored, wanted)
        levels = tuple(float(v) for v in stored[picked])
        attrs = dict(array.attrs)
        return Layout(name, dims, time, extra[0], levels, picked, len(stored), array.dtype, attrs)

    def within(self, kept: NDArray[np.int64]) -> Layout:
        """The same layout in a dataset that has only the ``kept`` of the levels, rising positions."""
        return replace(self, picked=np.searchsorted(kept, self.picked), depth=len(kept))

    def unpack(self, array: xr.DataArray, axes: Axes) -> NDArray[np.float32]:
        """The values as (time, level, H, W), float32."""
        vertical = [] if self.vertical is None else [self.vertical]
        stored = array.transpose(self.time, *vertical, axes.latitude, axes.longitude).to_numpy()
        stored = stored[:, self.picked] if vertical else stored[:, None]
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is told
            return axes.arrange(stored).astype(np.float32)

    def pack(self, values: NDArray[np.float32], axes: Axes) -> xr.Variable:
        """The inverse of :meth:`unpack`; with a dimension of members before the others, it stays there.

        Levels of the dataset that are not among those of this variable are NaN.
        """
        if len(self.picked) < self.depth or (np.diff(self.picked) != 1).any():
            full = np.full((*values.shape[:-3], self.depth, *values.shape[-2:]), np.float32(np.nan))
            full[..., self.picked, :, :] = values
            values = full
        stored = axes.restore(values)
        dims = [self.time, self.vertical, axes.latitude, axes.longitude]
        if self.vertical is None:
            stored = stored[..., 0, :, :]
            dims.remove(None)
        order = [dims.index(d) for d in self.dims]
        front = ["member"] if stored.ndim > len(dims) else []
        stored = stored.transpose([*range(len(front)), *(k + len(front) for k in order)])
        # the packing of a file (int16, scale, offset) stays behind: a forecast may leave its range
        return xr.Variable([*front, *self.dims], self._cast(stored), self.attrs)

    def _cast(self, values: NDArray[Any]) -> NDArray[Any]:
        if self.dtype.kind == "f":
            return np.ascontiguousarray(values, dtype=self.dtype)
        if np.isnan(values).any():
            raise ValueError(f"values: NaN for {self.name!r}, whose dtype {self.dtype} has none")
        if self.dtype.kind == "b":
            return values >= 0.5
        info = np.iinfo(self.dtype)
        return np.rint(values).astype(np.float64).clip(info.min, info.max).astype(self.dtype)


def _find(name: str, stored: NDArray[np.float64], wanted: Sequence[float]) -> NDArray[np.int64]:
    at = []
    for level in wanted:
        near = np.flatnonzero(np.isclose(stored, level, rtol=1e-5))
        if not len(near):
            raise ValueError(f"variable {name!r} has no level {level:g}; it has {stored.tolist()}")
        at.append(int(near[0]))
    return np.array(at, dtype=np.int64)


def _refuse(array: xr.DataArray, dim: str) -> None:
    """Raise for a dimension that cannot be one of levels."""
    name = array.name
    kind = array[dim].dtype.kind if dim in array.coords else ""
    standard = array[dim].attrs.get("standard_name") if kind else None
    if dim.lower() in _MEMBERS or standard == "realization":
        raise ValueError(
            f"variable {name!r} has members, dimension {dim!r}; take one with ds.isel({dim}=0)"
        )
    if dim.lower() in _LEADS or kind in ("m", "M"):
        raise ValueError(
            f"variable {name!r} has lead times, dimension {dim!r}; take one with ds.isel({dim}=0)"
        )
    if not kind:
        raise ValueError(
            f"dimension {dim!r} of variable {name!r} has no coordinate: name its levels"
        )
    if kind not in "fiu":
        raise ValueError(
            f"dimension {dim!r} of variable {name!r} is not numeric; make variables of its entries "
            f"with ds[{str(name)!r}].to_dataset({dim!r})"
        )
