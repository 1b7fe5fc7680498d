"""Generative modelling for scientists: one core of diffusion and flow matching, many domains.

Names are imported on first use, so that ``import sciffusion`` costs nothing and needs no
domain's packages.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sciffusion.coupling import Independent as Independent
    from sciffusion.coupling import Permutation as Permutation
    from sciffusion.denoiser import Denoiser as Denoiser
    from sciffusion.denoiser import Preconditioned as Preconditioned
    from sciffusion.denoiser import Prediction as Prediction
    from sciffusion.denoiser import from_flow as from_flow
    from sciffusion.denoiser import from_score as from_score
    from sciffusion.ema import EMA as EMA
    from sciffusion.errors import MissingExtra as MissingExtra
    from sciffusion.guidance import CFG as CFG
    from sciffusion.layout import Dense as Dense
    from sciffusion.layout import Masked as Masked
    from sciffusion.layout import Packed as Packed
    from sciffusion.noise import Noise as Noise
    from sciffusion.objective import EDM as EDM
    from sciffusion.objective import LogitNormal as LogitNormal
    from sciffusion.objective import LogNormal as LogNormal
    from sciffusion.objective import MinSNR as MinSNR
    from sciffusion.objective import Objective as Objective
    from sciffusion.objective import Sigmoid as Sigmoid
    from sciffusion.objective import UniformTimes as UniformTimes
    from sciffusion.process import Gaussian as Gaussian
    from sciffusion.process import Joint as Joint
    from sciffusion.process import Jump as Jump
    from sciffusion.registry import load_domain as load_domain
    from sciffusion.samplers import DDIM as DDIM
    from sciffusion.samplers import Ancestral as Ancestral
    from sciffusion.samplers import Heun as Heun
    from sciffusion.samplers import Multistep as Multistep
    from sciffusion.samplers import Sampler as Sampler
    from sciffusion.schedule import VE as VE
    from sciffusion.schedule import VP as VP
    from sciffusion.schedule import Cosine as Cosine
    from sciffusion.schedule import Polynomial as Polynomial
    from sciffusion.schedule import RectifiedFlow as RectifiedFlow
    from sciffusion.schedule import TrigFlow as TrigFlow
    from sciffusion.space import Categorical as Categorical
    from sciffusion.space import Euclidean as Euclidean
    from sciffusion.space import ZeroCoM as ZeroCoM
    from sciffusion.state import State as State

__version__ = "0.1.0"

_NAMES = {
    "coupling": ("Independent", "Permutation"),
    "denoiser": ("Denoiser", "Prediction", "Preconditioned", "from_flow", "from_score"),
    "ema": ("EMA",),
    "errors": ("MissingExtra",),
    "guidance": ("CFG",),
    "layout": ("Dense", "Masked", "Packed"),
    "noise": ("Noise",),
    "objective": (
        "EDM",
        "LogNormal",
        "LogitNormal",
        "MinSNR",
        "Objective",
        "Sigmoid",
        "UniformTimes",
    ),
    "process": ("Gaussian", "Joint", "Jump"),
    "registry": ("load_domain",),
    "samplers": ("DDIM", "Ancestral", "Heun", "Multistep", "Sampler"),
    "schedule": ("VE", "VP", "Cosine", "Polynomial", "RectifiedFlow", "TrigFlow"),
    "space": ("Categorical", "Euclidean", "ZeroCoM"),
    "state": ("State",),
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
