"""Do long continuations drift: in level, in brightness, in pitch?

    python benchmarks/audio_extend.py --digits fsdd.npz --notes gm_notes.npz

Held-out clips are made ten times as long as the longest clip that the models were trained on (1 s): the inner 0.6 s
of notes of instruments that sustain, without attack and release, told instrument and pitch; and digits, told digit
and speaker. Each window of a second is compared with what was given: its level (root mean square, dB), its spectral
centroid (as a ratio), and for notes the distance of the pitch that swift-f0 hears from the note's, in cents, of windows
in which it hears one (``voiced``). Means over clips with 95 % bootstrap intervals. A note that dies away, or a speaker
who falls silent, has not drifted in spectrum, but does show here, in level.

``digits``: what follows a word that is over is silence, if the model is right. ``words``: so a speaker goes on by more
words; random digits, asked of the same speaker, follow the given one (``joined``), and the shipped judge says how many
of those that begin in each second are heard as digit and speaker.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from audio_table import Row, chosen, with_interval, write
from torch import Tensor

from sciffusion.domains import audio
from sciffusion.domains.audio import AudioModel, Clip, Clips, joined
from sciffusion.domains.audio.datasets import split
from sciffusion.domains.audio.judges import Judge
from sciffusion.domains.audio.oracles import PitchTracker, cents, hertz

SUSTAINED = ("flute", "clarinet", "violin", "trumpet", "alto_sax", "cello", "oboe", "trombone")
SECONDS = 10
PAUSE = 0.15


def level(wave: Tensor) -> float:
    """dB."""
    return float(20 * wave.square().mean().clamp(min=1e-12).sqrt().log10())


def centroid(model: AudioModel, wave: Tensor) -> float:
    """The mean frequency of the magnitudes, Hz."""
    framing = model.config.mel.framing
    magnitude = framing.analyse(wave[None])[0].abs().sum(1)
    hertz = torch.arange(len(magnitude)) * (model.config.mel.rate / framing.n_fft)
    return float((hertz * magnitude).sum() / magnitude.sum().clamp(min=1e-9))


def drift(
    what: str, model: AudioModel, clips: Clips, givens: list[Mapping[str, object]], seed: int
) -> list[Row]:
    """A row for every second of the continuations."""
    tracker = PitchTracker(60.0, 1500.0)
    found, spent = [], time.process_time()
    for clip, given in zip(clips, givens, strict=True):
        made = model.extend(clip, float(SECONDS), given=given, seed=seed)[0]
        rate, start = made.rate, clip.samples[0]
        rows = []
        for k in range(SECONDS):
            wave = made.samples[0, k * rate : (k + 1) * rate]
            if k == 0:
                wave = wave[len(start) :]
            off = np.nan
            if "pitch" in given:
                heard = tracker([Clip(wave[None], rate)])[0]
                off = float(cents(heard, hertz(float(str(given["pitch"])))))
            bright = centroid(model, wave) / centroid(model, start)
            rows.append((level(wave) - level(start), bright, off))
        found.append(rows)
        print(what, np.round(rows, 2).tolist(), flush=True)
    spent = (time.process_time() - spent) / len(found)
    table: list[Row] = []
    for k, values in enumerate(np.array(found).transpose(1, 0, 2)):
        row: Row = {
            "": what,
            "second": str(k + 1),
            "level, dB": with_interval(values[:, 0].tolist()),
            "centroid, ratio": with_interval(values[:, 1].tolist()),
        }
        off = values[:, 2]
        if "pitch" in givens[0]:
            voiced = off[~np.isnan(off)]
            row["voiced"] = f"{len(voiced)} of {len(off)}"
            row["within 50 cents"] = f"{int((np.abs(voiced) < 50).sum())} of {len(off)}"
        table.append(row | ({"CPU s": spent} if k == 0 else {}))
    return table


def words(model: AudioModel, clips: Clips, seed: int) -> list[Row]:
    """A row for every second of a given word and those that follow it."""
    rng, judge, spent = np.random.default_rng(seed), Judge.load("fsdd"), time.process_time()
    levels: list[list[float]] = []
    right: list[list[list[float]]] = [[[], []] for _ in range(SECONDS)]
    for i, clip in enumerate(clips):
        asked = {
            "digit": rng.integers(0, 10, 2 * SECONDS).tolist(),
            "speaker": [clips.labels["speaker"][i]] * (2 * SECONDS),
        }
        made = model.sample(2 * SECONDS, asked, seed=seed + i, progress=False)
        heard, begins = judge(made.clips), clip.seconds + PAUSE
        verdicts = [heard.right(k, np.asarray(asked[k])).tolist() for k in ("digit", "speaker")]
        for k, part in enumerate(made):
            if begins < SECONDS:
                for found, verdict in zip(right[int(begins)], verdicts, strict=True):
                    found.append(verdict[k])
            begins += part.seconds + PAUSE
        whole = joined([clip, *made], PAUSE).samples[0].split(clip.rate)[:SECONDS]
        levels.append([level(w) - level(clip.samples[0]) for w in whole])
    spent = (time.process_time() - spent) / len(clips)
    table: list[Row] = []
    for k, (values, (digit, speaker)) in enumerate(zip(np.array(levels).T, right, strict=True)):
        row: Row = {
            "": "words",
            "second": str(k + 1),
            "level, dB": with_interval(values.tolist()),
            "digit": f"{int(sum(digit))} of {len(digit)}",
            "speaker": f"{int(sum(speaker))} of {len(speaker)}",
        }
        table.append(row | ({"CPU s": spent} if k == 0 else {}))
    return table


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--digits", type=Path, help="fsdd.npz")
    parser.add_argument("--notes", type=Path, help="gm_notes.npz")
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    if args.notes is not None:
        test = split("notes:test", args.notes)
        names = np.asarray(test.labels["instrument"])
        picked = [int(np.flatnonzero(names == name)[1]) for name in SUSTAINED[: args.n]]
        inner = Clips([test[i].cut(0.1, 0.7) for i in picked])
        asked = [{k: test.labels[k][i] for k in ("instrument", "pitch")} for i in picked]
        rows += drift("notes", audio.load("notes"), inner, asked, args.seed)
    if args.digits is not None:
        test = split("fsdd:test", args.digits)
        picked = chosen(test, args.n, 0.3, args.seed)
        asked = [{k: test.labels[k][i] for k in ("digit", "speaker")} for i in picked]
        rows += drift("digits", audio.load("fsdd"), test[np.array(picked)], asked, args.seed)
        rows += words(audio.load("fsdd"), test[np.array(picked)], args.seed)
    kinds = [k for k in ("notes", "digits") if getattr(args, k) is not None]
    write(
        "_".join(["audio_extend", *kinds]),
        {"clips": args.n, "seed": args.seed, "seconds": SECONDS},
        rows,
        f"{args.n} clips of each kind, seed {args.seed}; the first second is what follows the given part within it.",
    )


if __name__ == "__main__":
    main()
