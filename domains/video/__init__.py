"""Video: films from noise, from a picture, from their beginning, or between given frames.

>>> from sciffusion.domains import video
>>> model = video.load("moving-digits")                              # doctest: +SKIP
>>> model.sample(4, {"digit": 7}, seed=0).save("sevens.gif")         # doctest: +SKIP
>>> model.animate(picture, n=4, seed=0)                              # doctest: +SKIP

What needs Pillow, PyAV, scikit-learn or matplotlib imports them when it is called.
"""

from sciffusion.sampling import Guide, SamplingConfig

from .adapter import ModelConfig
from .api import check_output, load, models, recipe, train
from .autoencoder import CausalAutoencoder, CausalConfig
from .autoencoder_task import AutoencoderTraining
from .datasets import DATASETS, MovingDigits, digits
from .demo import demo
from .film import Film, Films
from .model import VideoModel
from .motion import Flights, flights, flow, warp_error
from .networks import TransformerConfig, UNetConfig
from .sources import judge, read
from .task import DataConfig, ObjectiveConfig, VideoTask, VideoTraining

COMMANDS = ("data", "demo", "evaluate", "sample", "train")
"""The commands of ``sciffusion`` that serve films."""

__all__ = [
    "COMMANDS",
    "DATASETS",
    "AutoencoderTraining",
    "CausalAutoencoder",
    "CausalConfig",
    "DataConfig",
    "Film",
    "Films",
    "Flights",
    "ModelConfig",
    "MovingDigits",
    "ObjectiveConfig",
    "Guide",
    "SamplingConfig",
    "TransformerConfig",
    "UNetConfig",
    "VideoModel",
    "VideoTask",
    "VideoTraining",
    "check_output",
    "demo",
    "digits",
    "flights",
    "flow",
    "judge",
    "load",
    "models",
    "read",
    "recipe",
    "train",
    "warp_error",
]
