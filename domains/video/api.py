"""The verbs that notebooks and scripts begin with: load, recipe, train.

>>> from sciffusion.domains import video                              # doctest: +SKIP
>>> model = video.load("moving-digits")                               # doctest: +SKIP
>>> model.sample(4, {"digit": 7}, seed=0).save("sevens.gif")          # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sciffusion.config import load as load_config
from sciffusion.errors import did_you_mean
from sciffusion.training import TrainState
from sciffusion.training import train as run_training

from .film import Films
from .lessons import Crops, Lessons
from .model import VideoModel
from .task import VideoTask, VideoTraining

__all__ = ["check_output", "load", "models", "recipe", "train"]

_FORMATS = (".gif", ".mp4", ".npz")

_HERE = Path(__file__).parent


def models() -> dict[str, Path]:
    """The trained models that ship, by name, and their files."""
    return _shipped("weights/*.safetensors")


def load(name: str | Path) -> VideoModel:
    """A trained model: the name of one that ships, or a file that ``save`` wrote.

    Raises ``FileNotFoundError`` for neither; the message lists the names.
    """
    return VideoModel.from_file(_find("model", name, models()))


def recipe(name: str | Path, overrides: Sequence[str] = ()) -> VideoTraining:
    """A training configuration: the name of one that ships, or a YAML file; ``key=value`` overrides.

    Raises:
        FileNotFoundError: no such recipe or file.
        ConfigError: a key or value that is not right, with the right key suggested.
    """
    return load_config(VideoTraining, _find("recipe", name, _shipped("recipes/*.yaml")), overrides)


def check_output(path: Path) -> None:
    """Raise ``ValueError`` unless films can be written to a file of this name."""
    if path.suffix.lower() not in ("", *_FORMATS):
        raise ValueError(
            f"--out {path}: end it with one of {', '.join(_FORMATS)}, or with nothing for a folder of GIFs"
        )


def train(
    config: VideoTraining,
    directory: str | Path,
    films: Films | None = None,
    valid: Films | None = None,
    *,
    resume: bool = True,
) -> tuple[VideoModel, TrainState]:
    """Train a model in ``directory`` (continuing the run found there) and write ``model.safetensors`` in it.

    The data are those that the configuration names, or ``films`` and ``valid``, films of your own. The same call runs
    in one process or in many (``torchrun``). Returns the model with averaged weights and the state of the run;
    ``state.stopped`` says why it ended early, if it did.
    """
    directory = Path(directory)
    shapes = config.data.shapes
    held: Lessons | None = None if valid is None else Crops(valid, shapes)
    if films is None:
        lessons = config.data.lessons()
        if config.data.valid is not None and config.train.validate_every:
            held = config.data.lessons(config.data.valid)
    else:
        lessons = Crops(films, shapes)
    task = VideoTask(config, lessons, held)
    state = run_training(task, config.train, directory, resume=resume)
    tensors = state.tensors()  # gathered from all processes, so all of them must call it
    info = {"steps": state.step, "films": len(lessons), "recipe": task.describe()}
    model = VideoModel.from_training(task, tensors.get("ema", tensors["model"]), info)
    if films is not None:
        model = replace(model, rate=films[0].rate)
    if int(os.environ.get("RANK", "0")) == 0:
        model.save(directory / "model.safetensors")
    return model, state


def _shipped(pattern: str) -> dict[str, Path]:
    return {path.stem: path for path in sorted(_HERE.glob(pattern))}


def _find(kind: str, name: str | Path, shipped: Mapping[str, Path]) -> Path:
    """The file that a name stands for, or that it is."""
    path = shipped.get(str(name), Path(name))
    if not path.is_file():
        listed = ", ".join(shipped) or "none"
        hint = did_you_mean(str(name), shipped)
        raise FileNotFoundError(
            f"no {kind} {str(name)!r}: not a file, and none that ships ({listed}). {hint}".rstrip()
        )
    return path
