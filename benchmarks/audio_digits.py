"""Does the shipped model of spoken digits say the digit it is asked for, in the voice it is asked for?

    python benchmarks/audio_digits.py fsdd.npz
    PYTHONPATH=/tmp/peers python benchmarks/audio_digits.py ... --voices 1000    # with Resemblyzer
    python benchmarks/audio_digits.py ... --model runs/fsdd-latent/model.safetensors --out FILE    # another model
    python benchmarks/audio_digits.py ... --choose                           # which sampling settings are best

1,000 clips, all digits of all speakers in turn, sampled as the model is by itself and made waveforms by Griffin-Lim.

* Accuracies: the share in which the judge ``fsdd`` hears the digit, and the speaker. It was trained on the training
  takes alone; what it gets right of the 300 test recordings, and of the same recordings after their own spectrograms
  and Griffin-Lim, bounds what can be measured.
* Frechet distance of the judge's features from a random half (1,350) of the training recordings; ``floor`` is that of
  as many recordings of the other half. ``over_floor`` is their ratio.
* FLOPs: two for each multiplication and addition of the network's matrix products, counted by torch's FlopCounterMode,
  over the seconds made; the Fourier transforms of Griffin-Lim are not counted. DiffWave's (24.1 million parameters, its
  published SC09 network of 36 layers and 256 channels, counted in the same way) are 606 GFLOP a call for a second at
  16 kHz, 200 calls: 121 TFLOP. Ours are for 8 kHz.
* Real-time factor: CPU time of one thread over the seconds made, spectrograms and Griffin-Lim together, in batches.

``--choose`` samples other clips (another seed, which no figure here uses) with several settings.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import environment, write
from torch.utils.flop_counter import FlopCounterMode

from sciffusion.domains import audio
from sciffusion.domains.audio import AudioModel, Clips, SamplingConfig
from sciffusion.domains.audio.datasets import split
from sciffusion.domains.audio.evaluation import evaluate
from sciffusion.report import Report

RESULTS = Path(__file__).parent / "results"
DIFFWAVE = 121e12
"""FLOPs of DiffWave for a second of sound, see above."""

TRIED = [
    SamplingConfig(),
    SamplingConfig(scale=1.0, steps=24),
    SamplingConfig(scale=2.0),
    SamplingConfig(scale=2.5),
    SamplingConfig(scale=3.0),
    SamplingConfig(scale=2.0, high=2.0, steps=12),
    SamplingConfig(scale=1.5, shift=2.0),
    SamplingConfig(scale=2.0, shift=2.0),
    SamplingConfig(scale=2.0, order=3),
]
"""Settings of at most 25 calls."""


def asked(n: int, speakers: tuple[str, ...]) -> dict[str, list[Any]]:
    """All digits of all speakers in turn."""
    return {
        "digit": [i % 10 for i in range(n)],
        "speaker": [speakers[(i // 10) % len(speakers)] for i in range(n)],
    }


class Counted:
    """The calls and FLOPs of one clip, with every matrix product counted."""

    def __init__(self, model: AudioModel, seconds: float, given: dict[str, Any]) -> None:
        self.calls = 0

        def count(*_: object) -> None:
            self.calls += 1

        handle = model.denoiser.net.register_forward_hook(count)
        with FlopCounterMode(display=False) as counter:
            model.sample(1, given, seconds=seconds, progress=False)
        handle.remove()
        self.flops = counter.get_total_flops() / seconds


def repeated(model: AudioModel, clips: Clips) -> Clips:
    """Recordings by way of their own spectrograms."""
    made = model.decode(model.encode(list(clips)), clips.lengths.tolist())
    return Clips([c.normalised() for c in made], clips.labels)


def figures(report: Report) -> dict[str, Any]:
    """The figures of a report, those of real data apart."""
    return {name: asdict(metric) for name, metric in report.metrics.items()}


def choose(model: AudioModel, real: Clips, n: int, seed: int) -> list[dict[str, Any]]:
    """What other settings would give, on clips that are not the reported ones."""
    speakers = model.config.classes[1]
    rows = []
    for sampling in TRIED:
        trial = replace(model, sampling=sampling)
        clips = trial.sample(n, asked(n, speakers), seed=seed, progress=False)
        report = evaluate(clips, real, seed=seed)
        row = asdict(sampling) | {
            "calls": Counted(trial, 0.5, {"digit": 0, "speaker": speakers[0]}).calls,
            "digit": report["digit_accuracy"].value,
            "speaker": report["speaker_accuracy"].value,
            "frechet": report["frechet"].value,
            "floor": report.ceiling["frechet"].value,
        }
        rows.append(row)
        print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
    return rows


def page(results: dict[str, Any], settings: dict[str, Any]) -> str:
    """The table."""
    made, test, again = (results[k] for k in ("made", "recordings", "recordings_by_griffin_lim"))
    near, floor = made["frechet"], results["floor"]["frechet"]
    lines = [
        f"# Spoken digits by the model {settings['model']}",
        "",
        f"{settings['n']} clips, seed {settings['seed']}, {results['calls']} calls of the network each; 95 % "
        "intervals. "
        "The judge hears digits and speakers; it was trained on the training recordings.",
        "",
        "| | made | 300 test recordings | the same by Griffin-Lim | goal |",
        "|---|---|---|---|---|",
    ]
    for name, goal in (("digit_accuracy", "97 %"), ("speaker_accuracy", "90 %")):
        cells = [
            f"{100 * m['value']:.1f} % ({100 * m['low']:.1f} to {100 * m['high']:.1f})"
            for m in (made[name], test[name], again[name])
        ]
        lines.append(f"| {name.replace('_', ' ')} | {' | '.join(cells)} | {goal} |")
    if "voice_accuracy" in made:
        cells = [f"{100 * m['voice_accuracy']['value']:.1f} %" for m in (made, test, again)]
        lines.append(f"| speaker by Resemblyzer | {' | '.join(cells)} | |")
    lines += [
        "",
        f"Frechet distance ({near['n']} clips, judge's features): {near['value']:.3f} "
        f"({near['low']:.3f} to {near['high']:.3f}); of as many recordings: {floor['value']:.3f}; ratio "
        f"{results['over_floor']:.2f} (goal: at most 3).",
        "",
        f"FLOPs for a second of sound: {results['flops_per_second'] / 1e9:.1f} GFLOP, "
        f"{results['fewer_flops']:.0f} times fewer than DiffWave's 121 TFLOP (16 kHz; ours are for 8 kHz). "
        f"Real-time factor on one core: {results['real_time_factor']:.3f}.",
        "",
        ", ".join(f"{k} {v}" for k, v in environment().items()),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="fsdd")
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--voices", type=int, default=0, metavar="N", help="clips for Resemblyzer")
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS / "audio_digits.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = audio.load(args.model)
    train, test = split("fsdd:train", args.data), split("fsdd:test", args.data)
    name = Path(args.model).stem
    settings = {"model": name, "n": args.n, "seed": args.seed, "sampling": asdict(model.sampling)}
    if args.choose:
        rows = choose(model, train, args.n, args.seed)
        write(args.out, settings, {"tried": rows})
        return
    speakers = model.config.classes[model.attributes.index("speaker")]
    start = time.process_time()
    clips = model.sample(args.n, asked(args.n, speakers), seed=args.seed, progress=False)
    spent = time.process_time() - start
    heard = args.voices
    report = evaluate(clips, train, n_voices=heard, seed=args.seed)
    print(report)
    made_again = repeated(model, test)
    counted = Counted(model, 1.0, {"digit": 0, "speaker": speakers[0]})
    seconds = float(np.sum([c.seconds for c in clips]))
    near, floor = report["frechet"].value, report.ceiling["frechet"].value
    results = {
        "made": figures(report),
        "floor": {k: asdict(v) for k, v in report.ceiling.items() if k != "digit_accuracy"},
        "recordings": figures(evaluate(test, train, n_voices=heard, seed=args.seed)),
        "recordings_by_griffin_lim": figures(
            evaluate(made_again, train, n_voices=heard, seed=args.seed)
        ),
        "over_floor": near / floor,
        "calls": counted.calls,
        "flops_per_second": counted.flops,
        "fewer_flops": DIFFWAVE / counted.flops,
        "real_time_factor": spent / seconds,
        "seconds": seconds,
        "parameters": sum(p.numel() for p in model.denoiser.parameters()),
    }
    write(args.out, settings, results)
    text = page(results, settings)
    print(text)
    args.out.with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
