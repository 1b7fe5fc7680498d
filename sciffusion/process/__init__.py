"""Forward processes: how data become noise, one process per field."""

from sciffusion.process.base import FieldProcess, Noised, Process
from sciffusion.process.gaussian import Gaussian, Target
from sciffusion.process.geodesic import Geodesic
from sciffusion.process.joint import Joint
from sciffusion.process.jump import Jump
from sciffusion.process.jump_steps import Confident, ExactStep, JumpStep, TauLeap
from sciffusion.process.wrapped import Wrapped

__all__ = [
    "FieldProcess",
    "Gaussian",
    "Geodesic",
    "Joint",
    "Jump",
    "Noised",
    "Process",
    "Target",
    "Wrapped",
    "Confident",
    "ExactStep",
    "JumpStep",
    "TauLeap",
]
