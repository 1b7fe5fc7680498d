"""The verbs that notebooks and scripts begin with: load, recipe, train.

>>> from sciffusion.domains import images                                     # doctest: +SKIP
>>> model = images.load("digits")                                             # doctest: +SKIP
>>> model.sample(16, given={"label": 7}, seed=0).save("sevens.png")           # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sciffusion.config import load as load_config
from sciffusion.config import read_yaml
from sciffusion.training import Task, TrainState
from sciffusion.training import train as run_training

from .autoencoder import Autoencoder
from .autoencoder_task import AutoencoderTask, AutoencoderTraining
from .classifier import Classifier
from .classifier_task import ClassifierTask, ClassifierTraining
from .container import Images
from .embedder import Embedder
from .embedder_task import EmbedderTask, EmbedderTraining
from .files import PICTURES
from .lora import Adapter
from .model import ImageModel
from .prior import Prior
from .prior_task import PriorTask, PriorTraining
from .shelf import SHELF
from .task import ImageTask, ImageTraining

__all__ = ["check_output", "load", "models", "recipe", "train"]

Training = (
    ImageTraining | AutoencoderTraining | ClassifierTraining | EmbedderTraining | PriorTraining
)
Trained = ImageModel | Adapter | Autoencoder | Classifier | Embedder | Prior

_KINDS: Mapping[object, type[Training]] = {
    "diffusion": ImageTraining,
    "autoencoder": AutoencoderTraining,
    "classifier": ClassifierTraining,
    "embedder": EmbedderTraining,
    "prior": PriorTraining,
}


def models() -> dict[str, Path]:
    """The trained models that ship, by name, and their files; the default one first."""
    return SHELF.all("model")


def load(name: str | Path) -> ImageModel:
    """A trained model: the name of one that ships, or a file that ``save`` wrote.

    Raises:
        FileNotFoundError: neither; the message lists the names.
        ValueError: a file of something else.
    """
    return ImageModel.from_file(SHELF.find("model", name))


def recipe(name: str | Path, overrides: Sequence[str] = ()) -> Training:
    """A training configuration: the name of one that ships, or a YAML file; ``key=value`` overrides.

    Its key ``kind`` says what is trained: ``diffusion`` (the default), an ``autoencoder``, a ``classifier``, or
    for two stages an ``embedder`` and a ``prior``.

    Raises:
        FileNotFoundError: no such recipe or file.
        ConfigError: a key or value that is not right, with the right key suggested.
    """
    path = SHELF.find("recipe", name)
    kind = read_yaml(path).get("kind", "diffusion")
    # an unknown kind is told as the mistake that it is by the reader of the default one
    return load_config(_KINDS.get(kind, ImageTraining), path, overrides)


def check_output(path: Path) -> None:
    """Raise ``ValueError`` unless images can be written to a path of this name."""
    if path.suffix.lower() not in (*PICTURES, ".npz", ""):
        raise ValueError(
            f"--out {path}: end it with .png (a grid), .npz (pixels and labels), or nothing (a folder of pictures)"
        )


def train(
    config: Training,
    directory: str | Path,
    images: Images | None = None,
    valid: Images | None = None,
    *,
    resume: bool = True,
) -> tuple[Trained, TrainState]:
    """Train in ``directory`` (continuing the run found there) and write ``model.safetensors`` in it.

    What is trained, the type of ``config`` says: a model of images, an autoencoder, a classifier, an embedder, or a
    prior. The data are those that it names, or ``images`` and ``valid``, images of your own. The same call runs in one
    process or in many (``torchrun``). Returns what was trained, with averaged weights, and the state of the run;
    ``state.stopped`` says why it ended early, if it did.
    """
    directory = Path(directory)
    if images is None:
        images = config.data.load()
        if config.data.valid is not None and config.train.validate_every:
            valid = config.data.load(config.data.valid)
    task: Task
    match config:
        case ImageTraining():
            task = ImageTask(config, images, valid)
        case AutoencoderTraining():
            task = AutoencoderTask(config, images, valid)
        case ClassifierTraining():
            task = ClassifierTask(config, images, valid)
        case EmbedderTraining():
            task = EmbedderTask(config, images, valid)
        case PriorTraining():
            task = PriorTask(config, images)
    state = run_training(task, config.train, directory, resume=resume)
    weights = state.weights()
    info = {"steps": state.step, "images": len(images), "recipe": task.describe()}
    trained: Trained
    match task:
        case ImageTask() if task.config.rank is not None:
            trained = Adapter.from_training(task.model(), weights, info)
        case ImageTask():
            trained = ImageModel.from_training(task, weights, info)
        case PriorTask():
            trained = task.finished(weights, info)
        case _:
            assert isinstance(task, AutoencoderTask | ClassifierTask | EmbedderTask)
            trained = task.finished(weights)
    if state.first:
        path = directory / "model.safetensors"
        if isinstance(trained, ImageModel | Adapter | Prior):
            trained.save(path)
        else:
            trained.save(path, info)
    return trained, state
