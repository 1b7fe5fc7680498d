"""Diffusion, an adversarial network and an autoregressive model: what does each make of the same CPU seconds?

    python benchmarks/images_rivals.py --seconds 30              # of digits, for each of three models
    python benchmarks/images_rivals.py --ring-seconds 8 --seeds 3    # of a ring of eight points

Handwritten digits of 8 x 8 pixels (scikit-learn's, 1,438 to learn from), about equal numbers of parameters in what
samples, and equal CPU seconds of training on one thread. Diffusion is the recipe `digits` cut to as many steps; the
rivals stand in `rival_networks.py`. The judge is the shipped classifier. Modes are 100 clusters of the training images
in its features (k-means); one is found if any of the samples lies in it. Everything is asked by class, the ten in turn.

The ring is eight narrow normal laws on a circle: how many of them does a model find, and how many of its points lie
near one? Its networks have about 35,000 parameters.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
from images_fashion import nearest
from images_latent import trained
from measure import write
from rival_networks import (
    Autoregressive,
    ImageDiscriminator,
    ImageGenerator,
    PlainDiscriminator,
    PlainGenerator,
    Rival,
    adversarial,
    autoregressive,
    count,
    fit,
)
from sklearn.cluster import KMeans
from torch import Tensor, nn

from sciffusion.bootstrap import Bootstrap
from sciffusion.denoiser import Preconditioned
from sciffusion.domains import images as domain
from sciffusion.domains.images import Images
from sciffusion.domains.images.datasets import split
from sciffusion.grid import FlowTime
from sciffusion.metrics import compare
from sciffusion.noise import Noise
from sciffusion.objective import EDM, LogNormal, Objective
from sciffusion.process import Gaussian
from sciffusion.samplers import Multistep, Sampler
from sciffusion.schedule.named import SCHEDULES
from sciffusion.space import Euclidean

RESULTS = Path(__file__).parent / "results"
LEVELS, MODES, SPREAD = 17, 8, 0.05
Row = dict[str, float]


def digits(seconds: float, seed: int, train: Images) -> dict[str, Rival]:
    """All models of digits after so many CPU seconds each; samples are pixels (N, 1, 8, 8) from 0 to 1."""
    x, labels = train.to_floats().pixels, torch.from_numpy(train.labels["label"].astype(int))
    model, steps, spent = trained("digits", [f"train.seed={seed}"], seconds, train)

    def diffused(guidance: float) -> Callable[[Tensor, int], Tensor]:
        def sample(label: Tensor, seed: int) -> Tensor:
            made: Images = model.sample(
                len(label), given={"label": label.tolist()}, guidance=guidance, seed=seed
            )
            return made.pixels

        return sample

    size, own = count(model.denoiser), model.sampling
    found = {
        f"diffusion, guidance {own.scale:g}": Rival(
            diffused(own.scale), size, 2 * own.steps, steps, spent
        ),
        "diffusion, no guidance": Rival(diffused(1.0), size, own.steps, steps, spent),
    }
    torch.manual_seed(seed)
    gan = adversarial(
        ImageGenerator(), ImageDiscriminator(), 2 * x - 1, labels, seconds=seconds, seed=seed
    )
    found["adversarial"] = gan.mapped(lambda y: (y + 1) / 2)
    values = (x.flatten(1) * (LEVELS - 1)).round().long()
    network = Autoregressive(64, LEVELS, 10)
    tokens = autoregressive(network, values, labels, seconds=seconds, seed=seed)
    found["autoregressive"] = tokens.mapped(lambda v: v.view(-1, 1, 8, 8).float() / (LEVELS - 1))
    return found


def judged(rival: Rival, n: int, seed: int, real: Judged) -> Row:
    """The figures of n samples."""
    label = torch.arange(n) % 10
    start = time.process_time()
    pixels = rival.sample(label, seed)
    spent = time.process_time() - start
    made = Images(pixels.clamp(0, 1), {"label": label.numpy().astype(str)})
    about = {"parameters": rival.parameters, "calls": rival.calls, "steps": rival.steps}
    times = {"train_seconds": rival.seconds, "seconds_for_1000": 1000 * spent / n}
    return real.figures(made) | about | times


class Judged:
    """What samples are held against: features of test images, clusters of training images."""

    def __init__(self, train: Images, test: Images) -> None:
        self.judge, self.train = domain.load_judge("digits"), train
        self.test = self.judge.features(test)
        self.clusters = KMeans(100, n_init=4, random_state=0).fit(self.judge.features(train))

    def figures(self, made: Images) -> Row:
        """Accuracy, distances from the test images, modes found, distance to the nearest training image."""
        features = self.judge.features(made)
        told = self.judge.probabilities(made).argmax(1)
        distances = compare(self.test, features, bootstrap=Bootstrap(2))
        return {
            "accuracy": float((told == self.judge.index(made.labels["label"])).float().mean()),
            "modes": float(len(np.unique(self.clusters.predict(features)))),
            "nearest": nearest(made, self.train),
        } | {k: distances[k].value for k in ("frechet", "precision", "recall", "coverage")}


class RingNet(nn.Module):
    """A perceptron over points of the plane that is told the noise level."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(10, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2),
        )  # fmt: skip

    def forward(self, x: Tensor, log_snr: Tensor, cond: None, previous: None) -> Tensor:
        angles = log_snr.reshape(-1, 1).expand(len(x), 1) * x.new_tensor([0.1, 0.3, 0.6, 1.0])
        out: Tensor = self.layers(torch.cat([x, angles.sin(), angles.cos()], 1))
        return out


def ring(seconds: float, seed: int) -> dict[str, Rival]:
    """All models of the ring after so many CPU seconds each; samples are points (N, 2)."""
    g = torch.Generator().manual_seed(seed)
    angle = torch.randint(MODES, (10_000,), generator=g) * (2 * math.pi / MODES)
    points = torch.stack([angle.cos(), angle.sin()], 1)
    points = points + SPREAD * torch.randn(points.shape, generator=g)
    none = torch.zeros(len(points), dtype=torch.long)
    torch.manual_seed(seed)
    process = Gaussian(SCHEDULES["rectified-flow"], Euclidean())
    denoiser = Preconditioned(RingNet(), process, sigma_data=float(points.std()))
    objective = Objective(process, weight=EDM(), times=LogNormal(-1.0, 1.5))
    optimizer = torch.optim.Adam(denoiser.parameters(), 2e-3)

    def step(share: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * 0.5 * (1 + math.cos(math.pi * share))
        key = int(torch.randint(2**31, (), generator=g))
        x = points[torch.randint(len(points), (256,), generator=g)]
        optimizer.zero_grad()
        objective(denoiser, x, noise=Noise(key)).mean.backward()
        optimizer.step()

    steps, spent = fit(step, seconds)
    sampler = Sampler(Multistep(2), 18, FlowTime())

    @torch.no_grad()
    def sample(label: Tensor, seed: int) -> Tensor:
        noise = Noise(seed)
        made = sampler(denoiser, process.prior(torch.zeros(len(label), 2), noise), noise).x
        assert isinstance(made, Tensor)
        return made

    found = {"diffusion": Rival(sample, count(denoiser), 18, steps, spent)}
    torch.manual_seed(seed)
    found["adversarial"] = adversarial(
        PlainGenerator(), PlainDiscriminator(), points, none, seconds=seconds, seed=seed, batch=256
    )
    # 64 levels on each axis, values spread evenly over theirs when drawn
    edge, levels = 1.25, 64
    values = ((points + edge) / (2 * edge) * levels).long().clamp(0, levels - 1)
    network = Autoregressive(2, levels, 1, width=32, depth=2, heads=2, dropout=0.0)
    tokens = autoregressive(network, values, none, seconds=seconds, seed=seed, batch=256)

    def spread(v: Tensor) -> Tensor:
        jitter = torch.rand(v.shape, generator=torch.Generator().manual_seed(seed))
        return (v + jitter) / levels * 2 * edge - edge

    found["autoregressive"] = tokens.mapped(spread)
    return found


def around(rival: Rival, seed: int, n: int = 4000) -> Row:
    """How many of the eight are found, by a fifth of their share at least, and how many points are near one."""
    start = time.process_time()
    x = rival.sample(torch.zeros(n, dtype=torch.long), seed)
    spent = time.process_time() - start
    angle = torch.arange(MODES) * (2 * math.pi / MODES)
    distance, which = torch.cdist(x, torch.stack([angle.cos(), angle.sin()], 1)).min(1)
    near = distance < 4 * SPREAD
    shares = torch.bincount(which[near], minlength=MODES) / n
    return {
        "modes": float((shares > 0.2 / MODES).sum()),
        "near": float(near.float().mean()),
        "uneven": float((shares - 1 / MODES).abs().sum() / 2),
        "spread": float(distance[near].square().mean().sqrt() / (SPREAD * math.sqrt(2))),
        "parameters": rival.parameters,
        "calls": rival.calls,
        "steps": rival.steps,
        "train_seconds": rival.seconds,
        "seconds_for_1000": 1000 * spent / n,
    }


def told(rows: list[Row], name: str, unit: float = 1.0, digits: int = 0) -> str:
    """The mean over seeds, and their standard deviation where there are more and they differ."""
    values = [unit * row[name] for row in rows]
    off = stdev(values) if len(values) > 1 else 0.0
    return f"{mean(values):,.{digits}f}" + (f" ± {off:.{digits}f}" if round(off, digits) else "")


def table(found: dict[str, list[Row]], columns: dict[str, tuple[str, float, int]]) -> list[str]:
    """Lines of Markdown: a row for each model, a column for each figure."""
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, rows in found.items():
        cells = [
            told(rows, key, unit, places) if key in rows[0] else ""
            for key, unit, places in columns.values()
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


COST = {
    "parameters": ("parameters", 1.0, 0),
    "steps": ("steps", 1.0, 0),
    "calls for a sample": ("calls", 1.0, 0),
    "CPU s for 1,000": ("seconds_for_1000", 1.0, 2),
}
DIGITS = {
    "class as asked, %": ("accuracy", 100.0, 1),
    "Frechet distance": ("frechet", 1.0, 2),
    "precision, %": ("precision", 100.0, 1),
    "recall, %": ("recall", 100.0, 1),
    "coverage, %": ("coverage", 100.0, 1),
    "modes of 100": ("modes", 1.0, 1),
    "nearest training image": ("nearest", 1.0, 3),
} | COST
RING = {
    "modes of 8": ("modes", 1.0, 1),
    "near one, %": ("near", 100.0, 1),
    "uneven, %": ("uneven", 100.0, 1),
    "spread, of the true one": ("spread", 1.0, 2),
} | COST


def on_digits(seconds: float, seeds: int, n: int) -> None:
    """Train and judge the models of digits, print and store."""
    data = split("digits", None)
    train, test = (data[data.labels["part"] == part] for part in ("train", "test"))
    real = Judged(train, test)
    found: dict[str, list[Row]] = {}
    pictures: list[Tensor] = []
    for seed in range(seeds):
        for name, rival in digits(seconds, seed, train).items():
            found.setdefault(name, []).append(judged(rival, n, seed, real))
            if not seed:
                pictures.append(rival.sample(torch.arange(20) % 10, 1).clamp(0, 1))
            print(seed, name, found[name][-1], flush=True)
    found["training images"] = [real.figures(train[:n])]
    Images(Images(torch.cat(pictures)).grid(20)[None]).save(RESULTS / "images_rivals.png")
    lines = [
        "# Diffusion and its rivals",
        "",
        f"{seconds:g} CPU seconds of training each on one thread, {n:,} samples, {_seeds(seeds)}. Written by",
        f"`python benchmarks/{Path(__file__).name} --seconds {seconds:g} --seeds {seeds}`. Distances are those from",
        f"the 359 test digits in the judge's features; the judge tells {100 * real.judge.info['accuracy']:.1f} % of "
        "them right. The",
        "adversarial network trains a discriminator of "
        f"{count(ImageDiscriminator()):,} parameters beside what samples. One setting of each rival, not tuned.",
        "",
        *table(found, DIGITS),
        "",
        "![Rows of diffusion with guidance and without, of the adversarial and of the autoregressive "
        "model](images_rivals.png)",
    ]
    _store("images_rivals", lines, {"seconds": seconds, "seeds": seeds, "n": n}, found)


def on_ring(seconds: float, seeds: int) -> None:
    """Train and judge the models of the ring, print and store."""
    found: dict[str, list[Row]] = {}
    for seed in range(seeds):
        for name, rival in ring(seconds, seed).items():
            found.setdefault(name, []).append(around(rival, seed))
            print(seed, name, found[name][-1], flush=True)
    lines = [
        "# Diffusion and its rivals on a ring of eight",
        "",
        f"{seconds:g} CPU seconds of training each on one thread, 4,000 points, {_seeds(seeds)}. Written by",
        f"`python benchmarks/{Path(__file__).name} --ring-seconds {seconds:g} --seeds {seeds}`. *Near*: within four "
        "standard deviations of",
        "one of the eight (a circle without any gaps would have 51 %); *uneven*: the share of points that would have",
        "to move to another of them; *spread*: the width near one, over the true one.",
        "",
        *table(found, RING),
    ]
    _store("images_rivals_ring", lines, {"seconds": seconds, "seeds": seeds}, found)


def _seeds(seeds: int) -> str:
    return "seed 0" if seeds == 1 else f"seeds 0 to {seeds - 1} (mean and standard deviation)"


def _store(
    name: str, lines: list[str], settings: dict[str, float], found: dict[str, list[Row]]
) -> None:
    print("\n".join(lines))
    (RESULTS / f"{name}.md").write_text("\n".join(lines) + "\n")
    write(RESULTS / f"{name}.json", settings, found)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.0, help="for each model of digits")
    parser.add_argument("--ring-seconds", type=float, default=0.0, help="for each of the ring")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--n", type=int, default=1000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.seconds:
        on_digits(args.seconds, args.seeds, args.n)
    if args.ring_seconds:
        on_ring(args.ring_seconds, args.seeds)


if __name__ == "__main__":
    main()
