"""Channels by their names: "z500" is a variable, "t:850" one level of a variable."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from sciffusion.errors import did_you_mean

from .layout import Layout

__all__ = ["check_names", "levels_named", "without_other_levels"]


def levels_named(ds: xr.Dataset, names: Sequence[str]) -> dict[str, list[float] | None]:
    """The levels of every variable that is named, None for all that it has.

    "t:850" names the level 850 of t, unless that is the name of a variable itself. Raises ``ValueError`` for an empty
    list, for unknown or repeated names, and if the levels of one variable do not stand side by side.
    """
    if not names:
        raise ValueError("variables is empty; name one, or give None for all")
    _check_list(names)
    wanted: dict[str, list[float] | None] = {}
    for name in names:
        variable, colon, level = name.rpartition(":")
        if name in ds.data_vars or not colon:
            variable, level = name, ""
        if variable in wanted and variable != next(reversed(wanted)):
            raise ValueError(f"variables: the levels of {variable!r} do not stand side by side")
        levels = wanted.setdefault(variable, [] if level else None)
        if (levels is None) == bool(level):
            raise ValueError(f"variables names {variable!r} with and without levels")
        if levels is not None:
            levels.append(_number(name, level))
    check_names(ds, list(wanted))
    return wanted


def _number(name: str, level: str) -> float:
    try:
        return float(level)
    except ValueError:
        raise ValueError(f"variables: {name!r} is no variable, and {level!r} no level") from None


def without_other_levels(
    ds: xr.Dataset, layouts: tuple[Layout, ...]
) -> tuple[xr.Dataset, tuple[Layout, ...]]:
    """The dataset with the levels that some variable uses, so that no other is read."""
    out = list(layouts)
    for vertical in {x.vertical for x in layouts if x.vertical is not None}:
        sharing = [k for k, x in enumerate(layouts) if x.vertical == vertical]
        kept = np.unique(np.concatenate([layouts[k].picked for k in sharing]))
        if len(kept) < layouts[sharing[0]].depth:
            ds = ds.isel({vertical: kept})
        for k in sharing:
            out[k] = layouts[k].within(kept)
    return ds, tuple(out)


def _check_list(names: Sequence[str]) -> None:
    if isinstance(names, str):
        raise ValueError(f"a list of names is wanted, not the string {names!r}")
    if len(set(names)) < len(names):
        raise ValueError(f"a variable is named twice: {list(names)}")


def check_names(ds: xr.Dataset, names: Sequence[str]) -> None:
    """Raise ``ValueError`` for a string, for a name that is given twice, and for a variable that is not there."""
    _check_list(names)
    for name in names:
        if name not in ds.data_vars:
            known = [str(v) for v in ds.data_vars]
            raise ValueError(
                f"ds has no variable {name!r}; it has {known}. {did_you_mean(name, known)}".rstrip()
            )
