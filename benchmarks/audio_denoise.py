"""How much noise do models take away from spoken digits, and what do they take with it?

    PYTHONPATH=/tmp/peers python benchmarks/audio_denoise.py fsdd.npz --kind white

Test clips of 0.3 to 0.9 s with noise at 0, 5 and 10 dB: white, pink (power as one over the frequency), and babble,
eight other test clips at a time by other speakers, which is not steady as all ways here suppose. Every way is told what
the noise is like by 1.5 s more of it. ``told`` names digit and speaker to the model besides. Against it: spectral
subtraction of powers, a tenth of the magnitude left at least (Berouti et al., 1979); Wiener's filter with the
decision-directed estimate of the share (Ephraim & Malah, 1984, smoothing 0.98), both on the model's own short-time
transform; and scipy's ``wiener``, which knows a local variance alone. ``ideal``: shares by the true powers. Figures:
the gain of SI-SDR over what was given; PESQ, narrow band (pesq 0.0.4, in /tmp/peers), of the clips in which it hears
all ways; the log-spectral distance to the recording. Intervals are 95 % bootstrap ones over clips.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from audio_table import Row, chosen, with_interval, write
from scipy.signal import wiener
from torch import Tensor

from sciffusion.domains import audio
from sciffusion.domains.audio import AudioModel, Clip, Clips
from sciffusion.domains.audio.datasets import split
from sciffusion.domains.audio.metrics import log_spectral_distance, si_sdr
from sciffusion.domains.audio.oracles import pesq
from sciffusion.domains.audio.stft import Framing

RATE = 8000
ALONE = 1.5
"""Seconds of the noise alone."""


def noise(kind: str, size: int, others: Clips, rng: np.random.Generator) -> Tensor:
    """Noise of a kind and of unit power, (N,)."""
    if kind == "babble":
        x = np.zeros(size)
        for _ in range(8):
            words = []
            while sum(map(len, words)) < size + 4000:
                words.append(others[int(rng.integers(len(others)))].normalised().samples[0].numpy())
            start = int(rng.integers(4000))
            x += np.concatenate(words)[start : start + size]
    else:
        spectrum = np.fft.rfft(rng.standard_normal(size))
        if kind == "pink":
            spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), size * 30 / RATE))
        x = np.fft.irfft(spectrum, size)
    return torch.from_numpy(x / np.sqrt(np.mean(x**2))).float()


def subtracted(noisy: Clip, hiss: Clip, framing: Framing) -> Clip:
    """Spectral subtraction."""
    z, power = framing.analyse(noisy.samples), spectrum(hiss, framing)
    gain = (1 - power / z.abs().square().clamp(min=1e-12)).clamp(min=0.01).sqrt()
    return Clip(framing.synthesise(gain * z)[:, : noisy.samples.shape[1]], noisy.rate)


def directed(noisy: Clip, hiss: Clip, framing: Framing) -> Clip:
    """Wiener's filter by the decision-directed ratio of sound to noise."""
    z, power = framing.analyse(noisy.samples), spectrum(hiss, framing)
    after = z.abs().square() / power
    gains, before = [], torch.ones_like(after[:, :, 0])
    for frame in after.unbind(2):
        ratio = 0.98 * before + 0.02 * (frame - 1).clamp(min=0)
        gain = ratio / (1 + ratio)
        before = gain.square() * frame
        gains.append(gain)
    made = framing.synthesise(torch.stack(gains, 2) * z)
    return Clip(made[:, : noisy.samples.shape[1]], noisy.rate)


def spectrum(hiss: Clip, framing: Framing) -> Tensor:
    """The mean power of noise at every frequency, (1, F, 1)."""
    return framing.analyse(hiss.samples)[:, :, 4:-4].abs().square().mean(2, keepdim=True)


def contenders(
    model: AudioModel,
    noisy: Clip,
    alone: Clip,
    share: Tensor,
    told: Mapping[str, object],
    seed: int,
) -> dict[str, Callable[[], Clip]]:
    """All ways to clean one clip; ``share`` (1, F, T) is that of the sound in the power."""
    framing, size = model.config.mel.framing, noisy.samples.shape[1]
    wave, deviation = noisy.samples[0].double().numpy(), float(alone.samples.std())

    def ideal() -> Clip:
        made = framing.synthesise(share * framing.analyse(noisy.samples))
        return Clip(made[:, :size], RATE)

    return {
        "noisy": lambda: noisy,
        "scipy's wiener": lambda: Clip.of(wiener(wave, 9, deviation**2), RATE),
        "spectral subtraction": lambda: subtracted(noisy, alone, framing),
        "decision-directed Wiener": lambda: directed(noisy, alone, framing),
        "model": lambda: model.denoise(noisy, noise=alone, seed=seed)[0],
        "model, told": lambda: model.denoise(noisy, noise=alone, given=told, seed=seed)[0],
        "ideal": ideal,
    }


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--n", type=int, default=20)
    parser.add_argument("--kind", choices=["white", "pink", "babble"], default="white")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, test = audio.load("fsdd"), split("fsdd:test", args.data)
    framing = model.config.mel.framing
    rows: list[Row] = []
    picked = chosen(test, args.n, 0.3, args.seed, 0.9)
    for snr in (0.0, 5.0, 10.0):
        rng = np.random.default_rng(args.seed)
        scores: dict[str, list[list[float]]] = {}
        spent: dict[str, float] = {}
        for i in picked:
            truth = test[i].normalised(0.5)
            size = truth.samples.shape[1]
            foreign = test[test.labels["speaker"] != test.labels["speaker"][i]]
            level = float(truth.samples.square().mean().sqrt()) / 10 ** (snr / 20)
            hiss = level * noise(args.kind, size + round(ALONE * RATE), foreign, rng)
            alone = Clip(hiss[None, size:], RATE)
            noisy = Clip(truth.samples + hiss[:size], RATE)
            told: dict[str, object] = {k: test.labels[k][i] for k in ("digit", "speaker")}
            z, y = framing.analyse(truth.samples), framing.analyse(hiss[None, :size])
            share = z.abs().square() / (z.abs().square() + y.abs().square()).clamp(min=1e-12)
            ways = contenders(model, noisy, alone, share, told, args.seed)
            for name, way in ways.items():
                start = time.process_time()
                made = way()
                spent[name] = spent.get(name, 0.0) + time.process_time() - start
                gain = si_sdr(made, truth) - si_sdr(noisy, truth)
                found = [gain, pesq(made, truth), log_spectral_distance(made, truth)]
                scores.setdefault(name, []).append(found)
        table = np.array(list(scores.values()))
        heard = ~np.isnan(table[:, :, 1]).any(0)
        for name, values in zip(scores, table, strict=True):
            rows.append(
                {
                    "noise": args.kind,
                    "dB": snr,
                    "by": name,
                    "gain of SI-SDR, dB": with_interval(values[:, 0].tolist()),
                    "PESQ": with_interval(values[heard, 1].tolist()),
                    "LSD, dB": with_interval(values[:, 2].tolist()),
                    "CPU s": spent[name] / len(picked),
                }
            )
            print(rows[-1], flush=True)
    write(
        f"audio_denoise_{args.kind}",
        {"clips": len(picked), "seed": args.seed, "model": "fsdd", "alone": ALONE},
        rows,
        f"{len(picked)} test clips each, seed {args.seed}; noise at this many dB below the digit.",
    )


if __name__ == "__main__":
    main()
