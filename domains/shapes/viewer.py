"""Shapes to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sciffusion.errors import require
from sciffusion.figures import showing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .container import Shapes

__all__ = ["figure"]


def figure(shapes: Shapes) -> Figure:
    """All shapes on a grid, to one scale, coloured by height, each under its class if it has one."""
    module = require("matplotlib.figure", extra="shapes")
    n = len(shapes)
    columns = int(np.ceil(np.sqrt(n)))
    rows = -(-n // columns)
    made = showing(module.Figure((columns * 1.8, rows * 1.8), dpi=100, layout="constrained"))
    panels = made.subplots(rows, columns, squeeze=False, subplot_kw={"projection": "3d"})
    centred, titles = shapes.centred(), shapes.labels.get("label")
    reach = float(centred.points.abs().max()) or 1.0
    parts = centred.parts()
    for i, panel in enumerate(panels.flat):
        panel.set_axis_off()
        if i >= n:
            continue
        x, y, z = parts[i].numpy().T
        panel.scatter(x, y, z, c=z, s=3, depthshade=True)
        panel.set(xlim=(-reach, reach), ylim=(-reach, reach), zlim=(-reach, reach))
        panel.set_box_aspect((1, 1, 1))
        if titles is not None:
            panel.set_title(str(titles[i]), fontsize=7)
    return made
