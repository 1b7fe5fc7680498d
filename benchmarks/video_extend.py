"""Films that go on for ten times the length of training: what given frames in every window mend.

    python benchmarks/video_extend.py --n 8

The same held-out films and seeds as in the last table of ``benchmarks/video_digits.py``, whose windows see the last
frames of the one before and nothing else. Here the first two of the eight that a window sees are the last ones that
were given, which is what :func:`~sciffusion.domains.video.verbs.extend` does unless told otherwise. Figures window by
window; window 0 is what was given. The model is told the digit.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from measure import environment, write
from video_digits import RESULTS, drift

from sciffusion.domains import video

TIMES, SEED = 10, 16


def page(rows: list[dict[str, float]], before: list[dict[str, float]], n: int) -> str:
    """The table; beside it the figures of windows that see only each other."""
    lines = [
        "# Films that go on for ten times the length of training",
        "",
        f"{n} held-out films of 16 frames, extended by {16 * TIMES}. Of the eight frames that a window sees, the first "
        "two are the last given ones, and the model is told the digit. In brackets: windows that see only the one "
        "before ([video_digits](video_digits.md), the same films). Light is over that of the exact continuation, "
        "off course the median distance in pixels from it.",
        "",
        "| window | frames that show the digit | likeness to the first frame | light | straight | off course |",
        "|---|---|---|---|---|---|",
    ]
    for a, b in zip(rows, before, strict=True):
        lines.append(
            f"| {a['window']} | {100 * a['agreement']:.0f} % ({100 * b['agreement']:.0f} %) | "
            f"{a['likeness']:.3f} ({b['likeness']:.3f}) | {a['light']:.2f} ({b['light']:.2f}) | "
            f"{100 * a['straight']:.0f} % ({100 * b['straight']:.0f} %) | "
            f"{a['off_course']:.1f} ({b['off_course']:.1f}) |"
        )
    lines += ["", ", ".join(f"{k} {v}" for k, v in environment().items()), ""]
    return "\n".join(lines)


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--out", type=Path, default=RESULTS / "video_extend.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    before = json.loads((RESULTS / "video_digits.json").read_text())
    if before["settings"]["extended"] != args.n:
        raise SystemExit(
            f"video_digits.json holds {before['settings']['extended']} films, not {args.n}"
        )
    rows = drift(video.load("moving-digits"), args.n, TIMES, SEED, anchors=None)
    write(args.out, {"n": args.n, "times": TIMES, "seed": SEED}, {"drift": rows})
    text = page(rows, before["results"]["drift"], args.n)
    print(text)
    args.out.with_suffix(".md").write_text(text)


if __name__ == "__main__":
    main()
