"""What a picture shows in words: texts that are true of its labels, for models that are asked by text.

Every kind has coarse texts, which name what is shown as a caption on the web would, and detailed ones, which also say
how and where. A model that learned from coarse texts alone cannot be asked for what they leave out; DALL-E 3 learned
from 95 % detailed ones (Betker et al. 2023).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Literal, final

import numpy as np

from .container import Images

__all__ = ["Captions", "CaptionKind", "GlyphCaptions", "OwnTexts", "SceneCaptions", "captions"]

CaptionKind = Literal["glyphs", "scenes", "text"]


class Captions(ABC):
    """Texts that are true of a picture's labels."""

    needs: tuple[str, ...]
    """The labels that texts are made of."""

    @abstractmethod
    def draw(self, labels: Mapping[str, object], rng: np.random.Generator, detailed: bool) -> str:
        """One text, its phrasing drawn evenly."""

    def texts(self, images: Images, key: int, detailed: float) -> list[str]:
        """A text for every image, drawn by ``key``, a share of ``detailed`` of them detailed."""
        rng = np.random.default_rng(key)
        told = rng.random(len(images)) < detailed
        rows = [{k: images.labels[k][i] for k in self.needs} for i in range(len(images))]
        return [self.draw(row, rng, bool(d)) for row, d in zip(rows, told, strict=True)]

    def check(self, images: Images) -> None:
        """Raise ``ValueError`` if images lack a label that texts are made of."""
        absent = [k for k in self.needs if k not in images.labels]
        if absent:
            raise ValueError(
                f"these captions are made of the labels {', '.join(self.needs)}; the images lack {', '.join(absent)}"
            )


@final
class GlyphCaptions(Captions):
    """The words of :func:`.datasets.get_glyphs`; what is to be spelled stands in double quotes."""

    needs = ("word", "colour", "row", "column")
    COARSE = ('the word "{word}"', '"{word}"', 'a picture that says "{word}"')
    DETAILED = (
        'the word "{word}" in {colour} letters {where}',
        '"{word}" in {colour} letters {where}',
        '{colour} letters that spell "{word}" {where}',
    )

    def draw(self, labels: Mapping[str, object], rng: np.random.Generator, detailed: bool) -> str:
        """A text such as 'the word "cat"', or 'the word "cat" in red letters at the top left'."""
        pattern = _pick(self.DETAILED if detailed else self.COARSE, rng)
        return pattern.format(word=labels["word"], colour=labels["colour"], where=_where(labels))


@final
class SceneCaptions(Captions):
    """The pairs of shapes of :func:`.datasets.get_scenes`; either may be named first."""

    needs = tuple(f"{k}{i}" for k in ("shape", "colour", "size") for i in (1, 2)) + ("relation",)
    TURNED: Mapping[str, str] = {"left of": "right of", "above": "below"}

    def draw(self, labels: Mapping[str, object], rng: np.random.Generator, detailed: bool) -> str:
        """A text such as "a square and a circle", or "a large red square left of a small blue circle"."""
        first, second = (1, 2) if rng.integers(2) else (2, 1)
        told = ("size", "colour", "shape") if detailed else ("shape",)
        one, other = (" ".join(str(labels[f"{k}{i}"]) for k in told) for i in (first, second))
        relation = str(labels["relation"])
        link = "and" if not detailed else relation if first == 1 else self.TURNED[relation]
        return f"a {one} {link} a {other}"


@final
class OwnTexts(Captions):
    """The label ``text`` of each picture as it is."""

    needs = ("text",)

    def draw(self, labels: Mapping[str, object], rng: np.random.Generator, detailed: bool) -> str:
        """The text."""
        return str(labels["text"])


def captions(kind: CaptionKind) -> Captions:
    """The captions of a kind of data, as configuration files name it."""
    kinds: Mapping[str, type[Captions]] = {
        "glyphs": GlyphCaptions,
        "scenes": SceneCaptions,
        "text": OwnTexts,
    }
    return kinds[kind]()


def _where(labels: Mapping[str, object]) -> str:
    """The place in words: "at the top left", "in the middle"."""
    row, column = str(labels["row"]), str(labels["column"])
    told = [v for v in (row, column) if v not in ("middle", "centre")]
    return f"at the {' '.join(told)}" if told else "in the middle"


def _pick(words: Sequence[str], rng: np.random.Generator) -> str:
    return words[int(rng.integers(len(words)))]
