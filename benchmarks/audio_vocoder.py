"""Does a trained vocoder make better waveforms than Griffin-Lim at the same hop? Recordings to spectrograms and back.

    PYTHONPATH=/tmp/peers python benchmarks/audio_vocoder.py fsdd.npz

Test clips of the spoken digits of at least 0.275 s (PESQ needs a quarter of a second), every third of them. PESQ:
narrow band (ITU-T P.862; pesq 0.0.4, in /tmp/peers), mean over the clips and standard error of it; ``gain`` is the mean
difference to Griffin-Lim, clip by clip, with its standard error. Clips in which PESQ finds no utterance for any of the
ways are left out for all; ``unheard`` counts them by way. LSD: the root mean square over the frequencies of the
difference of log10 power above 1e-6, in dB, the mean over frames and clips (n_fft 256, hop 64). Real-time factor: CPU
time of one thread over the duration, one clip at a time, so below 1 is faster than the sound. ``right magnitudes`` are
those of the recordings, which no spectrogram tells, and Griffin-Lim: what a perfect vocoder of this kind would reach.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from audio_table import Row, write
from numpy.typing import NDArray
from torch import Tensor

from sciffusion.domains.audio import Clip, GriffinLim, LogMel
from sciffusion.domains.audio.datasets import split
from sciffusion.domains.audio.metrics import log_spectral_distance
from sciffusion.domains.audio.oracles import pesq
from sciffusion.domains.audio.task import waveform
from sciffusion.domains.audio.vocoder import Vocoder


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
    parser.add_argument("data", type=Path)
    parser.add_argument("--vocoder", default="fsdd", help="the name of one that ships, or a file")
    parser.add_argument("--every", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    vocoder = Vocoder.load(options.vocoder)
    config, clips = vocoder.config, split("fsdd:test", options.data)
    clips = clips[np.arange(0, len(clips), options.every)]
    found = [w for w in (waveform(c, config) for c in clips) if len(w) >= 2200]
    seconds = sum(len(w) for w in found) / config.rate
    plain = GriffinLim(config)
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "Griffin-Lim, 32": lambda wave: plain(LogMel(config).encode(wave)),
        "Griffin-Lim, 100": lambda wave: GriffinLim(config, 100)(LogMel(config).encode(wave)),
        "vocoder": lambda wave: vocoder(LogMel(config).encode(wave)),
        "right magnitudes": lambda wave: plain.waves(config.framing.analyse(wave).abs()),
    }
    made = {name: timed(way, [w[None] for w in found]) for name, way in ways.items()}
    rows, heard = compared(made, found, config.rate)
    settings = {
        "clips": len(found),
        "clips_of_pesq": heard,
        "seconds": round(seconds, 1),
        "spectrogram": {"n_fft": config.n_fft, "hop": config.hop, "mels": config.mels},
        "parameters": sum(p.numel() for p in vocoder.net.parameters()),
    }
    notes = (
        f"{len(found)} test clips, {heard} of them in PESQ; n_fft {config.n_fft}, hop {config.hop}."
    )
    table: list[Row] = [{"": name} | row for name, row in rows.items()]
    write("audio_vocoder", settings, table, notes)


if __name__ == "__main__":
    main()
