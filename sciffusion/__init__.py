"""Generative modelling for scientists: one core of diffusion and flow matching, many domains.

Names are imported on first use, so that ``import sciffusion`` costs nothing and needs no
domain's packages.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sciffusion.codec import Codec as Codec
    from sciffusion.coupling import Align as Align
    from sciffusion.coupling import Conditional as Conditional
    from sciffusion.coupling import Independent as Independent
    from sciffusion.coupling import Permutation as Permutation
    from sciffusion.denoiser import Denoiser as Denoiser
    from sciffusion.denoiser import Preconditioned as Preconditioned
    from sciffusion.denoiser import Prediction as Prediction
    from sciffusion.denoiser import from_flow as from_flow
    from sciffusion.denoiser import from_score as from_score
    from sciffusion.ema import EMA as EMA
    from sciffusion.errors import MissingExtra as MissingExtra
    from sciffusion.experts import TimeExperts as TimeExperts
    from sciffusion.grid import Beta as Beta
    from sciffusion.grid import FlowTime as FlowTime
    from sciffusion.grid import Karras as Karras
    from sciffusion.grid import LogSNR as LogSNR
    from sciffusion.grid import Power as Power
    from sciffusion.grid import Times as Times
    from sciffusion.grid import Uniform as Uniform
    from sciffusion.grid.optimise import optimise as optimise
    from sciffusion.guidance import CFG as CFG
    from sciffusion.guidance import Autoguidance as Autoguidance
    from sciffusion.guidance import CFGPlusPlus as CFGPlusPlus
    from sciffusion.guidance import CFGZeroStar as CFGZeroStar
    from sciffusion.guidance import Classifier as Classifier
    from sciffusion.guidance import Composed as Composed
    from sciffusion.guidance import DynamicThreshold as DynamicThreshold
    from sciffusion.guidance import Embedded as Embedded
    from sciffusion.guidance import Energy as Energy
    from sciffusion.guidance import Interval as Interval
    from sciffusion.guidance import MeanEnergy as MeanEnergy
    from sciffusion.guidance import Perturbed as Perturbed
    from sciffusion.guidance import Projected as Projected
    from sciffusion.guidance import Rescaled as Rescaled
    from sciffusion.guidance import Sharpened as Sharpened
    from sciffusion.guidance import Smoothing as Smoothing
    from sciffusion.inverse import DPS as DPS
    from sciffusion.inverse import MMPS as MMPS
    from sciffusion.inverse import SDA as SDA
    from sciffusion.inverse import PiGDM as PiGDM
    from sciffusion.inverse import Posterior as Posterior
    from sciffusion.inverse import RePaint as RePaint
    from sciffusion.inverse import TwistedSMC as TwistedSMC
    from sciffusion.inverse import Windowed as Windowed
    from sciffusion.inverse import edit as edit
    from sciffusion.layout import Dense as Dense
    from sciffusion.layout import Masked as Masked
    from sciffusion.layout import Packed as Packed
    from sciffusion.likelihood import Exact as Exact
    from sciffusion.likelihood import Hutchinson as Hutchinson
    from sciffusion.likelihood import HutchinsonPlusPlus as HutchinsonPlusPlus
    from sciffusion.likelihood import jump_nelbo as jump_nelbo
    from sciffusion.likelihood import log_likelihood as log_likelihood
    from sciffusion.likelihood import nelbo as nelbo
    from sciffusion.noise import Noise as Noise
    from sciffusion.objective import EDM as EDM
    from sciffusion.objective import Between as Between
    from sciffusion.objective import CosMap as CosMap
    from sciffusion.objective import DistilledGuidance as DistilledGuidance
    from sciffusion.objective import Likelihood as Likelihood
    from sciffusion.objective import LogitNormal as LogitNormal
    from sciffusion.objective import LogNormal as LogNormal
    from sciffusion.objective import LogUniform as LogUniform
    from sciffusion.objective import MinSNR as MinSNR
    from sciffusion.objective import ModeTimes as ModeTimes
    from sciffusion.objective import Objective as Objective
    from sciffusion.objective import Sigmoid as Sigmoid
    from sciffusion.objective import Stratified as Stratified
    from sciffusion.objective import Uncertainty as Uncertainty
    from sciffusion.objective import UniformTimes as UniformTimes
    from sciffusion.process import Confident as Confident
    from sciffusion.process import Gaussian as Gaussian
    from sciffusion.process import Geodesic as Geodesic
    from sciffusion.process import Joint as Joint
    from sciffusion.process import Jump as Jump
    from sciffusion.process import TauLeap as TauLeap
    from sciffusion.process import Wrapped as Wrapped
    from sciffusion.registry import load_domain as load_domain
    from sciffusion.samplers import BDIA as BDIA
    from sciffusion.samplers import DDIM as DDIM
    from sciffusion.samplers import DEIS as DEIS
    from sciffusion.samplers import ERSDE as ERSDE
    from sciffusion.samplers import LMS as LMS
    from sciffusion.samplers import Adaptive as Adaptive
    from sciffusion.samplers import Ancestral as Ancestral
    from sciffusion.samplers import EulerMaruyama as EulerMaruyama
    from sciffusion.samplers import FirstHitting as FirstHitting
    from sciffusion.samplers import Heun as Heun
    from sciffusion.samplers import Langevin as Langevin
    from sciffusion.samplers import Multistep as Multistep
    from sciffusion.samplers import Parallel as Parallel
    from sciffusion.samplers import Restart as Restart
    from sciffusion.samplers import Sampler as Sampler
    from sciffusion.samplers import SASolver as SASolver
    from sciffusion.samplers import Singlestep as Singlestep
    from sciffusion.samplers import UniPC as UniPC
    from sciffusion.samplers import invert as invert
    from sciffusion.samplers import revert as revert
    from sciffusion.schedule import VE as VE
    from sciffusion.schedule import VP as VP
    from sciffusion.schedule import Cosine as Cosine
    from sciffusion.schedule import Interpolant as Interpolant
    from sciffusion.schedule import Laplace as Laplace
    from sciffusion.schedule import Learned as Learned
    from sciffusion.schedule import Polynomial as Polynomial
    from sciffusion.schedule import RectifiedFlow as RectifiedFlow
    from sciffusion.schedule import ScaledLinear as ScaledLinear
    from sciffusion.schedule import SigmoidSchedule as SigmoidSchedule
    from sciffusion.schedule import SubVP as SubVP
    from sciffusion.schedule import Tabulated as Tabulated
    from sciffusion.schedule import TrigFlow as TrigFlow
    from sciffusion.schedule import ZeroTerminalSNR as ZeroTerminalSNR
    from sciffusion.schedule import resolution_shift as resolution_shift
    from sciffusion.schedule import token_shift as token_shift
    from sciffusion.space import SO3 as SO3
    from sciffusion.space import Categorical as Categorical
    from sciffusion.space import Chain as Chain
    from sciffusion.space import Coloured as Coloured
    from sciffusion.space import Euclidean as Euclidean
    from sciffusion.space import Sphere as Sphere
    from sciffusion.space import SphereField as SphereField
    from sciffusion.space import StudentT as StudentT
    from sciffusion.space import Torus as Torus
    from sciffusion.space import ZeroCoM as ZeroCoM
    from sciffusion.state import State as State
    from sciffusion.state import cat as cat
    from sciffusion.state import take as take

__version__ = "0.1.0"

_NAMES = {
    "codec": ("Codec",),
    "coupling": (
        "Align",
        "Conditional",
        "Independent",
        "Permutation",
    ),
    "denoiser": (
        "Denoiser",
        "Prediction",
        "Preconditioned",
        "from_flow",
        "from_score",
    ),
    "ema": ("EMA",),
    "errors": ("MissingExtra",),
    "experts": ("TimeExperts",),
    "grid": (
        "Beta",
        "FlowTime",
        "Karras",
        "LogSNR",
        "Power",
        "Times",
        "Uniform",
    ),
    "grid.optimise": ("optimise",),
    "guidance": (
        "CFG",
        "Autoguidance",
        "CFGPlusPlus",
        "CFGZeroStar",
        "Classifier",
        "Composed",
        "DynamicThreshold",
        "Embedded",
        "Energy",
        "Interval",
        "MeanEnergy",
        "Perturbed",
        "Projected",
        "Rescaled",
        "Sharpened",
        "Smoothing",
    ),
    "inverse": (
        "DPS",
        "MMPS",
        "SDA",
        "PiGDM",
        "Posterior",
        "RePaint",
        "TwistedSMC",
        "Windowed",
        "edit",
    ),
    "layout": (
        "Dense",
        "Masked",
        "Packed",
    ),
    "likelihood": (
        "Exact",
        "Hutchinson",
        "HutchinsonPlusPlus",
        "jump_nelbo",
        "log_likelihood",
        "nelbo",
    ),
    "noise": ("Noise",),
    "objective": (
        "EDM",
        "Between",
        "CosMap",
        "DistilledGuidance",
        "Likelihood",
        "LogNormal",
        "LogUniform",
        "LogitNormal",
        "MinSNR",
        "ModeTimes",
        "Objective",
        "Sigmoid",
        "Stratified",
        "Uncertainty",
        "UniformTimes",
    ),
    "process": (
        "Confident",
        "Gaussian",
        "Geodesic",
        "Joint",
        "Jump",
        "TauLeap",
        "Wrapped",
    ),
    "registry": ("load_domain",),
    "samplers": (
        "BDIA",
        "DDIM",
        "DEIS",
        "ERSDE",
        "LMS",
        "Adaptive",
        "Ancestral",
        "EulerMaruyama",
        "FirstHitting",
        "Heun",
        "Langevin",
        "Multistep",
        "Parallel",
        "Restart",
        "SASolver",
        "Sampler",
        "Singlestep",
        "UniPC",
        "invert",
        "revert",
    ),
    "schedule": (
        "VE",
        "VP",
        "Cosine",
        "Interpolant",
        "Laplace",
        "Learned",
        "Polynomial",
        "RectifiedFlow",
        "ScaledLinear",
        "SigmoidSchedule",
        "SubVP",
        "Tabulated",
        "TrigFlow",
        "ZeroTerminalSNR",
        "resolution_shift",
        "token_shift",
    ),
    "space": (
        "SO3",
        "Categorical",
        "Chain",
        "Coloured",
        "Euclidean",
        "Sphere",
        "SphereField",
        "StudentT",
        "Torus",
        "ZeroCoM",
    ),
    "state": (
        "State",
        "cat",
        "take",
    ),
}
_HOME = {name: f"sciffusion.{module}" for module, names in _NAMES.items() for name in names}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
