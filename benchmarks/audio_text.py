"""Does a model of spoken digits say what it is asked in words, also in words that it has not seen?

    python benchmarks/audio_text.py fsdd.npz
    python benchmarks/audio_text.py fsdd.npz --model runs/fsdd-text/model.safetensors

Texts are drawn for digits and speakers in turn, once in phrasings to learn from and once in phrasings and words that
are held out. A clip is made of each; a classifier hears which digit and which speaker it is. A speaker is right if the
text is true of him: the one named, or any with the qualities told; texts that tell nothing of the speaker do not count
there, and ``chance`` is what a guess would get. The classifier is the judge ``fsdd``, which was trained on the training
clips alone; what it gets right of recordings it has not heard (``recordings``) bounds everything else. Durations are
drawn from all training clips, for texts do not tell them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from measure import write

from sciffusion.domains.audio import AudioModel, load
from sciffusion.domains.audio.captions import PACE, PITCH, SPEAKERS, TONE, DigitCaptions, qualities
from sciffusion.domains.audio.datasets import split
from sciffusion.domains.audio.judges import Judge
from sciffusion.text import wordllama

RESULTS = Path(__file__).parent / "results"
NAMES = tuple(SPEAKERS)


def true_of(text: str) -> list[str]:
    """The speakers of whom a caption is true."""
    words = text.replace(",", "").split()
    named = [s for s in NAMES if s in words]
    if named:
        return named
    found = list(NAMES)
    for kind, table in (("pitch", PITCH), ("pace", PACE), ("tone", TONE)):
        for side in (-1, 1):
            if set(words) & {*table.all(side, False), *table.all(side, True)}:
                found = [s for s in found if qualities(s).get(kind) == side]
    return found


def asked(
    model: AudioModel, judge: Judge, n: int, held_out: bool, guidance: float, seed: int
) -> dict[str, float]:
    """How often n texts get what they ask for."""
    rng, source = np.random.default_rng(seed), DigitCaptions()
    digits = [i % 10 for i in range(n)]
    texts = [
        source.draw({"digit": d, "speaker": NAMES[(i // 10) % 6]}, rng, held_out=held_out)
        for i, d in enumerate(digits)
    ]
    given = wordllama().condition(texts)
    clips = model.sample(n, given, guidance=guidance, seed=seed, progress=False)
    verdict = judge(clips)
    speaker = verdict.said["speaker"]
    fits = [true_of(text) for text in texts]
    told = [i for i in range(n) if len(fits[i]) < len(NAMES)]
    return {
        "digit": float(verdict.right("digit", digits).mean()),
        "speaker": float(np.mean([speaker[i] in fits[i] for i in told])),
        "chance": float(np.mean([len(fits[i]) / len(NAMES) for i in told])),
        "texts": n,
        "texts that tell of the speaker": len(told),
    }


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="fsdd-text")
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 2.0])
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = load(args.model)
    judge, test = Judge.load("fsdd"), split("fsdd:test", args.data)
    verdict = judge(test)
    right = {k: float(verdict.right(k, test.labels[k]).mean()) for k in ("digit", "speaker")}
    rows: dict[str, dict[str, float]] = {"recordings": right}
    for scale in args.guidance:
        for name, held_out in (("seen", False), ("held out", True)):
            key = f"{name}, guidance {scale:g}"
            rows[key] = asked(model, judge, args.n, held_out, scale, args.seed)
    for name, row in rows.items():
        print(f"{name:24s}", {k: round(v, 3) for k, v in row.items()}, flush=True)
    info = dict(model.info or {})
    settings = {"seed": args.seed, "n": args.n, "steps": info.get("steps")}
    write(RESULTS / "audio_text.json", settings, rows)


if __name__ == "__main__":
    main()
