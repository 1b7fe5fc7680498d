"""Guidance: denoisers that wrap denoisers. Scale 1 is the conditional prediction, 0 the unconditional one."""

from sciffusion.guidance.autoguidance import Autoguidance
from sciffusion.guidance.base import Change, Guidance, Scale
from sciffusion.guidance.cfg import CFG
from sciffusion.guidance.classifier import Classifier
from sciffusion.guidance.composed import Composed
from sciffusion.guidance.embedded import Embedded
from sciffusion.guidance.energy import Energy
from sciffusion.guidance.interval import Interval
from sciffusion.guidance.mean_energy import MeanEnergy
from sciffusion.guidance.perturbed import Perturbed
from sciffusion.guidance.plusplus import CFGPlusPlus
from sciffusion.guidance.projected import Projected, Rescaled
from sciffusion.guidance.sharpened import Sharpened
from sciffusion.guidance.smoothing import Smoothing
from sciffusion.guidance.threshold import DynamicThreshold
from sciffusion.guidance.zerostar import CFGZeroStar

__all__ = [
    "CFG",
    "Autoguidance",
    "CFGPlusPlus",
    "CFGZeroStar",
    "Change",
    "Classifier",
    "Composed",
    "DynamicThreshold",
    "Embedded",
    "Energy",
    "Guidance",
    "Interval",
    "MeanEnergy",
    "Perturbed",
    "Projected",
    "Rescaled",
    "Scale",
    "Sharpened",
    "Smoothing",
]
