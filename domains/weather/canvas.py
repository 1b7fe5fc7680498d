"""What all figures have in common: they show themselves in a notebook, and name units."""

from __future__ import annotations

from typing import TYPE_CHECKING

import xarray as xr

from sciffusion.errors import require
from sciffusion.figures import showing

from .matching import units_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Panel
    from matplotlib.figure import Figure

__all__ = ["figure_of", "label_of", "tidy"]


def figure_of(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    module = require("matplotlib.figure", extra="weather")
    return showing(module.Figure((width, height), dpi=150, layout="constrained"))


def label_of(field: xr.DataArray) -> str:
    """Name and units, as far as they are known."""
    units = units_of(field)
    name = str(field.attrs.get("long_name", field.name or ""))
    return f"{name} ({units})" if units else name


def tidy(*panels: Panel) -> None:
    """Axes without a frame, with small numbers."""
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
