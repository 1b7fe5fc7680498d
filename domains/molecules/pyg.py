"""Molecule sets to PyTorch Geometric's graphs, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from sciffusion.errors import require

from .data import MoleculeSet
from .elements import QM9_ATOMS, AtomVocabulary
from .properties import PropertyTable

if TYPE_CHECKING:
    from torch_geometric.data import Batch, Data

__all__ = ["from_pyg", "to_pyg"]


def to_pyg(mols: MoleculeSet) -> list[Data]:
    """One ``Data`` a molecule; ``Batch.from_data_list`` joins them.

    Each holds ``z`` (n,) int64 and ``pos`` (n, 3) as PyG's own QM9 does, ``atom`` (n,) the type in
    the vocabulary, ``idx`` (1,) the molecule's id; ``charge`` (n,) and ``smiles`` where the set has
    them; and each property under its name, (1,) float64, in the unit of the set. There are no
    edges: which atoms to connect is the network's choice.

    Raises:
        MissingExtra: torch_geometric is not installed.
    """
    data = require("torch_geometric.data", extra="molecules")
    table = mols.properties
    graphs = []
    for m in range(len(mols)):
        atoms = slice(int(mols.ptr[m]), int(mols.ptr[m + 1]))
        graph = data.Data(
            z=mols.z[atoms].long(),
            pos=mols.pos[atoms],
            atom=mols.types[atoms].long(),
            idx=torch.tensor([int(mols.ids[m])]),
        )
        if mols.charges is not None:
            graph.charge = mols.charges[atoms].long()
        if mols.smiles_bytes is not None:
            graph.smiles = mols.smiles_bytes[m].decode()
        for name, value in zip(table.names, table.values[m], strict=True):
            graph[name] = value[None]
        graphs.append(graph)
    return graphs


def from_pyg(
    graphs: Sequence[Data] | Batch,
    *,
    units: Mapping[str, str] | None = None,
    vocabulary: AtomVocabulary = QM9_ATOMS,
    name: str = "MoleculeSet",
) -> MoleculeSet:
    """A set from graphs with ``z`` and ``pos``; ``charge``, ``smiles`` and ``idx`` where all have them.

    Args:
        graphs: a list of ``Data``, or a ``Batch``.
        units: the properties to take over, by the graphs' attribute, each with its unit. An
            attribute holds one number a graph.
        vocabulary: the elements, in the order of types.

    Raises:
        ValueError: a graph without ``z``, ``pos`` or a named property, or no graphs.
        DataError: a molecule that cannot be used; see `MoleculeSet`.
    """
    listed = graphs if isinstance(graphs, Sequence) else graphs.to_data_list()
    units = dict(units or {})
    if not listed:
        raise ValueError("graphs is empty")
    for m, graph in enumerate(listed):
        for key in ("z", "pos", *units):
            if graph.get(key) is None:
                raise ValueError(f"graph {m} has no attribute {key!r}; it has {graph.keys()}")

    def everywhere(key: str) -> bool:
        return all(graph.get(key) is not None for graph in listed)

    def joined(key: str) -> np.ndarray:
        return torch.cat([torch.as_tensor(graph[key]).flatten() for graph in listed]).cpu().numpy()

    values = np.array([[float(graph[key]) for key in units] for graph in listed], dtype=np.float64)
    return MoleculeSet.from_arrays(
        joined("z"),
        joined("pos").reshape(-1, 3),
        np.cumsum([0, *(len(graph.z) for graph in listed)]),
        ids=joined("idx") if everywhere("idx") else None,
        vocabulary=vocabulary,
        charges=joined("charge") if everywhere("charge") else None,
        properties=PropertyTable(tuple(units), tuple(units.values()), torch.from_numpy(values)),
        smiles=[graph.smiles for graph in listed] if everywhere("smiles") else None,
        name=name,
    )
