"""Figures show themselves where pyplot was never imported."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from sciffusion.figures import showing

figures = pytest.importorskip("matplotlib.figure")


def test_a_figure_shows_itself_as_a_picture_of_its_size_and_of_what_was_drawn_later() -> None:
    figure: Any = showing(figures.Figure((3, 2), dpi=50))
    empty = figure._repr_png_()
    figure.subplots().plot([0, 1])
    drawn = figure._repr_png_()
    assert drawn != empty
    assert Image.open(BytesIO(drawn)).size == (150, 100)
