"""Do sparse experts, or experts by noise level, learn more than one dense network from the same arithmetic?

    python benchmarks/experts.py --path fashion_mnist.npz

Transformers over patches of 4 x 4 of Fashion-MNIST, trained from nothing for equally many samples, in batches of equal
size, at equal active FLOPs: what a sample goes through has the same number of weights. Validation losses are those of
1,000 test images, each seen at 16 noise levels with noise of its own: the squared error of the preconditioned output,
the mean over the law of noise levels that all are trained on, and by bins of log-SNR.

* dense: blocks with one network of two layers, four times as wide as a token.
* sparse: every token goes through two of four networks of 1.6 times its width and a shared one of half of that
  (``DiT(experts=4)``), with a balance loss. Its balance is the entropy of the experts' loads over that of equal ones.
* two by noise: two dense networks, one on each side of the median noise level (``TimeExperts``); either gets half of
  every batch. Twice the weights, as many steps, half the samples each.

Runs that are in the results already are kept; the page is written when all are there.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any, final

import numpy as np
import torch
from measure import environment, write
from torch import Tensor, nn

from sciffusion.denoiser import Preconditioned
from sciffusion.domains.images.datasets import split
from sciffusion.networks import DiT, NoiseLevel, Routing
from sciffusion.noise import Noise
from sciffusion.objective import EDM, Between, LogNormal, Objective
from sciffusion.process import Gaussian
from sciffusion.schedule import RectifiedFlow

KINDS = ("dense", "sparse", "two by noise")
LAW = LogNormal(-0.3, 1.3)
MIDDLE = 0.6
"""The median log-SNR of the law."""
BINS = (-math.inf, -4.0, -2.0, 0.0, 2.0, 4.0, math.inf)
BALANCE, EXPERTS, ACTIVE = 0.01, 4, 2
WIDTH, DEPTH, EMBEDDING = 96, 4, 96
PROCESS = Gaussian(RectifiedFlow())


@final
class Network(nn.Module):
    """A transformer that is told the noise level."""

    def __init__(self, experts: int) -> None:
        super().__init__()
        self.level = NoiseLevel(EMBEDDING)
        self.body = DiT(
            1,
            1,
            patch=4,
            width=WIDTH,
            depth=DEPTH,
            heads=4,
            expansion=1.6 if experts else 4.0,
            embedding=EMBEDDING,
            experts=experts,
        )

    def forward(
        self, x: Tensor, log_snr: Tensor, cond: None = None, previous: None = None
    ) -> Tensor:
        """Images (B, 1, H, W) and (B,) to the same."""
        out: Tensor = self.body(x, self.level(log_snr))
        return out

    @property
    def active(self) -> int:
        """The weights that a token goes through."""
        idle = sum(
            p.numel() * (EXPERTS - ACTIVE) // EXPERTS
            for name, p in self.named_parameters()
            if ".each." in name
        )
        return sum(p.numel() for p in self.parameters()) - idle


@dataclass(frozen=True)
class Run:
    """What came of a training."""

    kind: str
    seed: int
    weights: int
    active: int
    seconds: float
    loss: float
    bins: list[float]
    balance: float | None


def train(kind: str, seed: int, images: Tensor, held: Tensor, steps: int, batch: int) -> Run:
    """One contender, from nothing."""
    torch.manual_seed(seed)
    sigma, start = float(images.std()), time.process_time()
    nets = [Network(EXPERTS * (kind == "sparse")) for _ in range(1 + (kind == KINDS[2]))]
    models = [Preconditioned(net, PROCESS, sigma_data=sigma) for net in nets]
    laws = [LAW] if len(nets) == 1 else [Between(LAW, high=MIDDLE), Between(LAW, low=MIDDLE)]
    objectives = [Objective(PROCESS, weight=EDM(sigma), times=law) for law in laws]
    optimizers = [torch.optim.AdamW(m.parameters(), 2e-3, (0.9, 0.99)) for m in models]
    draw = np.random.default_rng(seed)
    for step in range(steps):
        rate = 2e-3 * min(1, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / steps))
        rows = torch.from_numpy(draw.integers(len(images), size=batch)).chunk(len(models))
        for i, (model, objective, optimizer) in enumerate(
            zip(models, objectives, optimizers, strict=True)
        ):
            noise = Noise([int(s) for s in draw.integers(2**62, size=len(rows[i]))])
            if kind == "sparse":
                with Routing(model) as routing:
                    loss = objective(model, images[rows[i]], noise=noise).mean
                loss = loss + BALANCE * routing.balance()
            else:
                loss = objective(model, images[rows[i]], noise=noise).mean
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    spent = time.process_time() - start
    losses, levels, entropy = validate(models, held, sigma)
    binned = [float(losses[(levels > a) & (levels <= b)].mean()) for a, b in pairwise(BINS)]
    weights = sum(p.numel() for net in nets for p in net.parameters())
    return Run(kind, seed, weights, nets[0].active, spent, float(losses.mean()), binned, entropy)


@torch.no_grad()
def validate(
    models: list[Preconditioned], held: Tensor, sigma: float, levels: int = 16
) -> tuple[Tensor, Tensor, float | None]:
    """Losses (levels, N) of all images at quantiles of the law, their log-SNR (levels, 1), and the balance.

    Every image has noise of its own, the same for all contenders.
    """
    t = LAW.quantile((torch.arange(levels).double() + 0.5) / levels, PROCESS.schedule)
    log_snr = PROCESS.schedule.log_snr(t)
    alpha, sigmas = PROCESS.schedule(t)
    eps = torch.randn(held.shape, generator=torch.Generator().manual_seed(0))
    rows, entropies = [], []
    for i in range(levels):
        # the noisier expert comes first
        model = models[int(log_snr[i] > MIDDLE)] if len(models) > 1 else models[0]
        errors = []
        for x0, noise in zip(held.split(250), eps.split(250), strict=True):
            x_t = float(alpha[i]) * x0 + float(sigmas[i]) * noise
            if any(".router" in name for name, _ in model.named_modules()):
                with Routing(model) as routing:
                    found = model(x_t, t[i]).x0
                entropies.append(float(routing.entropy()))
            else:
                found = model(x_t, t[i]).x0
            errors.append((found - x0).square().mean((1, 2, 3)))  # type: ignore[operator]
        weight = float(log_snr[i].exp()) + 1 / sigma**2
        rows.append(weight * torch.cat(errors))
    losses = torch.stack(rows)
    balance = mean(entropies) if entropies else None
    return losses, log_snr[:, None].expand(losses.shape), balance


def page(runs: list[Run], settings: dict[str, Any]) -> str:
    """The results as Markdown."""
    env = environment()
    lines = [
        "# Experts against one dense network at equal active FLOPs",
        "",
        f"`{env['command']}` on one thread of {env['cpu']}, torch {env['torch']}: {settings['steps']} steps of "
        f"{settings['batch']} images, seeds {', '.join(map(str, settings['seeds']))}. Losses are means over the seeds, "
        "with the difference from the dense network of the same seed; lower is better.",
        "",
        "| network | weights | active | CPU seconds | loss | of dense, by seed | balance |",
        "|---|---|---|---|---|---|---|",
    ]
    dense = {r.seed: r.loss for r in runs if r.kind == "dense"}
    for kind in KINDS:
        own = [r for r in runs if r.kind == kind]
        shares = ", ".join(f"{100 * (r.loss / dense[r.seed] - 1):+.2f} %" for r in own)
        balance = "" if own[0].balance is None else f"{mean(r.balance or 0 for r in own):.3f}"
        lines.append(
            f"| {kind} | {own[0].weights:,} | {own[0].active:,} | {mean(r.seconds for r in own):.0f} | "
            f"{mean(r.loss for r in own):.4f} | {shares} | {balance} |"
        )
    names = [f"{a:g} to {b:g}" for a, b in pairwise(BINS)]
    names[0], names[-1] = f"below {BINS[1]:g}", f"above {BINS[-2]:g}"
    lines += ["", "By log-SNR:", "", "| network | " + " | ".join(names) + " |"]
    lines.append("|---|" + "---|" * len(names))
    for kind in KINDS:
        own = [r.bins for r in runs if r.kind == kind]
        cells = [f"{mean(column):.4f}" for column in zip(*own, strict=True)]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Train what is missing, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--path", type=Path, help="a local copy of Fashion-MNIST")
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/experts.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    settings = {k: getattr(args, k) for k in ("steps", "batch", "seeds")}
    runs: list[Run] = []
    if args.out.exists():
        before = json.loads(args.out.read_text())
        if before["settings"] == settings:
            runs = [Run(**r) for r in before["results"]["runs"]]
    parts = [split(f"fashion-mnist:{part}", args.path) for part in ("train", "test")]
    images, held = (2 * p.to_floats().pixels - 1 for p in (parts[0], parts[1][:1000]))
    for seed in args.seeds:
        for kind in KINDS:
            if any((r.kind, r.seed) == (kind, seed) for r in runs):
                continue
            runs.append(train(kind, seed, images, held, args.steps, args.batch))
            print(runs[-1], flush=True)
            write(args.out, settings, {"runs": [asdict(r) for r in runs]})
    args.out.with_suffix(".md").write_text(page(runs, settings))
    print(page(runs, settings))


if __name__ == "__main__":
    main()
