"""Do generated C-alpha chains look like proteins: by distances of shapes, and by what biophysicists look at?

    python benchmarks/shapes_proteins.py --path pdb_backbones_128.npz

Chains of 40 to 128 residues: those of a model that the recipe `traces` trained, real ones of the test part, and two
rivals that know no more than what is local.

* walk: a chain with bonds of 3.8 angstrom whose bond angles and dihedrals, in pairs, are drawn from the training
  data: all local geometry is right, and nothing holds it together.
* Gaussian: a random walk with bonds as long as real ones on average.

Distances of shapes (1-NNA, coverage, MMD) are those of 40 points of 100 chains against one half of the test chains, and
beside them stands the other half. ``bonds`` is the share of neighbours within 0.2 of 3.8 angstrom, ``radius`` the mean
radius of gyration over that of a real chain of this length (a power law fitted to the training data), ``clashes`` the
share of residues within 3.6 angstrom of another that is no near neighbour, ``helix`` and ``strand`` the shares of
four successive atoms whose dihedral lies within 25 degrees of 50, or within 40 of 190, and ``left`` that of left-handed
turns, the mirror image of a helix (within 25 of -50). Contacts are pairs at least 4 apart along the chain and within 8
angstrom, per residue.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import environment, write
from numpy.typing import NDArray
from torch import Tensor

from sciffusion.bootstrap import Bootstrap
from sciffusion.domains import shapes
from sciffusion.domains.shapes import Shapes
from sciffusion.domains.shapes.data import load

FIGURES = ("bonds", "radius", "clashes", "contacts", "helix", "strand", "left")
DISTANCES = ("1nna_chamfer", "1nna_emd", "coverage_emd", "mmd_chamfer", "mmd_emd")
BOND = 3.8


def dihedrals(x: Tensor) -> tuple[Tensor, Tensor]:
    """Bond angles (N - 2,) and dihedrals (N - 3,) of a chain (N, 3), degrees."""
    b = x.diff(dim=0)
    u = b / b.norm(dim=1, keepdim=True)
    angles = 180 - (u[:-1] * u[1:]).sum(1).clamp(-1, 1).acos().rad2deg()
    normals = torch.linalg.cross(u[:-1], u[1:])
    n, m = normals[:-1], normals[1:]
    y = (torch.linalg.cross(n, m) * u[1:-1]).sum(1)
    return angles, torch.atan2(y, (n * m).sum(1)).rad2deg()


def near(angle: Tensor, centre: float, reach: float) -> float:
    """The share of angles, degrees, within ``reach`` of a centre."""
    return float((((angle - centre + 180) % 360 - 180).abs() < reach).double().mean())


def law(chains: Shapes) -> tuple[float, float]:
    """Factor and exponent of the radius of gyration as a power of the length."""
    radii = [float(x.square().sum(1).mean().sqrt()) for x in chains.centred().parts()]
    slope, start = np.polyfit(np.log(chains.sizes), np.log(radii), 1)
    return float(np.exp(start)), float(slope)


def figures(chains: Shapes, size: tuple[float, float]) -> dict[str, NDArray[np.float64]]:
    """Every figure of every chain."""
    rows = []
    for x in chains.centred().parts():
        n, apart = len(x), torch.cdist(x, x)
        i = torch.arange(n)
        along = (i[:, None] - i).abs()
        bonds = x.diff(dim=0).norm(dim=1)
        torsion = dihedrals(x)[1]
        rows.append(
            (
                float(((bonds - BOND).abs() < 0.2).double().mean()),
                float(x.square().sum(1).mean().sqrt()) / (size[0] * n ** size[1]),
                float(((apart < 3.6) & (along > 2)).any(1).double().mean()),
                float(((apart < 8.0) & (along > 3)).sum() / 2 / n),
                near(torsion, 50, 25),
                near(torsion, 190, 40),
                near(torsion, -50, 25),
            )
        )
    return dict(zip(FIGURES, np.array(rows).T, strict=True))


def walk(lengths: NDArray[np.int64], train: Shapes, seed: int) -> Shapes:
    """Chains whose angles and dihedrals are drawn, in pairs, from real ones."""
    rng, pairs = np.random.default_rng(seed), []
    for x in train.parts():
        angles, torsion = dihedrals(x.double())
        pairs.append(torch.stack((angles[1:], torsion), 1))
    known = torch.cat(pairs).deg2rad().numpy()
    made = []
    for n in lengths.tolist():
        x = [np.zeros(3), np.array([BOND, 0, 0]), np.array([BOND, BOND, 0])]
        for angle, torsion in known[rng.integers(len(known), size=n - 3)]:
            b = (x[-1] - x[-2]) / np.linalg.norm(x[-1] - x[-2])
            normal = np.cross(x[-2] - x[-3], b)
            normal /= np.linalg.norm(normal)
            frame = np.stack((b, np.cross(normal, b), normal))
            turn = np.sin(angle) * np.array([np.cos(torsion), np.sin(torsion)])
            x.append(x[-1] + BOND * np.array([-np.cos(angle), *turn]) @ frame)
        made.append(np.stack(x))
    return Shapes.of(made).centred()


def gaussian(lengths: NDArray[np.int64], seed: int) -> Shapes:
    """Random walks with bonds of 3.8 angstrom in the mean square."""
    rng = np.random.default_rng(seed)
    steps = [BOND / 3**0.5 * rng.standard_normal((n, 3)) for n in lengths.tolist()]
    return Shapes.of([s.cumsum(0) for s in steps]).centred()


def picture(rows: dict[str, Shapes], path: Path, n: int = 6) -> None:
    """The first chains of each kind, coloured along the chain."""
    from matplotlib.figure import Figure

    made = Figure((2.0 * n, 2.1 * len(rows)), dpi=80, layout="constrained")
    panels = made.subplots(len(rows), n, subplot_kw={"projection": "3d"}, squeeze=False)
    for line, (name, chains) in zip(panels, rows.items(), strict=True):
        for i, panel in enumerate(line):
            x = chains.centred().parts()[i].numpy()
            panel.plot(*x.T, color="0.7", lw=1)
            panel.scatter(*x.T, c=np.arange(len(x)), cmap="turbo", s=8, depthshade=False)
            panel.set(xlim=(-22, 22), ylim=(-22, 22), zlim=(-22, 22), box_aspect=(1, 1, 1))
            panel.set_axis_off()
            panel.set_title(f"{name}, {len(x)}", fontsize=8)
    made.savefig(path)


def page(found: dict[str, Any], settings: dict[str, Any], info: str) -> str:
    """The results as Markdown."""
    env = environment()
    lines = [
        "# C-alpha chains of proteins",
        "",
        f"`{env['command']}` on one thread of {env['cpu']}, torch {env['torch']}: {settings['n']} chains of each kind, "
        f"{settings['steps']} steps, seed {settings['seed']}, {info}. Means with 95 % bootstrap intervals.",
        "",
        "![Chains](shapes_proteins.png)",
        "",
        "| | " + " | ".join(found) + " |",
        "|---|" + "---|" * len(found),
    ]
    for name in (*FIGURES, *DISTANCES):
        cells = []
        for row in found.values():
            value = row.get(name)
            cells.append(f"{value[0]:.3f} ({value[1]:.3f} to {value[2]:.3f})" if value else "")
        lines.append(f"| {name.replace('_', ', ')} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Make chains, judge them, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--path", type=Path, help="a local copy of the protein backbones")
    parser.add_argument("--model", default="runs/traces/model.safetensors", help="its file")
    parser.add_argument("--other", action="append", default=[], help="NAME=FILE of another one")
    parser.add_argument("-n", type=int, default=120)
    parser.add_argument("--steps", type=int, help="of the sampler; else the model's own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/shapes_proteins.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    train, test = (load(f"protein-backbones:{part}", args.path) for part in ("train", "test"))
    model, seed = shapes.load(args.model), args.seed
    ours = model.sample(args.n, seed=seed, steps=args.steps)
    kinds = {"model": ours}
    for other in args.other:
        name, _, file = other.partition("=")
        kinds[name] = shapes.load(file).sample(
            args.n, points=ours.sizes.tolist(), seed=seed, steps=args.steps
        )
    kinds |= {"walk": walk(ours.sizes, train, seed), "Gaussian": gaussian(ours.sizes, seed)}
    size, bootstrap = law(train), Bootstrap(200, seed=seed)
    found = {
        name: {
            k: (float(v.mean()), *bootstrap.statistic(lambda d: np.asarray(d.mean(1)), v))
            for k, v in figures(chains, size).items()
        }
        for name, chains in {**kinds, "real": test}.items()
    }
    for name, chains in kinds.items():
        report = shapes.evaluate(chains, test, points=40, seed=seed, bootstrap=bootstrap)
        assert report.ceiling is not None
        for whose, row in ((name, report), ("real", report.ceiling)):
            found[whose] |= {k: (row[k].value, row[k].low, row[k].high) for k in DISTANCES}
        print(name, found[name], flush=True)
    settings = {"n": args.n, "steps": args.steps or model.sampling.steps, "seed": seed}
    write(args.out, settings, found)
    picture({"model": ours, "walk": kinds["walk"], "real": test}, args.out.with_suffix(".png"))
    trained = model.info or {}
    info = f"a model of {trained.get('steps', 0):,} steps"
    args.out.with_suffix(".md").write_text(page(found, settings, info))


if __name__ == "__main__":
    main()
