"""Repair of given clips: holes filled, clips made longer, missing frequencies put in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from sciffusion.inverse import Method
from sciffusion.samplers import Sampler

from .clip import Clip, Clips, require_clip
from .filling import METHOD, Drawing, Replacement, complete
from .given import Heard, Segments, cutoff_of, holes
from .mel import MelConfig, filters
from .recovery import banded, consistent

if TYPE_CHECKING:
    from .functionals import Guidance
    from .model import AudioModel

__all__ = ["extend", "in_band", "inpaint", "lower_bins", "phased", "super_resolve"]

TEMPERATURE = 0.5
"""How far repairs scatter, as a share of the posterior's own spread: half as far is nearer to what was there."""


def inpaint(
    model: AudioModel,
    clip: Clip,
    seconds: Segments,
    n: int = 1,
    *,
    given: Mapping[str, object] | None = None,
    draws: int = 1,
    temperature: float = TEMPERATURE,
    guidance: Guidance = 1.0,
    method: Method | Replacement = METHOD,
    seed: int = 0,
    steps: int | None = None,
    sampler: Sampler | None = None,
) -> Clips:
    """Fill segments of a clip, n times.

    Outside the segments all samples are those of the clip, bit by bit, at its own rate and in all its channels; what
    lies inside is not looked at. Frames that see nothing of a hole condition the model, log-mels as well as
    complex spectra and latents of a codec; phases are found with the given
    samples held fast, and over 4 ms inside a hole the given sound fades into the made one (:class:`.given.Heard`). The
    model hears the mean of the channels at its own rate, and so the made sound has nothing above half of that rate.
    Clip i depends on ``seed`` and i alone (up to rounding).

    Args:
        model: of such clips; a longer one is filled from window to window.
        clip: of any rate, mono or stereo.
        seconds: ``(start, end)`` in seconds, or a list of such pairs.
        n: how many different fillings.
        given: attributes by name, as :meth:`.AudioModel.sample` takes them; what is not named is left open.
        draws: how many log-mels are averaged: of several, the mean is nearer to what was there, but smoother than any
            sound of its kind.
        temperature: how far the fillings scatter, as a share of the posterior's own spread. 1 gives samples of the
            posterior, which tell how sure the model is; lower ones are nearer to what was there; 0 gives n times the
            same.
        guidance: as there; 1 is a sample of the posterior.
        method: any posterior method of the core (:mod:`sciffusion.inverse`), or :class:`.filling.Replacement`.
        seed: of everything random.
        steps: of the solver, for each window.
        sampler: any of the core, instead of the model's own.

    Raises:
        ValueError: a segment outside the clip or without a sample, segments that leave nothing or silence only, a
            negative temperature, and attributes that the model does not know.
    """
    drawing = Drawing.of(model, n, given, guidance, steps, sampler, seed, draws, temperature)
    heard = Heard.of(clip, model.config.frontend, holes(clip, seconds))
    return _completed(drawing, heard, method, draws)


def extend(
    model: AudioModel,
    clip: Clip,
    seconds: float,
    n: int = 1,
    *,
    given: Mapping[str, object] | None = None,
    temperature: float = TEMPERATURE,
    guidance: Guidance = 1.0,
    method: Method | Replacement = METHOD,
    seed: int = 0,
    steps: int | None = None,
    sampler: Sampler | None = None,
) -> Clips:
    """Make a clip longer, ``seconds`` in all, n times; for the arguments see :func:`inpaint`.

    The given part is unchanged, bit by bit. What follows is made from window to window, of the length of the longest
    training clip, each with half a window of what came before, most of it what was given. At the temperature 1 the
    spread of many windows adds up, and levels fall.

    Raises:
        ValueError: ``seconds`` not above the clip's own, a silent clip, and what :func:`inpaint` refuses.
        RuntimeError: sampling that diverged; no clip that was tried did so with the default method.
    """
    drawing = Drawing.of(model, n, given, guidance, steps, sampler, seed, 1, temperature)
    require_clip(clip)
    size, length = clip.samples.shape[1], round(seconds * clip.rate)
    if length <= size:
        raise ValueError(
            f"seconds must exceed the {clip.seconds:.3f} s of the clip, the length of the whole, got {seconds}"
        )
    longer = Clip(F.pad(clip.samples, (0, length - size)), clip.rate)
    return _completed(drawing, Heard.of(longer, model.config.frontend, [(size, length)]), method)


def _completed(
    drawing: Drawing, heard: Heard, method: Method | Replacement, draws: int = 1
) -> Clips:
    model = drawing.model
    way, frames = model.synthesis, model.frames(heard.wave)
    known = heard.whole(model.config.frontend.reach)[:, None].expand_as(frames)
    made = model.standard.decode(complete(drawing, frames, known, method, draws)).mT.contiguous()
    own = way.framing.analyse(heard.wave[None]).to(made.device)
    whole = heard.whole(way.framing.reach).to(made.device)
    magnitude = torch.where(whole, own.abs(), way.magnitude(made))
    waves = phased(model, made, magnitude, heard.put_in)
    return Clips(heard.completed(waves), drawing.labels(draws))


def super_resolve(
    model: AudioModel,
    clip: Clip,
    n: int = 1,
    *,
    cutoff: float | None = None,
    given: Mapping[str, object] | None = None,
    draws: int = 1,
    temperature: float = TEMPERATURE,
    guidance: Guidance = 1.0,
    method: Method | Replacement = METHOD,
    seed: int = 0,
    steps: int | None = None,
    sampler: Sampler | None = None,
) -> Clips:
    """Put in the frequencies above ``cutoff`` that a clip lacks, n times; for the other arguments see :func:`inpaint`.

    What is observed are the mel bins that end below the cut-off; the others are drawn from the model. Below the cut-off
    the result is the given sound: the same coefficients of the Fourier transform of the whole clip, phases included.
    Phases above it are found by Griffin-Lim with the lower band held fast. The result is mono, at the model's rate.

    Args:
        model: of clips with all frequencies.
        clip: of a lower rate, or of any rate with a cut-off.
        n: how many different ones.
        cutoff: in Hz; None: 0.9 of half the clip's rate, for what lies above is weakened wherever it was made.
        given: attributes by name.
        draws: how many log-mels are averaged, see :func:`inpaint`.
        temperature: how far they scatter, see :func:`inpaint`; 1 gives samples of the posterior.
        guidance: 1 is a sample of the posterior.
        method: any posterior method of the core, or :class:`.filling.Replacement`.
        seed: of everything random.
        steps: of the solver, for each window.
        sampler: any of the core, instead of the model's own.

    Raises:
        ValueError: no cut-off for a clip of the model's rate or a higher one, a cut-off outside the clip's or the
            model's band, a silent clip, and attributes that the model does not know.
    """
    config = model.config.spectrogram
    drawing = Drawing.of(model, n, given, guidance, steps, sampler, seed, draws, temperature)
    cutoff = cutoff_of(clip, config.rate, cutoff)
    heard = Heard.of(clip, config)
    frames = model.frames(heard.wave)
    low = lower_bins(config, cutoff)
    if not bool(low.any()):
        raise ValueError(f"cutoff {cutoff:g} Hz leaves no mel bin of the model; raise it")
    made = complete(drawing, frames, low.expand_as(frames), method, draws)
    return Clips(in_band(model, heard, made, cutoff).clips, drawing.labels(draws))


def lower_bins(config: MelConfig, cutoff: float) -> Tensor:
    """Which mel bins see nothing above a frequency in Hz, (mels,)."""
    above = torch.arange(config.n_fft // 2 + 1) * (config.rate / config.n_fft) > cutoff
    return ~(filters(config)[:, above] > 0).any(1)


def in_band(model: AudioModel, heard: Heard, frames: Tensor, cutoff: float) -> Clips:
    """Sounds with a given lower band, and above the cut-off with made frames (n, T, mels) in units of the model."""
    config = model.config.spectrogram
    magnitude = model.synthesis.magnitude(model.standard.decode(frames).mT.contiguous())
    waves = banded(config.framing, magnitude, heard.wave, cutoff / config.rate)
    return Clips([Clip(w[None] / heard.gain, config.rate) for w in waves.cpu()])


def phased(
    model: AudioModel, frames: Tensor, magnitude: Tensor, hold: Callable[[Tensor], Tensor]
) -> Tensor:
    """Waveforms of magnitudes (n, F, T) with what is known held fast, from what the model's way makes of frames."""
    way = model.synthesis
    phases = way.framing.analyse(hold(way.waves(frames, None)))
    return consistent(way.framing, magnitude, phases, hold=hold)
