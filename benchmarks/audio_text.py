"""Does a model of spoken digits say what it is asked in words, also in words that it has not seen?

    python benchmarks/audio_text.py fsdd.npz runs/fsdd-text/model.safetensors

Texts are drawn for digits and speakers in turn, once in phrasings to learn from and once in phrasings and words that
are held out. A clip is made of each; a classifier hears which digit and which speaker it is. A speaker is right if the
text is true of him: the one named, or any with the qualities told; texts that tell nothing of the speaker do not count
there, and ``chance`` is what a guess would get. The classifier is a small convolutional network, trained here on the
training clips alone; what it gets right of recordings it has not heard (``recordings``) bounds everything else.
Durations are drawn from all training clips, for texts do not tell them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciffusion.domains.audio import AudioModel, Clips, LogMel, MelConfig
from sciffusion.domains.audio.captions import PACE, PITCH, SPEAKERS, TONE, DigitCaptions, qualities
from sciffusion.domains.audio.datasets import split
from sciffusion.text import wordllama

RESULTS = Path(__file__).parent / "results"
NAMES = tuple(SPEAKERS)
SPECTRUM = MelConfig(rate=8000, n_fft=256, hop=128, mels=64)


class Judge(nn.Module):
    """Hears digit and speaker: (B, 64, 64) to (B, 10) and (B, 6)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for a, b in ((1, 16), (16, 32), (32, 64), (64, 128)):
            layers += [nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2)]
        self.body, self.digit, self.speaker = (
            nn.Sequential(*layers),
            nn.Linear(128, 10),
            nn.Linear(128, len(NAMES)),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.body(x[:, None]).mean((2, 3))
        return self.digit(h), self.speaker(h)


def heard(clips: Clips) -> Tensor:
    """What the judge sees of clips: the first 64 frames, at a peak of 0.9."""
    waves = [clip.mono().normalised(0.9).samples[0, :8192] for clip in clips]
    analysis = LogMel(SPECTRUM)
    parts = [analysis.encode(F.pad(w, (0, 8192 - len(w)))[None])[0, :, :64] for w in waves]
    return (torch.stack(parts).clamp(min=-9.0) + 4) / 3


def labels(clips: Clips) -> tuple[Tensor, Tensor]:
    """The digit and the number of the speaker of clips."""
    digits = torch.from_numpy(np.asarray(clips.labels["digit"]).astype(np.int64))
    return digits, torch.tensor([NAMES.index(str(s)) for s in clips.labels["speaker"]])


def trained(clips: Clips, epochs: int = 8) -> Judge:
    """A judge that has heard these clips, shifted here and there by some frames."""
    torch.manual_seed(0)
    judge, x, (digit, speaker) = Judge(), heard(clips), labels(clips)
    optimiser = torch.optim.AdamW(judge.parameters(), 2e-3)
    steps = epochs * (len(x) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(x))[: len(x) // 64 * 64].split(64):
            seen = torch.stack([x[i].roll(int(torch.randint(6, ())), 1) for i in rows])
            a, b = judge(seen)
            loss = F.cross_entropy(a, digit[rows]) + F.cross_entropy(b, speaker[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return judge.eval()


@torch.no_grad()
def verdict(judge: Judge, clips: Clips) -> tuple[Tensor, Tensor]:
    """The digit and the speaker that a judge hears."""
    digit, speaker = judge(heard(clips))
    return digit.argmax(1), speaker.argmax(1)


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
    digit, speaker = verdict(judge, clips)
    fits = [true_of(text) for text in texts]
    told = [i for i in range(n) if len(fits[i]) < len(NAMES)]
    return {
        "digit": float((digit == torch.tensor(digits)).float().mean()),
        "speaker": float(np.mean([NAMES[int(speaker[i])] in fits[i] for i in told])),
        "chance": float(np.mean([len(fits[i]) / len(NAMES) for i in told])),
        "texts": n,
        "texts that tell of the speaker": len(told),
    }


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--n", type=int, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 2.0])
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = AudioModel.from_file(args.model)
    judge, test = trained(split("fsdd:train", args.data)), split("fsdd:test", args.data)
    pairs = zip(verdict(judge, test), labels(test), strict=True)
    digit, speaker = (float((a == b).float().mean()) for a, b in pairs)
    rows: dict[str, dict[str, float]] = {"recordings": {"digit": digit, "speaker": speaker}}
    for scale in args.guidance:
        for name, held_out in (("seen", False), ("held out", True)):
            key = f"{name}, guidance {scale:g}"
            rows[key] = asked(model, judge, args.n, held_out, scale, args.seed)
    for name, row in rows.items():
        print(f"{name:24s}", {k: round(v, 3) for k, v in row.items()}, flush=True)
    info = dict(model.info or {})
    made = {"seed": args.seed, "steps": info.get("steps"), "recipe": info.get("recipe")} | rows
    (RESULTS / "audio_text.json").write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
