"""Films with sound: one model in which what is seen and what is heard belong together.

>>> from sciffusion.domains import audiovisual
>>> model = audiovisual.load("talking-digits")                           # doctest: +SKIP
>>> model.sample(4, {"digit": 7}, seed=0).save("sevens.mp4")             # doctest: +SKIP
>>> model.sound_of(films), model.film_of(sounds)                         # doctest: +SKIP

It stands on the domains of video and of audio, whose films and clips it takes and makes.
"""

from .adapter import ModelConfig
from .api import DATASETS, check_output, load, models, recipe, train
from .data import TalkingDigits
from .demo import demo
from .evaluation import evaluate
from .model import SceneModel
from .networks import PairConfig, SceneNet
from .scene import Scene, Scenes
from .task import DataConfig, ObjectiveConfig, SceneTask, SceneTraining

COMMANDS = ("demo", "sample", "train")
"""The commands of ``sciffusion`` that serve scenes."""

__all__ = [
    "COMMANDS",
    "DATASETS",
    "DataConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "PairConfig",
    "Scene",
    "SceneModel",
    "SceneNet",
    "SceneTask",
    "SceneTraining",
    "Scenes",
    "TalkingDigits",
    "check_output",
    "demo",
    "evaluate",
    "load",
    "models",
    "recipe",
    "train",
]
