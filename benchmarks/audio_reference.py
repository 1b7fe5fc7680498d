"""Does a model of references speak in the voice of the clip it is given, also in one that it has never heard?

    sciffusion train audio --config fsdd-reference data.path=fsdd.npz --out runs/fsdd-reference
    PYTHONPATH=/tmp/peers-judges python benchmarks/audio_reference.py fsdd.npz    # with Resemblyzer
    python benchmarks/audio_reference.py fsdd.npz --choose --n 40                 # which guidance is best

Neither the model nor what hears its references was trained on any clip of theo. For each of the six speakers in turn
``n`` clips are made, of all digits, each after one of the 50 test recordings of that speaker, of another digit; and as
many after three of them together. References of the five known speakers were not trained on either.

* ``digit``, ``speaker``: the share in which the judge ``fsdd`` hears the digit asked for, and the speaker of the
  reference. The judge knows all six speakers, and the model nothing of the judge.
* ``voice``: the share whose embedding by Resemblyzer is nearest to the mean of 60 training recordings of that speaker,
  among those of all six; ``cosine`` is that to its own speaker's mean, ``other`` the largest to another one's.
* ``open``: as many clips without a reference. How often a voice is heard there that nobody asked for is what the others
  are to be compared with.
* ``recordings``: the 50 test recordings of each speaker themselves.

``--choose`` makes clips with other settings and another seed, which no figure here uses.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import environment, write
from numpy.typing import NDArray

from sciffusion.bootstrap import Bootstrap
from sciffusion.domains import audio
from sciffusion.domains.audio import AudioModel, Clip, Clips
from sciffusion.domains.audio.datasets import split
from sciffusion.domains.audio.judges import Judge
from sciffusion.domains.audio.metrics import mean
from sciffusion.domains.audio.oracles import Voices

RESULTS = Path(__file__).parent / "results"
LEFT_OUT = "theo"
MODEL = "runs/fsdd-reference/model.safetensors"
GUIDANCE = 3.0
TRIED = [(1.0, 24), (1.5, 14), (2.0, 14), (3.0, 14)]
"""Guidance and steps: at most 25 calls of the network."""

SHARES, COSINES = ("digit", "speaker", "voice"), ("cosine", "other")
Heard = dict[str, NDArray[Any]]
"""What is heard in each clip, by name."""


def chosen(test: Clips, speaker: str, n: int, together: int, seed: int) -> list[list[Clip]]:
    """For n clips of digits in turn, recordings of a speaker, of other digits."""
    rng = np.random.default_rng(seed)
    mine = test.labels["speaker"] == speaker
    found = []
    for i in range(n):
        rows = np.flatnonzero(mine & (test.labels["digit"] != i % 10))
        found.append([test[int(k)] for k in rng.choice(rows, together, replace=False)])
    return found


def made(model: AudioModel, references: list[list[Clip]] | None, n: int, seed: int) -> Clips:
    """Clips of the digits in turn, each after its references."""
    given: dict[str, Any] = {"digit": [i % 10 for i in range(n)]}
    if references is not None:
        listener = model.listener
        assert listener is not None
        given["reference"] = torch.stack([listener.together(part) for part in references])
    return model.sample(n, given, seed=seed, progress=False)


class Ears:
    """The judge, and Resemblyzer where it is installed, with the mean of each speaker's recordings."""

    def __init__(self, train: Clips, per_speaker: int = 60) -> None:
        self.judge = Judge.load("fsdd")
        self.names = sorted(set(train.labels["speaker"].tolist()))
        self.voices = Voices() if find_spec("resemblyzer") else None
        if self.voices is not None:
            rng, means = np.random.default_rng(0), []
            for name in self.names:
                rows = np.flatnonzero(train.labels["speaker"] == name)
                some = train[rng.choice(rows, per_speaker, replace=False)]
                means.append(self.voices(some.clips).mean(0))
            self.means = np.stack(means) / np.linalg.norm(means, axis=1, keepdims=True)

    def __call__(self, clips: Clips, digits: NDArray[Any], speaker: str) -> Heard:
        """What they hear, beside what was asked."""
        verdict = self.judge(clips.clips)
        said = verdict.said["speaker"]
        found: Heard = {"digit": verdict.right("digit", digits)}
        found |= {"speaker": (said == speaker).astype(float), "said": said}
        if self.voices is not None:
            cosines, own = self.voices(clips.clips) @ self.means.T, self.names.index(speaker)
            found["voice"] = (cosines.argmax(1) == own).astype(float)
            found["cosine"] = cosines[:, own]
            found["other"] = np.delete(cosines, own, 1).max(1)
        return found


def heard(model: AudioModel, ears: Ears, test: Clips, n: int, seed: int) -> dict[str, Any]:
    """What is heard in all clips: by kind, then by speaker."""
    digits = np.arange(n) % 10
    rows: dict[str, dict[str, Heard]] = {
        k: {} for k in ("one clip", "three clips", "open", "recordings")
    }
    free = made(model, None, n, seed)
    for i, speaker in enumerate(ears.names):
        for kind, together in (("one clip", 1), ("three clips", 3)):
            references = chosen(test, speaker, n, together, seed + i)
            clips = made(model, references, n, seed + 100 * (i + 1) + together)
            rows[kind][speaker] = ears(clips, digits, speaker)
        rows["open"][speaker] = ears(free, digits, speaker)
        own = test[np.flatnonzero(test.labels["speaker"] == speaker)]
        rows["recordings"][speaker] = ears(own, own.labels["digit"], speaker)
    return rows


def summed(rows: dict[str, dict[str, Heard]], names: list[str]) -> dict[str, Any]:
    """Means with their intervals, of the voice that was left out and of the others; and whom the judge hears."""
    groups = {LEFT_OUT: [LEFT_OUT], "others": [s for s in names if s != LEFT_OUT]}
    found: dict[str, Any] = {}
    for kind, part in rows.items():
        found[kind] = {}
        for who, speakers in groups.items():
            figures = {}
            for key in (*SHARES, *COSINES):
                if key in part[names[0]]:
                    values = np.concatenate([part[s][key] for s in speakers])
                    figures[key] = asdict(mean(values, Bootstrap(seed=0), key, ""))
            found[kind][who] = figures
    found["heard"] = {
        s: {other: float((rows["one clip"][s]["said"] == other).mean()) for other in names}
        for s in names
    }
    return found


def page(results: dict[str, Any], settings: dict[str, Any]) -> str:
    """The tables."""
    lines = [
        "# Spoken digits in the voice of a reference",
        "",
        f"{settings['n']} clips for each speaker, seed {settings['seed']}; 95 % intervals. The model heard no clip of "
        f"{LEFT_OUT}, and none of the references of the others. `digit` and `speaker` are what the judge `fsdd` hears; "
        "`voice` is the nearest of six voices by Resemblyzer, `cosine` that to the right one, `other` the largest to a "
        "wrong one.",
        "",
        "| reference | voice of | digit | speaker | voice | cosine | other |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in ("one clip", "three clips", "open", "recordings"):
        for who, figures in results[kind].items():
            cells = []
            for key in (*SHARES, *COSINES):
                if key not in figures:
                    cells.append("")
                    continue
                times, digits = (100, 1) if key in SHARES else (1, 3)
                v, low, high = (f"{times * figures[key][k]:.{digits}f}" for k in _INTERVAL)
                cells.append(f"{v}{' %' if key in SHARES else ''} ({low} to {high})")
            name = f"{who}, never heard" if who == LEFT_OUT else "the five others"
            lines.append(f"| {kind} | {name} | {' | '.join(cells)} |")
    names = list(results["heard"])
    lines += [
        "",
        "Whom the judge hears, by the speaker of the one reference:",
        "",
        f"| | {' | '.join(names)} |",
        f"|---|{'---|' * len(names)}",
    ]
    for speaker, row in results["heard"].items():
        lines.append(f"| {speaker} | {' | '.join(f'{100 * row[s]:.0f} %' for s in names)} |")
    lines += ["", ", ".join(f"{k} {v}" for k, v in environment().items()), ""]
    return "\n".join(lines)


_INTERVAL = ("value", "low", "high")


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--guidance", type=float, default=GUIDANCE)
    parser.add_argument("--n", type=int, default=100, help="clips for each speaker and kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS / "audio_reference.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = audio.load(args.model)
    model = replace(model, sampling=replace(model.sampling, scale=args.guidance))
    test, ears = split("fsdd:test", args.data), Ears(split("fsdd:train", args.data))
    if args.choose:
        digits = np.arange(args.n) % 10
        for scale, steps in TRIED:
            trial = replace(model, sampling=replace(model.sampling, scale=scale, steps=steps))
            for speaker in (LEFT_OUT, "lucas", "george"):
                references = chosen(test, speaker, args.n, 1, args.seed + 1000)
                found = ears(made(trial, references, args.n, args.seed + 1000), digits, speaker)
                row = {k: round(float(v.mean()), 3) for k, v in found.items() if k != "said"}
                print(scale, steps, speaker, row, flush=True)
        return
    results = summed(heard(model, ears, test, args.n, args.seed), ears.names)
    settings = {"n": args.n, "seed": args.seed, "sampling": asdict(model.sampling)}
    write(args.out, settings, results)
    text = page(results, settings)
    print(text)
    args.out.with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
