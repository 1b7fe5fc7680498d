"""How good sampled clips are: whether they are what was asked for, and how far they lie from real ones.

Every figure has a bootstrap interval, and beside it stands what real clips reach: those of the reference, or, without
one, the recordings that the judge was tested on. Distances are between equal numbers of clips. The reference is cut in
halves at random; the clips are compared with one half, and as many of the other half with the same one: what is
printed as real data is the floor, which sampling alone brings about and no model can come below.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sciffusion.bootstrap import Bootstrap
from sciffusion.metrics import compare
from sciffusion.report import Metric, Report

from .clip import Clips
from .judges import Judge, Verdict, suited
from .metrics import mean, sounding
from .oracles import PitchTracker, Voices, cents, hertz

__all__ = ["evaluate"]

_NEIGHBOURS = 5
_DISTANCES = {
    "frechet": "Frechet distance of the features of {}",
    "kernel_distance": "kernel distance of the features of {}",
    "precision": "clips within the real ones, by the features of {}",
    "recall": "real clips within the others, by the features of {}",
    "coverage": "real clips with another one near, by the features of {}",
}

Floats = NDArray[np.float64]


def evaluate(
    clips: Clips,
    reference: Clips | None = None,
    *,
    judge: Judge | None = None,
    n_pitch: int = 0,
    n_voices: int = 0,
    seed: int = 0,
) -> Report:
    """Judge sampled clips.

    Args:
        clips: the clips; their labels say what was asked for.
        reference: real clips; brings distances, and what real clips reach.
        judge: who hears them; the shipped one that knows the labels of clips and reference, unless given.
        n_pitch: how many clips, drawn at random, swift-f0 hears (0.05 s each), beside their label ``pitch`` (MIDI).
        n_voices: how many clips Resemblyzer hears (0.02 s each), beside their label ``speaker``, and as many real ones
            twice. A voice is that of the speaker whose mean over real clips is nearest.
        seed: of everything random.

    Raises:
        ValueError: no clips, a check that the labels do not allow, or one of voices without a reference.
        MissingExtra: a check whose package is not installed.
    """
    if not len(clips):
        raise ValueError("there are no clips to judge")
    parts = [clips.labels] if reference is None else [clips.labels, reference.labels]
    judge = suited(*parts) if judge is None else judge
    bootstrap, rng = Bootstrap(seed=seed), np.random.default_rng(seed)
    about: dict[str, str | int] = {"clips": len(clips), "seed": seed}
    metrics = _plain(clips, bootstrap)
    best = {} if reference is None else _plain(reference, bootstrap)
    if reference is not None:
        about["reference"] = len(reference)
    halves = _halves(len(clips), reference, rng)
    if judge is not None:
        about["judge"] = judge.name
        verdict = judge(clips)
        metrics |= _accuracies(judge, verdict, clips, bootstrap)
        best |= {f"{k}_accuracy": _held_out(judge, k, bootstrap) for k in judge.held_out}
        if reference is not None:
            real = judge(reference)
            best |= _accuracies(judge, real, reference, bootstrap)
            name = f"the judge {judge.name}"
            near, floor = _distances(verdict.features, real.features, halves, name, seed)
            metrics |= near
            best |= floor
    if n_pitch:
        metrics["pitch"] = _pitch(clips, n_pitch, rng, bootstrap)
        if reference is not None and "pitch" in reference.labels:
            best["pitch"] = _pitch(reference, n_pitch, rng, bootstrap)
    if n_voices:
        if reference is None:
            raise ValueError("voices are judged beside real ones: name them with --reference")
        near, floor = _voices(clips, reference, n_voices, rng, bootstrap)
        metrics |= near
        best |= floor
    return Report(metrics, {k: best[k] for k in metrics if k in best}, about=about)


def _plain(clips: Clips, bootstrap: Bootstrap) -> dict[str, Metric]:
    seconds = np.array([clip.seconds for clip in clips])
    heard = np.array([sounding(clip) for clip in clips])
    return {
        "seconds": mean(seconds, bootstrap, "duration", "s"),
        "sounding": mean(heard, bootstrap, "until silence, 40 dB below the loudest 10 ms", "s"),
    }


def _accuracies(
    judge: Judge, verdict: Verdict, clips: Clips, bootstrap: Bootstrap
) -> dict[str, Metric]:
    """The share of the clips in which the judge hears what their labels say, for all that it can tell."""
    found = {}
    for name, values in clips.labels.items():
        if judge.config.knows(name, values):
            what = f"clips whose {name} the judge {judge.name} hears{_its_own(judge, name)}"
            found[f"{name}_accuracy"] = mean(
                verdict.right(name, values), bootstrap, what, "fraction"
            )
    return found


def _its_own(judge: Judge, name: str) -> str:
    if name not in judge.held_out:
        return ""
    return f"; of {judge.clips_held_out} recordings, {100 * judge.held_out[name]:.1f} %"


def _held_out(judge: Judge, name: str, bootstrap: Bootstrap) -> Metric:
    n = judge.clips_held_out
    right = (np.arange(n) < round(judge.held_out[name] * n)).astype(float)
    what = "of recordings that the judge has not heard before"
    return mean(right, bootstrap, what, "fraction")


Halves = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def _halves(n: int, reference: Clips | None, rng: np.random.Generator) -> Halves:
    """Rows of clips, of reference to compare them with, and of reference to compare in their place."""
    real = rng.permutation(0 if reference is None else len(reference))
    against, instead = real[: len(real) // 2], real[len(real) // 2 :]
    size = min(n, len(against))
    return rng.permutation(n)[:size], against, instead[:size]


def _distances(
    made: Floats, real: Floats, rows: Halves, name: str, seed: int
) -> tuple[dict[str, Metric], dict[str, Metric]]:
    """Those of clips from one half of the reference, and those of the other half from it; none of too few clips."""
    mine, against, instead = rows
    if len(mine) <= _NEIGHBOURS:
        return {}, {}

    def of(features: Floats) -> dict[str, Metric]:
        found = compare(real[against], features, k=_NEIGHBOURS, bootstrap=Bootstrap(100, seed=seed))
        what = {k: f"{text.format(name)}, from {len(against)}" for k, text in _DISTANCES.items()}
        shares = ("precision", "recall", "coverage")
        return {
            k: Metric(
                found[k].value,
                found[k].low,
                found[k].high,
                len(features),
                what[k],
                "fraction" if k in shares else "",
            )
            for k in _DISTANCES
        }

    return of(made[mine]), of(real[instead])


def _pitch(clips: Clips, n: int, rng: np.random.Generator, bootstrap: Bootstrap) -> Metric:
    """The share of the clips within 50 cents of what was asked for; one without a pitch is not."""
    if "pitch" not in clips.labels:
        raise ValueError(
            f"pitch is judged beside the label pitch; labels: {', '.join(clips.labels) or 'none'}"
        )
    part = clips[np.sort(rng.permutation(len(clips))[:n])]
    off = cents(PitchTracker()(part), hertz(part.labels["pitch"].astype(float)))
    right = (np.abs(off) <= 50).astype(float)  # NaN is no less
    return mean(right, bootstrap, "clips within 50 cents of their pitch, by swift-f0", "fraction")


def _voices(
    clips: Clips, reference: Clips, n: int, rng: np.random.Generator, bootstrap: Bootstrap
) -> tuple[dict[str, Metric], dict[str, Metric]]:
    """The share whose nearest voice in one half of the reference is the right one, of clips and of the other half."""
    for one in (clips, reference):
        if "speaker" not in one.labels:
            raise ValueError(
                f"voices are judged beside the label speaker; labels: {', '.join(one.labels) or 'none'}"
            )
    embed = Voices()
    mine, against, instead = _halves(len(clips), reference, rng)
    part, other = clips[mine[:n]], reference[instead[:n]]
    known = reference[against[:n]]
    names = np.asarray(known.labels["speaker"]).astype(str)
    speakers, embedded = np.unique(names), embed(known)
    centres = np.stack([embedded[names == s].mean(0) for s in speakers])
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)

    def of(some: Clips) -> dict[str, Metric]:
        heard = speakers[(embed(some) @ centres.T).argmax(1)]
        right = (heard == np.asarray(some.labels["speaker"]).astype(str)).astype(float)
        what = "clips nearest to the voice of their speaker, by Resemblyzer"
        return {"voice_accuracy": mean(right, bootstrap, what, "fraction")}

    return of(part), of(other)
