"""The verbs that notebooks and scripts begin with: load, recipe, train.

>>> from sciffusion.domains import audiovisual                           # doctest: +SKIP
>>> model = audiovisual.load("talking-digits")                           # doctest: +SKIP
>>> model.sample(4, {"digit": 7}, seed=0).save("sevens.mp4")             # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sciffusion.config import load as load_config
from sciffusion.shelf import Shelf
from sciffusion.training import TrainState
from sciffusion.training import train as run_training

from .data import TalkingDigits
from .model import SceneModel
from .task import SceneTask, SceneTraining

__all__ = ["DATASETS", "check_output", "load", "models", "recipe", "train"]

_SHELF = Shelf(Path(__file__).parent)

DATASETS: Mapping[str, Callable[[Path | None], tuple[object, Path]]] = {}
"""None of its own: scenes are made of moving digits and of spoken ones, which the domain of audio keeps."""


def models() -> dict[str, Path]:
    """The trained models that ship, by name, and their files."""
    return _SHELF.all("model")


def load(name: str | Path) -> SceneModel:
    """A trained model: the name of one that ships, or a file that ``save`` or training wrote.

    Raises:
        FileNotFoundError: neither; the message lists the names.
        ValueError: a file of something else.
    """
    return SceneModel.from_file(_SHELF.find("model", name))


def recipe(name: str | Path, overrides: Sequence[str] = ()) -> SceneTraining:
    """A training configuration: the name of one that ships, or a YAML file; ``key=value`` overrides.

    Raises:
        FileNotFoundError: no such recipe or file.
        ConfigError: a key or value that is not right, with the right key suggested.
    """
    return load_config(SceneTraining, _SHELF.find("recipe", name), overrides)


def check_output(path: Path) -> None:
    """Raise ``ValueError`` unless scenes can be written to a path of this name."""
    if path.suffix.lower() != ".mp4":
        raise ValueError(f"--out {path}: end it with .mp4, which holds pictures and sound")


def train(
    config: SceneTraining,
    directory: str | Path,
    scenes: TalkingDigits | None = None,
    valid: TalkingDigits | None = None,
    *,
    resume: bool = True,
) -> tuple[SceneModel, TrainState]:
    """Train in ``directory`` (continuing the run found there) and write ``model.safetensors`` in it.

    The data are those that ``config`` names, or ``scenes`` and ``valid``, made of pictures and voices of your own. The
    same call runs in one process or in many (``torchrun``). Returns the model, with averaged weights, and the state of
    the run; ``state.stopped`` says why it ended early, if it did.
    """
    directory = Path(directory)
    if scenes is None:
        scenes = config.data.load()
        if config.data.valid is not None and config.train.validate_every:
            valid = config.data.load(config.data.valid)
    task = SceneTask(config, scenes, valid)
    state = run_training(task, config.train, directory, resume=resume)
    info = {"steps": state.step, "pictures": len(scenes), "recipe": task.describe()}
    model = SceneModel.from_training(task, state.weights(), info)
    if state.first:
        model.save(directory / "model.safetensors")
    return model, state
