"""Sprites: drawn characters that walk, cast and slash, composed from their layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sciffusion.io import read_npz

from ..film import Film, Films

__all__ = ["compose", "get_sprites"]

_LAYERS = ("body", "bottomwear", "topwear", "hair")
_NAMES = ("shoes", "character_order", "actions", "directions")
_TRAIN = 1000


def compose(layers: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Layers (..., H, W, 4) of red, green, blue and opacity, the lowest first, on black: (..., H, W, 3)."""
    out = np.zeros((*layers[0].shape[:-1], 3))
    for layer in layers:
        a = layer[..., 3:] / 255
        out = out * (1 - a) + layer[..., :3] * a
    return out.round().astype(np.uint8)


def get_sprites(path: Path, part: str = "", limit: int | None = None) -> Films:
    """The films of 8 frames of 64 x 64 of ``sprites_layers.npz``: 1,296 characters x 3 actions x 3 directions.

    ``part`` is "train" (the first 1,000 characters in the authors' order), "test" (the others) or "" (all); ``limit``
    the number of characters. Labels: ``label`` (the action), ``direction``, ``character``, and ``body``,
    ``bottomwear``, ``topwear``, ``hair`` (0 to 5 each). (Li & Mandt 2018; the art: Liberated Pixel Cup.)

    Raises ``FileNotFoundError``, and ``ValueError`` for a file of something else.
    """
    found = read_npz(path, *_LAYERS, *_NAMES)
    order = found["character_order"]
    characters = {"train": order[:_TRAIN], "test": order[_TRAIN:], "": order}[part][:limit]
    films, rows = [], []
    for c in characters.tolist():
        picks = [c // 216, c // 36 % 6, c // 6 % 6, c % 6]
        layers = [found[k][i] for k, i in zip(_LAYERS, picks, strict=True)]
        pictures = compose([*layers, found["shoes"]])
        for action, direction in np.ndindex(pictures.shape[:2]):
            film = torch.from_numpy(pictures[action, direction]).permute(0, 3, 1, 2)
            films.append(Film(film.contiguous()))
            rows.append((action, direction, c, *picks))
    columns = np.array(rows).T
    names = ("label", "direction", "character", *_LAYERS)
    labels = dict(zip(names, columns, strict=True))
    labels["label"] = found["actions"][labels["label"]]
    labels["direction"] = found["directions"][labels["direction"]]
    return Films(films, labels)
