"""Sound: waveforms in, waveforms out, by diffusion of their spectrograms.

>>> from sciffusion.domains import audio
>>> model = audio.load("fsdd")                                       # doctest: +SKIP
>>> model.sample(1, {"digit": 7, "speaker": "theo"}, seed=0)         # doctest: +SKIP
"""

from sciffusion.sampling import Guide, SamplingConfig

from .adapter import ModelConfig
from .api import check_output, load, models, recipe, train
from .bandwidth import BandExtender
from .clip import Clip, Clips
from .datasets import DATASETS
from .filling import Replacement
from .functionals import Sound, Towards, brightness, loudness, pitch
from .likelihood import Likelihood
from .mel import LogMel, MelConfig
from .model import AudioModel
from .networks import FramesConfig, PatchesConfig, UNetConfig
from .recovery import GriffinLim, Recovery
from .reference import ReferenceConfig
from .sequence import joined
from .sources import demo, judge, read
from .stft import ComplexSTFT
from .task import AudioTask, AudioTraining, DataConfig, ObjectiveConfig
from .vocoder import Vocoder

COMMANDS = ("data", "demo", "evaluate", "sample", "train")
"""The commands of ``sciffusion`` that serve sound."""

__all__ = [
    "COMMANDS",
    "DATASETS",
    "AudioModel",
    "AudioTask",
    "AudioTraining",
    "BandExtender",
    "Clip",
    "Clips",
    "ComplexSTFT",
    "DataConfig",
    "FramesConfig",
    "GriffinLim",
    "Guide",
    "Likelihood",
    "LogMel",
    "MelConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "PatchesConfig",
    "Recovery",
    "ReferenceConfig",
    "Replacement",
    "SamplingConfig",
    "Sound",
    "Towards",
    "UNetConfig",
    "Vocoder",
    "brightness",
    "check_output",
    "demo",
    "joined",
    "judge",
    "load",
    "loudness",
    "models",
    "pitch",
    "read",
    "recipe",
    "train",
]
