"""Judges that others have trained, independent of all data and models here; their weights lie in their packages.

* :class:`PitchTracker`: swift-f0 (MIT), the fundamental frequency;
* :class:`Voices`: Resemblyzer (Apache 2.0), the embedding of a voice (Wan et al., Generalized end-to-end loss for
  speaker verification, 2018);
* :func:`pesq`: the quality of speech beside the original, ITU-T P.862.

None is imported before it is used, and each says how to install it where it is not. ``pip install
"sciffusion[judges]"`` brings swift-f0 and pesq.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sciffusion.errors import MissingExtra, require

from ._torchaudio import torchaudio
from .clip import Clip

__all__ = ["PitchTracker", "Voices", "cents", "hertz", "pesq"]

_RATE = 16000


def hertz(pitch: NDArray[Any] | float) -> NDArray[np.float64]:
    """The frequencies of MIDI numbers: 69 is 440 Hz, 12 more are an octave."""
    found: NDArray[np.float64] = 440.0 * 2 ** ((np.asarray(pitch, dtype=float) - 69) / 12)
    return found


def cents(found: NDArray[Any] | float, wanted: NDArray[Any] | float) -> NDArray[np.float64]:
    """How much higher ``found`` Hz is than ``wanted`` Hz in hundredths of a semitone."""
    ratio = np.asarray(found, dtype=float) / np.asarray(wanted, dtype=float)
    result: NDArray[np.float64] = 1200 * np.log2(ratio)
    return result


@final
@dataclass(frozen=True)
class PitchTracker:
    """The pitch of clips by swift-f0: the median fundamental frequency of the frames that it holds for voiced.

    It looks for pitches from ``low`` to ``high`` Hz, within 47 to 2093 Hz; a range that is wider than the data's makes
    for mistakes by an octave. It runs on one thread.

    Raises :class:`~sciffusion.errors.MissingExtra` if swift-f0 is not installed.
    """

    low: float = 100.0
    high: float = 1200.0
    _tracker: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        package = require("swift_f0", extra="judges")
        object.__setattr__(self, "_tracker", package.SwiftF0(threads=1, spin=False))

    def __call__(self, clips: Sequence[Clip]) -> NDArray[np.float64]:
        """Frequencies in Hz, (n,), NaN for clips without a voiced frame."""
        return np.array([self._one(clip) for clip in clips])

    def _one(self, clip: Clip) -> float:
        wave = clip.mono().resample(_RATE).normalised().samples[0].numpy()
        found = self._tracker.detect(wave, _RATE, self.low, self.high)
        voiced = found.confidence >= 0.5  # as the package is calibrated
        return float(np.median(found.pitch_hz[voiced])) if voiced.any() else float("nan")


@final
class Voices:
    """Embeddings of voices by Resemblyzer: 256 numbers of unit length, near each other for one speaker.

    A clip is repeated until it fills whole windows of 1.6 seconds, the length that the network was trained on; its
    embedding is their mean. The package's weights are read without importing it, for it needs a dozen others that serve
    nothing here.

    Raises :class:`~sciffusion.errors.MissingExtra` if Resemblyzer is not installed.
    """

    def __init__(self) -> None:
        spec = find_spec("resemblyzer")
        if spec is None or spec.origin is None:
            raise MissingExtra(
                "the embedding of voices needs the weights of Resemblyzer, which is not installed. "
                "Install it without what it depends on: pip install --no-deps resemblyzer",
                name="resemblyzer",
            )
        file = Path(spec.origin).with_name("pretrained.pt")
        weights = torch.load(file, map_location="cpu", weights_only=True)["model_state"]
        self._lstm = nn.LSTM(40, 256, 3, batch_first=True)
        self._linear = nn.Linear(256, 256)
        for name, part in (("lstm.", self._lstm), ("linear.", self._linear)):
            part.load_state_dict(
                {k.removeprefix(name): v for k, v in weights.items() if k.startswith(name)}
            )
        self._mel = torchaudio().transforms.MelSpectrogram(
            _RATE,
            n_fft=400,
            hop_length=160,
            n_mels=40,
            power=2.0,
            norm="slaney",
            mel_scale="slaney",
            pad_mode="constant",
        )

    @torch.no_grad()
    def __call__(self, clips: Sequence[Clip]) -> NDArray[np.float64]:
        """Embeddings (n, 256)."""
        return np.stack([self._one(clip).double().numpy() for clip in clips])

    def _one(self, clip: Clip) -> Tensor:
        wave, size = clip.mono().resample(_RATE).samples[0], round(1.6 * _RATE)
        windows = max(1, len(wave) // size)
        wave = wave.repeat(-(-size // len(wave)))[: windows * size]
        # as in its training: quiet clips at -30 dB, louder ones as they are
        level = wave.square().mean().sqrt().clamp(min=1e-9)
        wave = wave * (10**-1.5 / level).clamp(min=1.0)
        mels = self._mel(wave)[:, : windows * 160].T.reshape(windows, 160, 40)
        _, (hidden, _) = self._lstm(mels)
        found = nn.functional.normalize(self._linear(hidden[-1]).relu(), dim=1)
        return nn.functional.normalize(found.mean(0), dim=0)


def pesq(made: Clip, truth: Clip) -> float:
    """How good speech sounds beside its original, 1 to 4.5 (ITU-T P.862; narrow band, wide band from 16 kHz).

    NaN where it finds no speech. Clips are made mono and brought to 8 kHz or 16 kHz, and to the shorter of the lengths.

    Raises:
        MissingExtra: pesq is not installed.
        ValueError: less than a quarter of a second, which it does not judge.
    """
    package = require("pesq", extra="judges")
    rate = 16000 if min(made.rate, truth.rate) >= 16000 else 8000
    a, b = (c.mono().resample(rate).samples[0].numpy() for c in (truth, made))
    n = min(len(a), len(b))
    if n < rate // 4:
        raise ValueError(f"PESQ needs a quarter of a second at least, got {n / rate:.3f} s")
    try:
        return float(package.pesq(rate, a[:n], b[:n], "wb" if rate == 16000 else "nb"))
    except package.NoUtterancesError:
        return float("nan")
