"""Coarse or detailed descriptions: what does a model of images learn to draw of them? (DALL-E 3, Betker et al. 2023.)

    python benchmarks/images_text_detail.py --runs runs/detail

The recipe ``scenes`` is trained twice, with the same network, seed and steps, on the same scenes of two shapes: once on
coarse texts alone ("a square and a circle"), once on 95 % detailed ones ("a large red square left of a small blue
circle"). Both are asked by the texts of held-out scenes, in detailed and in coarse words. What the images show is read
by arithmetic on their pixels, which reads the real held-out scenes without a mistake (``real``). A column counts the
images where it is right for both shapes at once: their kinds, colours and sizes whichever comes first, the place (which
colour lies where), and everything, each shape with its own colour and size. ``chance`` shuffles the real scenes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import environment, write
from numpy.typing import NDArray

from sciffusion.domains import images as domain
from sciffusion.domains.images import Images
from sciffusion.domains.images.captions import SceneCaptions
from sciffusion.domains.images.datasets import split
from sciffusion.domains.images.datasets.scenes import read_scenes
from sciffusion.domains.images.files import picture

RESULTS = Path(__file__).parent / "results"
Labels = Mapping[str, NDArray[Any]]


def trained(recipe: str, said: Sequence[str], folder: Path) -> tuple[Any, float]:
    """What a recipe makes, and the CPU seconds of it, earlier parts too; one that is stopped ends all."""
    note, start = folder / "cpu_seconds.txt", time.process_time()
    made, state = domain.train(domain.recipe(recipe, said), folder)
    seconds = time.process_time() - start + (float(note.read_text()) if note.exists() else 0.0)
    note.write_text(f"{seconds}\n")
    if state.stopped:
        raise SystemExit(f"{folder} was ended by {state.stopped}; the same command continues it")
    return made, seconds


def shares(seen: Labels, asked: Labels) -> dict[str, float]:
    """How many images show what was asked."""

    def both(key: str, labels: Labels) -> NDArray[Any]:
        return np.sort(np.stack([labels[f"{key}1"], labels[f"{key}2"]]), 0)

    found = {
        f"{key}s": (both(key, seen) == both(key, asked)).all(0)
        for key in ("shape", "colour", "size")
    }
    found["place"] = np.all([seen[k] == asked[k] for k in ("relation", "colour1", "colour2")], 0)
    keys = [f"{k}{i}" for k in ("shape", "colour", "size") for i in (1, 2)] + ["relation"]
    found["everything"] = np.all([seen[k] == asked[k] for k in keys], 0)
    return {k: float(v.mean()) for k, v in found.items()}


def draw(rows: list[Images], path: Path, columns: int = 8, factor: int = 3) -> None:
    """The first images of each set as a row of a picture, every pixel enlarged."""
    grid = Images(torch.cat([row[:columns].to_floats().pixels for row in rows])).grid(columns)
    picture(grid.repeat_interleave(factor, 1).repeat_interleave(factor, 2)).save(path)


def main() -> None:
    """Train both, ask both, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True, help="where to train")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    test = split("scenes:test")[: args.n]
    rows: dict[str, dict[str, float]] = {
        "real": shares(read_scenes(test), test.labels),
        "chance": shares(read_scenes(test[np.roll(np.arange(args.n), 1)]), test.labels),
    }
    seconds, shown = {}, []
    for name, share in (("coarse", 0.0), ("detailed", 0.95)):
        said = [f"data.detailed={share}", f"train.steps={args.steps}"]
        model, seconds[name] = trained("scenes", said, args.runs / name)
        for asked, detail in (("detailed", 1.0), ("coarse", 0.0)):
            texts = SceneCaptions().texts(test, args.seed, detail)
            made = model.sample(args.n, given={"text": texts}, seed=args.seed, progress=False)
            rows[f"learned {name}, asked {asked}"] = shares(read_scenes(made), test.labels)
            shown += [made] if detail else []
    draw([test, *shown], RESULTS / "images_text_detail.png")
    columns = ("shapes", "colours", "sizes", "place", "everything")
    lines = [
        "# Coarse or detailed descriptions",
        "",
        f"Written by `python benchmarks/{Path(__file__).name} --runs runs/detail`, one thread of a "
        f"{environment()['cpu']}, {args.steps} steps of 32 images each ({seconds['coarse']:.0f} and "
        f"{seconds['detailed']:.0f} CPU seconds), {args.n} texts, seed {args.seed}, guidance 2.",
        "",
        "| | " + " | ".join(columns) + " |",
        "|---|" + "---|" * len(columns),
        *(
            f"| {name} | " + " | ".join(f"{100 * row[k]:.1f} %" for k in columns) + " |"
            for name, row in rows.items()
        ),
        "",
        "Coarse texts name the shapes alone: in the last row, only the first column was asked for.",
        "",
        "![Real scenes, and what models of coarse and detailed texts draw](images_text_detail.png)",
        "",
        "Rows: held-out scenes; their detailed texts drawn by the model of coarse texts, and by that of detailed ones.",
    ]
    print("\n".join(lines))
    (RESULTS / "images_text_detail.md").write_text("\n".join(lines) + "\n")
    settings = {"steps": args.steps, "n": args.n, "seed": args.seed, "cpu_seconds": seconds}
    write(RESULTS / "images_text_detail.json", settings, rows)


if __name__ == "__main__":
    main()
