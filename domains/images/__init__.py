"""Images: generated, filled in, continued, edited and judged, by diffusion of pixels or of latents.

>>> from sciffusion.domains import images
>>> model = images.load("digits")                                             # doctest: +SKIP
>>> model.sample(16, given={"label": 7}, seed=0)                              # doctest: +SKIP
"""

from sciffusion.sampling import Guide, SamplingConfig

from .adapter import ModelConfig
from .api import check_output, load, models, recipe, train
from .autoencoder import Autoencoder, AutoencoderConfig
from .autoencoder_task import AutoencoderTask, AutoencoderTraining
from .classifier import Classifier, ClassifierConfig
from .classifier_task import ClassifierTask, ClassifierTraining
from .container import Images
from .datasets import DATASETS
from .embedder import Embedder, EmbedderConfig
from .embedder_task import EmbedderTask, EmbedderTraining
from .evaluation import demo, evaluate, judge, judges, load_judge
from .lora import Adapter
from .model import ImageModel
from .networks import MMDiTConfig, PatchesConfig, UNetConfig
from .prior import Prior, PriorConfig
from .prior_task import PriorTask, PriorTraining
from .task import DataConfig, ImageTask, ImageTraining, ObjectiveConfig
from .texts import TextConfig
from .two_stage import TwoStage

COMMANDS = ("data", "demo", "evaluate", "sample", "train")
"""The commands of ``sciffusion`` that serve images."""

__all__ = [
    "COMMANDS",
    "DATASETS",
    "Adapter",
    "Autoencoder",
    "AutoencoderConfig",
    "AutoencoderTask",
    "AutoencoderTraining",
    "Classifier",
    "ClassifierConfig",
    "ClassifierTask",
    "ClassifierTraining",
    "DataConfig",
    "Embedder",
    "EmbedderConfig",
    "EmbedderTask",
    "EmbedderTraining",
    "ImageModel",
    "ImageTask",
    "ImageTraining",
    "Images",
    "MMDiTConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "PatchesConfig",
    "Prior",
    "PriorConfig",
    "PriorTask",
    "PriorTraining",
    "Guide",
    "SamplingConfig",
    "TextConfig",
    "TwoStage",
    "UNetConfig",
    "check_output",
    "demo",
    "evaluate",
    "judge",
    "judges",
    "load",
    "load_judge",
    "models",
    "recipe",
    "train",
]
