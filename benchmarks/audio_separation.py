"""Can two sounds be told apart that were recorded on one channel?

    python benchmarks/audio_separation.py --digits fsdd.npz
    python benchmarks/audio_separation.py --notes gm_notes.npz --model notes

Mixtures of two held-out sounds with peaks of 0.5 each, cut to the shorter one: two digits by different speakers, and
two notes of different instruments and pitches. Told of both sources: digit and speaker, or instrument and pitch; the
models' test sets hold pairs of instrument and pitch that no training note has. Against the model: non-negative matrix
factorisation (Lee & Seung, 1999, Kullback-Leibler divergence), whose spectra are learnt for each source on training
clips of that digit by that speaker, or on training notes of that instrument within three semitones, and shared out by
Wiener's filter, as the model does. ``ideal``: shares by the powers of the true sources, above what any mask of this
kind can do without knowing phases. Gain: the improvement of SI-SDR over the mixture, in dB, the mean over both sources,
with 95 % bootstrap intervals over mixtures.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from audio_table import Row, with_interval, write
from torch import Tensor

from sciffusion.domains import audio
from sciffusion.domains.audio import AudioModel, Clip, Clips
from sciffusion.domains.audio.datasets import split
from sciffusion.domains.audio.metrics import si_sdr
from sciffusion.domains.audio.stft import Framing

Given = Mapping[str, object]


def shared(mixture: Clip, framing: Framing, powers: Tensor) -> Clips:
    """A mixture shared out by powers (K, F, T)."""
    masks = (powers + 1e-12) / (powers + 1e-12).sum(0)
    waves = framing.synthesise(masks * framing.analyse(mixture.samples))
    return Clips([Clip(w[None, : mixture.samples.shape[1]], mixture.rate) for w in waves])


def factorised(v: Tensor, w: Tensor, h: Tensor, learn: bool, rounds: int) -> tuple[Tensor, Tensor]:
    """Multiplicative updates of v (F, T) = w (F, K) h (K, T)."""
    for _ in range(rounds):
        h = h * (w.mT @ (v / (w @ h + 1e-9))) / (w.sum(0)[:, None] + 1e-9)
        if learn:
            w = w * ((v / (w @ h + 1e-9)) @ h.mT) / (h.sum(1) + 1e-9)
            w = w / w.sum(0)
    return w, h


class Factors:
    """Separation by spectra that were learnt from other clips of the same kinds."""

    def __init__(self, framing: Framing, train: Clips, rank: int) -> None:
        self.framing, self.train, self.rank = framing, train, rank

    def spectra(self, rows: np.ndarray) -> Tensor:
        """Those of some training clips, (F, rank)."""
        clips = [self.train[i] for i in rows[:40].tolist()]
        v = torch.cat([self.framing.analyse(c.normalised(0.5).samples)[0].abs() for c in clips], 1)
        g = torch.Generator().manual_seed(0)
        w = torch.rand(len(v), self.rank, generator=g) + 0.1
        return factorised(v, w, torch.rand(self.rank, v.shape[1], generator=g), True, 60)[0]

    def __call__(self, mixture: Clip, kinds: Sequence[np.ndarray]) -> Clips:
        """The sources of a mixture, by training clips of the kind of each."""
        parts = [self.spectra(rows) for rows in kinds]
        v, w = self.framing.analyse(mixture.samples)[0].abs(), torch.cat(parts, 1)
        g = torch.Generator().manual_seed(1)
        _, h = factorised(v, w, torch.rand(w.shape[1], v.shape[1], generator=g), False, 100)
        powers = [a @ b for a, b in zip(w.split(self.rank, 1), h.split(self.rank), strict=True)]
        return shared(mixture, self.framing, torch.stack(powers).square())


def mixtures(
    clips: Clips, n: int, seed: int, unlike: Sequence[str], shortest: float
) -> list[tuple[int, int]]:
    """Pairs of clips that differ in these labels and hardly in length."""
    rng, found = np.random.default_rng(seed), []
    fit = [i for i, c in enumerate(clips) if shortest <= c.seconds <= 1.0]
    while len(found) < n:
        i, j = rng.choice(fit, 2, replace=False).tolist()
        alike = abs(clips[i].seconds - clips[j].seconds) < 0.05
        if alike and all(clips.labels[k][i] != clips.labels[k][j] for k in unlike):
            found.append((i, j))
    return found


def run(
    what: str,
    model: AudioModel,
    train: Clips,
    test: Clips,
    pairs: Sequence[tuple[int, int]],
    names: Sequence[str],
    near: Callable[[Clips, Given], np.ndarray],
    seed: int,
) -> list[Row]:
    """One table's rows."""
    framing = model.config.mel.framing
    factors = Factors(framing, train, 12)
    gains: dict[str, list[float]] = {"NMF": [], "model": [], "ideal": []}
    spent = dict.fromkeys(gains, 0.0)
    for i, j in pairs:
        size = min(test[k].samples.shape[1] for k in (i, j))
        truth = [Clip(test[k].normalised(0.5).samples[:, :size], test[k].rate) for k in (i, j)]
        mixture = Clip(truth[0].samples + truth[1].samples, truth[0].rate)
        givens = [{name: test.labels[name][k] for name in names} for k in (i, j)]
        powers = torch.cat([framing.analyse(t.samples).abs().square() for t in truth])
        ways: dict[str, Callable[[], Clips]] = {
            "NMF": lambda: factors(mixture, [near(train, g) for g in givens]),  # noqa: B023
            "model": lambda: model.separate(mixture, givens, seed=seed),  # noqa: B023
            "ideal": lambda: shared(mixture, framing, powers),  # noqa: B023
        }
        for name, way in ways.items():
            start = time.process_time()
            made = way()
            spent[name] += (time.process_time() - start) / len(pairs)
            each = [si_sdr(m, t) - si_sdr(mixture, t) for m, t in zip(made, truth, strict=True)]
            gains[name].append(float(np.mean(each)))
    better = np.asarray(gains["model"]) - np.asarray(gains["NMF"])
    rows: list[Row] = [
        {"": what, "by": name, "gain, dB": with_interval(gains[name]), "CPU s": spent[name]}
        for name in gains
    ]
    rows.append({"": what, "by": "model less NMF", "gain, dB": with_interval(better.tolist())})
    for row in rows:
        print(row, flush=True)
    return rows


def same(clips: Clips, given: Given) -> np.ndarray:
    """Clips of that digit by that speaker."""
    found = [clips.labels[k] == v for k, v in given.items()]
    return np.flatnonzero(np.logical_and.reduce(found))


def neighbours(clips: Clips, given: Given) -> np.ndarray:
    """Notes of that instrument within three semitones."""
    close = np.abs(clips.labels["pitch"] - int(str(given["pitch"]))) <= 3
    return np.flatnonzero(close & (clips.labels["instrument"] == given["instrument"]))


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--digits", type=Path, help="fsdd.npz")
    parser.add_argument("--notes", type=Path, help="gm_notes.npz")
    parser.add_argument("--model", default="notes", help="the model of notes: a name or a file")
    parser.add_argument("--n", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    if args.digits is not None:
        train, test = (split(f"fsdd:{k}", args.digits) for k in ("train", "test"))
        pairs = mixtures(test, args.n, args.seed, ("digit", "speaker"), 0.3)
        names = ("digit", "speaker")
        rows += run("two digits", audio.load("fsdd"), train, test, pairs, names, same, args.seed)
    if args.notes is not None:
        train, test = (split(f"notes:{k}", args.notes) for k in ("train", "test"))
        pairs = mixtures(test, args.n, args.seed, ("instrument", "pitch"), 0.3)
        names, model = ("instrument", "pitch"), audio.load(args.model)
        rows += run("two notes", model, train, test, pairs, names, neighbours, args.seed)
    settings = {"mixtures": args.n, "seed": args.seed}
    kinds = [k for k in ("digits", "notes") if getattr(args, k) is not None]
    write(
        "_".join(["audio_separation", *kinds]),
        settings,
        rows,
        f"{args.n} mixtures of each kind, seed {args.seed}.",
    )


if __name__ == "__main__":
    main()
