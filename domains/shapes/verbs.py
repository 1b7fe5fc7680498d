"""What a model does with points that are there: complete a shape, and go from one shape to another.

Everywhere ``given`` names what the result shall be; where it is None, the labels that the shapes carry serve, as far as
the model knows them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sciffusion.errors import require
from sciffusion.inverse import RePaint
from sciffusion.noise import Noise, sample_seeds
from sciffusion.samplers import invert
from sciffusion.sampling import Given, Guidance
from sciffusion.state import State

from .adapter import shape_state
from .container import Shapes

if TYPE_CHECKING:
    from .model import ShapeModel

__all__ = ["complete", "interpolate"]


def complete(
    model: ShapeModel,
    known: Shapes,
    points: int,
    *,
    given: Given | None = None,
    guidance: Guidance | None = None,
    seed: int = 0,
    steps: int | None = None,
    rounds: int = 5,
) -> Shapes:
    """Shapes of ``points`` points that hold the known ones, bit by bit, as their first points.

    The coordinates of the known points are taken as those of the whole shape: its centre must be the origin, for that
    is the frame in which the model knows shapes. RePaint (Lugmayr et al., 2022) takes every step ``rounds`` times, so
    that the new agrees with the old; 1 is plain replacement.

    Raises ``ValueError`` unless every set has fewer points than the result.
    """
    most = int(known.sizes.max())
    if most >= points:
        raise ValueError(f"points must be more than the {most} that are known, got {points}")
    if given is None:
        given = model.config.asked.told(known.labels)
    n, (x, seen) = len(known), known.padded()
    held = torch.zeros(n, points, dtype=torch.bool)
    held[:, :most] = seen
    value = torch.zeros(n, points, 3)
    value[:, :most] = x / model.unit
    # what stands at the unknown points only brings the centre of the whole to the origin
    rest = -value.sum(1) / (~held).sum(1, keepdim=True)
    value = torch.where(held[..., None], value, rest[:, None])
    start = shape_state(value, torch.ones_like(held), model.device)
    noise = Noise(sample_seeds(seed, n))
    mask = {"points": held[..., None].to(model.device)}
    # known points are noised anew at every step: what a step of higher order extrapolates from has changed by then
    around = RePaint(model.sampling.reversible(steps), start, mask, rounds)
    cond = model.condition(given, n)
    prior = model.denoiser.process.prior(start, noise)
    made = around(model.guided(cond, guidance), prior, noise).x
    assert type(made) is State
    out = (made["points"].cpu() * model.unit).float()
    sets = [torch.cat([whole, out[i][~held[i]]]) for i, whole in enumerate(known.parts())]
    return Shapes.of(sets, {**known.labels, **model.labels(cond)})


def interpolate(
    model: ShapeModel,
    a: Shapes,
    b: Shapes,
    n: int = 8,
    *,
    given: Given | None = None,
    steps: int | None = None,
    iterations: int = 5,
) -> Shapes:
    """``n`` shapes from each of ``a`` to its counterpart of ``b``, both ends included, through their noise.

    The deterministic sampler (DDIM) is run backwards to the noise of both, the attributes left open unless ``given``.
    Points of sets have no order: those of b are matched to those of a so that their noise lies as near as it can (an
    optimal assignment); those of chains keep theirs. The noise is then turned along a great circle, so that it keeps
    its size, and denoised. The first and the last are ``a`` and ``b`` about their centres, up to what inversion loses.
    Label ``share`` runs from 0 to 1, ``pair`` says which pair.

    Raises ``ValueError`` for n below 2, or sets that differ in their number or in their points.
    """
    if n < 2:
        raise ValueError(f"n must be at least 2, the two ends, got {n}")
    if len(a) != len(b) or (a.sizes != b.sizes).any():
        raise ValueError(
            f"a and b must hold as many shapes of as many points, got {a!r} and {b!r}; Shapes.thinned makes them equal"
        )
    asked: Given = given or dict.fromkeys(model.attributes)
    sampler, (_, mask) = model.sampling.reversible(steps), a.padded()
    denoiser = model.guided(model.condition(asked, len(a)), 1.0)
    ends = []
    for shapes in (a, b):
        x = invert(sampler, denoiser, model.encode(shapes), iterations=iterations).x
        assert type(x) is State
        ends.append(x["points"].cpu())
    chains = bool(model.config.network.chain)
    first, last = ends[0], ends[1] if chains else _matched(ends[0], ends[1], mask)
    shares = torch.linspace(0, 1, n)
    made = []
    for share in shares.tolist():
        turned = shape_state(_slerp(first, last, share), mask, model.device)
        made.append(model.decode(sampler(denoiser, turned).x, mask))
    whole = [made[k].parts()[i] for i in range(len(a)) for k in range(n)]
    pairs = np.repeat(np.arange(len(a)), n)
    return Shapes.of(whole, {"pair": pairs, "share": np.tile(shares.numpy(), len(a))})


def _matched(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """The points of b in the order that brings each nearest to that of a, by the sum of squared distances."""
    optimize = require("scipy.optimize", extra="shapes")
    out = b.clone()
    for i, valid in enumerate(mask):
        x, y = a[i, valid], b[i, valid]
        out[i, valid] = y[optimize.linear_sum_assignment(torch.cdist(x, y).square().numpy())[1]]
    return out


def _slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """The point of each pair's great circle, at an evenly changing distance from the origin."""
    x, y = a.flatten(1).double(), b.flatten(1).double()
    sizes = [v.norm(dim=1, keepdim=True) for v in (x, y)]
    angle = (x / sizes[0] * y / sizes[1]).sum(1, keepdim=True).clamp(-1, 1).acos()
    # sinc: equal ends need no case of their own
    p, q = (s * torch.sinc(s * angle / torch.pi) for s in (1 - share, share))
    turned = (p * x / sizes[0] + q * y / sizes[1]) / torch.sinc(angle / torch.pi)
    size = (1 - share) * sizes[0] + share * sizes[1]
    return (turned * size).reshape(a.shape).to(a.dtype)
