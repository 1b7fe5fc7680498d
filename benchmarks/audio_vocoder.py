"""Does a trained vocoder make better waveforms than Griffin-Lim at the same hop? Recordings to spectrograms and back.

    PYTHONPATH=/tmp/peers python benchmarks/audio_vocoder.py runs/vocoder/vocoder.safetensors fsdd.npz

Every third test clip of the spoken digits of at least 0.275 s (PESQ needs a quarter of a second). PESQ: narrow band
(ITU-T P.862; pesq 0.0.4, in /tmp/peers), mean over the clips and standard error of it; ``gain`` is the mean
difference to Griffin-Lim, clip by clip, with its standard error. Clips in which PESQ finds no utterance for any of the
ways are left out for all; ``unheard`` counts them by way. LSD: the root mean square over the frequencies of the
difference of log10 power above 1e-6, in dB, the mean over frames and clips (n_fft 256, hop 64). Real-time factor: CPU
time of one thread over the duration, one clip at a time, so below 1 is faster than the sound. The rows with ``then n``
go to and fro n times as Griffin-Lim does, from the vocoder's magnitudes and phases; all n were fixed beforehand.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sciffusion.domains.audio import Clip, GriffinLim, LogMel
from sciffusion.domains.audio.datasets import split
from sciffusion.domains.audio.metrics import log_spectral_distance
from sciffusion.domains.audio.oracles import pesq
from sciffusion.domains.audio.task import waveform
from sciffusion.domains.audio.vocoder import Vocoder

RESULTS = Path(__file__).parent / "results"


def refined(vocoder: Vocoder, iterations: int) -> Callable[[Tensor], Tensor]:
    """The vocoder's waveform, then Griffin-Lim's iterations with momentum 0.99."""
    framing = vocoder.config.framing

    @torch.no_grad()
    def make(mel: Tensor) -> Tensor:
        logs, phase = vocoder.net(mel)
        magnitude = logs.exp()
        spectrum = torch.polar(magnitude, phase)
        share, before = 0.99 / 1.99, torch.zeros_like(spectrum)
        for _ in range(iterations):
            fitting = framing.analyse(framing.synthesise(spectrum))
            spectrum = fitting - share * before
            spectrum = magnitude * spectrum / spectrum.abs().clamp(min=1e-9)
            before = fitting
        return framing.synthesise(spectrum)

    return make


def timed(way: Callable[[Tensor], Tensor], given: Sequence[Tensor]) -> tuple[list[Tensor], float]:
    """What a way makes of each input, and the CPU time that it took, seconds."""
    way(given[0])
    begin = time.process_time()
    return [way(x)[0] for x in given], time.process_time() - begin


def compared(
    made: Mapping[str, tuple[list[Tensor], float]], found: Sequence[Tensor], rate: int
) -> tuple[dict[str, dict[str, float]], int]:
    """The figures of each way against the recordings ``found``, and in how many clips PESQ hears all ways.

    ``gain`` is relative to the first way.
    """
    scores: dict[str, NDArray[np.float64]] = {}
    rows: dict[str, dict[str, float]] = {}
    for name, (waves, spent) in made.items():
        pairs = [
            (Clip(x[None, : len(w)], rate), Clip(w[None], rate))
            for x, w in zip(waves, found, strict=True)
        ]
        scores[name] = np.array([pesq(x, w) for x, w in pairs])
        rows[name] = {
            "unheard": int(np.isnan(scores[name]).sum()),
            "lsd_db": round(float(np.mean([log_spectral_distance(x, w) for x, w in pairs])), 2),
            "real_time_factor": round(spent * rate / sum(map(len, found)), 4),
        }
    # the same clips for all: those in which every way leaves an utterance
    heard = ~np.isnan(np.stack(list(scores.values()))).any(0)
    reference = next(iter(scores.values()))[heard]
    for name, row in rows.items():
        mine = scores[name][heard]
        for key, values in (("pesq_nb", mine), ("gain", mine - reference)):
            row[key] = round(float(values.mean()), 3)
            error = values.std(ddof=1) / np.sqrt(len(values))
            row[f"{key}_standard_error"] = round(float(error), 3)
        print(name, row, flush=True)
    return rows, int(heard.sum())


def main() -> None:
    """Measure, print and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("vocoder", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--every", type=int, default=3)
    parser.add_argument("--info", default="", help="how the vocoder was trained, to record")
    parser.add_argument("--out", type=Path, default=RESULTS / "audio_vocoder.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    vocoder = Vocoder.from_file(options.vocoder)
    config, clips = vocoder.config, split("fsdd:test", options.data)
    clips = clips[np.arange(0, len(clips), options.every)]
    found = [w for w in (waveform(c, config) for c in clips) if len(w) >= 2200]
    seconds = sum(len(w) for w in found) / config.rate
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "Griffin-Lim, 32": GriffinLim(config),
        "vocoder": vocoder,
        "vocoder, then 8": refined(vocoder, 8),
        "vocoder, then 32": refined(vocoder, 32),
    }
    mels = [LogMel(config).encode(w[None]) for w in found]
    made = {name: timed(way, mels) for name, way in ways.items()}
    rows, heard = compared(made, found, config.rate)
    record = {
        "clips": len(found),
        "clips_of_pesq": heard,
        "seconds": round(seconds, 1),
        "spectrogram": {"n_fft": config.n_fft, "hop": config.hop, "mels": config.mels},
        "parameters": sum(p.numel() for p in vocoder.net.parameters()),
        "vocoder": options.info,
        "rows": rows,
    }
    options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
