"""The verbs that notebooks and scripts begin with: load, recipe, train.

>>> from sciffusion.domains import weather                                    # doctest: +SKIP
>>> model = weather.load("speedy")                                            # doctest: +SKIP
>>> model.forecast(ds, steps=10, members=20, seed=0)                          # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sciffusion.config import load as load_config
from sciffusion.shelf import Shelf
from sciffusion.training import TrainState
from sciffusion.training import train as run_training

from .model import WeatherModel
from .task import WeatherTask, WeatherTraining

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["load", "models", "recipe", "train"]

_SHELF = Shelf(Path(__file__).parent)


def models() -> dict[str, Path]:
    """The trained models that ship, by name, and their files; the forecast model comes first."""
    found = _SHELF.all("model")
    return {name: found[name] for name in sorted(found, key=lambda name: (name != "speedy", name))}


def load(name: str | Path) -> WeatherModel:
    """A trained model: the name of one that ships, or a file that ``save`` wrote.

    Raises:
        FileNotFoundError: neither; the message lists the names.
    """
    return WeatherModel.from_file(_SHELF.find("model", name))


def recipe(name: str | Path, overrides: Sequence[str] = ()) -> WeatherTraining:
    """A training configuration: the name of one that ships, or a YAML file; ``key=value`` overrides.

    Raises:
        FileNotFoundError: no such recipe or file.
        ConfigError: a key or value that is not right, with the right key suggested.
    """
    return load_config(WeatherTraining, _SHELF.find("recipe", name), overrides)


def train(
    config: WeatherTraining,
    directory: str | Path,
    data: xr.Dataset | None = None,
    valid: xr.Dataset | None = None,
    *,
    resume: bool = True,
) -> tuple[WeatherModel, TrainState]:
    """Train a model in ``directory`` (continuing the run found there) and write ``model.safetensors`` in it.

    The data are those that the configuration names, or ``data`` and ``valid``, datasets of your own. The same call
    runs in one process or in many (``torchrun``). Returns the model with averaged weights and the state of the run;
    ``state.stopped`` says why it ended early, if it did.
    """
    directory = Path(directory)
    if data is None:
        data, valid = config.data.load("train"), config.data.load("valid")
        assert data is not None
    mean = None if config.mean is None else load(config.mean)
    start = None if config.start is None else load(config.start).module.state_dict()
    task = WeatherTask(config, data, valid, mean, start)
    state = run_training(task, config.train, directory, resume=resume)
    info = {"steps": state.step, "cases": len(task.cases), "recipe": task.describe()}
    model = WeatherModel.from_training(task, state.weights(), info)
    if state.first:
        model.save(directory / "model.safetensors")
    return model, state
