"""How well does a model of spoken digits fill gaps of 0.2 seconds?

    python benchmarks/audio_inpainting.py fsdd.npz

Test clips of at least 0.45 s lose 0.2 s, at least 0.1 s after their beginning and 0.05 s before their end. The model
is told nothing but the rest of the clip, or its digit and speaker as well (``told``). ``one draw`` is what ``inpaint``
does by default, at the temperature 0.5; ``posterior sample`` has the temperature 1; ``mean of 8`` is the sound of the
mean log-mel of eight draws. Against them: the 0.2 s before the gap once more, silence, and the mel spectrogram
interpolated linearly across the gap, whose phases are found in the very same way as those of the model. ``right mel``:
the recording's own mel, sounded in that way: what is lost however good the mel is. LSD: the root mean square over
frequencies of the difference of log power above 1e-6, in dB, inside the gap. A root mean square rewards means, which
sound smoother than any recording. ``digit``: the share of clips whose digit the shipped judge still hears. Intervals
are 95 % bootstrap ones over clips; that of a difference is over the differences clip by clip.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from audio_table import Row, chosen, with_interval, write
from torch import Tensor

from sciffusion.domains import audio
from sciffusion.domains.audio import AudioModel, Clip, LogMel
from sciffusion.domains.audio.datasets import split
from sciffusion.domains.audio.given import Heard, holes
from sciffusion.domains.audio.judges import Judge
from sciffusion.domains.audio.metrics import log_spectral_distance
from sciffusion.domains.audio.recovery import magnitudes
from sciffusion.domains.audio.repair import phased

Gap = tuple[float, float]


def interpolated(model: AudioModel, clip: Clip, gap: Gap) -> Clip:
    """The mel spectrogram interpolated across a gap, and Griffin-Lim with the given samples held fast."""
    config = model.config.mel
    heard = Heard.of(clip, config, holes(clip, gap))
    whole, frames = heard.whole(config.reach), LogMel(config).encode(heard.wave[None])[0].mT.numpy()
    known, every = np.flatnonzero(whole.numpy()), np.arange(len(frames))
    lines = np.stack([np.interp(every, known, frames[known, k]) for k in range(config.mels)])
    return sounded(model, heard, torch.from_numpy(lines).float()[None])


def right(model: AudioModel, clip: Clip, gap: Gap) -> Clip:
    """The recording's own mel, and Griffin-Lim with the given samples held fast."""
    config = model.config.mel
    heard = Heard.of(clip, config, holes(clip, gap))
    mel = LogMel(config).encode(heard.gain * clip.samples)
    return sounded(model, heard, mel)


def sounded(model: AudioModel, heard: Heard, mel: Tensor) -> Clip:
    """A clip whose gap has a mel spectrogram (1, mels, T)."""
    config = model.config.mel
    own = config.framing.analyse(heard.wave[None])
    magnitude = torch.where(heard.whole(config.reach), own.abs(), magnitudes(config, mel))
    return heard.completed(phased(model, mel, magnitude, heard.put_in))[0]


def pasted(clip: Clip, gap: Gap, copy: bool) -> Clip:
    """What lies before a gap once more, or silence."""
    samples, (a, b) = clip.samples.clone(), holes(clip, gap)[0]
    before = samples[:, max(0, 2 * a - b) : a].clone()
    samples[:, a:b] = 0
    if copy:
        samples[:, b - before.shape[1] : b] = before
    return Clip(samples, clip.rate)


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--n", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, judge, test = audio.load("fsdd"), Judge.load("fsdd"), split("fsdd:test", args.data)
    rows = chosen(test, args.n, 0.45, args.seed)
    rng = np.random.default_rng(args.seed)
    starts = [rng.uniform(0.1, test[i].seconds - 0.25) for i in rows]
    jobs = [(test[i], (a, a + 0.2)) for i, a in zip(rows, starts, strict=True)]
    ways: dict[str, Callable[[Clip, Gap], Clip]] = {
        "recording": lambda clip, gap: clip,
        "silence": lambda clip, gap: pasted(clip, gap, False),
        "copy": lambda clip, gap: pasted(clip, gap, True),
        "interpolated mel": lambda clip, gap: interpolated(model, clip, gap),
        "one draw": lambda clip, gap: model.inpaint(clip, gap, seed=args.seed)[0],
        "posterior sample": lambda clip, gap: model.inpaint(
            clip, gap, temperature=1.0, seed=args.seed
        )[0],
        "mean of 8": lambda clip, gap: model.inpaint(clip, gap, draws=8, seed=args.seed)[0],
        "right mel": lambda clip, gap: right(model, clip, gap),
    }
    table: list[Row] = []
    found: dict[str, np.ndarray] = {}

    def row(name: str, made: list[Clip], spent: float) -> None:
        pairs = zip(made, jobs, strict=True)
        lsd = [log_spectral_distance(m.cut(*g), clip.cut(*g)) for m, (clip, g) in pairs]
        right = judge(made).right("digit", test.labels["digit"][rows])
        found[name] = np.array(lsd)
        table.append(
            {
                "": name,
                "LSD in the gap, dB": with_interval(lsd),
                "digit": with_interval(right.tolist()),
                "CPU s": spent,
            }
        )
        print(table[-1], flush=True)

    for name, fill in ways.items():
        start = time.process_time()
        made = [fill(clip, gap) for clip, gap in jobs]
        spent = (time.process_time() - start) / len(jobs)
        row(name, made, spent)
    start = time.process_time()
    told = [{k: test.labels[k][i] for k in ("digit", "speaker")} for i in rows]
    made = [
        model.inpaint(clip, gap, given=given, seed=args.seed)[0]
        for (clip, gap), given in zip(jobs, told, strict=True)
    ]
    row("one draw, told", made, (time.process_time() - start) / len(jobs))
    for name in ("one draw", "mean of 8"):
        less = found[name] - found["interpolated mel"]
        title = f"{name} less interpolated mel"
        table.append({"": title, "LSD in the gap, dB": with_interval(less.tolist())})
    settings = {"clips": len(rows), "seed": args.seed, "model": "fsdd", "judge": judge.held_out}
    held = f"{100 * judge.held_out['digit']:.1f} % of {judge.clips_held_out}"
    write(
        "audio_inpainting",
        settings,
        table,
        f"{len(rows)} test clips, seed {args.seed}. The judge hears {held} held-out recordings right.",
    )


if __name__ == "__main__":
    main()
