"""Pictures of fields: a map, the stamps of an ensemble, a film.

Maps have coastlines if cartopy is installed, and are drawn on plain axes if not. As in `plots`, figures show themselves
in a notebook, and nothing touches pyplot's state.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from sciffusion.errors import require

from .axes import Axes
from .canvas import figure_of, label_of
from .matching import LEADS, MEMBER, TIME, axes_of, lead_hours, match, space_dims, units_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Panel
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure

__all__ = ["animation", "field_map", "stamps"]


def field_map(
    field: xr.DataArray,
    *,
    anomaly: bool = False,
    limits: tuple[float, float] | None = None,
    title: str | None = None,
) -> Figure:
    """One field (latitude, longitude) as a map.

    ``anomaly`` takes colours that diverge from zero. ``limits`` of the colours are by default the extremes of the field
    (of equal size for an anomaly). Missing cells are grey. Raises ``ValueError`` for a field with more dimensions.
    """
    _only_space(field)
    low, high = limits or _limits([field], anomaly=anomaly)
    figure = figure_of(6.4, 0.8 + 6.0 * _aspect(field))
    panel = _panels(figure, 1, 1, field)[0, 0]
    mesh = _draw(panel, field, low, high, anomaly=anomaly)
    panel.set_title(_title(field) if title is None else title, fontsize=10)
    figure.colorbar(
        mesh, ax=panel, label=units_of(field), shrink=0.8, extend=_extend([field], low, high)
    )
    return figure


def stamps(
    ensemble: xr.DataArray,
    truth: xr.DataArray | None = None,
    *,
    members: int = 8,
    columns: int = 5,
    anomaly: bool = False,
) -> Figure:
    """The truth (if there is one), the ensemble mean and the first ``members``, all in the same colours.

    ``ensemble`` (member, latitude, longitude) and ``truth`` (latitude, longitude). Raises ``ValueError`` for data with
    more dimensions.
    """
    if MEMBER not in ensemble.dims:
        raise ValueError(f"the ensemble has no dimension {MEMBER!r}; draw one field with field_map")
    if truth is not None:
        ensemble, truth = match(ensemble, truth)
    shown = ensemble.isel(member=slice(members))
    panels = {} if truth is None else {"truth": truth}
    panels["ensemble mean"] = ensemble.mean(MEMBER)
    names = shown[MEMBER].values if MEMBER in shown.coords else range(shown.sizes[MEMBER])
    panels |= {f"member {name}": shown.isel(member=i) for i, name in enumerate(names)}
    for one in panels.values():
        _only_space(one)
    low, high = _limits(list(panels.values()), anomaly=anomaly)
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure = figure_of(2.3 * columns, 0.7 + rows * (0.35 + 2.2 * _aspect(ensemble)))
    grid = _panels(figure, rows, columns, ensemble)
    for panel, (name, one) in zip(grid.flat, panels.items(), strict=False):
        mesh = _draw(panel, one, low, high, anomaly=anomaly)
        panel.set_title(name, fontsize=8)
        panel.tick_params(labelsize=6)
        panel.set(xlabel="", ylabel="")
    for panel in grid.flat[len(panels) :]:
        panel.set_visible(False)
    figure.colorbar(mesh, ax=list(grid.flat), label=units_of(ensemble), shrink=0.8)
    figure.suptitle(_title(ensemble), fontsize=10)
    return figure


def animation(
    fields: xr.DataArray,
    path: str | Path,
    *,
    over: str | None = None,
    anomaly: bool = False,
    fps: int = 6,
    dpi: int = 90,
) -> Path:
    """A GIF of maps along ``over`` (None: the lead time, else time); with members, they stand side by side.

    Colours have the same limits in every frame. Raises ``ValueError`` for data with more dimensions, and for a path
    that does not end in .gif.
    """
    path = Path(path)
    if path.suffix != ".gif":
        raise ValueError(f"path must end in .gif, got {path.name!r}")
    over = over or next((d for d in (*LEADS, TIME) if d in fields.dims), None)
    if over is None or over not in fields.dims:
        raise ValueError(
            f"over must name one of the dimensions {tuple(map(str, fields.dims))}, got {over!r}"
        )
    each = (
        [fields]
        if MEMBER not in fields.dims
        else [fields.isel(member=i) for i in range(fields.sizes[MEMBER])]
    )
    for one in each:
        _only_space(one.isel({over: 0}))
    low, high = _limits(each, anomaly=anomaly)
    figure = figure_of(0.9 + 3.4 * len(each), 0.9 + 3.2 * _aspect(fields))
    panels = _panels(figure, 1, len(each), fields)
    meshes = [
        _draw(panel, one.isel({over: 0}), low, high, anomaly=anomaly)
        for panel, one in zip(panels.flat, each, strict=True)
    ]
    figure.colorbar(meshes[-1], ax=list(panels.flat), label=units_of(fields), shrink=0.8)
    if len(each) > 1:
        for i, panel in enumerate(panels.flat):
            panel.set_title(f"member {i}", fontsize=9)

    def frame(k: int) -> list[Any]:
        for mesh, one in zip(meshes, each, strict=True):
            mesh.set_array(_values(one.isel({over: k})))
        figure.suptitle(f"{label_of(fields)} {_moment(fields, over, k)}".strip(), fontsize=10)
        return list(meshes)

    drawn = require("matplotlib.animation", extra="weather")
    film = drawn.FuncAnimation(figure, frame, frames=fields.sizes[over], init_func=lambda: meshes)
    film.save(path, writer=drawn.PillowWriter(fps=fps), dpi=dpi)
    return path


def _moment(fields: xr.DataArray, over: str, k: int) -> str:
    if over not in fields.coords:
        return f"{over} {k}"
    if over in LEADS:
        return f"+{lead_hours(fields[over])[k]:g} h"
    return (
        str(fields[over].dt.strftime("%Y-%m-%d %H:%M").values[k])
        if over == TIME
        else str(fields[over].values[k])
    )


def _only_space(field: xr.DataArray) -> None:
    space = space_dims(field)
    if more := [str(d) for d in field.dims if d not in space]:
        raise ValueError(
            f"a map has two dimensions, {space}; select one entry of {more}, or average"
        )


def _values(field: xr.DataArray) -> np.ndarray:
    """The field with rows southward and columns eastward (projected maps as they are), NaN masked."""
    axes = axes_of(field)
    values = field.transpose(*space_dims(field)).values
    return np.ma.masked_invalid(values if axes is None else axes.arrange(values))


def _limits(fields: Sequence[xr.DataArray], *, anomaly: bool) -> tuple[float, float]:
    """One pair of limits for all."""
    values = np.concatenate([field.values[np.isfinite(field.values)] for field in fields])
    if not len(values):
        raise ValueError("the fields hold no finite value to draw")
    low, high = float(values.min()), float(values.max())
    if anomaly:
        high = max(abs(low), abs(high))
        low = -high
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _extend(fields: Sequence[xr.DataArray], low: float, high: float) -> str:
    """Which ends of a colour bar go on because values lie beyond."""
    below, above = (
        any(bool(test(field).any()) for field in fields)
        for test in (lambda f: f < low, lambda f: f > high)
    )
    return {
        (False, False): "neither",
        (True, False): "min",
        (False, True): "max",
        (True, True): "both",
    }[below, above]


def _draw(panel: Panel, field: xr.DataArray, low: float, high: float, *, anomaly: bool) -> QuadMesh:
    """The cells of a field on an axes."""
    colours = require("matplotlib", extra="weather").colormaps["RdBu_r" if anomaly else "viridis"]
    axes = axes_of(field)
    panel.set_facecolor("#d5d8dc")
    style: dict[str, Any] = {
        "vmin": low,
        "vmax": high,
        "cmap": colours,
        "shading": "flat",
        "rasterized": True,
    }
    if axes is None:
        y, x = (
            _edges(field[d].values if d in field.coords else np.arange(field.sizes[d]))
            for d in ("y", "x")
        )
        panel.set(aspect="equal", xlabel=_axis(field, "x"), ylabel=_axis(field, "y"))
        return panel.pcolormesh(x, y, _values(field), **style)
    lat, lon = _edges(axes.lat).clip(-90, 90), _edges(axes.lon)
    if hasattr(panel, "coastlines"):
        _coasts(panel, "110m" if np.ptp(axes.lat) > 60 else "50m")
        return panel.pcolormesh(lon, lat, _values(field), transform=_plate(0.0), **style)
    panel.set_aspect(_stretch(axes))
    ticker = require("matplotlib.ticker", extra="weather")
    for axis, degrees, step in ((panel.yaxis, axes.lat, 30), (panel.xaxis, axes.lon, 60)):
        if np.ptp(degrees) > 3 * step:
            axis.set_major_locator(ticker.MultipleLocator(step))
    panel.set(xlabel="longitude (°E)", ylabel="latitude (°N)")
    return panel.pcolormesh(lon, lat, _values(field), **style)


def _edges(centres: np.ndarray) -> np.ndarray:
    middle = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])


def _stretch(axes: Axes) -> float:
    """Height of a degree of latitude over width of one of longitude; 1 for maps that span much of a globe."""
    if np.ptp(axes.lat) > 60:
        return 1.0
    return 1 / max(math.cos(math.radians(float(axes.lat.mean()))), 0.2)


def _aspect(field: xr.DataArray) -> float:
    """Height over width of a map."""
    axes = axes_of(field)
    if axes is None:
        return field.sizes["y"] / field.sizes["x"]
    return float(np.clip(_stretch(axes) * np.ptp(axes.lat) / np.ptp(axes.lon), 0.25, 2.0))


def _panels(figure: Figure, rows: int, columns: int, field: xr.DataArray) -> np.ndarray:
    """Axes that know maps if cartopy is there."""
    projection: dict[str, Any] = {}
    if axes_of(field) is not None and find_spec("cartopy") is not None:
        projection = {"projection": _plate(float(Axes.of(field).lon.mean()))}
    return figure.subplots(
        rows, columns, squeeze=False, sharex=True, sharey=True, subplot_kw=projection
    )


def _coasts(panel: Any, scale: str) -> None:
    """Coastlines, if cartopy has them or can fetch them: drawing would fail where it cannot."""
    from cartopy.io.shapereader import natural_earth

    try:
        natural_earth(scale, "physical", "coastline")
    except OSError as error:
        warnings.warn(
            f"the map has no coastlines, for cartopy could not fetch them ({error})", stacklevel=2
        )
        return
    panel.coastlines(scale, lw=0.5)


def _plate(middle: float) -> Any:
    """Cartopy's map of equal degrees; cartopy is no dependency, so that it may be absent."""
    from cartopy.crs import PlateCarree

    return PlateCarree(middle)


def _axis(field: xr.DataArray, dim: str) -> str:
    units = units_of(field[dim]) if dim in field.coords else ""
    return f"{dim} ({units})" if units else dim


def _title(field: xr.DataArray) -> str:
    """Name, units, level, and the time if it is one."""
    parts = [label_of(field)]
    for name, coordinate in field.coords.items():
        if coordinate.ndim or name == MEMBER:
            continue
        if name in LEADS:
            parts.append(f"+{lead_hours(coordinate.expand_dims(name))[0]:g} h")
        elif name == TIME and coordinate.dtype.kind == "M":
            parts.append(str(coordinate.dt.strftime("%Y-%m-%d %H:%M").values))
        elif coordinate.dtype.kind in "fiuU":
            parts.append(
                f"{name} {coordinate.item()}{' ' if units_of(coordinate) else ''}{units_of(coordinate)}"
            )
    return ", ".join(part for part in parts if part)
