"""Pictures of molecules: ball-and-stick grids, structural formulas, and geometry beside a reference.

The figures are `matplotlib.figure.Figure` objects: they show themselves in a notebook and are
stored with ``figure.savefig("mols.png")``. Nothing here touches pyplot's state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sciffusion.errors import require
from sciffusion.figures import showing

from .chem import Bools, Floats, pairs_within
from .container import Molecule, Molecules
from .geometry_metrics import Coordinates, bond_angles, bond_lengths, dihedrals

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image
    from rdkit.Chem import Mol

__all__ = ["colour", "drawings", "flat", "geometry", "grid", "radius", "view"]

_Shape = tuple[Floats, Floats]  # a polygon (n, 2) and its colour (3,)

_COLOURS = {
    **{1: "#f2f2f2", 5: "#f0b090", 6: "#53575e", 7: "#3b63e0", 8: "#e23b33", 9: "#62c146"},
    **{14: "#d8b27a", 15: "#f08a24", 16: "#f2c931", 17: "#2fae4e", 35: "#a5432c", 53: "#8b3fb0"},
}
_OTHER = "#d26fb8"
_WARNING = "#ff2fa0"
_CIRCLE = np.stack([f(np.linspace(0, 2 * np.pi, 40, endpoint=False)) for f in (np.cos, np.sin)], 1)
_MARGIN = 0.75  # angstrom around a molecule in its cell
_LIGHT = np.array([-0.35, 0.42])  # where on a ball the highlight sits, in radii


def colour(z: int) -> str:
    """The colour of an element: CPK, softened."""
    return _COLOURS.get(z, _OTHER)


def radius(z: int) -> float:
    """The radius of an element's ball in angstrom; a third of a typical van der Waals radius."""
    return 0.27 if z == 1 else 0.40 if z <= 10 else 0.50


def view(positions: Floats) -> Floats:
    """The molecule turned so that it is widest across the page, then up, then towards the reader;
    its bounding box is centred. NaN if a coordinate is not finite."""
    if not np.isfinite(positions).all():
        return np.full_like(positions, np.nan)
    centred = positions - positions.mean(axis=0)
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1]
    axes[:, 2] = np.cross(axes[:, 0], axes[:, 1])  # a turn, never a reflection: chirality stays
    x = centred @ axes
    return x - (x.max(axis=0) + x.min(axis=0)) / 2


def grid(
    mols: Molecules, *, columns: int | None = None, mark_unstable: bool = True, inches: float = 1.4
) -> Figure:
    """Ball-and-stick drawings, in one scale but for molecules far larger than most: those are
    drawn smaller, to fit their cell.

    Args:
        mols: the molecules; one with coordinates that are not finite leaves its cell empty.
        columns: cells in a row (None: about as wide as high).
        mark_unstable: ring the atoms whose valence is not allowed.
        inches: width of a cell.

    Raises:
        ValueError: no molecules.
    """
    if not len(mols):
        raise ValueError("there are no molecules to draw")
    collections = require("matplotlib.collections", extra="molecules")
    columns = min(columns or int(np.ceil(np.sqrt(len(mols)))), len(mols))
    rows = -(-len(mols) // columns)
    unstable = ~mols.bonds.stable_atoms(mols.z) & mark_unstable
    turned = [view(mol.positions) for mol in mols]
    extent = np.array([np.ptp(x[:, :2], axis=0) for x in turned]) + 2 * _MARGIN
    seen = np.isfinite(extent).all(axis=1)
    cell = np.quantile(extent[seen], 0.95, axis=0) if seen.any() else np.ones(2)
    polygons: list[Floats] = []
    faces: list[Floats] = []
    for m in np.flatnonzero(seen).tolist():
        shapes = _molecule(mols[m], turned[m], unstable[mols.ptr[m] : mols.ptr[m + 1]])
        scale = min(1.0, *(cell / extent[m]))
        centre = np.array([m % columns + 0.5, -(m // columns) - 0.5]) * cell
        polygons += [scale * shape + centre for shape, _ in shapes]
        faces += [face for _, face in shapes]
    figure = _figure(columns * inches, rows * inches * cell[1] / cell[0])
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.add_collection(collections.PolyCollection(polygons, facecolors=faces, linewidths=0))
    axes.set(xlim=(0, columns * cell[0]), ylim=(-rows * cell[1], 0), aspect="equal")
    return figure


def drawings(mols: Molecules, *, columns: int = 6, pixels: int = 200) -> Image:
    """Structural formulas as one picture; under each its SMILES, or why it is not valid."""
    draw = require("rdkit.Chem.Draw", extra="molecules")
    return draw.MolsToGridImage(
        [flat(mol) for mol in mols],
        molsPerRow=min(columns, max(len(mols), 1)),
        subImgSize=(pixels, pixels),
        legends=[mol.smiles or "invalid" for mol in mols],
        returnPNG=False,
    )


def flat(mol: Molecule) -> Mol:
    """The molecule with 2D coordinates, without explicit H if it is valid.

    Where RDKit lays atoms on top of each other, as it does for a tangle of too many bonds, they
    stand on a circle instead.
    """
    chem = require("rdkit.Chem", extra="molecules")
    coordinates = require("rdkit.Chem.rdDepictor", extra="molecules")
    found = mol.rdkit()
    with require("rdkit.rdBase", extra="molecules").BlockLogs():
        if mol.valid:
            found = chem.RemoveHs(found)
        else:
            found.UpdatePropertyCache(strict=False)
            chem.FastFindRings(found)
        coordinates.Compute2DCoords(found)
    page = found.GetConformer().GetPositions()
    i, j = pairs_within(np.array([0, len(page)]))
    if (np.linalg.norm(page[i] - page[j], axis=1) < 0.05).any():
        turn = np.linspace(0, 2 * np.pi, len(page), endpoint=False)
        ring = np.stack([np.cos(turn), np.sin(turn), np.zeros(len(page))], axis=1)
        found.GetConformer().SetPositions(ring * len(page) / 4)
    return found


def geometry(mols: Molecules, reference: Molecules | None = None, *, columns: int = 4) -> Figure:
    """Histograms of the most frequent types of bonds, angles and dihedrals.

    The types are the most frequent ones of the reference, or else of the molecules themselves.
    """
    stats = require("scipy.stats", extra="molecules")
    kinds = (bond_lengths, bond_angles, dihedrals)
    figure = _figure(3.1 * columns, 2.3 * len(kinds))
    panels = figure.subplots(len(kinds), columns, squeeze=False)
    for row, of in zip(panels, kinds, strict=True):
        mine = of(mols)
        other = mine if reference is None else of(reference)
        names = _frequent(other, columns)
        for axes, name in zip(row, names, strict=False):
            here, there = mine.of_type(name), other.of_type(name)
            low, high = np.percentile(np.concatenate([here, there]), [0.2, 99.8])
            margin = 0.05 * (high - low) + 1e-3
            bins = np.linspace(max(low - margin, 0), min(high + margin, mine.kind.top), 60)
            title = name
            if reference is not None:
                _histogram(axes, there, bins, "reference", "#c9ced6", fill=True)
                if len(here):
                    unit = " Å" if mine.kind.unit == "angstrom" else "°"
                    title += f"   W₁ = {stats.wasserstein_distance(here, there):.2g}{unit}"
            _histogram(axes, here, bins, "molecules", "#d1495b", fill=False)
            _tidy(axes, title)
        for axes in row[len(names) :]:
            axes.set_visible(False)
        row[0].set_ylabel(mine.kind.name.replace("_", " "))
    if panels[0][0].get_visible():
        panels[0][0].legend(frameon=False, fontsize=7)
    figure.set_layout_engine("tight")
    return figure


def _histogram(
    axes: Axes, values: Floats, bins: Floats, label: str, paint: str, *, fill: bool
) -> None:
    share = np.histogram(values, bins)[0] / max(len(values), 1)
    axes.stairs(share, bins, label=label, color=paint, fill=fill, lw=1.4)


def _frequent(coordinates: Coordinates, most: int) -> list[str]:
    codes, counts = np.unique(coordinates.code, return_counts=True)
    return [coordinates.kind.label(int(code)) for code in codes[np.argsort(-counts)][:most]]


def _tidy(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=9)
    axes.set_yticks([])
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _figure(width: float, height: float) -> Figure:
    module = require("matplotlib.figure", extra="molecules")
    return showing(module.Figure((width, height), dpi=150))


def _molecule(mol: Molecule, x: Floats, unstable: Bools) -> list[_Shape]:
    """The polygons of a molecule and their colours, from the back to the front."""
    depth = x[:, 2] - x[:, 2].min()
    fog = 0.25 * (depth.max() - depth) / max(depth.max(), 1.0)  # what is far away pales
    tint = [
        _mix(_paint(colour(z)), np.ones(3), f) for z, f in zip(mol.z.tolist(), fog, strict=True)
    ]
    items = [
        (float(x[a, 2]), _ball(x[a, :2], radius(z), tint[a], bool(unstable[a])))
        for a, z in enumerate(mol.z.tolist())
    ]
    bonds = mol.batch.bonds
    for (i, j), order in zip(bonds.pairs.tolist(), bonds.orders.tolist(), strict=True):
        middle = (x[i] + x[j]) / 2
        for a in (i, j):
            along = middle - x[a]
            inside = min(
                0.92 * radius(int(mol.z[a])) / max(float(np.linalg.norm(along)), 1e-6), 1.0
            )
            start = x[a] + inside * along  # on the ball: a stick towards the reader starts there
            items.append((float(start[2] + middle[2]) / 2, _stick(start, middle, order, tint[a])))
    return [shape for _, shapes in sorted(items, key=lambda item: item[0]) for shape in shapes]


def _ball(centre: Floats, size: float, base: Floats, ringed: bool) -> list[_Shape]:
    """Discs that grow lighter and smaller towards the highlight."""
    shapes: list[_Shape] = [(centre + _CIRCLE * size * 1.4, _paint(_WARNING))] if ringed else []
    shapes.append((centre + _CIRCLE * size * 1.07, 0.42 * base))
    for t in np.linspace(0, 1, 8):
        paint = _mix(
            _mix(0.8 * base, base, min(2 * t, 1)), np.ones(3), 0.75 * max(2 * t - 1, 0) ** 1.5
        )
        shapes.append((centre + size * (t * 0.8 * _LIGHT + (1 - 0.88 * t) * _CIRCLE), paint))
    return shapes


def _stick(start: Floats, stop: Floats, order: int, base: Floats) -> list[_Shape]:
    """A half bond: one bar for each order, each with dark rims and a light core."""
    along = (stop - start)[:2]
    across = np.array([-along[1], along[0]]) / max(float(np.linalg.norm(along)), 1e-6)
    half = {1: 0.10, 2: 0.062, 3: 0.05}[order]
    bars = (
        (1.3 * half, 0.42 * base),
        (half, 0.9 * base),
        (0.4 * half, _mix(base, np.ones(3), 0.4)),
    )
    shapes: list[_Shape] = []
    for shift in {1: (0.0,), 2: (-0.11, 0.11), 3: (-0.15, 0.0, 0.15)}[order]:
        a, b = start[:2] + shift * across, stop[:2] + shift * across
        for width, paint in bars:
            side = width * across
            shapes.append((np.stack([a + side, b + side, b - side, a - side]), paint))
    return shapes


def _paint(text: str) -> Floats:
    return np.array([int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def _mix(a: Floats, b: Floats, share: float) -> Floats:
    return (1 - share) * a + share * b
