"""Frames between given ones: what does a model of films draw there, against mixing its neighbours?

    python benchmarks/video_between.py

Held-out moving digits of which every second or fourth frame is kept, at the speed of training (0.5 to 3 pixels a frame)
and in slow motion, where the kept frames are as far apart as frames of training. Of the missing frames: the root mean
squared error of a pixel (0 to 1), and the share in which a reader of digits sees the label; for one draw of the model,
the mean of several draws, one call of the network from pure noise (its guess of the mean), and linear interpolation.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import environment, write
from torch import Tensor

from sciffusion.domains import video
from sciffusion.domains.video import Film, MovingDigits, VideoModel, digits
from sciffusion.domains.video.classifier import reader
from sciffusion.samplers import DDIM, Sampler

RESULTS = Path(__file__).parent / "results"
CASES = [(1, 2), (1, 4), (2, 2), (4, 4)]
"""Frames shown for every one of the usual speed, and of how many one is kept."""


def mixed(x: Tensor, factor: int) -> Tensor:
    """Frames (T', C, H, W) and those between, linear in time."""
    weights = torch.arange(factor).view(1, -1, 1, 1, 1) / factor
    between = x[:-1, None] * (1 - weights) + x[1:, None] * weights
    return torch.cat((between.flatten(0, 1), x[-1:]))


def measured(model: VideoModel, slow: int, factor: int, n: int, draws: int) -> dict[str, Any]:
    """Errors and shares of one case."""
    films = MovingDigits(digits("test")).films(n, frames=17, seed=14, substeps=slow)
    truth = films.stack().float() / 255
    found: dict[str, list[Tensor]] = {"draw": [], "mean": [], "guess": [], "linear": []}
    once = Sampler(DDIM(), 1)
    for i, film in enumerate(films):
        kept = Film(film.frames[::factor], film.rate / factor)
        made = model.interpolate_time(kept, factor, draws, seed=i, guidance=1.0).stack().float()
        guess = model.interpolate_time(kept, factor, seed=i, guidance=1.0, sampler=once)
        found["draw"].append(made[0] / 255)
        found["mean"].append(made.mean(0) / 255)
        found["guess"].append(guess[0].floats().frames)
        found["linear"].append(mixed(kept.floats().frames, factor))
    hidden = torch.arange(17) % factor != 0
    labels = torch.from_numpy(np.asarray(films.labels["digit"]))[:, None]

    def judged(x: Tensor) -> dict[str, float]:
        read, _ = reader().read(x[:, hidden])
        error = (x - truth)[:, hidden].square().mean().sqrt()
        return {"rmse": float(error), "read": float((read == labels).double().mean())}

    rows: Mapping[str, Tensor] = {k: torch.stack(v) for k, v in found.items()} | {"truth": truth}
    return {"slow": slow, "factor": factor} | {k: judged(v) for k, v in rows.items()}


def page(rows: list[dict[str, Any]], settings: dict[str, Any]) -> str:
    """The table."""
    names = {
        "draw": "one draw",
        "mean": f"mean of {settings['draws']} draws",
        "guess": "one call",
        "linear": "linear",
        "truth": "truth",
    }
    lines = [
        "# Frames between given ones",
        "",
        f"Model `{settings['model']}`, {settings['n']} held-out films, no guidance. Error of a pixel, and frames in "
        "which the digit is read.",
        "",
        "| frames for one at the usual speed | one kept of | " + " | ".join(names.values()) + " |",
        "|---|---|" + "---|" * len(names),
    ]
    for row in rows:
        cells = [f"{row[k]['rmse']:.4f}, {100 * row[k]['read']:.1f} %" for k in names]
        lines.append(f"| {row['slow']} | {row['factor']} | " + " | ".join(cells) + " |")
    lines += ["", ", ".join(f"{k} {v}" for k, v in environment().items()), ""]
    return "\n".join(lines)


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="moving-digits")
    parser.add_argument("--n", type=int, default=24)
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--out", type=Path, default=RESULTS / "video_between.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = video.load(args.model)
    rows = [measured(model, *case, args.n, args.draws) for case in CASES]
    settings = {"n": args.n, "draws": args.draws, "model": Path(args.model).name}
    write(args.out, settings, {"rows": rows})
    text = page(rows, settings)
    print(text)
    args.out.with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
