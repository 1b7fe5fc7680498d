"""Judging films: how they move, whether they keep what they show, and how far they are from real ones.

Any films get ``warp error`` and a Frechet distance in *pooled time features*: means over 4 x 4 parts of the picture of
every channel's mean over time, of its mean change from frame to frame, and of the change of that. Grey films with the
label ``digit`` are also read by :mod:`.classifier`, followed by :mod:`.motion`, and compared in *digit time features*:
the reader's features, their means over time and their mean changes. None of these distances may be compared with
published ones, which use other features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

import sciffusion
from sciffusion.bootstrap import Bootstrap
from sciffusion.metrics import compare
from sciffusion.pixels import to_floats
from sciffusion.progress import track
from sciffusion.report import Metric, Report

from .classifier import centred, reader
from .film import Films
from .motion import flights, warp_error

__all__ = ["digit_features", "evaluate", "likeness", "pooled_features"]

_WHAT = {
    "warp_error": "share of the change between frames that no motion of 8 x 8 blocks explains",
    "agreement": "frames in which the reader sees the digit that the film is labelled with",
    "identity": "frames in which the reader sees the digit that it sees most often in the film",
    "likeness": "correlation of the centred frames with their mean over the film",
    "jitter": "median difference of a step of the centre of mass from the film's usual step",
    "straight": "steps within half a pixel of the usual one, or part of a bounce",
    "frechet_digits": "Frechet distance in digit time features",
    "frechet_pooled": "Frechet distance in pooled time features",
}
_FEWEST = 8
"""Films below which a distance says nothing and is left out."""

_UNITS = {"likeness": "", "jitter": "pixel", "frechet_digits": "", "frechet_pooled": ""}


def evaluate(films: Films, reference: Films | None = None, *, seed: int = 0) -> Report:
    """Judge films of one shape, beside real ones if there are any; the real ones' figures are the ``ceiling``.

    The distance of real films is that between two halves of the reference, which makes it larger: it has fewer films.

    Raises ``ValueError`` for films of different shapes, or a reference of another number of channels.
    """
    bootstrap = Bootstrap(200, seed=seed)
    x = to_floats(Films([f.bytes() for f in films]).stack())
    digits = _digits(films, x)
    metrics = _summarised(_figures(x, digits), bootstrap)
    about: dict[str, str | int] = {"films": len(films), "sciffusion": sciffusion.__version__}
    if reference is None:
        return Report(metrics, about=about)
    y = to_floats(Films([f.bytes() for f in reference]).stack())
    if y.shape[2] != x.shape[2]:
        raise ValueError(
            f"reference has {y.shape[2]} channels, the films {x.shape[2]}; read both with the same grey"
        )
    ceiling = _summarised(_figures(y, _digits(reference, y)), bootstrap)
    for name, of in _spaces(digits is not None):
        a, b = of(x), of(y)
        if min(len(a), len(b) // 2) < _FEWEST:
            continue
        metrics[name] = _distance(name, b, a, bootstrap)
        ceiling[name] = _distance(name, b[::2], b[1::2], bootstrap)
    return Report(metrics, ceiling, about=about | {"reference": len(reference)})


def pooled_features(films: Tensor) -> Tensor:
    """Pooled time features (N, 48 C) of films (N, T, C, H, W), floats; zeros for what a film is too short for."""
    parts = [films.mean(1)]
    for order in (1, 2):
        change = films.diff(order, dim=1).abs()
        parts.append(change.mean(1) if change.shape[1] else torch.zeros_like(parts[0]))
    return torch.cat([F.adaptive_avg_pool2d(p, 4).flatten(1) for p in parts], 1)


def digit_features(films: Tensor) -> Tensor:
    """Digit time features (N, 64) of grey films (N, T, 1, H, W), floats."""
    _, features = reader().read(films)
    change = features.diff(dim=1).abs()
    moved = change.mean(1) if change.shape[1] else torch.zeros_like(features[:, 0])
    return torch.cat((features.mean(1), moved), 1)


def likeness(films: Tensor) -> Tensor:
    """The mean correlation of every film's centred frames with their mean, (N,), of grey films (N, T, 1, H, W)."""
    seen = centred(films).flatten(2)
    seen = F.normalize(seen - seen.mean(2, keepdim=True), dim=2)
    mean = F.normalize(seen.mean(1, keepdim=True), dim=2)
    return (seen * mean).sum(2).mean(1)


def _digits(films: Films, x: Tensor) -> NDArray[np.int64] | None:
    """The labels, if the films are grey and labelled with digits."""
    labels = films.labels.get("digit")
    if labels is None or x.shape[2] != 1:
        return None
    text = np.asarray(labels).astype(str)
    if not np.isin(text, [str(i) for i in range(10)]).all():
        return None
    return text.astype(np.int64)


def _figures(x: Tensor, digits: NDArray[np.int64] | None) -> dict[str, NDArray[np.float64]]:
    """The figures of every film."""
    found: dict[str, Tensor] = {}
    if x.shape[1] > 1 and min(x.shape[3:]) >= 8:
        found["warp_error"] = torch.cat(
            [warp_error(part) for part in track(x.split(32), "judging")]
        )
    if digits is not None:
        seen, _ = reader().read(x)
        found["agreement"] = (seen == torch.from_numpy(digits)[:, None]).double().mean(1)
        found["identity"] = (seen == seen.mode(1, keepdim=True).values).double().mean(1)
        found["likeness"] = likeness(x)
        if x.shape[1] >= 5:
            flight = flights(x)
            found |= {"jitter": flight.jitter, "straight": flight.straight}
    return {k: v.double().numpy() for k, v in found.items()}


def _summarised(
    figures: Mapping[str, NDArray[np.float64]], bootstrap: Bootstrap
) -> dict[str, Metric]:
    out = {}
    for name, values in figures.items():
        known = values[np.isfinite(values)]
        mean, low, high = (float("nan"),) * 3
        if len(known):
            low, high = bootstrap.statistic(lambda v: np.asarray(v.mean(1)), known)
            mean = float(known.mean())
        unit, failed = _UNITS.get(name, "fraction"), len(values) - len(known)
        out[name] = Metric(mean, low, high, len(known), _WHAT[name], unit, failed)
    return out


def _spaces(digits: bool) -> list[tuple[str, Callable[[Tensor], Tensor]]]:
    spaces: list[tuple[str, Callable[[Tensor], Tensor]]] = [("frechet_pooled", pooled_features)]
    return [("frechet_digits", digit_features), *spaces] if digits else spaces


def _distance(name: str, real: Tensor, made: Tensor, bootstrap: Bootstrap) -> Metric:
    found = compare(real, made, k=1, bootstrap=bootstrap)["frechet"]
    return Metric(found.value, found.low, found.high, len(made), _WHAT[name], _UNITS[name])
