"""How one variable of a dataset is stored: its dimensions, levels, dtype and attributes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
    """The dimensions of a variable in their order, the entries of its vertical one (None: there is none), its dtype."""

    name: str
    dims: tuple[str, ...]
    time: str
    vertical: str | None
    levels: tuple[float | None, ...]
    dtype: np.dtype[Any]
    attrs: Mapping[str, Any]

    @staticmethod
    def of(array: xr.DataArray, time: str, axes: Axes) -> Layout:
        """Raises ``ValueError`` for dimensions that are missing or too many, and for values that are no numbers."""
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
        levels: tuple[float | None, ...] = (None,)
        if extra:
            levels = tuple(float(v) for v in array[extra[0]].to_numpy())
            if len(set(levels)) < len(levels):
                raise ValueError(f"the levels {extra[0]!r} of variable {name!r} repeat: {levels}")
        vertical = extra[0] if extra else None
        return Layout(name, dims, time, vertical, levels, array.dtype, dict(array.attrs))

    def unpack(self, array: xr.DataArray, axes: Axes) -> NDArray[np.float32]:
        """The values as (time, level, H, W), float32."""
        vertical = [] if self.vertical is None else [self.vertical]
        stored = array.transpose(self.time, *vertical, axes.latitude, axes.longitude).to_numpy()
        stored = stored if vertical else stored[:, None]
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is told
            return axes.arrange(stored).astype(np.float32)

    def pack(self, values: NDArray[np.float32], axes: Axes) -> xr.Variable:
        """The inverse of :meth:`unpack`; with a dimension of members before the others, it stays there."""
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


def _refuse(array: xr.DataArray, dim: str) -> None:
    """Raise for a dimension that cannot be one of levels."""
    name = array.name
    kind = array[dim].dtype.kind if dim in array.coords else ""
    standard = array[dim].attrs.get("standard_name") if kind else None
    if dim.lower() in _MEMBERS or standard == "realization":
        raise ValueError(
            f"variable {name!r} has members, dimension {dim!r}; take one with ds.isel({dim}=0)"
        )
    if dim.lower() in _LEADS or kind in "mMO" and kind:
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
