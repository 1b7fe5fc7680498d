"""The rivals: what a generative model has to beat, each as strong as its kind allows, and calibrated where it can be.

``kalman``: ensemble Kalman filters and 3D-Var; ``interpolation``: optimal interpolation, bilinear and bicubic;
``statistics``: climatology, persistence, regression.
"""

from .interpolation import GaussianAnalysis, OptimalInterpolation, best_shrinkage, enlarge
from .kalman import ETKF, LETKF, Analyses, EnsembleFilter, StochasticEnKF, ThreeDVar, cycle
from .statistics import Climatology, DampedPersistence, LocalRidge, Ridge

__all__ = [
    "ETKF",
    "LETKF",
    "Analyses",
    "Climatology",
    "DampedPersistence",
    "EnsembleFilter",
    "GaussianAnalysis",
    "LocalRidge",
    "OptimalInterpolation",
    "Ridge",
    "StochasticEnKF",
    "ThreeDVar",
    "best_shrinkage",
    "cycle",
    "enlarge",
]
