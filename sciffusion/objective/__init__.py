"""What is minimised: a loss, its weight, and the law of the training times."""

from sciffusion.objective.objective import Loss, Objective
from sciffusion.objective.times import LogitNormal, LogNormal, TimeSampler, UniformTimes
from sciffusion.objective.weights import EDM, MinSNR, Sigmoid, Weight

__all__ = [
    "EDM",
    "LogNormal",
    "LogitNormal",
    "Loss",
    "MinSNR",
    "Objective",
    "Sigmoid",
    "TimeSampler",
    "UniformTimes",
    "Weight",
]
