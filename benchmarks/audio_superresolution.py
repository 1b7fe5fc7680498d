"""What does a model put above 1.8 kHz, if a spoken digit comes at 4 kHz and shall have 8?

    python benchmarks/audio_superresolution.py fsdd.npz

Test clips of 0.25 to 1 s are resampled to 4 kHz; the model is told nothing else. ``one draw`` is what
``super_resolve`` does by default, at the temperature 0.5; ``posterior sample`` has the temperature 1; ``mean of 8`` is
the sound of the mean log-mel of eight draws. Against them: cubic splines and a sinc, which put
nothing there, and a ridge regression of the upper log-mels of a frame on the lower ones of five neighbouring frames,
fitted on training clips (its strength on others of them), whose phases are found in the very same way as those of the
model. ``right mel``: the log-mels of the recording itself, sounded in that way: what is lost however good the mel is.
LSD: the root mean square over the frequencies above 1.8 kHz, or over all, of the difference of log power above 1e-6, in
dB. Intervals are 95 % bootstrap ones over clips.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from audio_table import Row, chosen, with_interval, write
from scipy.interpolate import CubicSpline
from torch import Tensor

from sciffusion.domains import audio
from sciffusion.domains.audio import AudioModel, Clip, Clips, LogMel
from sciffusion.domains.audio.datasets import split
from sciffusion.domains.audio.given import Given
from sciffusion.domains.audio.judges import Judge
from sciffusion.domains.audio.repair import in_band, lower_bins

CUTOFF = 1800.0
AROUND = 2


def features(mel: Tensor, low: Tensor) -> Tensor:
    """The lower mels of every frame and its neighbours, (T, features)."""
    x = mel[:, low]
    padded = torch.cat([x[:1]] * AROUND + [x] + [x[-1:]] * AROUND)
    parts = [padded[i : i + len(x)] for i in range(2 * AROUND + 1)]
    return torch.cat([*parts, torch.ones(len(x), 1)], 1)


class Ridge:
    """Upper log-mels from lower ones, in units of a model."""

    def __init__(self, model: AudioModel, clips: Clips) -> None:
        self.model, self.low = model, lower_bins(model.config.mel, CUTOFF)
        pairs = [self.pair(c) for c in clips]
        half = len(pairs) * 4 // 5
        best = (float("inf"), 0.0)
        for strength in (1.0, 10.0, 100.0, 1000.0):
            self.weights = self.fit(pairs[:half], strength)
            errors = [(x @ self.weights - y).square().mean() for x, y in pairs[half:]]
            best = min(best, (float(torch.stack(errors).mean()), strength))
        self.strength = best[1]
        self.weights = self.fit(pairs, self.strength)

    def pair(self, clip: Clip) -> tuple[Tensor, Tensor]:
        """What is seen of a clip at 4 kHz, and what is wanted."""
        heard = Given.of(clip.resample(4000), self.model.config.mel)
        seen = self.model.frames(heard.wave)
        wave = heard.gain * clip.samples[:, : len(heard.wave)]
        truth = self.model.standard.encode(LogMel(self.model.config.mel).encode(wave)[0].mT)
        return features(seen, self.low), truth[:, ~self.low]

    @staticmethod
    def fit(pairs: list[tuple[Tensor, Tensor]], strength: float) -> Tensor:
        x, y = (torch.cat(side).double() for side in zip(*pairs, strict=True))
        gram = x.mT @ x + strength * torch.eye(x.shape[1], dtype=torch.float64)
        return torch.linalg.solve(gram, x.mT @ y).float()

    def __call__(self, clip: Clip) -> Clip:
        """The clip with the upper band that the regression tells."""
        heard = Given.of(clip, self.model.config.mel)
        frames = self.model.frames(heard.wave)
        frames[:, ~self.low] = features(frames, self.low) @ self.weights
        return in_band(self.model, heard, frames[None], CUTOFF)[0]


def right(model: AudioModel, clip: Clip, truth: Clip) -> Clip:
    """The recording's own mels in the upper band, sounded as the others are."""
    config = model.config.mel
    heard, low = Given.of(clip, config), lower_bins(config, CUTOFF)
    wave = heard.gain * truth.samples[:, : len(heard.wave)]
    own = model.standard.encode(LogMel(config).encode(wave)[0].mT)
    frames = model.frames(heard.wave)
    return in_band(model, heard, torch.where(low, frames, own)[None], CUTOFF)[0]


def spline(clip: Clip) -> Clip:
    """Twice the rate by cubic splines."""
    size = clip.samples.shape[1]
    made = CubicSpline(np.arange(size), clip.samples[0].numpy())(np.arange(2 * size) / 2)
    return Clip.of(made.astype(np.float32), 2 * clip.rate)


def distances(model: AudioModel, made: Clip, truth: Clip) -> tuple[float, float]:
    """LSD of the upper band, and of all, in dB."""
    framing, size = model.config.mel.framing, min(made.samples.shape[1], truth.samples.shape[1])
    x, y = (
        framing.analyse(c.samples[:, :size])[0].abs().square().clamp(min=1e-6).log10()
        for c in (made, truth)
    )
    error = (10 * (x - y)).square()
    upper = torch.arange(len(error)) * (made.rate / framing.n_fft) > CUTOFF
    return float(error[upper].mean(0).sqrt().mean()), float(error.mean(0).sqrt().mean())


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--n", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, judge = audio.load("fsdd"), Judge.load("fsdd")
    train, test = (split(f"fsdd:{k}", args.data) for k in ("train", "test"))
    ridge = Ridge(model, train[np.array(chosen(train, 400, 0.25, args.seed))])
    rows = chosen(test, args.n, 0.25, args.seed)
    truths = [test[i] for i in rows]
    ways: dict[str, Callable[[Clip, Clip], Clip]] = {
        "recording": lambda clip, truth: truth,
        "spline": lambda clip, truth: spline(clip),
        "sinc": lambda clip, truth: clip.resample(8000),
        "ridge on mel": lambda clip, truth: ridge(clip),
        "one draw": lambda clip, truth: model.super_resolve(clip, seed=args.seed)[0],
        "posterior sample": lambda clip, truth: model.super_resolve(
            clip, temperature=1.0, seed=args.seed
        )[0],
        "mean of 8": lambda clip, truth: model.super_resolve(clip, draws=8, seed=args.seed)[0],
        "right mel": lambda clip, truth: right(model, clip, truth),
    }
    table: list[Row] = []
    for name, raise_rate in ways.items():
        start = time.process_time()
        made = [raise_rate(t.resample(4000), t) for t in truths]
        spent = (time.process_time() - start) / len(made)
        upper, every = zip(
            *(distances(model, m, t) for m, t in zip(made, truths, strict=True)), strict=True
        )
        heard = judge(made).right("digit", test.labels["digit"][rows])
        table.append(
            {
                "": name,
                "LSD above 1.8 kHz, dB": with_interval(upper),
                "LSD, dB": with_interval(every),
                "digit": with_interval(heard.tolist()),
                "CPU s": spent,
            }
        )
        print(table[-1], flush=True)
    settings = {"clips": len(rows), "seed": args.seed, "ridge": ridge.strength, "cutoff": CUTOFF}
    write(
        "audio_superresolution",
        settings | {"model": "fsdd"},
        table,
        f"{len(rows)} test clips, seed {args.seed}; the ridge regression has the strength {ridge.strength:g}.",
    )


if __name__ == "__main__":
    main()
