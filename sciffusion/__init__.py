"""Generative modelling for scientists: one core of diffusion and flow matching, many domains.

Names are imported on first use, so that ``import sciffusion`` costs nothing and needs no
domain's packages.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sciffusion.errors import MissingExtra as MissingExtra
    from sciffusion.registry import load_domain as load_domain

__version__ = "0.1.0"

_HOME = {
    "MissingExtra": "sciffusion.errors",
    "load_domain": "sciffusion.registry",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
