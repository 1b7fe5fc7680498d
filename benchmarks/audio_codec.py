"""What do the latents of a codec lose? Recordings to latents and back, beside log-mels and Griffin-Lim.

    PYTHONPATH=/tmp/peers python benchmarks/audio_codec.py runs/codec/codec.safetensors fsdd.npz

Clips, PESQ, LSD and ``gain`` (over log-mels of as many numbers and the same hop) are those of ``audio_vocoder.py``; the
real-time factor is that of decoding. ``numbers`` is how many a second of sound becomes: a waveform of it has 8,000. All
ways end with 32 iterations of Griffin-Lim from the same phases. ``linear`` is what the codec's training started from,
the principal components of the training recordings.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from audio_table import Row, write
from audio_vocoder import compared, timed

from sciffusion.domains.audio import GriffinLim, LogMel, MelConfig
from sciffusion.domains.audio.codec import AudioCodec
from sciffusion.domains.audio.datasets import split
from sciffusion.domains.audio.task import waveform

MELS = (MelConfig(mels=32), MelConfig(n_fft=512, hop=128), MelConfig())


def main() -> None:
    """Measure, print and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("codec", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--every", type=int, default=3)
    parser.add_argument("--info", default="", help="how the codec was trained, to record")
    options = parser.parse_args()
    torch.set_num_threads(1)
    codec = AudioCodec.from_file(options.codec)
    config = codec.config
    linear = AudioCodec(config).eval()
    linear.begin([waveform(c, config) for c in split("fsdd:train", options.data)])
    clips = split("fsdd:test", options.data)
    clips = clips[np.arange(0, len(clips), options.every)]
    found = [w for w in (waveform(c, config) for c in clips) if len(w) >= 2200]
    made, numbers = {}, {}
    for mel in MELS:
        name = f"{mel.mels} log-mels, hop {mel.hop}"
        made[name] = timed(GriffinLim(mel), [LogMel(mel).encode(w[None]) for w in found])
        numbers[name] = mel.rate * mel.mels // mel.hop
    for name, way in (("codec, linear", linear), ("codec", codec)):
        made[name] = timed(way.waves, [way.latents(w[None]) for w in found])
        numbers[name] = config.rate * config.channels // config.hop
    rows, heard = compared(made, found, config.rate)
    table: list[Row] = [{"way": k, "numbers": numbers[k], **row} for k, row in rows.items()]
    settings = {
        "clips": len(found),
        "clips_of_pesq": heard,
        "seconds": round(sum(map(len, found)) / config.rate, 1),
        "parameters": sum(p.numel() for p in codec.parameters()),
        "codec": options.info,
    }
    write("audio_codec", settings, table, f"{json.dumps(settings)}")


if __name__ == "__main__":
    main()
