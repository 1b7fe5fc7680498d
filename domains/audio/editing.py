"""Clips on the way to other ones: noised and denoised again, or between two given ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from sciffusion.inverse import edit as sdedit
from sciffusion.samplers import DDIM, Sampler, invert
from sciffusion.state import State

from .adapter import mel_state
from .clip import Clip, Clips
from .filling import Drawing
from .given import Heard

if TYPE_CHECKING:
    from .functionals import Guidance
    from .model import AudioModel

__all__ = ["edit", "interpolate"]


def edit(
    model: AudioModel,
    clip: Clip,
    strength: float,
    n: int = 1,
    *,
    given: Mapping[str, object] | None = None,
    guidance: Guidance | None = None,
    seed: int = 0,
    steps: int | None = None,
    sampler: Sampler | None = None,
) -> Clips:
    """A clip noised part of the way and denoised as something else, n times: the same word by another speaker.

    What survives the noise stays (Meng et al., SDEdit, 2022). The results are mono, at the model's rate, as long and as
    loud as the clip.

    Args:
        model: of such clips.
        clip: of any rate; no longer than what the model was trained on.
        strength: how far, 0 to 1 in the time of the process. 0 is the clip itself, at 1 only its length is left.
        n: how many different ones.
        given: what it shall become, attributes by name.
        guidance: as :meth:`.AudioModel.sample` takes it; None: the model's own.
        seed: of everything random.
        steps: of the solver.
        sampler: any of the core, instead of the model's own.

    Raises:
        ValueError: a strength outside [0, 1], a clip that is silent or too long, and attributes that the model does not
            know.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must lie from 0 to 1, got {strength}")
    drawing = Drawing.of(model, n, given, guidance, steps, sampler, seed)
    heard = Heard.of(clip, model.config.frontend)
    drawing.require_fit(clip)
    if strength == 0:
        same = Clip(heard.wave[None] / heard.gain, model.config.frontend.rate)
        return Clips([same] * n)
    frames = model.frames(heard.wave)
    state = mel_state([frames] * n)
    made = sdedit(drawing.sampler, drawing.denoiser(), state, strength, drawing.noise()).x
    assert isinstance(made, State)
    clips = model.decode(made, [len(heard.wave)] * n)
    return Clips([Clip(c.samples / heard.gain, c.rate) for c in clips], drawing.labels())


def interpolate(
    model: AudioModel,
    a: Clip,
    b: Clip,
    n: int = 5,
    *,
    given: Mapping[str, object] | None = None,
    steps: int = 20,
    iterations: int = 5,
) -> Clips:
    """n clips from one to another, evenly spaced; the ends have the spectrograms of the two.

    Both are carried to the noise that a deterministic sampler makes them of; between the noises lies a great circle
    (spherical interpolation), whose points are denoised. Lengths and levels pass over evenly as well: the shorter clip
    is continued by silence, and every result cut to its length. Phases are recovered anew.

    Args:
        model: of such clips.
        a: the first, of any rate; no longer than what the model was trained on.
        b: the last.
        n: how many, both ends included.
        given: what is known of both, attributes by name.
        steps: of the sampler, DDIM.
        iterations: of the fixed point that undoes each of its steps; more make the ends more exact.

    Raises:
        ValueError: fewer than two clips, silent or too long ones, and attributes that the model does not know.
    """
    if n < 2:
        raise ValueError(f"n must be at least 2, both ends, got {n}")
    sampler = Sampler(DDIM(), steps, model.sampling.sampler().grid)
    drawing = Drawing.of(model, 2, given, 1.0, None, sampler, 0)
    ends = [Heard.of(c, model.config.frontend) for c in (a, b)]
    for clip in (a, b):
        drawing.require_fit(clip)
    sizes = [len(e.wave) for e in ends]
    waves = [F.pad(e.wave, (0, max(sizes) - len(e.wave))) for e in ends]
    state = model.encode([Clip(w[None], model.config.frontend.rate) for w in waves])
    noise = invert(sampler, drawing.denoiser(), state, iterations=iterations).x
    assert isinstance(noise, State)
    share = torch.linspace(0, 1, n)
    first, last = noise["mel"]
    between = mel_state([_arc(first, last, float(w)) for w in share])
    many = Drawing.of(model, n, given, 1.0, None, sampler, 0)
    made = sampler(many.denoiser(), between).x
    assert isinstance(made, State)
    lengths = (sizes[0] + share * (sizes[1] - sizes[0])).round().long().tolist()
    gains = ends[0].gain ** (1 - share) * ends[1].gain ** share
    clips = model.decode(made, lengths)
    made_of = [Clip(c.samples / g, c.rate) for c, g in zip(clips, gains, strict=True)]
    return Clips(made_of, many.labels())


def _arc(a: Tensor, b: Tensor, share: float) -> Tensor:
    """A point on the great circle through two, its radius in proportion (Shoemake, 1985)."""
    x, y = a.double().flatten(), b.double().flatten()
    cosine = (x @ y / (x.norm() * y.norm()).clamp(min=1e-12)).clamp(-1, 1)
    angle = cosine.acos()
    if float(angle.sin()) < 1e-6:
        out = x + share * (y - x)
    else:
        out = ((1 - share) * angle).sin() * x + (share * angle).sin() * y
        out = out / angle.sin()
    return out.to(a).reshape(a.shape)
