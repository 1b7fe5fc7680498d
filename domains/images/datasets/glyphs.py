"""Words in pictures, drawn here: strings of one to four letters in several colours and places."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciffusion.errors import require

from ..container import Images

__all__ = ["COLOURS", "COLUMNS", "ROWS", "get_glyphs", "render", "strings"]

COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (230, 40, 40),
    "green": (40, 200, 60),
    "blue": (70, 90, 255),
    "yellow": (240, 220, 40),
    "white": (240, 240, 240),
}
FONT, EM = "DejaVuSansMono-Bold.ttf", 14
"""The font, and the pixels of an em: all letters are 8 pixels wide."""
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "centre", "right")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
CANVAS = (24, 40)
LONGEST = 4
TRAIN, TEST = 30_000, 2_000


def get_glyphs(path: Path | None = None) -> tuple[Images, Path]:
    """32,000 pictures of 24 x 40 pixels, drawn by Pillow in DejaVu Sans Mono, bold, and the package that has the font.

    Labels: ``word``, ``colour``, ``row``, ``column``, and ``part``: no word of "test" (2,000) occurs in "train"
    (30,000), but of single letters, of which there are too few. Backgrounds are dark greys, and colours vary a little
    from picture to picture. Always the same, by a seed.

    Raises ``ValueError`` if a ``path`` is given, and ``MissingExtra`` without Pillow or matplotlib.
    """
    if path is not None:
        raise ValueError("the glyphs are drawn here: leave path out")
    rng = np.random.default_rng(20)
    test = strings(TEST, rng)
    train = strings(TRAIN, rng, without=set(test))
    labels = drawn([*train, *test], rng)
    part = np.repeat(["train", "test"], [TRAIN, TEST])
    return Images.of(render(labels, rng), {**labels, "part": part}), _fonts()


def strings(n: int, rng: np.random.Generator, without: set[str] | None = None) -> list[str]:
    """Strings of random letters, a tenth of them single ones, none longer of ``without``."""
    found: list[str] = []
    while len(found) < n:
        size = int(rng.choice(LONGEST, p=(0.1, 0.2, 0.3, 0.4))) + 1
        word = "".join(LETTERS[i] for i in rng.integers(len(LETTERS), size=size))
        if size == 1 or word not in (without or ()):
            found.append(word)
    return found


def drawn(words: list[str], rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Labels of pictures of these words, everything else drawn evenly."""
    kinds = {"colour": tuple(COLOURS), "row": ROWS, "column": COLUMNS}
    found = {k: np.array(v)[rng.integers(len(v), size=len(words))] for k, v in kinds.items()}
    return {"word": np.array(words), **found}


def render(labels: Mapping[str, NDArray[Any]], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Pictures (N, 24, 40, 3) of the labels that :func:`get_glyphs` names; greys and shades come from ``rng``."""
    image, draw, font = (
        require(f"PIL.{k}", extra="images") for k in ("Image", "ImageDraw", "ImageFont")
    )
    basic = font.Layout.BASIC  # the other engine is not everywhere, and places letters otherwise
    chosen = font.truetype(str(_fonts() / FONT), EM, layout_engine=basic)
    h, w = CANVAS
    n = len(labels["word"])
    ground = rng.integers(0, 50, n)
    shades = rng.integers(-20, 16, (n, 3))
    out = np.empty((n, h, w, 3), dtype=np.uint8)
    for i in range(n):
        word = str(labels["word"][i])
        wide, high = round(chosen.getlength(word)), sum(chosen.getmetrics())
        x = (w - wide) * COLUMNS.index(labels["column"][i]) // 2
        y = (h - high) * ROWS.index(labels["row"][i]) // 2
        mask = image.new("L", (w, h))
        draw.Draw(mask).text((x, y), word, fill=255, font=chosen)
        ink = np.asarray(mask, dtype=np.float64)[..., None] / 255
        colour = np.clip(np.array(COLOURS[labels["colour"][i]]) + shades[i], 0, 255)
        out[i] = np.round(ink * colour + (1 - ink) * ground[i])
    return out


def _fonts() -> Path:
    """The folder of matplotlib's fonts."""
    return Path(str(require("matplotlib", extra="images").get_data_path())) / "fonts" / "ttf"
