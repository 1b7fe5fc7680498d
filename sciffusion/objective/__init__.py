"""What is minimised: a loss, its weight, and the law of the training times."""

from sciffusion.objective.distilled import DistilledGuidance
from sciffusion.objective.objective import Loss, Objective
from sciffusion.objective.times import (
    Between,
    CosMap,
    LogitNormal,
    LogNormal,
    LogUniform,
    ModeTimes,
    Stratified,
    TimeSampler,
    UniformTimes,
)
from sciffusion.objective.uncertainty import Uncertainty
from sciffusion.objective.weights import EDM, Likelihood, MinSNR, Sigmoid, Weight

__all__ = [
    "EDM",
    "Between",
    "CosMap",
    "DistilledGuidance",
    "Likelihood",
    "LogNormal",
    "LogUniform",
    "LogitNormal",
    "Loss",
    "MinSNR",
    "ModeTimes",
    "Objective",
    "Sigmoid",
    "Stratified",
    "TimeSampler",
    "Uncertainty",
    "UniformTimes",
    "Weight",
]
