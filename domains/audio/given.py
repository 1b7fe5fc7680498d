"""A given sound: how a model hears it, which of its frames are whole, and how what was made is put into it.

Models hear one channel at their own rate, scaled so that its peak is 0.5. What they make goes back the same way: scaled
and resampled, into every channel at that channel's level. Samples that nobody asked to change are never touched.
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import Protocol, final

import torch
from torch import Tensor
from torch.nn import functional as F

from .clip import Clip, require_clip
from .task import PEAK

__all__ = ["Heard", "Segments", "cutoff_of", "holes"]

Segments = tuple[float, float] | Sequence[tuple[float, float]]
"""From when to when, in seconds: one segment, or several."""

FADE = 0.004
"""Seconds that a made sound takes to replace a given one."""


def holes(clip: Clip, seconds: Segments) -> list[tuple[int, int]]:
    """Segments as samples from and to, in order, those that touch made one.

    Raises ``ValueError`` for none, one outside the clip, one without a sample, for segments that leave nothing, and for
    anything else in place of clip or segments.
    """
    require_clip(clip)
    if not isinstance(seconds, Sized) or isinstance(seconds, str):
        raise ValueError(f"seconds must be (start, end), or a list of such pairs, got {seconds!r}")
    single = len(seconds) == 2 and isinstance(seconds[0], (int, float))
    pairs: Sequence[tuple[float, float]] = [seconds] if single else list(seconds)  # type: ignore[list-item,arg-type]
    if not pairs:
        raise ValueError("seconds names no segment; give (start, end), or a list of such pairs")
    spans = []
    for pair in pairs:
        if not isinstance(pair, Sized) or len(pair) != 2:
            raise ValueError(f"seconds must be (start, end), or a list of such pairs, got {pair!r}")
        a, b = pair
        if not 0 <= a < b <= clip.seconds + 0.5 / clip.rate:
            raise ValueError(
                f"seconds must lie within the {clip.seconds:.3f} s of the clip and hold some of it, got {a} to {b}"
            )
        first, last = round(a * clip.rate), min(round(b * clip.rate), clip.samples.shape[1])
        if first >= last:
            raise ValueError(f"seconds {a} to {b} holds no sample at {clip.rate} Hz")
        spans.append((first, last))
    merged: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], last)
        else:
            merged.append((first, last))
    if merged == [(0, clip.samples.shape[1])]:
        raise ValueError("seconds leaves nothing of the clip to go by; sample makes new ones")
    return merged


def cutoff_of(clip: Clip, rate: int, cutoff: float | None) -> float:
    """Up to which frequency in Hz a clip is whole, that shall have a rate.

    None is 0.9 of half the clip's own rate. Raises ``ValueError`` if that is missing nothing, and for a cut-off outside
    the band of either.
    """
    require_clip(clip)
    if cutoff is None and clip.rate >= rate:
        raise ValueError(
            f"the clip has {clip.rate} Hz and the model {rate}: nothing is missing; say cutoff, in Hz, if the sound "
            "ends below"
        )
    cutoff, most = 0.45 * clip.rate if cutoff is None else cutoff, min(clip.rate, rate) / 2
    if not 0 < cutoff <= most:
        raise ValueError(f"cutoff must lie above 0 and up to {most:g} Hz, got {cutoff:g}")
    return cutoff


class Hearing(Protocol):
    """What hears a sound: its rate in Hz, and the samples of a frame."""

    @property
    def rate(self) -> int: ...
    @property
    def hop(self) -> int: ...


@final
@dataclass(frozen=True, eq=False)
class Heard:
    """A clip with holes as a model hears it.

    ``wave`` (N,) is its mean channel at the model's rate times ``gain``, zero in the holes, and ``missing`` (N,) is
    True there.

    Raises ``ValueError`` if what is left is silent.
    """

    clip: Clip
    spans: Sequence[tuple[int, int]]
    config: Hearing
    wave: Tensor
    missing: Tensor
    gain: float

    @classmethod
    def of(cls, clip: Clip, config: Hearing, spans: Sequence[tuple[int, int]] = ()) -> Heard:
        """Hear a clip; what lies in its holes is not looked at."""
        require_clip(clip)
        left = clip.samples.clone()
        for a, b in spans:
            left[:, a:b] = 0
        heard = Clip(left, clip.rate).mono()
        if heard.peak == 0:
            where = " outside the segments" if spans else ""
            why = "; its channels cancel each other" if bool(left.any()) else ""
            raise ValueError(f"the clip is silent{where}: it tells a model nothing{why}")
        wave = heard.resample(config.rate).samples[0]
        missing, scale = torch.zeros(len(wave), dtype=torch.bool), config.rate / clip.rate
        for a, b in spans:
            missing[math.floor(a * scale) : math.ceil(b * scale)] = True
        wave = wave.masked_fill(missing, 0)
        gain = PEAK / float(wave.abs().max())
        return cls(clip, spans, config, wave * gain, missing, gain)

    def whole(self, reach: int) -> Tensor:
        """Whether a frame that sees ``reach`` samples before and after its own hop sees nothing of a hole, (T,)."""
        hop = self.config.hop
        rest = -len(self.wave) % hop
        gaps = F.pad(self.missing.float(), (reach, reach + rest))
        return gaps.unfold(0, hop + 2 * reach, hop).amax(1) == 0

    def put_in(self, made: Tensor) -> Tensor:
        """Made waveforms (n, T * hop) with the given samples in their places."""
        keep = F.pad(~self.missing, (0, made.shape[1] - len(self.wave)))
        wave = F.pad(self.wave, (0, made.shape[1] - len(self.wave)))
        return torch.where(keep.to(made.device), wave.to(made), made)

    def completed(self, made: Tensor) -> list[Clip]:
        """The clip with its holes filled by made waveforms (n, T * hop), at its own rate and with its own channels.

        Outside the holes it is the clip bit by bit. Within, over 4 ms (or half of a shorter hole), its mirror image
        about the edge fades out and the made sound in, with constant power, so nothing jumps. All channels get the same
        sound, each at the level that it has elsewhere.
        """
        out = []
        for row in made.cpu() / self.gain:
            sound = Clip(row[None, : len(self.wave)], self.config.rate).resample(self.clip.rate)
            out.append(self._filled(sound.samples[0, : self.clip.samples.shape[1]]))
        return out

    def _filled(self, sound: Tensor) -> Clip:
        samples, rate = self.clip.samples.clone(), self.clip.rate
        keep = torch.ones(samples.shape[1], dtype=torch.bool)
        for a, b in self.spans:
            keep[a:b] = False
        # a channel's level beside that of the mean of all, which the model heard
        known = samples[:, keep].double()
        level = (known.square().mean(1) / known.mean(0).square().mean()).sqrt().to(samples)
        edges = [0, *(x for span in self.spans for x in span), samples.shape[1]]
        for i, (a, b) in enumerate(self.spans):
            inside = level[:, None] * sound[a:b]
            before, after = a - edges[2 * i], edges[2 * i + 3] - b
            most = min(max(1, round(FADE * rate)), (b - a) // 2)
            left, right = min(most, before), min(most, after)
            if left:
                mirror = self.clip.samples[:, a - left : a].flip(1)
                inside[:, :left] = _crossed(mirror, inside[:, :left])
            if right:
                mirror = self.clip.samples[:, b : b + right]
                inside[:, -right:] = _crossed(mirror, inside[:, -right:].flip(1)).flip(1)
            samples[:, a:b] = inside
        return Clip(samples, rate)


def _crossed(out: Tensor, into: Tensor) -> Tensor:
    """One sound that fades into another, with constant power."""
    w = out.shape[1]
    angle = (torch.arange(w, dtype=torch.float64) + 0.5) / w * (math.pi / 2)
    return (out * angle.cos() + into * angle.sin()).to(into)
