"""How near a clip is to another one that it should be, and what is in a clip by itself: arithmetic, no judges.

Pairs are of one rate; of different lengths, the shorter one counts. :func:`pairs` gives all figures of many pairs as a
report with bootstrap intervals. Sets of clips, which nothing pairs, are judged in :mod:`.evaluation`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciffusion.bootstrap import Bootstrap
from sciffusion.report import Metric, Report

from .clip import Clip
from .mel import LogMel, MelConfig
from .oracles import pesq
from .stft import Framing

__all__ = ["log_spectral_distance", "mean", "mel_distance", "pairs", "si_sdr", "sounding"]


def log_spectral_distance(made: Clip, truth: Clip, framing: Framing | None = None) -> float:
    """How far the spectra of two clips lie apart, in dB.

    The root mean square over the frequencies of the difference of the log power above 1e-6 (60 dB below a window of
    ones), the mean over the frames; of windows of 32 ms every 8 ms unless ``framing`` says otherwise.
    """
    a, b = _waves(made, truth)
    hop = 2 * max(1, round(made.rate * 0.004))
    analyse = (framing or Framing(4 * hop, hop)).analyse
    x, y = (analyse(w[None]).abs().square().clamp(min=1e-6).log10() for w in (a, b))
    return float((10 * (x - y)).square().mean(1).sqrt().mean())


def mel_distance(made: Clip, truth: Clip, config: MelConfig | None = None) -> float:
    """The mean absolute difference of log-mel spectrograms (natural logarithm above 1e-3)."""
    a, b = _waves(made, truth)
    if config is None:
        hop = 2 * max(1, round(made.rate * 0.004))
        config = MelConfig(rate=made.rate, n_fft=4 * hop, hop=hop, mels=64)
    encode = LogMel(replace(config, floor=1e-3)).encode
    return float((encode(a[None]) - encode(b[None])).abs().mean())


def si_sdr(made: Clip, truth: Clip) -> float:
    r"""The scale-invariant ratio of signal to distortion, in dB; infinite where the one is a multiple of the other.

    :math:`10\log_{10}(|\alpha s|^2 / |\alpha s - x|^2)` with the :math:`\alpha` for which it is largest, of waveforms
    without their means (Le Roux et al., SDR - half-baked or well done?, 2019).

    Raises ``ValueError`` for a silent truth.
    """
    x, s = (w.double() - w.double().mean() for w in _waves(made, truth))
    power = float(s @ s)
    if power == 0:
        raise ValueError("truth is silent: nothing can be compared with it in scale")
    target = (x @ s) / power * s
    error = float((target - x).square().sum())
    signal = float(target.square().sum())
    if error <= 1e-20 * signal:
        return math.inf
    return 10 * math.log10(signal / error) if signal > 0 else -math.inf


def sounding(clip: Clip, below: float = 40.0) -> float:
    """When silence begins, in seconds: the end of the last 10 ms within ``below`` dB of the loudest; 0 for silence."""
    wave = clip.mono().samples[0].double()
    size = max(1, round(clip.rate / 100))
    wave = torch.nn.functional.pad(wave, (0, -len(wave) % size))
    power = wave.reshape(-1, size).square().mean(1)
    if float(power.max()) == 0:
        return 0.0
    loud = (power > power.max() * 10 ** (-below / 10)).nonzero()
    return min(float(loud.max() + 1) * size / clip.rate, clip.seconds)


def pairs(made: Sequence[Clip], truth: Sequence[Clip], *, n_pesq: int = 0, seed: int = 0) -> Report:
    """Clips beside those that they should be: all figures, each the mean over the pairs with its 95 % interval.

    ``n_pesq`` pairs, the first ones of at least a quarter of a second, are judged by PESQ too.

    Raises ``ValueError`` for another number of clips or none, and :class:`~sciffusion.errors.MissingExtra` if PESQ is
    wanted and not installed.
    """
    if not len(made) or len(made) != len(truth):
        raise ValueError(
            f"made and truth must be as many clips, at least one, got {len(made)} and {len(truth)}"
        )
    both, bootstrap = list(zip(made, truth, strict=True)), Bootstrap(seed=seed)
    wanted: dict[str, tuple[Callable[[Clip, Clip], float], str, str]] = {
        "log_spectral_distance": (log_spectral_distance, "dB", "root mean square over frequencies"),
        "mel_distance": (mel_distance, "", "mean absolute difference of log-mel spectrograms"),
        "si_sdr": (si_sdr, "dB", "scale-invariant ratio of signal to distortion"),
    }
    found = {
        name: mean(np.array([of(a, b) for a, b in both]), bootstrap, what, unit)
        for name, (of, unit, what) in wanted.items()
    }
    if n_pesq:
        long = [p for p in both if min(c.seconds for c in p) >= 0.25][:n_pesq]
        scores = np.array([pesq(a, b) for a, b in long])
        found["pesq"] = mean(scores, bootstrap, "quality of speech, at most 4.5", "")
    return Report(found, about={"pairs": len(both), "seed": seed})


def mean(values: NDArray[np.float64], bootstrap: Bootstrap, what: str, unit: str) -> Metric:
    """The mean of figures (n,) of single clips with its interval; NaN ones have failed and do not count."""
    known = values[~np.isnan(values)]
    failed = len(values) - len(known)
    if not len(known):
        return Metric(math.nan, math.nan, math.nan, 0, what, unit, failed)
    low, high = bootstrap.statistic(lambda drawn: np.asarray(drawn.mean(1)), known)
    return Metric(float(known.mean()), low, high, len(known), what, unit, failed)


def _waves(made: Clip, truth: Clip) -> tuple[Tensor, Tensor]:
    """The two waveforms, (N,) each."""
    if made.rate != truth.rate:
        raise ValueError(
            f"made has {made.rate} Hz, truth {truth.rate} Hz: bring them to one rate with resample"
        )
    a, b = made.mono().samples[0], truth.mono().samples[0]
    n = min(len(a), len(b))
    return a[:n], b[:n]
