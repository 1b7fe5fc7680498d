"""What do the latents of a codec lose? Recordings to latents and back, beside log-mels and Griffin-Lim.

    PYTHONPATH=/tmp/peers python benchmarks/audio_codec.py runs/codec/codec.safetensors fsdd.npz

Clips, PESQ, LSD and ``gain`` are those of ``audio_vocoder.py``; the real-time factor is that of decoding. ``numbers``
is how many a second of sound becomes: a waveform of it has 8,000.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from audio_vocoder import compared, timed
from measure import environment

from sciffusion.domains.audio import GriffinLim, LogMel, MelConfig
from sciffusion.domains.audio.codec import AudioCodec
from sciffusion.domains.audio.datasets import split
from sciffusion.domains.audio.task import waveform

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Measure, print and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("codec", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--every", type=int, default=3)
    parser.add_argument("--info", default="", help="how the codec was trained, to record")
    parser.add_argument("--out", type=Path, default=RESULTS / "audio_codec.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    codec, mel = AudioCodec.from_file(options.codec), MelConfig()
    clips = split("fsdd:test", options.data)
    clips = clips[np.arange(0, len(clips), options.every)]
    found = [w for w in (waveform(c, codec.config) for c in clips) if len(w) >= 2200]
    recover, encode = GriffinLim(mel), LogMel(mel).encode
    made = {
        "log-mels, Griffin-Lim, 32": timed(recover, [encode(w[None]) for w in found]),
        "codec": timed(codec.waves, [codec.latents(w[None]) for w in found]),
    }
    rows, heard = compared(made, found, mel.rate)
    rows["log-mels, Griffin-Lim, 32"]["numbers"] = mel.rate // mel.hop * mel.mels
    rows["codec"]["numbers"] = codec.config.rate // codec.config.hop * codec.config.channels
    record = {
        "clips": len(found),
        "clips_of_pesq": heard,
        "seconds": round(sum(map(len, found)) / mel.rate, 1),
        "parameters": sum(p.numel() for p in codec.parameters()),
        "codec": options.info,
        "rows": rows,
        **environment(),
    }
    options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
