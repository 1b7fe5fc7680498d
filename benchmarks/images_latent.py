"""Pixels or latents: which gives the better clothes after the same CPU seconds of training?

    python benchmarks/images_latent.py --data fashion_mnist.npz      # --seconds for each side, 240 by default

The recipes ``fashion`` (pixels) and ``fashion-autoencoder`` with ``fashion-latent``, cut to so many steps as take the
given CPU seconds on one thread, by the time of twenty steps measured before; the latent side spends a third on its
autoencoder. Both are judged by the shipped classifier on 1,000 samples, the ten classes in turn, without guidance and
with a scale of 2.5 where the noise does not hide everything (log-SNR above -3).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from measure import write

from sciffusion.domains import images as domain
from sciffusion.domains.images import Guide, ImageModel, Images
from sciffusion.domains.images.datasets import split

RESULTS = Path(__file__).parent / "results"
WARM = 20


def trained(recipe: str, extra: list[str], seconds: float, data: Images) -> tuple[Any, int, float]:
    """What a recipe makes in about so many CPU seconds, its steps, and the seconds that it took."""
    quiet = ["train.validate_every=0", "train.checkpoint_seconds=0", *extra]
    with tempfile.TemporaryDirectory() as folder:
        short = domain.recipe(recipe, [*quiet, f"train.steps={WARM}"])
        domain.train(short, Path(folder) / "warm", data[:2000])  # what is done once, is done here
        start = time.process_time()
        domain.train(short, Path(folder) / "time", data[:2000])
        each = (time.process_time() - start) / WARM
        steps = max(30, int(seconds / each))
        start = time.process_time()
        made, _ = domain.train(
            domain.recipe(recipe, [*quiet, f"train.steps={steps}"]), Path(folder) / "run", data
        )
        return made, steps, time.process_time() - start


def judged(model: ImageModel, scale: float, test: Images, n: int) -> dict[str, float]:
    """The figures of samples at a scale of guidance."""
    start = time.process_time()
    made = model.sample(n, guidance=Guide(scale, low=-3.0), seed=0)
    seconds = (time.process_time() - start) / n * 1000
    report = domain.evaluate(made, test)
    floor = report.ceiling["frechet"].value
    names = ("accuracy", "frechet", "precision", "recall", "coverage")
    found = {k: report[k].value for k in names}
    return found | {"frechet_of_real": floor, "seconds_for_1000": seconds}


def main() -> None:
    """Train both, judge, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="a local copy of the data")
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--n", type=int, default=1000)
    args = parser.parse_args()
    data = split("fashion-mnist", args.data)
    train, test = (data[data.labels["part"] == part] for part in ("train", "test"))
    pixels, pixel_steps, pixel_seconds = trained("fashion", [], args.seconds, train)
    codec, codec_steps, codec_seconds = trained("fashion-autoencoder", [], args.seconds / 3, train)
    held = test[:1000].to_floats().pixels
    with torch.no_grad():
        error = float((codec.decode(codec.encode(held)) - held).square().mean().sqrt())
    with tempfile.TemporaryDirectory() as folder:
        path = codec.save(Path(folder) / "autoencoder.safetensors")
        latent, latent_steps, latent_seconds = trained(
            "fashion-latent", [f"autoencoder={path}"], args.seconds * 2 / 3, train
        )
    with torch.no_grad():
        rows = test[: args.n].to_floats()
        rebuilt = Images(codec.decode(codec.encode(rows.pixels)).clamp(0, 1), rows.labels)
    sides = {
        "pixels": (pixels, pixel_steps, pixel_seconds),
        "latents": (latent, latent_steps, codec_seconds + latent_seconds),
    }
    found: dict[str, Any] = {
        f"{name}, guidance {scale:g}": judged(model, scale, test, args.n)
        | {"steps": steps, "train_seconds": seconds}
        for name, (model, steps, seconds) in sides.items()
        for scale in (1.0, 2.5)
    }
    again = domain.evaluate(rebuilt, test)
    lines = [
        "# Pixels or latents",
        "",
        f"Written by `python benchmarks/{Path(__file__).name} --seconds {args.seconds:g}`, one thread of a CPU, "
        f"{args.n:,} samples, seed 0.",
        f"Autoencoder: {codec_steps} steps, {codec_seconds:.0f} s; root mean squared error of decoded test images "
        f"{error:.4f} of 1; their Frechet distance {again['frechet'].value:.2f}.",
        "",
        "| | steps | CPU s of training | class as asked | Frechet distance | of real images | recall | "
        "CPU s for 1,000 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in found.items():
        lines.append(
            f"| {name} | {row['steps']} | {row['train_seconds']:.0f} | {100 * row['accuracy']:.1f} % | "
            f"{row['frechet']:.2f} | {row['frechet_of_real']:.2f} | {100 * row['recall']:.1f} % | "
            f"{row['seconds_for_1000']:.0f} |"
        )
    print("\n".join(lines))
    (RESULTS / "images_latent.md").write_text("\n".join(lines) + "\n")
    settings = {"seconds": args.seconds, "n": args.n, "autoencoder_steps": codec_steps}
    settings |= {"autoencoder_seconds": codec_seconds, "rmse": error}
    write(RESULTS / "images_latent.json", settings, found)


if __name__ == "__main__":
    main()
