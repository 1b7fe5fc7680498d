"""What does a model put above 1.8 kHz, if a spoken digit comes at 4 kHz and shall have 8?

    python benchmarks/audio_superresolution.py fsdd.npz
    python benchmarks/audio_superresolution.py fsdd.npz --rate 6000

Test clips of 0.25 to 1 s are resampled to 4 kHz (``--rate``), so that all up to 0.9 of half of that is left; the models
are told nothing else. ``band model`` has learnt just this (``audio.load("fsdd-band")``), ``model of clips`` is the one
that also speaks, asked by posterior sampling (``audio.load("fsdd")``). ``one draw`` is what their ``super_resolve``
does by default, at the temperature 0.5; ``posterior sample`` has the temperature 1, ``without noise`` 0; ``mean of 8``
is the sound of the mean log spectrum of eight draws. Against them: cubic splines and a sinc, which put nothing there,
and ridge regressions, fitted on training clips (their strength on others of them): of the upper log-mels of a frame on
the lower ones of five neighbouring frames, sounded as those of the model of clips, and of upper log-magnitudes on the
lower ones of seven frames and their mean over the clip, sounded as those of the band model. ``right mel`` and ``right
magnitudes`` are those of the recording itself, sounded in these ways: what is lost however good they are. LSD: the root
mean square over the frequencies above the cut-off, or over all, of the difference of log power above 1e-6, in dB.
Intervals are 95 % bootstrap ones over clips.

``--choose`` measures settings of the band model instead, on test clips that are not among the ``--n`` measured ones.
"""

from __future__ import annotations

import argparse
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from audio_table import Row, chosen, with_interval, write
from scipy.interpolate import CubicSpline
from torch import Tensor

from sciffusion.domains import audio
from sciffusion.domains.audio import AudioModel, BandExtender, Clip, Clips, LogMel
from sciffusion.domains.audio.datasets import split
from sciffusion.domains.audio.given import Heard
from sciffusion.domains.audio.judges import Judge
from sciffusion.domains.audio.recovery import banded
from sciffusion.domains.audio.repair import in_band, lower_bins


def features(x: Tensor, around: int) -> Tensor:
    """What is known (T, k) of every frame and so many neighbours on each side, (T, features)."""
    padded = torch.cat([x[:1]] * around + [x] + [x[-1:]] * around)
    parts = [padded[i : i + len(x)] for i in range(2 * around + 1)]
    return torch.cat([*parts, torch.ones(len(x), 1)], 1)


class Ridge(ABC):
    """What lies above the cut-off of clips of a rate as a linear function of what lies below."""

    def __init__(self, clips: Clips, rate: int) -> None:
        self.rate, self.cutoff = rate, 0.45 * rate
        pairs = [self.pair(c) for c in clips]
        half = len(pairs) * 4 // 5
        best = (float("inf"), 0.0)
        for strength in (1.0, 10.0, 100.0, 1e3, 1e4):
            self.weights = self.fit(pairs[:half], strength)
            errors = [(x @ self.weights - y).square().mean() for x, y in pairs[half:]]
            best = min(best, (float(torch.stack(errors).mean()), strength))
        self.strength = best[1]
        self.weights = self.fit(pairs, self.strength)

    @abstractmethod
    def pair(self, clip: Clip) -> tuple[Tensor, Tensor]:
        """What is seen of a clip at the lower rate, and what is wanted."""

    @staticmethod
    def fit(pairs: list[tuple[Tensor, Tensor]], strength: float) -> Tensor:
        x, y = (torch.cat(side).double() for side in zip(*pairs, strict=True))
        gram = x.mT @ x + strength * torch.eye(x.shape[1], dtype=torch.float64)
        return torch.linalg.solve(gram, x.mT @ y).float()

    @abstractmethod
    def __call__(self, clip: Clip) -> Clip:
        """The clip with the upper band that the regression tells."""


class MelRidge(Ridge):
    """Of log-mels, in units of a model of clips."""

    def __init__(self, model: AudioModel, clips: Clips, rate: int) -> None:
        self.model, self.low = model, lower_bins(model.config.mel, 0.45 * rate)
        super().__init__(clips, rate)

    def pair(self, clip: Clip) -> tuple[Tensor, Tensor]:
        heard = Heard.of(clip.resample(self.rate), self.model.config.mel)
        seen = self.model.frames(heard.wave)
        wave = heard.gain * clip.samples[:, : len(heard.wave)]
        truth = self.model.standard.encode(LogMel(self.model.config.mel).encode(wave)[0].mT)
        return features(seen[:, self.low], 2), truth[:, ~self.low]

    def __call__(self, clip: Clip) -> Clip:
        heard = Heard.of(clip, self.model.config.mel)
        frames = self.model.frames(heard.wave)
        frames[:, ~self.low] = features(frames[:, self.low], 2) @ self.weights
        return in_band(self.model, heard, frames[None], self.cutoff)[0]


class MagnitudeRidge(Ridge):
    """Of log-magnitudes, in units of a model of a band."""

    def __init__(self, band: BandExtender, clips: Clips, rate: int) -> None:
        self.band = band
        self.low = int(band.config.known(torch.tensor([0.45 * rate])).sum())
        super().__init__(clips, rate)

    def seen(self, heard: Heard) -> Tensor:
        """The known levels of every frame, of its neighbours, and of all frames on average."""
        levels = self.band.standard.encode(self.band.config.levels(heard.wave[None])[0])
        low = levels[:, : self.low]
        return torch.cat([features(low, 3), low.mean(0).expand_as(low)], 1)

    def pair(self, clip: Clip) -> tuple[Tensor, Tensor]:
        heard = Heard.of(clip.resample(self.rate), self.band.config)
        wave = heard.gain * clip.samples[:, : len(heard.wave)]
        truth = self.band.standard.encode(self.band.config.levels(wave)[0])
        return self.seen(heard), truth[:, self.low :]

    def __call__(self, clip: Clip) -> Clip:
        heard = Heard.of(clip, self.band.config)
        upper = self.seen(heard) @ self.weights
        blank = torch.zeros(len(upper), self.low)
        levels = self.band.standard.decode(torch.cat([blank, upper], 1))
        return sounded(self.band, heard, levels, self.cutoff)


def sounded(band: BandExtender, heard: Heard, levels: Tensor, cutoff: float) -> Clip:
    """Log-magnitudes (T, F) as the band model sounds its own."""
    c = band.config
    wave = banded(c.framing, levels.exp().mT[None], heard.wave, cutoff / c.rate)[0]
    return Clip(wave[None] / heard.gain, c.rate)


def right_magnitudes(band: BandExtender, clip: Clip, truth: Clip, cutoff: float) -> Clip:
    """The recording's own magnitudes in the upper band, sounded as the others are."""
    heard = Heard.of(clip, band.config)
    wave = heard.gain * truth.samples[:, : len(heard.wave)]
    return sounded(band, heard, band.config.levels(wave)[0], cutoff)


def right(model: AudioModel, clip: Clip, truth: Clip, cutoff: float) -> Clip:
    """The recording's own mels in the upper band, sounded as the others are."""
    config = model.config.mel
    heard, low = Heard.of(clip, config), lower_bins(config, cutoff)
    wave = heard.gain * truth.samples[:, : len(heard.wave)]
    own = model.standard.encode(LogMel(config).encode(wave)[0].mT)
    frames = model.frames(heard.wave)
    return in_band(model, heard, torch.where(low, frames, own)[None], cutoff)[0]


def spline(clip: Clip) -> Clip:
    """8 kHz by cubic splines."""
    size, times = clip.samples.shape[1], 8000 / clip.rate
    made = CubicSpline(np.arange(size), clip.samples[0].numpy())(
        np.arange(int(times * size)) / times
    )
    return Clip.of(made.astype(np.float32), 8000)


def distances(
    model: AudioModel, made: Clip, truth: Clip, cutoff: float = 1800.0
) -> tuple[float, float]:
    """LSD of the upper band, and of all, in dB."""
    framing, size = model.config.mel.framing, min(made.samples.shape[1], truth.samples.shape[1])
    x, y = (
        framing.analyse(c.samples[:, :size])[0].abs().square().clamp(min=1e-6).log10()
        for c in (made, truth)
    )
    error = (10 * (x - y)).square()
    upper = torch.arange(len(error)) * (made.rate / framing.n_fft) > cutoff
    return float(error[upper].mean(0).sqrt().mean()), float(error.mean(0).sqrt().mean())


def candidates(band: BandExtender, seed: int) -> dict[str, Callable[[Clip, Clip], Clip]]:
    """Settings of the band model among which to choose."""

    def way(temperature: float, steps: int, draws: int) -> Callable[[Clip, Clip], Clip]:
        return lambda clip, truth: band.super_resolve(
            clip, temperature=temperature, steps=steps, draws=draws, seed=seed
        )[0]

    grid = [(t, 8, 1) for t in (0.0, 0.3, 0.5, 0.7, 1.0)]
    grid += [(t, 8, 8) for t in (0.5, 0.7, 1.0)] + [(0.5, 4, 8), (0.5, 16, 8)]
    return {f"temperature {t:g}, {s} steps, {d} draws": way(t, s, d) for t, s, d in grid}


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--n", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=int, default=4000, help="of the clips that are given, Hz")
    parser.add_argument("--band", default="fsdd-band", help="the name of one that ships, or a file")
    parser.add_argument("--choose", type=int, default=0, help="other clips to choose settings on")
    parser.add_argument("--band-only", action="store_true", help="without the model of clips")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, judge, band = audio.load("fsdd"), Judge.load("fsdd"), audio.load(args.band)
    rate, cutoff = args.rate, 0.45 * args.rate
    train, test = (split(f"fsdd:{k}", args.data) for k in ("train", "test"))
    rows = chosen(test, args.n + args.choose, 0.25, args.seed)
    rows = rows[args.n :] if args.choose else rows
    truths = [test[i] for i in rows]
    ways, notes = candidates(band, args.seed), ""
    if not args.choose:
        fitted = train[np.array(chosen(train, 400, 0.25, args.seed))]
        mels, magnitudes = MelRidge(model, fitted, rate), MagnitudeRidge(band, fitted, rate)
        strengths = f"{mels.strength:g} and {magnitudes.strength:g}"
        notes = f"; the ridge regressions have the strengths {strengths}"
        own = {
            "one draw": {},
            "posterior sample": {"temperature": 1.0},
            "without noise": {"temperature": 0.0},
            "mean of 8": {"draws": 8},
        }
        models = {"model of clips": model.super_resolve, "band model": band.super_resolve}
        if args.band_only:
            del models["model of clips"]
        made = {
            f"{name}: {way}": lambda clip, truth, f=f, kw=kw: f(clip, seed=args.seed, **kw)[0]
            for name, f in models.items()
            for way, kw in own.items()
        }
        ways = {
            "recording": lambda clip, truth: truth,
            "spline": lambda clip, truth: spline(clip),
            "sinc": lambda clip, truth: clip.resample(8000),
            "ridge on mel": lambda clip, truth: mels(clip),
            "ridge on magnitudes": lambda clip, truth: magnitudes(clip),
            **made,
            "right mel": lambda clip, truth: right(model, clip, truth, cutoff),
            "right magnitudes": lambda clip, truth: right_magnitudes(band, clip, truth, cutoff),
        }
    table: list[Row] = []
    for name, raise_rate in ways.items():
        start = time.process_time()
        results = [raise_rate(t.resample(rate), t) for t in truths]
        spent = (time.process_time() - start) / len(results)
        upper, every = zip(
            *(distances(model, m, t, cutoff) for m, t in zip(results, truths, strict=True)),
            strict=True,
        )
        heard = judge(results).right("digit", test.labels["digit"][rows])
        table.append(
            {
                "": name,
                f"LSD above {cutoff / 1000:g} kHz, dB": with_interval(upper),
                "LSD, dB": with_interval(every),
                "digit": with_interval(heard.tolist()),
                "CPU s": spent,
            }
        )
        print(table[-1], flush=True)
    write(
        "audio_superresolution"
        + ("" if rate == 4000 else f"_{rate}")
        + ("_choice" if args.choose else ""),
        {"clips": len(rows), "seed": args.seed, "cutoff": cutoff, "model": "fsdd"},
        table,
        f"{len(rows)} test clips, seed {args.seed}{notes}.",
    )


if __name__ == "__main__":
    main()
