"""Does the shipped model of notes play the note it is asked for, on the instrument it is asked for?

    python benchmarks/audio_notes.py notes.npz
    python benchmarks/audio_notes.py ... --model runs/notes/model.safetensors
    python benchmarks/audio_notes.py ... --choose --n 240 --seed 7    # which sampling settings are best

Notes of a second, all instruments in turn, at all pitches, soft and loud, sampled as the model is by
itself and made waveforms by Griffin-Lim.

* Pitch: the share within 50 cents of the note asked for, by swift-f0 (the median over voiced frames, 100 to 1200 Hz);
  beside it that of the 148 test notes, and of the same after their own spectrograms and Griffin-Lim.
* Instrument: what the judge ``notes`` hears, which was trained on the training notes alone, beside the same notes.
* Frechet distance of the judge's features from a random half (666) of the training notes; ``floor`` is that of as many
  notes of the other half.
* FLOPs and real-time factor: see ``audio_digits.py``.

``--choose`` samples other pairs of instrument and pitch, of a seed that no figure here uses, with several settings, and
tells which instruments and pitches go wrong.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from audio_digits import Counted, figures, repeated
from measure import environment, write

from sciffusion.domains import audio
from sciffusion.domains.audio import AudioModel, Clips
from sciffusion.domains.audio.datasets import split
from sciffusion.domains.audio.evaluation import evaluate
from sciffusion.domains.audio.judges import Judge
from sciffusion.domains.audio.oracles import PitchTracker, cents, hertz

RESULTS = Path(__file__).parent / "results"
GOALS = {
    "pitch": "95 %",
    "instrument_accuracy": "95 %, five points below",
}

TRIED: list[dict[str, Any]] = [
    {},
    {"shift": 3.0},
    {"low": None, "high": 0.0},
    {"low": None, "high": 0.0, "scale": 1.5},
    {"low": None, "high": 0.0, "scale": 1.5, "shift": 2.0},
]
"""Changes of the model's own sampling settings."""


def asked(n: int, instruments: tuple[str, ...]) -> dict[str, list[Any]]:
    """All instruments in turn, at pitches spread evenly, soft and loud by turns."""
    count = len(instruments)
    return {
        "instrument": [instruments[i % count] for i in range(n)],
        "pitch": [48 + 7 * i % 37 for i in range(n)],
        "velocity": [(60, 110)[(i // count) % 2] for i in range(n)],
    }


def choose(model: AudioModel, test: Clips, n: int, seed: int) -> None:
    """Print what other settings would give, on notes that are not the reported ones."""
    held_out = set(
        zip(test.labels["instrument"].tolist(), test.labels["pitch"].tolist(), strict=True)
    )
    names = model.config.classes[model.attributes.index("instrument")]
    pitches = [48 + (7 * i + i // len(names) * 3 + 11) % 37 for i in range(n)]
    given = asked(n, names) | {"pitch": pitches}
    judge, tracker = Judge.load("notes"), PitchTracker()
    played, pitch = np.array(given["instrument"]), np.array(pitches)
    for changes in TRIED:
        trial = replace(model, sampling=replace(model.sampling, **changes))
        clips = trial.sample(n, given, seconds=1.0, seed=seed, progress=False)
        off = cents(tracker(clips), hertz(pitch.astype(float)))
        right = {"pitch": (np.abs(off) <= 50).astype(float)}
        right["instrument"] = judge(clips.clips).right("instrument", played)
        for name, values in right.items():
            print(changes, name, round(float(values.mean()), 4))
            by = {k: round(float(values[played == k].mean()), 2) for k in names}
            print("  instruments below 0.9:", {k: v for k, v in by.items() if v < 0.9})
            octave = {
                k: round(float(values[pitch // 6 == k // 6].mean()), 2) for k in range(48, 84, 6)
            }
            print("  six semitones from:", octave, flush=True)
            wrong = [(played[i], pitches[i]) for i in np.flatnonzero(values == 0)]
            print(
                f"  {sum(pair in held_out for pair in wrong)} of {len(wrong)} wrong ones held out"
            )


def page(results: dict[str, Any], settings: dict[str, Any]) -> str:
    """The table."""
    columns = [results[k] for k in ("made", "recordings", "recordings_by_griffin_lim")]
    near, floor = columns[0]["frechet"], results["floor"]["frechet"]
    lines = [
        "# The shipped model of notes",
        "",
        f"{settings['n']} notes, seed {settings['seed']}, {results['calls']} calls of the network each; 95 % "
        "intervals. `pitch`: within 50 cents, by swift-f0; the instrument by the judge, which heard the training "
        "notes.",
        "",
        "| | made | 148 test notes | the same by Griffin-Lim | goal |",
        "|---|---|---|---|---|",
    ]
    for name, goal in GOALS.items():
        cells = [
            f"{100 * c[name]['value']:.1f} % ({100 * c[name]['low']:.1f} to {100 * c[name]['high']:.1f})"
            for c in columns
        ]
        lines.append(f"| {name.replace('_', ' ')} | {' | '.join(cells)} | {goal} |")
    lines += [
        "",
        f"Frechet distance ({near['n']} notes, judge's features): {near['value']:.3f} "
        f"({near['low']:.3f} to {near['high']:.3f}); of as many real notes: {floor['value']:.3f}; ratio "
        f"{results['over_floor']:.2f}.",
        "",
        f"FLOPs for a second of sound: {results['flops_per_second'] / 1e9:.1f} GFLOP. Real-time factor on one core: "
        f"{results['real_time_factor']:.3f}.",
        "",
        ", ".join(f"{k} {v}" for k, v in environment().items()),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="notes")
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS / "audio_notes.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = audio.load(args.model)
    train, test = split("notes:train", args.data), split("notes:test", args.data)
    if args.choose:
        choose(model, test, args.n, args.seed)
        return
    given = asked(args.n, model.config.classes[model.attributes.index("instrument")])
    start = time.process_time()
    clips = model.sample(args.n, given, seconds=1.0, seed=args.seed, progress=False)
    spent = time.process_time() - start
    report = evaluate(clips, train, n_pitch=args.n, seed=args.seed)
    print(report)
    again = repeated(model, test)
    one = {k: v[0] for k, v in given.items()}
    counted = Counted(model, 1.0, one)
    near, floor = report["frechet"].value, report.ceiling["frechet"].value
    results = {
        "made": figures(report),
        "floor": {k: asdict(v) for k, v in report.ceiling.items()},
        "recordings": figures(evaluate(test, n_pitch=len(test), seed=args.seed)),
        "recordings_by_griffin_lim": figures(evaluate(again, n_pitch=len(test), seed=args.seed)),
        "over_floor": near / floor,
        "calls": counted.calls,
        "flops_per_second": counted.flops,
        "real_time_factor": spent / float(np.sum([c.seconds for c in clips])),
        "parameters": sum(p.numel() for p in model.denoiser.parameters()),
    }
    settings = {"n": args.n, "seed": args.seed, "sampling": asdict(model.sampling)}
    write(args.out, settings, results)
    text = page(results, settings)
    print(text)
    args.out.with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
