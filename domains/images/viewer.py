"""Images to look at: figures, and what a notebook shows."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import torch

from sciffusion.errors import require
from sciffusion.figures import showing

from .files import picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .container import Images

__all__ = ["figure", "html", "png"]

_SHOWN = 64
_LARGE = 448  # pixels, to which small grids are enlarged


def png(images: Images) -> bytes:
    """A grid of the first images as a PNG file, small ones enlarged, pixel by pixel."""
    grid = images[:_SHOWN].grid()
    factor = max(1, _LARGE // max(grid.shape[1:]))
    large = grid.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    file = io.BytesIO()
    picture(large).save(file, format="PNG")
    return file.getvalue()


def html(images: Images) -> str:
    """The grid under a line that says what it is."""
    more = f", the first {_SHOWN}" if len(images) > _SHOWN else ""
    data = base64.b64encode(png(images)).decode()
    return (
        f'<p>{escape(repr(images))}{more}</p><img alt="images" src="data:image/png;base64,{data}">'
    )


def figure(images: Images, columns: int | None = None) -> Figure:
    """All images on a grid, each under its class if it has one; ``columns`` None: about as many as rows.

    Raises ``ValueError`` for less than one column.
    """
    module = require("matplotlib.figure", extra="images")
    n = len(images)
    columns = int(np.ceil(np.sqrt(n))) if columns is None else columns
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    rows = -(-n // columns)
    titles = images.labels.get("label")
    height = 1.25 if titles is not None else 1.0
    made = showing(module.Figure((columns, rows * height), dpi=120, layout="constrained"))
    panels = made.subplots(rows, columns, squeeze=False)
    shown = images.to_bytes().pixels
    for i, panel in enumerate(panels.flat):
        panel.set_axis_off()
        if i >= n:
            continue
        x = shown[i].permute(1, 2, 0)
        x = torch.cat([x] * 3, -1) if x.shape[-1] == 1 else x
        panel.imshow(x.numpy(), interpolation="nearest")
        if titles is not None:
            panel.set_title(str(titles[i]), fontsize=7)
    return made
