"""The same figure in another scene: does a model keep the identity that one picture shows?

    python benchmarks/images_reference.py --sprites sprites_layers.npz --run runs/reference

Drawn figures (Sprites, Li & Mandt 2018; Liberated Pixel Cup art), 32 x 32 pixels: body, trousers, top and hair are one
of six each, the scene is one of three actions in one of three directions. A model is asked by action and direction, and
told the figure by a reference: the first principal components of *one other picture* of it, in another scene. No figure
of the test was among the 1,000 of training. Identity is what a convolutional network of our own sees that knows neither
the components nor the model: the four parts, and which of the 296 unseen figures it is (the nearest of real ones of the
same scene in its features, every other frame). Beside it stand real pictures, samples without a reference, and with
that of somebody else.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from measure import write
from numpy.typing import NDArray
from rival_networks import fit
from sklearn.decomposition import PCA
from torch import Tensor, nn

from sciffusion.domains import images as domain
from sciffusion.domains.images import (
    DataConfig,
    ImageModel,
    Images,
    ImageTraining,
    ModelConfig,
    ObjectiveConfig,
    SamplingConfig,
    UNetConfig,
)
from sciffusion.training import AdamW, TrainConfig

RESULTS = Path(__file__).parent / "results"
PARTS = ("body", "bottomwear", "topwear", "hair")
ACTIONS, DIRECTIONS = ("walk", "spellcard", "slash"), ("front", "left", "right")
Ints = NDArray[np.int64]


class Figures:
    """All pictures of some figures: drawn when asked for, by figure, action, direction and frame."""

    def __init__(self, path: Path) -> None:
        data = np.load(path)
        self.layers = [data[k] for k in PARTS] + [data["shoes"][None]]
        order = data["character_order"].astype(np.int64)
        self.known, self.unseen = order[:1000], order[1000:]

    @staticmethod
    def parts(figures: Ints) -> Ints:
        """Which of six every part is, (N, 4)."""
        return np.stack([figures // 6**k % 6 for k in (3, 2, 1, 0)], 1)

    def draw(self, figures: Ints, scenes: Ints, frames: Ints) -> Tensor:
        """Pictures (N, 3, 32, 32), 0 to 1; a scene is 3 action + direction."""
        chosen = np.concatenate([self.parts(figures), np.zeros((len(figures), 1), np.int64)], 1)
        out = []
        for rows in np.array_split(np.arange(len(figures)), max(1, len(figures) // 500)):
            x = np.zeros((len(rows), 64, 64, 3), np.float32)
            for layer, which in zip(self.layers, chosen[rows].T, strict=True):
                part = layer[which, scenes[rows] // 3, scenes[rows] % 3, frames[rows]]
                cover = part[..., 3:].astype(np.float32) / 255
                x = x * (1 - cover) + part[..., :3] * cover
            out.append(F.avg_pool2d(torch.from_numpy(x / 255).permute(0, 3, 1, 2), 2))
        return torch.cat(out)


class Judge(nn.Module):
    """Convolutions that tell the four parts, the action and the direction apart."""

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for a, b in zip((3, *widths), widths, strict=False):
            layers += [nn.Conv2d(a, b, 3, 2, 1), nn.GroupNorm(8, b), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * widths[-1], 128))
        self.heads = nn.Linear(128, 4 * 6 + 2 * 3)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Logits of the parts (N, 6), four times, of the action and the direction (N, 3)."""
        return list(self.heads(F.silu(self.layers(x))).split([6] * 4 + [3] * 2, 1))

    @torch.no_grad()
    def tell(self, x: Tensor) -> Ints:
        """What is seen, (N, 6)."""
        return torch.stack([y.argmax(1) for y in self(x)], 1).numpy()

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """Vectors of unit length, (N, 128)."""
        return F.normalize(self.layers(x), dim=1)

    def learn(self, x: Tensor, truth: Tensor, seconds: float) -> None:
        """Train on pictures and what is on them, (N, 6)."""
        g = torch.Generator().manual_seed(1)
        optimizer = torch.optim.AdamW(self.parameters(), 2e-3, weight_decay=0.05)

        def step(share: float) -> None:
            rows = torch.randint(len(x), (128,), generator=g)
            for group in optimizer.param_groups:
                group["lr"] = 2e-3 * 0.5 * (1 + math.cos(math.pi * share))
            told = zip(self(x[rows]), truth[rows].T, strict=True)
            optimizer.zero_grad()
            sum(F.cross_entropy(y, t) for y, t in told).backward()  # type: ignore[union-attr]
            optimizer.step()

        fit(step, seconds)


def truth(figures: Ints, scenes: Ints) -> Ints:
    """What the judge should tell, (N, 6)."""
    return np.concatenate([Figures.parts(figures), np.stack([scenes // 3, scenes % 3], 1)], 1)


def recipe(steps: int, width: int) -> ImageTraining:
    """A U-Net on squares of 2 x 2 pixels, asked by action and direction, told a reference."""
    network = UNetConfig(fold=2, widths=(48, 96), blocks=1, attention=(False, True))
    model = ModelConfig(
        channels=3, network=network, attributes=("action", "direction"), reference=width
    )
    train = TrainConfig(
        steps=steps, batch_size=64, lr=2e-3, warmup=100, optimizer=AdamW(betas=(0.9, 0.99)),
        validate_every=0, checkpoint_seconds=60, threads=1, log_every=50,
    )  # fmt: skip
    return ImageTraining(
        model=model,
        data=DataConfig(source="sprites", valid=None),
        objective=ObjectiveConfig(time_mean=-0.3, time_std=1.3, drop=0.1),
        sampling=SamplingConfig(steps=14, scale=1.5),
        train=train,
    )


def main() -> None:
    """Train judge and model, sample, judge, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sprites", type=Path, required=True, help="sprites_layers.npz")
    parser.add_argument("--run", type=Path, required=True, help="where to train; continued there")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--judge-seconds", type=float, default=45.0)
    parser.add_argument("--pictures", type=int, default=24_000)
    parser.add_argument("--n", type=int, default=592)
    parser.add_argument("--components", type=int, default=96)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rng, figures = np.random.default_rng(0), Figures(args.sprites)

    def drawn(who: Ints, not_in: Ints | None = None) -> tuple[Tensor, Ints]:
        """A picture of each, and its scene: another one than these."""
        scenes = rng.integers(9, size=len(who))
        if not_in is not None:
            scenes = (not_in + rng.integers(1, 9, size=len(who))) % 9
        return figures.draw(who, scenes, rng.integers(8, size=len(who))), scenes

    who = rng.choice(figures.known, args.pictures)
    pictures, scenes = drawn(who)
    torch.manual_seed(0)
    judge = Judge()
    judge.learn(pictures, torch.from_numpy(truth(who, scenes)), args.judge_seconds)
    shown, _ = drawn(who, scenes)
    components = PCA(args.components, whiten=True, random_state=0).fit(shown[:6000].flatten(1))

    def told(x: Tensor) -> NDArray[np.float32]:
        return np.asarray(components.transform(x.flatten(1)), dtype=np.float32)

    labels: dict[str, Any] = {
        "action": np.array(ACTIONS)[scenes // 3],
        "direction": np.array(DIRECTIONS)[scenes % 3],
        "reference": told(shown),
    }
    start, note = time.process_time(), args.run / "cpu_seconds.txt"
    model, state = domain.train(
        recipe(args.steps, args.components), args.run, Images(pictures, labels)
    )
    spent = time.process_time() - start + (float(note.read_text()) if note.exists() else 0.0)
    note.write_text(f"{spent}\n")
    assert isinstance(model, ImageModel) and not state.stopped
    unseen = np.tile(figures.unseen, -(-args.n // len(figures.unseen)))[: args.n]
    real, asked = drawn(unseen)
    reference, _ = drawn(unseen, asked)
    known = rng.choice(figures.known, args.n)
    seen, _ = drawn(known, asked)
    gallery = [
        judge.features(figures.draw(figures.unseen, np.full(296, scene), np.full(296, frame)))
        for scene in range(9)
        for frame in range(0, 8, 2)
    ]
    found: dict[str, dict[str, float]] = {}

    def judged(name: str, x: Tensor, person: Ints) -> None:
        right = judge.tell(x) == truth(person, asked)
        near = judge.features(x)
        hits = []
        for i, scene in enumerate(asked):
            frames = torch.stack(gallery[4 * scene : 4 * scene + 4])  # (4, 296, 128)
            best = int((frames @ near[i]).amax(0).argmax())
            hits.append(figures.unseen[best] == person[i])
        found[name] = {
            **{part: float(right[:, k].mean()) for k, part in enumerate(PARTS)},
            "identity": float(right[:, :4].all(1).mean()),
            "scene": float(right[:, 4:].all(1).mean()),
        }
        if person is unseen:
            found[name]["found_among_296"] = float(np.mean(hits))
        print(name, found[name], flush=True)

    def sampled(references: NDArray[np.float32] | None, guidance: float) -> Tensor:
        given: dict[str, object] = {
            "action": np.array(ACTIONS)[asked // 3].tolist(),
            "direction": np.array(DIRECTIONS)[asked % 3].tolist(),
        }
        if references is not None:
            given["reference"] = torch.from_numpy(references)
        made = model.sample(args.n, given=given, guidance=guidance, seed=0)
        return made.to_floats().pixels

    judged("real pictures of the figures", real, unseen)
    judged("unseen figures, no guidance", sampled(told(reference), 1.0), unseen)
    made = sampled(told(reference), 1.5)
    judged("unseen figures, guidance 1.5", made, unseen)
    judged("figures of training, guidance 1.5", sampled(told(seen), 1.5), known)
    judged("without a reference, guidance 1.5", sampled(None, 1.5), unseen)
    judged(
        "somebody else's reference",
        sampled(told(reference[np.roll(np.arange(args.n), 1)]), 1.5),
        unseen,
    )
    grid = torch.cat([part[:16] for part in (reference, made, real)])
    Images(Images(grid).grid(16)[None]).save(RESULTS / "images_reference.png")
    columns = {
        "scene as asked": "scene",
        "body": "body",
        "trousers": "bottomwear",
        "top": "topwear",
        "hair": "hair",
        "all four": "identity",
        "found among 296": "found_among_296",
    }
    lines = [
        "# The same figure in another scene",
        "",
        f"{args.n} samples for each row, seed 0, of a U-Net of {sum(p.numel() for p in model.denoiser.parameters()):,} "
        f"parameters after {args.steps} steps ({spent:.0f} CPU seconds of one",
        f"thread) on {args.pictures:,} pictures of 1,000 figures; 296 others are unseen. A reference is "
        f"{args.components} principal components",
        f"of one picture in another scene. Written by `python benchmarks/{Path(__file__).name} --sprites "
        f"sprites_layers.npz --run runs/reference --steps {args.steps} --n {args.n}`.",
        "Shares in per cent, in the eyes of the judge; guesses would reach 11 (scene), 17 (each part), 0.08 (all four) "
        "and 0.34 (found).",
        "",
        "| | " + " | ".join(columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for name, row in found.items():
        cells = [f"{100 * row[key]:.1f}" if key in row else "" for key in columns.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "![Above the pictures that were shown, in the middle samples in the scene that was asked for, below the same "
        "figures as drawn there](images_reference.png)",
    ]
    print("\n".join(lines))
    (RESULTS / "images_reference.md").write_text("\n".join(lines) + "\n")
    settings = {k: str(v) for k, v in vars(args).items() if k not in ("sprites", "run")}
    write(RESULTS / "images_reference.json", settings | {"train_seconds": spent}, found)


if __name__ == "__main__":
    main()
