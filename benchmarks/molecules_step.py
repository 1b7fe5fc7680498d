"""What a step of a molecular network costs: ours against EDM's network in its plain form, on one CPU thread.

    python benchmarks/molecules_step.py                  # the published size: 256 x 9
    python benchmarks/molecules_step.py --width 64 --depth 4

Per evaluation (a sampling step) and per training step (forward, backward, AdamW), for molecules of the sizes of QM9,
padded and packed. The plain form (``edm_reference.py``) gets its list of edges for free; ours arranges its pairs inside
the measured time. Both have the same width and depth, and a test holds both to the same function.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from edm_reference import EDMReference, complete_edges
from measure import Times, interleave, ratio, show, write
from torch import Tensor, nn

from sciffusion.domains.molecules.denoisers.egnn import EGNN
from sciffusion.domains.molecules.denoisers.transformer import Transformer
from sciffusion.layout import Layout, Masked, Packed
from sciffusion.state import State

TYPES = 5
# Molecules of QM9's training set (100,000) by number of atoms, from 3 on.
QM9_SIZES = [1, 4, 5, 9, 16, 49, 124, 362, 807, 1689, 3060, 5136, 7796, 10644, 13025, 13364, 13832]
QM9_SIZES += [9482, 9970, 3393, 4848, 539, 1506, 48, 266, 0, 25]


def draw_sizes(batch: int, seed: int) -> Tensor:
    """Numbers of atoms like QM9's, (batch,)."""
    g = torch.Generator().manual_seed(seed)
    return 3 + torch.multinomial(torch.tensor(QM9_SIZES).float(), batch, True, generator=g)


def our_call(net: nn.Module, sizes: Tensor, padded: bool) -> Callable[[], Tensor]:
    """One evaluation of a network of ours; returns something to differentiate."""
    mask = torch.arange(int(sizes.max())) < sizes[:, None]
    index = torch.arange(len(sizes)).repeat_interleave(sizes)
    layout: Layout = Masked(mask) if padded else Packed(index, len(sizes))
    points = mask.shape if padded else index.shape
    x = State({"pos": torch.randn(*points, 3), "atom": torch.randn(*points, TYPES)}, layout)
    levels = {name: torch.randn(len(sizes)) for name in x}

    def call() -> Tensor:
        out = net(x, levels)
        return out["pos"].square().mean() + out["atom"].square().mean()

    return call


def reference_call(net: nn.Module, sizes: Tensor, padded: bool) -> Callable[[], Tensor]:
    """One evaluation of the plain form; its edges are listed beforehand."""
    mask = torch.arange(int(sizes.max())) < sizes[:, None]
    i, j, edges = complete_edges(mask)
    nodes: Tensor | None = mask.view(-1, 1).float()
    keep: Tensor | None = edges
    if not padded:
        row = mask.view(-1).cumsum(0) - 1
        real = edges.squeeze(1) > 0
        i, j, nodes, keep = row[i[real]], row[j[real]], None, None
    atoms = mask.numel() if padded else int(sizes.sum())
    h, pos = torch.randn(atoms, TYPES + 1), torch.randn(atoms, 3)

    def call() -> Tensor:
        logits, moved = net(h, pos, i, j, nodes, keep)
        return moved.square().mean() + logits.square().mean()

    return call


def step(net: nn.Module, call: Callable[[], Tensor], train: bool) -> Callable[[], None]:
    """A sampling step, or a training step with its optimizer."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-5)

    def sampling() -> None:
        with torch.no_grad():
            call()

    def training() -> None:
        optimizer.zero_grad()
        call().backward()
        optimizer.step()

    return training if train else sampling


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--depth", type=int, default=9)
    parser.add_argument("--batch", type=int, default=32, help="molecules")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.2, help="at least, per measurement")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/molecules_step.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)

    sizes = draw_sizes(args.batch, args.seed)
    heads = max(1, args.width // 32)
    nets: dict[str, nn.Module] = {
        "plain EDM": EDMReference(TYPES + 1, TYPES, args.width, args.depth),
        "EGNN": EGNN(TYPES, width=args.width, depth=args.depth),
        "Transformer": Transformer(TYPES, d_model=args.width, layers=args.depth, heads=heads),
    }
    rows: list[tuple[str, ...]] = []
    results: dict[str, dict[str, object]] = {}
    for train in (False, True):
        for padded in (False, True):
            calls = {
                name: (reference_call if name == "plain EDM" else our_call)(net, sizes, padded)
                for name, net in nets.items()
            }
            run = {name: step(nets[name], call, train) for name, call in calls.items()}
            times: Times = interleave(run, args.repeats, args.seconds)
            kind = "training step" if train else "evaluation"
            layout = "padded" if padded else "packed"
            case = f"{kind}, {layout}"
            results[case] = {"seconds": times}
            for name in nets:
                middle, low, high = ratio(times, "plain EDM", name)
                results[case][f"plain EDM / {name}"] = [middle, low, high]
                ms = 1e3 * sorted(times[name])[len(times[name]) // 2] / args.batch
                figures = (f"{ms:.2f}", f"{middle:.2f}", f"{low:.2f}-{high:.2f}")
                rows.append((kind, layout, name, *figures))
    atoms = f"{args.batch} molecules of {sizes.float().mean():.1f} atoms"
    title = f"{args.width} x {args.depth}, {atoms}, one thread: ms per molecule"
    show(title, ("step", "layout", "network"), rows)
    settings = {k: v for k, v in vars(args).items() if k != "out"}
    parameters = {name: sum(p.numel() for p in net.parameters()) for name, net in nets.items()}
    write(args.out, settings | {"sizes": sizes.tolist(), "parameters": parameters}, results)


if __name__ == "__main__":
    main()
