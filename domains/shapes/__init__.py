"""Shapes in space as sets of points, of any number: generated, completed and judged.

>>> from sciffusion.domains import shapes
>>> shapes.superquadrics(10, points=64)
Shapes(10 of 64 points, labels label, a, b, c)
>>> model = shapes.load("superquadrics")                                      # doctest: +SKIP
>>> model.sample(16, given={"label": "box"}, seed=0)                          # doctest: +SKIP
"""

from sciffusion.sampling import SamplingConfig

from .adapter import ModelConfig
from .api import check_output, load, models, recipe, train
from .container import Shapes
from .data import DATASETS, primitives, proteins, superquadrics
from .evaluation import evaluate, judge
from .model import ShapeModel
from .networks import SetTransformer, SetTransformerConfig
from .surfaces import Superquadric, primitive
from .task import DataConfig, ObjectiveConfig, ShapeTask, ShapeTraining

COMMANDS = ("data", "evaluate", "sample", "train")
"""The commands of ``sciffusion`` that serve shapes."""

__all__ = [
    "COMMANDS",
    "DATASETS",
    "DataConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "SamplingConfig",
    "SetTransformer",
    "SetTransformerConfig",
    "ShapeModel",
    "ShapeTask",
    "ShapeTraining",
    "Shapes",
    "Superquadric",
    "check_output",
    "evaluate",
    "judge",
    "load",
    "models",
    "primitive",
    "primitives",
    "proteins",
    "recipe",
    "superquadrics",
    "train",
]
