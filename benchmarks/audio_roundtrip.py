"""What does a spectrogram lose? Recordings to log-mel spectrograms and back by Griffin-Lim, for several spectrograms.

    PYTHONPATH=/tmp/peers python benchmarks/audio_roundtrip.py fsdd.npz

Every sixth test clip of the spoken digits of at least 0.275 s (PESQ needs a quarter of a second), mono, 8 kHz, peak
0.5. PESQ: narrow band (ITU-T P.862; pesq 0.0.4, in /tmp/peers; at most 4.55), mean over the clips that it finds speech
in. LSD: the root mean square over the frequencies of the difference of log10 power above 1e-6, in dB, the mean over
frames and clips (n_fft 256, hop 64). Real-time factor: CPU time of one thread over the duration, one clip at a time.
No model of such spectrograms can sound better than this with this recovery.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from measure import environment
from torch import Tensor

from sciffusion.domains.audio import Clip, GriffinLim, LogMel, MelConfig
from sciffusion.domains.audio.datasets import split
from sciffusion.domains.audio.metrics import log_spectral_distance
from sciffusion.domains.audio.oracles import pesq
from sciffusion.domains.audio.task import waveform

RESULTS = Path(__file__).parent / "results"
WAYS = [
    (256, 64, 64, 32),
    (256, 64, 64, 100),
    (256, 64, 40, 32),
    (256, 128, 64, 32),
    (512, 128, 64, 32),
    (512, 128, 80, 32),
    (1024, 256, 64, 32),
]
COLUMNS = ("n_fft", "hop", "mels", "iterations", "clips", "PESQ", "error", "LSD, dB", "RTF")


def score(config: MelConfig, iterations: int, waves: list[Tensor]) -> list[float]:
    """Clips that PESQ judged, PESQ and its standard error, LSD, real-time factor."""
    encode, recover = LogMel(config).encode, GriffinLim(config, iterations)
    mels = [encode(w[None]) for w in waves]
    recover(mels[0])
    start = time.process_time()
    made = [recover(m)[0, : len(w)] for m, w in zip(mels, waves, strict=True)]
    spent = time.process_time() - start
    pairs = [
        tuple(Clip(x[None], config.rate) for x in pair) for pair in zip(made, waves, strict=True)
    ]
    scores = np.array([pesq(x, w) for x, w in pairs])
    found = scores[~np.isnan(scores)]
    error = np.std(found, ddof=1) / len(found) ** 0.5
    lsd = np.mean([log_spectral_distance(x, w) for x, w in pairs])
    seconds = sum(map(len, waves)) / config.rate
    return [len(found), float(np.mean(found)), float(error), float(lsd), spent / seconds]


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--every", type=int, default=6)
    parser.add_argument("--out", type=Path, default=RESULTS / "audio_roundtrip.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    clips = split("fsdd:test", options.data)
    waves = [waveform(c, MelConfig()) for c in clips[np.arange(0, len(clips), options.every)]]
    waves = [w for w in waves if len(w) >= 2200]
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for n_fft, hop, mels, iterations in WAYS:
        n, *rest = score(MelConfig(8000, n_fft, hop, mels), iterations, waves)
        cells = [n_fft, hop, mels, iterations, int(n), *(f"{v:.3g}" for v in rest)]
        lines.append(f"| {' | '.join(map(str, cells))} |")
        print(lines[-1], flush=True)
    machine = ", ".join(f"{k} {v}" for k, v in environment().items() if k != "command")
    options.out.write_text("\n".join([*lines, "", machine, ""]))


if __name__ == "__main__":
    main()
