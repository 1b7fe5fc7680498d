"""Does a spoken digit stay the same digit while its speaker becomes another one?

    python benchmarks/audio_edit.py fsdd.npz

Test clips are edited to the next speaker by the alphabet at several strengths, told the speaker only, or the digit as
well. The shipped judge hears which digit and which speaker it is. ``likeness`` is the correlation of the edit's log-mel
with the clip's, over frames and frequencies: what is left of how the word was said. Intervals are 95 % bootstrap ones
over clips.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from audio_table import Row, chosen, with_interval, write

from sciffusion.domains import audio
from sciffusion.domains.audio import AudioModel, Clip
from sciffusion.domains.audio.datasets import split
from sciffusion.domains.audio.judges import Judge
from sciffusion.domains.audio.task import waveform


def likeness(model: AudioModel, clip: Clip, other: Clip) -> float:
    """The correlation of two log-mels of one length."""
    a, b = (
        model.frames(waveform(c, model.config.frontend)).flatten().numpy() for c in (clip, other)
    )
    return float(np.corrcoef(a, b)[0, 1])


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--n", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, judge, test = audio.load("fsdd"), Judge.load("fsdd"), split("fsdd:test", args.data)
    rows = chosen(test, args.n, 0.2, args.seed)
    names = np.unique(test.labels["speaker"]).tolist()
    others = [names[(names.index(test.labels["speaker"][i]) + 1) % len(names)] for i in rows]
    table: list[Row] = []
    for told in ("speaker", "speaker and digit"):
        for strength in (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
            made = [
                model.edit(
                    test[i],
                    strength,
                    given={"speaker": s}
                    | ({"digit": test.labels["digit"][i]} if "digit" in told else {}),
                    seed=args.seed,
                )[0]
                for i, s in zip(rows, others, strict=True)
            ]
            heard = judge(made)
            digit = heard.right("digit", test.labels["digit"][rows])
            speaker = heard.right("speaker", np.array(others))
            like = [likeness(model, test[i], clip) for i, clip in zip(rows, made, strict=True)]
            found = {
                "digit kept": digit,
                "speaker reached": speaker,
                "both": digit * speaker,
                "likeness": np.array(like),
            }
            row: Row = {"told": told, "strength": strength}
            table.append(row | {k: with_interval(v.tolist()) for k, v in found.items()})
            print(table[-1], flush=True)
    write(
        "audio_edit",
        {"clips": len(rows), "seed": args.seed, "model": "fsdd"},
        table,
        f"{len(rows)} test clips, seed {args.seed}.",
    )


if __name__ == "__main__":
    main()
