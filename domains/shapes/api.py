"""The verbs that notebooks and scripts begin with: load, recipe, train."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sciffusion.config import load as load_config
from sciffusion.shelf import Shelf
from sciffusion.training import TrainState
from sciffusion.training import train as run_training

from .container import Shapes
from .model import ShapeModel
from .task import ShapeTask, ShapeTraining

__all__ = ["check_output", "load", "models", "recipe", "train"]

_SHELF = Shelf(Path(__file__).parent)


def models() -> dict[str, Path]:
    """The trained models that ship, by name, and their files."""
    return _SHELF.all("model")


def load(name: str | Path) -> ShapeModel:
    """A trained model: the name of one that ships, or a file that ``save`` or training wrote.

    Raises:
        FileNotFoundError: neither; the message lists the names.
        ValueError: a file of something else.
    """
    return ShapeModel.from_file(_SHELF.find("model", name))


def recipe(name: str | Path, overrides: Sequence[str] = ()) -> ShapeTraining:
    """A training configuration: the name of one that ships, or a YAML file; ``key=value`` overrides.

    Raises:
        FileNotFoundError: no such recipe or file.
        ConfigError: a key or value that is not right, with the right key suggested.
    """
    return load_config(ShapeTraining, _SHELF.find("recipe", name), overrides)


def check_output(path: Path) -> None:
    """Raise ``ValueError`` unless shapes can be written to a path of this name."""
    if path.suffix not in (".npz", ".ply", ""):
        raise ValueError(
            f"--out {path}: end it with .npz (points and labels), .ply (one shape), or nothing (a folder of .ply)"
        )


def train(
    config: ShapeTraining,
    directory: str | Path,
    shapes: Shapes | None = None,
    valid: Shapes | None = None,
    *,
    resume: bool = True,
) -> tuple[ShapeModel, TrainState]:
    """Train in ``directory`` (continuing the run found there) and write ``model.safetensors`` in it.

    The data are those that ``config`` names, or ``shapes`` and ``valid``, shapes of your own. The same call runs in one
    process or in many (``torchrun``). Returns the model, with averaged weights, and the state of the run;
    ``state.stopped`` says why it ended early, if it did.
    """
    directory = Path(directory)
    if shapes is None:
        shapes = config.data.load()
        if config.data.valid is not None and config.train.validate_every:
            valid = config.data.load(config.data.valid)
    task = ShapeTask(config, shapes, valid)
    state = run_training(task, config.train, directory, resume=resume)
    info = {"steps": state.step, "shapes": len(shapes), "recipe": task.describe()}
    model = ShapeModel.from_training(task, state.weights(), info)
    if state.first:
        model.save(directory / "model.safetensors")
    return model, state
