"""Forward processes: how data become noise, one process per field."""

from sciffusion.process.base import FieldProcess, Noised, Process
from sciffusion.process.gaussian import Gaussian, Target
from sciffusion.process.joint import Joint
from sciffusion.process.jump import Jump

__all__ = ["FieldProcess", "Gaussian", "Joint", "Jump", "Noised", "Process", "Target"]
