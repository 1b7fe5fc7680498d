"""What a model does with images that are there: fill in, continue, edit, invert, interpolate.

Everywhere ``given`` names what the result shall be; where it is None, the labels that the images carry serve, as far as
the model knows them. Batches change nothing: image i draws from the seed and i alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sciffusion.inverse import RePaint
from sciffusion.inverse import edit as sdedit
from sciffusion.noise import Noise, sample_seeds
from sciffusion.progress import track
from sciffusion.samplers import invert as undo
from sciffusion.sampling import Given, Guidance

from .container import Images

if TYPE_CHECKING:
    from .model import ImageModel

__all__ = [
    "batches",
    "edit",
    "inpaint",
    "interpolate",
    "invert",
    "outpaint",
    "restore",
    "variation",
]


def batches(n: int, size: int = 256, progress: bool = True) -> Iterable[slice]:
    """The rows of each batch, with a bar on a terminal where there are several.

    Raises ``ValueError`` for a size below 1.
    """
    if size < 1:
        raise ValueError(f"batch_size must be at least 1, got {size}")
    rows = [slice(i, min(i + size, n)) for i in range(0, n, size)]
    return track(rows, show=progress and len(rows) > 1)


def require_images(images: object) -> None:
    """Raise ``ValueError`` for anything else in place of images."""
    if not isinstance(images, Images):
        raise ValueError(
            f"images must be Images, got {type(images).__name__}: Images.of makes them of arrays, Images.read of files"
        )


def inpaint(
    model: ImageModel,
    images: Images,
    mask: Tensor,
    *,
    given: Given | None = None,
    guidance: Guidance | None = None,
    seed: int = 0,
    steps: int | None = None,
    rounds: int = 5,
) -> Images:
    """Make the unknown part of images anew.

    RePaint (Lugmayr et al., 2022): every step is taken ``rounds`` times, so that the new agrees with the old; 1 is
    plain replacement. In the latent of an autoencoder a point is known where all its pixels are, and the known pixels
    are put back at the end.

    Args:
        model: any.
        images: float or byte pixels; the result has floats, and the known ones are those of ``images.to_floats()``.
        mask: boolean, True where a pixel is known: (H, W), or (N, 1, H, W) for a mask each.
        given, guidance, steps: as in :meth:`ImageModel.sample`.
        seed: of everything random.
        rounds: how often every step is taken.

    Raises:
        ValueError: a mask of another type or shape, or one that hides nothing; fewer than one round.
    """
    known = _mask(mask, images)
    n, size = len(images), images.size
    pixels, latent = images.to_floats().pixels, model.encode(images)
    seen = _coarse(known, latent)
    sampler, cond = model.sampling.reversible(steps), _condition(model, images, given)

    def some(rows: slice, noise: Noise) -> Tensor:
        x0 = latent[rows]
        around = RePaint(sampler, x0, seen[rows].to(x0.device), rounds)
        start = model.denoiser.process.prior(x0, noise)
        denoiser = model.guided({k: v[rows] for k, v in cond.items()}, guidance)
        return _tensor(around(denoiser, start, noise).x)

    made = model.decode(_drawn(n, seed, some), size, images.labels)
    return Images(torch.where(known, pixels, made.pixels), _labels(model, images, given, cond))


def outpaint(
    model: ImageModel,
    images: Images,
    margins: tuple[int, int, int, int],
    *,
    given: Given | None = None,
    guidance: Guidance | None = None,
    seed: int = 0,
    steps: int | None = None,
    rounds: int = 5,
) -> Images:
    """Continue images by so many pixels at the top, bottom, left and right; see :func:`inpaint`.

    Raises ``ValueError`` for margins that are negative or all zero.
    """
    require_images(images)
    if (
        not isinstance(margins, Sequence)
        or len(margins) != 4
        or min(margins) < 0
        or not any(margins)
    ):
        raise ValueError(
            f"margins are four numbers of pixels (top, bottom, left, right), not all zero, got {margins}"
        )
    top, bottom, left, right = margins
    wide = F.pad(images.to_floats().pixels, (left, right, top, bottom), mode="replicate")
    inside = torch.ones(images.size, dtype=torch.bool)
    known = F.pad(inside, (left, right, top, bottom), value=False)
    return inpaint(
        model,
        Images(wide, images.labels),
        known,
        given=given,
        guidance=guidance,
        seed=seed,
        steps=steps,
        rounds=rounds,
    )


def edit(
    model: ImageModel,
    images: Images,
    strength: float = 0.6,
    *,
    given: Given | None = None,
    guidance: Guidance | None = None,
    seed: int = 0,
    steps: int | None = None,
) -> Images:
    """Noise images to the time ``strength`` and denoise them (SDEdit, Meng et al., 2022).

    With another class in ``given`` this is the transfer of a style: what survives the noise stays, the rest becomes
    what was asked for. Strength 0 gives the images back, bit by bit; 1 is a new sample.

    Raises ``ValueError`` for a strength outside 0 to 1, and what :meth:`ImageModel.sample` refuses.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must lie between 0 and 1, got {strength}")
    cond = _condition(model, images, given)
    labels = _labels(model, images, given, cond)
    if strength == 0:
        return Images(images.to_floats().pixels, labels)
    latent, sampler = model.encode(images), model.sampling.sampler(steps)

    def some(rows: slice, noise: Noise) -> Tensor:
        denoiser = model.guided({k: v[rows] for k, v in cond.items()}, guidance)
        return _tensor(sdedit(sampler, denoiser, latent[rows], strength, noise).x)

    return model.decode(_drawn(len(images), seed, some), images.size, labels)


def variation(
    model: ImageModel,
    images: Images,
    n: int = 4,
    strength: float = 0.5,
    *,
    given: Given | None = None,
    guidance: Guidance | None = None,
    seed: int = 0,
    steps: int | None = None,
) -> Images:
    """``n`` edits of each image, one after the other; the label ``source`` says of which.

    Raises ``ValueError`` for n below 1 and what :func:`edit` refuses.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    require_images(images)
    rows = np.repeat(np.arange(len(images)), n)
    repeated = images[rows].labelled(source=rows)
    return edit(model, repeated, strength, given=given, guidance=guidance, seed=seed, steps=steps)


def invert(
    model: ImageModel,
    images: Images,
    *,
    given: Given | None = None,
    steps: int | None = None,
    iterations: int = 5,
) -> Tensor:
    """The noise of which the deterministic sampler (DDIM) makes these images, without guidance.

    Every step is undone by ``iterations`` of a fixed point (:func:`sciffusion.samplers.invert`); :func:`restore` with
    the same condition and steps gives the images back. Of an autoencoder these are the images that it decodes.

    Raises ``ValueError`` for what :meth:`ImageModel.sample` refuses.
    """
    cond, latent = _condition(model, images, given), model.encode(images)
    sampler = model.sampling.reversible(steps)
    parts = []
    for rows in batches(len(latent)):
        denoiser = model.denoiser.given({k: v[rows] for k, v in cond.items()})
        parts.append(_tensor(undo(sampler, denoiser, latent[rows], iterations=iterations).x))
    return torch.cat(parts)


def restore(
    model: ImageModel,
    noise: Tensor,
    *,
    given: Given | None = None,
    steps: int | None = None,
    size: tuple[int, int] | None = None,
) -> Images:
    """The images that the deterministic sampler makes of ``noise``, (B, C, H, W), without guidance.

    ``given`` should be what :func:`invert` was told; another class makes the counterpart in that class. ``size`` is the
    size of the images (None: as in training).

    Raises ``ValueError`` for noise of another shape.
    """
    size = size or model.config.size
    shape = model.config.shape(size)
    if noise.ndim != 4 or noise.shape[1:] != shape:
        raise ValueError(
            f"noise must be (B, {', '.join(map(str, shape))}) for images of {size[0]} x {size[1]}, got "
            f"{tuple(noise.shape)}"
        )
    cond = model.condition(given or {}, len(noise))
    sampler = model.sampling.reversible(steps)
    parts = []
    for rows in batches(len(noise)):
        denoiser = model.denoiser.given({k: v[rows] for k, v in cond.items()})
        parts.append(_tensor(sampler(denoiser, noise[rows].to(model.device)).x))
    return model.decode(torch.cat(parts), size, model.labels(cond))


def interpolate(
    model: ImageModel,
    a: Images,
    b: Images,
    n: int = 8,
    *,
    given: Given | None = None,
    steps: int | None = None,
    iterations: int = 5,
) -> Images:
    """``n`` images from each of ``a`` to its counterpart of ``b``, both ends included, through their noise.

    The noise of both is found by :func:`invert` with the condition left open unless one is ``given``, and turned from
    one to the other along a great circle, so that it keeps its size (Song et al., DDIM, 2021). Label ``share`` runs
    from 0 to 1, ``pair`` says which pair.

    Raises ``ValueError`` for n below 2, or sets of different numbers or sizes.
    """
    if n < 2:
        raise ValueError(f"n must be at least 2, the two ends, got {n}")
    for images in (a, b):
        require_images(images)
    if len(a) != len(b) or a.size != b.size:
        raise ValueError(f"a and b must hold as many images of one size, got {a!r} and {b!r}")
    asked: Given = given or dict.fromkeys(model.attributes)
    first, last = (
        invert(model, x, given=asked, steps=steps, iterations=iterations) for x in (a, b)
    )
    shares = torch.linspace(0, 1, n)
    turned = torch.stack([_slerp(first, last, float(s)) for s in shares], 1).flatten(0, 1)
    wide: dict[str, Any] = {
        k: np.repeat(np.array(v, dtype=object), n).tolist()
        if not (v is None or isinstance(v, str | int | float))
        else v
        for k, v in asked.items()
    }
    made = restore(model, turned, given=wide, steps=steps, size=a.size)
    pairs = np.repeat(np.arange(len(a)), n)
    return made.labelled(pair=pairs, share=np.tile(shares.numpy(), len(a)))


def _slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """The point between two batches on the great circle of each pair, with the size changing evenly."""
    x, y = a.flatten(1), b.flatten(1)
    size = torch.stack([v.norm(dim=1, keepdim=True) for v in (x, y)])
    cosine = ((x / size[0]) * (y / size[1])).sum(1, keepdim=True).clamp(-1, 1)
    angle = cosine.acos()
    near = angle.sin() < 1e-4
    sine = torch.where(near, 1.0, angle.sin())
    p = torch.where(near, 1 - share, ((1 - share) * angle).sin() / sine)
    q = torch.where(near, share, (share * angle).sin() / sine)
    length = (1 - share) * size[0] + share * size[1]
    return ((p * x / size[0] + q * y / size[1]) * length).reshape(a.shape)


def _tensor(x: object) -> Tensor:
    """What a sampler returned, which is a tensor since a tensor went in."""
    assert isinstance(x, Tensor)
    return x


def _drawn(n: int, seed: int, some: Callable[[slice, Noise], Tensor]) -> Tensor:
    """What ``some`` makes of the rows of every batch, with a stream of noise for each image."""
    seeds = sample_seeds(seed, n)
    return torch.cat([some(rows, Noise(seeds[rows])) for rows in batches(n)])


def _condition(model: ImageModel, images: Images, given: Given | None) -> dict[str, Tensor]:
    """What is given, or what the images say of themselves."""
    require_images(images)
    if given is not None:
        return model.condition(given, len(images))
    return model.condition(model.config.asked.told(images.labels), len(images))


def _labels(
    model: ImageModel, images: Images, given: Given | None, cond: dict[str, Tensor]
) -> dict[str, Any]:
    """The labels of the images, with those that were asked for."""
    if given is None:
        return dict(images.labels)
    asked = model.labels(cond)
    return {**images.labels, **{k: asked[k] for k in given}}


def _mask(mask: Tensor, images: Images) -> Tensor:
    """A mask as (N, 1, H, W) or (1, 1, H, W)."""
    require_images(images)
    mask = torch.as_tensor(mask)
    if mask.dtype != torch.bool:
        raise ValueError(
            f"mask must be boolean, True where a pixel is known, got {mask.dtype}; compare it with a number"
        )
    shape = (len(images), 1, *images.size)
    if mask.shape not in (images.size, shape, (1, *shape[1:])):
        raise ValueError(
            f"mask must be {images.size} or {shape}, True where a pixel is known, got {tuple(mask.shape)}"
        )
    mask = mask[None, None] if mask.ndim == 2 else mask
    if bool(mask.all()):
        raise ValueError("mask hides nothing: it is True, known, everywhere")
    return mask.expand(shape)


def _coarse(known: Tensor, latent: Tensor) -> Tensor:
    """Which points of a latent see known pixels only, (N, 1, H', W')."""
    h, w = latent.shape[2:]
    f = -(-known.shape[2] // h)
    if f == 1:
        return known
    # what a padded size adds is as known as its nearest pixel
    hidden = F.pad(
        (~known).float(), (0, w * f - known.shape[3], 0, h * f - known.shape[2]), mode="replicate"
    )
    return F.max_pool2d(hidden, f) == 0
