r"""What moves in films, and whether it moves as things do.

* :func:`flow` finds for every block of a frame where it came from in the frame before, by the least squared difference
  over displacements of half pixels, and :func:`warp_error` says which share of the change from frame to frame no such
  motion explains: 0 where everything only moves, 1 where motion explains nothing.
* :func:`flights` follows the centre of mass of a film with one bright thing on black, and asks how steadily it flies
  between its bounces: on an axis, the sizes of its steps are all the same but for those in which it bounces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Flights", "centres", "flights", "flow", "warp_error"]

BLOCK = 8
REACH = 4
"""Pixels that a block may have moved in every direction."""

STRAIGHT = 0.5
"""Pixels by which a step may differ from the usual one."""


def flow(before: Tensor, after: Tensor, block: int = BLOCK, reach: int = REACH) -> Tensor:
    """Displacements (N, 2, H / block, W / block), down and to the right, that take a frame to the next.

    Args:
        before, after: frames (N, C, H, W), floats.
        block: side of the blocks; what remains beyond whole blocks is left out.
        reach: the largest displacement, in pixels; half pixels are between.

    Of displacements that do equally well the shortest is taken. Raises ``ValueError`` for frames that differ in shape
    or are smaller than a block.
    """
    return _matched(before, after, block, reach)[0]


def warp_error(films: Tensor, block: int = BLOCK, reach: int = REACH) -> Tensor:
    """The share of the change between frames that no motion of blocks explains, (N,), of films (N, T, C, H, W).

    The squared differences of all frames from their moved predecessors, over those from their predecessors. NaN for
    films in which nothing changes. Raises ``ValueError`` for films of one frame.
    """
    if films.ndim != 5 or films.shape[1] < 2:
        raise ValueError(
            f"films must be (N, T, C, H, W) of two frames or more, got {tuple(films.shape)}"
        )
    n, t = films.shape[:2]
    before, after = films[:, :-1].flatten(0, 1), films[:, 1:].flatten(0, 1)
    _, left, change = _matched(before, after, block, reach)
    left, change = (v.flatten(1).sum(1).view(n, t - 1).sum(1) for v in (left, change))
    return left / change


def _matched(
    before: Tensor, after: Tensor, block: int, reach: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Displacements, and the squared differences with and without them, by block."""
    h, w = after.shape[-2:]
    if before.shape != after.shape or min(h, w) < block:
        raise ValueError(
            f"frames must have one shape, of {block} pixels or more, got {tuple(before.shape)} and {tuple(after.shape)}"
        )
    wide = F.pad(before, (reach,) * 4, "replicate")
    # every second value is a pixel, those between are the mean of their neighbours
    fine = F.interpolate(
        wide,
        (2 * wide.shape[-2] - 1, 2 * wide.shape[-1] - 1),
        mode="bilinear",
        align_corners=True,
    )
    steps = sorted(
        ((i, j) for i in range(4 * reach + 1) for j in range(4 * reach + 1)),
        key=lambda s: (s[0] - 2 * reach) ** 2 + (s[1] - 2 * reach) ** 2,
    )
    best: Tensor | None = None
    change = left = best_step = torch.empty(0)
    for i, j in steps:
        moved = fine[..., i : i + 2 * h - 1 : 2, j : j + 2 * w - 1 : 2]
        error = F.avg_pool2d((after - moved).square().sum(1, keepdim=True), block)[:, 0]
        # what came from i - 2 reach half pixels below has moved up by as much
        step = error.new_tensor([reach - i / 2, reach - j / 2]).view(1, 2, 1, 1)
        if best is None:
            best = change = left = error
            best_step = step.expand(len(error), 2, *error.shape[1:]).clone()
            continue
        nearer = error < left
        left = torch.where(nearer, error, left)
        best_step = torch.where(nearer[:, None], step, best_step)
    return best_step, left, change


def centres(films: Tensor) -> Tensor:
    """The centre of mass of every frame, (N, T, 2), of grey films (N, T, 1, H, W); NaN for frames without light."""
    if films.ndim != 5 or films.shape[2] != 1:
        raise ValueError(f"films must be grey, (N, T, 1, H, W), got {tuple(films.shape)}")
    x = films[:, :, 0].double()
    mass = x.sum((2, 3))
    places = []
    for axis in (2, 3):
        at = torch.arange(x.shape[axis], dtype=x.dtype, device=x.device)
        places.append((x.sum(5 - axis) * at).sum(-1) / mass)
    return torch.stack(places, -1)


@final
@dataclass(frozen=True, eq=False)
class Flights:
    """How steadily the bright thing of every film flies.

    ``speed`` (N, 2): the usual size of its steps, pixels a frame, down and to the right. ``jitter`` (N,): the median
    over both axes of how much the size of a step differs from that. ``straight`` (N,): the share of its steps that lie
    within half a pixel of the usual size, or belong to a bounce: they come before or after a turn that lies within one
    step of the lowest or highest place that the film reaches, for there are the walls.
    """

    speed: Tensor
    jitter: Tensor
    straight: Tensor


def flights(films: Tensor) -> Flights:
    """Those of grey films (N, T, 1, H, W) with one bright thing on black.

    Raises ``ValueError`` for films that are not grey, or shorter than five frames, which cannot tell what is usual.
    """
    if films.ndim != 5 or films.shape[1] < 5:
        raise ValueError(
            f"films must be (N, T, 1, H, W) of five frames or more, got {tuple(films.shape)}"
        )
    places = centres(films)
    steps = places.diff(dim=1)  # (N, T - 1, 2)
    size = steps.abs()
    speed = size.median(1, keepdim=True).values
    off = (size - speed).abs()
    lowest, highest = places.amin(1, keepdim=True), places.amax(1, keepdim=True)
    inner = places[:, 1:-1]
    at_wall = torch.minimum(inner - lowest, highest - inner) <= speed
    bounce = (steps[:, 1:] * steps[:, :-1] < 0) & at_wall
    turned = torch.zeros_like(steps, dtype=torch.bool)
    turned[:, 1:] |= bounce
    turned[:, :-1] |= bounce
    fine = (off <= STRAIGHT) | turned
    return Flights(
        speed[:, 0],
        off.flatten(1).nanmedian(1).values,
        fine.double().mean((1, 2)),
    )
