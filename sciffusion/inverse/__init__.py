"""Inverse problems: conditioning on observations without training, by guidance."""

from sciffusion.inverse.grids import STFT, Blur, CoarseGrain, Fourier, Subsample
from sciffusion.inverse.methods import DPS, MMPS, SDA, PiGDM
from sciffusion.inverse.operators import Each, FieldOperator, Function, Linearised, Mask, Operator
from sciffusion.inverse.posterior import Method, Posterior, Problem

__all__ = [
    "DPS",
    "MMPS",
    "SDA",
    "STFT",
    "Blur",
    "CoarseGrain",
    "Each",
    "FieldOperator",
    "Fourier",
    "Function",
    "Linearised",
    "Mask",
    "Method",
    "Operator",
    "PiGDM",
    "Posterior",
    "Problem",
    "Subsample",
]
