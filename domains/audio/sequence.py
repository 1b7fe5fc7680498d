"""Clips one after another: how a model of single words or notes goes on for longer than one of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .clip import Clip

__all__ = ["joined"]


def joined(clips: Sequence[Clip], pause: float = 0.15) -> Clip:
    """The clips with ``pause`` seconds of silence between them, all as loud as the first, which stays as it is.

    The result has the rate and the channels of the first; the others are resampled, and heard as their mean channel
    in all of them. Silent ones stay silent.

    >>> first = Clip.of([0.5, -0.5], 8000)
    >>> joined([first, Clip.of([0.1, 0.0], 8000)], pause=1 / 8000).samples.tolist()
    [[0.5, -0.5, 0.0, 0.5, 0.0]]

    Raises ``ValueError`` without a clip, if the first is silent, and for a negative pause.
    """
    if not len(clips) or clips[0].peak == 0:
        raise ValueError("clips must begin with one that is not silent: it says how loud all are")
    if pause < 0:
        raise ValueError(f"pause must not be negative, got {pause} s")
    first = clips[0]
    gap = torch.zeros(len(first.samples), round(pause * first.rate))
    parts = [first.samples]
    for clip in clips[1:]:
        sound = clip.mono().resample(first.rate)
        scale = first.peak / sound.peak if sound.peak else 1.0
        parts += [gap, scale * sound.samples.expand(len(first.samples), -1)]
    return Clip(torch.cat(parts, 1), first.rate)
