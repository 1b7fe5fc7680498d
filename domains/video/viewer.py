"""Films to see: moving pictures for notebooks, and strips of frames on paper."""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from sciffusion.errors import require
from sciffusion.figures import showing

from .files import gif
from .film import Film, Films

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["figure", "gallery", "html"]

_SHOWN = 12
_STRIP = 16  # frames of a strip
_SIDE = 128  # pixels that a film has at least in a notebook


def figure(films: Films) -> Figure:
    """A row for each film, of up to 16 of its frames in even distances, each under its number."""
    module = require("matplotlib.figure", extra="video")
    columns = min(_STRIP, max(len(film) for film in films))
    size = (0.2 + 0.75 * columns, 0.95 * len(films))
    made = showing(module.Figure(size, dpi=120, layout="constrained"))
    panels = made.subplots(len(films), columns, squeeze=False)
    for i, film in enumerate(films):
        shown = np.unique(np.linspace(0, len(film) - 1, columns).round().astype(int))
        for panel in panels[i]:
            panel.set_axis_off()
        for panel, frame in zip(panels[i], shown, strict=False):
            picture = film.bytes().frames[frame].permute(1, 2, 0).numpy()
            grey = {"cmap": "gray", "vmin": 0, "vmax": 255} if film.channels == 1 else {}
            panel.imshow(picture.squeeze(-1) if grey else picture, **grey)
            panel.set_title("" if i else str(frame), fontsize=6, pad=1)
        said = panels[i][0].text(
            0, -0.04, _said(films, i), fontsize=6, va="top", transform=panels[i][0].transAxes
        )
        said.set_in_layout(False)
    return made


def html(film: Film) -> str:
    """The film as a GIF, enlarged where it is small."""
    scale = max(1, -(-_SIDE // max(film.size)))
    h, w = film.size
    data = base64.b64encode(gif(film)).decode()
    return (
        f'<img alt="{escape(repr(film))}" src="data:image/gif;base64,{data}" '
        f'style="image-rendering:pixelated;width:{scale * w}px;height:{scale * h}px">'
    )


def gallery(films: Films) -> str:
    """The first films, each under its labels."""
    parts = [f"<p>{escape(repr(films))}</p>"]
    for i, film in enumerate(films[:_SHOWN]):
        style = "display:inline-block;margin:4px"
        parts.append(
            f'<div style="{style}"><small>{escape(_said(films, i))}</small><br>{html(film)}</div>'
        )
    if len(films) > _SHOWN:
        parts.append(f"<p>and {len(films) - _SHOWN} more</p>")
    return "".join(parts)


def _said(films: Films, i: int) -> str:
    """The labels of a film in one line."""
    return ", ".join(f"{name} {values[i]}" for name, values in films.labels.items())
