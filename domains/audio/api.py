"""The verbs that notebooks and scripts begin with: load, recipe, train.

>>> from sciffusion.domains import audio                                      # doctest: +SKIP
>>> model = audio.load("fsdd")                                                # doctest: +SKIP
>>> model.sample(1, {"digit": 7, "speaker": "theo"}, seed=0)[0].play()        # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sciffusion.config import load as load_config
from sciffusion.training import TrainState
from sciffusion.training import train as run_training

from .clip import Clips
from .model import AudioModel
from .recovery import Recovery
from .shelf import SHELF
from .task import AudioTask, AudioTraining

__all__ = ["check_output", "load", "models", "recipe", "train"]

FORMATS = (".wav", ".flac", ".ogg")
"""What clips are written to."""


def models() -> dict[str, Path]:
    """The trained models that ship, by name, and their files."""
    return SHELF.all("model")


def load(name: str | Path, recovery: Recovery | None = None) -> AudioModel:
    """A trained model: the name of one that ships, or a file that ``save`` wrote.

    ``recovery`` makes waveforms of its spectrograms (None: Griffin-Lim).

    Raises:
        FileNotFoundError: neither; the message lists the names.
        ValueError: the recovery is made for other spectrograms.
    """
    return AudioModel.from_file(SHELF.find("model", name), recovery)


def recipe(name: str | Path, overrides: Sequence[str] = ()) -> AudioTraining:
    """A training configuration: the name of one that ships, or a YAML file; ``key=value`` overrides.

    Raises:
        FileNotFoundError: no such recipe or file.
        ConfigError: a key or value that is not right, with the right key suggested.
    """
    return load_config(AudioTraining, SHELF.find("recipe", name), overrides)


def check_output(path: Path) -> None:
    """Raise ``ValueError`` unless clips can be written to a file of this name."""
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"--out {path}: end it with one of {', '.join(FORMATS)}")


def train(
    config: AudioTraining,
    directory: str | Path,
    clips: Clips | None = None,
    valid: Clips | None = None,
    *,
    resume: bool = True,
) -> tuple[AudioModel, TrainState]:
    """Train a model in ``directory`` (continuing the run found there) and write ``model.safetensors`` in it.

    The data are those that the configuration names, or ``clips`` and ``valid``, clips of your own. The same call runs
    in one process or in many (``torchrun``). Returns the model with averaged weights and the state of the run;
    ``state.stopped`` says why it ended early, if it did.
    """
    directory = Path(directory)
    clips, valid = config.data.sets(clips, valid, check=bool(config.train.validate_every))
    task = AudioTask(config, clips, valid)
    state = run_training(task, config.train, directory, resume=resume)
    info = {"steps": state.step, "clips": len(task.sizes), "recipe": task.describe()}
    model = AudioModel.from_training(task, state.weights(), info)
    if state.first:
        model.save(directory / "model.safetensors")
    return model, state
