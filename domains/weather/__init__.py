"""Weather and climate on latitude-longitude grids: an ``xarray.Dataset`` in, an ``xarray.Dataset`` out.

>>> from sciffusion.domains import weather
>>> model = weather.load("speedy")                                   # doctest: +SKIP
>>> forecast = model.forecast(ds, steps=10, members=20, seed=0)      # doctest: +SKIP
>>> weather.evaluate(forecast, truth)                                # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING

from sciffusion.errors import require

if TYPE_CHECKING:
    from .adapter import (
        DiTConfig as DiTConfig,
    )
    from .adapter import (
        ModelConfig as ModelConfig,
    )
    from .adapter import (
        UNetConfig as UNetConfig,
    )
    from .api import load as load
    from .api import models as models
    from .api import recipe as recipe
    from .api import train as train
    from .assimilation import Assimilation as Assimilation
    from .demonstration import demo as demo
    from .demonstration import example as example
    from .demonstration import judge as judge
    from .demonstration import verifying as verifying
    from .evaluation import evaluate as evaluate
    from .extremes import Extremes as Extremes
    from .extremes import Weighted as Weighted
    from .fields import Channel as Channel
    from .fields import Fields as Fields
    from .grid import Grid as Grid
    from .model import SamplingConfig as SamplingConfig
    from .model import WeatherModel as WeatherModel
    from .output import ForecastWriter as ForecastWriter
    from .report import Report as Report
    from .scales import Scales as Scales
    from .sources import (
        DATASETS as DATASETS,
    )
    from .sources import (
        check_output as check_output,
    )
    from .sources import (
        read as read,
    )
    from .sources import (
        split as split,
    )
    from .task import (
        DataConfig as DataConfig,
    )
    from .task import (
        ObjectiveConfig as ObjectiveConfig,
    )
    from .task import (
        WeatherTask as WeatherTask,
    )
    from .task import (
        WeatherTraining as WeatherTraining,
    )

COMMANDS = ("data", "demo", "evaluate", "forecast", "train")
"""The commands of ``sciffusion`` that serve weather."""

# Loaded when first used, for nearly all of it stands on xarray, which an extra brings. No module may have the name of
# something in it: importing it would put the module in its place.
_NAMES = {
    "adapter": (
        "DiTConfig",
        "ModelConfig",
        "UNetConfig",
    ),
    "api": (
        "load",
        "models",
        "recipe",
        "train",
    ),
    "assimilation": ("Assimilation",),
    "demonstration": (
        "demo",
        "example",
        "judge",
        "verifying",
    ),
    "evaluation": ("evaluate",),
    "extremes": (
        "Extremes",
        "Weighted",
    ),
    "fields": (
        "Channel",
        "Fields",
    ),
    "grid": ("Grid",),
    "model": (
        "SamplingConfig",
        "WeatherModel",
    ),
    "output": ("ForecastWriter",),
    "report": ("Report",),
    "scales": ("Scales",),
    "sources": (
        "DATASETS",
        "check_output",
        "read",
        "split",
    ),
    "task": (
        "DataConfig",
        "ObjectiveConfig",
        "WeatherTask",
        "WeatherTraining",
    ),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = ["COMMANDS", *_HOME]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    require("xarray", extra="weather")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
