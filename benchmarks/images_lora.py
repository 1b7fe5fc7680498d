"""Can the shipped model of clothes be taught something new through a tenth of its parameters, and how much of it used?

    python benchmarks/images_lora.py --data fashion_mnist.npz     # two minutes; without --data they are fetched

The recipe `fashion-adapter` on training images that lie on their side, turned by a quarter: no augmentation showed any
to the model before. Samples at several scales of the adapter are put to the judge, which knows upright clothes only,
twice: as they are, and turned back. Scale 0 is the model as it ships, 1 what was learned. The Frechet distance of
samples that are turned back is that from 2,000 test images.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from measure import write

from sciffusion.bootstrap import Bootstrap
from sciffusion.domains import images as domain
from sciffusion.domains.images import Adapter, Images
from sciffusion.domains.images.datasets import split

RESULTS = Path(__file__).parent / "results"
SCALES = (0.0, 0.25, 0.5, 0.75, 1.0)


def turned(images: Images, quarters: int) -> Images:
    """Images turned by so many quarters, against the clock."""
    return Images(images.pixels.rot90(quarters, (2, 3)).contiguous(), images.labels)


def main() -> None:
    """Train, sample along the scale, judge, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="a local copy of the data")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--n", type=int, default=200)
    args = parser.parse_args()
    data = split("fashion-mnist", args.data)
    train, test = (data[data.labels["part"] == part] for part in ("train", "test"))
    recipe = domain.recipe("fashion-adapter", [f"train.steps={args.steps}"])
    model = domain.load("fashion")
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        adapter, state = domain.train(recipe, Path(folder) / "run", turned(train, 1))
        spent = time.process_time() - start
        assert isinstance(adapter, Adapter) and not state.stopped
        size = (Path(folder) / "run" / "model.safetensors").stat().st_size
        merged = domain.load(model.adapted(adapter).save(Path(folder) / "merged.safetensors"))
    some = {"n": 16, "seed": 1}
    off = model.adapted(adapter).sample(**some).pixels - merged.sample(**some).pixels
    whole = sum(p.numel() for p in model.denoiser.parameters())
    parameters = sum(t.numel() for t in adapter.terms.values())
    found, rows = {}, []
    for scale in SCALES:
        made = model.adapted(adapter, scale).sample(args.n, seed=0)
        back = turned(made, -1)
        upright = domain.evaluate(made, bootstrap=Bootstrap(20))
        lying = domain.evaluate(back, test[:4000], bootstrap=Bootstrap(20))
        found[f"{scale:g}"] = {
            "upright": upright["accuracy"].value,
            "turned_back": lying["accuracy"].value,
            "frechet_turned_back": lying["frechet"].value,
            "frechet_of_real": lying.ceiling["frechet"].value,
        }
        rows.append(made[:10].pixels)
        print(scale, found[f"{scale:g}"], flush=True)
    Images(Images(torch.cat(rows)).grid(10)[None]).save(RESULTS / "images_lora.png")
    real = next(iter(found.values()))["frechet_of_real"]
    lines = [
        "# An adapter of clothes",
        "",
        f"{parameters:,} parameters of low-rank terms (rank {recipe.rank}) beside {whole:,} that stay; "
        f"{args.steps} steps, {spent:.0f} CPU seconds of one thread; a file of {size / 1000:.0f} kB.",
        f"{args.n} samples for each scale, seed 0. Written by `python benchmarks/{Path(__file__).name}`. Merged into "
        "the weights, and these rounded",
        f"to float16 in a file, the model draws the same samples within {float(off.abs().max()):.3f} of 1.",
        "",
        "| scale | class as asked, as it is | class as asked, turned back | Frechet distance, turned back |",
        "|---|---|---|---|",
    ]
    for scale, row in found.items():
        lines.append(
            f"| {scale} | {100 * row['upright']:.1f} % | {100 * row['turned_back']:.1f} % | "
            f"{row['frechet_turned_back']:.2f} |"
        )
    lines += [
        "",
        f"As many real test images reach a distance of {real:.2f}.",
        "",
        "![Samples of the same noise, a row for each scale](images_lora.png)",
    ]
    print("\n".join(lines))
    (RESULTS / "images_lora.md").write_text("\n".join(lines) + "\n")
    settings = {"steps": args.steps, "n": args.n, "parameters": parameters, "bytes": size}
    write(RESULTS / "images_lora.json", settings | {"train_seconds": spent}, found)


if __name__ == "__main__":
    main()
