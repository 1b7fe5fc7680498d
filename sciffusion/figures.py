"""Figures of matplotlib that show themselves in a notebook and leave pyplot's state alone."""

from __future__ import annotations

from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["showing"]


def showing(figure: Figure) -> Figure:
    """The same figure, which a notebook shows even where pyplot, which teaches it to, was never imported."""
    figure._repr_png_ = partial(_png, figure)  # type: ignore[attr-defined]
    return figure


def _png(figure: Figure) -> bytes:
    page = BytesIO()
    figure.savefig(page, format="png")
    return page.getvalue()
