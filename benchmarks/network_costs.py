"""What networks cost, one against another: time and peak memory of an evaluation and of a training step, as a page."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from measure import environment, interleave, ratio
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

__all__ = ["Contender", "measure", "page", "peak", "rows_of"]

KINDS = ("forward", "forward + backward")
MIB = 2**20


@dataclass(frozen=True)
class Contender:
    """A network, and the function that evaluates it."""

    name: str
    net: nn.Module
    call: Callable[[], Tensor]

    @property
    def parameters(self) -> int:
        """Their number."""
        return sum(p.numel() for p in self.net.parameters())


def forward(contender: Contender) -> Callable[[], None]:
    """A sampler's evaluation."""

    def run() -> None:
        with torch.no_grad():
            contender.call()

    return run


def both(contender: Contender) -> Callable[[], None]:
    """A training step without its optimizer."""

    def run() -> None:
        contender.net.zero_grad(set_to_none=False)
        contender.call().square().mean().backward()

    return run


def peak(run: Callable[[], None]) -> float:
    """The most memory (MiB) that a run holds at once beyond what was there before: allocations, minus releases."""
    run()
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        run()
    held, most = 0, 0
    for event in trace.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most / MIB


def measure(
    contenders: Sequence[Contender],
    pairs: Sequence[tuple[str, str]],
    repeats: int,
    seconds: float,
) -> dict[str, Any]:
    """Times and peaks of all contenders, and the ratios of the pairs."""
    steps = {"forward": forward, "forward + backward": both}
    out: dict[str, Any] = {"networks": {c.name: {"parameters": c.parameters} for c in contenders}}
    out["ratios"] = {f"{peer} / {ours}": {} for peer, ours in pairs}
    for kind, step in steps.items():
        run = {c.name: step(c) for c in contenders}
        peaks = {name: peak(call) for name, call in run.items()}
        times = interleave(run, repeats, seconds)
        for name in run:
            out["networks"][name][kind] = {"seconds": times[name], "peak MiB": peaks[name]}
        for peer, ours in pairs:
            out["ratios"][f"{peer} / {ours}"][kind] = {
                "time": ratio(times, peer, ours),
                "memory": peaks[peer] / peaks[ours],
            }
    return out


def rows_of(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """The ratios of a case as lines of a table."""
    rows = []
    for pair, row in found["ratios"].items():
        for kind in KINDS:
            seconds = median(found["networks"][pair.split(" / ")[1]][kind]["seconds"])
            middle, low, high = row[kind]["time"]
            memory = f"{row[kind]['memory']:.2f}"
            figures = (f"{1e3 * seconds:.0f} ms", f"{middle:.2f}", f"{low:.2f}-{high:.2f}")
            rows.append((pair, kind, memory, *figures))
    return rows


def page(title: str, results: dict[str, Any], settings: dict[str, Any]) -> str:
    """The results as Markdown."""
    env = environment()
    lines = [
        f"# {title}",
        "",
        f"`{env['command']}` on one thread of {env['cpu']}, torch {env['torch']}, batch {settings['batch']}, "
        f"{settings['repeats']} interleaved repeats, seed {settings['seed']}. Times are medians "
        "of CPU time, peaks go beyond weights, their gradients and inputs. A ratio is the peer's over ours (median, "
        "least and greatest of neighbouring measurements): above 1 ours takes less.",
        "",
    ]
    for case, found in results.items():
        lines += [f"## {case}", "", "| network | parameters | " + " | ".join(KINDS) + " |"]
        lines.append("|---|---|" + "---|" * len(KINDS))
        for name, row in found["networks"].items():
            cells = [
                f"{1e3 * median(row[kind]['seconds']):.0f} ms, {row[kind]['peak MiB']:.0f} MiB"
                for kind in KINDS
            ]
            lines.append(f"| {name} | {row['parameters'] / 1e6:.2f} M | {' | '.join(cells)} |")
        names = [f"{kind}: {what}" for kind in KINDS for what in ("time", "memory")]
        lines += [
            "",
            "| peer over ours | " + " | ".join(names) + " |",
            "|---|" + "---|" * len(names),
        ]
        for pair, row in found["ratios"].items():
            cells = []
            for kind in KINDS:
                middle, low, high = row[kind]["time"]
                cells += [f"{middle:.2f} ({low:.2f} - {high:.2f})", f"{row[kind]['memory']:.2f}"]
            lines.append(f"| {pair} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)
