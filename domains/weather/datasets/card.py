"""What a data set must look like and how it is split, as its card in ``datasets/NAME/recipe.yaml`` says.

A card lists variables with units and dimensions, the sizes of dimensions, the step of time, and the parts of the
split as half-open ranges of coordinates. `Card.check` holds a dataset against it, `Card.split` cuts out a part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, final

import numpy as np
import xarray as xr
import yaml
from numpy.typing import NDArray

from sciffusion.errors import did_you_mean

__all__ = ["Card"]


@final
@dataclass(frozen=True)
class Card:
    """The card of one data set. Make one by :meth:`of`."""

    name: str
    recipe: Mapping[str, Any]

    @staticmethod
    @cache
    def of(name: str) -> Card:
        """The card ``datasets/NAME/recipe.yaml``."""
        text = (files("sciffusion") / "datasets" / name / "recipe.yaml").read_text("utf-8")
        return Card(name, yaml.safe_load(text))

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the parts of the split."""
        return tuple(self.recipe["splits"])

    def check(self, ds: xr.Dataset, source: object) -> xr.Dataset:
        """Return ``ds`` if it is this data set: variables, dimensions, sizes, units, grid and times.

        Variables beyond those of the card are let through; values are not read.

        Raises:
            ValueError: it is not. The message names ``source``, what was wrong and what was expected.
        """
        problems = [*self._variables(ds), *self._coordinates(ds)]
        if problems:
            raise ValueError(f"{source} is not the data set {self.name!r}: {'; '.join(problems)}")
        return ds

    def explain(self, kept: Path) -> None:
        """Say how to come by a data set that cannot be fetched: raises ``FileNotFoundError``, always."""
        raise FileNotFoundError(
            f"there is no {kept}, and the data set {self.name!r} cannot be fetched by a program: "
            f"{self.recipe['how']} Then: sciffusion data get {self.name} --path FILE"
        )

    def split(self, ds: xr.Dataset, part: str) -> xr.Dataset:
        """The part of ``ds``, which may itself be a selection from this data set; lazy data stay lazy.

        Raises:
            ValueError: no such part, or nothing of it is in ``ds``.
        """
        if part not in self.parts:
            raise ValueError(
                f"the data set {self.name!r} has no part {part!r}; there are {', '.join(self.parts)}. "
                f"{did_you_mean(part, self.parts)}".rstrip()
            )
        for name, (start, stop) in self.recipe["splits"][part].items():
            if name not in ds.coords:
                raise ValueError(f"ds has no coordinate {name!r}, by which {self.name!r} is split")
            values = ds[name].values
            inside = (values >= _like(start, values)) & (values < _like(stop, values))
            if not inside.any():
                raise ValueError(
                    f"nothing of the part {part!r} of {self.name!r} is in ds: it is where "
                    f"{start} <= {name} < {stop}, and ds has {values.min()} to {values.max()}"
                )
            rows = np.flatnonzero(inside)
            ds = ds.isel({ds[name].dims[0]: slice(int(rows[0]), int(rows[-1]) + 1)})
        return ds

    def _variables(self, ds: xr.Dataset) -> list[str]:
        problems = []
        for name, (units, dims) in self.recipe["variables"].items():
            if name not in ds.data_vars:
                present = [str(known) for known in ds.data_vars]
                hint = did_you_mean(name, present)
                problems.append(
                    f"the variable {name!r} is missing (it has {present}) {hint}".rstrip()
                )
                continue
            if list(ds[name].dims) != dims:
                problems.append(f"{name!r} has the dimensions {list(ds[name].dims)}, not {dims}")
            if units is not None and ds[name].attrs.get("units") != units:
                got = ds[name].attrs.get("units")
                problems.append(f"{name!r} has the units {got!r}, not {units!r}")
        return problems

    def _coordinates(self, ds: xr.Dataset) -> list[str]:
        problems = []
        for dim, size in self.recipe["sizes"].items():
            if ds.sizes.get(dim) != size:
                problems.append(
                    f"the dimension {dim!r} has the size {ds.sizes.get(dim)}, not {size}"
                )
        for dim in self.recipe.get("gaussian", ()):
            nodes = np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(ds.sizes.get(dim, 1))[0]))
            if dim not in ds.coords or np.abs(np.sort(ds[dim].values) - nodes).max() > 0.01:
                problems.append(f"{dim!r} is not the Gaussian latitudes")
        if "step" in self.recipe and "time" in ds.coords:
            steps = np.diff(ds["time"].values)
            wanted = np.timedelta64(self.recipe["step"], "m")
            if not np.issubdtype(steps.dtype, np.timedelta64) or (steps != wanted).any():
                problems.append(f"the times are not {wanted} apart throughout")
        return problems


def _like(bound: Any, values: NDArray[Any]) -> Any:
    """A bound of the card in the type of a coordinate: a date as numpy's, a number as it is."""
    return np.datetime64(bound) if np.issubdtype(values.dtype, np.datetime64) else bound
