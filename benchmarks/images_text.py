"""Are the words in pictures spelled as the text asks, also words that were never seen?

    python benchmarks/images_text.py

A reader of our own, trained on rendered words alone (and kept, if ``--reader`` names a file), reads pictures
that the model makes of detailed texts: of words that occur in training, each in colours and places drawn anew, and of
words that do not. Beside them stands what the reader gets right of real renderings of the same labels, which bounds
everything. ``letters`` counts places of two to four letters, ``words`` pictures without a mistake. Colour, row and
column are those of the nearest of all 45 renderings of the word that was asked for.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from images_text_detail import draw
from measure import environment, write
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sciffusion.domains import images as domain
from sciffusion.domains.images import ImageModel, Images
from sciffusion.domains.images.captions import GlyphCaptions
from sciffusion.domains.images.datasets import glyphs, split

RESULTS = Path(__file__).parent / "results"
Labels = Mapping[str, NDArray[Any]]


def ink(pixels: Tensor) -> Tensor:
    """How far pixels (N, C, H, W) are from their picture's ground, 0 to 1, (N, H, W); the ground is their median."""
    ground = pixels.flatten(2).median(2).values[..., None, None]
    far = (pixels - ground).abs().amax(1)
    return far / far.amax((1, 2), keepdim=True).clamp(min=0.2)


def cornered(pixels: Tensor) -> Tensor:
    """The ink, moved to the upper left corner, (N, 1, H, W): where it stands is not to be read."""
    found = []
    for one in ink(pixels):
        y, x = (one > 0.3).nonzero().unbind(1)
        at = (-int(y.min()), -int(x.min())) if len(y) else (0, 0)
        found.append(one.roll(at, (0, 1)))
    return torch.stack(found)[:, None]


class Reader(nn.Module):
    """Pictures to the logits of four places, each a letter or nothing, (N, 27, 4)."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 24, 48, 96)
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(zip(widths, widths[1:], strict=False)):
            layers += [nn.Conv2d(a, b, 3, 2 if i else 1, 1), nn.BatchNorm2d(b), nn.ReLU()]
        h, w = (-(-n // 4) for n in glyphs.CANVAS)
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(96 * h * w, 256), nn.ReLU())
        self.last = nn.Linear(256, 27 * glyphs.LONGEST)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of cornered ink."""
        return self.last(self.body(x)).unflatten(1, (27, glyphs.LONGEST))

    @torch.no_grad()
    def read(self, images: Images) -> Tensor:
        """The letters of pictures, (N, 4), 26 for none."""
        x = cornered(images.to_floats().pixels)
        return torch.cat([self(part).argmax(1) for part in x.split(256)])


def letters(words: Sequence[str]) -> Tensor:
    """The letters of words, (N, 4), 26 for none."""
    rows = [[glyphs.LETTERS.index(c) for c in word] for word in words]
    return torch.tensor([row + [26] * (glyphs.LONGEST - len(row)) for row in rows])


def trained(train: Images, steps: int, seed: int, path: Path | None) -> tuple[Reader, float]:
    """A reader after so many steps of 64 renderings with a little noise, and the CPU seconds that it took."""
    if path is not None and path.exists():
        kept = load_file(path)
        reader, seconds = Reader(), float(kept.pop("seconds"))
        reader.load_state_dict(kept)
        return reader.eval(), seconds
    start = time.process_time()
    torch.manual_seed(seed)
    reader, rng = Reader(), np.random.default_rng(seed)
    x, wanted = cornered(train.to_floats().pixels), letters(train.labels["word"])
    optimizer = torch.optim.AdamW(reader.parameters(), 2e-3, weight_decay=0.02)
    slower = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    for _ in range(steps):
        rows = torch.from_numpy(rng.integers(len(x), size=64))
        seen = x[rows] + 0.1 * torch.rand(64, 1, 1, 1) * torch.randn(64, *x.shape[1:])
        loss = F.cross_entropy(reader(seen), wanted[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        slower.step()
    seconds = time.process_time() - start
    if path is not None:
        save_file({**reader.state_dict(), "seconds": torch.tensor(seconds)}, path)
    return reader.eval(), seconds


def legible(reader: Reader, images: Images, words: Sequence[str]) -> dict[str, float]:
    """The shares of letters and words that are read as they should be."""
    right = reader.read(images) == letters(words)
    real = letters(words) != 26
    longer = real.sum(1) > 1
    return {
        "letters": float(right[longer][real[longer]].double().mean()),
        "words": float(right[longer].all(1).double().mean()),
    } | {f"words of {n}": float(right[real.sum(1) == n].all(1).double().mean()) for n in (2, 3, 4)}


def look(images: Images, labels: Labels) -> dict[str, float]:
    """The shares of pictures with the colour, the row and the column asked for."""
    kinds = {"colour": tuple(glyphs.COLOURS), "row": glyphs.ROWS, "column": glyphs.COLUMNS}
    every = list(product(*kinds.values()))
    table = {k: np.array(v) for k, v in zip(kinds, zip(*every, strict=True), strict=True)}
    right: dict[str, list[bool]] = {k: [] for k in kinds}
    for one, word in zip(images.to_floats().pixels, labels["word"], strict=True):
        i = len(right["colour"])
        all_ = {**table, "word": np.repeat([str(word)], len(every))}
        drawn = Images.of(glyphs.render(all_, np.random.default_rng(0))).to_floats().pixels
        nearest = int((drawn - one).square().mean((1, 2, 3)).argmin())
        for k in kinds:
            right[k].append(bool(table[k][nearest] == labels[k][i]))
    return {k: float(np.mean(v)) for k, v in right.items()}


def main() -> None:
    """Train the reader, ask, read, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="glyphs", help="one that ships, or a file")
    parser.add_argument("--reader", type=Path, help="its file; trained and written if absent")
    parser.add_argument("--reader-steps", type=int, default=1200)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 2.0])
    args = parser.parse_args()
    torch.set_num_threads(1)
    both = split("glyphs")
    train, test = (both[both.labels["part"] == part] for part in ("train", "test"))
    reader, seconds = trained(train, args.reader_steps, args.seed, args.reader)
    held = legible(reader, test, test.labels["word"].tolist())
    print(f"reader, {seconds:.0f} CPU s: {held}", flush=True)
    model: ImageModel = domain.load(args.model)
    rng = np.random.default_rng(args.seed)
    known, unknown = train.labels["word"].tolist(), test.labels["word"].tolist()
    rows, shown = {"held-out renderings": held}, []
    for name, pool in (("seen", known), ("unseen", unknown)):
        words = [word for word in pool if len(word) > 1][: args.n]
        labels = glyphs.drawn(words, rng)
        real = Images.of(glyphs.render(labels, rng))
        rows[f"{name} words, rendered"] = {**legible(reader, real, words), **look(real, labels)}
        texts = [
            GlyphCaptions().draw({k: v[i] for k, v in labels.items()}, rng, True)
            for i in range(len(words))
        ]
        shown.append(real)
        for scale in args.guidance:
            made = model.sample(
                len(words), given={"text": texts}, guidance=scale, seed=args.seed, progress=False
            )
            key = f"{name} words, guidance {scale:g}"
            rows[key] = {**legible(reader, made, words), **look(made, labels)}
            print(key, rows[key], flush=True)
        shown.append(made)
    draw(shown, RESULTS / "images_text.png", 6)
    columns = list(rows["unseen words, rendered"])
    info = dict(model.info or {})
    lines = [
        "# Words in pictures",
        "",
        f"Written by `python benchmarks/{Path(__file__).name} --n {args.n}`, one thread of a {environment()['cpu']}, "
        f"{args.n} words of two to four letters in each row, seed {args.seed}. The model: {info.get('steps')} steps of "
        f"32 renderings, {sum(p.numel() for p in model.denoiser.parameters()):,} parameters. The reader: {seconds:.0f} "
        "CPU seconds.",
        "",
        "| | " + " | ".join(columns) + " |",
        "|---|" + "---|" * len(columns),
        *(
            f"| {name} | "
            + " | ".join(f"{100 * row[k]:.1f} %" if k in row else "" for k in columns)
            + " |"
            for name, row in rows.items()
        ),
        "",
        "![Rendered and generated words](images_text.png)",
        "",
        "Rows: seen words rendered, and generated of the same texts; unseen words rendered, and generated.",
    ]
    print("\n".join(lines))
    (RESULTS / "images_text.md").write_text("\n".join(lines) + "\n")
    settings = {"n": args.n, "seed": args.seed, "reader_steps": args.reader_steps}
    settings |= {"reader_cpu_seconds": seconds, "recipe": info.get("recipe")}
    write(RESULTS / "images_text.json", settings, rows)


if __name__ == "__main__":
    main()
