"""How do the speakers and instruments of the audio data sound? Measured, for captions that are true.

    python benchmarks/audio_voices.py FOLDER   # that holds fsdd/fsdd.npz and gm_notes/gm_notes.npz

Pitch: the largest peak of the normalised autocorrelation (lags of 70 to 300 Hz) of frames of 40 ms, of frames that are
loud (within 20 dB of the clip's loudest) and periodic (peak above 0.6); the median over a clip, then over the clips.
Duration: the median over the clips, of digits that all speakers say equally often. Brightness: the centroid of the
magnitude spectrum of the whole clip, the median over the clips. Training clips only. The words that these figures
become are those of ``captions.py``: the lower, middle and upper third.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sciffusion.domains.audio import Clips
from sciffusion.domains.audio.datasets import split

RESULTS = Path(__file__).parent / "results"


def pitch(x: NDArray[np.float32], rate: int) -> float:
    """The median fundamental frequency in Hz; NaN if no frame is periodic."""
    size, hop = int(0.04 * rate), int(0.01 * rate)
    if len(x) < size:
        return float("nan")
    frames = np.lib.stride_tricks.sliding_window_view(x, size)[::hop]
    frames = frames - frames.mean(1, keepdims=True)
    energy = (frames**2).sum(1)
    frames = frames[energy > 0.01 * energy.max()]
    spectrum = np.abs(np.fft.rfft(frames, 2 * size)) ** 2
    r = np.fft.irfft(spectrum)[:, :size]
    # the overlap shrinks with the lag: without this, long lags look less periodic than they are
    r = r / np.arange(size, 0, -1)
    r = r / r[:, :1]
    low, high = int(rate / 300), int(rate / 70)
    best = r[:, low : high + 1].argmax(1) + low
    good = r[np.arange(len(r)), best] > 0.6
    return float(np.median(rate / best[good])) if good.any() else float("nan")


def centroid(x: NDArray[np.float32], rate: int) -> float:
    """The mean frequency in Hz, weighted by the magnitude spectrum."""
    magnitude = np.abs(np.fft.rfft(x))
    return float((magnitude * np.fft.rfftfreq(len(x), 1 / rate)).sum() / magnitude.sum())


def table(clips: Clips, label: str, pitched: bool) -> dict[str, dict[str, float]]:
    """The medians of every class of a label."""
    found = {}
    for name in np.unique(clips.labels[label]).tolist():
        part = [clips[int(i)] for i in np.flatnonzero(clips.labels[label] == name)]
        waves = [(clip.samples[0].numpy(), clip.rate) for clip in part]
        row: dict[str, float] = {
            "brightness": round(float(np.median([centroid(*w) for w in waves])))
        }
        if pitched:
            row["pitch"] = round(float(np.nanmedian([pitch(*w) for w in waves])))
            row["seconds"] = round(float(np.median([clip.seconds for clip in part])), 3)
        found[str(name)] = row
    return found


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    found = {
        "speakers": table(split("fsdd:train", data / "fsdd" / "fsdd.npz"), "speaker", True),
        "instruments": table(
            split("notes:train", data / "gm_notes" / "gm_notes.npz"), "instrument", False
        ),
    }
    for kind, rows in found.items():
        print(kind)
        for name, row in rows.items():
            print(f"  {name:22s}", row)
    made = {"command": "python benchmarks/audio_voices.py DATA"} | found
    (RESULTS / "audio_voices.json").write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
