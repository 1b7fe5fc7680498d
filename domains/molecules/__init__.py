"""3D molecules: generated from noise, atom by atom, and judged by chemistry.

>>> from sciffusion.domains import molecules
>>> model = molecules.load("qm9")            # doctest: +SKIP
>>> mols = model.sample(64, seed=0)          # doctest: +SKIP
>>> mols.report()                            # doctest: +SKIP

What needs RDKit, xTB or matplotlib imports them when it is called; training needs none of them.
"""

from .adapter import EGNNConfig, ModelConfig, TensorFieldConfig, TransformerConfig
from .api import MoleculeModel, SamplingConfig, load, models, recipe, train
from .container import Molecule, Molecules
from .data import MoleculeSet
from .demo import demo
from .qm9 import qm9
from .sizes import ConditionalSizePrior, SizePrior
from .sources import DATASETS, check_output, judge, read
from .task import DataConfig, MoleculeTask, MoleculeTraining, ObjectiveConfig

COMMANDS = ("data", "demo", "evaluate", "sample", "train")
"""The commands of ``sciffusion`` that serve molecules."""

__all__ = [
    "COMMANDS",
    "DATASETS",
    "ConditionalSizePrior",
    "DataConfig",
    "EGNNConfig",
    "ModelConfig",
    "Molecule",
    "MoleculeModel",
    "MoleculeSet",
    "MoleculeTask",
    "MoleculeTraining",
    "Molecules",
    "ObjectiveConfig",
    "SamplingConfig",
    "SizePrior",
    "TensorFieldConfig",
    "TransformerConfig",
    "check_output",
    "demo",
    "judge",
    "load",
    "models",
    "qm9",
    "read",
    "recipe",
    "train",
]
