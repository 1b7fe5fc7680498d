r"""What a model does with given films: animate a picture, go on, fill the time between frames, mend holes.

Whole frames that are given are shown to the network clean, at time 0, as in its training
(:class:`~sciffusion.inverse.Known`), and come back bit by bit. A film is extended window by window, each of which sees
the last frames of the one before. Errors of windows that see nothing but each other add up, so the first frames of what
a window sees are given ones, the last that there are: things look as they did, and move on from where they are. What
drift is left is measured (``benchmarks/video_digits.py``). Frames of which a part is given are observed there with a
small error, and a posterior method of the core samples the rest.

A model of latents knows what its autoencoder makes of the first frames of a window, however many that are; frames
between others, and parts of frames, have no latents of their own, so such a model neither fills time nor mends holes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sciffusion.denoiser import Denoiser
from sciffusion.inverse import MMPS, Known, Mask, Method, Posterior
from sciffusion.noise import Noise, sample_seeds
from sciffusion.samplers import Sampler
from sciffusion.sampling import Guidance

from .film import Film, Films

if TYPE_CHECKING:
    from .model import VideoModel

__all__ = ["METHOD", "animate", "extend", "inpaint", "interpolate_time"]

METHOD: Method = MMPS(1)
"""How known parts of a frame condition a model: the covariance that its own derivative tells, one step of it."""

TOLERANCE = 0.05
"""The standard deviation with which known parts of frames are observed, in units of the model."""


def animate(
    self: VideoModel,
    image: Tensor | Film,
    n: int = 1,
    given: Mapping[str, object] | None = None,
    *,
    frames: int | None = None,
    guidance: Guidance | None = None,
    seed: int = 0,
    steps: int | None = None,
    sampler: Sampler | None = None,
) -> Films:
    """Films that begin with a picture, which comes back bit by bit as their first frame.

    Args:
        image: (C, H, W), uint8 or float32 from 0 to 1; or a film, whose last frame serves. The films have its type.
        n: how many films; film i depends on the seed, the picture and i alone.
        frames: of every film, the picture included (None: the model's own number).
        given, guidance, seed, steps, sampler: see :meth:`.model.VideoModel.sample`; what is not given stays open.

    Raises:
        ValueError: a picture of another shape, type or number of channels, or fewer than two frames.
    """
    if isinstance(image, Film):
        picture = image[len(image) - 1 :]
    elif isinstance(image, Tensor) and image.ndim == 3:
        picture = Film(image[None], self.rate)
    else:
        raise ValueError("image must be a tensor (C, H, W) or a film")
    total = self.config.shape[0] if frames is None else frames
    if total < 2:
        raise ValueError(f"frames must be at least 2, the picture and what follows, got {total}")
    return extend(
        self,
        picture,
        total,
        n,
        given,
        guidance=guidance,
        seed=seed,
        steps=steps,
        sampler=sampler,
    )


def extend(
    self: VideoModel,
    film: Film,
    frames: int,
    n: int = 1,
    given: Mapping[str, object] | None = None,
    *,
    context: int | None = None,
    anchors: int | None = None,
    window: int | None = None,
    guidance: Guidance | None = None,
    seed: int = 0,
    steps: int | None = None,
    sampler: Sampler | None = None,
) -> Films:
    """Make a film longer, ``frames`` in all, n times; what was given comes back bit by bit.

    Args:
        film: what is given.
        frames: how many there are then, with the given ones.
        n: how many films; film i depends on the seed, the given film and i alone.
        context: frames that every window sees of what there is (None: half a window, or the given ones if fewer).
        anchors: of these, given frames that stand in place of the first ones where a window would see fewer (None: a
            quarter, or the given ones if fewer; a model of latents takes none, for they begin no film with the rest).
        window: frames of a window (None: as many as the model's films).
        given, guidance, seed, steps, sampler: see :meth:`.model.VideoModel.sample`; what is not given stays open.

    Raises:
        ValueError: n below 1, no more frames than are given, a context that leaves nothing of a window, anchors that
            leave nothing of it, a film of other channels, or a window that the model's autoencoder cannot encode.
    """
    size = self.config.shape[0] if window is None else window
    seen = max(1, size // 2) if context is None else context
    _needs_film(film)
    if not isinstance(frames, int | np.integer):
        raise ValueError(f"frames must be an integer, the length of the whole, got {frames!r}")
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    if frames <= len(film):
        raise ValueError(
            f"frames must exceed the {len(film)} of the film, the length of the whole, got {frames}"
        )
    if not 1 <= seen < size:
        raise ValueError(f"context must lie from 1 to {size - 1}, below the window, got {seen}")
    seeds, cond = sample_seeds(seed, n), self.condition(given or {}, n)
    solver = sampler or self.sampling.sampler(steps)
    codec, by = self.codec, self.codec.time
    codec.frames(size)
    held = seen // 4 if anchors is None else anchors
    if not 0 <= held < seen:
        raise ValueError(f"anchors must lie from 0 to {seen - 1}, below the context, got {held}")
    held = min(held, len(film)) if by == 1 else 0
    x = self.pixels([film]).expand(n, -1, -1, -1, -1)
    part = 0
    while x.shape[1] < frames:
        # as much of the end as there are whole latent frames of
        kept = 1 + (min(seen, x.shape[1]) - 1) // by * by
        last = codec.latents(x[:, _seen(x.shape[1], kept, len(film), held)])
        new = min(size - kept, -(-(frames - x.shape[1]) // by) * by) // by
        blank = last.new_zeros(n, new, *last.shape[2:])
        mask = torch.arange(last.shape[1] + new) < last.shape[1]
        made = _drawn(self, torch.cat((last, blank), 1), mask, cond, guidance, solver, seeds, part)
        x = torch.cat((x, codec.films(made, film.size)[:, kept:]), 1)
        part += 1
    known = torch.arange(frames) < len(film)
    return _films(self, x[:, :frames], film, known, cond)


def _seen(there: int, kept: int, given: int, anchors: int) -> Tensor:
    """Which frames a window sees: the last ones, and given ones in place of its first where these are fewer."""
    rows = torch.arange(there - kept, there)
    if given - (there - kept) < anchors:
        rows[:anchors] = torch.arange(given - anchors, given)
    return rows


def interpolate_time(
    self: VideoModel,
    film: Film,
    factor: int = 2,
    n: int = 1,
    given: Mapping[str, object] | None = None,
    *,
    guidance: Guidance | None = None,
    seed: int = 0,
    steps: int | None = None,
    sampler: Sampler | None = None,
) -> Films:
    """Films with ``factor`` times as many frames a second: between two given ones there are ``factor - 1`` new ones.

    T frames become ``(T - 1) * factor + 1``; the given ones come back bit by bit. All are made at once, in one window.

    Raises ``ValueError`` for a factor below 2, a film of fewer than two frames or other channels, and a model of
    latents; for the other arguments see :meth:`.model.VideoModel.sample`.
    """
    _needs_frames(self, "interpolate_time")
    _needs_film(film)
    if factor < 2 or len(film) < 2:
        raise ValueError(
            f"factor must be at least 2 and the film have two frames, got {factor} and {len(film)}"
        )
    seeds, cond = sample_seeds(seed, n), self.condition(given or {}, n)
    have = self.encode([film])
    total = (len(film) - 1) * factor + 1
    x = have.new_zeros(1, total, *have.shape[2:])
    x[:, ::factor] = have
    known = torch.arange(total) % factor == 0
    x = x.expand(n, -1, -1, -1, -1)
    solver = sampler or self.sampling.sampler(steps)
    x = self.codec.films(_drawn(self, x, known, cond, guidance, solver, seeds, 0), film.size)
    wide = Film(film.frames.repeat_interleave(factor, 0)[:total], film.rate * factor)
    return _films(self, x, wide, known, cond)


def inpaint(
    self: VideoModel,
    film: Film,
    mask: Tensor,
    n: int = 1,
    given: Mapping[str, object] | None = None,
    *,
    method: Method = METHOD,
    guidance: Guidance | None = None,
    seed: int = 0,
    steps: int | None = None,
    sampler: Sampler | None = None,
) -> Films:
    """Films whose pixels are made anew where ``mask`` is True; all others come back bit by bit.

    Args:
        film: what is given; what it holds under the mask is not looked at.
        mask: boolean, of frames (T,) or pixels (T, H, W).
        n: how many films; film i depends on the seed, what is given and i alone.
        method: how known parts of a frame condition the model; frames that are known as a whole need none.
        given, guidance, seed, steps, sampler: see :meth:`.model.VideoModel.sample`; what is not given stays open.

    Raises:
        ValueError: a mask of another type or shape, or that is True nowhere or everywhere; a film of other channels; a
            model of latents.
    """
    _needs_frames(self, "inpaint")
    _needs_film(film)
    mask = torch.as_tensor(mask)
    t, (h, w) = len(film), film.size
    if mask.dtype != torch.bool or tuple(mask.shape) not in ((t,), (t, h, w)):
        raise ValueError(
            f"mask must be boolean, {(t,)} for frames or {(t, h, w)} for pixels, got {mask.dtype} {tuple(mask.shape)}"
        )
    if not bool(mask.any()) or bool(mask.all()):
        raise ValueError("mask must be True somewhere and False elsewhere; sample makes new films")
    seeds, cond = sample_seeds(seed, n), self.condition(given or {}, n)
    holes = mask if mask.ndim == 3 else mask[:, None, None].expand(t, h, w)
    x = self.encode([film]).expand(n, -1, -1, -1, -1)
    solver = sampler or self.sampling.sampler(steps)
    x = _drawn(
        self, x, ~holes.flatten(1).any(1), cond, guidance, solver, seeds, 0, ~holes[:, None], method
    )
    return _films(self, self.codec.films(x, film.size), film, ~holes[:, None], cond)


def _needs_film(film: object) -> None:
    """Raise ``ValueError`` for anything else in place of a film."""
    if not isinstance(film, Film):
        raise ValueError(
            f"film must be a Film, got {type(film).__name__}: Film.of makes one of an array, Film.read of a file"
        )


def _needs_frames(model: VideoModel, verb: str) -> None:
    """Raise ``ValueError`` for a model whose frames have no latents of their own."""
    if model.config.codec is not None:
        raise ValueError(
            f"{verb} needs a model of frames: one of latents knows only what a film begins with (animate, extend)"
        )


def _drawn(
    model: VideoModel,
    x: Tensor,
    known: Tensor,
    cond: Mapping[str, Tensor],
    guidance: Guidance | None,
    sampler: Sampler,
    seeds: list[int],
    part: int,
    pixels: Tensor | None = None,
    method: Method = METHOD,
) -> Tensor:
    """Films (N, T, C, H, W) as the model sees them, whose known frames (T,), and pixels (T, 1, H, W), are given.

    ``part`` counts the windows of a film: each has a stream of its own.
    """
    inner: Denoiser = Known(model.denoiser, x, known)
    if pixels is not None and bool((pixels.flatten(1).any(1) & ~known).any()):
        seen = pixels.to(x.device).expand_as(x)
        inner = Posterior(inner, Mask(seen), x, TOLERANCE, method)
    # the posterior is guided: the derivative of a guided prediction is no covariance, which methods take it for
    denoiser = model.around(inner, cond, guidance)
    noise = Noise([sample_seeds(s, part + 1)[part] for s in seeds])
    start = denoiser.process.prior(x, noise)
    made = sampler(denoiser, start, noise).x
    assert isinstance(made, Tensor)
    return made


def _films(
    model: VideoModel, x: Tensor, film: Film, known: Tensor, cond: Mapping[str, Tensor]
) -> Films:
    """Pixels (N, T, C, H, W) as films of the given one's type, with its known frames or pixels in their places."""
    made = x.cpu()
    if film.frames.dtype == torch.uint8:
        made = (made * 255).round().to(torch.uint8)
    shown = torch.zeros_like(made[0])
    shown[: len(film)] = film.frames
    wide = known.reshape(-1, *(1,) * (made.ndim - 2)) if known.ndim == 1 else known
    return Films.of(torch.where(wide, shown, made), film.rate, model.labels(cond))
