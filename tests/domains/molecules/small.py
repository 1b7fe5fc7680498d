"""Three small molecules and tiny models of them, for tests that need neither data nor RDKit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from sciffusion.domains.molecules import (
    EGNNConfig,
    ModelConfig,
    MoleculeModel,
    MoleculeSet,
    SamplingConfig,
    SizePrior,
    TensorFieldConfig,
    TransformerConfig,
)
from sciffusion.domains.molecules.properties import PropertyTable

WATER = [[0.0, 0.0, 0.12], [0.0, 0.76, -0.48], [0.0, -0.76, -0.48]]
AMMONIA = [[0.0, 0.0, 0.11], [0.0, 0.94, -0.27], [0.81, -0.47, -0.27], [-0.81, -0.47, -0.27]]
METHANE = [[0.0, 0.0, 0.0], [0.63, 0.63, 0.63], [-0.63, -0.63, 0.63]]
METHANE += [[-0.63, 0.63, -0.63], [0.63, -0.63, -0.63]]
ATOMS = {"water": [8, 1, 1], "ammonia": [7, 1, 1, 1], "methane": [6, 1, 1, 1, 1]}
POSITIONS = {"water": WATER, "ammonia": AMMONIA, "methane": METHANE}
DIPOLES = {"water": 1.85, "ammonia": 1.47, "methane": 0.0}  # debye

TRANSFORMER = TransformerConfig(d_model=32, layers=2, heads=2, radial=8, relative_heads=2)
EGNN = EGNNConfig(width=16, depth=2)
NETWORKS: dict[str, TransformerConfig | EGNNConfig | TensorFieldConfig] = {
    "transformer": TRANSFORMER,
    "egnn": EGNN,
    "tensor-field": TensorFieldConfig(),
}


def molecule_set(*names: str, copies: int = 1, charged: bool = False) -> MoleculeSet:
    """These molecules, ``copies`` times over, each with its dipole moment ``mu``."""
    chosen = list(names or ATOMS) * copies
    z = [atom for name in chosen for atom in ATOMS[name]]
    pos = [row for name in chosen for row in POSITIONS[name]]
    ptr = np.cumsum([0, *(len(ATOMS[name]) for name in chosen)])
    mu = torch.tensor([[DIPOLES[name]] for name in chosen], dtype=torch.float64)
    table = PropertyTable(("mu",), ("D",), mu)
    charges = [atom % 3 - 1 for atom in z] if charged else None
    return MoleculeSet.from_arrays(z, pos, ptr, properties=table, charges=charges)


def shaken(config: ModelConfig, seed: int = 0) -> MoleculeModel:
    """A model with random weights everywhere: new networks begin with many zeros."""
    config = replace(config, scale=config.scale or 0.6)
    denoiser = config.denoiser().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.normal_(0.0, 0.15, generator=generator)
    return MoleculeModel(
        config, denoiser, SizePrior((3, 4, 5), (0.25, 0.25, 0.5)), SamplingConfig(6)
    )
