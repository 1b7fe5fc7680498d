"""How far the local geometry of molecules is from a reference: bonds, angles, dihedrals.

Every internal coordinate has a type, written with its elements and bond orders: ``C-H``, ``C=O``,
``H-C-H``, ``C-C-C=O``. Two sets of molecules are compared by

* the total variation of how often each type occurs, 0 (equally often) to 1 (no type in common);
* the Wasserstein-1 distance of the values of one type, the integral of |F - G| over the two
  distribution functions, in angstrom or degrees: how far a value has to be moved on average;
* the Jensen-Shannon divergence of those values in bits, 0 (equal) to 1 (disjoint), of histograms
  with bins of 0.01 angstrom, 2 degrees (angles) and 4 degrees (dihedrals).

The last two are summarised by the mean over the types that occur in both sets, weighted by how
often they occur in the reference. Dihedrals are taken without sign, 0 to 180 degrees, so that
mirror images are equal.

The types come from the bonds, and those from the bond rule: a rule that reads orders from distances
cuts the length distributions at its thresholds. Compare figures made with one rule only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from sciffusion.bootstrap import Bootstrap
from sciffusion.errors import require
from sciffusion.report import Metric

from .chem import Floats, Ints, molecule_of_atom, pairs_within
from .container import Molecules
from .distances import (
    histograms,
    jensen_shannon,
    observed_and_resampled,
    total_variation,
    wasserstein,
)

__all__ = ["ANGLE", "BOND", "DIHEDRAL", "Coordinates", "Kind"]
__all__ += ["bond_angles", "bond_lengths", "compare", "dihedrals"]

_FINE = 10  # the bootstrap of Wasserstein-1 uses bins that are finer by this factor
# The order in which elements name a type: C first, H last, as chemists write it.
_ELEMENTS = np.array([6, *range(2, 6), *range(7, 128), 1, 0])
_RANK = np.argsort(_ELEMENTS)


@final
@dataclass(frozen=True)
class Kind:
    """A kind of internal coordinate: name, atoms, unit, and the histogram that divides its range."""

    name: str
    atoms: int
    unit: str
    top: float
    bins: int

    def label(self, code: int) -> str:
        """The type that a code stands for, such as ``C-C=O``."""
        text = ""
        table = require("rdkit.Chem", extra="molecules").GetPeriodicTable()
        for atom in range(self.atoms):
            code, rank = divmod(code, 128)
            text = table.GetElementSymbol(int(_ELEMENTS[rank])) + text
            if atom + 1 < self.atoms:
                code, order = divmod(code, 4)
                text = "?-=#"[order] + text
        return text


BOND = Kind("bond_length", 2, "angstrom", 4.0, 400)
ANGLE = Kind("angle", 3, "degree", 180.0, 90)
DIHEDRAL = Kind("dihedral", 4, "degree", 180.0, 45)


@final
@dataclass(frozen=True)
class Coordinates:
    """All internal coordinates of one kind.

    ``values`` (n,), the ``code`` (n,) of their types, and the molecule ``owner`` (n,) that each
    belongs to, out of ``molecules``.
    """

    kind: Kind
    values: Floats
    code: Ints
    owner: Ints
    molecules: int

    def of_type(self, name: str) -> Floats:
        """The values of one type, such as ``"C=O"``; empty if there are none."""
        for code in np.unique(self.code):
            if self.kind.label(int(code)) == name:
                return self.values[self.code == code]
        return np.empty(0)

    def by_code(self) -> dict[int, tuple[Floats, Ints]]:
        """For each code the values and their owners."""
        order = np.argsort(self.code, kind="stable")
        codes, starts = np.unique(self.code[order], return_index=True)
        parts = np.split(order, starts[1:]) if len(codes) else []
        return {
            int(code): (self.values[part], self.owner[part])
            for code, part in zip(codes, parts, strict=True)
        }


def bond_lengths(mols: Molecules) -> Coordinates:
    """The length of every bond, in angstrom."""
    bonds, x = mols.bonds, mols.positions
    i, j = bonds.pairs.T
    values = np.linalg.norm(x[i] - x[j], axis=-1)
    code = _code(mols.z[i], bonds.orders, mols.z[j])
    return Coordinates(BOND, values, code, molecule_of_atom(mols.ptr)[i], len(mols))


def bond_angles(mols: Molecules) -> Coordinates:
    """The angle between every two bonds that share an atom, in degrees."""
    start, atom, neighbour, order = _ends(mols)
    first, second = pairs_within(start)
    i, j, k = neighbour[first], atom[first], neighbour[second]
    x, z = mols.positions, mols.z
    values = _angle(x[i] - x[j], x[k] - x[j])
    code = _code(z[i], order[first], z[j], order[second], z[k])
    return Coordinates(ANGLE, values, code, molecule_of_atom(mols.ptr)[j], len(mols))


def dihedrals(mols: Molecules) -> Coordinates:
    """The unsigned dihedral of every chain of four different bonded atoms, in degrees."""
    start, _, neighbour, order = _ends(mols)
    degree, x, z = np.diff(start), mols.positions, mols.z
    j, k = mols.bonds.pairs.T
    count = degree[j] * degree[k]  # every neighbour of j with every neighbour of k
    bond = np.repeat(np.arange(len(j)), count)
    nth = np.arange(len(bond)) - np.repeat(np.cumsum(count) - count, count)
    j, k = j[bond], k[bond]
    first, second = start[j] + nth // degree[k], start[k] + nth % degree[k]
    i, m = neighbour[first], neighbour[second]
    chain = (i != k) & (m != j) & (i != m)  # not back along the bond, not around a triangle
    i, j, k, m, bond = i[chain], j[chain], k[chain], m[chain], bond[chain]
    axis = x[k] - x[j]
    values = _angle(np.cross(x[j] - x[i], axis), np.cross(axis, x[m] - x[k]))
    outer = order[first[chain]], order[second[chain]]
    code = _code(z[i], outer[0], z[j], mols.bonds.orders[bond], z[k], outer[1], z[m])
    return Coordinates(DIHEDRAL, values, code, molecule_of_atom(mols.ptr)[j], len(mols))


def compare(
    judged: Coordinates, reference: Coordinates, bootstrap: Bootstrap
) -> tuple[dict[str, Metric], dict[str, Metric]]:
    """The three summaries of a kind, and the distances of each type.

    The bootstrap resamples the judged molecules and takes the reference as it is.
    """
    kind, n = judged.kind, judged.molecules
    counts = observed_and_resampled(bootstrap, n)
    codes, where = np.unique(np.concatenate([judged.code, reference.code]), return_inverse=True)
    here, there = np.split(where, [len(judged.code)])
    frequency = np.bincount(there, minlength=len(codes)) / max(len(there), 1)
    if len(here) and len(there):
        types = total_variation(histograms(here, judged.owner, len(codes), counts), frequency)
    else:  # a set without a single bond shares no type with one that has some
        types = np.full(len(counts), float(len(codes) > 0))
    name = f"{kind.name}_types"
    what = f"total variation between the frequencies of the types of {kind.name}s"
    summary = {name: Metric(*bootstrap.distance(types), n, what)}

    mine, others = judged.by_code(), reference.by_code()
    shared = [code for code in others if code in mine]
    weight = np.array([len(others[code][0]) for code in shared], float)[:, None]
    found = [_distances(kind, *mine[code], others[code][0], counts) for code in shared]
    details = {}
    measures = (("w1", kind.unit, "Wasserstein-1"), ("js", "bit", "Jensen-Shannon divergence"))
    for row, (short, unit, long) in enumerate(measures):
        for code, distances in zip(shared, found, strict=True):
            label, sizes = kind.label(code), (len(mine[code][0]), len(others[code][0]))
            what = f"{long} of {label}, {sizes[0]} values against {sizes[1]} of the reference"
            details[f"{kind.name}_{short} {label}"] = Metric(
                *bootstrap.distance(distances[row]), len(np.unique(mine[code][1])), what, unit
            )
        stack = np.array([distances[row] for distances in found]).reshape(len(shared), len(counts))
        drawn = ~np.isnan(stack)  # a replicate may hold no molecule with a rare type
        total = (weight * drawn).sum(axis=0)
        mean = np.where(drawn, weight * stack, 0.0).sum(axis=0) / np.where(total > 0, total, np.nan)
        what = f"{long} of {kind.name}s, mean over the {len(shared)} types in common"
        summary[f"{kind.name}_{short}"] = Metric(*bootstrap.distance(mean), n, what, unit)
    return summary, details


def _distances(
    kind: Kind, values: Floats, owner: Ints, reference: Floats, counts: Floats
) -> tuple[Floats, Floats]:
    """(R,) Wasserstein-1 and Jensen-Shannon of one type; Wasserstein-1 exact in column 0."""
    stats = require("scipy.stats", extra="molecules")
    fine = kind.bins * _FINE
    cell, target_cell = (
        np.clip((v * (fine / kind.top)).astype(int), 0, fine - 1) for v in (values, reference)
    )
    shares = histograms(cell, owner, fine, counts)
    target = np.bincount(target_cell, minlength=fine) / len(reference)
    w1 = wasserstein(shares, target, kind.top / fine)
    exact = stats.wasserstein_distance(values, reference)
    w1 += exact - w1[0]
    coarse = (kind.bins, _FINE)
    js = jensen_shannon(shares.reshape(*coarse, -1).sum(axis=1), target.reshape(coarse).sum(axis=1))
    return w1, js


def _ends(mols: Molecules) -> tuple[Ints, Ints, Ints, Ints]:
    """Both ends of every bond, sorted by atom: where atom a starts (A + 1,), then per end the
    atom, its neighbour and the order of the bond."""
    pairs, orders = mols.bonds.pairs, mols.bonds.orders
    atom = np.concatenate([pairs[:, 0], pairs[:, 1]])
    neighbour = np.concatenate([pairs[:, 1], pairs[:, 0]])
    order = np.argsort(atom, kind="stable")
    start = np.searchsorted(atom[order], np.arange(len(mols.z) + 1))
    return start, atom[order], neighbour[order], np.concatenate([orders, orders])[order]


def _angle(a: Floats, b: Floats) -> Floats:
    """The angle between vectors in degrees, accurate near 0 and 180 as well."""
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(axis=-1)))


def _code(*chain: Ints) -> Ints:
    """One number for elements and orders along a chain, the same from both ends."""

    def fold(parts: tuple[Ints, ...]) -> Ints:
        code = np.zeros(len(parts[0]), np.int64)
        for position, part in enumerate(parts):
            code = code * 4 + part if position % 2 else code * 128 + _RANK[part]
        return code

    return np.minimum(fold(chain), fold(chain[::-1]))
