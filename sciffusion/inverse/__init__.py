"""Inverse problems: conditioning on observations without training, by guidance, replacement and particles."""

from sciffusion.inverse.fields import Apart, HiddenFields, KnownFields
from sciffusion.inverse.grids import STFT, Blur, CoarseGrain, Fourier, Subsample
from sciffusion.inverse.known import Known
from sciffusion.inverse.methods import DPS, MMPS, SDA, PiGDM
from sciffusion.inverse.operators import Each, FieldOperator, Function, Linearised, Mask, Operator
from sciffusion.inverse.posterior import Method, Posterior, Problem
from sciffusion.inverse.proposals import Twist
from sciffusion.inverse.repaint import RePaint
from sciffusion.inverse.resampling import systematic
from sciffusion.inverse.sdedit import edit
from sciffusion.inverse.smc import Particles, TwistedSMC
from sciffusion.inverse.twist import ObservationTwist
from sciffusion.inverse.windowed import Windowed

__all__ = [
    "DPS",
    "MMPS",
    "SDA",
    "STFT",
    "Apart",
    "Blur",
    "CoarseGrain",
    "Each",
    "FieldOperator",
    "Fourier",
    "HiddenFields",
    "ObservationTwist",
    "Particles",
    "RePaint",
    "Twist",
    "TwistedSMC",
    "edit",
    "systematic",
    "Function",
    "Known",
    "KnownFields",
    "Linearised",
    "Mask",
    "Method",
    "Operator",
    "PiGDM",
    "Posterior",
    "Problem",
    "Subsample",
    "Windowed",
]
