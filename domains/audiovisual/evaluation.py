"""Judging scenes: whether what is seen and what is heard are the same digit, at the same moment.

Two judges that know nothing of each other nor of any generator look and listen: the reader of digits of the domain of
video, and the judge of spoken digits of that of audio. Each has its own accuracy, so real scenes agree in less than
all cases; their figures are the ceiling.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import sciffusion
from sciffusion.bootstrap import Bootstrap
from sciffusion.pixels import to_floats
from sciffusion.report import Metric, Report

from ..audio.clip import Clip, Clips
from ..audio.judges import Judge, Verdict
from ..video.classifier import reader
from ..video.film import Films
from .scene import Scenes

__all__ = ["appearance", "evaluate", "heard", "judged", "onset", "seen"]

LOUD = 0.05
"""The share of a sound's loudest moment above which it has begun."""

_WHAT = {
    "agreement": "scenes in which the digit that the reader sees is the one that the judge hears",
    "lag": "seconds from the appearance of the digit to the beginning of the sound, the median of their sizes",
    "together": "scenes in which both begin within a frame and a half of each other",
}
_UNITS = {"lag": "s"}


def evaluate(scenes: Scenes, reference: Scenes | None = None, *, seed: int = 0) -> Report:
    """Judge scenes; the figures of the reference, if there is one, are the ``ceiling``."""
    bootstrap = Bootstrap(200, seed=seed)
    metrics = _summarised(_figures(scenes), bootstrap)
    ceiling = {} if reference is None else _summarised(_figures(reference), bootstrap)
    about: dict[str, str | int] = {"scenes": len(scenes), "sciffusion": sciffusion.__version__}
    return Report(metrics, ceiling, about=about)


def seen(films: Films) -> NDArray[np.int64]:
    """The digit that the reader sees most often in the lit frames of every film, (N,); -1 where none is lit."""
    x = to_floats(Films([f.bytes() for f in films]).stack())
    read, _ = reader().read(x)
    lit = _lit(x)
    votes = torch.nn.functional.one_hot(read, 10) * lit[..., None]
    counts = votes.sum(1)
    return torch.where(lit.any(1), counts.argmax(1), -1).numpy()


def heard(sounds: Clips) -> NDArray[np.int64]:
    """The digit that the judge of spoken digits hears in every sound, from where it begins, (N,)."""
    return judged(sounds).said["digit"].astype(np.int64)


def judged(sounds: Clips) -> Verdict:
    """What the judge of spoken digits hears in every sound, from where it begins."""
    parts = [clip.cut(max(0.0, min(onset(clip), clip.seconds - 0.1) - 0.02)) for clip in sounds]
    return Judge.load("fsdd")(parts)


def appearance(films: Films) -> NDArray[np.float64]:
    """Seconds after which the first frame of every film that is lit begins, (N,); NaN where none is."""
    x = to_floats(Films([f.bytes() for f in films]).stack())
    lit = _lit(x)
    first = lit.double().argmax(1).double() / films[0].rate
    return torch.where(lit.any(1), first, torch.nan).numpy()


def onset(clip: Clip) -> float:
    """Seconds after which a sound begins: its amplitude over 16 ms first reaches a twentieth of its largest."""
    x = clip.mono().samples[0]
    hop = max(1, round(0.016 * clip.rate))
    x = torch.nn.functional.pad(x, (0, -len(x) % hop)).unflatten(0, (-1, hop))
    level = x.square().mean(1).sqrt()
    return float((level >= LOUD * level.max()).double().argmax()) * hop / clip.rate


def _lit(x: Tensor) -> Tensor:
    """Which frames of films (N, T, C, H, W) hold something, (N, T): a fifth of the light of the brightest."""
    light = x.mean((2, 3, 4))
    return light >= 0.2 * light.amax(1, keepdim=True).clamp(min=1e-3)


def _figures(scenes: Scenes) -> dict[str, NDArray[np.float64]]:
    frame = 1 / scenes.films[0].rate
    begun = np.array([onset(clip) for clip in scenes.sounds])
    # a digit that appears between two frames is first seen in the later one: half a frame late in the mean
    lag = begun - (appearance(scenes.films) - frame / 2)
    return {
        "agreement": (seen(scenes.films) == heard(scenes.sounds)).astype(float),
        "lag": np.abs(lag),
        "together": (np.abs(lag) <= 1.5 * frame).astype(float),
    }


def _summarised(
    figures: Mapping[str, NDArray[np.float64]], bootstrap: Bootstrap
) -> dict[str, Metric]:
    out = {}
    for name, values in figures.items():
        known = values[np.isfinite(values)]
        middle = _median if name == "lag" else _mean
        low, high = bootstrap.statistic(middle, known)
        unit, lost = _UNITS.get(name, "fraction"), len(values) - len(known)
        out[name] = Metric(
            float(middle(known[None])[0]), low, high, len(known), _WHAT[name], unit, lost
        )
    return out


def _mean(values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    return np.asarray(values.mean(1))


def _median(values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    return np.asarray(np.median(values, axis=1))
