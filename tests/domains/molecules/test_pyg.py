"""Graphs of PyTorch Geometric hold what the set holds, and give it back."""

import numpy as np
import pytest
import torch

from sciffusion.domains.molecules.data import MoleculeSet
from sciffusion.domains.molecules.elements import UnknownElementError
from sciffusion.domains.molecules.properties import PropertyTable
from sciffusion.domains.molecules.pyg import from_pyg, to_pyg

pyg = pytest.importorskip("torch_geometric.data")


def some() -> MoleculeSet:
    values = torch.tensor([[-400.123456789, 1.5], [2.0, 1 / 3]], dtype=torch.float64)
    return MoleculeSet.from_arrays(
        [6, 1, 6, 1, 1],
        np.random.default_rng(0).normal(size=(5, 3)),
        [0, 2, 5],
        ids=[7, 9],
        charges=[0, 1, 0, -1, 0],
        smiles=["C", "CC"],
        properties=PropertyTable(("u0", "mu"), ("Eh", "D"), values),
    )


@pytest.mark.parametrize("batched", [False, True])
def test_a_set_survives_the_way_there_and_back(batched: bool) -> None:
    mols = some()
    graphs = to_pyg(mols)
    back = from_pyg(
        pyg.Batch.from_data_list(graphs) if batched else graphs, units={"u0": "Eh", "mu": "D"}
    )
    assert back.charges is not None and mols.charges is not None
    for name in ("z", "ptr", "charges"):
        assert torch.equal(getattr(back, name), getattr(mols, name))
    torch.testing.assert_close(back.pos, mols.pos, rtol=0, atol=1e-6)  # centred once more
    assert torch.equal(back.properties.values, mols.properties.values)
    assert back.properties.units == mols.properties.units
    assert (back.ids.tolist(), back.smiles) == ([7, 9], ["C", "CC"])


def test_a_batch_of_graphs_is_the_packed_batch() -> None:
    mols = some()
    batch = pyg.Batch.from_data_list(to_pyg(mols))
    packed = mols.packed([0, 1])
    assert torch.equal(batch.pos, packed.pos)
    assert torch.equal(batch.atom, packed.atom)
    assert torch.equal(batch.batch, packed.molecule)
    assert torch.equal(batch.mu, mols.get("mu"))


def test_graphs_from_elsewhere_need_only_atoms_and_positions() -> None:
    graphs = [pyg.Data(z=torch.tensor([8, 1, 1]), pos=torch.randn(3, 3)) for _ in range(4)]
    graphs[0].smiles = "O"  # not everywhere: left out
    mols = from_pyg(graphs)
    assert (len(mols), mols.smiles_bytes, mols.charges) == (4, None, None)
    assert mols.properties.names == ()


def test_graphs_that_lack_something_are_named() -> None:
    graphs = to_pyg(some())
    with pytest.raises(ValueError, match="graph 0 has no attribute 'gap'"):
        from_pyg(graphs, units={"gap": "Eh"})
    with pytest.raises(ValueError, match="graph 1 has no attribute 'pos'"):
        from_pyg([graphs[0], pyg.Data(z=torch.tensor([6]))])
    with pytest.raises(ValueError, match="graphs is empty"):
        from_pyg([])
    with pytest.raises(UnknownElementError, match=r"molecule 0 .*element Cl"):
        from_pyg([pyg.Data(z=torch.tensor([17]), pos=torch.zeros(1, 3))])
