"""The verbs that notebooks and scripts begin with: load, recipe, train.

>>> from sciffusion.domains import video                              # doctest: +SKIP
>>> model = video.load("moving-digits")                               # doctest: +SKIP
>>> model.sample(4, {"digit": 7}, seed=0).save("sevens.gif")          # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sciffusion.config import load as load_config
from sciffusion.config import read_yaml
from sciffusion.shelf import Shelf
from sciffusion.training import TrainState
from sciffusion.training import train as run_training

from .autoencoder import CausalAutoencoder
from .autoencoder_task import AutoencoderTask, AutoencoderTraining
from .film import Films
from .lessons import Crops, Lessons
from .model import VideoModel
from .task import VideoTask, VideoTraining

__all__ = ["check_output", "load", "models", "recipe", "train"]

Training = VideoTraining | AutoencoderTraining
Trained = VideoModel | CausalAutoencoder

_KINDS: Mapping[object, type[Training]] = {
    "diffusion": VideoTraining,
    "autoencoder": AutoencoderTraining,
}

_FORMATS = (".gif", ".mp4", ".npz")

_SHELF = Shelf(Path(__file__).parent)


def models() -> dict[str, Path]:
    """The trained models that ship, by name, and their files."""
    return _SHELF.all("model")


def load(name: str | Path) -> VideoModel:
    """A trained model: the name of one that ships, or a file that ``save`` wrote.

    Raises ``FileNotFoundError`` for neither; the message lists the names.
    """
    return VideoModel.from_file(_SHELF.find("model", name))


def recipe(name: str | Path, overrides: Sequence[str] = ()) -> Training:
    """A training configuration: the name of one that ships, or a YAML file; ``key=value`` overrides.

    Its key ``kind`` says what is trained: ``diffusion`` (the default) or an ``autoencoder``.

    Raises:
        FileNotFoundError: no such recipe or file.
        ConfigError: a key or value that is not right, with the right key suggested.
    """
    path = _SHELF.find("recipe", name)
    # an unknown kind is told as the mistake that it is by the reader of the default one
    kind = _KINDS.get(read_yaml(path).get("kind", "diffusion"), VideoTraining)
    return load_config(kind, path, overrides)


def check_output(path: Path) -> None:
    """Raise ``ValueError`` unless films can be written to a file of this name."""
    if path.suffix.lower() not in ("", *_FORMATS):
        raise ValueError(
            f"--out {path}: end it with one of {', '.join(_FORMATS)}, or with nothing for a folder of GIFs"
        )


def train(
    config: Training,
    directory: str | Path,
    films: Films | None = None,
    valid: Films | None = None,
    *,
    resume: bool = True,
) -> tuple[Trained, TrainState]:
    """Train in ``directory`` (continuing the run found there) and write ``model.safetensors`` in it.

    What is trained, the type of ``config`` says: a model of films, or an autoencoder. The data are those that it names,
    or ``films`` and ``valid``, films of your own. The same call runs in one process or in many (``torchrun``). Returns
    what was trained, with averaged weights, and the state of the run; ``state.stopped`` says why it ended early, if it
    did.
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
    task: VideoTask | AutoencoderTask
    if isinstance(config, AutoencoderTraining):
        task = AutoencoderTask(config, lessons, held)
    else:
        task = VideoTask(config, lessons, held)
    state = run_training(task, config.train, directory, resume=resume)
    weights = state.weights()
    info = {"steps": state.step, "films": len(lessons), "recipe": task.describe()}
    path = directory / "model.safetensors"
    if isinstance(task, AutoencoderTask):
        made = task.finished(weights)
        if state.first:
            made.save(path, info)
        return made, state
    model = VideoModel.from_training(task, weights, info)
    if films is not None:
        model = replace(model, rate=films[0].rate)
    if state.first:
        model.save(path)
    return model, state
