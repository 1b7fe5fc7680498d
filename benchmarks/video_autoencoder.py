"""What a causal autoencoder of films loses, by how much it shrinks them.

    python benchmarks/video_autoencoder.py runs/ae-32/model.safetensors runs/ae-128/model.safetensors ...

Each file is a run of ``sciffusion train video --config digits-autoencoder`` with another ``model.latent``,
``model.halves`` or ``model.widths``. Of held-out moving digits, 17 and 33 frames long: the root mean squared error of a
pixel (0 to 1) and the peak signal-to-noise ratio of films that were encoded (the mean of the latent) and decoded, the
frames in which a reader of digits still reads the label, the digit's displacement, and CPU time on one thread; beside
them what a plain mean over as many pixels loses, enlarged again by linear interpolation: as few numbers, no network.
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
from measure import environment, write
from torch import Tensor

from sciffusion.domains.video import CausalAutoencoder, MovingDigits, digits
from sciffusion.domains.video.classifier import reader
from sciffusion.domains.video.motion import centres

RESULTS = Path(__file__).parent / "results"


def pooled(x: Tensor, ratio: float) -> Tensor:
    """Films (N, C, T, H, W) of a ``ratio`` fewer numbers, by means over boxes, and enlarged linearly again."""
    side = ratio ** (1 / 3)
    small = [max(1, round(n / side)) for n in x.shape[2:]]
    return F.interpolate(
        F.adaptive_avg_pool3d(x, small), x.shape[2:], mode="trilinear", align_corners=False
    )


def judged(x: Tensor, y: Tensor, labels: Tensor) -> dict[str, float]:
    """How films y differ from x, both (N, C, T, H, W)."""
    error = float((x - y).square().mean().sqrt())
    read, _ = reader().read(y.transpose(1, 2))
    off = (centres(y.transpose(1, 2)) - centres(x.transpose(1, 2))).square().sum(-1).sqrt()
    return {
        "rmse": error,
        "psnr": -20 * math.log10(error),
        "agreement": float((read == labels[:, None]).double().mean()),
        "displacement": float(off.nanmedian()),
    }


@torch.no_grad()
def measured(model: CausalAutoencoder, n: int, frames: int, seed: int) -> dict[str, Any]:
    """Figures of one autoencoder."""
    films = MovingDigits(digits("test")).films(n, frames=frames, seed=seed)
    labels = torch.from_numpy(np.asarray(films.labels["digit"]))
    x = films.stack().float().transpose(1, 2) / 255
    start = time.process_time()
    z = model.encode(x)
    y = model.decode(z).clamp(0, 1)
    spent = time.process_time() - start
    streamed = torch.cat(list(model.stream(z.split(1, 2))), 2).clamp(0, 1)
    shrunk = x[0].numel() / z[0].numel()
    return {
        "frames": frames,
        "ratio": model.config.ratio,
        "ratio_of_these": shrunk,
        "latent": list(z.shape[1:]),
        "seconds_a_film": spent / n,
        "streamed_differs_by": float((streamed - y).abs().max()),
        "first_frame_differs_by": float((model.encode(x[:, :, :1]) - z[:, :, :1]).abs().max()),
        "model": judged(x, y, labels),
        "means": judged(x, pooled(x, shrunk), labels),
    }


def page(rows: list[dict[str, Any]], settings: dict[str, Any]) -> str:
    """The table."""
    lines = [
        "# Causal autoencoders of moving digits",
        "",
        f"{settings['n']} held-out films of 32 x 32 pixels, seed {settings['seed']}. In brackets: means over boxes of "
        "as many numbers.",
        "",
        "| frames | latent (channels, T, H, W) | numbers for one, of a long film (of these) | error of a pixel "
        "| PSNR, dB | digit read | displacement, pixels | parts of a stream differ by | CPU s a film |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        a, b = row["model"], row["means"]
        lines.append(
            f"| {row['frames']} | {' x '.join(map(str, row['latent']))} | {row['ratio']:.0f} "
            f"({row['ratio_of_these']:.0f}) | {a['rmse']:.4f} ({b['rmse']:.4f}) | {a['psnr']:.1f} ({b['psnr']:.1f}) | "
            f"{100 * a['agreement']:.1f} % ({100 * b['agreement']:.1f} %) | {a['displacement']:.2f} "
            f"({b['displacement']:.2f}) | {row['streamed_differs_by']:.1g} | {row['seconds_a_film']:.3f} |"
        )
    lines += ["", ", ".join(f"{k} {v}" for k, v in environment().items()), ""]
    return "\n".join(lines)


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "video_autoencoder.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = [
        measured(CausalAutoencoder.load(path), args.n, frames, args.seed)
        for path in args.models
        for frames in (17, 33)
    ]
    settings = {"n": args.n, "seed": args.seed}
    write(args.out, settings, {"rows": rows})
    text = page(rows, settings)
    print(text)
    args.out.with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
