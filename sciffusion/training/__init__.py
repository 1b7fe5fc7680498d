"""Training: a small loop over a task, the same on one CPU and on many GPUs.

A domain implements :class:`Task`; :func:`train` does the rest.
"""

from .buckets import SizeBuckets
from .checkpoint import Checkpoints
from .config import AdamW, Muon, PostHoc, TrainConfig
from .export import export, load_weights
from .loop import Diverged, train
from .modelfile import ModelFile, write_model
from .order import Order, Shuffled
from .snapshots import Snapshots
from .state import TrainState
from .task import StepLoss, Task

__all__ = [
    "AdamW",
    "Checkpoints",
    "Diverged",
    "ModelFile",
    "Muon",
    "Order",
    "PostHoc",
    "Shuffled",
    "SizeBuckets",
    "Snapshots",
    "StepLoss",
    "Task",
    "TrainConfig",
    "TrainState",
    "export",
    "load_weights",
    "train",
    "write_model",
]
