"""Scenes of two coloured shapes, drawn here, and how they are read back by arithmetic on pixels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..container import Images

__all__ = ["COLOURS", "RELATIONS", "SHAPES", "SIZES", "get_scenes", "read_scenes", "render"]

COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (220, 50, 50),
    "green": (50, 190, 70),
    "blue": (60, 90, 230),
    "yellow": (235, 215, 60),
    "white": (235, 235, 235),
}
SHAPES = ("circle", "square", "triangle")
SIZES: Mapping[str, int] = {"small": 6, "large": 10}
"""Pixels across."""
RELATIONS = ("left of", "above")
SIDE = 24
TRAIN, TEST = 8_000, 1_000


def get_scenes(path: Path | None = None) -> tuple[Images, Path]:
    """9,000 pictures of 24 x 24 pixels of two shapes in different colours on dark ground, and where they are made.

    Labels: ``shape1``, ``colour1``, ``size1`` and the same of the second shape; ``relation``, where the first lies
    ("left of", "above" the second); and ``part``, "train" (8,000) or "test" (1,000). Always the same, by a seed.

    Raises ``ValueError`` if a ``path`` is given.
    """
    if path is not None:
        raise ValueError("the scenes are drawn here: leave path out")
    rng = np.random.default_rng(21)
    labels = drawn(TRAIN + TEST, rng)
    part = np.repeat(["train", "test"], [TRAIN, TEST])
    return Images.of(render(labels, rng), {**labels, "part": part}), Path(__file__)


def drawn(n: int, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Labels of n scenes, all drawn evenly."""
    names = np.array(list(COLOURS))
    first = rng.integers(len(names), size=n)
    second = (first + rng.integers(1, len(names), size=n)) % len(names)
    found: dict[str, NDArray[Any]] = {"colour1": names[first], "colour2": names[second]}
    for i in (1, 2):
        found[f"shape{i}"] = np.array(SHAPES)[rng.integers(len(SHAPES), size=n)]
        found[f"size{i}"] = np.array(list(SIZES))[rng.integers(len(SIZES), size=n)]
    return found | {"relation": np.array(RELATIONS)[rng.integers(len(RELATIONS), size=n)]}


def render(labels: Mapping[str, NDArray[Any]], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Pictures (N, 24, 24, 3) of labels; places, greys and shades come from ``rng``."""
    n = len(labels["relation"])
    out = np.empty((n, SIDE, SIDE, 3), dtype=np.uint8)
    out[:] = rng.integers(0, 40, n)[:, None, None, None]
    for i in range(n):
        for k in (0, 1):
            size = SIZES[str(labels[f"size{k + 1}"][i])]
            # either keeps to its half, so that they never touch
            along = k * SIDE // 2 + int(rng.integers(1, SIDE // 2 - size))
            across = (SIDE - size) // 2 + int(rng.integers(-3, 4))
            y, x = (across, along) if labels["relation"][i] == "left of" else (along, across)
            shade = rng.integers(-15, 16, 3)
            colour = np.clip(np.array(COLOURS[str(labels[f"colour{k + 1}"][i])]) + shade, 0, 255)
            out[i, y : y + size, x : x + size][_mask(str(labels[f"shape{k + 1}"][i]), size)] = (
                colour
            )
    return out


def _mask(shape: str, size: int) -> NDArray[np.bool_]:
    """The points of a shape in a square of its size."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    if shape == "circle":
        return np.asarray(x**2 + y**2 <= (size / 2) ** 2)
    if shape == "triangle":
        return np.asarray(np.abs(x) <= (y + size / 2) / 2)
    return np.ones((size, size), dtype=np.bool_)


def read_scenes(images: Images) -> dict[str, NDArray[Any]]:
    """The labels of :func:`get_scenes` as the pixels show them; empty texts where two shapes are not found.

    Every pixel brighter than the ground belongs to the colour nearest to it. The two colours with the most pixels are
    compared with every shape and size at every place; the one that shares the largest part of their union is seen.
    """
    names, table = list(COLOURS), torch.tensor(list(COLOURS.values())).float()
    pixels = images.to_bytes().pixels.float()
    nearest = (pixels[:, None] - table[None, :, :, None, None]).square().sum(2).argmin(1)
    nearest[pixels.amax(1) < 120] = len(names)  # halfway from the brightest ground to the colours
    masks = torch.stack([nearest == c for c in range(len(names))], 1).float()
    pair = masks.sum((2, 3)).topk(2).indices
    regions = masks.gather(1, pair[..., None, None].expand(-1, -1, *images.size))
    kinds = [(shape, size) for shape in SHAPES for size in SIZES]
    scores = torch.stack([_shared(regions, *kind) for kind in kinds], 2)  # (N, 2, kinds, places)
    best = scores.flatten(2).argmax(2)
    kind, place = best // scores.shape[3], best % scores.shape[3]
    seen = scores.flatten(2).amax(2).amin(1) > 0.5
    y, x = place // images.size[1], place % images.size[1]
    dy, dx = (v[:, 1] - v[:, 0] for v in (y, x))
    beside = dx.abs() > dy.abs()
    turned = torch.where(beside, dx, dy) < 0
    found = {"relation": np.where(beside, *RELATIONS)}
    for i in (0, 1):
        at = (torch.full_like(turned, i, dtype=torch.long) ^ turned.long())[:, None]
        shapes = [kinds[k] for k in kind.gather(1, at)[:, 0].tolist()]
        found[f"colour{i + 1}"] = np.array(names)[pair.gather(1, at)[:, 0].numpy()]
        found[f"shape{i + 1}"], found[f"size{i + 1}"] = map(np.array, zip(*shapes, strict=True))
    return {k: np.where(seen.numpy(), v, "") for k, v in found.items()}


def _shared(regions: Tensor, shape: str, size: str) -> Tensor:
    """The shared part of the union of regions (N, K, H, W) and a shape, its middle at every place: (N, K, H W)."""
    n, mask = SIZES[size], torch.from_numpy(_mask(shape, SIZES[size])).float()
    padded = F.pad(regions.flatten(0, 1)[:, None], (n // 2, n - 1 - n // 2) * 2)
    common = F.conv2d(padded, mask[None, None])[:, 0].unflatten(0, regions.shape[:2])
    union = regions.sum((2, 3))[..., None, None] + mask.sum() - common
    return (common / union).flatten(2)
